"""Grids in the patient: where voxels lie, how to look at a volume from another grid, and what to keep of it.

A grid is a `Volume` whose voxels do not count; `grid()` makes one that costs no memory. Resampling compares volumes in
physical space only, so a flipped, transposed or RAS-labelled copy of a scan gives the same result.

Linear resampling does not alias: along an axis whose step grows, a new voxel is the average of what it covers (the
weights are the overlaps of the new voxel with the old ones, which for a step that shrinks or stays is linear
interpolation). B-spline and nearest are pure interpolation, as IBSI and PyRadiomics define them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import scipy  # which loads ndimage at its first use: 20 MB that most calls do not need
from numpy.typing import ArrayLike, NDArray

from mtdlr.volume import Volume

Interpolation = Literal["linear", "bspline", "nearest"]

_EDGE = 1e-6  # voxels; rounding noise of an affine must not move a point across a voxel's border
_STRAIGHT = 1e-3  # voxels; grids that deviate less over their whole extent count as parallel
_SPLINE_REACH = 16  # voxels after which the cubic prefilter's memory (0.27^n) is below 1e-9


def grid(shape: Sequence[int], affine: ArrayLike) -> Volume:
    """An empty volume that stands for its grid alone and holds one byte of voxels.

    Args:
        shape: (z, y, x) voxel counts.
        affine: (4, 4), array index (k, j, i) -> LPS mm.
    """
    return Volume(np.broadcast_to(np.zeros((), dtype=np.uint8), tuple(shape)), np.asarray(affine, dtype=np.float64))


def cube(center_mm: Sequence[float], *, size: int, spacing_mm: float) -> Volume:
    """The axis-aligned LPS grid of `size`^3 isotropic voxels whose middle lies at `center_mm` (x, y, z).

    Args:
        center_mm: (x, y, z) of the middle, LPS mm.
        size: voxels along each axis.
        spacing_mm: voxel size, > 0.

    >>> cube((10.0, 0.0, -5.0), size=4, spacing_mm=2.0).center_mm
    (10.0, 0.0, -5.0)
    """
    affine = _upright(spacing_mm)
    affine[:3, 3] = np.asarray(center_mm) - spacing_mm * (size - 1) / 2.0
    return grid((size,) * 3, affine)


def isotropic_grid(around: Volume, spacing_mm: float) -> Volume:
    """The isotropic grid with the axes, the middle and (rounded up) the extent of `around`.

    Args:
        around: volume whose place is taken.
        spacing_mm: voxel size, > 0.

    References:
        Zwanenburg et al., IBSI reference manual, section 2.4: grids are aligned at their centres.

    >>> isotropic_grid(Volume.on_grid(np.zeros((4, 5, 6)), spacing_mm=(3.0, 2.0, 1.0)), 2.0).shape
    (6, 5, 3)
    """
    old = np.array(around.spacing_mm)
    shape = np.ceil(np.array(around.shape) * old / spacing_mm - _EDGE).astype(int)
    affine = np.eye(4)
    affine[:3, :3] = around.affine[:3, :3] * (spacing_mm / old)
    affine[:3, 3] = np.asarray(around.center_mm) - affine[:3, :3] @ ((shape - 1) / 2.0)
    return grid(shape.tolist(), affine)


def lattice(around: Volume, spacing_mm: float) -> Volume:
    """The isotropic grid along the axes of `around` that covers it, its voxels at places fixed in the patient.

    A part of a volume, and the volume with more margin, have their common voxels at the same places, so that what is
    found on such a grid does not depend on the field of view.

    Args:
        around: volume whose place is covered.
        spacing_mm: voxel size, > 0.

    >>> lattice(Volume.on_grid(np.zeros((4, 5, 6)), spacing_mm=(3.0, 2.0, 1.0)), 2.0).shape
    (7, 5, 4)
    """
    direction = around.affine[:3, :3] / around.spacing_mm
    step = np.array(around.spacing_mm) / spacing_mm
    first = np.linalg.solve(direction, around.affine[:3, 3]) / spacing_mm
    low = np.floor(first - step / 2.0 + 0.5 + _EDGE)
    high = np.ceil(first + step * (np.array(around.shape) - 0.5) - 0.5 - _EDGE)
    affine = np.eye(4)
    affine[:3, :3] = direction * spacing_mm
    affine[:3, 3] = affine[:3, :3] @ low
    return grid(((high - low).astype(int) + 1).tolist(), affine)


def canonical(volume: Volume) -> Volume:
    """The same voxels with array axes ordered and directed as nearly as possible along z, y, x of LPS.

    Axes are only permuted and flipped, so every voxel keeps its value and its place.
    """
    order, flips = _axes_to_zyx(volume.affine)
    steps = np.zeros((4, 4))
    steps[3, 3] = 1.0
    for new, old in enumerate(order):
        steps[old, new] = -1.0 if flips[new] else 1.0
        steps[old, 3] = volume.shape[old] - 1 if flips[new] else 0.0
    array = volume.array.transpose(order)[tuple(slice(None, None, -1 if flip else 1) for flip in flips)]
    return Volume(array, volume.affine @ steps)


def moved(volume: Volume, transform: ArrayLike) -> Volume:
    """The same voxels, untouched, at the place where the (4, 4) LPS millimetre transform takes them.

    Args:
        volume: any volume; its array is shared, not copied.
        transform: (4, 4), LPS mm -> LPS mm.
    """
    return Volume(volume.array, np.asarray(transform, dtype=np.float64) @ volume.affine)


def corners_mm(volume: Volume) -> NDArray[np.float64]:
    """The eight outer corners (8, 3) of the volume's voxels in LPS mm."""
    unit = np.array([[k, j, i] for k in (0, 1) for j in (0, 1) for i in (0, 1)])
    return volume.points_mm(unit * np.array(volume.shape) - 0.5)


