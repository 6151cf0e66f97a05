"""DICOM files opened, and tags taken from them as plain text, numbers and times.

pydicom's own messages quote tag values, which may name a patient: they are never passed on, and its checks that would
log them are switched off while a file is read.
"""

from __future__ import annotations

import hashlib
import re
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime, time, timedelta
from functools import cache
from io import BytesIO
from typing import BinaryIO

import pydicom
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from mtdlr.errors import Problem, ScanError

_HEAD_BYTES = 1 << 16
_NO_DAY = date(2000, 1, 1)
_DEFLATED = b"1.2.840.10008.1.2.1.99"
_LARGEST = 1e15  # no tag that is read here holds more
PADDING = " \t\r\n\x00"
_PACKED = {"US": "H", "SS": "h", "UL": "I", "SL": "i", "FD": "d", "FL": "f"}
CODE = re.compile(r"[A-Z0-9 _]{1,16}")


@contextmanager
def quiet() -> Iterator[None]:
    """pydicom without value checks and without warnings that quote the patient's tags."""
    with warnings.catch_warnings(), pydicom.config.disable_value_validation():
        warnings.simplefilter("ignore")
        yield


def parse(stream: BinaryIO, *, pixels: bool) -> Dataset | None:
    """The dataset in a stream, None where it is no DICOM object at all.

    Args:
        stream: the file, at its first byte.
        pixels: whether the pixel data are read too; otherwise as little of the file as the header needs.

    Raises:
        ScanError: E-DICOM for a DICOM file that cannot be parsed, E-COMPRESSED for one deflated as a whole.
    """
    head = stream.read(-1 if pixels else _HEAD_BYTES)
    marked = head[128:132] == b"DICM"
    if not marked and head[:1] not in (b"\x02", b"\x08"):
        return None
    if marked and _DEFLATED in head[:1024]:  # nothing bounds what it unpacks to
        raise ScanError(Problem("E-COMPRESSED", "the whole file is deflated, which is not read",
                                where="TransferSyntaxUID (0002,0010)", remedy="Export it uncompressed"))
    if not pixels and len(head) == _HEAD_BYTES:
        dataset, at_end = _parsed(head, marked=marked, pixels=False)
        if dataset is not None and not at_end:
            return dataset
    rest = b"" if pixels else stream.read()
    dataset, _ = _parsed(head + rest if rest else head, marked=marked, pixels=pixels)
    if dataset is None and marked:
        raise ScanError(Problem("E-DICOM", "a DICOM file cannot be read", remedy="Export or copy it again"))
    return dataset


def _parsed(data: bytes, *, marked: bool, pixels: bool) -> tuple[Dataset | None, bool]:
    """(dataset or None, whether the data ended before pixels began): a beginning must not be taken for a whole."""
    buffer = BytesIO(data)
    try:
        dataset = pydicom.dcmread(buffer, stop_before_pixels=not pixels, force=not marked)
        known = marked or "SOPClassUID" in dataset or "Modality" in dataset
    except Exception:  # a damaged file can raise anything inside the parser
        return None, True
    return dataset if known else None, buffer.tell() >= len(data)


def text(ds: Dataset, keyword: str) -> str | None:
    """A tag's text, stripped; None where it is absent or empty.

    Args:
        ds: dataset, or item of a sequence.
        keyword: DICOM keyword: "PatientSex".

    Raises:
        ScanError: E-TAG, as `texts`.
    """
    parts = texts(ds, keyword)
    return parts[0] if parts and parts[0] else None


def texts(ds: Dataset, keyword: str) -> tuple[str, ...] | None:
    """All values of a tag as text; None where the tag is absent.

    Args:
        ds: dataset, or item of a sequence.
        keyword: DICOM keyword: "ImageType".

    Raises:
        ScanError: E-TAG where the bytes cannot be what the tag's type says.
    """
    tag, vr = _tag(keyword)
    try:
        element = ds.get_item(tag)
        if vr == "US or SS":
            vr = "SS" if text(ds, "PixelRepresentation") == "1" else "US"
        if element is None or element.value is None:
            return None
        if isinstance(element, RawDataElement):
            return _raw_texts(element.value, vr, "<" if element.is_little_endian else ">")
        many = isinstance(element.value, (list, tuple, MultiValue))
        return tuple(str(v).strip(PADDING) for v in (element.value if many else [element.value]))
    except Exception:  # a value that its type cannot hold
        raise unreadable(keyword) from None


def _raw_texts(data: bytes, vr: str, order: str) -> tuple[str, ...]:
    """The values in an element's bytes; pydicom's own conversion costs ten times as much and fails on odd files."""
    packed = _PACKED.get(vr)
    if packed is not None:
        count = len(data) // struct.calcsize(packed)
        return tuple(map(repr, struct.unpack(f"{order}{count}{packed}", data)))
    try:
        stated = data.decode("utf-8")
    except UnicodeDecodeError:
        stated = data.decode("latin-1")
    return tuple(v.strip(PADDING) for v in stated.split("\\"))


