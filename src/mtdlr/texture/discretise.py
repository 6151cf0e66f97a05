"""Intensities to grey levels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mtdlr.errors import Problem, ScanError
from mtdlr.texture.compiled import entry
from mtdlr.texture.profile import GreyLevels

MAX_LEVELS = 8192  # occupied bins: matrices grow with their square
MAX_BINS = 2**24  # bins, occupied or not


@dataclass(frozen=True, eq=False)
class Discretised:
    """The grey levels of a region's voxels.

    Args:
        level: (n,) uint16, compact level of each voxel, 1..K in order of intensity, no level empty.
        gray: (K + 1,) int64, the bin number of each compact level; gray[0] = 0 stands for outside.
        counts: (K + 1,) int64, voxels of each compact level.
    """

    level: NDArray[np.uint16]
    gray: NDArray[np.int64]
    counts: NDArray[np.int64]


def bin_edges(values: NDArray, grey: GreyLevels) -> NDArray[np.float64]:
    """Lower edges of the bins, and the last upper one, of a region's intensities.

    Args:
        values: (n,) intensities of the region, n > 0.
        grey: bin width or count.

    Without an origin the edges are PyRadiomics' to the last bit, which matters for intensities that lie on an edge.

    >>> bin_edges(np.array([54.0, 166.0]), GreyLevels(bin_width=25.0))
    array([ 50.,  75., 100., 125., 150., 175., 200.])
    """
    low, high = values.min(), values.max()
    if grey.bin_count is not None:
        edges = np.histogram_bin_edges(values, grey.bin_count).astype(np.float64)
        edges[-1] += 1.0
        return edges
    bottom = low - low % grey.bin_width if grey.origin is None else grey.origin
    if (high - bottom) / grey.bin_width > MAX_BINS:
        raise _too_many((high - bottom) / grey.bin_width, grey.bin_width)
    edges = np.arange(bottom, high + 2 * grey.bin_width, grey.bin_width, dtype=np.float64)
    return edges if edges.size > 1 else np.array([edges[0] - 0.5, edges[0] + 0.5])


def discretise(values: NDArray, grey: GreyLevels) -> Discretised:
    """Grey levels of a region's intensities.

    Args:
        values: (n,) intensities of the region in any fixed order, n > 0, finite.
        grey: bin width or count.

    Raises:
        ScanError: E-GREYLEVELS when the bins are so narrow that more than 8192 levels are occupied.

    >>> found = discretise(np.array([1.0, 30.0, 260.0]), GreyLevels(bin_width=25.0))
    >>> found.level, found.gray
    (array([1, 2, 3], dtype=uint16), array([ 0,  1,  2, 11]))
    """
    edges = bin_edges(values, grey)
    bins = np.empty(values.size, dtype=np.int32)
    _assign(np.ascontiguousarray(values, dtype=np.float64), edges, bins)
    counts = np.bincount(bins)
    gray = np.flatnonzero(counts)
    if gray.size > MAX_LEVELS:
        raise _too_many(gray.size, grey.bin_width)
    compact = np.zeros(counts.size, dtype=np.uint16)
    compact[gray] = np.arange(1, gray.size + 1)
    return Discretised(compact[bins], np.concatenate(([0], gray)), np.concatenate(([0], counts[gray])))


@entry("f8[::1], f8[::1], i4[::1]")
def _assign(values: NDArray[np.float64], edges: NDArray[np.float64], bins: NDArray[np.int32]) -> None:
    """Set the number of the half-open bin each value lies in, 1 for the first; below the first edge counts as 1."""
    n = edges.size - 1
    low, scale = edges[0], n / (edges[n] - edges[0])
    for i in range(values.size):
        x = values[i]
        b = min(max(int((x - low) * scale), 0), n - 1)
        while b > 0 and x < edges[b]:
            b -= 1
        while b < n - 1 and x >= edges[b + 1]:
            b += 1
        bins[i] = b + 1


def _too_many(levels: float, bin_width: float) -> ScanError:
    return ScanError(Problem("E-GREYLEVELS", "the bins are too narrow for this image's range",
                             found=f"{levels:.0f} grey levels at a bin width of {bin_width:g}",
                             expected=f"at most {MAX_LEVELS}", remedy="Choose a wider bin, or a bin count"))
