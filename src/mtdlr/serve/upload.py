"""Receive a scan: streamed to disk under limits, and a zip judged before anything is taken out of it."""

from __future__ import annotations

import asyncio
import errno
import re
import stat
import struct
import time
import zipfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from mtdlr.errors import Problem, ScanError
from mtdlr.imaging import archive
from mtdlr.serve.refusal import Refusal

_FIELDS, _FIELD_BYTES, _NAME_BYTES, _PART_BYTES, _DEPTH = 64, 1024, 1024, 200, 16
_DIRECTORY_BYTES = 1 << 24  # of a zip's list of members
_PIECE = 1 << 20
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True)
class Limits:
    """What an upload may cost.

    Args:
        bytes: of the whole request.
        files: sent, or in a zip.
        unpacked: bytes of a zip's members together.
        stall_s: seconds without a byte.
        total_s: seconds of the whole upload.
    """

    bytes: int = 2 << 30
    files: int = 2500
    unpacked: int = 8 << 30
    stall_s: float = 20.0
    total_s: float = 1800.0


@dataclass
class _Parts:
    """What has come of a form: its values, and the file that is being written."""

    folder: Path
    limits: Limits
    values: dict[str, str] = field(default_factory=dict)
    files: set[str] = field(default_factory=set)
    ended: bool = False
    header: tuple[bytearray, bytearray] = field(default_factory=lambda: (bytearray(), bytearray()))
    disposition: bytes = b""
    name: str = ""
    value: bytearray | None = None
    out: IO[bytes] | None = None


async def receive_form(
    content_type: str, receive: Callable[[], Awaitable[Any]], folder: Path, limits: Limits
) -> dict[str, str]:
    """Write the files of a multipart form below a folder; returns its other values.

    Args:
        content_type: header of the request.
        receive: gives the messages of the request, as ASGI says.
        folder: empty; files keep the relative path that the browser gives them.
        limits: refuse beyond.

    Raises:
        Refusal: 400 E-UPLOAD for a form that is damaged, cut, without a file, or with a name that is not safe; 408
            E-SLOW; 413 E-TOOLARGE; 507 E-DISKFULL.
    """
    kind, options = parse_options_header(content_type)
    if kind != b"multipart/form-data" or b"boundary" not in options:
        raise _bad("not a form with files", found=kind.decode("latin-1")[:80])
    parts = _Parts(folder, limits)
    try:
        parser = MultipartParser(options[b"boundary"], _callbacks(parts))
        await _feed(parser, receive, limits)
        parser.finalize()
    except FormParserError:
        raise _bad("the form is damaged") from None
    except OSError as error:
        raise _full(error) from error
    finally:
        if parts.out is not None:
            parts.out.close()
    if not parts.ended:
        raise _bad("the upload was cut")
    if not parts.files:
        raise _bad("no file was sent", remedy="Choose a zip or the files of one PET/CT")
    return parts.values


def check_archives(folder: Path, limits: Limits) -> None:
    """Read every zip of an upload once, within limits.

    Raises:
        Refusal: 400 E-ZIP for an archive that is damaged, encrypted, nested, too large when unpacked, or whose members
            are links or leave it.
    """
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() == ".zip":
            try:
                _check_zip(path, limits)
            except ScanError as error:
                raise Refusal(400, error.problems[0]) from None
            except archive.BROKEN:
                raise _bad_zip("a damaged or encrypted member") from None


def safe_path(name: str) -> PurePosixPath:
    """A file name from outside as a relative path that stays below its folder.

    Raises:
        Refusal: 400 E-UPLOAD.

    >>> str(safe_path("B001\\\\PET/1.dcm"))
    'B001/PET/1.dcm'
    """
    slashed = name.replace("\\", "/")
    path = PurePosixPath(slashed)
    parts = slashed.split("/")
    try:
        lengths = [len(part.encode()) for part in parts]
    except UnicodeEncodeError:
        lengths = [_NAME_BYTES]
    if (not path.name or slashed.startswith("/") or ":" in name or ".." in parts or _CONTROL.search(name)
            or len(parts) > _DEPTH or max(lengths) > _PART_BYTES or sum(lengths) > _NAME_BYTES):
        raise _bad("a file name is not one that can be kept", remedy="Use plain names, without .. : or control letters")
    return path


async def _feed(parser: MultipartParser, receive: Callable[[], Awaitable[Any]], limits: Limits) -> None:
    """Give the body to the parser, piece by piece."""
    end, size, more = time.monotonic() + limits.total_s, 0, True
    while more:
        try:
            message = await asyncio.wait_for(receive(), min(limits.stall_s, end - time.monotonic()))
        except TimeoutError:
            raise Refusal(408, Problem("E-SLOW", "the upload stands still or takes too long",
                                       remedy="Send it again over a faster connection")) from None
        if message["type"] == "http.disconnect":
            raise _bad("the upload was cut")
        body = message.get("body", b"")
        size += len(body)
        if size > limits.bytes:
            raise too_large(limits)
        parser.write(body)
        more = message.get("more_body", False)


def _callbacks(parts: _Parts) -> Any:
    """What the parser calls as the form comes in."""
    name, value = parts.header

    def header_end() -> None:
        if bytes(name).lower() == b"content-disposition":
            parts.disposition = bytes(value)
        name.clear()
        value.clear()

    def begin() -> None:
        parts.disposition = b""

    def data(data: bytes, start: int, end: int) -> None:
        if parts.out is not None:
            parts.out.write(data[start:end])
        elif parts.value is not None:
            parts.value += data[start:end]
            if len(parts.value) > _FIELD_BYTES:
                raise _bad("a value of the form is too long", found=parts.name[:80])

    return {"on_part_begin": begin, "on_header_field": lambda data, start, end: name.extend(data[start:end]),
            "on_header_value": lambda data, start, end: value.extend(data[start:end]), "on_header_end": header_end,
            "on_headers_finished": lambda: _begin_part(parts), "on_part_data": data,
            "on_part_end": lambda: _end_part(parts), "on_end": lambda: setattr(parts, "ended", True)}


