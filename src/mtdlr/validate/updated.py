"""The updated model of a validation: a bundle of its own, beside the results, which no later call overwrites."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from mtdlr.bundle import read_bundle, save_bundle
from mtdlr.errors import BundleError, Problem, StoreError
from mtdlr.model import FrozenModel
from mtdlr.study import MAIN
from mtdlr.validate.update import NomogramUpdate

UPDATED = "updated-model"


def updated_model(model: FrozenModel, update: NomogramUpdate) -> FrozenModel:
    """The model with its updated nomogram, and in its facts the parent's hash, the method, patients and events.

    Args:
        model: as it was received.
        update: of its main nomogram.
    """
    facts = {name: value for name, value in model.facts.items() if name != "c"} | {
        "parent": model.digest, "update": update.update.method, "update_n": update.update.n,
        "update_events": update.update.n_events}
    kept = model.aggregates  # the risks of its training patients are the parent's
    return replace(model, nomograms={**model.nomograms, MAIN: update.nomogram}, facts=facts,
                   aggregates=None if kept is None else replace(kept, risks=None))


def require_free(folder: Path, model: FrozenModel, update: str) -> None:
    """Refuse, before hours of work, a folder whose updated model comes from another model or by another method.

    Args:
        folder: of the validation.
        model: that is judged and updated.
        update: the method; "none" needs no place.

    Raises:
        StoreError: E-EXISTS.
    """
    held = None if update == "none" else _held(folder)
    if held is not None and (held.facts.get("parent"), held.facts.get("update")) != (model.digest, update):
        raise StoreError(_taken())


def require_same(folder: Path, updated: FrozenModel) -> None:
    """Refuse a folder that holds another updated model than this one.

    Args:
        folder: of the validation.
        updated: what shall be written there.

    Raises:
        StoreError: E-EXISTS.
    """
    held = _held(folder)
    if held is not None and held.digest != updated.digest:
        raise StoreError(_taken())


def save_updated(folder: Path, updated: FrozenModel) -> None:
    """Write the updated model, unless it is there already.

    Args:
        folder: of the validation; free, or with this very model (`require_same`).
        updated: the model.
    """
    if _held(folder) is None:
        (folder / UPDATED).mkdir(exist_ok=True)
        save_bundle(updated, folder / UPDATED)


def _held(folder: Path) -> FrozenModel | None:
    """The updated model in a folder; None where nothing lies there.

    Raises:
        StoreError: E-EXISTS for something that is no whole model.
    """
    target = folder / UPDATED
    if not target.exists() or not any(target.iterdir()):
        return None
    try:
        return read_bundle(target)
    except BundleError:
        raise StoreError(_taken()) from None


def _taken() -> Problem:
    return Problem("E-EXISTS", "the folder holds another updated model, which would be lost", where=UPDATED,
                   remedy="Choose another folder with -o, or move that model away")
