"""A canvas in patient space: tissue is painted on it as soft-edged shapes, later ones over earlier ones."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import convolve1d

from mtdlr.volume import Volume

Point = tuple[float, float, float]
Window = tuple[slice, slice, slice]


@dataclass(frozen=True)
class Tissue:
    """What a scanner sees of a tissue: CT number in HU and tracer uptake in SUV (g/ml)."""

    hu: float
    suv: float


@dataclass(frozen=True)
class Ellipsoid:
    """An ellipsoid: centre and half-axes (x, y, z) in mm of the canonical body; boxy ones are superellipsoids."""

    tissue: Tissue
    center_mm: Point
    radii_mm: Point
    boxy: bool = False


@dataclass(frozen=True)
class Capsule:
    """A round tube between two points (x, y, z) in mm of the canonical body."""

    tissue: Tissue
    start_mm: Point
    end_mm: Point
    radius_mm: float


Shape = Ellipsoid | Capsule


@dataclass(frozen=True)
class Pose:
    """How the canonical body (origin: middle of the nasopharynx) lies in the scanner: p -> matrix @ p + shift."""

    matrix: NDArray[np.float64]
    shift_mm: NDArray[np.float64]

    def __call__(self, point_mm: Point | NDArray[np.float64]) -> NDArray[np.float64]:
        return self.matrix @ np.asarray(point_mm, dtype=float) + self.shift_mm

    @property
    def scale(self) -> float:
        """Mean magnification."""
        return float(np.cbrt(np.linalg.det(self.matrix)))


@dataclass(frozen=True, eq=False)
class Grid:
    """Voxel centres along the patient's axes: shape and spacing in (z, y, x), origin in (x, y, z)."""

    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    origin_mm: Point

    @classmethod
    def around(cls, center_mm: NDArray[np.float64], size_mm: Point, spacing_mm: Point) -> Grid:
        """The grid of a given size about a centre.

        Args:
            center_mm: (x, y, z), LPS mm.
            size_mm: (z, y, x) in mm.
            spacing_mm: (z, y, x) voxel size in mm.
        """
        shape = tuple(max(1, round(size / step)) for size, step in zip(size_mm, spacing_mm, strict=True))
        half = [(n - 1) * step / 2 for n, step in zip(shape, spacing_mm, strict=True)][::-1]
        x, y, z = (center_mm - half).tolist()
        return cls((shape[0], shape[1], shape[2]), spacing_mm, (x, y, z))

    def part(self, window: Window) -> Grid:
        """The grid of a window's voxels."""
        z, y, x = (self.origin_mm[2 - axis] + w.start * self.spacing_mm[axis] for axis, w in enumerate(window))
        nz, ny, nx = (w.stop - w.start for w in window)
        return Grid((nz, ny, nx), self.spacing_mm, (x, y, z))

    def points_mm(self, indices: NDArray) -> NDArray[np.float64]:
        """Points (..., 3) as (x, y, z) of indices (..., 3) in (z, y, x)."""
        return np.asarray((indices * self.spacing_mm)[..., ::-1] + self.origin_mm)

    def volume(self, array: NDArray) -> Volume:
        """The array as a volume on this grid."""
        return Volume.on_grid(array, self.spacing_mm, self.origin_mm)

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel in millilitres."""
        return float(np.prod(self.spacing_mm)) / 1000.0

    def window(self, low_mm: NDArray[np.float64], high_mm: NDArray[np.float64]) -> Window:
        """The voxels inside a box, as slices (z, y, x); empty ones where the box lies outside the grid.

        Args:
            low_mm: (x, y, z) of its lowest corner, LPS mm.
            high_mm: (x, y, z) of its highest corner, LPS mm.
        """
        origin, step = np.array(self.origin_mm[::-1]), np.array(self.spacing_mm)
        first = np.maximum(np.floor((low_mm[::-1] - origin) / step).astype(int), 0)
        last = np.minimum(np.ceil((high_mm[::-1] - origin) / step).astype(int) + 1, self.shape)
        z, y, x = (slice(int(a), int(max(a, b))) for a, b in zip(first, last, strict=True))
        return z, y, x

    def offsets(self, window: Window, point_mm: NDArray[np.float64]) -> tuple[NDArray, NDArray, NDArray]:
        """Open mesh (dx, dy, dz) in mm from a point to the voxels of a window, broadcasting to (z, y, x).

        Args:
            window: slices (z, y, x) of the grid.
            point_mm: (x, y, z), LPS mm.
        """
        z, y, x = (
            (self.origin_mm[2 - axis] + self.spacing_mm[axis] * np.arange(part.start, part.stop, dtype=np.float32)
             - np.float32(point_mm[2 - axis])).astype(np.float32)
            for axis, part in enumerate(window)
        )
        return x[None, None, :], y[None, :, None], z[:, None, None]


@dataclass(frozen=True, eq=False)
class Canvas:
    """CT numbers and uptake (z, y, x) being painted on one grid."""

    grid: Grid
    hu: NDArray[np.float32]
    suv: NDArray[np.float32]

    @classmethod
    def of_air(cls, grid: Grid) -> Canvas:
        """An empty canvas."""
        return cls(grid, np.full(grid.shape, -1000.0, np.float32), np.zeros(grid.shape, np.float32))

    def paint(self, shapes: Iterable[Shape], pose: Pose) -> None:
        """Paint shapes over what is there, with edges one voxel soft.

        Args:
            shapes: in order; a later one covers an earlier one.
            pose: where the body lies in the scanner.
        """
        softness = np.float32(np.mean(self.grid.spacing_mm))
        for shape in shapes:
            window, distance = depth(shape, pose, self.grid)
            self.blend(window, np.clip(0.5 + distance / softness, 0, 1), shape.tissue.hu, shape.tissue.suv)

    def blend(self, window: Window, share: NDArray, hu: float | NDArray, suv: float | NDArray) -> None:
        """Replace a share of every voxel of a window by a tissue.

        Args:
            window: slices (z, y, x) of the grid.
            share: 0 to 1, of the window's shape.
            hu: CT number, for all voxels or each.
            suv: uptake in g/ml, for all voxels or each.
        """
        for layer, value in ((self.hu, hu), (self.suv, suv)):
            layer[window] += share * (np.asarray(value, np.float32) - layer[window])


def depth(shape: Shape, pose: Pose, grid: Grid) -> tuple[Window, NDArray[np.float32]]:
    """How deep the voxels about a shape lie inside its surface.

    Args:
        shape: an ellipsoid or a capsule.
        pose: where the body lies in the scanner.
        grid: the voxels.

    Returns:
        (window, depth): slices (z, y, x) about the shape, and mm there: positive inside, correct to first order near
        the surface.
    """
    return _ellipsoid_depth(shape, pose, grid) if isinstance(shape, Ellipsoid) else _capsule_depth(shape, pose, grid)


def _ellipsoid_depth(shape: Ellipsoid, pose: Pose, grid: Grid) -> tuple[Window, NDArray[np.float32]]:
    """Mean radius times how far the scaled radius stays below 1."""
    frame = pose.matrix @ np.diag(shape.radii_mm)
    center = pose(shape.center_mm)
    reach = np.linalg.norm(frame, axis=1) + 2 * max(grid.spacing_mm)
    window = grid.window(center - reach, center + reach)
    mean_radius = np.float32(np.cbrt(np.prod(shape.radii_mm)) * pose.scale)
    power = 4 if shape.boxy else 2
    return window, (1 - scaled_radius(grid, window, center, np.linalg.inv(frame), power=power)) * mean_radius


def scaled_radius(
    grid: Grid, window: Window, center_mm: NDArray[np.float64], inverse_frame: NDArray, *, power: int = 2
) -> NDArray[np.float32]:
    """The p-norm of inverse_frame @ (point - center) over a window: 1 on the surface of the ellipsoid.

    Args:
        grid: the voxels.
        window: slices (z, y, x) of the grid.
        center_mm: (x, y, z), LPS mm.
        inverse_frame: (3, 3), 1/mm; takes the ellipsoid to the unit ball.
        power: p, 2 or 4; 4 gives a box with rounded edges.

    Returns:
        (z, y, x) of the window's shape.
    """
    dx, dy, dz = grid.offsets(window, center_mm)
    total = np.float32(0)
    for a, b, c in inverse_frame.astype(np.float32):
        square = np.square((a * dx + b * dy) + c * dz)
        total = total + (square if power == 2 else np.square(square))
    root = np.sqrt(total)
    return np.asarray(root if power == 2 else np.sqrt(root), np.float32)


def _capsule_depth(shape: Capsule, pose: Pose, grid: Grid) -> tuple[Window, NDArray[np.float32]]:
    """Radius minus the distance to the segment."""
    start, end = pose(shape.start_mm), pose(shape.end_mm)
    radius = shape.radius_mm * pose.scale
    reach = radius + 2 * max(grid.spacing_mm)
    window = grid.window(np.minimum(start, end) - reach, np.maximum(start, end) + reach)
    dx, dy, dz = grid.offsets(window, start)
    along = (end - start).astype(np.float32)
    t = np.clip((along[0] * dx + along[1] * dy + along[2] * dz) / np.float32(along @ along + 1e-9), 0, 1)
    squares = np.square(dx - t * along[0]) + np.square(dy - t * along[1]) + np.square(dz - t * along[2])
    return window, np.float32(radius) - np.sqrt(squares)


def smooth_noise(
    shape: tuple[int, int, int], spacing_mm: Point, fwhm_mm: float, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Gaussian noise smoothed by a Gaussian, of mean 0 and variance 1; the variance is larger at the border.

    Args:
        shape: (z, y, x) voxels.
        spacing_mm: (z, y, x) voxel size in mm.
        fwhm_mm: full width at half maximum of the Gaussian that smooths white noise, >= 0.
        rng: source of randomness.
    """
    from_fwhm = [fwhm_mm / 2.3548 / step for step in spacing_mm]
    field = rng.standard_normal(shape, dtype=np.float32)
    blurred = blur(field, from_fwhm)
    scale = np.prod([np.sqrt(np.sum(_kernel(sigma) ** 2)) for sigma in from_fwhm])
    return np.asarray(blurred / np.float32(scale), np.float32)


def blur(array: NDArray[np.float32], sigma_voxels: Iterable[float]) -> NDArray[np.float32]:
    """The array convolved with a Gaussian along each axis; beyond its border the edge's value continues.

    Args:
        array: (z, y, x).
        sigma_voxels: one SD for each axis, in voxels; up to 0.2 the axis is left as it is.
    """
    for axis, sigma in enumerate(sigma_voxels):
        if sigma > 0.2:
            array = convolve1d(array, _kernel(sigma), axis=axis, mode="nearest")
    return array


def _kernel(sigma: float) -> NDArray[np.float64]:
    """A normalised Gaussian cut at three standard deviations."""
    if sigma <= 0.2:
        return np.ones(1)
    reach = int(np.ceil(3 * sigma))
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    return np.asarray(weights / weights.sum())