def _begin_part(parts: _Parts) -> None:
    """Open the file of a part, or begin its value."""
    _, options = parse_options_header(parts.disposition)
    try:
        parts.name = options.get(b"name", b"").decode()
        given = options[b"filename"].decode() if b"filename" in options else None
    except UnicodeDecodeError:
        raise _bad("a name of the form is not UTF-8") from None
    parts.out, parts.value = None, None
    if given is None:
        if not parts.name or parts.name in parts.values or len(parts.values) >= _FIELDS:
            raise _bad("a value of the form has no name, comes twice, or is one too many", found=parts.name[:80])
        parts.value = bytearray()
    elif given:  # a browser sends an empty name where no file was chosen
        path = safe_path(given)
        if any(part.startswith(".") for part in path.parts):
            return
        if str(path) in parts.files:
            raise _bad("two files have one name")
        if len(parts.files) >= parts.limits.files:
            raise _bad("too many files", found=f"more than {parts.limits.files}", remedy="Send one PET and one CT only")
        target = parts.folder / ("scan.zip" if path.suffix.lower() == ".zip" and not parts.files else path)
        parts.files.add(str(path))
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            parts.out = target.open("xb")
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            raise _bad("a file has the name of a folder or of another file") from None


def _end_part(parts: _Parts) -> None:
    """Close the file of a part, or keep its value."""
    if parts.out is not None:
        parts.out.close()
        parts.out = None
    elif parts.value is not None:
        try:
            parts.values[parts.name] = parts.value.decode()
        except UnicodeDecodeError:
            raise _bad("a value of the form is not UTF-8", found=parts.name[:80]) from None
        parts.value = None


def _check_zip(path: Path, limits: Limits) -> None:
    """Refuse a zip by its list of members, then read it through once."""
    if _directory_bytes(path) > _DIRECTORY_BYTES:
        raise _bad_zip("a list of members that is too long")
    archive.list_files(path)  # ratio and damage
    with zipfile.ZipFile(path) as opened:
        members = opened.infolist()
        if len(members) > limits.files:
            raise _bad_zip(f"{len(members)} members", f"at most {limits.files}")
        if sum(member.file_size for member in members) > limits.unpacked:
            raise _bad_zip("members that expand too far", f"at most {limits.unpacked >> 30} GB")
        names = [member.filename.replace("\\", "/") for member in members]
        if len(set(names)) != len(names):
            raise _bad_zip("two members of one name")
        for member, name in zip(members, names, strict=True):
            _check_member(member, name)
        for member in members:
            with opened.open(member) as stream:
                while stream.read(_PIECE):
                    pass


def _check_member(member: zipfile.ZipInfo, name: str) -> None:
    """Refuse a member that is a link, encrypted, an archive, or lies outside."""
    if "\0" in member.orig_filename:  # the name would end there
        raise _bad_zip("a name with a control letter")
    if name.rstrip("/"):
        try:
            safe_path(name.rstrip("/"))
        except Refusal:
            raise _bad_zip("a member whose name leaves the archive or cannot be kept") from None
    if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise _bad_zip("a member that is a link or a device")
    if member.flag_bits & 1:
        raise _bad_zip("an encrypted member", "a zip without a password")
    if name.lower().endswith((".zip", ".7z", ".rar", ".tar", ".gz")) and not name.lower().endswith(".nii.gz"):
        raise _bad_zip("an archive within the archive")


def _directory_bytes(path: Path) -> int:
    """Bytes of a zip's list of members, as its end says; a list that is absurdly long would fill the memory."""
    with path.open("rb") as handle:
        size = handle.seek(0, 2)
        start = max(size - (1 << 16) - 22, 0)
        handle.seek(start)
        tail = handle.read()
        end = tail.rfind(b"PK\5\6")
        if end < 0 or len(tail) < end + 22:
            raise _bad_zip("no readable directory", "a complete zip")
        (length,) = struct.unpack_from("<L", tail, end + 12)
        if end >= 20 and tail[end - 20:end - 16] == b"PK\6\7":
            (place,) = struct.unpack_from("<Q", tail, end - 12)
            handle.seek(min(place, size))
            record = handle.read(56)
            length = struct.unpack_from("<Q", record, 40)[0] if len(record) == 56 else size
    return int(length)


def too_large(limits: Limits) -> Refusal:
    """What to say of a request that is too large."""
    return Refusal(413, Problem("E-TOOLARGE", "the upload is too large", expected=f"at most {limits.bytes >> 20} MB",
                                remedy="Send one PET and one CT only"))


def _full(error: OSError) -> Refusal:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Refusal(507, Problem("E-DISKFULL", "no space left on the server's disk",
                                    remedy="Delete jobs that are no longer needed"))
    return _bad("the server cannot keep a file of this name")


def _bad(what: str, found: str = "", remedy: str = "Send the scan again") -> Refusal:
    return Refusal(400, Problem("E-UPLOAD", what, found=found, remedy=remedy))


def _bad_zip(found: str, expected: str = "") -> Refusal:
    return Refusal(400, Problem("E-ZIP", "the zip file cannot be used", found=found, expected=expected,
                                remedy="Zip the folder of one patient again, without a password"))
