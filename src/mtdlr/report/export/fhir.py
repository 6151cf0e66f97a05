"""A frozen model as FHIR R4 resources: a Device, whom a RiskAssessment names, and a Library that describes it."""

from __future__ import annotations

from typing import Any

from mtdlr.report.export.card import NOT_STATED, PAPER, Card
from mtdlr.report.prediction import RESEARCH

DOI = "https://doi.org/10.1007/s00259-023-06399-7"
_TYPE = "http://terminology.hl7.org/CodeSystem/library-type"


def fhir_bundle(card: Card) -> dict[str, Any]:
    """The resources as plain values for JSON."""
    return {"resourceType": "Bundle", "type": "collection",
            "entry": [{"resource": _device(card)}, {"resource": _library(card)}]}


def _device(card: Card) -> dict[str, Any]:
    return {
        "resourceType": "Device", "id": f"mtdlr-{card.facts.digest}", "identifier": [{"value": card.facts.digest}],
        "status": "active",
        "deviceName": [{"name": card.title, "type": "model-name"}],
        "type": {"text": "software that predicts prognosis, for research only"},
        "version": [{"type": {"text": "mtdlr"}, "value": card.facts.version or "not known"}],
        "note": [{"text": RESEARCH}],
    }


def _library(card: Card) -> dict[str, Any]:
    performance = "; ".join(f"{name}: C-index {c.value:.3f}" for name, c in card.c_index.items())
    return {
        "resourceType": "Library", "id": f"mtdlr-{card.facts.digest}-card",
        "identifier": [{"value": card.facts.digest}],
        "version": card.facts.version or "not known", "title": card.title, "status": "active", "experimental": True,
        "type": {"coding": [{"system": _TYPE, "code": "model-definition"}]},
        "publisher": ", ".join(card.terms.authors) or NOT_STATED, "copyright": card.terms.licence or NOT_STATED,
        "purpose": card.use, "usage": performance or "No figure is known.", "description": card.text(),
        "relatedArtifact": [{"type": "citation", "citation": PAPER, "url": DOI}],
    }
