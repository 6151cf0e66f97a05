"""A frozen model as a BIDS derivative without subjects, to be filled by whoever predicts with it.

BIDS has no place for models. The model folder lies in code/, which BIDS leaves to the user.
"""

from __future__ import annotations

from typing import Any

from mtdlr.report.export.card import PAPER, Card
from mtdlr.report.prediction import RESEARCH
from mtdlr.versions import package_version

BIDS_VERSION = "1.11.1"
PLACE = "code/model"


def bids_files(card: Card) -> dict[str, Any]:
    """Values of the JSON files, by name."""
    return {"dataset_description.json": _description(card)}


def _description(card: Card) -> dict[str, Any]:
    terms = card.terms
    return {
        "Name": card.title, "BIDSVersion": BIDS_VERSION, "DatasetType": "derivative",
        **({"License": terms.licence} if terms.licence else {}),
        **({"Authors": list(terms.authors)} if terms.authors else {}),
        "HowToAcknowledge": f"Cite {PAPER}", "ReferencesAndLinks": ["https://doi.org/10.1007/s00259-023-06399-7"],
        "GeneratedBy": [{"Name": "mtdlr", "Version": package_version(),
                         "Description": f"{RESEARCH} Model {card.facts.digest} in {PLACE}"}],
    }