def crop(volume: Volume, points_mm: ArrayLike, *, margin_mm: float = 0.0) -> Volume | None:
    """A copy of the smallest block of voxels that covers the points (n, 3) and a margin; None when they lie outside.

    Args:
        volume: any volume.
        points_mm: (n, 3) points (x, y, z), LPS mm.
        margin_mm: added on every side, >= 0.

    >>> v = Volume.on_grid(np.arange(60).reshape(3, 4, 5))
    >>> crop(v, [[1.0, 1.0, 1.0], [3.0, 2.0, 1.0]]).shape
    (1, 2, 3)
    """
    index = volume.indices(points_mm)
    margin = margin_mm / np.array(volume.spacing_mm)
    low = np.maximum(np.floor(index.min(axis=0) - margin + 0.5 + _EDGE).astype(int), 0)
    high = np.minimum(np.floor(index.max(axis=0) + margin + 0.5 - _EDGE).astype(int) + 1, volume.shape)
    if (low >= high).any():
        return None
    return _block(volume, low, high)


def coverage(region: Volume, volume: Volume) -> float:
    """The share (0-1) of the region's voxels whose centre lies inside the volume's extent.

    Args:
        region: a grid; only its shape and affine count.
        volume: likewise.
    """
    return float(inside(region, volume).mean())


def resample(
    volume: Volume, onto: Volume, *, interpolation: Interpolation = "linear", outside: float = 0.0
) -> Volume:
    """The volume's values at the voxel centres of another grid.

    Points up to half a voxel beyond the outermost centres take the edge's value, as in ITK; points further out take
    `outside`.

    Args:
        volume: what to look at; bool volumes are interpolated as 0 and 1.
        onto: the grid; only its shape and affine count.
        interpolation: "linear" (averages where the step grows), "bspline" (cubic), "nearest".
        outside: value of points outside the volume, in the volume's unit.

    Returns:
        float32, or float64 for a float64 volume; "nearest" keeps the volume's dtype.
    """
    step = np.linalg.inv(volume.affine) @ onto.affine
    source, step = _needed_block(volume, onto.shape, step)
    if source is None:
        dtype = volume.array.dtype if interpolation == "nearest" else _float_of(volume.array)
        return onto.with_array(np.full(onto.shape, outside, dtype=dtype))
    axes = _parallel_axes(step, onto.shape)
    if axes is not None:
        return onto.with_array(_separable(source, onto.shape, step, axes, interpolation, outside))
    return onto.with_array(_oblique(source, onto.shape, step, interpolation, outside))


def mask_onto(mask: Volume, onto: Volume) -> Volume:
    """The mask on another grid: voxels at least half filled by it, which keeps its volume.

    Args:
        mask: voxels above 0 belong to it.
        onto: the grid; only its shape and affine count.

    Returns:
        A bool mask on that grid.

    References:
        IBSI reference manual, section 2.4: ROI masks are interpolated linearly and re-binarised at 0.5.
    """
    if mask.same_grid(onto):
        return onto.with_array(mask.array > 0)
    half = resample(mask.with_array(mask.array > 0), onto).array
    return onto.with_array(half >= 0.5 - 1e-4)


def mask_volume_ml(mask: Volume) -> float:
    """Volume of the mask's voxels in millilitres."""
    return float(np.count_nonzero(mask.array)) * mask.voxel_ml


def mask_center_mm(mask: Volume) -> tuple[float, float, float]:
    """The middle (x, y, z) of the mask's bounding box in LPS mm. The mask must not be empty."""
    index = np.argwhere(mask.array)
    x, y, z = mask.points_mm((index.min(axis=0) + index.max(axis=0)) / 2.0).tolist()
    return x, y, z


