"""What a frozen model keeps of its training patients (`aggregates`); how a new one looks (`description`), how far it
lies from them (`distance`, `network`), and where its risk stands among theirs (`standing`).
"""

from mtdlr.shift.description import (
    DESCRIPTION,
    Description,
    describe,
    image_hashes,
    images_of,
    load_description,
    patient_numbers,
    physical_values,
    scanner_labels,
)
from mtdlr.shift.distance import BEHIND_A_NUMBER, LEAST_PATIENTS, Reference, ReferenceGroup, Shift
from mtdlr.shift.standing import TrainingRisks

__all__ = [
    "BEHIND_A_NUMBER",
    "DESCRIPTION",
    "LEAST_PATIENTS",
    "Description",
    "Reference",
    "ReferenceGroup",
    "Shift",
    "TrainingRisks",
    "describe",
    "image_hashes",
    "images_of",
    "load_description",
    "patient_numbers",
    "physical_values",
    "scanner_labels",
]
