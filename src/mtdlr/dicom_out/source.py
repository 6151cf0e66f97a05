"""The headers of the examination that a prediction was made from: the only place where its patient is named.

What is taken goes into the objects that are written, and nowhere else. A header that cannot be carried over is an
error that names the tag, never its value.
"""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.datadict import dictionary_VR
from pydicom.dataset import Dataset
from pydicom.valuerep import validate_value

from mtdlr.errors import Problem, ScanError
from mtdlr.imaging import archive, nifti
from mtdlr.imaging.dicom_tags import (
    calendar_date,
    clock_time,
    decoded,
    label,
    number,
    numbers,
    parse,
    quiet,
    text,
    texts,
    unreadable,
)
from mtdlr.imaging.dicom_volume import read_stack
from mtdlr.imaging.layout import ScanSet, with_series
from mtdlr.imaging.reading import expanded
from mtdlr.volume import Volume

UTF8 = "ISO_IR 192"
NO_DATE, NO_TIME = "20000101", "000000"  # of an examination whose date was removed
_UID = re.compile(r"[0-9]+(\.[0-9]+)*")
_UIDS = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")
_TEXTS = ("PatientID", "PatientName", "IssuerOfPatientID", "AccessionNumber", "StudyID", "StudyDescription",
          "ReferringPhysicianName", "PositionReferenceIndicator", "PatientAge", "PatientIdentityRemoved",
          "DeidentificationMethod", "TimezoneOffsetFromUTC")
_MUST_STAND = ("PatientID", "PatientName", "AccessionNumber", "StudyID", "ReferringPhysicianName",
               "PositionReferenceIndicator")  # type 2: empty where unknown
_NAMES = ("PatientID", "PatientName")  # an archive files by them as they are
_CT = "1.2.840.10008.5.1.4.1.1.2"


@dataclass(frozen=True, eq=False)
class Source:
    """One examination's headers without pixels, in UTF-8.

    Args:
        ct: the CT's slices along its normal, one dataset each; pet: those of the PET.
        affine: (4, 4), index of the CT's slices, rows and columns -> LPS mm.
        shape: (z, y, x) of the CT.
    """

    ct: tuple[Dataset, ...] = field(repr=False)
    pet: tuple[Dataset, ...] = field(repr=False)
    affine: NDArray[np.float64] = field(repr=False)
    shape: tuple[int, int, int]

    @property
    def patient(self) -> Dataset:
        """The header that new objects take patient and study from."""
        return self.ct[0]

    @property
    def date_time(self) -> tuple[str, str]:
        """When the examination was: the date of all that is made from it, so that the same result is the same file."""
        return self.patient.StudyDate or NO_DATE, self.patient.StudyTime or NO_TIME

    def on_ct(self, mask: Volume) -> NDArray[np.uint8]:
        """A mask on a part of the CT's grid as the whole CT's voxels (z, y, x), 0 or 1.

        Raises:
            ScanError: E-DICOMOUT where the mask lies on another grid.
        """
        whole = np.zeros(self.shape, np.uint8)
        inside = np.argwhere(mask.array)
        if inside.size:
            exact = Volume(whole, self.affine).indices(mask.points_mm(inside))
            index = np.rint(exact).astype(int)
            if np.abs(exact - index).max() > 0.05 or (index < 0).any() or (index >= self.shape).any():
                raise refusal("the mask does not lie on the grid of this CT", remedy="Predict this examination again")
            whole[tuple(index.T)] = 1
        return whole


def refusal(what: str, *, where: str = "", found: str = "", remedy: str = "") -> ScanError:
    """E-DICOMOUT."""
    return ScanError(Problem("E-DICOMOUT", what, where=where, found=found, remedy=remedy))


def read_source(scan: ScanSet, *, series: Sequence[str] = ()) -> Source:
    """The headers that DICOM results need, read before minutes of work.

    Args:
        scan: the patient's files.
        series: DICOM series to take instead of those chosen, as they are given to `predict`.

    Raises:
        ScanError: E-DICOMINPUT for images that are not DICOM; E-DICOMOUT for a series that lacks slices, a multi-frame
            CT or a header that cannot be carried over; what `read_stack` raises.
    """
    scan = with_series(expanded(scan), tuple(series))
    errors = [p for p in scan.problems if p.is_error]
    if errors:
        raise ScanError(errors)
    pet, ct = _files(scan.pet), _files(scan.ct)
    with quiet():
        stack = read_stack(ct, "CT", pixels=False)
        lacking = [p for p in (*stack.problems, *read_stack(pet, "PT", pixels=False).problems) if p.code == "W-SLICES"]
        if lacking:
            raise refusal("no DICOM result is written from a part of a series", found=lacking[0].found,
                          remedy="Export the whole series")
        headers = _headers(ct)
        if len(headers) != len(stack.planes) or any(ds.SOPClassUID != _CT for ds in headers):
            raise refusal("DICOM results need a CT of single-frame images", found=f"{len(headers)} files",
                          remedy="Export the CT as CT Image Storage")
        normal = np.cross(headers[0].ImageOrientationPatient[:3], headers[0].ImageOrientationPatient[3:])
        headers.sort(key=lambda ds: float(np.dot(normal, [float(v) for v in ds.ImagePositionPatient])))
        return Source(tuple(headers), tuple(_headers(pet, geometry=False)), stack.affine, stack.shape)


