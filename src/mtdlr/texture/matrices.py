"""Counting grey-level patterns: the loops over voxels, compiled.

Every kernel walks the rows of a padded, flattened volume of compact grey levels (uint16: 0 outside the region, 1..K
inside), so that a neighbour is one addition away and never needs a bounds check. Each kernel has exactly one signature:
compiled code is cached beside this file, and processes that compile it at the same moment write the same content.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from mtdlr.texture.compiled import compiled, entry
from mtdlr.texture.discretise import Discretised

Levels = NDArray[np.uint16]
Index = NDArray[np.int64]
Step = tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class LevelMap:
    """The grey levels of a region where they lie.

    Args:
        flat: padded volume of compact levels, flattened.
        gray: (K + 1,) bin number of each compact level, gray[0] = 0.
        counts: (K + 1,) voxels of each compact level.
        extent: of the region's bounding box, by axis of the map.
        axes: which array axis each axis of the map is; the one across which there are no neighbours comes first.
        planar: there are no neighbours across the first axis.
        strides: what one step along each axis adds to a flat index.
        rows: flat index of the first voxel of each box row that holds region voxels.
    """

    flat: Levels
    gray: Index
    counts: Index
    extent: tuple[int, int, int]
    axes: tuple[int, int, int]
    planar: bool
    strides: Index
    rows: Index

    def linear(self, steps: list[Step]) -> Index:
        """Flat index offsets of steps (z, y, x)."""
        return np.array(steps, dtype=np.int64).reshape(-1, 3) @ self.strides


def level_map(found: Discretised, inside: NDArray[np.bool_], reach: int, plane_axis: int | None = None) -> LevelMap:
    """The level map of a discretised region.

    Args:
        found: grey levels of the region's voxels, in the mask's order.
        inside: (z, y, x), the region in its bounding box.
        reach: largest neighbour distance in voxels.
        plane_axis: array axis across which there are no neighbours.
    """
    axes = {0: (0, 1, 2), 1: (1, 0, 2), 2: (2, 0, 1)}[plane_axis or 0]
    levels = np.zeros(tuple(n + 2 * reach for n in inside.shape), np.uint16)
    levels[tuple(slice(reach, reach + n) for n in inside.shape)][inside] = found.level
    levels, turned = np.ascontiguousarray(levels.transpose(axes)), inside.transpose(axes)
    strides = np.array([levels.shape[1] * levels.shape[2], levels.shape[2], 1])
    rows = (np.argwhere(turned.any(axis=2)) + reach) @ strides[:2] + reach
    z, y, x = turned.shape
    return LevelMap(levels.ravel(), found.gray, found.counts, (z, y, x), axes, plane_axis is not None, strides, rows)


def half_steps(extent: tuple[int, ...], distances: tuple[int, ...], *, planar: bool = False) -> list[Step]:
    """One of each pair of opposite steps to a neighbour at the given Chebyshev distances, within an extent.

    Args:
        extent: (z, y, x) voxels of the region's box; steps as long as it are left out.
        distances: Chebyshev distances, >= 1.
        planar: leave out steps along the first axis.

    >>> len(half_steps((9, 9, 9), (1,))), len(half_steps((9, 9, 9), (1,), planar=True))
    (13, 4)
    """
    reach = range(max(distances), -max(distances) - 1, -1)
    return [step for step in product(reach, reach, reach) if step > (0, 0, 0) and max(map(abs, step)) in distances
            and all(abs(s) < n for s, n in zip(step, extent, strict=True)) and not (planar and step[0])]


def pairs_and_runs(levels: LevelMap, steps: list[Step]) -> tuple[Index, Index]:
    """GLCM and GLRLM counts of each direction.

    pairs[s, g, h] counts voxels of level g whose neighbour at step s has level h; runs[s, g, n] counts runs of n + 1
    voxels.

    Args:
        levels: the region in K grey levels.
        steps: the directions.

    Returns:
        (pairs (steps, K, K), runs (steps, K, longest)).
    """
    k = levels.gray.size
    pairs = np.zeros((len(steps), k, k), np.int64)
    runs = np.zeros((len(steps), k, max(levels.extent)), np.int64)
    lengths = np.zeros(levels.flat.size, np.uint16)
    _count_directions(levels.flat, levels.rows, levels.extent[2], levels.linear(steps), lengths, pairs, runs)
    return pairs[:, 1:, 1:], runs[:, 1:]


def zones(levels: LevelMap) -> tuple[Index, Index]:
    """(matrix (K, J), sizes (J,)): how many zones of equal, connected voxels have each level and size (GLSZM)."""
    parent, size = np.empty(levels.flat.size, np.int32), np.zeros(levels.flat.size, np.int32)
    plane, row = int(levels.strides[0]), int(levels.strides[1])
    behind = np.array([-row, -plane - row, -plane, -plane + row] if not levels.planar else [-row])
    _zone_sizes(levels.flat, levels.rows, levels.extent[2], behind, parent, size)
    first = np.flatnonzero(size)
    sizes, column = np.unique(size[first], return_inverse=True)
    cell = (levels.flat[first].astype(np.int64) - 1) * sizes.size + column
    k = levels.gray.size - 1
    return np.bincount(cell, minlength=k * sizes.size).reshape(k, sizes.size), sizes.astype(np.int64)


def dependences(levels: LevelMap, steps: list[Step], largest: int) -> Index:
    """Voxels of each grey level by their number of dependent neighbours (GLDM), (K, n + 1).

    Args:
        levels: the region in K grey levels.
        steps: one of each pair of opposite steps; n is twice their number.
        largest: largest difference in grey level of a dependent neighbour.
    """
    offsets, gray = levels.linear(steps), levels.gray
    counts = np.zeros((gray.size, 2 * offsets.size + 1), np.int64)
    low = np.searchsorted(gray[1:], gray - largest, "left") + 1
    high = np.searchsorted(gray[1:], gray + largest, "right")
    around = np.concatenate((offsets, -offsets))
    _count_dependences(levels.flat, levels.rows, levels.extent[2], around, low, high, counts)
    return counts[1:]


def differences(levels: LevelMap, steps: list[Step]) -> NDArray[np.float64]:
    """Sum over each grey level's voxels of the absolute difference from the mean of their neighbours (NGTDM), (K,).

    Args:
        levels: the region in K grey levels.
        steps: one of each pair of opposite steps.
    """
    offsets = levels.linear(steps)
    total = np.zeros(levels.gray.size)
    around = np.concatenate((offsets, -offsets))
    _add_differences(levels.flat, levels.gray, levels.rows, levels.extent[2], around, total)
    return total[1:]


@entry("u2[::1], i8[::1], i8, i8[::1], u2[::1], i8[:,:,::1], i8[:,:,::1]")
def _count_directions(levels: Levels, rows: Index, width: int, offsets: Index, lengths: Levels, pairs: Index,
                      runs: Index) -> None:
    """Fill `pairs` and `runs`; `lengths`, zero before and after, holds how far the run that reaches a voxel has come.

    Without branches on the data: each would be mispredicted half the time.
    """
    for a in range(offsets.size):
        offset = offsets[a]
        for first in rows:
            here, there = levels[first:first + width], levels[first + offset:first + offset + width]
            so_far, next_one = lengths[first:first + width], lengths[first + offset:first + offset + width]
            for x in range(width):
                g = here[x]
                if g != 0:
                    h, length = there[x], so_far[x]
                    goes_on = np.uint16(h == g)
                    so_far[x] = 0
                    next_one[x] = (length + np.uint16(1)) * goes_on
                    pairs[a, g, h] += 1
                    runs[a, g, length] += np.int64(1) - goes_on


@compiled
def _root(parent: NDArray[np.int32], v: int) -> int:
    """The representative of v's zone, halving the path."""
    above = parent[np.uint64(v)]
    while above != v:
        top = parent[np.uint64(above)]
        parent[np.uint64(v)] = top
        v = np.int64(top)  # type: ignore[assignment] # its width is what numba compiles
        above = parent[np.uint64(v)]
    return v


