"""Which DICOM series lie in a heap of files.

Series are told apart by SeriesInstanceUID alone; folder and file names mean nothing. No identifier leaves this file:
series, studies, patients and frames of reference are known by eight letters of a digest.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO

from pydicom.dataset import Dataset

from mtdlr.errors import Problem, ScanError
from mtdlr.imaging import archive
from mtdlr.imaging.dicom_frames import frames_of
from mtdlr.imaging.dicom_tags import first_item, number, parse, quiet, secret, text, texts

_IMAGES = {
    "1.2.840.10008.5.1.4.1.1.128": "PT", "1.2.840.10008.5.1.4.1.1.130": "PT", "1.2.840.10008.5.1.4.1.1.128.1": "PT",
    "1.2.840.10008.5.1.4.1.1.2": "CT", "1.2.840.10008.5.1.4.1.1.2.1": "CT", "1.2.840.10008.5.1.4.1.1.2.2": "CT",
    "1.2.840.10008.5.1.4.1.1.481.3": "RTSTRUCT", "1.2.840.10008.5.1.4.1.1.66.4": "SEG",
}  # fmt: skip
MIN_SLICES = 10
_UNREADABLE = Problem("E-DICOM", "a DICOM file cannot be read", remedy="Export or copy it again")
_COPY = Problem("W-COPIES", "files lie in the folder twice and were read once")
_NAC = re.compile(r"(^|[^A-Z])(NAC|NON?[ _-]?A(TT(EN)?)?[ _-]?C|UNCORR\w*)($|[^A-Z])")
_HEAD_NECK = re.compile(r"(^|[^A-Z])(H ?& ?N|HN|HEAD ?_?NECK|NECK|NASOPHARYNX)($|[^A-Z])")


@dataclass(frozen=True)
class Series:
    """One series: its files and the facts that choosing needs.

    Args:
        key: eight letters that stand for its SeriesInstanceUID.
        purpose: empty for a scan that can be used; otherwise why it is never taken unasked.
        z_mm: lowest and highest slice position in the patient; voxel_mm: (z, y, x).
        frame, study, patient: keys of its frame of reference, study and patient.
        refers_to: keys of the series that contours were drawn on.
        description: for matching a choice by name; never shown.
        named: keys of words that name the patient; burned_in: whether the pixels are said to show text.
    """

    key: str
    modality: str
    files: tuple[Path, ...] = field(repr=False)
    purpose: str = ""
    slices: int = 0
    z_mm: tuple[float, float] = (math.nan, math.nan)
    voxel_mm: tuple[float, float, float] = (math.nan, math.nan, math.nan)
    series_type: str = ""
    head_neck: bool = False
    number: float = math.inf
    frame: str = ""
    study: str = ""
    patient: str = ""
    refers_to: frozenset[str] = frozenset()
    description: str = field(default="", repr=False)
    named: frozenset[str] = field(default=frozenset(), repr=False)
    burned_in: bool = False

    @property
    def label(self) -> str:
        """How a message names the series: key, series number, slices and voxel size."""
        if self.modality not in ("PT", "CT"):
            return f"{self.modality} series {self.key}"
        z, y, x = self.voxel_mm
        number = f"no. {self.number:g}, " if math.isfinite(self.number) else ""
        return f"{self.modality} series {self.key} ({number}{self.slices} slices, {z:.3g} x {y:.3g} x {x:.3g} mm)"


@dataclass(frozen=True, slots=True)
class Instance:
    """One file's share of its series' facts; `identity` tells copies of one file apart from others."""

    path: Path
    series: str
    identity: str
    modality: str
    frames: int
    z_mm: tuple[float, ...]
    across: tuple[float, ...] | None
    pixel: tuple[float, ...] | None
    facts: dict[str, object]


def group_series(paths: Iterable[Path]) -> tuple[tuple[Series, ...], tuple[Problem, ...]]:
    """The PET, CT, RTSTRUCT and SEG series among these files, and problems with single files.

    Raises:
        ScanError: E-NOFILE, E-ZIP.
    """
    instances, bad = read_instances(paths)
    series, copies = series_of(instances)
    return series, (*counted(p for _, p in bad), *copies)


def read_instances(paths: Iterable[Path]) -> tuple[tuple[Instance, ...], tuple[tuple[Path, Problem], ...]]:
    """The headers of the images and contours among these files, and the files that cannot be read.

    Raises:
        ScanError: E-NOFILE, E-ZIP.
    """
    found: list[Instance] = []
    bad: list[tuple[Path, Problem]] = []
    shared: dict[frozenset[tuple[str, object]], dict[str, object]] = {}  # a cohort has hundreds of thousands of files
    with quiet():
        for path, stream in archive.open_all(paths):
            try:
                dataset = _header(path, stream)
                if dataset is not None and (uid := text(dataset, "SeriesInstanceUID")):
                    instance = _instance(path, uid, dataset)
                    found.append(replace(instance, facts=shared.setdefault(frozenset(instance.facts.items()),
                                                                           instance.facts)))
                elif dataset is not None and _is_image(dataset):
                    bad.append((path, _UNREADABLE))  # cut off before it says which series it belongs to
            except ScanError as error:
                bad += [(path, p) for p in error.problems]
            except archive.BROKEN:
                bad.append((path, _UNREADABLE))
    return tuple(i for i in found if i.modality), tuple(bad)


def series_of(instances: Iterable[Instance]) -> tuple[tuple[Series, ...], tuple[Problem, ...]]:
    """The series that these files make up, sorted by modality and number, and W-COPIES for files that lie there twice.

    Raises:
        ScanError: E-NOFILE, E-ZIP.
    """
    by_key: dict[str, list[Instance]] = defaultdict(list)
    for instance in instances:
        by_key[instance.series].append(instance)
    series, copies = [], 0
    for key, files in by_key.items():
        kept = _without_copies(files)
        copies += len(files) - len(kept)
        series.append(_series(key, kept))
    told = (replace(_COPY, found=f"{copies} copies"),) if copies else ()
    return tuple(sorted(series, key=lambda s: (s.modality, s.number, s.key))), told


def _header(path: Path, stream: BinaryIO) -> Dataset | None:
    """The dataset without pixels; None for a file that neither is nor claims to be DICOM."""
    dataset = parse(stream, pixels=False)
    if dataset is None and path.suffix.lower() in (".dcm", ".ima"):
        raise ScanError(_UNREADABLE)
    return dataset


def _is_image(ds: Dataset) -> bool:
    """Whether a file's first tags announce an image or contours."""
    announced = str(getattr(getattr(ds, "file_meta", None), "MediaStorageSOPClassUID", ""))
    return (text(ds, "SOPClassUID") or announced) in _IMAGES


