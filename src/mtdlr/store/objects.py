"""Stored results: whole or absent, named by the recipe that made them.

`key = sha256(stage, version, settings, keys of the inputs)[:16]`. A result is built in a scratch folder and renamed to
`objects/<stage>/<key>/`, and `manifest.json` holds the SHA-256 of each of its files: one that was damaged is made
again. A changed setting changes the keys of what depends on it and of nothing else.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mtdlr.errors import Problem, StoreError
from mtdlr.store.files import MANIFEST, file_hash, room_on
from mtdlr.store.index import Index
from mtdlr.store.recipe import Recipe, made_by
from mtdlr.store.scratch import alive, drop_others, give_back, scratch_folder

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Store:
    """A run folder: `objects/` for results, `scratch/` for what is under way.

    Args:
        root: the folder.
        index: what is known to be whole, so that planning need not hash it again; not carried into workers.
    """

    root: Path
    index: Index | None = field(default=None, compare=False, repr=False)

    def __reduce__(self) -> tuple[type[Store], tuple[Path]]:
        return Store, (self.root,)

    def folder(self, recipe: Recipe) -> Path:
        """Where the result of a recipe is, or will be."""
        return self.root / "objects" / recipe.stage / recipe.key

    def has(self, recipe: Recipe) -> bool:
        """Whether the result is there, every file at its full size (no hashing)."""
        folder = self.folder(recipe)
        try:
            return all((folder / name).stat().st_size == entry["bytes"] for name, entry in _files(folder).items())
        except (OSError, ValueError):
            return False

    def find(self, recipe: Recipe) -> Path | None:
        """The folder of the recipe's result if it is there, every file as it was stored; else None.

        A file is hashed unless the index knows it whole at the same size and time of change.
        """
        folder = self.folder(recipe)
        if self.index and self.index.knows(recipe.name, folder):
            return folder
        if not folder.is_dir():
            return None
        if _intact(folder):
            self.note(recipe)
            return folder
        log.warning(str(Problem("W-CORRUPT", "a stored result was damaged and is made again", where=recipe.name)))
        if self.index:
            self.index.damaged.add(recipe.name)
        return None

    def note(self, recipe: Recipe) -> None:
        """Remember a result that was found or made whole."""
        if self.index:
            folder = self.folder(recipe)
            self.index.add(recipe.name, folder, list(_files(folder)), str(_made(folder).get("source", "")))

    def make(self, recipe: Recipe, build: Callable[[Path], None]) -> Path:
        """The folder of the recipe's result, built first if it is not there whole.

        Args:
            recipe: what the result is made of.
            build: writes the files of the result into the scratch folder it is given.

        Raises:
            StoreError: E-DISKFULL when the disk has no room, E-READONLY; whatever `build` raises.
        """
        found = self.find(recipe)
        if found:
            return found
        with room_on(self.root):
            scratch = scratch_folder(self.root / "scratch", recipe)
            try:
                with alive(scratch):
                    build(scratch)
                    _write_manifest(scratch, recipe)
                return self._finish(scratch, recipe)
            except BaseException:
                if recipe.resumable:
                    give_back(scratch)
                else:
                    shutil.rmtree(scratch, ignore_errors=True)
                raise

    def _finish(self, scratch: Path, recipe: Recipe) -> Path:
        """Rename the scratch folder into place; where another process was first and whole, take its result."""
        target = self.folder(recipe)
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists() and not _intact(target):
            shutil.rmtree(target, ignore_errors=True)
        try:
            scratch.rename(target)
        except OSError:
            if not _intact(target):
                raise
            shutil.rmtree(scratch, ignore_errors=True)
        if recipe.resumable:
            drop_others(scratch.parent, recipe)
        return target


def verify(folder: Path) -> None:
    """Refuse a stored input whose files are not those that were stored (a worker's look before it reads).

    A folder without a manifest is no stored result: the networks of a frozen model are checked by its own hashes.

    Raises:
        StoreError: E-CORRUPT.
    """
    if (folder / MANIFEST).exists() and not _intact(folder):
        raise StoreError(Problem("E-CORRUPT", "a stored result was damaged while the run went on",
                                 where=f"{folder.parent.name}/{folder.name}", remedy="Run again: it is made anew"))


def _files(folder: Path) -> Mapping[str, Mapping[str, Any]]:
    """The files that a manifest lists.

    Raises:
        OSError, ValueError: when there is no manifest, or it does not list files with size and hash.
    """
    files = json.loads((folder / MANIFEST).read_text())
    files = files.get("files") if isinstance(files, dict) else None
    if not isinstance(files, dict) or not files:
        raise ValueError("no files listed")
    if not all(isinstance(e, dict) and {"bytes", "sha256"} <= e.keys() for e in files.values()):
        raise ValueError("files without size or hash")
    return files


def _made(folder: Path) -> Mapping[str, Any]:
    """Which code made a result; empty where the manifest does not say."""
    made = json.loads((folder / MANIFEST).read_text()).get("made_by")
    return made if isinstance(made, dict) else {}


def _write_manifest(folder: Path, recipe: Recipe) -> None:
    """List every file with size and hash; written last, so that its presence means done."""
    files = {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": file_hash(path)}
        for path in sorted(folder.rglob("*")) if path.is_file() and path.name != MANIFEST
    }
    manifest = {"stage": recipe.stage, "version": recipe.version, "made_by": made_by(recipe.stage),
                "settings": recipe.settings, "inputs": recipe.inputs, "files": files}
    with (folder / MANIFEST).open("w") as handle:
        json.dump(manifest, handle, indent=1, sort_keys=True)
        handle.flush()
        os.fsync(handle.fileno())


def _intact(folder: Path) -> bool:
    """Whether every file of a finished result still has the hash it was stored with."""
    try:
        return all(file_hash(folder / name) == entry["sha256"] for name, entry in _files(folder).items())
    except (OSError, ValueError):
        return False
