"""What is known to be whole, or unchanged: remembered by size and time of change, so that nothing is hashed twice.

Each process appends lines to a file of its own; a process that holds the run folder alone joins them into one.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

from mtdlr.store.files import MANIFEST, room_on, write_atomic
from mtdlr.store.scratch import owner

WHOLE = "whole.jsonl"
Stamp = list[list[Any]]
"""(name, bytes, time of change in ns) of each file."""


class Lines:
    """Values by name in a folder of JSON lines; the last line of a name counts, of several files the latest one's."""

    def __init__(self, folder: Path, *, join: bool) -> None:
        self._folder, self._own, self._handle = folder, folder / f"{owner()}.jsonl", None
        parts = sorted(folder.glob("*.jsonl"), key=_age)
        self.values: dict[str, Any] = {}
        for part in parts:
            self.values.update(_read(part))
        if join and [path.name for path in parts] not in ([], [WHOLE]):
            write_atomic(folder / WHOLE, "".join(f"{json.dumps(pair)}\n" for pair in self.values.items()))
            for part in parts:
                if part.name != WHOLE:
                    part.unlink(missing_ok=True)

    _handle: TextIO | None

    def put(self, name: str, value: Any) -> None:
        """Remember a value: one line more in this process's file, unless it is known already.

        Args:
            name: what the value belongs to.
            value: any JSON value.

        Raises:
            StoreError: E-DISKFULL, E-READONLY.
        """
        if self.values.get(name) == value:
            return
        self.values[name] = value
        with room_on(self._folder):
            if self._handle is None:
                self._folder.mkdir(parents=True, exist_ok=True)
                self._handle = self._own.open("a", buffering=1, encoding="utf-8")
            self._handle.write(f"{json.dumps([name, value])}\n")

    def close(self) -> None:
        """Write what is buffered."""
        if self._handle is not None:
            self._handle.close()


class Index:
    """Which stored results are whole, and which code made them.

    Attributes:
        damaged: names of the results that were found damaged since the run folder was opened.
    """

    def __init__(self, folder: Path, *, join: bool) -> None:
        self._lines = Lines(folder, join=join)
        self.damaged: set[str] = set()

    def knows(self, name: str, folder: Path) -> bool:
        """Whether the result was whole when its files had the size and time of change that they have now.

        Args:
            name: name of the result's recipe.
            folder: folder of the result.
        """
        entry = self._lines.values.get(name)
        if not isinstance(entry, dict):
            return False
        return stamp_of(folder, [row[0] for row in entry["stamp"]]) == entry["stamp"]

    def add(self, name: str, folder: Path, files: Sequence[str], source: str) -> None:
        """Remember a whole result: its files as they are now, and the hash of the code that made it.

        Args:
            name: name of the result's recipe.
            folder: folder of the result.
            files: names of its files in the folder; the manifest is added.
            source: hash of the code that made it.
        """
        stamp = stamp_of(folder, sorted({*files, MANIFEST}))
        if stamp is not None:
            self._lines.put(name, {"stamp": stamp, "source": source})

    def source(self, name: str) -> str:
        """Hash of the source that made a result; "" where that is not known."""
        entry = self._lines.values.get(name)
        return str(entry.get("source", "")) if isinstance(entry, dict) else ""

    def close(self) -> None:
        """Write what is buffered."""
        self._lines.close()


def stamp_of(folder: Path, names: Sequence[str]) -> Stamp | None:
    """Size, time of change and time of status change (ns) of some files of a folder; None when one is missing.

    Args:
        folder: the folder.
        names: names of its files.

    Returns:
        One row [name, size, mtime, ctime] for each file, in the order given.
    """
    found: Stamp = []
    try:
        for name in names:
            facts = os.stat(os.path.join(folder, name))
            found.append([name, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns])
    except OSError:
        return None
    return found


def stamp_of_paths(paths: Iterable[Path]) -> Stamp | None:
    """As `stamp_of`, of files anywhere; a zip stands for its members.

    Args:
        paths: files, and members of zips.

    Returns:
        One row [path, size, mtime, ctime] for each, in the order given; None when one cannot be looked at.
    """
    found: Stamp = []
    zips: dict[Path, Path | None] = {}
    for path in paths:
        try:
            facts = os.stat(path)
            if not stat.S_ISREG(facts.st_mode):
                return None
        except OSError:
            if path.parent not in zips:
                zips[path.parent] = next((p for p in path.parents if p.is_file()), None)
            if (holder := zips[path.parent]) is None:
                return None
            facts = holder.stat()
        found.append([str(path), facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns])
    return found


def _age(part: Path) -> tuple[bool, int]:
    """Order of the files of a folder: what was joined, then the others as they were written last."""
    try:
        return part.name != WHOLE, part.stat().st_mtime_ns
    except OSError:  # joined by another process meanwhile
        return True, 0


def _read(part: Path) -> dict[str, Any]:
    """The whole lines of a file; a line that was cut by a crash is left out."""
    found: dict[str, Any] = {}
    with suppress(OSError):
        for line in part.read_text(encoding="utf-8").splitlines():
            with suppress(ValueError, TypeError):
                name, value = json.loads(line)
                found[str(name)] = value
    return found
