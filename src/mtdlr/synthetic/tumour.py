"""The disease: a primary at the nasopharynx, its extension beyond the contour, neck nodes, and an observer's contour.

Every lesion is a set of the lowest-scored voxels around its centre, so its volume is the wanted one to the voxel.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mtdlr.synthetic.canvas import Canvas, Grid, Pose, Window, scaled_radius, smooth_noise
from mtdlr.synthetic.layout import BREAKOUTS, LEVELS, SPREAD, Layout, nodes_of
from mtdlr.synthetic.truth import Disease

TUMOUR_HU, INVASION_HU, NODE_HU = 66.0, 62.0, 58.0
INVASION_UPTAKE = 0.6
NODE_UPTAKE = 0.75
TEXTURE_FWHM_MM = 13.0


@dataclass(frozen=True, eq=False)
class Lesions:
    """Masks (z, y, x) on one grid; `invasion` and `nodes` share no voxel with `primary` or `manual`."""

    primary: NDArray[np.bool_]
    manual: NDArray[np.bool_]
    invasion: NDArray[np.bool_]
    nodes: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Lobule:
    """A star-shaped lump: `score` is the distance from `center_mm` in its own metric; the mask is score <= level."""

    window: Window
    center_mm: NDArray[np.float64]
    score: NDArray[np.float32]
    mask: NDArray[np.bool_]
    level: np.float32

    def share(self, softness_mm: float) -> NDArray[np.float32]:
        """How much of each voxel it fills, with an edge of the given width."""
        return np.asarray(np.clip(0.5 + (self.level - self.score) / np.float32(softness_mm), 0, 1), np.float32)


def grow(canvas: Canvas, disease: Disease, pose: Pose, rng: np.random.Generator) -> Lesions:
    """Paint the disease on the canvas and return its masks.

    Args:
        canvas: the healthy head, painted over here.
        disease: sizes and strengths.
        pose: where the head lies.
        rng: source of shape, side and texture.
    """
    grid, softness = canvas.grid, float(np.mean(canvas.grid.spacing_mm))
    side, layout = rng.choice((-1.0, 1.0)), disease.layout
    side = side if layout is None else float(layout.side)
    taken = np.zeros(grid.shape, dtype=bool)
    center = pose((side * 6.0, 2.0, -5.0 + (layout.height_mm if layout else 0.0))) + rng.normal(0, 2.0, 3)
    primary = _lobule(grid, center, disease.volume_ml, taken, rng=rng, stretch=_stretch(layout, pose),
                      irregularity=0.14 * (np.exp(0.4 * layout.lobulation) if layout else 1.0))
    _mark(taken, primary)
    invasion = _breakout(primary, disease, pose, taken, grid, rng)
    nodes = _nodes(disease, side, pose, taken, grid, rng)
    canvas.blend(invasion.window, invasion.share(softness), INVASION_HU, INVASION_UPTAKE * disease.uptake_suv)
    activity = NODE_UPTAKE * disease.uptake_suv * (np.exp(0.3 * layout.node_uptake) if layout else 1.0)
    for node in nodes:
        uptake = activity * rng.uniform(0.85, 1.15)
        canvas.blend(node.window, node.share(softness), NODE_HU, uptake)
    _paint_primary(canvas, primary, disease, pose, rng)
    outside = [_full(grid, [invasion]), _full(grid, nodes)]
    manual = _observed(primary, grid, rng) & ~(outside[0] | outside[1])
    return Lesions(_full(grid, [primary]), manual, *outside)


def _lobule(
    grid: Grid, center_mm: NDArray[np.float64], volume_ml: float, taken: NDArray[np.bool_], *,
    irregularity: float, rng: np.random.Generator, stretch: NDArray[np.float64] | None = None
) -> Lobule:
    """A lump of the given volume in voxels not yet taken: an ellipsoid with bumps, stretched on request."""
    radius = (volume_ml * 750 / np.pi) ** (1 / 3)
    axes = rng.uniform(0.8, 1.25, 3)
    frame = np.linalg.qr(rng.standard_normal((3, 3)))[0] * (axes / np.cbrt(axes.prod()))
    widest = 1.0
    if stretch is not None:
        frame, widest = stretch @ frame, float(np.linalg.norm(stretch, 2))
    reach = 1.7 * widest * radius + 2 * max(grid.spacing_mm) + (6.0 if taken.any() else 0.0)
    window = grid.window(center_mm - reach, center_mm + reach)
    score = scaled_radius(grid, window, center_mm, np.linalg.inv(frame))
    score = score / (1 + irregularity * np.clip(_bumps(grid, window, center_mm, rng), -2.5, 2.5))
    free = np.where(taken[window], np.float32(np.inf), score)
    count = min(max(1, round(volume_ml / grid.voxel_ml)), int(np.isfinite(free).sum()))
    level = np.partition(free, count - 1, axis=None)[count - 1]
    return Lobule(window, center_mm, score, free <= level, level)


def _stretch(layout: Layout | None, pose: Pose) -> NDArray[np.float64] | None:
    """How the primary is stretched along the body and from left to right; its volume stays."""
    if layout is None:
        return None
    along, across = np.exp(0.22 * layout.elongation), np.exp(0.2 * layout.flatness)
    axes = np.diag([across / np.sqrt(along), 1 / (across * np.sqrt(along)), along])
    return np.asarray(pose.matrix @ axes @ np.linalg.inv(pose.matrix))


def _bumps(
    grid: Grid, window: Window, center_mm: NDArray[np.float64], rng: np.random.Generator, waves: int = 8
) -> NDArray[np.float32]:
    """A smooth random function of the direction from the centre, mean 0 and variance near 1."""
    dx, dy, dz = grid.offsets(window, center_mm)
    inverse_length = 1 / np.sqrt(np.square(dx) + np.square(dy) + np.square(dz) + np.float32(1e-3))
    total = np.zeros(inverse_length.shape, np.float32)
    for a, b, c in rng.normal(0, 2.6, (waves, 3)).astype(np.float32):
        total += np.cos((a * dx + b * dy + c * dz) * inverse_length + np.float32(rng.uniform(0, 2 * np.pi)))
    return total * np.float32(np.sqrt(2 / waves))


def _breakout(
    primary: Lobule, disease: Disease, pose: Pose, taken: NDArray[np.bool_], grid: Grid, rng: np.random.Generator
) -> Lobule:
    """The extension: a lump on the primary's surface, in the tissue around it."""
    way, side, layout = int(rng.integers(len(BREAKOUTS))), rng.choice((-1.0, 1.0)), disease.layout
    if layout is not None:
        way, side = layout.breakout, float(layout.breakout_side)
    direction = np.array(BREAKOUTS[way]) * (side, 1.0, 1.0)
    direction = pose.matrix @ direction / np.linalg.norm(pose.matrix @ direction)
    surface = primary.center_mm + direction * _radius_along(primary, direction, grid)
    along = None if layout is None else np.eye(3) + np.outer(direction, direction) * (np.exp(0.3 * layout.reach) - 1)
    lump = _lobule(grid, surface, disease.invasion_ml, taken, irregularity=0.12, rng=rng, stretch=along)
    _mark(taken, lump)
    return lump


