"""How far PET and CT of one patient lie apart, and the transform that brings them together.

Both are compared through a tissue model: PET uptake, capped so that lesions count little, is regressed on smooth maps
of body, body rim, fat and bone taken from the CT while the CT moves under the PET. The motion that leaves the least
residual is found by Gauss-Newton steps with Tukey's bisquare weights, so that what no CT map explains (tumour, brain,
bladder) drops out. Halves of the region are fitted on their own: what they disagree about is not known.

When PET and CT have equally many slices of one thickness but start at different heights, the image is asked whether
the stacks belong slice upon slice; if it says so, that exact offset is the answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import erf, sqrt
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from mtdlr.imaging import grid
from mtdlr.imaging.slices import eroded, filled_slices, opened
from mtdlr.volume import Volume

Motion = Literal["shift", "rigid", "affine"]

_MAP_MM = 3.0  # voxels of the tissue maps
_BLUR_MM = 3.0  # standard deviation of a PET scanner's point spread
_RIM_MM = 6.0  # body grown and shrunk by this: blooming at the skin would pass for a shift along a cone
_CAP = 1.5  # uptake above this multiple of the body's median is cut off
_POINTS = {"measure": 8_000, "align": 20_000}  # PET voxels used
_STEPS = 25
_OVER = 1.6  # steps are lengthened: reweighting makes plain ones fall short
_TUKEY = 4.685  # bisquare constant of 95 % efficiency (Holland & Welsch 1977)
_TUKEY_AFFINE = 7.0  # a stretch shows first as large residuals along the skin: they must not drop out
_FLOOR_MM = 2.0  # error that remains on real limbs even where all halves agree (bench/RESULTS.md)
_PRIOR_MM = 15.0  # standard deviation of a plausible shift ...
_PRIOR_BEND = 0.05  # ... and of a plausible turn (radian) or stretch
_LONG = 100.0  # mm; turns and stretches are fitted as millimetres at this distance


@dataclass(frozen=True)
class Alignment:
    """How far the PET has to move to lie on the CT.

    Args:
        shift_mm: (x, y, z) in LPS mm.
        sd_mm: its standard deviation (x, y, z): noise, what halves of the region disagree about, and what the tissues
            leave unexplained.
        explained: share (0-1) of the capped uptake's variance that the CT's tissues explain.
        how: "image", or "slices" where the stacks belong slice upon slice.
    """

    shift_mm: tuple[float, float, float]
    sd_mm: tuple[float, float, float]
    explained: float
    how: str

    @property
    def distance_mm(self) -> float:
        """Length of the shift."""
        return float(np.linalg.norm(self.shift_mm))

    @property
    def confidence(self) -> float:
        """Probability that the shift is right to 5 mm along its least certain axis."""
        return erf(5.0 / (sqrt(2.0) * max(self.sd_mm)))

    def exceeds(self, limit_mm: float) -> bool:
        """Whether the shift is longer than the limit by more than twice its own uncertainty."""
        if self.distance_mm <= limit_mm:
            return False
        along = np.array(self.shift_mm) / self.distance_mm
        return self.distance_mm - 2.0 * float(np.linalg.norm(along * self.sd_mm)) > limit_mm


@dataclass(frozen=True)
class _Scene:
    """PET samples and CT tissue maps, ready for fitting."""

    points_mm: NDArray[np.float64]  # (n, 3)
    uptake: NDArray[np.float64]  # (n,), 1 = the body's median
    maps: NDArray[np.float32]  # (z, y, x, maps), the first is 1 where the CT has data
    place: Volume

    def take(self, rows: NDArray[np.bool_]) -> _Scene:
        """Some of the samples."""
        return _Scene(self.points_mm[rows], self.uptake[rows], self.maps, self.place)

    def without_rims(self) -> _Scene:
        """Without the grown and shrunk body, which would take a stretch for blooming."""
        return _Scene(self.points_mm, self.uptake, np.delete(self.maps, (2, 3), axis=3), self.place)


@dataclass(frozen=True)
class _Fit:
    """Parameters of a motion (shift in mm first) with their standard deviation, and what the maps explain."""

    parameters: NDArray[np.float64]
    sd: NDArray[np.float64]
    explained: float


def misalignment(pet: Volume, ct: Volume, *, stack_offset_mm: float | None = None) -> Alignment:
    """The shift between PET and CT, measured from their slices and their tissues.

    Args:
        pet: SUV, g/ml.
        ct: HU, in the same frame of reference.
        stack_offset_mm: `slice_offset_mm` of the whole scans, where these are parts of them; by default their own.
    """
    scene = _scene(pet, ct, _POINTS["measure"])
    offset = slice_offset_mm(pet, ct) if stack_offset_mm is None else stack_offset_mm
    # A large shift has a second, lesser optimum near 0, where a search from 0 can end: it begins at the offset too.
    fit = max((_fit(scene, "shift", np.array([0.0, 0.0, z])) for z in dict.fromkeys((0.0, offset))),
              key=lambda one: one.explained)
    halves = np.array([_fit(half, "shift", fit.parameters).parameters for half in _halves(scene)])
    spread = halves.std(axis=0) if len(halves) else np.full(3, _PRIOR_MM)
    unexplained = 1.0 / max(fit.explained, 0.01)
    sd = np.minimum(np.sqrt((fit.sd**2 + spread**2 + _FLOOR_MM**2) * unexplained), 2 * _PRIOR_MM)
    if offset and fit.parameters[2] * offset > offset**2 / 2:
        return Alignment((0.0, 0.0, offset), (0.5, 0.5, 0.5), fit.explained, "slices")
    return Alignment(_triple(fit.parameters), _triple(sd), fit.explained, "image")


def slice_offset_mm(pet: Volume, ct: Volume) -> float:
    """How far the CT's slices lie above the PET's, where both have equally many of one thickness; else 0.

    Args:
        pet: the whole scan; parts cut at one place always start together.
        ct: likewise.
    """
    pet, ct = grid.canonical(pet), grid.canonical(ct)
    thickness = pet.spacing_mm[0]
    offset = float(ct.center_mm[2] - pet.center_mm[2])
    alike = (pet.shape[0] == ct.shape[0] and abs(ct.spacing_mm[0] / thickness - 1) < 0.01
             and abs(pet.affine[2, 0]) > 0.999 * thickness and abs(ct.affine[2, 0]) > 0.999 * thickness)
    return offset if alike and abs(offset) > 0.5 * thickness else 0.0


def align(pet: Volume, ct: Volume, *, how: Motion) -> NDArray[np.float64]:
    """The (4, 4) LPS transform that takes the PET's points to where the CT shows the same tissue.

    Args:
        pet: SUV, g/ml.
        ct: HU.
        how: "shift", "rigid" (turns too) or "affine" (stretches and shears too).
    """
    scene = _scene(pet, ct, _POINTS["align"])
    center = scene.points_mm.mean(axis=0)
    start = np.zeros(3 if how == "shift" else 6)
    start[:3] = _fit(scene, "shift", np.zeros(3)).parameters
    if how == "shift":
        return _matrix(start, center)
    rigid = _matrix(_fit(scene, "rigid", start).parameters, center)
    if how == "rigid":
        return rigid
    shift = rigid[:3, :3] @ center + rigid[:3, 3] - center
    start = np.concatenate([shift, ((rigid[:3, :3] - np.eye(3)) * _LONG).ravel()])
    return _matrix(_fit(scene.without_rims(), "affine", start).parameters, center)


def _triple(values: NDArray) -> tuple[float, float, float]:
    x, y, z = values[:3].tolist()
    return x, y, z


def _scene(pet: Volume, ct: Volume, count: int) -> _Scene:
    """What is to be compared, at about `count` of the PET's voxels."""
    place = grid.isotropic_grid(grid.grid(ct.shape, ct.affine), _MAP_MM)
    valid = grid.inside(place, ct)
    hu = grid.resample(ct, place, outside=-1000.0).array
    body = _body(hu)
    maps = np.stack([valid.astype(np.float32), *_tissue_maps(hu, body, valid)], axis=-1)
    index = np.arange(0, pet.array.size, max(1, round(pet.array.size / count)))
    points = pet.points_mm(np.stack(np.unravel_index(index, pet.shape), axis=1))
    values = np.asarray(pet.array).reshape(-1)[index].astype(np.float64)
    return _Scene(points, np.clip(values / _typical(values, points, body, place), 0.0, _CAP), maps, place)