def _upright(spacing_mm: float) -> NDArray[np.float64]:
    """An affine whose array axes run along z, y, x."""
    affine = np.eye(4)
    affine[:3, :3] = np.eye(3)[::-1] * spacing_mm
    return affine


def _axes_to_zyx(affine: NDArray[np.float64]) -> tuple[tuple[int, ...], tuple[bool, ...]]:
    """(array axis that runs nearest along z, y, x; whether it runs backwards), one array axis each."""
    direction = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    order: list[int] = [-1, -1, -1]
    strength = np.abs(direction)
    for _ in range(3):
        world, axis = np.unravel_index(strength.argmax(), (3, 3))
        order[2 - world] = int(axis)
        strength[world, :] = -1.0
        strength[:, axis] = -1.0
    return tuple(order), tuple(bool(direction[2 - new, old] < 0) for new, old in enumerate(order))


def _block(volume: Volume, low: NDArray, high: NDArray) -> Volume:
    """A copy of the voxels low <= index < high."""
    affine = volume.affine.copy()
    affine[:3, 3] = volume.points_mm(low)
    return Volume(np.ascontiguousarray(volume.array[tuple(map(slice, low, high))]), affine)


def _float_of(array: NDArray) -> np.dtype:
    """The dtype of interpolated values."""
    return np.dtype(np.float64 if array.dtype == np.float64 else np.float32)


