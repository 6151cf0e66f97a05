"""The store: what a stage leaves on disk, named by the recipe that made it.

`key = sha256(stage, version, settings, keys of the inputs)[:16]`. A result is built in a scratch folder and renamed to
`objects/<stage>/<key>/`, so it is either whole or absent, and `manifest.json` holds the SHA-256 of each of its files:
one that was damaged is made again. A changed setting changes the keys of what depends on it and of nothing else.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mtdlr.errors import Problem, StoreError

log = logging.getLogger(__name__)
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Recipe:
    """What a result is made of: nothing else may influence it.

    Args:
        stage: the folder it is kept in.
        settings: plain JSON values.
        inputs: key or content hash of each input, by name.
        version: raised when the stage's own code changes its results.
        resumable: the build goes on from what an interrupted one left in its scratch folder.

    >>> Recipe("prepare", {"size": 32}, {"scan": "ab12"}).key == Recipe("prepare", {"size": 48}, {"scan": "ab12"}).key
    False
    """

    stage: str
    settings: Mapping[str, Any]
    inputs: Mapping[str, str] = field(default_factory=dict)
    version: int = 1
    resumable: bool = False

    @property
    def key(self) -> str:
        """Sixteen hex digits."""
        return digest([self.stage, self.version, self.settings, self.inputs])


@dataclass(frozen=True)
class Store:
    """A run folder: `objects/` for results, `scratch/` for what is under way."""

    root: Path

    def folder(self, recipe: Recipe) -> Path:
        """Where the result of a recipe is, or will be."""
        return self.root / "objects" / recipe.stage / recipe.key

    def has(self, recipe: Recipe) -> bool:
        """Whether the result is there, every file at its full size (no hashing)."""
        folder = self.folder(recipe)
        try:
            files = _manifest(folder)["files"]
            return all((folder / name).stat().st_size == entry["bytes"] for name, entry in files.items())
        except (OSError, ValueError, KeyError):
            return False

    def find(self, recipe: Recipe) -> Path | None:
        """The folder of the recipe's result if it is there, every file with its hash; else None."""
        if not self.has(recipe):
            return None
        if _intact(self.folder(recipe)):
            return self.folder(recipe)
        log.warning(str(Problem("W-CORRUPT", "a stored result was damaged and is made again",
                                where=f"{recipe.stage}/{recipe.key}")))
        return None

    def make(self, recipe: Recipe, build: Callable[[Path], None]) -> Path:
        """The folder of the recipe's result, built by `build(scratch folder)` if it is not there whole.

        Raises:
            StoreError: E-DISKFULL when the disk has no room; whatever `build` raises.
        """
        found = self.find(recipe)
        if found:
            return found
        scratch = self._scratch(recipe)
        try:
            build(scratch)
            _write_manifest(scratch, recipe)
            return self._publish(scratch, recipe)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise StoreError(disk_full(self.root)) from error
            raise

    def _scratch(self, recipe: Recipe) -> Path:
        """An empty folder to build in; of a resumable recipe, the one an interrupted build left."""
        name = f"{recipe.stage}-{recipe.key}" + ("" if recipe.resumable else f"-{os.getpid()}")
        folder = self.root / "scratch" / name
        if folder.exists() and not recipe.resumable:
            shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _publish(self, scratch: Path, recipe: Recipe) -> Path:
        """Rename the scratch folder into place; where another process was first and whole, take its result."""
        target = self.folder(recipe)
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists():
            if _intact(target):
                shutil.rmtree(scratch)
                return target
            shutil.rmtree(target)
        try:
            scratch.rename(target)
        except OSError:
            if not _intact(target):
                raise
            shutil.rmtree(scratch)
        return target


