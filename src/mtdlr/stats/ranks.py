"""Ranks with ties: what rank tests and rank correlations are made of."""

from __future__ import annotations

from math import nan, sqrt

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtr


def midranks(values: ArrayLike) -> NDArray[np.float64]:
    """Ranks from 1; equal values share the mean of their ranks.

    Args:
        values: (n,), or (n, p) with every column ranked by itself; finite.

    >>> midranks([3.0, 1.0, 3.0, 7.0])
    array([2.5, 1. , 2.5, 4. ])
    """
    x = np.asarray(values, dtype=np.float64)
    if x.ndim == 2:
        return np.column_stack([midranks(column) for column in x.T])
    _, inverse, counts = np.unique(x, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2.0)[inverse])


def tie_sum(values: ArrayLike) -> float:
    """Sum of t^3 - t over the groups of t equal values, by which ties narrow the spread of ranks; 0 without ties.

    Args:
        values: (n,) finite.

    >>> tie_sum([3.0, 1.0, 3.0, 7.0])
    6.0
    """
    counts = np.unique(np.asarray(values), return_counts=True)[1].astype(np.float64)
    return float((counts**3 - counts).sum())


def spearman(x: ArrayLike, y: ArrayLike) -> tuple[float, float]:
    """(Spearman's rank correlation, two-sided p by the t distribution).

    Args:
        x: (n,) finite values that are not all equal, n >= 3.
        y: (n,) values of the same n, likewise.

    Returns:
        p is nan for n = 2, and 0 where the order is the same or the reverse.

    References:
        Kendall & Stuart 1973, section 31.19; cor.test(method = "spearman", exact = FALSE) in R.

    >>> rho, p = spearman([1, 2, 3, 4, 5], [2, 1, 3, 5, 4])
    >>> round(rho, 6), round(p, 6)
    (0.8, 0.104088)
    """
    rho = float(np.corrcoef(midranks(x), midranks(y))[0, 1])
    df = np.size(x) - 2
    if df < 1:
        return rho, nan
    left = max((1.0 - rho) * (1.0 + rho), 0.0)
    return rho, 2.0 * float(stdtr(df, -abs(rho) * sqrt(df / left))) if left else 0.0