@cache
def _tag(keyword: str) -> tuple[int, str]:
    """Number and type of a tag."""
    tag = pydicom.datadict.tag_for_keyword(keyword)
    assert tag is not None, keyword
    return tag, pydicom.datadict.dictionary_VR(tag)


def decoded(ds: Dataset, keyword: str) -> str:
    """A text in the characters that the file declares; "" where it is absent.

    Files that declare none are taken as UTF-8, else as GB18030 where all letters beyond ASCII come in pairs of bytes.

    Args:
        ds: dataset, or item of a sequence.
        keyword: DICOM keyword of a text: "SeriesDescription".

    Raises:
        ScanError: E-TAG, as `texts`.
    """
    try:
        element = ds.get_item(_tag(keyword)[0])
        data = element.value if isinstance(element, RawDataElement) else None
        if isinstance(data, bytes) and not data.isascii() and not _declares_letters(ds):
            return _guessed(data).strip(PADDING)
        return str(ds.get(keyword) or "").strip(PADDING)
    except Exception:  # a character set that does not fit
        return text(ds, keyword) or ""


def _declares_letters(ds: Dataset) -> bool:
    """Whether a character set beyond ASCII is declared here or by the dataset around."""
    declared = ds.original_character_set
    return any(d not in ("", None, "iso8859", "iso8859_1", "ascii", "ISO_IR 6")
               for d in ([declared] if isinstance(declared, str) else declared or []))


def _guessed(data: bytes) -> str:
    """Bytes of an undeclared character set as text."""
    pairs = all(len(run) % 2 == 0 for run in re.findall(rb"[\x80-\xff]+", data))
    for name in ("utf-8", "gb18030") if pairs else ("utf-8",):
        try:
            return data.decode(name)
        except UnicodeDecodeError:
            continue
    return data.decode("latin-1")


def code(ds: Dataset, keyword: str) -> str | None:
    """A coded tag's value (capitals, digits, space, underscore); anything else becomes "unknown", never shown.

    Args:
        ds: dataset, or item of a sequence.
        keyword: DICOM keyword of a coded value: "Units".

    Raises:
        ScanError: E-TAG, as `texts`.
    """
    stated = text(ds, keyword)
    return stated if stated is None or CODE.fullmatch(stated) else "unknown"


def number(ds: Dataset, keyword: str) -> float | None:
    """A tag's number; None where it is absent or empty.

    Args:
        ds: dataset, or item of a sequence.
        keyword: DICOM keyword of a number, in the tag's own unit: "PatientWeight".

    Raises:
        ScanError: E-TAG where it is there but is not a finite number of believable size.
    """
    stated = text(ds, keyword)
    return None if stated is None else _as_number(stated, keyword)


def numbers(ds: Dataset, keyword: str, count: int) -> tuple[float, ...]:
    """A tag's `count` numbers.

    Args:
        ds: dataset, or item of a sequence.
        keyword: DICOM keyword of several numbers: "PixelSpacing".
        count: how many there must be.

    Raises:
        ScanError: E-TAG where there are not that many finite numbers.
    """
    found = texts(ds, keyword) or ()
    if len(found) != count:
        raise ScanError(Problem("E-TAG", "a tag has the wrong number of values", where=label(keyword),
                                found=str(len(found)), expected=str(count), remedy="Export the series again"))
    return tuple(_as_number(v, keyword) for v in found)


def _as_number(stated: str, keyword: str) -> float:
    try:
        value = float(stated)
    except ValueError:
        raise unreadable(keyword) from None
    if not abs(value) < _LARGEST:
        raise unreadable(keyword)
    return value


def unreadable(keyword: str) -> ScanError:
    """E-TAG, naming the tag and not its value."""
    return ScanError(Problem("E-TAG", "a tag's value cannot be read", where=label(keyword),
                             remedy="Correct the header, or export the series again"))


def label(keyword: str) -> str:
    """`Keyword (gggg,eeee)`."""
    tag = pydicom.datadict.tag_for_keyword(keyword)
    return keyword if tag is None else f"{keyword} ({tag >> 16:04X},{tag & 0xFFFF:04X})"


def uid_name(uid: str) -> str:
    """The standard's name of a UID, such as a transfer syntax; "a private one" for others."""
    known = pydicom.uid.UID(uid)
    return "a private one" if known.name == uid else str(known.name)


def first_item(ds: Dataset, keyword: str) -> Dataset | None:
    """The first item of a sequence, None where there is none.

    Args:
        ds: dataset, or item of a sequence.
        keyword: DICOM keyword of the sequence.

    Raises:
        ScanError: E-TAG where the sequence cannot be parsed.
    """
    try:
        items = ds.get(keyword)
        return items[0] if isinstance(items, pydicom.Sequence) and len(items) else None
    except Exception:
        raise unreadable(keyword) from None


