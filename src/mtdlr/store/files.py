"""Files written whole or not at all: texts, and folders that are shown to people."""

from __future__ import annotations

import ctypes
import errno
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mtdlr.errors import Problem, StoreError

MANIFEST = "manifest.json"
PUBLISHED = "published.json"
_SIDE = ".publishing-"
FULL = (errno.ENOSPC, errno.EDQUOT)


def digest(values: Any) -> str:
    """Sixteen hex digits that stand for any plain values."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def strict_json(text: str) -> dict[str, Any]:
    """The object of a JSON text that names no key twice.

    Raises:
        ValueError: for another text, for nesting too deep to be ours, for NaN and infinity.
    """
    try:
        values = json.loads(text, object_pairs_hook=_once, parse_constant=_no_number)
    except RecursionError:
        raise ValueError("nested too deep") from None
    if not isinstance(values, dict):
        raise ValueError("no object")
    return values


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice")
    return found


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no number")


def disk_full(folder: Path | None) -> Problem:
    """What to say when the disk has no room."""
    found = "" if folder is None else f"{shutil.disk_usage(folder).free} bytes free"
    return Problem("E-DISKFULL", "no space left on the device", where=str(folder or ""), found=found,
                   remedy="Free some space and run again: what is finished is kept")


def disk_problem(error: OSError) -> Problem | None:
    """E-DISKFULL or E-READONLY for the system's "no space left" and "read-only file system"; None for other errors.

    Of a file only the folder is told.

    Args:
        error: of the system.
    """
    where = Path(error.filename).absolute().parent if isinstance(error.filename, str) else None
    if number_of(error) in FULL:
        return disk_full(where and next(p for p in (where, *where.parents) if p.exists()))
    if number_of(error) == errno.EROFS:
        return Problem("E-READONLY", "the disk is read-only", where=str(where or ""),
                       remedy="Choose a place that can be written")
    return None


def number_of(error: OSError) -> int | None:
    """The system's number of an error, also where Python passes on its text alone (`shutil.copytree`, numpy)."""
    if error.errno is not None:
        return error.errno
    if found := re.search(r"\[Errno (\d+)\]", str(error)):
        return int(found[1])
    return errno.ENOSPC if re.search(r"\d+ requested and \d+ written", str(error)) else None


@contextmanager
def room_on(folder: Path) -> Iterator[None]:
    """Turn the system's "no space left" and "read-only" into errors of ours.

    Raises:
        StoreError: E-DISKFULL, E-READONLY.
    """
    try:
        yield
    except OSError as error:
        if number_of(error) in FULL:
            raise StoreError(disk_full(folder)) from error
        if number_of(error) in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise StoreError(Problem("E-READONLY", "the run folder cannot be written", where=str(folder),
                                     found=error.strerror or "", remedy="Choose another with run.folder")) from error
        raise


def require_writable(path: Path) -> None:
    """Refuse a file that cannot be written, before any work is done for it.

    Raises:
        StoreError: E-READONLY.
    """
    there = next(p for p in (path, *path.absolute().parents) if p.exists())
    if not os.access(there, os.W_OK) or path.is_dir() or (there != path and not there.is_dir()):
        raise StoreError(Problem("E-READONLY", "the output cannot be written", where=str(path),
                                 remedy="Choose another place"))


def write_atomic(path: Path, text: str) -> None:
    """Write a text file whole or not at all.

    Args:
        path: the file; its folder must exist.
        text: its content, written as UTF-8.

    Raises:
        StoreError: E-DISKFULL, E-READONLY.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with room_on(path.parent):
            temporary.write_text(text, encoding="utf-8")
            temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def publish(result: Path, target: Path, name: str) -> None:
    """Show a stored result in the folder where people look for it, and take away what it showed there before.

    The new files are copied beside the old ones first; then each file and each whole folder at the top takes its
    place by a rename, so that a reader sees the old one or the new one. Files of an earlier publication that the new
    one does not have (a withdrawn patient's page, a network of a fold that is gone) are removed. A result that is
    shown already is left alone.

    Args:
        result: the stored folder.
        target: where its files are shown.
        name: what is published, `report` or `bundle`; each removes only what it has shown itself.

    Raises:
        StoreError: E-DISKFULL; what was shown before stays.
    """
    shown = _shown(target)
    entries = sorted(path.name for path in result.iterdir() if path.name != MANIFEST)
    if shown.get(name, {}).get("key") == result.name and _same_sizes(result, target):
        return
    side = target / f"{_SIDE}{secrets.token_hex(4)}"
    with room_on(target.parent if not target.exists() else target):
        target.mkdir(parents=True, exist_ok=True)
        for abandoned in target.glob(f"{_SIDE}*"):
            shutil.rmtree(abandoned, ignore_errors=True)
        try:
            shutil.copytree(result, side, ignore=shutil.ignore_patterns(MANIFEST))
            for entry in entries:
                _take_place(side / entry, target / entry)
            for old in set(shown.get(name, {}).get("entries", ())) - set(entries):
                _remove(target / old)
            write_atomic(target / PUBLISHED, json.dumps(
                shown | {name: {"key": result.name, "entries": entries}}, indent=1, sort_keys=True))
        finally:
            shutil.rmtree(side, ignore_errors=True)


def _shown(target: Path) -> dict[str, Any]:
    """What was published in a folder, by name; nothing where that cannot be read."""
    try:
        found = json.loads((target / PUBLISHED).read_text(encoding="utf-8"))
        return {str(k): v for k, v in found.items() if isinstance(v, dict)}
    except (OSError, ValueError, AttributeError):
        return {}


def _same_sizes(result: Path, target: Path) -> bool:
    """Whether every file of the result stands in the target with its size."""
    try:
        return all((target / path.relative_to(result)).stat().st_size == path.stat().st_size
                   for path in result.rglob("*") if path.is_file() and path.name != MANIFEST)
    except OSError:
        return False


def _take_place(new: Path, old: Path) -> None:
    """Rename a new file or folder over an old one; the old one lies in the new one's place afterwards, or is gone."""
    if new.is_file() and not old.is_dir():
        new.replace(old)
    elif not old.exists():
        new.rename(old)
    elif not _exchange(new, old):
        away = new.with_name(f"{new.name}.old")
        old.rename(away)
        new.rename(old)


def _exchange(a: Path, b: Path) -> bool:
    """Swap two names in one step where the system can (Linux, local file systems)."""
    try:
        call = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError, TypeError):
        return False
    here, swap = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return bool(call(here, os.fsencode(a), here, os.fsencode(b), swap) == 0)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
