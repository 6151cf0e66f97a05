"""Contours and segmentations to masks on an image's grid.

A voxel belongs to a structure if its centre lies inside an odd number of the structure's contours in that plane, so
holes and islands come out right whatever their order or direction. The test is exact, not a drawing routine.
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mtdlr.errors import Problem, ScanError
from mtdlr.imaging.dicom_rois import Roi, read_segments, read_structures
from mtdlr.imaging.grid import resample
from mtdlr.volume import Volume

_FLAT_SLICES = 0.05
_WIDEST_MM = 10.0  # contours further apart are separate lesions, not one lesion drawn on few slices
_TIE = 1e-3
_REACH = 50  # slices beyond the image in which contours can still matter


def rtstruct_mask(path: str | Path, grid: Volume, name_pattern: str = "*") -> tuple[Volume, tuple[Problem, ...]]:
    """The structures of an RTSTRUCT file whose names match, united, as a bool mask on the grid of `grid`; warnings.

    Args:
        path: RTSTRUCT file.
        grid: image whose voxels to test; contours must lie in planes parallel to its slices.
        name_pattern: shell pattern for ROIName, case ignored. "*" takes the only structure, or the only GTV.

    Raises:
        ScanError: E-ROINAME (none matches, or "*" is not enough), E-RTSTRUCT, E-CONTOURPLANE, E-DICOM, E-TAG.
    """
    problems: list[Problem] = []

    def wanted(rois: tuple[Roi, ...]) -> tuple[Roi, ...]:
        chosen, told = choose_rois(rois, name_pattern)
        problems.extend(told)
        return chosen

    array = np.zeros(grid.shape, dtype=bool)
    for roi in read_structures(Path(path), wanted):
        array |= fill(roi.contours, grid)
    return grid.with_array(array), tuple(problems)


def seg_mask(path: str | Path, onto: Volume, name_pattern: str = "*") -> tuple[Volume, tuple[Problem, ...]]:
    """The segments of a DICOM SEG file whose labels match, united, as a bool mask on the grid of `onto`; warnings.

    Args:
        path: SEG file.
        onto: image whose voxels to test; on another grid each voxel takes its nearest neighbour. Frames that lie on
            its slices are taken as slices, however many empty ones between them were left out of the file.
        name_pattern: shell pattern for SegmentLabel, case ignored.

    Raises:
        ScanError: E-ROINAME, E-SEG, E-DICOM, E-TAG.
    """
    segments = read_segments(Path(path), step_mm=onto.spacing_mm[0])
    rois = tuple(Roi(s.name, "", (), s.shown) for s in segments)
    chosen, problems = choose_rois(rois, name_pattern)
    array = np.zeros(onto.shape, dtype=bool)
    for roi, segment in zip(rois, segments, strict=True):
        if any(roi is c for c in chosen):
            array |= resample(segment.mask, onto, interpolation="nearest").array
    return onto.with_array(array), problems


def choose_rois(rois: Sequence[Roi], pattern: str) -> tuple[tuple[Roi, ...], tuple[Problem, ...]]:
    """The structures that a name or a pattern means, and W-ROIUNION where they are several.

    A structure that is called exactly so is taken alone, also where its name holds signs of a pattern: `GTV [PET]`.

    Args:
        rois: the structures of one file.
        pattern: a name or shell pattern, case ignored; "*" with several structures takes the only one that is a GTV.

    Returns:
        (structures, warnings).

    Raises:
        ScanError: E-ROINAME when no structure matches, or "*" leaves more than one.
    """
    exact = tuple(r for r in rois if pattern.casefold() in _spellings(r.name))
    hits = exact or tuple(r for r in rois if any(fnmatchcase(n, pattern.casefold()) for n in _spellings(r.name)))
    if pattern == "*" and len(hits) > 1:
        tumours = tuple(r for r in hits if r.kind == "GTV" or r.name.upper().startswith("GTV"))
        hits = tumours if len(tumours) == 1 else ()
    names = ", ".join(r.shown for r in rois)
    if not hits:
        raise ScanError(Problem("E-ROINAME", "no structure, or more than one, answers to the name",
                                found=names or "none", expected=f"one that matches {pattern!r}",
                                remedy="Set cohort.mask_name to its name"))
    if len(hits) == 1:
        return hits, ()
    united = Problem("W-ROIUNION", "several structures match the name and were united",
                     found=", ".join(r.shown for r in hits))
    return hits, (united,)


def _spellings(name: str) -> set[str]:
    """A name for comparison, also as it reads where GB18030 was declared to be Latin-1."""
    found = {name.casefold()}
    try:
        found.add(name.encode("latin-1").decode("gb18030").casefold())
    except UnicodeError:
        pass
    return found


def fill(contours: Sequence[NDArray[np.float64]], grid: Volume) -> NDArray[np.bool_]:
    """Voxels (z, y, x) of a grid whose centres lie inside an odd number of contours of their plane.

    Args:
        contours: (n, 3) closed polygons in LPS mm, each in a plane parallel to the slices.
        grid: image that gives the voxels. A contour fills the slices within half its distance to the next contour
            plane that it overlaps; a contour that stands alone fills one slice.

    Raises:
        ScanError: E-CONTOURPLANE for a polygon that cuts through slices.
    """
    planes = _by_plane([grid.indices(c) for c in contours if len(c) >= 3])
    array = np.zeros(grid.shape, dtype=bool)
    if not planes:
        return array
    heights = np.array(sorted(planes))
    areas = {h: _inside(planes[float(h)], grid.shape[1:]) for h in heights if -_REACH < h < grid.shape[0] + _REACH}
    reach = _reaches(heights, areas, widest=max(_WIDEST_MM / grid.spacing_mm[0], 1.5))
    for k in range(grid.shape[0]):
        near = [h for h in areas if -reach[h] + _TIE < k - h <= reach[h] + _TIE]
        if near:
            array[k] = areas[min(near, key=lambda h: abs(h - k))]
    return array


def _reaches(
    heights: NDArray[np.float64], areas: dict[float, NDArray[np.bool_]], *, widest: float
) -> dict[float, float]:
    """How far above and below each plane its contours go on: half the step to the nearest plane of the same lesion.

    A plane that stands alone is as thick as the thinnest of the others, or one slice.
    """
    found: dict[float, list[float]] = {}
    for n, h in enumerate(heights):
        if h not in areas:
            continue
        beside = [heights[m] for m in (n - 1, n + 1) if 0 <= m < len(heights) and heights[m] in areas]
        steps = [abs(other - h) for other in beside
                 if abs(other - h) <= 1.0 + _TIE
                 or (abs(other - h) <= widest + _TIE and (areas[h] & areas[other]).any())]
        found[h] = steps
    thinnest = min((s for steps in found.values() for s in steps), default=1.0)
    return {h: max(min(steps, default=thinnest) / 2.0, 0.5) for h, steps in found.items()}


def _by_plane(polygons: list[NDArray[np.float64]]) -> dict[float, list[NDArray[np.float64]]]:
    """Polygons (n, 2) in (row, column) index units by the slice index they lie at."""
    planes: dict[float, list[NDArray[np.float64]]] = {}
    for polygon in polygons:
        height, thickness = float(polygon[:, 0].mean()), float(np.ptp(polygon[:, 0]))
        if thickness > 0.5:
            raise ScanError(Problem("E-CONTOURPLANE", "contours are not parallel to the image's slices",
                                    found=f"one spans {thickness:.1f} slices", remedy="Contour on this image"))
        close = [h for h in planes if abs(h - height) < _FLAT_SLICES]
        planes.setdefault(close[0] if close else height, []).append(polygon[:, 1:])
    return planes


def _inside(polygons: Sequence[NDArray[np.float64]], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Pixels (rows, columns) inside an odd number of polygons.

    Every edge that crosses a row's line flips all pixels from the crossing to the right; pixels flipped an odd number
    of times are inside. Half-open edges make a vertex on the line count once.
    """
    rows, columns = shape
    flips = np.zeros((rows, columns + 1), dtype=np.int64)
    for polygon in polygons:
        a, b = polygon, np.roll(polygon, -1, axis=0)
        low, high = np.minimum(a[:, 0], b[:, 0]), np.maximum(a[:, 0], b[:, 0])
        first = np.clip(np.ceil(low), 0, rows).astype(np.int64)
        counts = np.maximum(np.clip(np.ceil(high), 0, rows).astype(np.int64) - first, 0)
        edge = np.repeat(np.arange(len(a)), counts)
        row = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts) + first[edge]
        share = (row - a[edge, 0]) / (b[edge, 0] - a[edge, 0])
        crossing = a[edge, 1] + share * (b[edge, 1] - a[edge, 1])
        np.add.at(flips, (row, np.clip(np.ceil(crossing), 0, columns).astype(np.int64)), 1)
    inside: NDArray[np.bool_] = np.cumsum(flips, axis=1)[:, :-1] % 2 == 1
    return inside
