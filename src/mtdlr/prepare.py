"""From one patient's scan to what networks and radiomics need: one region, one grid, and the native voxels around it.

The order is the paper's (METHOD 2): alignment, region, grid, intensities. Nothing is corrected silently: every
difference between PET and CT that was found, and what was done about it, is in `facts` and `problems`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mtdlr.errors import Problem, ScanError
from mtdlr.imaging import grid
from mtdlr.imaging.intensity import clip_pet, scale_ct, standardise_pet
from mtdlr.imaging.layout import ScanSet
from mtdlr.imaging.locate import SURE, Region, locate_by_template, locate_head
from mtdlr.imaging.reading import Scan, read_scan
from mtdlr.imaging.register import Alignment, align, misalignment, slice_offset_mm
from mtdlr.imaging.slices import eroded, filled_slices
from mtdlr.prepared import Prepared
from mtdlr.study import PrepareSettings
from mtdlr.volume import Volume

__all__ = ["Prepared", "prepare", "read_patient"]

_BODY_SUV = 0.3  # a PET voxel above this, and its neighbours, are body
_NO_CT_HU = -950.0  # a CT voxel below this holds no tissue: air or the scanner's padding
_ALIGNABLE = 0.25  # share of uptake that the CT must explain before the PET is moved
_FIELD_SHARE = 0.25  # of the network grid
_NO_CT_SHARE = 0.03  # body without CT above this share is reported


def read_patient(scan: ScanSet, settings: PrepareSettings, *, series: Sequence[str] = ()) -> Scan:
    """A patient's files as the settings say they are to be read.

    Args:
        scan: from `discover`.
        settings: the study's `prepare` section; PET and CT of different frames of reference pass if it registers them.
        series: DICOM series to take instead of those chosen.

    Raises:
        ScanError: what `read_scan` raises.
    """
    return read_scan(scan, pet_units=settings.pet_units, uptake_min=settings.uptake_min, series=series,
                     assume_geometry=settings.assume_geometry,
                     other_frame=settings.alignment in ("rigid", "affine"))


def prepare(scan: Scan, settings: PrepareSettings, *, patient_id: str) -> Prepared:
    """One scan on the network grid, with its native voxels around the region.

    Args:
        scan: PET in SUV, CT in HU, the mask if there is one, as read.
        settings: the study's `prepare` section.
        patient_id: the id under which the study knows the patient.

    Raises:
        ScanError: E-NOOVERLAP when PET and CT do not meet, E-NOMASK when the region should come from a mask that is
            missing or empty, E-HEAD when no head is seen, or the PET's middle was asked for but the head lies
            elsewhere, E-ROIOUTSIDE when the region's middle lies outside the PET or the CT, E-MASKOUTSIDE when the
            region misses the mask.
    """
    try:
        return _prepare(scan, settings, patient_id)
    except ScanError as error:
        raise error.of_patient(patient_id) from None


def _prepare(scan: Scan, settings: PrepareSettings, patient_id: str) -> Prepared:
    """`prepare` without the patient's name in its errors."""
    pet, ct = grid.canonical(scan.pet), grid.canonical(_lossless(scan.ct))
    mask = None if scan.mask is None else grid.canonical(scan.mask.with_array(scan.mask.array > 0))
    _require_overlap(pet, ct)
    region = _region(pet, ct, mask, settings)
    target = grid.cube(region.center_mm, size=settings.size, spacing_mm=settings.spacing_mm)
    _require_inside(region, pet, ct)
    ct_native = _native(ct, target, settings)
    motion = _motion(_native(pet, target, settings), ct_native, settings, stack_offset_mm=slice_offset_mm(pet, ct))
    if mask is not None and mask.same_grid(pet):
        mask = grid.moved(mask, motion.transform)
    pet = grid.moved(pet, motion.transform)
    pet_native = _native(pet, target, settings)
    blind = _body_without_ct(pet_native, ct)
    problems = (*scan.problems, *region.problems, *motion.problems, *_mask_problems(mask, target), *_ct_problems(blind),
                *_field_problems(target, pet, ct))
    facts = {**_grid_facts(scan.pet, scan.ct), **_region_facts(region, target, pet, ct), **motion.facts,
             "body_without_ct": blind, "suv_max": float(pet_native.array.max()), **_mask_facts(mask, target, pet)}
    return Prepared(
        patient_id, _image(pet_native, ct_native, target, settings), target.affine,
        None if mask is None else grid.mask_onto(mask, target).array, pet_native, ct_native,
        None if mask is None else _native(mask, target, settings), facts,
        tuple(problem.of_patient(patient_id) for problem in problems), scan.audit, _projections(pet))


