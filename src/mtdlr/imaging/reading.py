"""One patient's files to SUV, HU and a mask, with an audit of what was done and every doubt said.

`read_scan` is the only way in: prepare, predict, validate and check all come through here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mtdlr.errors import Problem, ScanError
from mtdlr.imaging import nifti
from mtdlr.imaging.archive import is_archive
from mtdlr.imaging.images import Image, read_ct, read_headers, read_pet
from mtdlr.imaging.layout import ScanSet, given_files, with_series
from mtdlr.imaging.masks import inspect_mask, read_mask
from mtdlr.volume import Volume

_MAX_ANGLE_DEGREES = 0.5


@dataclass(frozen=True, eq=False)
class Scan:
    """One patient's images, read and checked.

    Args:
        pet: SUVbw in g/ml, float32, on its own grid; ct: HU, float32, on its own grid.
        mask: bool, on the grid of the CT or of the PET; None where the patient has none.
        audit: plain facts, ready for JSON: source and choice, SUV tags and times, geometry.
        problems: warnings.
    """

    patient_id: str
    pet: Volume
    ct: Volume
    mask: Volume | None
    audit: dict[str, object]
    problems: tuple[Problem, ...]


def read_scan(
    scan: ScanSet, *, pet_units: str = "auto", series: str | Sequence[str] | None = None,
    uptake_min: float | None = None, mask_label: int | None = None, assume_geometry: bool = False,
    other_frame: bool = False,
) -> Scan:  # fmt: skip
    """A patient's PET in SUVbw, CT in HU and mask, each in patient space, with an audit and warnings.

    Args:
        scan: from `discover`.
        pet_units: "auto" (DICOM: by the header; NIfTI: SUV, unless a number above 200 says otherwise), "suv" or "bqml".
        series: DICOM series to take instead: SeriesInstanceUID, eight-letter key or pattern of SeriesDescription.
        uptake_min: minutes from injection to the scan, where the headers lack them.
        mask_label: which label of a mask with several is the tumour; None takes the scan's own, else 1.
        assume_geometry: whether NIfTI without sform and qform may be read as upright.
        other_frame: whether PET and CT of different frames of reference may pass (they will be registered).

    Raises:
        ScanError: every error of `nifti.read`, `read_stack`, `suv_scale`, `rtstruct_mask` and `seg_mask`; E-NOPET,
            E-NOCT, E-PETUNITS, E-FRAME, E-NOOVERLAP, E-MASKVALUES, E-MASKLABEL.
    """
    try:
        scan = with_series(expanded(scan), _names(series))
        errors = [p for p in scan.problems if p.is_error]
        if errors:
            raise ScanError(errors)
        pet = read_pet(scan.pet, pet_units=pet_units, uptake_min=uptake_min, assume_geometry=assume_geometry)
        ct = read_ct(scan.ct, assume_geometry=assume_geometry)
        geometry, together = _compare(pet, ct, other_frame=other_frame)
        label = scan.mask_label if mask_label is None else mask_label
        mask, about_mask, doubts = read_mask(scan, pet, ct, label=label, assume_geometry=assume_geometry)
    except ScanError as error:
        raise error.of_patient(scan.patient_id) from None
    audit: dict[str, object] = {
        "patient_id": scan.patient_id, "layout": scan.kind, "choice": scan.why, "pet": pet.audit, "ct": ct.audit,
        "mask": about_mask, "geometry": geometry,
    }  # fmt: skip
    problems = (*scan.problems, *pet.problems, *ct.problems, *together, *doubts)
    return Scan(scan.patient_id, pet.volume, ct.volume, mask, audit, problems)


def inspect_scan(
    scan: ScanSet, *, pet_units: str = "auto", series: str | Sequence[str] | None = None,
    uptake_min: float | None = None, assume_geometry: bool = False, other_frame: bool = False,
) -> tuple[Problem, ...]:  # fmt: skip
    """Everything that the headers alone show to be wrong with a patient's files, errors first.

    Args: as `read_scan`.
    """
    return survey_scan(scan, pet_units=pet_units, series=series, uptake_min=uptake_min,
                       assume_geometry=assume_geometry, other_frame=other_frame)[1]


def survey_scan(
    scan: ScanSet, *, pet_units: str = "auto", series: str | Sequence[str] | None = None,
    uptake_min: float | None = None, assume_geometry: bool = False, other_frame: bool = False,
) -> tuple[dict[str, object], tuple[Problem, ...]]:  # fmt: skip
    """(audit as far as the headers give it, what `inspect_scan` finds).

    Args: as `read_scan`.
    """
    scan = with_series(expanded(scan), _names(series))
    problems = list(scan.problems)
    audit: dict[str, object] = {"layout": scan.kind, "choice": scan.why, "mask": scan.mask is not None}
    images: list[Image] = []
    for role, files in (("PET", scan.pet), ("CT", scan.ct)):
        if files is None:
            continue
        try:
            images.append(read_headers(files, role, pet_units=pet_units, uptake_min=uptake_min,
                                       assume_geometry=assume_geometry))
            audit[role.lower()] = images[-1].audit
        except ScanError as error:
            problems += error.problems
    problems += [p for image in images for p in image.problems]
    if len(images) == 2:
        try:
            geometry, found = _compare(images[0], images[1], other_frame=other_frame)
            audit["geometry"], problems = geometry, [*problems, *found]
        except ScanError as error:
            problems += error.problems
    if scan.mask is not None:
        try:
            found = inspect_mask(scan.mask, scan.mask_pattern, assume_geometry=assume_geometry)
            problems += [p.at("mask") for p in found]
        except ScanError as error:
            problems += [p.at("mask") for p in error.problems]
    return audit, tuple(sorted(dict.fromkeys(problems), key=lambda p: not p.is_error))


def expanded(scan: ScanSet) -> ScanSet:
    """A scan whose PET or CT was given as a folder or zip, with the series in it chosen."""
    heaps = [f for f in (scan.pet, scan.ct) if isinstance(f, Path) and not nifti.is_nifti(f)]
    if not any(f.is_dir() or is_archive(f) for f in heaps):
        return scan
    assert isinstance(scan.pet, Path) and isinstance(scan.ct, Path)
    found = given_files(scan.patient_id, scan.pet, scan.ct, scan.mask, mask_pattern=scan.mask_pattern, kind=scan.kind)
    return replace(found, mask_label=scan.mask_label)


def _names(series: str | Sequence[str] | None) -> tuple[str, ...]:
    return () if series is None else (series,) if isinstance(series, str) else tuple(series)


def _compare(pet: Image, ct: Image, *, other_frame: bool) -> tuple[dict[str, object], tuple[Problem, ...]]:
    """How the two images lie to each other, in mm and degrees, and what is wrong with that."""
    problems: list[Problem] = []
    if pet.frame and ct.frame and pet.frame != ct.frame:
        code = "W-FRAME" if other_frame else "E-FRAME"
        problems.append(Problem(code, "PET and CT lie in different frames of reference",
                                where="FrameOfReferenceUID (0020,0052)",
                                remedy="Take the CT of the same examination, or set prepare.alignment = 'rigid'"))
    low, high = _box(pet.volume)
    ct_low, ct_high = _box(ct.volume)
    shared = np.maximum(np.minimum(high, ct_high) - np.maximum(low, ct_low), 0.0)
    covered = float(np.prod(shared / (high - low)))
    if covered == 0.0:
        gap = float(np.max(np.maximum(low - ct_high, ct_low - high)))
        problems.append(Problem("E-NOOVERLAP", "PET and CT do not overlap in space", found=f"{gap:.0f} mm apart",
                                remedy="Check that both belong to one examination"))
    angle = _angle_degrees(pet.volume, ct.volume)
    if angle > _MAX_ANGLE_DEGREES:
        problems.append(Problem("W-ROTATED", "PET and CT axes are rotated against each other",
                                found=f"{angle:.2f} degrees"))
    if any(p.is_error for p in problems):
        raise ScanError(p for p in problems if p.is_error)
    facts: dict[str, object] = {
        "same_frame_of_reference": pet.frame == ct.frame if pet.frame and ct.frame else None,
        "pet_covered_by_ct": round(covered, 4), "shared_mm_xyz": [round(float(s), 2) for s in shared],
        "centre_distance_mm": round(float(math.dist(pet.volume.center_mm, ct.volume.center_mm)), 2),
        "rotation_degrees": round(angle, 3),
    }  # fmt: skip
    return facts, tuple(problems)


def _box(volume: Volume) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest corner (x, y, z) of the voxels' outer faces, LPS mm."""
    ends = [(-0.5, n - 0.5) for n in volume.shape]
    corners = volume.points_mm([(k, j, i) for k in ends[0] for j in ends[1] for i in ends[2]])
    return corners.min(axis=0), corners.max(axis=0)


def _angle_degrees(a: Volume, b: Volume) -> float:
    """Smallest rotation between the axes of two grids, whatever their order and direction."""
    cosines = np.abs((a.affine[:3, :3] / a.spacing_mm).T @ (b.affine[:3, :3] / b.spacing_mm))
    return math.degrees(math.acos(min(1.0, float(cosines.max(axis=1).min()))))