def items(ds: Dataset, keyword: str) -> list[Dataset]:
    """The items of a sequence; none where it is absent.

    Args:
        ds: dataset, or item of a sequence.
        keyword: DICOM keyword of the sequence.

    Raises:
        ScanError: E-TAG where it cannot be parsed.
    """
    try:
        return list(ds.get(keyword) or [])
    except Exception:
        raise unreadable(keyword) from None


def secret(value: str | None) -> str:
    """Eight letters that stand for an identifier without telling it; empty for none."""
    return hashlib.sha256(value.encode()).hexdigest()[:8] if value else ""


def clock_time(stated: str | None, keyword: str) -> time | None:
    """A DICOM TM: HH[MM[SS[.F]]], colons allowed as in old files.

    Args:
        stated: the tag's text; None or "" gives None.
        keyword: DICOM keyword, for the message.

    Raises:
        ScanError: E-TIMETAG for an impossible time.

    >>> clock_time("093015.50", "SeriesTime")
    datetime.time(9, 30, 15, 500000)
    """
    if not stated:
        return None
    digits, _, fraction = stated.replace(":", "").partition(".")
    try:
        if not digits.isdigit() or len(digits) not in (2, 4, 6) or not f"0{fraction}".isdigit():
            raise ValueError
        hour, minute, second = (int(digits[i : i + 2] or 0) for i in (0, 2, 4))
        leap = second == 60  # DICOM allows it, datetime does not
        return time(hour, minute, 59 if leap else second, int(f"{fraction[:6]:0<6}"))
    except ValueError:
        expected = "HHMMSS with hours to 23 and minutes to 59"
        raise ScanError(Problem("E-TIMETAG", "this is not a time", where=label(keyword), expected=expected,
                                remedy="Correct the header")) from None


def calendar_date(stated: str | None, keyword: str) -> date | None:
    """A DICOM DA: YYYYMMDD, or YYYY.MM.DD as in old files.

    Args:
        stated: the tag's text; None or "" gives None.
        keyword: DICOM keyword, for the message.

    Raises:
        ScanError: E-TIMETAG for an impossible date.
    """
    if not stated:
        return None
    digits = stated.replace(".", "").replace("-", "")
    try:
        if len(digits) != 8 or not digits.isdigit():
            raise ValueError
        return date(int(digits[:4]), int(digits[4:6]), int(digits[6:]))
    except ValueError:
        raise ScanError(Problem("E-TIMETAG", "this is not a date", where=label(keyword), expected="YYYYMMDD",
                                remedy="Correct the header")) from None


def date_time(stated: str | None, keyword: str, zone_min: float | None = None) -> datetime | None:
    """A DICOM DT on the clock of the file's own times: an offset is moved to `zone_min`, or dropped without one.

    Args:
        stated: the tag's text, YYYYMMDDHHMMSS.F with an offset from UTC, +ZZZZ, if any; None or "" gives None.
        keyword: DICOM keyword, for the message.
        zone_min: offset from UTC of the file's own times, in minutes; None where the file does not state it.

    Returns:
        The moment without a zone; None where the day or the time is missing.

    Raises:
        ScanError: E-TIMETAG for an impossible date or time, E-TAG where the offset leads out of the calendar.
    """
    if not stated:
        return None
    plain, offset_min = stated, None
    if len(stated) > 5 and stated[-5] in "+-" and stated[-4:].isdigit():
        plain = stated[:-5]
        offset_min = (1 if stated[-5] == "+" else -1) * (int(stated[-4:-2]) * 60 + int(stated[-2:]))
    day, at = calendar_date(plain[:8], keyword), clock_time(plain[8:], keyword)
    if day is None or at is None:
        return None
    moment = datetime.combine(day, at)
    if offset_min is None or zone_min is None:
        return moment
    return _shift(moment, timedelta(minutes=zone_min - offset_min), keyword)


def _shift(moment: datetime, by: timedelta, keyword: str) -> datetime:
    try:
        return moment + by
    except OverflowError:
        raise unreadable(keyword) from None


def date_and_time(ds: Dataset, stem: str) -> datetime | None:
    """A date tag and a time tag together, such as SeriesDate and SeriesTime; None without a time.

    Where the date was removed, that of the series or study stands for it, else one day for the whole examination.

    Args:
        ds: dataset of one file.
        stem: keyword without its ending: "Series", "Acquisition".

    Raises:
        ScanError: E-TIMETAG for an impossible date or time.
    """
    at = clock_time(text(ds, f"{stem}Time"), f"{stem}Time")
    if at is None:
        return None
    days = (calendar_date(text(ds, f"{s}Date"), f"{s}Date") for s in (stem, "Series", "Study"))
    return datetime.combine(next((d for d in days if d is not None), _NO_DAY), at)
