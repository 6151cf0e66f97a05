"""Files of a folder, or of a zip of it, read the same way. A zip is never unpacked to disk.

A member of `export.zip` is named by the path `export.zip/member`; only this file knows the difference.
"""

from __future__ import annotations

import hashlib
import lzma
import os
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import BinaryIO, cast

from mtdlr.errors import Problem, ScanError

MAX_MEMBER_BYTES = 1 << 31
MAX_RATIO = 200
_SMALL_BYTES = 1 << 25  # an empty mask shrinks a thousandfold: below this the ratio says nothing
MAX_MEMBERS = 200_000
BROKEN = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, OSError, NotImplementedError,
          RuntimeError, ValueError, OverflowError)
_SHUT = Problem("E-NOACCESS", "a folder or file cannot be entered or read", remedy="Give yourself the right to read it")
_HIDDEN = (".", "__MACOSX")
_FOREIGN = (".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".7z", ".rar", ".iso")


@dataclass(frozen=True)
class Listing:
    """What lies below a folder.

    Args:
        files: every file that can be opened, zip members among them, sorted.
        passed: what was passed over, with the reason.
    """

    files: tuple[Path, ...]
    passed: tuple[tuple[Path, Problem], ...] = ()


class _Guarded:
    """A stream whose damage is raised as a `ScanError`, wherever it is read."""

    def __init__(self, stream: BinaryIO, told: ScanError) -> None:
        self._stream, self._told = stream, told

    def read(self, size: int = -1) -> bytes:
        try:
            return self._stream.read(size)
        except BROKEN:
            raise self._told from None

    def readinto(self, buffer: bytearray | memoryview) -> int:
        try:
            return int(self._stream.readinto(buffer))  # type: ignore[attr-defined]
        except BROKEN:
            raise self._told from None

    def seek(self, offset: int, whence: int = 0) -> int:
        try:
            return self._stream.seek(offset, whence)
        except BROKEN:
            raise self._told from None

    def tell(self) -> int:
        return self._stream.tell()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._stream.seekable()

    def close(self) -> None:
        self._stream.close()

    def __enter__(self) -> _Guarded:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def is_archive(path: Path) -> bool:
    """Whether the path is a zip file (by name and content)."""
    try:
        return path.suffix.lower() == ".zip" and path.is_file() and zipfile.is_zipfile(path)
    except (OSError, ValueError):
        return False


def exists(path: Path) -> bool:
    """Whether there is such a file, folder or place in a zip; a path that no system could hold is not there."""
    try:
        return path.exists() or archive_of(path) is not None
    except (OSError, ValueError):
        return False


def list_files(root: Path) -> tuple[Path, ...]:
    """Every file below a folder or inside a zip, sorted; hidden files and links that leave the folder are left out.

    Zips inside a folder are files here; `walk` looks into them.

    Raises:
        ScanError: E-NOFILE, E-NOACCESS for a folder that cannot be entered, E-ZIP for an archive that is damaged,
            encrypted or unreasonably large.
    """
    if root.is_dir():
        files, passed = _below(root)
        shut = [problem for _, problem in passed if problem.is_error]
        if shut:
            raise ScanError(shut)
        return files
    if not root.exists():
        raise ScanError(Problem("E-NOFILE", "the folder or file does not exist", where=root.name,
                                remedy="Check the path"))
    if root.suffix.lower() != ".zip":
        return (root,)
    with ExitStack() as stack:
        opened = _open(root, stack)
    _reasonable(root, opened)
    return tuple(sorted(root / name for name in _members(opened)))


def walk(root: Path) -> Listing:
    """Every file below a folder and in the zips among them; one bad item costs nothing but itself.

    Raises:
        ScanError: what `list_files` raises for a root that is no folder; E-NOACCESS for a root that cannot be entered.
    """
    if not root.is_dir():
        return Listing(list_files(root))
    found, passed = _below(root)
    shut = [problem for path, problem in passed if path == root]
    if shut:
        raise ScanError(shut)
    files: list[Path] = []
    for path in found:
        if path.name.lower().endswith(_FOREIGN):
            passed.append((path, _foreign(path)))
        elif path.suffix.lower() != ".zip":
            files.append(path)
        else:
            try:
                files += list_files(path)
            except ScanError as error:
                passed += [(path, problem) for problem in error.problems]
    return Listing(tuple(files), tuple(passed))


def open_each(paths: Iterable[Path]) -> Iterator[tuple[Path, BinaryIO | ScanError]]:
    """Each path with an open stream, valid until the next one is requested, or with the error that opening it gives.

    Archives are opened once. A stream raises `ScanError` E-ZIP or E-NOFILE where it turns out to be damaged.
    """
    opened: dict[Path, zipfile.ZipFile | ScanError] = {}
    with ExitStack() as stack:
        for path in paths:
            archive = archive_of(path)
            if archive is not None and archive not in opened:
                try:
                    opened[archive] = _open(archive, stack)
                except ScanError as error:
                    opened[archive] = error
            try:
                stream = _stream(path, None if archive is None else opened[archive], archive)
            except ScanError as error:
                yield path, error
                continue
            with stream:
                yield path, stream


def open_all(paths: Iterable[Path]) -> Iterator[tuple[Path, BinaryIO]]:
    """Each path with an open stream, valid until the next one is asked for; archives are opened once.

    Raises:
        ScanError: E-NOFILE, E-ZIP.
    """
    for path, stream in open_each(paths):
        if isinstance(stream, ScanError):
            raise stream
        yield path, stream


def read_all(paths: Iterable[Path]) -> Iterator[tuple[Path, bytes]]:
    """Each path with its bytes, in the order asked.

    Raises:
        ScanError: E-NOFILE, E-ZIP (a member whose CRC does not match).
    """
    for path, stream in open_all(paths):
        yield path, stream.read()


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


def same_content(one: Path, other: Path) -> bool:
    """Whether two files hold the same bytes; a file that cannot be read equals no other.

    Args:
        one: a file, or a member of a zip.
        other: likewise.
    """
    try:
        return digest([one]) == digest([other])
    except ScanError:
        return False


def _below(root: Path) -> tuple[tuple[Path, ...], list[tuple[Path, Problem]]]:
    """(files below a folder, what cannot be entered or leads out of it)."""
    inside = root.resolve()
    files: list[Path] = []
    passed: list[tuple[Path, Problem]] = []
    todo = [root]
    while todo:
        folder = todo.pop()
        try:
            entries = [entry for entry in os.scandir(folder) if not entry.name.startswith(_HIDDEN)]
        except OSError:
            passed.append((folder, _SHUT))
            continue
        for entry in entries:
            path = folder / entry.name
            try:
                if entry.is_symlink() and not path.resolve().is_relative_to(inside):
                    passed.append((path, _link(root, path)))
                elif entry.is_dir(follow_symlinks=False):
                    todo.append(path)
                elif entry.is_file():
                    files.append(path)
            except OSError:
                passed.append((path, _SHUT))
            except RuntimeError:  # a link that leads to itself
                passed.append((path, _link(root, path)))
    return tuple(sorted(files, key=lambda path: path.parts)), passed


def _link(root: Path, path: Path) -> Problem:
    """A link out of the folder: an error where it stands for a patient, else a warning."""
    code = "E-LINK" if path.parent == root else "W-LINK"
    return Problem(code, "a link leads out of the folder and is not followed",
                   remedy="Put the files there themselves, or name them in a manifest")


def _foreign(path: Path) -> Problem:
    kind = next(suffix for suffix in _FOREIGN if path.name.lower().endswith(suffix))
    return Problem("E-ARCHIVE", "an archive of a kind that is not read", found=kind, expected="a folder or .zip",
                   remedy="Unpack it, or pack it as .zip")


def _hidden(relative: Path) -> bool:
    return any(part.startswith(_HIDDEN) for part in relative.parts)


def _safe(name: str) -> bool:
    """Whether a member's name stays inside the archive and is not hidden."""
    path = PurePosixPath(name)
    return not (path.is_absolute() or ".." in path.parts or ":" in name or "\0" in name or _hidden(Path(name)))


def _members(opened: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The files of a zip by their path; Windows' own zips write backslashes."""
    named = ((info.filename.replace("\\", "/"), info) for info in opened.infolist())
    return {name: info for name, info in named if not name.endswith("/") and _safe(name)}


def _reasonable(archive: Path, opened: zipfile.ZipFile) -> None:
    """Refuse an archive of too many members, or whose members together expand too far."""
    members = opened.infolist()
    if len(members) > MAX_MEMBERS:
        raise _bad_zip(archive, f"{len(members)} members", f"at most {MAX_MEMBERS}")
    total = sum(info.file_size for info in members)
    if total > MAX_RATIO * archive.stat().st_size + _SMALL_BYTES:
        raise _bad_zip(archive, "members that expand too far", f"a ratio of at most {MAX_RATIO}")


def _open(archive: Path, stack: ExitStack) -> zipfile.ZipFile:
    try:
        return stack.enter_context(zipfile.ZipFile(archive))
    except BROKEN:
        raise _bad_zip(archive, "no readable directory", "a complete zip") from None


def _stream(path: Path, opened: zipfile.ZipFile | ScanError | None, archive: Path | None) -> BinaryIO:
    """The file, or the archive's member, bounded in size and compression ratio."""
    if isinstance(opened, ScanError):
        raise opened
    if opened is None or archive is None:
        unread = ScanError(Problem("E-NOFILE", "a file is missing or cannot be read", remedy="Check the folder"))
        try:
            if path.exists() and not path.is_file():  # a device or a pipe never ends
                raise OSError
            if path.stat().st_size == 0:  # the system's own, such as /proc/kmsg, may wait for ever
                return BytesIO()
            return cast(BinaryIO, _Guarded(path.open("rb"), unread))
        except (OSError, ValueError):
            raise unread from None
    damaged = _bad_zip(archive, "a damaged or encrypted member", "a complete, unencrypted zip")
    info = _member(opened, path.relative_to(archive).as_posix())
    if info is None:
        raise _bad_zip(archive, "a missing member", "the files that were listed")
    ratio = info.file_size > MAX_RATIO * info.compress_size + _SMALL_BYTES
    if info.file_size > MAX_MEMBER_BYTES or ratio:
        raise _bad_zip(archive, "a member that expands too far", f"a ratio of at most {MAX_RATIO}")
    try:
        return cast(BinaryIO, _Guarded(cast(BinaryIO, opened.open(info)), damaged))
    except BROKEN:
        raise damaged from None


def _member(opened: zipfile.ZipFile, name: str) -> zipfile.ZipInfo | None:
    """A member by its path with slashes."""
    info = opened.NameToInfo.get(name)
    return info if info is not None else _members(opened).get(name)


def _bad_zip(archive: Path, found: str, expected: str) -> ScanError:
    return ScanError(Problem("E-ZIP", "the zip file cannot be used", found=found, expected=expected,
                             remedy="Zip the folder again, without a password"))