def _radius_along(lump: Lobule, direction: NDArray[np.float64], grid: Grid) -> float:
    """Distance in mm from a lump's centre to its furthest voxel within 25 degrees of a direction."""
    dx, dy, dz = grid.offsets(lump.window, lump.center_mm)
    length = np.sqrt(np.square(dx) + np.square(dy) + np.square(dz))
    along = direction[0] * dx + direction[1] * dy + direction[2] * dz
    near = lump.mask & (along > 0.9 * length)
    return float(length[near].max()) if near.any() else 0.0


def _nodes(
    disease: Disease, side: float, pose: Pose, taken: NDArray[np.bool_], grid: Grid, rng: np.random.Generator
) -> list[Lobule]:
    """Neck nodes of the N stage, on the primary's side first, marked as taken."""
    nodes: list[Lobule] = []
    patterns = SPREAD[disease.n_stage] if disease.node_ml > 0 else ((),)
    drawn = patterns[rng.integers(len(patterns))]
    if disease.layout is not None and disease.node_ml > 0:
        drawn = nodes_of(disease.n_stage, disease.layout.pattern)
    for level, same_side, share in drawn:
        x, y, z = LEVELS[level]
        center = pose((x * side * same_side, y, z)) + rng.normal(0, 2.5, 3)
        nodes.append(_lobule(grid, center, share * disease.node_ml, taken, irregularity=0.07, rng=rng))
        _mark(taken, nodes[-1])
    return nodes