@dataclass(frozen=True)
class _Motion:
    """What was found and done about PET and CT lying apart."""

    transform: NDArray[np.float64]
    facts: dict[str, float | str]
    problems: tuple[Problem, ...] = ()


def _require_overlap(pet: Volume, ct: Volume) -> None:
    """E-NOOVERLAP unless some of the PET's voxels lie inside the CT."""
    if grid.coverage(pet, ct) == 0.0:
        raise ScanError(Problem(
            "E-NOOVERLAP", "PET and CT do not overlap in space", where="PET and CT",
            found=f"middles {_mm(pet.center_mm)} and {_mm(ct.center_mm)}", expected="one frame of reference",
            remedy="Check that both series belong to one examination and that their headers are intact"))


def _region(pet: Volume, ct: Volume, mask: Volume | None, settings: PrepareSettings) -> Region:
    """The region the settings ask for."""
    match settings.roi:
        case "auto":
            return _found(locate_head(pet, ct))
        case "template":
            assert settings.template is not None
            model = Prepared.load(settings.template)
            return _found(locate_by_template(ct, model.ct_hu, model.region.center_mm, pet))
        case "box":
            assert settings.box_center_mm is not None
            return Region(settings.box_center_mm, 1.0, "given by hand")
        case "center":
            return _pet_middle(pet, ct, settings)
        case "mask":
            if mask is None or not mask.array.any():
                raise ScanError(Problem("E-NOMASK", "the region should come from the mask, but there is none",
                                        where="mask", remedy="Give a mask, or set prepare.roi = 'auto'"))
            return Region(grid.mask_center_mm(mask), 1.0, "middle of the mask")


def _found(region: Region) -> Region:
    """The region; E-HEAD where nothing like a head was seen, so that a network never reads another part of the body."""
    if region.confidence > 0.0:
        return region
    raise ScanError(Problem("E-HEAD", region.problems[0].what.partition(";")[0], where="region",
                            expected="a head in the field of view of PET and CT",
                            remedy="Set prepare.roi = 'center', 'mask' or 'box' if another part of the body is meant"))


def _pet_middle(pet: Volume, ct: Volume, settings: PrepareSettings) -> Region:
    """The PET's middle; E-HEAD when a head is seen elsewhere, as in a whole-body scan."""
    head = locate_head(pet, ct)
    away = np.abs(np.array(head.center_mm) - pet.center_mm).max()
    if head.confidence >= SURE and away > settings.size * settings.spacing_mm / 2:
        raise ScanError(Problem(
            "E-HEAD", "the head lies outside the region", where="region",
            found=f"region at {_mm(pet.center_mm)}, head at {_mm(head.center_mm)}",
            remedy="Set prepare.roi = 'auto', or give 'box' and box_center_mm if another organ is meant"))
    return Region(pet.center_mm, 1.0, "middle of the PET")


def _require_inside(region: Region, pet: Volume, ct: Volume) -> None:
    """E-ROIOUTSIDE unless the region's middle lies inside both scans."""
    middle = grid.cube(region.center_mm, size=1, spacing_mm=1.0)
    for what, volume in (("PET", pet), ("CT", ct)):
        if not grid.coverage(middle, volume):
            raise ScanError(Problem(
                "E-ROIOUTSIDE", f"the region's middle lies outside the {what}", where="region",
                found=f"{_mm(region.center_mm)} ({region.how}), {what} around {_mm(volume.center_mm)}",
                remedy="The scan must cover the region; check its field of view, prepare.roi and box_center_mm"))


def _motion(pet: Volume, ct: Volume, settings: PrepareSettings, *, stack_offset_mm: float) -> _Motion:
    """How far the region's PET and CT lie apart, and the transform the settings ask for."""
    if settings.alignment == "off":
        return _Motion(np.eye(4), {"alignment": "not measured"})
    found = misalignment(pet, ct, stack_offset_mm=stack_offset_mm)
    facts: dict[str, float | str] = {
        **dict(zip(("misalignment_x_mm", "misalignment_y_mm", "misalignment_z_mm"), found.shift_mm, strict=True)),
        "misalignment_mm": found.distance_mm, "misalignment_sd_mm": max(found.sd_mm),
        "misalignment_confidence": found.confidence, "misalignment_seen_in": found.how}
    apart = found.exceeds(settings.alignment_limit_mm)
    if settings.alignment == "check" or (settings.alignment == "auto" and not apart):
        return _Motion(np.eye(4), facts | {"alignment": "not needed" if not apart else "not corrected"},
                       (_apart(found, settings),) if apart else ())
    if found.explained < _ALIGNABLE:
        return _Motion(np.eye(4), facts | {"alignment": "not possible"}, (Problem(
            "W-NOALIGN", "PET and CT have too little in common to be aligned", where="PET and CT",
            found=f"{found.explained:.0%} of the uptake explained by the CT's tissues",
            expected=f"at least {_ALIGNABLE:.0%}", remedy="Look at the fused images; the PET was left where it is"),))
    how, transform = _correction(pet, ct, found, settings)
    left = misalignment(grid.moved(pet, transform), ct, stack_offset_mm=0.0).distance_mm
    facts |= {"alignment": how, "alignment_residual_mm": left}
    return _Motion(transform, facts, (Problem(
        "W-ALIGNED", "PET was moved onto the CT", where="PET and CT", found=f"{found.distance_mm:.1f} mm apart",
        expected=f"{left:.1f} mm after a {how} correction", remedy="Look at the fused images"),) if apart else ())