def _axis_positions(shape: Sequence[int], step: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    """Index along one source axis of every voxel of a grid."""
    k, j, i = (step[axis, n] * np.arange(shape[n]) for n in range(3))
    return step[axis, 3] + k[:, None, None] + j[None, :, None] + i[None, None, :]


def inside(region: Volume, volume: Volume) -> NDArray[np.bool_]:
    """Which voxel centres of the region lie within the volume's voxels, bool (z, y, x) of the region's shape.

    Args:
        region: a grid; only its shape and affine count.
        volume: likewise.
    """
    return _inside_steps(region.shape, np.linalg.inv(volume.affine) @ region.affine, volume.shape)


def _inside_steps(shape: Sequence[int], step: NDArray[np.float64], extent: Sequence[int]) -> NDArray[np.bool_]:
    """Which voxels of a grid fall into a source of the given extent."""
    inside = np.ones(tuple(shape), dtype=bool)
    for axis in range(3):
        position = _axis_positions(shape, step, axis)
        inside &= (position >= -0.5 - _EDGE) & (position <= extent[axis] - 0.5 + _EDGE)
    return inside


def _needed_block(
    volume: Volume, shape: Sequence[int], step: NDArray[np.float64]
) -> tuple[NDArray | None, NDArray[np.float64]]:
    """(the part of the array that a grid can touch, its index step); None when the grid lies outside."""
    ends = np.array([[k, j, i] for k in (0, 1) for j in (0, 1) for i in (0, 1)]) * (np.array(shape) - 1)
    index = ends @ step[:3, :3].T + step[:3, 3]
    reach = _SPLINE_REACH + np.linalg.norm(step[:3, :3], axis=1) * 2
    low = np.clip(np.floor(index.min(axis=0) - reach), 0, volume.shape).astype(int)
    high = np.clip(np.ceil(index.max(axis=0) + reach) + 1, 0, volume.shape).astype(int)
    if (low >= high).any():
        return None, step
    moved_step = step.copy()
    moved_step[:3, 3] -= low
    return volume.array[tuple(map(slice, low, high))], moved_step


def _parallel_axes(step: NDArray[np.float64], shape: Sequence[int]) -> tuple[int, ...] | None:
    """For each grid axis the source axis it runs along, or None when the grids are turned against each other."""
    linear = step[:3, :3] * np.array(shape)
    order = np.abs(linear).argmax(axis=0)
    if sorted(order.tolist()) != [0, 1, 2]:
        return None
    rest = np.abs(linear)
    rest[order, range(3)] = 0.0
    return tuple(order.tolist()) if rest.sum(axis=1).max() < _STRAIGHT else None


def _separable(source: NDArray, shape: Sequence[int], step: NDArray[np.float64], axes: Sequence[int],
               interpolation: Interpolation, outside: float) -> NDArray:
    """Resampling along one axis after the other: the grids are parallel.

    Weights are sparse for speed and for their one order of adding: BLAS rounds by how many threads it has.
    """
    values = source.transpose(axes)
    position = [step[old, 3] + step[old, new] * np.arange(shape[new]) for new, old in enumerate(axes)]
    ranges = [_inside_range(p, n) for p, n in zip(position, values.shape, strict=True)]
    inner = [p[r] for p, r in zip(position, ranges, strict=True)]
    dtype = values.dtype if interpolation == "nearest" else _float_of(values)
    result = np.full(tuple(shape), outside, dtype=dtype)
    if any(p.size == 0 for p in inner):
        return result
    if interpolation == "nearest":
        nearest = [np.clip(np.floor(p + 0.5 + _EDGE), 0, n - 1).astype(int)
                   for p, n in zip(inner, values.shape, strict=True)]
        result[tuple(ranges)] = values[np.ix_(*nearest)]
        return result
    weights = _spline_weights if interpolation == "bspline" else _overlap_weights
    z, y, x = (scipy.sparse.csr_array(weights(p, n).astype(dtype)) for p, n in zip(inner, values.shape, strict=True))
    if interpolation == "bspline":
        values = _prefiltered(values, dtype)
    planes = np.empty((len(values), y.shape[0], x.shape[0]), dtype=dtype)
    for plane, source_plane in zip(planes, values, strict=True):  # one by one: a whole-body CT is large
        plane[...] = (x @ (y @ source_plane.astype(dtype, copy=False)).T).T
    result[tuple(ranges)] = (z @ planes.reshape(len(planes), -1)).reshape(-1, *planes.shape[1:])
    return result


def _inside_range(position: NDArray[np.float64], n: int) -> slice:
    """The run of positions that lie within n voxels."""
    inside = np.flatnonzero((position >= -0.5 - _EDGE) & (position <= n - 0.5 + _EDGE))
    return slice(int(inside[0]), int(inside[-1]) + 1) if inside.size else slice(0, 0)


def _overlap_weights(position: NDArray[np.float64], n: int) -> NDArray[np.float64]:
    """(m, n) shares of the old voxels in a new one, at least one old voxel wide, normalised at the borders."""
    step = abs(position[1] - position[0]) if position.size > 1 else 1.0
    reach = (max(step, 1.0) + 1.0) / 2.0
    at = np.clip(position, 0, n - 1)
    weights = np.clip(reach - np.abs(at[:, None] - np.arange(n)), 0.0, 1.0)
    return weights / weights.sum(axis=1, keepdims=True)


def _spline_weights(position: NDArray[np.float64], n: int) -> NDArray[np.float64]:
    """(m, n) cubic B-spline weights of the coefficients, mirrored at the borders."""
    first = np.floor(position).astype(int) - 1
    weights = np.zeros((position.size, n))
    for tap in range(4):
        at = first + tap
        distance = np.abs(position - at)
        value = np.where(distance < 1, 2 / 3 - distance**2 + distance**3 / 2, np.maximum(2 - distance, 0) ** 3 / 6)
        np.add.at(weights, (np.arange(position.size), _mirror(at, n)), value)
    return weights


def _mirror(index: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """Indices reflected at the outermost voxels (not repeated)."""
    if n == 1:
        return np.zeros_like(index)
    index = np.abs(index) % (2 * n - 2)
    return np.minimum(index, 2 * n - 2 - index)


def _prefiltered(values: NDArray, dtype: np.dtype) -> NDArray:
    """Cubic B-spline coefficients of the values."""
    filtered: NDArray = scipy.ndimage.spline_filter(values.astype(np.float64), order=3, mode="mirror")
    return filtered.astype(dtype, copy=False)


def _oblique(source: NDArray, shape: Sequence[int], step: NDArray[np.float64],
             interpolation: Interpolation, outside: float) -> NDArray:
    """Resampling onto a grid that is turned against the source."""
    if interpolation == "nearest":
        values, order, dtype = source.astype(np.float64), 0, source.dtype
    else:
        values, order, dtype = source.astype(_float_of(source)), 1, _float_of(source)
        if interpolation == "bspline":
            values, order = _prefiltered(source, np.dtype(np.float64)), 3
        else:
            values = _smoothed(values, step)
    mode = "mirror" if order == 3 else "nearest"
    result = scipy.ndimage.affine_transform(values, step[:3, :3], step[:3, 3], output_shape=tuple(shape), order=order,
                                      mode=mode, prefilter=False, output=np.float64 if order == 0 else dtype)
    result[~_inside_steps(shape, step, source.shape)] = outside
    return np.rint(result).astype(dtype) if order == 0 and dtype.kind in "iub" else result.astype(dtype, copy=False)


def _smoothed(values: NDArray, step: NDArray[np.float64]) -> NDArray:
    """The values blurred by the variance that averaging over a larger voxel would add."""
    growth = np.linalg.norm(step[:3, :3], axis=1)
    sigma = np.sqrt(np.maximum(growth**2 - 1.0, 0.0) / 12.0)
    return scipy.ndimage.gaussian_filter(values, sigma, mode="nearest") if sigma.max() > 0.1 else values
