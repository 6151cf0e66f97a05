"""The facts of one DICOM image that a volume and its SUV rest on: where it lies, how it is stored, when it was made."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime

from pydicom.dataset import Dataset

from mtdlr.errors import Problem, ScanError
from mtdlr.imaging.dicom_tags import (
    CODE,
    PADDING,
    clock_time,
    code,
    date_and_time,
    date_time,
    first_item,
    items,
    number,
    numbers,
    text,
    texts,
)
from mtdlr.imaging.suv_facts import HALF_LIFE_S, PetHeader
from mtdlr.imaging.suv_time import Acquisition, Clock

_NUCLIDE_OF_CODE = {
    "C-111A1": "F-18", "77004003": "F-18", "C-131A3": "Ga-68", "35337001": "Ga-68", "C-105A1": "C-11",
    "40565003": "C-11", "C-107A1": "N-13", "21576001": "N-13", "C-B1038": "O-15", "129504001": "O-15",
    "C-159A2": "Rb-82", "79197006": "Rb-82", "C-127A2": "Cu-64", "3932008": "Cu-64", "C-168A4": "Zr-89",
    "63360001": "Zr-89", "C-114A5": "I-124", "40937006": "I-124", "422934004": "Cu-62", "10738001": "Y-86",
    "79523006": "Br-76",
}  # fmt: skip


_MAX_SIDE = 8192


@dataclass(frozen=True)
class Plane:
    """Where one image plane lies and how its numbers are stored.

    Args:
        position_mm: (x, y, z) of the first voxel's centre, LPS; orientation: direction along a row, then down a column.
        pixel_mm: distance between rows, distance between columns; shape: rows, columns.
        slope, intercept: stored * slope + intercept is the value; slope None where the tag is absent.
        padding: stored value that stands for "no data".
    """

    position_mm: tuple[float, ...]
    orientation: tuple[float, ...]
    pixel_mm: tuple[float, ...]
    shape: tuple[int, int]
    slope: float | None
    intercept: float | None
    padding: float | None
    acquisition: Acquisition


def read_plane(ds: Dataset) -> Plane:
    """Geometry, scaling and timing of a single-frame image.

    Raises:
        ScanError: E-TAG, E-TIMETAG, E-GEOMETRYTAG.
    """
    rows, columns = number(ds, "Rows"), number(ds, "Columns")
    if not rows or not columns or min(rows, columns) < 1 or max(rows, columns) > _MAX_SIDE:
        raise ScanError(Problem("E-GEOMETRYTAG", "Rows or Columns is missing or impossible",
                                where="(0028,0010), (0028,0011)", expected=f"1 to {_MAX_SIDE}",
                                remedy="Export the series again"))
    pixel = numbers(ds, "PixelSpacing", 2)
    orientation = numbers(ds, "ImageOrientationPatient", 6)
    return Plane(
        position_mm=numbers(ds, "ImagePositionPatient", 3), orientation=orientation, pixel_mm=pixel,
        shape=(int(rows), int(columns)), slope=number(ds, "RescaleSlope"), intercept=number(ds, "RescaleIntercept"),
        padding=number(ds, "PixelPaddingValue"), acquisition=_acquisition(ds),
    )  # fmt: skip


def _acquisition(ds: Dataset) -> Acquisition:
    start = date_time(text(ds, "AcquisitionDateTime"), "AcquisitionDateTime", _zone_min(ds))
    reference, duration = number(ds, "FrameReferenceTime"), number(ds, "ActualFrameDuration")
    return Acquisition(
        start=date_and_time(ds, "Acquisition") or start,
        frame_reference_s=None if reference is None else reference / 1000.0,
        duration_s=None if duration is None else duration / 1000.0,
    )


def _zone_min(ds: Dataset) -> float | None:
    """Minutes of (0008,0201), the offset of the file's own dates and times."""
    stated = text(ds, "TimezoneOffsetFromUTC")
    if not stated or len(stated) != 5 or stated[0] not in "+-" or not stated[1:].isdigit():
        return None
    return (1 if stated[0] == "+" else -1) * (int(stated[1:3]) * 60 + int(stated[3:]))