def counted(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """Equal problems once, with how many files they concern."""
    return tuple(replace(p, found=f"{n} files") if p == _UNREADABLE else p for p, n in Counter(problems).items())


def _instance(path: Path, uid: str, ds: Dataset) -> Instance:
    """What one file adds to its series."""
    modality = _IMAGES.get(text(ds, "SOPClassUID") or "", "")
    parts = _frames(ds) if modality in ("PT", "CT") else [ds]
    description = " ".join(filter(None, (text(ds, "SeriesDescription"), text(ds, "ProtocolName")))).upper()
    words = description + " " + (text(ds, "BodyPartExamined") or "").upper()
    facts: dict[str, object] = {
        "purpose": _purpose(parts[0], modality, description),
        "series_type": (texts(parts[0], "SeriesType") or ("",))[0].upper(),
        "head_neck": bool(_HEAD_NECK.search(words)), "number": _or_none(ds, "SeriesNumber"),
        "frame": secret(text(ds, "FrameOfReferenceUID")), "study": secret(text(ds, "StudyInstanceUID")),
        "patient": secret(text(ds, "PatientID") or text(ds, "PatientName")),
        "named": _named(ds), "burned_in": (text(ds, "BurnedInAnnotation") or "").upper() == "YES",
        "refers_to": _references(ds) if modality in ("RTSTRUCT", "SEG") else frozenset(),
        "description": text(ds, "SeriesDescription") or "",
    }  # fmt: skip
    positions = [p for part in parts if (p := _floats(part, "ImagePositionPatient", 3)) is not None]
    return Instance(
        path=path, series=secret(uid), identity=secret(text(ds, "SOPInstanceUID") or path.as_posix()),
        modality=modality, frames=len(parts),
        z_mm=tuple(p[2] for p in positions), across=_floats(parts[0], "ImageOrientationPatient", 6),
        pixel=_floats(parts[0], "PixelSpacing", 2), facts=facts,
    )  # fmt: skip


def _named(ds: Dataset) -> frozenset[str]:
    """Keys of the words that name the patient, none where the file says that identity was removed."""
    if (text(ds, "PatientIdentityRemoved") or "").upper() == "YES":
        return frozenset()
    words = [text(ds, "PatientID") or "", *re.split(r"[\^=,\s]+", text(ds, "PatientName") or "")]
    return frozenset(secret(w.upper()) for w in words if len(w) >= 4)


def named_by(series: Series, name: str) -> bool:
    """Whether a folder's name holds a word that names the patient in the headers."""
    words = {name.upper(), *re.split(r"[\W_]+", name.upper())}
    return bool(series.named & {secret(w) for w in words})


def _frames(ds: Dataset) -> list[Dataset]:
    """The file's frames; the file itself where they cannot be told apart (reading it says why)."""
    try:
        return list(frames_of(ds))
    except ScanError:
        return [ds]


def _or_none(ds: Dataset, keyword: str) -> float | None:
    try:
        return number(ds, keyword)
    except ScanError:
        return None


def _floats(ds: Dataset, keyword: str, count: int) -> tuple[float, ...] | None:
    """Numbers of a tag where they are all there; reading the series reports what is wrong with them."""
    try:
        values = tuple(float(v) for v in texts(ds, keyword) or ())
    except (ScanError, ValueError):
        return None
    return values if len(values) == count and all(map(math.isfinite, values)) else None


def _purpose(ds: Dataset, modality: str, description: str) -> str:
    """Why an image is never taken unasked; empty for an ordinary one."""
    image_type = {v.upper() for v in texts(ds, "ImageType") or ()}
    if modality == "CT":
        return "a localiser" if image_type & {"LOCALIZER", "SCOUT", "TOPOGRAM"} else ""
    if modality != "PT":
        return ""
    kind = [v.upper() for v in texts(ds, "SeriesType") or ()]
    corrected = [v.upper() for v in texts(ds, "CorrectedImage") or ()]
    if kind and kind[0] in ("DYNAMIC", "GATED"):
        return kind[0].lower()
    if "REPROJECTION" in kind[1:] or image_type & {"MIP", "REPROJECTION", "PROJECTION IMAGE"}:
        return "a projection (MIP)"
    named_so = not corrected and _NAC.search(description)
    return "not corrected for attenuation" if named_so or (corrected and "ATTN" not in corrected) else ""


def _references(ds: Dataset) -> frozenset[str]:
    """Keys of the series that contours or a segmentation refer to."""
    found = set()
    item = first_item(ds, "ReferencedSeriesSequence")
    if item is not None:
        found.add(secret(text(item, "SeriesInstanceUID")))
    frame = first_item(ds, "ReferencedFrameOfReferenceSequence")
    study = None if frame is None else first_item(frame, "RTReferencedStudySequence")
    series = None if study is None else first_item(study, "RTReferencedSeriesSequence")
    if series is not None:
        found.add(secret(text(series, "SeriesInstanceUID")))
    return frozenset(found - {""})


def _without_copies(files: list[Instance]) -> list[Instance]:
    """Each instance once; instances that come twice with other content stay and fail when the series is read."""
    first: dict[str, Instance] = {}
    kept = []
    for instance in files:
        twin = first.setdefault(instance.identity, instance)
        if twin is instance or archive.digest([twin.path]) != archive.digest([instance.path]):
            kept.append(instance)
    return kept


def _series(key: str, members: list[Instance]) -> Series:
    """A series from its files, ordered along the patient."""
    heights = [z for m in members for z in m.z_mm]
    ordered = sorted(members, key=lambda m: (min(m.z_mm, default=0.0), m.path))
    first = ordered[0]
    low, high = min(heights, default=math.nan), max(heights, default=math.nan)
    slices = sum(m.frames for m in members)
    step = (high - low) / (slices - 1) if slices > 1 else math.nan
    pixel = first.pixel or (math.nan, math.nan)
    facts = dict(first.facts)
    purposes = [str(m.facts["purpose"]) for m in members if m.facts["purpose"]]
    facts["purpose"] = purposes[0] if purposes else _shape_purpose(first, slices)
    facts["burned_in"] = any(m.facts["burned_in"] for m in members)
    facts["number"] = math.inf if facts["number"] is None else facts["number"]
    return Series(key=key, modality=first.modality, files=tuple(m.path for m in ordered), slices=slices,
                  z_mm=(low, high), voxel_mm=(step, pixel[0], pixel[1]), **facts)  # type: ignore[arg-type]


def _shape_purpose(member: Instance, slices: int) -> str:
    """Why a series' shape rules it out; empty for a stack of axial slices."""
    if member.modality not in ("PT", "CT"):
        return ""
    if slices < MIN_SLICES:
        return f"{slices} slices only"
    if member.across is not None:
        row, column = member.across[:3], member.across[3:]
        if abs(row[0] * column[1] - row[1] * column[0]) < 0.8:
            return "not axial"
    return ""
