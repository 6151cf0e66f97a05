"""Which DICOM series lie in a heap of files.

Series are told apart by SeriesInstanceUID alone; folder and file names mean nothing. No identifier leaves this file:
series, studies, patients and frames of reference are known by eight letters of a digest.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO

from pydicom.dataset import Dataset

from mtdlr.errors import Problem, ScanError
from mtdlr.imaging import archive
from mtdlr.imaging.dicom_frames import frames_of
from mtdlr.imaging.dicom_tags import calendar_date, items, number, parse, quiet, secret, text, texts
from mtdlr.imaging.identity import is_named, names_of

_IMAGES = {
    "1.2.840.10008.5.1.4.1.1.128": "PT", "1.2.840.10008.5.1.4.1.1.130": "PT", "1.2.840.10008.5.1.4.1.1.128.1": "PT",
    "1.2.840.10008.5.1.4.1.1.2": "CT", "1.2.840.10008.5.1.4.1.1.2.1": "CT", "1.2.840.10008.5.1.4.1.1.2.2": "CT",
    "1.2.840.10008.5.1.4.1.1.481.3": "RTSTRUCT", "1.2.840.10008.5.1.4.1.1.66.4": "SEG",
    "1.2.840.10008.5.1.4.1.1.66.7": "SEG",
}  # fmt: skip
MIN_SLICES = 10
_UNREADABLE = Problem("E-DICOM", "a DICOM file cannot be read", remedy="Export or copy it again")
_UNNEEDED = Problem("W-DICOM", "a damaged DICOM file that no chosen series needs was left out")
_TAME = re.compile(r"(DICOM|DCM|PET|PT|CT|IMG?|I|Z|STUDY|ST|SERIES|SER|SE|S|PAT?|SLICE|IMAGE)?[ _-]?\d{0,4}(\.dcm)?",
                   re.IGNORECASE)  # names that can hold no identity
_COPY = Problem("W-COPIES", "files lie in the folder twice and were read once")
_NAC = re.compile(r"(^|[^A-Z])(NAC|NON?[ _-]?A(TT(EN)?)?[ _-]?C|UNCORR\w*)($|[^A-Z])")
_NO_CT_TYPES = {
    **dict.fromkeys(("LOCALIZER", "SCOUT", "TOPOGRAM"), "a localiser"),
    **dict.fromkeys(("MIP", "MINIP", "MIN_IP", "MAX_IP", "PROJECTION IMAGE", "REPROJECTION", "VOLUME_RENDERED",
                     "CSA MIP"), "a projection (MIP)"),
    **dict.fromkeys(("IODINE", "IODINE_MAP", "VNC", "VIRTUAL_NON_CONTRAST", "MATERIAL", "MATERIAL_DENSITY",
                     "MATERIAL_FRACTIONAL", "EFFECTIVE_Z", "EFFECTIVE_ATOMIC_NUM", "ZEFF", "ELECTRON_DENSITY",
                     "PERFUSION", "CBF", "CBV", "MTT", "TTP", "SUBTRACTION", "VMI", "MONOENERGETIC"),
                    "a derived map"),
}  # fmt: skip
_NO_CT_NAMES = re.compile(r"(^|[^A-Z])((?P<mip>(MIN)?MIP)|IODINE|VNC|Z[ _-]?EFF|PERFUSION|CBF|CBV|MTT|"
                          r"ELECTRON[ _-]?DENS\w*|SUBTRACT\w*)($|[^A-Z])")
_HEAD_NECK = re.compile(r"(^|[^A-Z])(H ?& ?N|HN|HEAD ?_?NECK|NECK|NASOPHARYNX)($|[^A-Z])")


@dataclass(frozen=True)
class Series:
    """One series: its files and the facts that choosing needs.

    Args:
        key: eight letters that stand for its SeriesInstanceUID.
        purpose: empty for a scan that can be used; otherwise why it is never taken unasked.
        z_mm: lowest and highest slice position in the patient; voxel_mm: (z, y, x).
        frame, study, patient: keys of its frame of reference, study and patient.
        refers_to: keys of the series that contours were drawn on; frames: keys of their frames of reference.
        patients: keys of every patient that its files name; derived: whether it was computed from other images.
        day: of the study, else of the series or its acquisition, as days since year 1; never shown.
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
    frames: frozenset[str] = frozenset()
    patients: frozenset[str] = frozenset()
    derived: bool = False
    day: int | None = field(default=None, repr=False)
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
        size = f"{z:.3g} x {y:.3g} x {x:.3g} mm" if math.isfinite(z + y + x) else "voxel size unknown"
        return f"{self.modality} series {self.key} ({number}{self.slices} slices, {size})"


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
    files = tuple(paths)
    instances, bad = read_instances(files)
    series, copies = series_of(instances)
    return series, (*counted(bad, files), *copies)


