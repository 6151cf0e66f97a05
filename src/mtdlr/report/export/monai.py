"""A frozen model in the layout of a MONAI bundle: configs/metadata.json, configs/inference.json, docs/README.md."""

from __future__ import annotations

from typing import Any

from mtdlr.report.export.card import NOT_STATED, PAPER, Card
from mtdlr.report.prediction import RESEARCH

SCHEMA = "https://project-monai.github.io/schema/meta_schema_20240725.json"
UNKNOWN = "not known"
PLACE = "models/mtdlr"
"""Where the model folder lies. It holds safetensors: models/model.pt, a pickle, is not written."""


def monai_files(card: Card) -> dict[str, Any]:
    """Values of the JSON files, by name."""
    return {"configs/metadata.json": _metadata(card), "configs/inference.json": _inference()}


def _metadata(card: Card) -> dict[str, Any]:
    versions = card.model.facts.get("versions", {})
    authors = ", ".join(card.terms.authors) or NOT_STATED
    return {
        "schema": SCHEMA, "version": card.facts.digest, "changelog": {card.facts.digest: "trained and frozen"},
        "monai_version": "none: the networks are mtdlr's", "pytorch_version": str(versions.get("torch", UNKNOWN)),
        "numpy_version": str(versions.get("numpy", UNKNOWN)),
        "required_packages_version": {"mtdlr": card.facts.version or UNKNOWN},
        "name": card.title, "task": f"Tumour mask and {card.endpoint} from FDG-PET/CT", "description": card.use,
        "authors": authors, "copyright": f"Licence of the model: {card.terms.licence or NOT_STATED}",
        "data_source": f"{card.facts.n} patients, {card.facts.events} events; see docs/README.md",
        "data_type": "DICOM or NIfTI", "pred_classes": "tumour",
        "image_classes": "channel 0: PET, SUV scaled; channel 1: CT, HU scaled to -1 to 1",
        "eval_metrics": {f"C-index, {name}": round(c.value, 6) for name, c in card.c_index.items()},
        "intended_use": f"{RESEARCH} {card.use}", "references": [PAPER], "network_data_format": _data_format(card),
    }


def _data_format(card: Card) -> dict[str, Any]:
    edge = card.model.study.prepare.size
    tensor = {"spatial_shape": [edge, edge, edge], "dtype": "float32", "is_patch_data": False}
    return {
        "inputs": {"image": tensor | {"type": "image", "format": "PET and CT", "num_channels": 2,
                                      "value_range": [-1, 1], "channel_def": {"0": "PET", "1": "CT"}}},
        "outputs": {
            "probability": tensor | {"type": "image", "format": "segmentation", "num_channels": 1,
                                     "value_range": [0, 1], "channel_def": {"0": "tumour"}},
            "risk": {"type": "probabilities", "format": "log hazard; higher is worse", "num_channels": 1,
                     "spatial_shape": [], "dtype": "float32", "value_range": []}},
    }


def _inference() -> dict[str, Any]:
    """Reads every network of the model folder, whose files are checked first; nothing is unpickled."""
    return {"imports": ["$import mtdlr"], "bundle_root": ".", "model": f"$mtdlr.Bundle.load(@bundle_root + '/{PLACE}')",
            "patient": "patient", "clinical": {}, "run": "$[@model.predict(@patient, clinical=@clinical)]"}