@contextmanager
def open_store(root: Path) -> Iterator[Store]:
    """The store at `root`, held by this process alone; what a dead process left half-made is cleared away.

    Raises:
        StoreError: E-LOCKED while another process runs there, E-READONLY where nothing can be written.
    """
    try:
        (root / "objects").mkdir(parents=True, exist_ok=True)
        (root / "scratch").mkdir(exist_ok=True)
        handle = open(root / "lock", "a+")
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise StoreError(disk_full(root)) from None
        raise StoreError(Problem("E-READONLY", "the run folder cannot be written", where=str(root),
                                 found=error.strerror or "", remedy="Choose another with run.folder")) from None
    with handle:
        try:
            # The kernel drops the lock when its process ends, however it ends: a lock is never stale.
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreError(Problem("E-LOCKED", "another process is working in this run folder", where=str(root),
                                     remedy="Wait for it, or set run.folder to another one")) from None
        _clear_scratch(root / "scratch")
        yield Store(root)


def write_atomic(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        if error.errno == errno.ENOSPC:
            raise StoreError(disk_full(path.parent)) from None
        raise


def digest(values: Any) -> str:
    """Sixteen hex digits that stand for any plain values."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def disk_full(folder: Path) -> Problem:
    """What to say when the disk has no room."""
    free = shutil.disk_usage(folder).free
    return Problem("E-DISKFULL", "no space left on the device", where=str(folder), found=f"{free} bytes free",
                   remedy="Free some space and run again: what is finished is kept")


def _clear_scratch(scratch: Path) -> None:
    """Remove what interrupted builds left, but for trainings, which resume (their folders carry no process id)."""
    for folder in scratch.iterdir():
        if folder.name.count("-") > 1:
            shutil.rmtree(folder, ignore_errors=True)


def _manifest(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / MANIFEST).read_text()))


def _write_manifest(folder: Path, recipe: Recipe) -> None:
    """List every file with size and hash; written last, so that its presence means done."""
    files = {
        str(path.relative_to(folder)): {"bytes": path.stat().st_size, "sha256": file_hash(path)}
        for path in sorted(folder.rglob("*")) if path.is_file() and path.name != MANIFEST
    }
    manifest = {"stage": recipe.stage, "version": recipe.version, "settings": recipe.settings,
                "inputs": recipe.inputs, "files": files}
    with (folder / MANIFEST).open("w") as handle:
        json.dump(manifest, handle, indent=1, sort_keys=True)
        handle.flush()
        os.fsync(handle.fileno())


def _intact(folder: Path) -> bool:
    """Whether every file of a finished result still has the hash it was stored with."""
    try:
        files = _manifest(folder)["files"]
        return all(file_hash(folder / name) == entry["sha256"] for name, entry in files.items())
    except (OSError, ValueError, KeyError):
        return False


# ---- status --------------------------------------------------------------------------------------------------------

STORED = ("prepare", "train", "score", "radiomics", "signature", "picture", "report", "bundle")


def run_status(folder: Path) -> dict[str, str]:
    """Stage -> what is there, for people.

    Args:
        folder: a run folder, there or not.
    """
    if not (folder / "objects").is_dir():
        return {"run": f"not started ({folder})"}
    rows = {"run": ("working" if _is_held(folder / "lock") else "not running now") + f" ({folder})"}
    for stage in STORED:
        done = len(list((folder / "objects" / stage).glob("*/manifest.json")))
        under_way = len(list((folder / "scratch").glob(f"{stage}-*")))
        rows[stage] = f"{done} stored" + (f", {under_way} under way" if under_way else "")
    rows["problems"] = _count_problems(folder / "problems.json")
    return rows | {"report": str(folder / "report.html") if (folder / "report.html").exists() else "not yet"}


def _is_held(lock: Path) -> bool:
    """Whether a process holds the run folder."""
    try:
        with lock.open("r+") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return False
    except BlockingIOError:
        return True
    except OSError:
        return False


def _count_problems(path: Path) -> str:
    if not path.exists():
        return "not yet known"
    codes = [problem["code"] for problem in json.loads(path.read_text())]
    return f"{sum(c.startswith('E-') for c in codes)} errors, {sum(c.startswith('W-') for c in codes)} warnings"
