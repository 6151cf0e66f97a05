"""Writes a frozen model in another format: a new folder with the model, the card and what the format asks for."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, Literal

from mtdlr.bundle import read_bundle
from mtdlr.errors import MtdlrError, Problem
from mtdlr.report.export import bids, hugging_face, monai
from mtdlr.report.export.bids import bids_files
from mtdlr.report.export.card import Card, Terms, card_of
from mtdlr.report.export.fhir import fhir_bundle
from mtdlr.report.export.hugging_face import hugging_face_readme
from mtdlr.report.export.monai import monai_files
from mtdlr.store import PUBLISHED, room_on

Form = Literal["monai", "hf", "bids", "fhir"]


def export_model(bundle: str | Path, out: str | Path, form: Form, *, terms: Terms | None = None) -> list[str]:
    """Write a model folder in another format. The model folder is copied whole, so that `mtdlr predict` reads the copy;
    FHIR resources describe the model and hold no copy.

    Args:
        bundle: the model folder; every byte of it is checked.
        out: folder to make; one that is empty is taken too.
        form: `monai` (a bundle's configs and docs), `hf` (a repository of Hugging Face), `bids` (a derivative without
            subjects) or `fhir` (R4 Device and Library).
        terms: licence and authors of the model, which no model folder holds.

    Returns:
        The names of the files that describe the model.

    Raises:
        BundleError: as `read_bundle`.
        MtdlrError: E-EXISTS for a folder that holds something.
    """
    bundle, out = Path(bundle), Path(out)
    card = card_of(read_bundle(bundle), terms or Terms())
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise MtdlrError(Problem("E-EXISTS", "the folder to write to is not empty", where=out.name,
                                 remedy="Choose another folder, or empty it"))
    files, place = _files(card, form)
    with room_on(out):
        for name, content in files.items():
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            text = content if isinstance(content, str) else json.dumps(content, indent=1, ensure_ascii=False) + "\n"
            (out / name).write_text(text, encoding="utf-8", newline="\n")
        if place:
            shutil.copytree(bundle, out / place, ignore=shutil.ignore_patterns(PUBLISHED, ".*"))
    return sorted(files)


def _files(card: Card, form: Form) -> tuple[dict[str, Any], str]:
    """The files that describe the model, by name, and where the model folder goes; "" for nowhere."""
    text = card.text()
    if form == "monai":
        return monai_files(card) | {"docs/README.md": text}, monai.PLACE
    if form == "hf":
        return {"README.md": hugging_face_readme(card)}, hugging_face.PLACE
    if form == "bids":
        return bids_files(card) | {"README.md": text}, bids.PLACE
    return {"bundle.json": fhir_bundle(card), "README.md": text}, ""