def uid_of(*parts: object) -> str:
    """A UID that follows from the parts: a name-based UUID under 2.25 (PS3.5 B.2).

    >>> uid_of("study", 1) == uid_of("study", 1) != uid_of("study", 2)
    True
    """
    name = hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, f'mtdlr {name}').int}"


def _files(files: Path | tuple[Path, ...] | None) -> tuple[Path, ...]:
    found = () if files is None else (files,) if isinstance(files, Path) else files
    if not found or any(nifti.is_nifti(path) for path in found):
        raise ScanError(Problem("E-DICOMINPUT", "DICOM results need a DICOM examination to belong to",
                                found="NIfTI images" if found else "no images",
                                remedy="Give the DICOM folder, or ask for no DICOM results"))
    return found


def _headers(files: Sequence[Path], *, geometry: bool = True) -> list[Dataset]:
    """One clean header a file."""
    found = []
    for _, stream in archive.open_all(files):
        ds = parse(stream, pixels=False)
        if ds is None:
            raise refusal("a file of the series is no DICOM", remedy="Export it again")
        found.append(_clean(ds, geometry=geometry))
    return found


def _clean(ds: Dataset, *, geometry: bool) -> Dataset:
    """What new objects take from a file, in UTF-8; what the standard does not allow is empty, but for the patient."""
    clean = Dataset()
    clean.SpecificCharacterSet = UTF8
    for keyword in _UIDS:
        value = text(ds, keyword) or ""
        if len(value) > 64 or not _UID.fullmatch(value):
            raise refusal("an identifier of the examination is missing or no UID", where=label(keyword),
                          remedy="Export the series again")
        setattr(clean, keyword, value)
    for keyword in _TEXTS:
        value = decoded(ds, keyword)
        if value and keyword not in _NAMES and not _is_valid(keyword, value):
            value = ""
        if value or keyword in _MUST_STAND:
            setattr(clean, keyword, value)
    for keyword in ("StudyDate", "PatientBirthDate"):
        setattr(clean, keyword, _moment(ds, keyword))
    clean.StudyTime = _moment(ds, "StudyTime")
    sex = (text(ds, "PatientSex") or "").upper()
    clean.PatientSex = sex if sex in ("M", "F", "O") else ""
    clean.Modality = text(ds, "Modality")
    if geometry:
        _place(ds, clean)
    return clean


def _is_valid(keyword: str, value: str) -> bool:
    """Whether the tag's type can hold a text."""
    try:
        validate_value(dictionary_VR(keyword), value, pydicom.config.RAISE)
    except ValueError:
        return False
    return True


def _place(ds: Dataset, clean: Dataset) -> None:
    """Where a slice lies, as its own text, so that nothing is rounded."""
    for keyword, count in (("ImagePositionPatient", 3), ("ImageOrientationPatient", 6), ("PixelSpacing", 2)):
        numbers(ds, keyword, count)  # refuses what is no number
        setattr(clean, keyword, list(texts(ds, keyword) or ()))
    for keyword in ("SliceThickness", "SpacingBetweenSlices"):
        if number(ds, keyword) is not None:
            setattr(clean, keyword, text(ds, keyword))
    for keyword in ("Rows", "Columns"):
        value = number(ds, keyword)
        if value is None:
            raise unreadable(keyword)
        setattr(clean, keyword, int(value))


def _moment(ds: Dataset, keyword: str) -> str:
    """A date as YYYYMMDD, or a time as HHMMSS; empty where it is missing or cannot be read."""
    read, form = (calendar_date, "%Y%m%d") if keyword.endswith("Date") else (clock_time, "%H%M%S")
    try:
        found = read(text(ds, keyword), keyword)
    except ScanError:
        return ""
    return "" if found is None else found.strftime(form)
