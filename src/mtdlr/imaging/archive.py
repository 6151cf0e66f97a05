"""Files of a folder, or of a zip of it, read the same way. A zip is never unpacked to disk.

A member of `export.zip` is named by the path `export.zip/member`; only this file knows the difference.
"""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from typing import BinaryIO, cast

from mtdlr.errors import Problem, ScanError

MAX_MEMBER_BYTES = 1 << 31
MAX_RATIO = 200
MAX_MEMBERS = 200_000
BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError, ValueError)


def is_archive(path: Path) -> bool:
    """Whether the path is a zip file (by name and content)."""
    return path.suffix.lower() == ".zip" and path.is_file() and zipfile.is_zipfile(path)


def list_files(root: Path) -> tuple[Path, ...]:
    """Every file below a folder or inside a zip, sorted; hidden files and links that leave the folder are left out.

    Raises:
        ScanError: E-NOFILE, E-ZIP for an archive that is damaged, encrypted or unreasonably large.
    """
    if root.is_dir():
        inside = root.resolve()
        found = (p for p in root.rglob("*") if p.is_file() and not _hidden(p.relative_to(root)))
        return tuple(sorted(p for p in found if p.resolve().is_relative_to(inside)))
    if not root.exists():
        raise ScanError(Problem("E-NOFILE", "the folder or file does not exist", where=root.name,
                                remedy="Check the path"))
    if root.suffix.lower() != ".zip":
        return (root,)
    with ExitStack() as stack:
        members = _open(root, stack).infolist()
    if len(members) > MAX_MEMBERS:
        raise _bad_zip(root, f"{len(members)} members", f"at most {MAX_MEMBERS}")
    return tuple(sorted(root / m.filename for m in members if not m.is_dir() and _safe(m.filename)))


def open_all(paths: Iterable[Path]) -> Iterator[tuple[Path, BinaryIO]]:
    """Each path with an open stream, valid until the next one is asked for; archives are opened once.

    Raises:
        ScanError: E-NOFILE, E-ZIP.
    """
    opened: dict[Path, zipfile.ZipFile] = {}
    with ExitStack() as stack:
        for path in paths:
            archive = archive_of(path)
            if archive is not None and archive not in opened:
                opened[archive] = _open(archive, stack)
            stream = _stream(path, None if archive is None else opened[archive], archive)
            with stream:
                yield path, stream


def read_all(paths: Iterable[Path]) -> Iterator[tuple[Path, bytes]]:
    """Each path with its bytes, in the order asked.

    Raises:
        ScanError: E-NOFILE, E-ZIP (a member whose CRC does not match).
    """
    for path, stream in open_all(paths):
        try:
            yield path, stream.read()
        except BROKEN:
            raise _bad_zip(path, "a damaged member", "a complete zip") from None


def archive_of(path: Path) -> Path | None:
    """The zip that holds this path, None for an ordinary file."""
    for parent in path.parents:
        if parent.suffix.lower() == ".zip" and parent.is_file():
            return parent
    return None


def digest(paths: Iterable[Path]) -> str:
    """SHA-256 over the files' contents, whatever they are called and wherever they lie."""
    each = sorted(hashlib.sha256(data).digest() for _, data in read_all(paths))
    return hashlib.sha256(b"".join(each)).hexdigest()


def _hidden(relative: Path) -> bool:
    return any(part.startswith((".", "__MACOSX")) for part in relative.parts)


def _safe(name: str) -> bool:
    """Whether a member's name stays inside the archive and is not hidden."""
    path = PurePosixPath(name)
    return not (path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name or _hidden(Path(name)))


def _open(archive: Path, stack: ExitStack) -> zipfile.ZipFile:
    try:
        return stack.enter_context(zipfile.ZipFile(archive))
    except BROKEN:
        raise _bad_zip(archive, "no readable directory", "a complete zip") from None


def _stream(path: Path, opened: zipfile.ZipFile | None, archive: Path | None) -> BinaryIO:
    """The file, or the archive's member, bounded in size and compression ratio."""
    if opened is None or archive is None:
        try:
            if path.exists() and not path.is_file():  # a device or a pipe never ends
                raise OSError
            return path.open("rb")
        except OSError:
            unread = Problem("E-NOFILE", "a file is missing or cannot be read", remedy="Check the folder")
            raise ScanError(unread) from None
    try:
        info = opened.getinfo(path.relative_to(archive).as_posix())
        if info.file_size > MAX_MEMBER_BYTES or info.file_size > MAX_RATIO * info.compress_size + 65536:
            raise _bad_zip(archive, "a member that expands too far", f"a ratio of at most {MAX_RATIO}")
        return cast(BinaryIO, opened.open(info))
    except KeyError:
        raise _bad_zip(archive, "a missing member", "the files that were listed") from None
    except BROKEN:
        raise _bad_zip(archive, "a damaged or encrypted member", "a complete, unencrypted zip") from None


def _bad_zip(archive: Path, found: str, expected: str) -> ScanError:
    return ScanError(Problem("E-ZIP", "the zip file cannot be used", where=archive.name, found=found,
                             expected=expected, remedy="Zip the folder again, without a password"))