@compiled
def _join(parent: NDArray[np.int32], v: int, w: int) -> None:
    """Make the zones of v and w one, named by its first voxel."""
    a, b = _root(parent, v), _root(parent, w)
    if a < b:
        parent[b] = a
    else:
        parent[a] = b


@compiled
def _count_zones(levels: Levels, rows: Index, width: int, parent: NDArray[np.int32], size: NDArray[np.int32]) -> None:
    """Count each zone's voxels at its first voxel, once all voxels are joined."""
    for first in rows:
        for v in range(first, first + width):
            if levels[v] != 0:
                root = parent[parent[v]]
                parent[v] = root
                size[root] += 1


@entry("u2[::1], i8[::1], i8, i8[::1], i4[::1], i4[::1]")
def _zone_sizes(levels: Levels, rows: Index, width: int, behind: Index, parent: NDArray[np.int32],
                size: NDArray[np.int32]) -> None:
    """Set `size[v]` to a zone's voxel count at its first voxel.

    `behind` leads to the same place in the neighbouring rows that come earlier. What the voxel on the left or straight
    behind has joined already is not joined again.
    """
    for first in rows:
        for v in range(first, first + width):
            g = levels[np.uint64(v)]
            if g == 0:
                continue
            left = levels[np.uint64(v - 1)] == g
            parent[np.uint64(v)] = parent[np.uint64(v - 1)] if left else v
            for back in behind:
                w = v + back
                if levels[np.uint64(w)] == g:
                    if not left:
                        _join(parent, v, w)
                else:
                    if levels[np.uint64(w + 1)] == g:
                        _join(parent, v, w + 1)
                    if not left and levels[np.uint64(w - 1)] == g:
                        _join(parent, v, w - 1)
    _count_zones(levels, rows, width, parent, size)


@entry("u2[::1], i8[::1], i8[::1], i8, i8[::1], f8[::1]")
def _add_differences(levels: Levels, gray: Index, rows: Index, width: int, offsets: Index,
                     total: NDArray[np.float64]) -> None:
    """Fill `total`; a neighbour's grey level and its count are looked up and added as one packed number."""
    packed = np.zeros(gray.size, np.int64)
    for k in range(1, gray.size):  # not gray + ...: numba names an array expression by its address, other in each build
        packed[k] = gray[k] + (np.int64(1) << 40)
    for first in rows:
        for v in range(first, first + width):
            g = levels[v]
            if g != 0:
                around = np.int64(0)
                for offset in offsets:
                    around += packed[levels[np.uint64(v + offset)]]
                count = around >> 40
                if count != 0:
                    total[g] += abs(gray[g] - (around & ((np.int64(1) << 40) - 1)) / count)


@entry("u2[::1], i8[::1], i8, i8[::1], i8[::1], i8[::1], i8[:,::1]")
def _count_dependences(levels: Levels, rows: Index, width: int, offsets: Index, low: Index, high: Index,
                       counts: Index) -> None:
    """Fill `counts`; the levels low[g] to high[g] depend on g."""
    for first in rows:
        for v in range(first, first + width):
            g = levels[v]
            if g != 0:
                near = 0
                for offset in offsets:
                    h = levels[np.uint64(v + offset)]
                    near += (h >= low[g]) & (h <= high[g])
                counts[g, near] += 1