def _typical(values: NDArray, points: NDArray, body: NDArray[np.bool_], place: Volume) -> float:
    """Median uptake well inside the body."""
    deep = eroded(body, 3).astype(np.float32)
    inside = values[_sample(deep[..., None], place.indices(points))[0][:, 0] > 0.5]
    inside = inside[inside > 0] if (inside > 0).sum() > 20 else values[values > 0]
    return float(np.median(inside)) if inside.size else 1.0


def _body(hu: NDArray) -> NDArray[np.bool_]:
    """The body without the couch: pieces of at least 50 ml, holes filled slice by slice."""
    labels, _ = ndimage.label(opened(hu > -300))
    sizes = np.bincount(labels.ravel()) * _MAP_MM**3 / 1000
    sizes[0] = 0
    return filled_slices((sizes > 50)[labels])


def _tissue_maps(hu: NDArray, body: NDArray[np.bool_], valid: NDArray[np.bool_]) -> list[NDArray[np.float32]]:
    """Body, grown body, shrunk body, fat and bone, blurred as the PET is; where the CT ends is no air."""
    depth = (ndimage.distance_transform_edt(body) - ndimage.distance_transform_edt(~body)) * _MAP_MM
    depth -= np.where(body, 0.5, -0.5) * _MAP_MM
    maps = [np.clip((depth + grown) / _MAP_MM + 0.5, 0, 1) for grown in (0.0, _RIM_MM, -_RIM_MM)]
    maps += [body & (hu < -30), body & (hu > 150)]
    sigma = _BLUR_MM / _MAP_MM
    weight = np.maximum(ndimage.gaussian_filter(valid.astype(np.float32), sigma), 1e-3)
    return [ndimage.gaussian_filter(np.where(valid, m, 0).astype(np.float32), sigma) / weight for m in maps]


