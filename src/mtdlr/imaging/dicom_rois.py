"""RTSTRUCT and SEG files to plain facts: named contours in mm, or labelled planes on their own grid."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from mtdlr.errors import Problem, ScanError
from mtdlr.imaging import archive
from mtdlr.imaging.dicom_instance import frames_referred_to
from mtdlr.imaging.dicom_tags import decoded, first_item, items, number, numbers, parse, quiet, text, unreadable
from mtdlr.imaging.identity import names_of, shown
from mtdlr.volume import Volume

_MAX_SEG_VOXELS = 2**30


@dataclass(frozen=True, eq=False)
class Roi:
    """One structure: its name and its closed contours, each (n, 3) LPS mm; `kind` is GTV, CTV, ORGAN ... or empty.

    `shown` is its name as a message may show it.
    """

    name: str
    kind: str
    contours: tuple[NDArray[np.float64], ...]
    shown: str = "(name withheld)"


@dataclass(frozen=True, eq=False)
class Segment:
    """One segment of a SEG file: its label and its voxels (bool) on the file's own grid."""

    name: str
    mask: Volume
    shown: str = "(name withheld)"


def kind_of(path: Path) -> tuple[str, frozenset[str]]:
    """("RTSTRUCT" or "SEG", keys of its frames of reference) of such a DICOM file, empty for anything else."""
    with quiet():
        for _, stream in archive.open_all([path]):
            ds = parse(stream, pixels=False)
            modality = None if ds is None else text(ds, "Modality")
            if ds is not None and modality in ("RTSTRUCT", "SEG"):
                return modality, frames_referred_to(ds)
    return "", frozenset()


def read_structures(path: Path, choose: Callable[[tuple[Roi, ...]], Sequence[Roi]]) -> tuple[Roi, ...]:
    """The chosen structures of an RTSTRUCT file with their closed planar contours.

    Args:
        path: RTSTRUCT file.
        choose: is given all structures, without contours, and returns those that are wanted. Contours of the others
            are not read, so that damage in them does not matter.

    Raises:
        ScanError: E-RTSTRUCT, E-DICOM, E-TAG, and what `choose` raises.
    """
    with quiet():
        ds = _dataset(path, "RTSTRUCT")
        kinds = {text(o, "ReferencedROINumber") or "": (text(o, "RTROIInterpretedType") or "").upper()
                 for o in items(ds, "RTROIObservationsSequence")}
        drawn = {text(item, "ReferencedROINumber") or "": item for item in items(ds, "ROIContourSequence")}
        numbers = [text(item, "ROINumber") or "" for item in items(ds, "StructureSetROISequence")]
        people = names_of(ds)
        rois = {n: _structure(decoded(item, "ROIName"), kinds.get(n, ""), people)
                for n, item in zip(numbers, items(ds, "StructureSetROISequence"), strict=True) if n in drawn}
        wanted = choose(tuple(rois.values()))
        return tuple(replace(roi, contours=tuple(_points(c) for c in items(drawn[n], "ContourSequence") if _is_area(c)))
                     for n, roi in rois.items() if any(roi is w for w in wanted))


def structure_names(path: Path) -> tuple[Roi, ...]:
    """The structures of an RTSTRUCT or SEG file, without contours.

    Raises:
        ScanError: E-DICOM, E-TAG.
    """
    if kind_of(path)[0] == "SEG":
        with quiet():
            ds = _dataset(path, "SEG")
            return tuple(_structure(decoded(s, "SegmentLabel"), "", names_of(ds))
                         for s in items(ds, "SegmentSequence"))
    found: list[Roi] = []

    def listed(rois: tuple[Roi, ...]) -> Sequence[Roi]:
        found.extend(rois)
        return ()

    read_structures(path, listed)
    return tuple(found)


def _structure(name: str, kind: str, people: frozenset[str]) -> Roi:
    return Roi(name, kind, (), shown=shown(name, people))


def read_segments(path: Path, *, step_mm: float | None = None) -> tuple[Segment, ...]:
    """The segments of a SEG file (binary, fractional or label map), each on the smallest grid that holds all frames.

    Args:
        path: SEG file.
        step_mm: slice spacing of the image it belongs to, taken where the frames' places are whole steps of it. Empty
            frames are often left out of a file, so the frames alone do not tell the spacing.

    Raises:
        ScanError: E-SEG, E-DICOM, E-TAG.
    """
    with quiet():
        ds = _dataset(path, "SEG")
        kind = text(ds, "SegmentationType")
        if kind not in ("BINARY", "FRACTIONAL", "LABELMAP"):
            raise _bad_seg("its type is neither BINARY, FRACTIONAL nor LABELMAP")
        frames = _seg_pixels(ds, kind)
        labels = {int(number(s, "SegmentNumber") or 0): decoded(s, "SegmentLabel")
                  for s in items(ds, "SegmentSequence")}
        people = names_of(ds)
        places = [_seg_frame(ds, f, labelled=kind == "LABELMAP")
                  for f in items(ds, "PerFrameFunctionalGroupsSequence")]
    if len(places) != len(frames):
        raise _bad_seg("the number of frames does not match their description")
    affine, depth = _seg_affine(places, step_mm)
    if depth * frames[0].size > _MAX_SEG_VOXELS:
        raise _bad_seg("its frames lie too far apart")
    volumes: dict[int, NDArray[np.bool_]] = defaultdict(lambda: np.zeros((depth, *frames[0].shape), dtype=bool))
    for place, frame in zip(places, frames, strict=True):
        k = round(float(np.linalg.solve(affine, [*place.position, 1.0])[0]))
        for n in labels if place.segment is None else (place.segment,):
            volumes[n][k] |= frame == n if place.segment is None else frame
    return tuple(Segment(labels.get(n, ""), Volume(array, affine), shown(labels.get(n, ""), people))
                 for n, array in sorted(volumes.items()) if n)