def _correction(
    pet: Volume, ct: Volume, found: Alignment, settings: PrepareSettings
) -> tuple[str, NDArray[np.float64]]:
    """(kind, transform) that brings the PET onto the CT."""
    if settings.alignment == "auto" and found.how == "slices":
        transform = np.eye(4)
        transform[:3, 3] = found.shift_mm
        return "shift", transform
    how: Literal["rigid", "affine"] = "affine" if settings.alignment == "affine" else "rigid"
    return how, align(pet, ct, how=how)


def _apart(found: Alignment, settings: PrepareSettings) -> Problem:
    """W-ALIGN."""
    return Problem("W-ALIGN", "PET and CT lie apart", where="PET and CT",
                   found=f"{found.distance_mm:.1f} mm, (x, y, z) = ({', '.join(f'{s:.1f}' for s in found.shift_mm)})",
                   expected=f"at most {settings.alignment_limit_mm:g} mm",
                   remedy="Look at the fused images; prepare.alignment = 'auto' corrects it")


def _native(volume: Volume, target: Volume, settings: PrepareSettings) -> Volume:
    """The volume's own voxels in the region and its margin."""
    part = grid.crop(volume, grid.corners_mm(target), margin_mm=settings.margin_mm)
    assert part is not None  # the region's middle lies inside
    return part


def _projections(pet: Volume) -> tuple[Volume, Volume]:
    """The whole PET's largest values along y and along x: volumes one voxel thick, in its middle."""
    flat = []
    for axis in (1, 2):
        affine = pet.affine.copy()
        affine[:3, 3] += affine[:3, axis] * (pet.shape[axis] - 1) / 2.0
        flat.append(Volume(pet.array.max(axis=axis, keepdims=True).astype(np.float32), affine))
    return flat[0], flat[1]


def _image(pet: Volume, ct: Volume, target: Volume, settings: PrepareSettings) -> NDArray[np.float32]:
    """(2, z, y, x): PET and CT on the network grid, scaled; SUV 0 and air outside the scans."""
    suv = grid.resample(pet, target, outside=0.0).array
    hu = grid.resample(ct, target, outside=settings.ct_window_hu[0]).array
    scaled = clip_pet(suv, settings.pet_clip_suv) if settings.pet_scaling == "clip" else standardise_pet(
        suv, grid.inside(target, pet))
    return np.stack([scaled, scale_ct(hu, settings.ct_window_hu)])


def _grid_facts(pet: Volume, ct: Volume) -> dict[str, float | str]:
    """Sizes, voxels, and how the two grids lie to each other, as read."""
    facts: dict[str, float | str] = {}
    for name, volume in (("pet", pet), ("ct", ct)):
        upright = grid.canonical(volume)
        facts[f"{name}_size_zyx"] = " x ".join(map(str, upright.shape))
        facts |= {f"{name}_voxel_{axis}_mm": step for axis, step in zip("zyx", upright.spacing_mm, strict=True)}
    first, second = grid.canonical(pet), grid.canonical(ct)
    directions = [volume.affine[:3, :3] / volume.spacing_mm for volume in (first, second)]
    cosines = np.clip((directions[0] * directions[1]).sum(axis=0), -1.0, 1.0)
    middles = np.array(first.center_mm) - second.center_mm
    return facts | {"pet_ct_angle_deg": float(np.degrees(np.arccos(cosines.min()))),
                    "pet_ct_middle_mm": float(np.linalg.norm(middles)), "pet_ct_middle_z_mm": float(middles[2])}


def _region_facts(region: Region, target: Volume, pet: Volume, ct: Volume) -> dict[str, float | str]:
    """Where the network looks, why, and how much of it the scans do not cover."""
    x, y, z = region.center_mm
    return {"roi_how": region.how, "roi_confidence": region.confidence, "roi_x_mm": x, "roi_y_mm": y, "roi_z_mm": z,
            "roi_without_pet": 1.0 - grid.coverage(target, pet), "roi_without_ct": 1.0 - grid.coverage(target, ct)}


