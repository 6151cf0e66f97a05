"""Where the head and neck is: a network region found from PET and CT, without a mask.

The brain is the one large, hot organ that bone encloses. It is found as soft tissue inside the skull on CT, chosen and
confirmed by its uptake on PET, which heart, liver and bladder cannot imitate. The nasopharynx lies at a steady place
below and before it; the region is centred there. A template (another prepared patient) and a point given by hand are
the alternatives.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from mtdlr.errors import Problem
from mtdlr.imaging import grid
from mtdlr.imaging.slices import closed_slices, filled_slices, opened
from mtdlr.volume import Volume

SURE = 0.5  # below this confidence the region is reported as unsure

_GRID_MM = 4.0
_CLOSED_VOXELS = 3  # on either side: gaps below 24 mm
_BONE_HU = 180.0  # thin skull in thick slices stays above this
_BRAIN_ML = (150.0, 2200.0)  # from a brain cut off by the field of view to a big one with its fluid
_BASE_CM2 = 25.0  # where the brain's slices reach this area the skull base begins
# Nasopharynx relative to the middle of the brain, and its height relative to where the brain begins, mm (x, y, z):
# anatomy of an average adult; the two estimates of the height are independent and are compared.
_FROM_MIDDLE_MM = (0.0, -18.0, -72.0)
_FROM_BASE_MM = -15.0
_TEMPLATE_MM = 6.0
_AIR_HU = -300.0
_AIR_VOXELS = 50  # 3 ml


@dataclass(frozen=True)
class Region:
    """The middle of the network region, and how far to trust it.

    Args:
        center_mm: (x, y, z) in LPS mm.
        confidence: 0 (a guess) to 1 (sure).
        how: which rule found it.
        problems: W-ROI when unsure.
    """

    center_mm: tuple[float, float, float]
    confidence: float
    how: str
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True)
class _Brain:
    """Voxels inside the skull that shine on PET."""

    mask: Volume
    ml: float
    contrast: float  # its median uptake over the body's


def locate_head(pet: Volume, ct: Volume) -> Region:
    """The head-and-neck region of a scan, centred on the nasopharynx; the PET's middle, with W-ROI, if none is seen.

    Args:
        pet: SUV, g/ml.
        ct: HU.
    """
    brain = _find_brain(pet, ct)
    if brain is None:
        return _middle(pet, "no brain inside a skull is seen")
    middle, base, top_is_cut = _landmarks(brain.mask)
    from_middle, from_base = middle[2] + _FROM_MIDDLE_MM[2], base + _FROM_BASE_MM
    height = from_base if top_is_cut else (from_middle + from_base) / 2.0
    confidence = (_ramp(brain.contrast, 1.2, 2.5) * _ramp(brain.ml, *_BRAIN_ML[:1], 700.0)
                  * (0.8 if top_is_cut else _ramp(-abs(from_middle - from_base), -40.0, -20.0)))
    center = (float(middle[0]) + _FROM_MIDDLE_MM[0], float(middle[1]) + _FROM_MIDDLE_MM[1], float(height))
    confidence *= _fits(ct, center, float(middle[1]))
    return _judged(Region(center, round(confidence, 3), "below the brain"), pet)


def _fits(ct: Volume, center_mm: tuple[float, float, float], brain_y_mm: float) -> float:
    """How well the head's surroundings fit where it is thought to lie, 0.2 to 1.

    Below a brain there is a neck, and the air in the head (sinuses, nose, pharynx) lies before the middle of the brain.
    Neither holds where the patient position in the headers is wrong, so that the head stands upside down or looks back.
    """
    around = grid.cube(center_mm, size=31, spacing_mm=4.0)
    hu = grid.resample(ct, around, outside=-1000.0).array
    seen = grid.inside(around, ct)
    body = filled_slices(hu > _AIR_HU) & seen
    tissue = float(body[8:23, 8:23, 8:23].mean())
    air = np.argwhere(body & (hu < _AIR_HU))
    before = float((around.points_mm(air)[:, 1] < brain_y_mm).mean()) if len(air) >= _AIR_VOXELS else 1.0
    return 0.2 + 0.8 * min(_ramp(tissue, 0.5, 0.8), _ramp(before, 0.3, 0.5))


def locate_by_template(ct: Volume, template_ct: Volume, center_mm: tuple[float, float, float], pet: Volume) -> Region:
    """The region where the CT looks most like a template, by normalised cross-correlation over all shifts.

    Args:
        ct: HU, the new patient.
        template_ct: HU, the region of another patient (see `Prepared.ct_hu`).
        center_mm: the middle of that patient's region.
        pet: the new patient's PET, whose middle is used if nothing fits.
    """
    place, pattern = (grid.lattice(image, _TEMPLATE_MM) for image in (ct, template_ct))
    correlation, first = _correlate(_tissue(ct, place), _tissue(template_ct, pattern))
    best = np.unravel_index(correlation.argmax(), correlation.shape)
    center = place.points_mm(np.array(best) + first + pattern.indices(center_mm))
    x, y, z = center.tolist()
    fit = float(correlation[best])
    return _judged(Region((x, y, z), round(_ramp(fit, 0.3, 0.8), 3), "by the template"), pet)


def _judged(region: Region, pet: Volume) -> Region:
    """The region, or the PET's middle when there is no reason to trust it at all; W-ROI when unsure."""
    if region.confidence == 0.0:
        return _middle(pet, "nothing like a head is seen")
    if region.confidence >= SURE:
        return region
    return Region(region.center_mm, region.confidence, region.how, (Problem(
        "W-ROI", "the head-and-neck region is unsure", where="region", found=f"confidence {region.confidence:.2f}",
        expected=f"at least {SURE}",
        remedy="Look at the prepared images, or give prepare.roi = 'box' and box_center_mm"),))


