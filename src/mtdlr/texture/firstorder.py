"""First-order statistics of a region's intensities (PyRadiomics' firstorder; IBSI's intensity statistics)."""

from __future__ import annotations

from math import sqrt

import numpy as np
from numpy.typing import NDArray

from mtdlr.texture.compiled import entry

EPS = float(np.spacing(1))
_SLICES = 2048


def firstorder(values: NDArray, counts: NDArray[np.int64], *, voxel_mm3: float, shift: float = 0.0) -> dict[str, float]:
    """The 19 first-order features.

    Args:
        values: (n,) intensities, n > 0.
        counts: voxels of each occupied grey level.
        voxel_mm3: volume of a voxel.
        shift: added before Energy, TotalEnergy and RootMeanSquared.

    Kurtosis is not in excess of 3. Skewness and Kurtosis of a flat region are 0. RobustMeanAbsoluteDeviation
    is nan where no value lies between the 10th and 90th percentile (two values).

    >>> found = firstorder(np.array([1.0, 2.0, 3.0]), np.array([1, 1, 1]), voxel_mm3=2.0)
    >>> found["Energy"], found["TotalEnergy"], found["Median"]
    (14.0, 28.0, 2.0)
    """
    x = np.require(values, np.float64, ("C", "W"))
    low, high = float(x.min()), float(x.max())
    p10, p25, p50, p75, p90 = _percentiles(x, (10, 25, 50, 75, 90), low, high)
    mean, m2, m3, m4, deviation, energy, robust = _moments(x, shift, p10, p90)
    p = counts / counts.sum()
    return {
        "10Percentile": p10, "90Percentile": p90, "Energy": energy,
        "Entropy": float(-(p * np.log2(p + EPS)).sum()), "InterquartileRange": p75 - p25,
        "Kurtosis": m4 / m2**2 if m2 else 0.0, "Maximum": high, "MeanAbsoluteDeviation": deviation, "Mean": mean,
        "Median": p50, "Minimum": low, "Range": high - low, "RobustMeanAbsoluteDeviation": robust,
        "RootMeanSquared": sqrt(energy / x.size), "Skewness": m3 / m2**1.5 if m2 else 0.0,
        "StandardDeviation": sqrt(m2), "TotalEnergy": energy * voxel_mm3, "Uniformity": float((p * p).sum()),
        "Variance": m2,
    }


def _percentiles(x: NDArray[np.float64], percents: tuple[int, ...], low: float, high: float) -> list[float]:
    """Percentiles, linear between ranks.

    Only the values that share a slice of the range with a wanted rank are ever sorted.
    """
    if low == high:
        return [low] * len(percents)
    slices = np.empty(x.size, np.uint16)
    ends = np.cumsum(_count_slices(x, low, (_SLICES - 1) / (high - low), slices))
    ranks = [q / 100 * (x.size - 1) for q in percents]
    needed = sorted({k for rank in ranks for k in (int(rank), min(int(rank) + 1, x.size - 1))})
    found: dict[int, float] = {}
    for part in np.unique(np.searchsorted(ends, needed, "right")).tolist():
        before = int(ends[part - 1]) if part else 0
        values = np.sort(x[slices == part])
        found |= {k: float(values[k - before]) for k in needed if before <= k < ends[part]}
    # As numpy's percentile interpolates: from the nearer end, so that the result never overshoots.
    return [_between(found[int(r)], found[min(int(r) + 1, x.size - 1)], r - int(r)) for r in ranks]


def _between(a: float, b: float, t: float) -> float:
    """The point at share t of the way from a to b."""
    return a + (b - a) * t if t < 0.5 else b - (b - a) * (1 - t)


@entry("f8[::1], f8, f8, u2[::1]")
def _count_slices(x: NDArray[np.float64], low: float, scale: float, slices: NDArray[np.uint16]) -> NDArray[np.int64]:
    """Values in each slice of the range; fills which slice each value lies in."""
    counts = np.zeros(_SLICES, np.int64)
    for i in range(x.size):
        part = np.uint16((x[i] - low) * scale)
        slices[i] = part
        counts[part] += 1
    return counts


@entry("f8[::1], f8, f8, f8")
def _moments(x: NDArray[np.float64], shift: float, p10: float,
             p90: float) -> tuple[float, float, float, float, float, float, float]:
    """(mean, central moments 2-4, mean absolute deviation, energy, the same deviation between two percentiles)."""
    total, energy, inner, n_inner = 0.0, 0.0, 0.0, 0
    for i in range(x.size):
        total += x[i]
        energy += (x[i] + shift)**2
        if p10 <= x[i] <= p90:
            inner += x[i]
            n_inner += 1
    mean, inner_mean = total / x.size, inner / max(n_inner, 1)
    m2, m3, m4, deviation, robust = 0.0, 0.0, 0.0, 0.0, 0.0
    for i in range(x.size):
        d = x[i] - mean
        square = d * d
        m2 += square
        m3 += square * d
        m4 += square * square
        deviation += abs(d)
        if p10 <= x[i] <= p90:
            robust += abs(x[i] - inner_mean)
    n = x.size
    return mean, m2 / n, m3 / n, m4 / n, deviation / n, energy, robust / n_inner if n_inner else np.nan