@dataclass(frozen=True)
class _SegFrame:
    segment: int | None
    position: tuple[float, ...]
    orientation: tuple[float, ...]
    pixel: tuple[float, ...]
    steps: tuple[float, float]


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
    """(n, 3) points of a contour; text of more than 64 KB comes as bytes of unknown type."""
    try:
        element = contour.get_item(0x30060050)
        data = None if element is None else element.value
        flat = np.array((data or b"").split(b"\\") if isinstance(data, bytes) else data, dtype=np.float64).reshape(-1)
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


def _seg_pixels(ds: Dataset, kind: str) -> list[NDArray]:
    """Frames (rows, columns), bool, of which fractions count from one half; segment numbers in a label map."""
    try:
        pixels = np.asarray(ds.pixel_array)
        full = float(ds.get("MaximumFractionalValue") or 1)
    except Exception:
        raise _bad_seg("its pixel data are damaged") from None
    pixels = pixels[None] if pixels.ndim == 2 else pixels
    if pixels.ndim != 3:
        raise _bad_seg("its pixel data are not a stack of planes")
    return list(pixels if kind == "LABELMAP" else pixels >= full / 2.0 if kind == "FRACTIONAL" else pixels != 0)


def _group(ds: Dataset, frame: Dataset, sequence: str) -> Dataset:
    """A functional group of the frame, or the shared one."""
    own = first_item(frame, sequence)
    shared = first_item(ds, "SharedFunctionalGroupsSequence")
    group = own if own is not None else (None if shared is None else first_item(shared, sequence))
    if group is None:
        raise _bad_seg(f"it has no {sequence}")
    return group


def _seg_frame(ds: Dataset, frame: Dataset, *, labelled: bool) -> _SegFrame:
    """Where a frame lies and which segment it shows, None for all of a label map."""
    measures = _group(ds, frame, "PixelMeasuresSequence")
    shows = None if labelled else number(_group(ds, frame, "SegmentIdentificationSequence"), "ReferencedSegmentNumber")
    return _SegFrame(
        segment=None if labelled else int(shows or 0),
        position=numbers(_group(ds, frame, "PlanePositionSequence"), "ImagePositionPatient", 3),
        orientation=numbers(_group(ds, frame, "PlaneOrientationSequence"), "ImageOrientationPatient", 6),
        pixel=numbers(measures, "PixelSpacing", 2),
        steps=(number(measures, "SpacingBetweenSlices") or 0.0, number(measures, "SliceThickness") or 0.0),
    )


def _seg_affine(places: list[_SegFrame], step_mm: float | None) -> tuple[NDArray[np.float64], int]:
    """(affine, slices) of the grid that the frames lie on."""
    first = places[0]
    row, column = np.array(first.orientation[:3]), np.array(first.orientation[3:])
    normal = np.cross(row, column)
    if abs(np.linalg.norm(normal) - 1) > 1e-2 or any(p.orientation != first.orientation for p in places):
        raise _bad_seg("its frames are not parallel")
    heights = np.unique(np.round([float(np.dot(normal, p.position)) for p in places], 3))
    step = _seg_step(heights, (step_mm or 0.0, *first.steps))
    if not 1e-3 <= step <= 1e3 or min(first.pixel) <= 0:
        raise _bad_seg("its slice spacing is impossible")
    lowest = min(places, key=lambda p: float(np.dot(normal, p.position)))
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1], affine[:3, 2] = normal * step, column * first.pixel[0], row * first.pixel[1]
    affine[:3, 3] = lowest.position
    return affine, round(float(heights[-1] - heights[0]) / step) + 1


def _seg_step(heights: NDArray[np.float64], stated: tuple[float, ...]) -> float:
    """The slice spacing: the first stated one of which all frames lie whole steps apart, else their smallest step."""
    apart = np.diff(heights)
    for step in stated:
        if step <= 0:
            continue
        steps = apart / step
        if np.abs(steps - np.round(steps)).max(initial=0.0) < 0.1 and np.round(steps).min(initial=1.0) >= 1:
            return float((heights[-1] - heights[0]) / max(np.round(steps).sum(), 1)) if apart.size else step
    return float(apart.min()) if apart.size else max(stated)