def _body_without_ct(pet: Volume, ct: Volume) -> float:
    """Share of the region's body, as PET sees it, where the CT ends or holds padding."""
    body = eroded(pet.array > _BODY_SUV, 2)
    if not body.any():
        return 0.0
    tissue = grid.resample(ct, pet, interpolation="nearest", outside=-2000).array >= _NO_CT_HU
    seen = filled_slices(tissue)  # the airway is no gap
    return float((body & ~seen).sum() / body.sum())


def _ct_problems(share: float) -> tuple[Problem, ...]:
    """W-CTFOV when the CT leaves out part of the body."""
    if share <= _NO_CT_SHARE:
        return ()
    return (Problem("W-CTFOV", "the CT does not cover the body that PET shows", where="CT",
                    found=f"{share:.1%} of the body in the region without CT", expected=f"at most {_NO_CT_SHARE:.0%}",
                    remedy="Attenuation correction and CT features are doubtful there"),)


def _field_problems(target: Volume, pet: Volume, ct: Volume) -> tuple[Problem, ...]:
    """W-FIELD where a large part of the network grid lies outside a scan: the network reads SUV 0 and air there."""
    gone = {what: 1.0 - grid.coverage(target, volume) for what, volume in (("PET", pet), ("CT", ct))}
    if max(gone.values()) <= _FIELD_SHARE:
        return ()
    return (Problem("W-FIELD", "the scans cover little of the region, and the risk depends on how much they cover",
                    where="region", found=" and ".join(f"{share:.0%} without {what}" for what, share in gone.items()),
                    expected=f"at most {_FIELD_SHARE:.0%}",
                    remedy="Compare such patients only with others whose scans are cropped alike"),)


def _mask_facts(mask: Volume | None, target: Volume, pet: Volume) -> dict[str, float | str]:
    """Size, uptake and completeness of the mask, where there is one."""
    if mask is None or not mask.array.any():
        return {}
    uptake = pet.array[grid.mask_onto(mask, pet).array]
    facts: dict[str, float | str] = {"mask_ml": grid.mask_volume_ml(mask), "mask_in_roi": _share_inside(mask, target)}
    return facts | ({"mask_suv_max": float(uptake.max())} if uptake.size else {})


def _mask_problems(mask: Volume | None, target: Volume) -> tuple[Problem, ...]:
    """What the mask cannot be used for; E-MASKOUTSIDE when the region misses it."""
    if mask is None or not mask.array.any():
        return ()  # an empty mask was named where it was read
    share = _share_inside(mask, target)
    if share == 0.0:
        raise ScanError(Problem("E-MASKOUTSIDE", "the region misses the tumour mask", where="region",
                                found=f"region at {_mm(target.center_mm)}, mask at {_mm(grid.mask_center_mm(mask))}",
                                remedy="Set prepare.roi = 'mask' or 'box'"))
    problems = []
    if share < 0.999:
        problems.append(Problem("W-MASKCUT", "the region cuts the tumour mask", where="region",
                                found=f"{share:.1%} of the mask inside", expected="all of it",
                                remedy="Set prepare.roi = 'mask', or enlarge size or spacing_mm"))
    if _touches_border(mask.array):
        problems.append(Problem("W-MASKEDGE", "the tumour mask touches the edge of the scan", where="mask",
                                remedy="Volume, shape and texture of a cut tumour are doubtful"))
    return tuple(problems)


def _share_inside(mask: Volume, target: Volume) -> float:
    """Share of the mask's voxels whose centre lies in the target grid."""
    index = target.indices(mask.points_mm(np.argwhere(mask.array)))
    return float(((index >= -0.5) & (index <= np.array(target.shape) - 0.5)).all(axis=1).mean())


def _touches_border(mask: NDArray) -> bool:
    """Whether a voxel of the mask lies in an outermost plane of its grid."""
    return any(mask.take(end, axis=axis).any() for axis in range(3) for end in (0, -1))


def _lossless(ct: Volume) -> Volume:
    """The CT as int16 where no value changes."""
    if ct.array.dtype == np.int16:
        return ct
    whole = np.empty(ct.shape, dtype=np.int16)
    for plane, values in zip(whole, ct.array, strict=True):  # plane by plane: a whole-body CT is large
        if values.min() < -32768 or values.max() > 32767:
            return ct
        plane[...] = values
        if not np.array_equal(plane, values):
            return ct
    return ct.with_array(whole)


def _mm(point: tuple[float, float, float]) -> str:
    """A point for a message."""
    return "({:.0f}, {:.0f}, {:.0f}) mm".format(*point)
