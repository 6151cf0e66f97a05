"""RTSTRUCT and SEG files to plain facts: named contours in mm, or labelled planes on their own grid."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from mtdlr.errors import Problem, ScanError
from mtdlr.imaging import archive
from mtdlr.imaging.dicom import frames_referred_to
from mtdlr.imaging.dicom_tags import first_item, items, number, numbers, parse, quiet, text, unreadable
from mtdlr.volume import Volume

_HARMLESS = re.compile(r"[A-Za-z0-9 _.+/-]{1,32}")
_MAX_SEG_VOXELS = 2**30


@dataclass(frozen=True, eq=False)
class Roi:
    """One structure: its name and its closed contours, each (n, 3) LPS mm; `kind` is GTV, CTV, ORGAN ... or empty."""

    name: str
    kind: str
    contours: tuple[NDArray[np.float64], ...]


@dataclass(frozen=True, eq=False)
class Segment:
    """One segment of a SEG file: its label and its voxels (bool) on the file's own grid."""

    name: str
    mask: Volume


def shown(name: str) -> str:
    """A structure's name as a message may show it: withheld where it could hold a person's name or number."""
    tame = _HARMLESS.fullmatch(name) and not re.search(r"\d{5,}", name)
    return name if tame else "(name withheld)"


def kind_of(path: Path) -> tuple[str, frozenset[str]]:
    """("RTSTRUCT" or "SEG", keys of its frames of reference) of such a DICOM file, empty for anything else."""
    with quiet():
        for _, stream in archive.open_all([path]):
            ds = parse(stream, pixels=False)
            modality = None if ds is None else text(ds, "Modality")
            if ds is not None and modality in ("RTSTRUCT", "SEG"):
                return modality, frames_referred_to(ds)
    return "", frozenset()


def read_structures(path: Path) -> tuple[Roi, ...]:
    """The closed planar contours of an RTSTRUCT file by structure.

    Raises:
        ScanError: E-RTSTRUCT, E-DICOM, E-TAG.
    """
    with quiet():
        ds = _dataset(path, "RTSTRUCT")
        named = {text(item, "ROINumber") or "": text(item, "ROIName") or ""
                 for item in items(ds, "StructureSetROISequence")}
        kinds = {text(o, "ReferencedROINumber") or "": (text(o, "RTROIInterpretedType") or "").upper()
                 for o in items(ds, "RTROIObservationsSequence")}
        rois = []
        for item in items(ds, "ROIContourSequence"):
            key = text(item, "ReferencedROINumber") or ""
            contours = tuple(_points(c) for c in items(item, "ContourSequence") if _is_area(c))
            rois.append(Roi(named.get(key, ""), kinds.get(key, ""), contours))
    return tuple(rois)


def read_segments(path: Path) -> tuple[Segment, ...]:
    """The segments of a binary SEG file, each on the smallest grid that holds all frames.

    Raises:
        ScanError: E-SEG, E-DICOM, E-TAG.
    """
    with quiet():
        ds = _dataset(path, "SEG")
        if text(ds, "SegmentationType") not in ("BINARY", "FRACTIONAL"):
            raise _bad_seg("its type is neither BINARY nor FRACTIONAL")
        frames = _seg_pixels(ds)
        labels = {int(number(s, "SegmentNumber") or 0): text(s, "SegmentLabel") or ""
                  for s in items(ds, "SegmentSequence")}
        places = [_seg_frame(ds, f) for f in items(ds, "PerFrameFunctionalGroupsSequence")]
    if len(places) != len(frames):
        raise _bad_seg("the number of frames does not match their description")
    affine, depth = _seg_affine(places)
    if depth * frames[0].size > _MAX_SEG_VOXELS:
        raise _bad_seg("its frames lie too far apart")
    volumes: dict[int, NDArray[np.bool_]] = defaultdict(lambda: np.zeros((depth, *frames[0].shape), dtype=bool))
    for place, frame in zip(places, frames, strict=True):
        k = round(float(np.linalg.solve(affine, [*place.position, 1.0])[0]))
        volumes[place.segment][k] |= frame
    return tuple(Segment(labels.get(n, ""), Volume(array, affine)) for n, array in sorted(volumes.items()))


def segment_names(path: Path) -> tuple[Roi, ...]:
    """The segments' labels, as structures without contours.

    Raises:
        ScanError: E-DICOM, E-TAG.
    """
    with quiet():
        ds = _dataset(path, "SEG")
        return tuple(Roi(text(s, "SegmentLabel") or "", "", ()) for s in items(ds, "SegmentSequence"))