def read_instances(paths: Iterable[Path]) -> tuple[tuple[Instance, ...], tuple[tuple[Path, Problem], ...]]:
    """The headers of the images and contours among these files, and the files that cannot be read.

    A file or zip member that cannot be read, or is no DICOM although it is called so, costs nobody but itself.
    """
    found: list[Instance] = []
    bad: list[tuple[Path, Problem]] = []
    shared: dict[frozenset[tuple[str, object]], dict[str, object]] = {}  # a cohort has hundreds of thousands of files
    with quiet():
        for path, stream in archive.open_each(paths):
            dataset = None
            try:
                if isinstance(stream, ScanError):
                    raise stream
                dataset = _header(path, stream)
                if dataset is not None and (uid := text(dataset, "SeriesInstanceUID")):
                    instance = _instance(path, uid, dataset)
                    found.append(replace(instance, facts=shared.setdefault(frozenset(instance.facts.items()),
                                                                           instance.facts)))
                elif dataset is not None and _is_image(dataset):
                    bad.append((path, _UNREADABLE))  # cut off before it says which series it belongs to
            except ScanError as error:
                needless = dataset is not None and text(dataset, "Modality") not in ("PT", "CT")
                bad += [(path, _UNNEEDED if needless else p) for p in error.problems]
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
        series.append(_series(key, _stacked(kept)))
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


def counted(bad: Iterable[tuple[Path, Problem]], files: Iterable[Path]) -> tuple[Problem, ...]:
    """Equal problems of single files once, with how many files they concern and which of `files` the first one is.

    Args:
        bad: a file and what is wrong with it, for each such file.
        files: all files, whose order gives the place of the first.

    Returns:
        One problem for each kind, in the order met.
    """
    first: dict[Problem, Path] = {}
    counts: Counter[Problem] = Counter()
    for path, problem in bad:
        first.setdefault(problem, path)
        counts[problem] += 1
    order = sorted(files) if first else []
    return tuple(replace(p, found=f"{n} file{'s' * (n > 1)}, {'first ' * (n > 1)}{_which(first[p], order)}")
                 if p in (_UNREADABLE, _UNNEEDED) else p for p, n in counts.items())


def _which(path: Path, order: Sequence[Path]) -> str:
    """Which file it is: by its path where that names nobody, else by its place among the patient's files."""
    common = next((parent for parent in path.parents if all(f.is_relative_to(parent) for f in order)), path.parent)
    parts = path.relative_to(common).parts
    if all(map(_TAME.fullmatch, parts)):
        return "/".join(parts)
    place = order.index(path) + 1 if path in order else 1
    return f"number {place} of {len(order)} in the order of their paths"


def damage(bad: Iterable[tuple[Path, Problem]], used: Iterable[Path], files: Iterable[Path]) -> tuple[Problem, ...]:
    """What damaged files mean for a patient: a warning unless they lie beside the files of a chosen series.

    Args:
        bad: of `read_instances`.
        used: the files of the chosen PET and CT.
        files: all files of the patient.
    """
    folders = {path.parent for path in used}
    return counted([(path, p if not folders or path.parent in folders else _UNNEEDED) for path, p in bad], files)


def _instance(path: Path, uid: str, ds: Dataset) -> Instance:
    """What one file adds to its series."""
    modality = _IMAGES.get(text(ds, "SOPClassUID") or "", "")
    parts = _frames(ds) if modality in ("PT", "CT") else [ds]
    description = " ".join(filter(None, (text(ds, "SeriesDescription"), text(ds, "ProtocolName")))).upper()
    contours = modality in ("RTSTRUCT", "SEG")
    words = description + " " + (text(ds, "BodyPartExamined") or "").upper()
    facts: dict[str, object] = {
        "purpose": _purpose(parts[0], modality, description),
        "series_type": (texts(parts[0], "SeriesType") or ("",))[0].upper(),
        "head_neck": bool(_HEAD_NECK.search(words)), "number": _or_none(ds, "SeriesNumber"),
        "frame": secret(text(ds, "FrameOfReferenceUID")), "study": secret(text(ds, "StudyInstanceUID")),
        "patient": secret(text(ds, "PatientID") or text(ds, "PatientName")),
        "named": names_of(ds), "burned_in": (text(ds, "BurnedInAnnotation") or "").upper() == "YES",
        "refers_to": _references(ds) if contours else frozenset(),
        "frames": frames_referred_to(ds) if contours else frozenset(),
        "derived": modality == "CT" and "DERIVED" in (texts(parts[0], "ImageType") or ()), "day": _day(ds),
        "description": text(ds, "SeriesDescription") or "",
    }  # fmt: skip
    positions = [p for part in parts if (p := _floats(part, "ImagePositionPatient", 3)) is not None]
    return Instance(
        path=path, series=secret(uid), identity=secret(text(ds, "SOPInstanceUID") or path.as_posix()),
        modality=modality, frames=len(parts),
        z_mm=tuple(p[2] for p in positions), across=_floats(parts[0], "ImageOrientationPatient", 6),
        pixel=_floats(parts[0], "PixelSpacing", 2), facts=facts,
    )  # fmt: skip