def _middle(pet: Volume, why: str) -> Region:
    """The PET's middle, for want of better."""
    return Region(pet.center_mm, 0.0, "middle of the PET", (Problem(
        "W-ROI", f"the head was not found ({why}); the middle of the PET is used", where="region",
        remedy="Look at the prepared images, or give prepare.roi = 'box' and box_center_mm"),))


def _find_brain(pet: Volume, ct: Volume) -> _Brain | None:
    """The enclosed soft tissue with the greatest uptake, if any is large enough."""
    place = grid.lattice(ct, _GRID_MM)  # not about the scan's middle: a crop must not move the region
    hu, suv = grid.resample(ct, place, outside=-1000.0).array, grid.resample(pet, place).array
    labels, count = ndimage.label(opened(_inside_bone(hu), 2))
    if count == 0:
        return None
    ml = np.bincount(labels.ravel()) * place.voxel_ml
    ml[0] = 0.0
    uptake = np.maximum(ndimage.median(suv, labels, np.arange(count + 1)), 0.0)
    best = int(np.argmax(np.minimum(ml, _BRAIN_ML[1]) * uptake))
    if not _BRAIN_ML[0] <= ml[best] <= _BRAIN_ML[1]:
        return None
    rest = suv[(hu > -300) & (suv > 0) & (labels != best)]
    typical = max(float(np.median(rest)) if rest.size else 0.0, 0.1)
    return _Brain(place.with_array(labels == best), float(ml[best]), float(uptake[best]) / typical)


def _inside_bone(hu: NDArray) -> NDArray[np.bool_]:
    """Soft tissue that bone encloses in at least one of the three planes."""
    bone = hu > _BONE_HU
    closed = np.zeros_like(bone)
    for axis in range(3):
        closed |= np.moveaxis(_filled(np.moveaxis(bone, axis, 0)), 0, axis)
    return closed & ~bone & (hu > -50) & (hu < 130)


def _filled(bone: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Every plane with gaps of the bone below 24 mm closed and its holes filled."""
    return filled_slices(closed_slices(bone, _CLOSED_VOXELS))


def _landmarks(brain: Volume) -> tuple[NDArray[np.float64], float, bool]:
    """(middle (x, y, z), height at which it becomes broad, whether the scan ends inside it at the top)."""
    index = np.argwhere(brain.array)
    area = brain.array.sum(axis=(1, 2)) * brain.spacing_mm[1] * brain.spacing_mm[2] / 100.0
    enough = min(_BASE_CM2, area.max())
    k = int(np.argmax(area >= enough))
    under = area[k - 1] if k else 0.0
    base = brain.points_mm([k - (area[k] - enough) / (area[k] - under), 0.0, 0.0])[2]  # between slices: no step of 4 mm
    return brain.points_mm(index.mean(axis=0)), float(base), bool(area[-3:].max() >= _BASE_CM2)


def _ramp(value: float, low: float, high: float) -> float:
    """0 below `low`, 1 above `high`."""
    return float(np.clip((value - low) / (high - low), 0.0, 1.0))


def _tissue(ct: Volume, place: Volume) -> NDArray[np.float32]:
    """CT between air and dense bone, from 0 to 1."""
    return np.clip((grid.resample(ct, place, outside=-1000.0).array + 1000.0) / 2000.0, 0.0, 1.0)


def _correlate(image: NDArray, pattern: NDArray) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """(normalised cross-correlation at every shift that keeps half the pattern inside, the first shift)."""
    reach = np.array(pattern.shape) // 2
    padded = np.pad(image.astype(np.float64), [(n, n) for n in reach])
    shape = [fft.next_fast_len(a + b, real=True) for a, b in zip(padded.shape, pattern.shape, strict=True)]
    keep = tuple(slice(0, a - b + 1) for a, b in zip(padded.shape, pattern.shape, strict=True))

    def slide(values: NDArray, kernel: NDArray) -> NDArray[np.float64]:
        spectrum = fft.rfftn(values, shape) * np.conj(fft.rfftn(kernel, shape))
        result: NDArray[np.float64] = fft.irfftn(spectrum, shape)[keep]
        return result

    ones, n = np.ones(pattern.shape), pattern.size
    centred = pattern - pattern.mean()
    variance = slide(padded**2, ones) - slide(padded, ones) ** 2 / n
    scale = np.sqrt(np.maximum(variance, 1e-3 * n * float(image.var() + 1e-12)) * (centred**2).sum() + 1e-12)
    return slide(padded, centred) / scale, -reach
