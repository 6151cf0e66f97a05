"""What the DICOM headers of a cohort say: remembered in the run folder, read by the workers where it is not known.

A cohort of 886 PET/CTs has some 350,000 files. A folder is read again when one of its files was added or removed, or
has another size or time of change. What is remembered is sealed with bytes of the scans themselves: nobody who has the
run folder without the scans can read it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, groupby
from pathlib import Path
from typing import Any

from mtdlr.errors import Problem, ScanError
from mtdlr.imaging import archive
from mtdlr.imaging.dicom_instance import Found, packed, read_instances, unpacked
from mtdlr.store import Lines, digest, source_of, stamp_of_paths
from mtdlr.workers import Workers, run_jobs

HEADERS = "headers"
MANY = 10_000  # headers that are worth the start of more processes: a millisecond each
_HEAD_BYTES = 4096
_CHECK_BYTES = 8


@dataclass(frozen=True)
class HeaderReader:
    """Reads the headers of heaps of files, as `imaging.dicom_instance.Reader`; what is remembered is not read.

    Args:
        workers: where many headers are read, and who is told.
        folder: the run folder, where they are remembered; None remembers nothing.
        writes: whether what was read is added to what is remembered.
        join: whether what several processes remembered is joined into one file; of a run without shards.
    """

    workers: Workers
    folder: Path | None = None
    writes: bool = True
    join: bool = False

    def __call__(self, heaps: Sequence[Sequence[Path]]) -> list[Found]:
        parts = [list(_by_folder(files)) for files in heaps]
        read = iter(self._read(list(chain.from_iterable(parts))))
        found = [[next(read) for _ in heap] for heap in parts]
        return [(tuple(chain.from_iterable(instances for instances, _ in heap)),
                 tuple(chain.from_iterable(bad for _, bad in heap))) for heap in found]

    def _read(self, folders: Sequence[tuple[Path, ...]]) -> list[Found]:
        memory = Lines(self.folder / HEADERS, join=self.join) if self.folder is not None and folders else None
        seals = [None if memory is None else _seal(files) for files in folders]
        known = [None if memory is None or seal is None else _opened(memory.values.get(_name(files)), seal, files)
                 for files, seal in zip(folders, seals, strict=True)]
        todo = [k for k, found in enumerate(known) if found is None]
        many = sum(len(folders[k]) for k in todo) >= MANY
        ran = run_jobs(read_folder, [folders[k] for k in todo], self.workers if many else Workers(), label="headers")
        for k, outcome in zip(todo, ran, strict=True):
            values, bad = outcome.value or read_folder(folders[k])
            files, seal = folders[k], seals[k]
            known[k] = unpacked(values, files), tuple((files[place], problem) for place, problem in bad)
            if memory is not None and self.writes and seal is not None and not bad:  # a fault may be the disk's
                memory.put(_name(files), _sealed(values, seal))
        if memory is not None:
            memory.close()
        return [found for found in known if found is not None]


def read_folder(files: Sequence[Path]) -> tuple[list[Any], list[tuple[int, Problem]]]:
    """What the headers of one folder's files say, without any path: a worker's job.

    Args:
        files: the files, or the members of a zip.

    Returns:
        The instances as `packed`; the place of each file that cannot be read, with the reason.
    """
    instances, bad = read_instances(files)
    place = {path: k for k, path in enumerate(files)}
    return packed(instances, files), [(place[path], problem) for path, problem in bad]


def _by_folder(files: Sequence[Path]) -> Iterator[tuple[Path, ...]]:
    """The files in their order, cut where the folder changes; those of a zip together."""
    homes: dict[str, str] = {}

    def home(path: Path) -> str:
        folder = str(path).rpartition(os.sep)[0]  # names, for paths are slow to compare
        if folder not in homes:
            homes[folder] = str(archive.archive_of(path) or folder)
        return homes[folder]

    for _, members in groupby(files, key=home):
        yield tuple(members)


def _name(files: Sequence[Path]) -> str:
    """Stands for a folder in the memory, whatever its files say."""
    return digest(str(files[0]))


def _seal(files: Sequence[Path]) -> bytes | None:
    """A key that changes with any of the files, and with the code that reads them; None where they cannot be looked at.

    The first bytes of the largest file, an image with its unique numbers, are in it, so that the run folder alone does
    not give it away.
    """
    stamp = stamp_of_paths(files)
    if stamp is None:
        return None
    largest = max(range(len(files)), key=lambda k: stamp[k][1])
    for _, stream in archive.open_each([files[largest]]):
        try:
            head = b"" if isinstance(stream, ScanError) else stream.read(_HEAD_BYTES)
        except ScanError:
            head = b""
    return hashlib.sha256(head + digest([stamp, source_of("prepare")]).encode()).digest() if head else None


def _sealed(values: list[Any], seal: bytes) -> str:
    """Values as text that only the seal opens."""
    plain = json.dumps(values, separators=(",", ":")).encode()
    checked = hashlib.sha256(plain).digest()[:_CHECK_BYTES] + plain
    return base64.b64encode(_crossed(zlib.compress(checked), seal)).decode()


def _opened(text: Any, seal: bytes, files: Sequence[Path]) -> Found | None:
    """What was sealed; None for another seal, for damage, for nothing."""
    try:
        held = zlib.decompress(_crossed(base64.b64decode(text, validate=True), seal))
        check, plain = held[:_CHECK_BYTES], held[_CHECK_BYTES:]
        whole = hashlib.sha256(plain).digest()[:_CHECK_BYTES] == check
        return (unpacked(json.loads(plain), files), ()) if whole else None
    except (ValueError, TypeError, LookupError, AttributeError, zlib.error):
        return None


def _crossed(data: bytes, seal: bytes) -> bytes:
    """The data crossed (exclusive or) with a stream of the seal's; doing so again gives the data."""
    stream = hashlib.shake_256(seal).digest(len(data))
    return (int.from_bytes(data, "big") ^ int.from_bytes(stream, "big")).to_bytes(len(data), "big")
