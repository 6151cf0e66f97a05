"""Size and form of a region (PyRadiomics' shape; IBSI's morphology)."""

from __future__ import annotations

from math import nan, pi, sqrt

import numpy as np
from numpy.typing import NDArray

from mtdlr.texture.compiled import compiled, entry
from mtdlr.texture.mesh import surface

Spacing = tuple[float, float, float]


def shape(mask: NDArray[np.bool_], spacing_mm: Spacing) -> dict[str, float]:
    """The 17 shape features of a region, in mm, mm2, mm3.

    Args:
        mask: (z, y, x), cropped to the region, at least one voxel.
        spacing_mm: (z, y, x).

    Elongation and Flatness of a region without extent (one voxel) are nan.

    >>> found = shape(np.ones((4, 4, 4), bool), (1.0, 1.0, 1.0))
    >>> found["VoxelVolume"], round(found["Maximum3DDiameter"], 3), round(found["Elongation"], 3)
    (64.0, 5.831, 1.0)
    """
    padded = np.pad(mask, 1)
    area, volume = surface(padded, spacing_mm)
    ball = (36 * pi * volume**2) ** (1 / 3)
    least, minor, major = _axis_variances(mask, spacing_mm)
    widest, diameters = _diameters(padded, np.array(spacing_mm))
    return {
        "Compactness1": volume / (area**1.5 * sqrt(pi)), "Compactness2": 36 * pi * volume**2 / area**3,
        "Elongation": sqrt(minor / major) if major else nan, "Flatness": sqrt(least / major) if major else nan,
        "LeastAxisLength": 4 * sqrt(least), "MajorAxisLength": 4 * sqrt(major),
        "Maximum2DDiameterColumn": diameters[1], "Maximum2DDiameterRow": diameters[2],
        "Maximum2DDiameterSlice": diameters[0], "Maximum3DDiameter": widest, "MeshVolume": volume,
        "MinorAxisLength": 4 * sqrt(minor), "SphericalDisproportion": area / ball, "Sphericity": ball / area,
        "SurfaceArea": area, "SurfaceVolumeRatio": area / volume,
        "VoxelVolume": float(np.count_nonzero(mask)) * float(np.prod(spacing_mm)),
    }


def _axis_variances(mask: NDArray[np.bool_], spacing_mm: Spacing) -> tuple[float, float, float]:
    """Variances of the voxel positions along the principal axes, increasing."""
    sums, products = np.zeros(3, np.int64), np.zeros((3, 3), np.int64)
    n = _moments(np.ascontiguousarray(mask).view(np.uint8), sums, products)
    spread = (n * products - np.outer(sums, sums)) / n**2
    values = np.linalg.eigvalsh(spread * np.outer(spacing_mm, spacing_mm))
    least, minor, major = np.where(values < 1e-10 * values[-1], 0.0, values).tolist()
    return least, minor, major


@entry("u1[:,:,::1], i8[::1], i8[:,::1]")
def _moments(mask: NDArray[np.uint8], sums: NDArray[np.int64], products: NDArray[np.int64]) -> int:
    """Add the indices of the region's voxels to `sums` and their products to `products`; the voxel count."""
    total = 0
    for z in range(mask.shape[0]):
        for y in range(mask.shape[1]):
            n, along, squares = 0, 0, 0
            for x in range(mask.shape[2]):
                if mask[z, y, x]:
                    n += 1
                    along += x
                    squares += x * x
            total += n
            for axis, first in ((0, n * z), (1, n * y), (2, along)):
                sums[axis] += first
                products[axis, 0] += first * z
                products[axis, 1] += first * y
            products[0, 2] += along * z
            products[1, 2] += along * y
            products[2, 2] += squares
    return total


def _diameters(mask: NDArray[np.bool_], spacing: NDArray[np.float64]) -> tuple[float, tuple[float, ...]]:
    """Largest distance between face centres of the surface, in space and within planes across each axis.

    A corner of the hull in space is a corner of the hull in each of the three planes through it: few others are.
    """
    flat, corners, grid = [], np.empty(0, np.int64), tuple(2 * n for n in mask.shape)
    for axis in range(3):
        order = [axis, *(a for a in range(3) if a != axis)]
        planes = np.ascontiguousarray(mask.transpose(order)).view(np.uint8)
        hulls, square = _plane_hulls(planes, spacing[order])
        flat.append(sqrt(square))
        half_voxels = np.rint(2 * hulls / spacing[order]).astype(np.int64)[:, np.argsort(order)]
        places = np.ravel_multi_index(tuple(half_voxels.T), grid)
        corners = np.intersect1d(corners, places) if axis else places
    points = np.ascontiguousarray(np.transpose(np.unravel_index(corners, grid))) / 2 * spacing
    return sqrt(_largest_square_distance(points, 0, len(points))), tuple(flat)


