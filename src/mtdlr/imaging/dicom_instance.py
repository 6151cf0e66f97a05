"""What one DICOM file says of itself: the share of its series' facts that its header holds.

No identifier leaves this file: series, studies, patients and frames of reference are known by eight letters of a
digest.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from pydicom.dataset import Dataset

from mtdlr.errors import Problem, ScanError
from mtdlr.imaging import archive
from mtdlr.imaging.dicom_frames import frames_of
from mtdlr.imaging.dicom_tags import calendar_date, items, number, parse, quiet, secret, text, texts
from mtdlr.imaging.identity import names_of

_IMAGES = {
    "1.2.840.10008.5.1.4.1.1.128": "PT", "1.2.840.10008.5.1.4.1.1.130": "PT", "1.2.840.10008.5.1.4.1.1.128.1": "PT",
    "1.2.840.10008.5.1.4.1.1.2": "CT", "1.2.840.10008.5.1.4.1.1.2.1": "CT", "1.2.840.10008.5.1.4.1.1.2.2": "CT",
    "1.2.840.10008.5.1.4.1.1.481.3": "RTSTRUCT", "1.2.840.10008.5.1.4.1.1.66.4": "SEG",
    "1.2.840.10008.5.1.4.1.1.66.7": "SEG",
}  # fmt: skip
UNREADABLE = Problem("E-DICOM", "a DICOM file cannot be read", remedy="Export or copy it again")
UNNEEDED = Problem("W-DICOM", "a damaged DICOM file that no chosen series needs was left out")
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
_SETS = ("named", "refers_to", "frames")


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


Found = tuple[tuple[Instance, ...], tuple[tuple[Path, Problem], ...]]
"""The instances of some files, and the files that cannot be read."""
Reader = Callable[[Sequence[Sequence[Path]]], Sequence[Found]]
"""Reads the headers of several heaps of files, of each what `read_instances` gives."""


def read_instances(paths: Iterable[Path]) -> Found:
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
                    bad.append((path, UNREADABLE))  # cut off before it says which series it belongs to
            except ScanError as error:
                needless = dataset is not None and text(dataset, "Modality") not in ("PT", "CT")
                bad += [(path, UNNEEDED if needless else p) for p in error.problems]
            except archive.BROKEN:
                bad.append((path, UNREADABLE))
    return tuple(i for i in found if i.modality), tuple(bad)


def read_heaps(heaps: Sequence[Sequence[Path]]) -> list[Found]:
    """`read_instances` of each heap of files, one after the other."""
    return [read_instances(files) for files in heaps]


def packed(instances: Sequence[Instance], files: Sequence[Path]) -> list[Any]:
    """Instances as JSON values without any path; what the files of a series have in common stands there once.

    Args:
        instances: of `read_instances`.
        files: the files that were read; an instance names its file by the place in them.
    """
    place, kinds = {path: k for k, path in enumerate(files)}, dict[Any, int]()
    rows = [[place[i.path], kinds.setdefault((i.series, i.modality, i.frames, i.across, i.pixel, _plain(i.facts)),
                                             len(kinds)), i.identity, i.z_mm] for i in instances]
    return [[[*kind[:-1], dict(kind[-1])] for kind in kinds], rows]


def unpacked(values: Any, files: Sequence[Path]) -> tuple[Instance, ...]:
    """The instances of `packed`.

    Args:
        values: as `packed` gives them, also after JSON.
        files: the files that were read then, in the same order.

    Raises:
        ValueError, TypeError, LookupError, AttributeError: for anything else.
    """
    listed, rows = values
    kinds = [(series, modality, frames, across and tuple(across), pixel and tuple(pixel),
              {name: frozenset(value) if name in _SETS else value for name, value in facts.items()})
             for series, modality, frames, across, pixel, facts in listed]
    found = []
    for place, k, identity, z_mm in rows:
        series, modality, frames, across, pixel, facts = kinds[k]
        found.append(Instance(files[place], series, identity, modality, frames, tuple(z_mm), across, pixel, facts))
    return tuple(found)


def _plain(facts: dict[str, object]) -> tuple[tuple[str, object], ...]:
    """Facts that can be compared and written: a set becomes its members in order."""
    return tuple((name, tuple(sorted(value)) if isinstance(value, frozenset) else value)
                 for name, value in facts.items())


def _header(path: Path, stream: BinaryIO) -> Dataset | None:
    """The dataset without pixels; None for a file that neither is nor claims to be DICOM."""
    dataset = parse(stream, pixels=False)
    if dataset is None and path.suffix.lower() in (".dcm", ".ima"):
        raise ScanError(UNREADABLE)
    return dataset


def _is_image(ds: Dataset) -> bool:
    """Whether a file's first tags announce an image or contours."""
    announced = str(getattr(getattr(ds, "file_meta", None), "MediaStorageSOPClassUID", ""))
    return (text(ds, "SOPClassUID") or announced) in _IMAGES


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