def named_by(series: Series, name: str) -> bool:
    """Whether a folder's name holds a word that names the patient in the headers.

    Args:
        series: whose headers name the patient.
        name: name of a folder.
    """
    return is_named(name, series.named)


def _day(ds: Dataset) -> int | None:
    """The day of the examination, None where every date was removed or cannot be read."""
    for stem in ("Study", "Acquisition", "Series"):
        try:
            found = calendar_date(text(ds, f"{stem}Date"), f"{stem}Date")
        except ScanError:
            continue
        if found is not None:
            return found.toordinal()
    return None


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
    image_type = [v.upper() for v in texts(ds, "ImageType") or ()]
    if modality == "CT":
        return _no_ct(ds, image_type, description)
    if modality != "PT":
        return ""
    kind = [v.upper() for v in texts(ds, "SeriesType") or ()]
    corrected = [v.upper() for v in texts(ds, "CorrectedImage") or ()]
    if kind and kind[0] in ("DYNAMIC", "GATED"):
        return kind[0].lower()
    if "REPROJECTION" in kind[1:] or {*image_type} & {"MIP", "REPROJECTION", "PROJECTION IMAGE"}:
        return "a projection (MIP)"
    named_so = not corrected and _NAC.search(description)
    return "not corrected for attenuation" if named_so or (corrected and "ATTN" not in corrected) else ""


def _no_ct(ds: Dataset, image_type: list[str], description: str) -> str:
    """Why a CT image holds no HU of the patient; empty for one that does."""
    told = next((_NO_CT_TYPES[v] for v in image_type if v in _NO_CT_TYPES), "")
    named = _NO_CT_NAMES.search(description)
    if told or named:
        return told or ("a projection (MIP)" if named and named["mip"] else "a derived map")
    unit = (text(ds, "RescaleType") or "HU").upper()
    return "" if unit in ("HU", "US", "UNSPECIFIED", "HU_MOD") else "a derived map"


def _references(ds: Dataset) -> frozenset[str]:
    """Keys of the series that contours or a segmentation refer to."""
    found = [text(item, "SeriesInstanceUID") for item in items(ds, "ReferencedSeriesSequence")]
    found += [text(series, "SeriesInstanceUID") for frame in items(ds, "ReferencedFrameOfReferenceSequence")
              for study in items(frame, "RTReferencedStudySequence")
              for series in items(study, "RTReferencedSeriesSequence")]
    return frozenset(secret(uid) for uid in found if uid)


def frames_referred_to(ds: Dataset) -> frozenset[str]:
    """Keys of the frames of reference that contours or a segmentation lie in."""
    found = [text(ds, "FrameOfReferenceUID")]
    found += [text(item, "FrameOfReferenceUID") for item in items(ds, "ReferencedFrameOfReferenceSequence")]
    found += [text(item, "ReferencedFrameOfReferenceUID") for item in items(ds, "StructureSetROISequence")]
    return frozenset(secret(uid) for uid in found if uid)


def _without_copies(files: list[Instance]) -> list[Instance]:
    """Each instance once; instances that come twice with other content stay and fail when the series is read."""
    first: dict[str, Instance] = {}
    kept = []
    for instance in files:
        twin = first.setdefault(instance.identity, instance)
        if twin is instance or not archive.same_content(twin.path, instance.path):
            kept.append(instance)
    return kept


def _stacked(members: list[Instance]) -> list[Instance]:
    """A CT series without localisers, projections and single images across the slices that lie among its slices."""
    plain = [m for m in members if not m.facts["purpose"] and not _across(m)]
    return plain if members[0].modality == "CT" and sum(m.frames for m in plain) >= MIN_SLICES else members


def _across(member: Instance) -> bool:
    """Whether an image does not lie across the patient's long axis."""
    if member.across is None:
        return False
    row, column = member.across[:3], member.across[3:]
    return abs(row[0] * column[1] - row[1] * column[0]) < 0.8


def _series(key: str, members: list[Instance]) -> Series:
    """A series from its files, ordered along the patient."""
    heights = [z for m in members for z in m.z_mm]
    ordered = sorted(members, key=lambda m: (min(m.z_mm, default=0.0), m.path))
    first = ordered[0]
    patients = frozenset(str(m.facts["patient"]) for m in members) - {""}
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
                  z_mm=(low, high), voxel_mm=(step, pixel[0], pixel[1]), patients=patients, **facts)  # type: ignore[arg-type]


def _shape_purpose(member: Instance, slices: int) -> str:
    """Why a series' shape rules it out; empty for a stack of axial slices."""
    if member.modality not in ("PT", "CT"):
        return ""
    if slices < MIN_SLICES:
        return f"{slices} slices only"
    return "not axial" if _across(member) else ""
