"""Size and form of a region that lies in one plane (PyRadiomics' shape2D)."""

from __future__ import annotations

from math import hypot, nan, pi, sqrt

import numpy as np
from numpy.typing import NDArray

from mtdlr.texture.morphology import _plane_hulls


def outline(mask: NDArray[np.bool_], spacing_mm: tuple[float, float]) -> dict[str, float]:
    """The 10 features of a plane region's outline, in mm and mm2.

    Args:
        mask: (y, x), at least one voxel.
        spacing_mm: (y, x).

    The outline joins the middles of the faces between voxels inside and outside (marching squares); two voxels that
    touch at a corner are not joined. Elongation of one voxel is nan.

    >>> found = outline(np.ones((3, 3), bool), (1.0, 1.0))
    >>> found["PixelSurface"], found["MeshSurface"], round(found["Perimeter"], 3)
    (9.0, 8.5, 10.828)
    """
    padded = np.pad(mask, 1)
    perimeter, surface = _marching_squares(padded, spacing_mm)
    minor, major = _variances(mask, spacing_mm)
    _, square = _plane_hulls(padded[None].view(np.uint8), np.array([1.0, *spacing_mm]))
    circle = 2 * sqrt(pi * surface)
    return {
        "Elongation": sqrt(minor / major) if major else nan, "MajorAxisLength": 4 * sqrt(major),
        "MaximumDiameter": sqrt(square), "MeshSurface": surface, "MinorAxisLength": 4 * sqrt(minor),
        "Perimeter": perimeter, "PerimeterSurfaceRatio": perimeter / surface,
        "PixelSurface": float(np.count_nonzero(mask)) * spacing_mm[0] * spacing_mm[1],
        "SphericalDisproportion": perimeter / circle, "Sphericity": circle / perimeter,
    }


def _marching_squares(padded: NDArray[np.bool_], spacing_mm: tuple[float, float]) -> tuple[float, float]:
    """(length of the outline, area within it): each square of four voxel centres gives its part."""
    a, b, c, d = padded[:-1, :-1], padded[:-1, 1:], padded[1:, 1:], padded[1:, :-1]
    inside = a.astype(int) + b + c + d
    corner = int(np.count_nonzero((inside == 1) | (inside == 3)))
    crossed = int(np.count_nonzero((inside == 2) & (a == c)))
    rows = int(np.count_nonzero((inside == 2) & (a == b)))  # the outline runs along x
    columns = int(np.count_nonzero((inside == 2) & (a == d)))
    dy, dx = spacing_mm
    length = (corner + 2 * crossed) * hypot(dy, dx) / 2 + rows * dx + columns * dy
    eighths = (np.count_nonzero(inside == 1) + 7 * np.count_nonzero(inside == 3) + 2 * crossed
               + 4 * (rows + columns) + 8 * np.count_nonzero(inside == 4))
    return length, float(eighths) / 8 * dy * dx


def _variances(mask: NDArray[np.bool_], spacing_mm: tuple[float, float]) -> tuple[float, float]:
    """Variances of the voxel positions along the principal axes, increasing."""
    places = np.argwhere(mask) * np.array(spacing_mm)
    values = np.linalg.eigvalsh(np.atleast_2d(np.cov(places.T, bias=True)))
    minor, major = np.where(values < 1e-10 * values[-1], 0.0, values).tolist()
    return minor, major