@dataclass(frozen=True)
class _SegFrame:
    segment: int
    position: tuple[float, ...]
    orientation: tuple[float, ...]
    pixel: tuple[float, ...]
    thickness: float


def _dataset(path: Path, modality: str) -> Dataset:
    for _, stream in archive.open_all([path]):
        ds = parse(stream, pixels=True)
        if ds is not None and text(ds, "Modality") == modality:
            return ds
    raise ScanError(Problem("E-DICOM", f"this is not a DICOM {modality} file", remedy="Check the mask's path"))


def _is_area(contour: Dataset) -> bool:
    """Whether the contour encloses something."""
    return text(contour, "ContourGeometricType") in ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR", None)


def _points(contour: Dataset) -> NDArray[np.float64]:
    """(n, 3) points of a contour."""
    try:
        flat = np.array(contour.get("ContourData"), dtype=np.float64).reshape(-1)
    except Exception:
        raise unreadable("ContourData") from None
    if flat.size < 9 or flat.size % 3 or not np.isfinite(flat).all():
        return _too_few(flat)
    return flat.reshape(-1, 3)


def _too_few(flat: NDArray[np.float64]) -> NDArray[np.float64]:
    """No area for one or two points; E-RTSTRUCT for numbers that make no points."""
    if flat.size in (3, 6) and np.isfinite(flat).all():
        return np.empty((0, 3))
    raise ScanError(Problem("E-RTSTRUCT", "a contour's points are not triples of numbers",
                            where="ContourData (3006,0050)", remedy="Export the contours again"))


def _bad_seg(found: str) -> ScanError:
    return ScanError(Problem("E-SEG", "the segmentation cannot be read", found=found, remedy="Export it again"))


def _seg_pixels(ds: Dataset) -> list[NDArray[np.bool_]]:
    """Frames (rows, columns); fractions count from one half."""
    try:
        pixels = np.asarray(ds.pixel_array)
        full = float(ds.get("MaximumFractionalValue") or 1)
    except Exception:
        raise _bad_seg("its pixel data are damaged") from None
    pixels = pixels[None] if pixels.ndim == 2 else pixels
    if pixels.ndim != 3:
        raise _bad_seg("its pixel data are not a stack of planes")
    fractional = text(ds, "SegmentationType") == "FRACTIONAL"
    return list(pixels >= full / 2.0 if fractional else pixels != 0)


def _group(ds: Dataset, frame: Dataset, sequence: str) -> Dataset:
    """A functional group of the frame, or the shared one."""
    own = first_item(frame, sequence)
    shared = first_item(ds, "SharedFunctionalGroupsSequence")
    group = own if own is not None else (None if shared is None else first_item(shared, sequence))
    if group is None:
        raise _bad_seg(f"it has no {sequence}")
    return group


def _seg_frame(ds: Dataset, frame: Dataset) -> _SegFrame:
    measures = _group(ds, frame, "PixelMeasuresSequence")
    return _SegFrame(
        segment=int(number(_group(ds, frame, "SegmentIdentificationSequence"), "ReferencedSegmentNumber") or 0),
        position=numbers(_group(ds, frame, "PlanePositionSequence"), "ImagePositionPatient", 3),
        orientation=numbers(_group(ds, frame, "PlaneOrientationSequence"), "ImageOrientationPatient", 6),
        pixel=numbers(measures, "PixelSpacing", 2),
        thickness=number(measures, "SpacingBetweenSlices") or number(measures, "SliceThickness") or 0.0,
    )


def _seg_affine(places: list[_SegFrame]) -> tuple[NDArray[np.float64], int]:
    """(affine, slices) of the grid that the frames lie on."""
    first = places[0]
    row, column = np.array(first.orientation[:3]), np.array(first.orientation[3:])
    normal = np.cross(row, column)
    if abs(np.linalg.norm(normal) - 1) > 1e-2 or any(p.orientation != first.orientation for p in places):
        raise _bad_seg("its frames are not parallel")
    heights = np.unique(np.round([float(np.dot(normal, p.position)) for p in places], 3))
    step = float(np.diff(heights).min()) if heights.size > 1 else first.thickness
    if not 1e-3 <= step <= 1e3 or min(first.pixel) <= 0:
        raise _bad_seg("its slice spacing is impossible")
    lowest = min(places, key=lambda p: float(np.dot(normal, p.position)))
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1], affine[:3, 2] = normal * step, column * first.pixel[0], row * first.pixel[1]
    affine[:3, 3] = lowest.position
    return affine, round(float(heights[-1] - heights[0]) / step) + 1
