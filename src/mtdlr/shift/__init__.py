"""What a frozen model keeps of its training patients (`aggregates`); how far a new one lies from them (`distance`), and
where its risk stands among theirs (`standing`).
"""

from mtdlr.shift.distance import (
    BEHIND_A_NUMBER,
    DESCRIPTION,
    LEAST_PATIENTS,
    Description,
    Reference,
    ReferenceGroup,
    Shift,
    describe,
    image_hashes,
    images_of,
    load_description,
    patient_numbers,
    physical_values,
)
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
]
