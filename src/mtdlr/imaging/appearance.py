"""What a PET/CT looks like, in numbers: what a scan is compared by with the scans of a training cohort.

The numbers are grouped by what a reader would name: CT numbers, uptake, noise, anatomy, and whether PET and CT show one
body. Each is taken in millimetres and physical units, so that another voxel size changes it little.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from mtdlr.imaging import grid
from mtdlr.imaging.slices import eroded
from mtdlr.volume import Volume

Vector = NDArray[np.float64]
COARSE = 8
"""Voxels along each axis of the coarse pictures."""
HU_EDGES = (-900.0, -300.0, -20.0, 100.0, 300.0)
"""Between air, lung, fat, soft tissue, spongy bone or contrast, and bone."""
_FINE = 32  # voxels along each axis where PET and CT are compared
_FINEST = 64  # where their edges are compared: twice as fine finds two limbs of one size
_EDGE_VOXELS = 2.0  # SD of the smoothing there
_BODY_HU = -300.0
_AIR_HU = -700.0
_QUANTILES = (0.5, 0.9, 0.99)
_FLOOR_SUV = 0.05
_VOXELS = 4_000_000  # noise is read from every k-th slice above this size
_FLAT = 1e-4  # relative noise of a PET without any


PROTOCOL = tuple(f"log {kind} voxel in {axis}, mm" for kind in ("PET", "CT") for axis in "zyx")
"""Names of the voxel sizes, as `mtdlr.shift` lists them."""


@dataclass(frozen=True)
class Measures:
    """The numbers of a group: what they are called, and by how much two good scanners may differ.

    Args:
        names: of the numbers; empty for pictures. "log" in front means that the number is a logarithm.
        tolerance: standard deviation allowed between scanners, in the numbers' own units.
    """

    names: tuple[str, ...]
    tolerance: float | tuple[float, ...]


APPEARANCE = {
    # Two calibrated scanners and reconstructions differ by up to some 20 % in SUV (EANM/EARL: Boellaard 2015).
    "uptake": Measures(("log median SUV of the body", "log 90 % SUV", "log 99 % SUV"), 0.2),
    "ct_numbers": Measures(("air", "lung-like", "fat", "soft tissue", "spongy bone", "bone"), 0.03),
    # Dose, time and kernel move noise by a factor of 1.5 either way within good practice.
    "pet_noise": Measures(("log relative noise",), 0.4),
    "ct_noise": Measures(("log noise in HU",), 0.4),
    "anatomy": Measures((), 0.05),
    "uptake_time": Measures(("minutes from injection to scan",), 10.0),  # FDG guidelines: 60 within 55 to 75
    "protocol": Measures(PROTOCOL, 0.6),  # voxels of half and of twice the size are seen in one network's training
    "together": Measures(("uptake that tissue explains", "edges in common", "outlines in common", "log uptake in air"),
                         (0.05, 0.05, 0.004, 0.25)),
    "edges": Measures(("correlation of the edges of PET and CT",), 0.1),
}
"""The groups of `appearance`."""


def appearance(pet: Volume, ct: Volume, region: Volume) -> dict[str, Vector]:
    """The numbers of one patient, by group.

    Args:
        pet: SUV, g/ml, around the region on its own grid.
        ct: HU, likewise.
        region: the network grid.

    Returns:
        `uptake` log SUV quantiles of the body and of its hottest place; `ct_numbers` roots of the shares of the tissue
        classes; `pet_noise` and `ct_noise` log of the local spread; `anatomy` the coarse pictures; `together` how PET
        and CT fit; `edges` whether they have their edges in the same places, at a finer scale.
    """
    suv, hu = _sampled(pet, ct, region)
    finer = _sampled(pet, ct, region, _FINEST)
    return {
        "uptake": _uptake(suv, hu), "ct_numbers": _ct_numbers(hu), "pet_noise": _pet_noise(pet),
        "ct_noise": _ct_noise(ct), "anatomy": _pictures(suv, hu), "together": _together(suv, hu),
        "edges": np.array([_common_edges(_log(finer[0]), _soft(finer[1]), _EDGE_VOXELS)]),
    }


def appearance_uptake(pet: Volume, ct: Volume, region: Volume) -> Vector:
    """The group `uptake` of `appearance` alone: log of (SUV + 0.05) at the quantiles 50, 90 and 99 % of the body.

    Args:
        pet: SUV, g/ml, around the region on its own grid.
        ct: HU, likewise.
        region: the network grid.
    """
    return _uptake(*_sampled(pet, ct, region))


def _sampled(pet: Volume, ct: Volume, region: Volume, size: int = _FINE) -> tuple[NDArray, NDArray]:
    """(SUV, HU) on one grid of so many voxels an axis over the region."""
    fine = _around(region, size)
    return grid.resample(pet, fine, outside=0.0).array, grid.resample(ct, fine, outside=-1024.0).array


def _around(region: Volume, size: int) -> Volume:
    """A grid of `size` voxels along each axis over the region."""
    edge = np.array(region.shape) * np.array(region.spacing_mm)
    return grid.cube(region.center_mm, size=size, spacing_mm=float(edge.max()) / size)


def _uptake(suv: NDArray, hu: NDArray) -> Vector:
    """Log quantiles of SUV in the body that CT shows (everywhere where CT shows none)."""
    body = hu > _BODY_HU
    values = suv[body] if body.mean() > 0.02 else suv.ravel()
    return np.log(np.maximum(np.quantile(values, _QUANTILES), 0.0) + _FLOOR_SUV)


def _ct_numbers(hu: NDArray) -> Vector:
    """Square roots of the shares of the tissue classes (Hellinger scale: their noise is alike)."""
    counts = np.bincount(np.searchsorted(HU_EDGES, hu.ravel()), minlength=len(HU_EDGES) + 1)
    return np.sqrt(counts / hu.size)


def _pet_noise(pet: Volume) -> Vector:
    """Log of the PET's local spread where there is uptake, relative to its level there."""
    array = _slices(pet)
    smooth = ndimage.uniform_filter(array, (1, 3, 3))
    seen = smooth > max(0.3 * float(np.quantile(smooth, 0.9)), 1e-6)
    if not seen.any():
        return np.log([_FLAT])
    spread = np.abs(_bumps(array))[seen] / np.sqrt(smooth[seen])
    return np.log([float(np.median(spread)) / float(np.sqrt(np.median(smooth[seen]))) + _FLAT])