@entry("f8[:,::1], i8, i8")
def _largest_square_distance(points: NDArray[np.float64], start: int, stop: int) -> float:
    """The largest squared distance between any two of points[start:stop]."""
    largest = 0.0
    for i in range(start, stop):
        for j in range(i + 1, stop):
            d0, d1, d2 = points[i, 0] - points[j, 0], points[i, 1] - points[j, 1], points[i, 2] - points[j, 2]
            largest = max(largest, d0 * d0 + d1 * d1 + d2 * d2)
    return largest


@entry("u1[:,:,::1], f8[::1]")
def _plane_hulls(mask: NDArray[np.uint8], spacing: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """(face centres that are corners of their plane's convex hull, the largest squared distance in one plane).

    Planes run through voxel centres and through the faces between them. In each plane only the outermost faces of
    every row can be hull corners, and rows come sorted, so that Andrew's monotone chain needs one sweep.
    """
    nz, ny, nx = mask.shape
    hulls = np.empty((1024, 3))
    used: int = np.int64(0)  # type: ignore[assignment] # its width is what numba compiles
    largest = 0.0
    low, high = np.empty(2 * ny, np.int64), np.empty(2 * ny, np.int64)
    for half in range(2 * nz - 1):
        low[:], high[:] = 4 * nx, -1
        _outermost_faces(mask, half, low, high)
        if used + 4 * ny + 4 > len(hulls):
            grown = np.empty((2 * len(hulls) + 4 * ny, 3))
            for i in range(used):  # numba would compile a message for slices of other shapes: 5 s of a first call
                grown[i, 0], grown[i, 1], grown[i, 2] = hulls[i, 0], hulls[i, 1], hulls[i, 2]
            hulls = grown
        stop = _chain(low, high, half, spacing, hulls, used)
        largest = max(largest, _largest_square_distance(hulls, used, stop))
        used = stop
    return hulls[:used], largest


@compiled
def _outermost_faces(mask: NDArray[np.uint8], half: int, low: NDArray[np.int64], high: NDArray[np.int64]) -> None:
    """Set the first and last face centre of each row of plane `half`; every coordinate in half voxels."""
    ny, nx = mask.shape[1:]
    z = half // 2
    for y in range(ny):
        for x in range(nx):
            inside = mask[z, y, x]
            if half % 2:
                if inside != mask[z + 1, y, x]:
                    low[2 * y], high[2 * y] = min(low[2 * y], 2 * x), max(high[2 * y], 2 * x)
                continue
            if x + 1 < nx and inside != mask[z, y, x + 1]:
                low[2 * y], high[2 * y] = min(low[2 * y], 2 * x + 1), max(high[2 * y], 2 * x + 1)
            if y + 1 < ny and inside != mask[z, y + 1, x]:
                row = 2 * y + 1
                low[row], high[row] = min(low[row], 2 * x), max(high[row], 2 * x)


@compiled
def _chain(low: NDArray[np.int64], high: NDArray[np.int64], half: int, spacing: NDArray[np.float64],
           hulls: NDArray[np.float64], used: int) -> int:
    """Append the plane's hull corners to `hulls`; the new count."""
    for side, ends in ((1, low), (-1, high)):
        first = used
        for row in range(len(ends)):
            if high[row] < 0:
                continue
            y, x = row / 2 * spacing[1], ends[row] / 2 * spacing[2]
            while used - first >= 2:
                y0, x0, y1, x1 = hulls[used - 2, 1], hulls[used - 2, 2], hulls[used - 1, 1], hulls[used - 1, 2]
                if side * ((y1 - y0) * (x - x0) - (x1 - x0) * (y - y0)) > 0:
                    break
                used -= 1
            hulls[used, 0], hulls[used, 1], hulls[used, 2] = half / 2 * spacing[0], y, x
            used += 1
    return used