def _sample(maps: NDArray[np.float32], index: NDArray) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(values (n, maps), gradients (n, 3, maps) per voxel) by trilinear interpolation; edges continue."""
    top = np.array(maps.shape[:3]) - 1
    at = np.clip(index, 0, top)
    low = np.minimum(at.astype(np.int64), np.maximum(top - 1, 0))
    step = np.minimum(low + 1, top) - low
    flat, strides = maps.reshape(-1, maps.shape[3]), np.array([maps.shape[1] * maps.shape[2], maps.shape[2], 1])
    first, steps = low @ strides, step * strides
    w = (at - low).astype(np.float32)[:, :, None]
    c = np.empty((2, 2, 2, len(index), maps.shape[3]), dtype=np.float32)
    for corner in np.ndindex(2, 2, 2):
        np.take(flat, first + steps @ np.array(corner), axis=0, out=c[corner])
    x = c[:, :, 0] + (c[:, :, 1] - c[:, :, 0]) * w[:, 2]
    y = x[:, 0] + (x[:, 1] - x[:, 0]) * w[:, 1]
    dx = c[:, :, 1] - c[:, :, 0]
    dx = dx[:, 0] + (dx[:, 1] - dx[:, 0]) * w[:, 1]
    dy = x[:, 1] - x[:, 0]
    gradient = np.stack([y[1] - y[0], dy[0] + (dy[1] - dy[0]) * w[:, 0], dx[0] + (dx[1] - dx[0]) * w[:, 0]], axis=1)
    return y[0] + (y[1] - y[0]) * w[:, 0], gradient


def _halves(scene: _Scene) -> list[_Scene]:
    """The scene cut at its middle along x, y and z: six halves, those with enough body."""
    middle = np.median(scene.points_mm, axis=0)
    halves = [scene.take((scene.points_mm[:, axis] >= middle[axis]) == upper)
              for axis in range(3) for upper in (False, True)]
    return [half for half in halves if (half.uptake > 0.2).sum() > 200]


def _matrix(parameters: NDArray[np.float64], center: NDArray[np.float64]) -> NDArray[np.float64]:
    """The motion's (4, 4) matrix: about the centre, then the shift."""
    matrix = np.eye(4)
    if parameters.size == 6:
        matrix[:3, :3] = _turn(parameters[3:] / _LONG)
    if parameters.size == 12:
        matrix[:3, :3] += parameters[3:].reshape(3, 3) / _LONG
    matrix[:3, 3] = center + parameters[:3] - matrix[:3, :3] @ center
    return matrix