def _ct_noise(ct: Volume) -> Vector:
    """Log of 1 HU more than the CT's local spread in soft tissue, HU."""
    array = _slices(ct)
    smooth = ndimage.uniform_filter(array, (1, 3, 3))
    soft = (smooth > HU_EDGES[2]) & (smooth < HU_EDGES[3])
    return np.log([float(np.median(np.abs(_bumps(array))[soft])) + 1.0]) if soft.sum() > 50 else np.zeros(1)


def _slices(volume: Volume) -> NDArray[np.float32]:
    """The volume, or so many of its slices that they stay small."""
    step = -(-volume.array.size // _VOXELS)
    return np.asarray(volume.array[::step], np.float32)


def _bumps(array: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mixed second differences within each slice: noise, and hardly any anatomy."""
    out = np.zeros_like(array)
    for axis in (1, 2):
        array = 2.0 * array - np.roll(array, 1, axis) - np.roll(array, -1, axis)
    out[:, 1:-1, 1:-1] = array[:, 1:-1, 1:-1] / 4.0
    return out


def _pictures(suv: NDArray, hu: NDArray) -> Vector:
    """Coarse pictures of CT and of log uptake less its median: where tissue and uptake lie, at any level of SUV."""
    block = _FINE // COARSE
    ct = _blocks(np.clip(hu, -1000.0, 500.0) / 500.0, block)
    pet = _blocks(np.log(np.maximum(suv, 0.0) + _FLOOR_SUV), block)
    return np.concatenate([ct.ravel(), (pet - np.median(pet)).ravel()])


def _blocks(array: NDArray, step: int) -> NDArray[np.float64]:
    """Means over cubes of `step` voxels."""
    n = array.shape[0] // step
    return np.asarray(array.reshape(n, step, n, step, n, step).mean(axis=(1, 3, 5)), np.float64)


def _together(suv: NDArray, hu: NDArray) -> Vector:
    """How well PET and CT fit: what tissue maps explain, edges and outlines in common, uptake in the CT's air."""
    log, soft = _log(suv), ndimage.gaussian_filter(_soft(hu), 1.0)
    bone = ndimage.gaussian_filter((hu > HU_EDGES[4]).astype(np.float64), 1.0)
    maps = np.stack([np.ones(log.size), *(m.ravel() for m in (soft, bone, soft**2, soft * bone))], axis=1)
    left = log.ravel() - maps @ np.linalg.lstsq(maps, log.ravel(), rcond=None)[0]
    return np.array([1.0 - left.var() / max(float(log.var()), 1e-9), _common_edges(log, soft, 1.0),
                     *_outlines(log, hu)])


def _log(suv: NDArray) -> NDArray:
    """Log of SUV above a floor."""
    return np.asarray(np.log(np.maximum(suv, 0.0) + _FLOOR_SUV))


def _soft(hu: NDArray) -> NDArray:
    """CT from air, 0, to soft tissue and all above it, 1."""
    return np.asarray((np.clip(hu, -1000, 100) + 1000) / 1100.0)


def _common_edges(log: NDArray, soft: NDArray, voxels: float) -> float:
    """Correlation of the smoothed gradients' lengths; 0 where one image has none."""
    edges = [ndimage.gaussian_gradient_magnitude(image, voxels).ravel() for image in (log, soft)]
    return 0.0 if min(edge.std() for edge in edges) < 1e-9 else float(np.corrcoef(*edges)[0, 1])


def _outlines(log: NDArray, hu: NDArray) -> tuple[float, float]:
    """(Dice of the bodies that PET and CT show, 95 % log uptake in the CT's air)."""
    body = ndimage.binary_fill_holes(hu > _BODY_HU)
    if not body.any():
        return 0.0, float(np.quantile(log, 0.95))
    taken_up = log > (np.quantile(log, 0.02) + np.median(log[body])) / 2.0
    air = eroded(hu < _AIR_HU)
    dice = 2.0 * float((taken_up & body).sum()) / float(taken_up.sum() + body.sum())
    return dice, float(np.quantile(log[air], 0.95)) if air.sum() > 20 else float(np.log(_FLOOR_SUV))