def read_pet_header(ds: Dataset) -> PetHeader:
    """What a PET file states about its numbers.

    Raises:
        ScanError: E-TAG, E-TIMETAG.
    """
    tracer = first_item(ds, "RadiopharmaceuticalInformationSequence")
    inside = tracer if tracer is not None else Dataset()
    corrected = texts(ds, "CorrectedImage")
    philips_suv = _private(ds, (0x7053, 0x00), "Philips PET Private Group", "philips")
    philips_activity = _private(ds, (0x7053, 0x09), "Philips PET Private Group", "philips")
    ge = _private(ds, (0x0009, 0x0D), "GEMS_PETD_01", "ge")
    siemens = _private(ds, (0x0071, 0x22), "SIEMENS MED PT", "siemens")
    private = (philips_suv, philips_activity, ge, siemens)
    return PetHeader(
        units=code(ds, "Units"), suv_type=code(ds, "SUVType"), decay_correction=code(ds, "DecayCorrection"),
        corrected=tuple(c for c in corrected if CODE.fullmatch(c)) if corrected and any(corrected) else None,
        weight=number(ds, "PatientWeight"), size=number(ds, "PatientSize"), sex=code(ds, "PatientSex"),
        dose=number(inside, "RadionuclideTotalDose"), half_life_s=number(inside, "RadionuclideHalfLife"),
        nuclide=_nuclide(inside), has_radiopharmaceutical=tracer is not None, several_tracers=_several_tracers(ds),
        philips_suv=_positive(philips_suv.value), philips_activity=_positive(philips_activity.value),
        foreign_private=philips_suv.foreign or philips_activity.foreign,
        ownerless_private=any(p.ownerless for p in private), clock=_clock(ds, inside, ge.value, siemens.value),
    )  # fmt: skip


def _clock(ds: Dataset, tracer: Dataset, ge: str | None, siemens: str | None) -> Clock:
    """The times of the series; private ones that cannot be read are as good as none."""
    zone = _zone_min(ds)
    return Clock(
        decay_reference=date_time(text(ds, "DecayCorrectionDateTime"), "DecayCorrectionDateTime", zone),
        ge=_moment_or_none(ge, zone), siemens=_moment_or_none(siemens, zone),
        series=date_and_time(ds, "Series"),
        injection=date_time(text(tracer, "RadiopharmaceuticalStartDateTime"), "RadiopharmaceuticalStartDateTime", zone),
        injection_time=clock_time(text(tracer, "RadiopharmaceuticalStartTime"), "RadiopharmaceuticalStartTime"),
    )


def _several_tracers(ds: Dataset) -> bool:
    """Whether the radiopharmaceutical items differ in dose, half-life or injection time."""
    described = {(number(item, "RadionuclideTotalDose"), number(item, "RadionuclideHalfLife"),
                  text(item, "RadiopharmaceuticalStartTime"), text(item, "RadiopharmaceuticalStartDateTime"))
                 for item in items(ds, "RadiopharmaceuticalInformationSequence")}
    return len(described) > 1


def _nuclide(tracer: Dataset) -> str | None:
    """The nuclide of the code sequence, by code value."""
    code = first_item(tracer, "RadionuclideCodeSequence")
    name = None if code is None else _NUCLIDE_OF_CODE.get(text(code, "CodeValue") or "")
    assert name is None or name in HALF_LIFE_S
    return name


@dataclass(frozen=True)
class _Private:
    """A private tag: its text if it may be used; whether another maker owns its block, or nobody does."""

    value: str | None = None
    foreign: bool = False
    ownerless: bool = False


def _private(ds: Dataset, at: tuple[int, int], creator: str, maker: str) -> _Private:
    """A private tag under its creator; where the creator was stripped, only in files of that maker."""
    group, element = at
    for block in _private_blocks(ds, group):
        if _private_text(ds, group << 16 | block) == creator:
            return _Private(_private_text(ds, group << 16 | block << 8 | element))
    value = _private_text(ds, group << 16 | 0x1000 | element)
    if value is None:
        return _Private()
    made_by = (text(ds, "Manufacturer") or "").lower()
    if group << 16 | 0x10 in ds or not made_by.startswith(maker):
        return _Private(foreign=True)
    return _Private(value, ownerless=True)


def _private_blocks(ds: Dataset, group: int) -> list[int]:
    """Blocks of a private group that a creator has reserved."""
    tags = map(int, ds.keys())
    return [tag & 0xFF for tag in tags if tag >> 16 == group and 0x10 <= tag & 0xFFFF <= 0xFF]


def _private_text(ds: Dataset, tag: int) -> str | None:
    """A private tag's text, also where its type is unknown and it comes as bytes."""
    try:
        element = ds.get_item(tag)
        value = None if element is None else element.value
    except Exception:  # a private element can hold anything
        return None
    stated = value.decode("ascii", "replace") if isinstance(value, bytes) else str(value or "")
    return stated.strip(PADDING) or None


def _positive(stated: str | None) -> float | None:
    """The number a private tag holds, None unless it is finite and above 0."""
    try:
        value = float(stated or "")
    except ValueError:
        return None
    return value if 0 < value < math.inf else None


def _moment_or_none(stated: str | None, zone_min: float | None) -> datetime | None:
    try:
        return date_time(stated, "private", zone_min)
    except ScanError:
        return None