def _turn(vector: NDArray[np.float64]) -> NDArray[np.float64]:
    """The (3, 3) rotation about a vector by its length in radians, Rodrigues' formula."""
    angle = float(np.linalg.norm(vector))
    if not angle:
        return np.eye(3)
    x, y, z = vector / angle
    across = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    return np.asarray(np.eye(3) + np.sin(angle) * across + (1.0 - np.cos(angle)) * across @ across)


def _directions(offsets: NDArray[np.float64], motion: Motion) -> NDArray[np.float64]:
    """(n, 3, parameters): how a point at `offsets` (n, 3) from the centre moves with each parameter."""
    n = len(offsets)
    columns = [np.broadcast_to(np.eye(3), (n, 3, 3))]
    if motion == "rigid":
        columns.append(np.cross(np.eye(3)[None], offsets[:, None, :] / _LONG).transpose(0, 2, 1))
    if motion == "affine":
        columns.append(np.einsum("ab,nc->nabc", np.eye(3), offsets / _LONG).reshape(n, 3, 9))
    return np.concatenate(columns, axis=2)


def _fit(scene: _Scene, motion: Motion, start: NDArray[np.float64]) -> _Fit:
    """The motion that lets the CT's tissues explain the uptake best, from a start."""
    center = scene.points_mm.mean(axis=0)
    to_index = np.linalg.inv(scene.place.affine)[:3, :3]
    parameters, sd, explained = start.astype(np.float64), np.full(start.size, _PRIOR_MM), 0.0
    step = np.zeros(start.size)
    for _ in range(_STEPS):
        move = _matrix(parameters, center)
        moved = scene.points_mm @ move[:3, :3].T + move[:3, 3]
        values, gradients = _sample(scene.maps, scene.place.indices(moved))
        seen = values[:, 0] > 0.99
        if seen.sum() < 100:
            break
        tissue, uptake = np.column_stack([np.ones(seen.sum()), values[seen, 1:]]), scene.uptake[seen]
        weights, coefficients, scale = _robust(tissue, uptake, _TUKEY_AFFINE if motion == "affine" else _TUKEY)
        slope = (gradients[seen][:, :, 1:] @ coefficients[1:]) @ to_index
        design = np.column_stack([tissue, np.einsum("na,nap->np", slope, _directions(moved[seen] - center, motion))])
        residual = uptake - tissue @ coefficients
        step, sd = _newton(design, residual, weights, parameters, scale=scale)
        variance = _spread(uptake, weights)
        explained = 1.0 - _spread(residual, weights) / variance if variance > 1e-9 else 0.0
        parameters = parameters + np.clip(_OVER * step, -6.0, 6.0)
        if np.abs(step).max() < 0.05:
            break
    return _Fit(parameters, sd + np.abs(step), explained)


def _robust(tissue: NDArray, uptake: NDArray, tuning: float) -> tuple[NDArray, NDArray, float]:
    """(bisquare weights, coefficients, scale of the residuals) of uptake on tissue."""
    weights = np.ones(len(uptake))
    ridge = 1e-6 * len(uptake) * np.eye(tissue.shape[1])
    for _ in range(4):
        weighted = tissue * weights[:, None]
        coefficients = np.linalg.solve(weighted.T @ tissue + ridge, weighted.T @ uptake)
        residual = uptake - tissue @ coefficients
        scale = 1.4826 * float(np.median(np.abs(residual))) + 0.02
        weights = np.maximum(1.0 - (residual / (tuning * scale)) ** 2, 0.0) ** 2
    return weights, coefficients, scale


def _newton(design: NDArray, residual: NDArray, weights: NDArray, parameters: NDArray, *,
            scale: float) -> tuple[NDArray, NDArray]:
    """(step, standard deviation) of the motion's parameters, with a normal prior about no motion."""
    motion = slice(design.shape[1] - parameters.size, None)
    prior = np.where(np.arange(parameters.size) < 3, _PRIOR_MM, _PRIOR_BEND * _LONG)
    precision = np.full(design.shape[1], 1e-6)
    precision[motion] = scale**2 / prior**2
    information = (design * weights[:, None]).T @ design + np.diag(precision)
    score = design.T @ (residual * weights)
    score[motion] -= precision[motion] * parameters
    inverse = np.linalg.inv(information)
    return (inverse @ score)[motion], scale * np.sqrt(np.diag(inverse)[motion])


def _spread(values: NDArray, weights: NDArray) -> float:
    """Weighted variance."""
    return float(np.average((values - np.average(values, weights=weights)) ** 2, weights=weights))