def _paint_primary(
    canvas: Canvas, primary: Lobule, disease: Disease, pose: Pose, rng: np.random.Generator
) -> None:
    """Texture and a necrotic core whose strength grows with the latent heterogeneity; mean uptake as wanted."""
    grid, strength = canvas.grid, 1 / (1 + np.exp(-1.3 * disease.heterogeneity))
    texture = smooth_noise(primary.mask.shape, grid.spacing_mm, TEXTURE_FWHM_MM, rng)
    texture = (texture - texture[primary.mask].mean()) / texture[primary.mask].std()
    uptake = np.clip(1 + (0.03 + 0.5 * strength) * texture, 0.15, None)
    core = _core_share(primary, grid, volume_share=0.03 + 0.35 * strength, rng=rng)
    uptake *= 1 - 0.85 * strength * core
    if disease.layout is not None:
        uptake *= _pattern(primary, disease.layout, pose, grid)
    uptake *= disease.uptake_suv / uptake[primary.mask].mean()
    hu = TUMOUR_HU + 6 * strength * texture - 38 * strength * core
    canvas.blend(primary.window, primary.share(float(np.mean(grid.spacing_mm))), hu, uptake)


def _pattern(primary: Lobule, layout: Layout, pose: Pose, grid: Grid) -> NDArray[np.float32]:
    """Factor on the primary's uptake: up or down towards the head, and in its shell over its middle."""
    dx, dy, dz = grid.offsets(primary.window, primary.center_mm)
    head = pose.matrix[:, 2] / np.linalg.norm(pose.matrix[:, 2])
    height = np.clip((head[0] * dx + head[1] * dy + head[2] * dz) / float(primary.level), -1.5, 1.5)
    depth = np.clip(primary.score / primary.level, 0, 1.2)
    factor = np.exp(0.3 * layout.slope * height + 0.3 * layout.rim * (2 * np.square(depth) - 1))
    return np.asarray(factor, np.float32)


def _core_share(
    primary: Lobule, grid: Grid, *, volume_share: float, rng: np.random.Generator
) -> NDArray[np.float32]:
    """How much of each voxel is necrotic: the given share of the primary, off its centre, with a soft rim."""
    wander = rng.normal(0, 0.12 * float(primary.level), 3)
    dx, dy, dz = grid.offsets(primary.window, primary.center_mm + wander)
    depth = np.sqrt(np.square(dx) + np.square(dy) + np.square(dz)) / (
        1 + 0.15 * np.clip(_bumps(grid, primary.window, primary.center_mm, rng), -2.5, 2.5))
    edge = np.quantile(depth[primary.mask], volume_share)
    return np.asarray(np.clip(0.5 + (edge - depth) / 4.0, 0, 1), np.float32)


def _observed(primary: Lobule, grid: Grid, rng: np.random.Generator) -> NDArray[np.bool_]:
    """The primary as an observer contours it: too large or too small, and off here and there."""
    bias = np.clip(rng.normal(0.0, 0.06), -0.10, 0.12)
    error = bias + 0.09 * np.clip(_bumps(grid, primary.window, primary.center_mm, rng), -2.0, 2.0)
    mask = np.zeros(grid.shape, dtype=bool)
    mask[primary.window] = primary.score <= primary.level * (1 + error)
    return mask


def _mark(taken: NDArray[np.bool_], lump: Lobule) -> None:
    """Claim a lump's voxels."""
    taken[lump.window] |= lump.mask


def _full(grid: Grid, lumps: list[Lobule]) -> NDArray[np.bool_]:
    """The lumps as one mask of the whole grid."""
    mask = np.zeros(grid.shape, dtype=bool)
    for lump in lumps:
        _mark(mask, lump)
    return mask
