"""Comparison of patient characteristics between groups: the tests of a baseline table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import nan, sqrt

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import fdtrc, stdtr

from mtdlr.errors import FitError, Problem, TableError
from mtdlr.estimate import Estimate
from mtdlr.stats.inference import chi_square_test, normal_estimate, scores, two_sided_p

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class GroupTest:
    """A test of whether groups differ.

    Args:
        name: such as "chi-square".
        statistic: chi-square, H, W, t or F.
        df: degrees of freedom (of the numerator for F); nan where there is none.
        df_within: denominator degrees of freedom of F; nan elsewhere.
        p: two-sided.
        warnings: W-EXPECTED for expected counts too small for the chi-square approximation.
    """

    name: str
    statistic: float
    df: float
    p: float
    df_within: float = nan
    warnings: tuple[Problem, ...] = ()


def contingency_table(rows: ArrayLike, columns: ArrayLike) -> NDArray[np.int64]:
    """(r, c) counts of two labels per patient, levels in sorted order.

    Raises:
        TableError: E-LENGTH.
    """
    a, b = np.asarray(rows), np.asarray(columns)
    if a.ndim != 1 or a.shape != b.shape:
        raise TableError(Problem("E-LENGTH", "both labels need one value per patient",
                                 found=f"shapes {a.shape} and {b.shape}"))
    (row_levels, i), (column_levels, j) = (np.unique(x, return_inverse=True) for x in (a, b))
    counts = np.bincount(i * column_levels.size + j, minlength=row_levels.size * column_levels.size)
    return counts.reshape(row_levels.size, column_levels.size).astype(np.int64)


def chi_square(table: ArrayLike) -> GroupTest:
    """Pearson's chi-square test of an r x c table, without continuity correction (as the paper's Table 1).

    Args:
        table: (r, c) counts; empty rows and columns are left out.

    Raises:
        TableError: E-COUNTS for anything but whole numbers >= 0 in two dimensions.
        FitError: E-ONEGROUP when fewer than two rows or columns are not empty.

    >>> round(chi_square([[416, 97, 189], [106, 33, 45]]).p, 3)
    0.352
    """
    counts = occupied(table)
    expected = np.outer(counts.sum(axis=1), counts.sum(axis=0)) / counts.sum()
    test = chi_square_test(float(((counts - expected) ** 2 / expected).sum()),
                           (counts.shape[0] - 1) * (counts.shape[1] - 1))
    small = float((expected < 5).mean())
    warnings = (Problem("W-EXPECTED", "expected counts are too small for the chi-square approximation",
                        found=f"{100 * small:.0f}% of cells expect fewer than 5, the least {expected.min():.2g}",
                        remedy="Use Fisher's exact test"),) if small > 0.2 or expected.min() < 1 else ()
    return GroupTest("chi-square", test.statistic, test.df, test.p, warnings=warnings)


def occupied(table: ArrayLike) -> Matrix:
    """The non-empty rows and columns of a table of counts, checked."""
    counts = np.asarray(table, dtype=np.float64)
    if counts.ndim != 2 or not np.isfinite(counts).all() or (counts < 0).any() or (counts % 1 != 0).any():
        raise TableError(Problem("E-COUNTS", "a contingency table holds whole numbers >= 0 in rows and columns",
                                 found=f"shape {counts.shape}"))
    counts = counts[counts.sum(axis=1) > 0][:, counts.sum(axis=0) > 0]
    if min(counts.shape) < 2:
        raise FitError(Problem("E-ONEGROUP", "a comparison needs at least two rows and two columns with patients",
                               found=f"{counts.shape[0]} x {counts.shape[1]}"))
    return counts


def kruskal_wallis(samples: Sequence[ArrayLike]) -> GroupTest:
    """Kruskal-Wallis test of two or more samples, with the correction for ties.

    Args:
        samples: one vector of finite values per group.

    Raises:
        TableError: E-MISSING. FitError: E-ONEGROUP.

    References:
        Kruskal & Wallis, JASA 1952; kruskal.test in R.
    """
    values, member = _pooled(samples)
    n = values.size
    ranks, ties = _ranks(values)
    sizes, sums = np.bincount(member), np.bincount(member, weights=ranks)
    correction = 1.0 - ties / (float(n) ** 3 - n)
    raw = 12.0 / (n * (n + 1.0)) * float((sums**2 / sizes).sum()) - 3.0 * (n + 1.0)
    test = chi_square_test(raw / correction if correction > 0 else nan, sizes.size - 1)
    return GroupTest("Kruskal-Wallis", test.statistic, test.df, test.p)


def mann_whitney(first: ArrayLike, second: ArrayLike, *, continuity: bool = True) -> GroupTest:
    """Mann-Whitney (Wilcoxon rank-sum) test with the normal approximation, corrected for ties.

    Args:
        first: (m,) finite values.
        second: (n,) finite values.
        continuity: half a unit towards the mean, as R and SPSS do.

    Returns:
        The statistic counts the pairs in which the first sample is larger, ties as one half.

    Raises:
        TableError: E-MISSING. FitError: E-ONEGROUP.

    References:
        Mann & Whitney 1947; wilcox.test(exact = FALSE) in R.
    """
    values, member = _pooled([first, second])
    m, n = np.bincount(member).tolist()
    ranks, ties = _ranks(values)
    w = float(ranks[member == 0].sum() - m * (m + 1) / 2.0)
    size = m + n
    variance = m * n / 12.0 * (size + 1.0 - ties / (size * (size - 1.0)))
    distance = w - m * n / 2.0
    distance -= 0.5 * float(np.sign(distance)) if continuity else 0.0
    return GroupTest("Mann-Whitney", w, nan, two_sided_p(distance / sqrt(variance)) if variance > 0 else nan)


def t_test(first: ArrayLike, second: ArrayLike) -> GroupTest:
    """Welch's t test of two means, without assuming equal variances.

    Raises:
        TableError: E-MISSING. FitError: E-ONEGROUP when a sample has fewer than two values.

    References:
        Welch 1947; t.test in R.
    """
    a, b = (_sample(x) for x in (first, second))
    if min(a.size, b.size) < 2:
        raise FitError(Problem("E-ONEGROUP", "a t test needs two values in each sample",
                               found=f"{a.size} and {b.size}"))
    va, vb = a.var(ddof=1) / a.size, b.var(ddof=1) / b.size
    if va + vb == 0:
        return GroupTest("Welch t", nan, nan, nan)
    t = float((a.mean() - b.mean()) / np.sqrt(va + vb))
    df = float((va + vb) ** 2 / (va**2 / (a.size - 1) + vb**2 / (b.size - 1)))
    return GroupTest("Welch t", t, df, float(2.0 * stdtr(df, -abs(t))))


def anova(samples: Sequence[ArrayLike]) -> GroupTest:
    """One-way analysis of variance of two or more samples.

    Raises:
        TableError: E-MISSING. FitError: E-ONEGROUP.
    """
    values, member = _pooled(samples)
    sizes = np.bincount(member)
    means = np.bincount(member, weights=values) / sizes
    between, within = sizes.size - 1, values.size - sizes.size
    spread = float(((values - means[member]) ** 2).sum())
    if within == 0 or spread == 0:
        return GroupTest("ANOVA F", nan, between, nan, df_within=within)
    f = float((sizes * (means - values.mean()) ** 2).sum() / between / (spread / within))
    return GroupTest("ANOVA F", f, between, float(fdtrc(between, within, f)), df_within=within)


def standardised_difference(first: ArrayLike, second: ArrayLike, *, level: float = 0.95) -> Estimate:
    """Difference of two means in pooled standard deviations, sqrt((s1^2 + s2^2) / 2).

    Unlike a p value it does not shrink with the number of patients: above 0.1 to 0.2 a characteristic is unbalanced.
    A 0/1 characteristic uses p (1 - p) as its variance.

    Args:
        first: (m,) finite values.
        second: (n,) finite values.
        level: coverage of the large-sample interval.

    Raises:
        TableError: E-MISSING.

    References:
        Austin, Stat Med 2009, eq. 1-2; Hedges & Olkin 1985 (standard error).
    """
    a, b = (_sample(x) for x in (first, second))
    binary = bool(np.isin(np.concatenate([a, b]), (0.0, 1.0)).all())
    va, vb = (float(x.mean() * (1.0 - x.mean()) if binary else x.var(ddof=1) if x.size > 1 else nan) for x in (a, b))
    pooled = sqrt((va + vb) / 2.0) if va + vb > 0 else nan
    return _with_interval(float(a.mean() - b.mean()) / pooled, a.size, b.size, level)


def standardised_difference_levels(table: ArrayLike, *, level: float = 0.95) -> Estimate:
    """Multinomial standardised difference of two groups in a characteristic with several levels; never negative, nan
    where the groups have no level in common.

    Args:
        table: (k, 2) counts, a row for each level, a column for each group.
        level: coverage of the large-sample interval.

    Raises:
        TableError: E-COUNTS. FitError: E-ONEGROUP.

    References:
        Yang & Dalton, SAS Global Forum 2012, paper 335.
    """
    counts = occupied(table)
    if counts.shape[1] != 2:
        raise TableError(Problem("E-COUNTS", "a standardised difference compares two groups",
                                 found=f"{counts.shape[1]} columns"))
    sizes = counts.sum(axis=0)
    shares = (counts / sizes)[1:]
    gap = shares[:, 0] - shares[:, 1]
    covariance = sum(np.diag(p) - np.outer(p, p) for p in shares.T) / 2.0
    solved = np.linalg.pinv(covariance) @ gap
    value = float(np.sqrt(max(gap @ solved, 0.0))) if np.allclose(covariance @ solved, gap) else nan
    return _with_interval(value, int(sizes[0]), int(sizes[1]), level)


def _with_interval(value: float, m: int, n: int, level: float) -> Estimate:
    """Large-sample interval of a standardised difference."""
    return normal_estimate(value, sqrt((m + n) / (m * n) + value**2 / (2.0 * (m + n))), level=level)


def _sample(values: ArrayLike) -> Vector:
    """A vector of finite numbers, not empty."""
    array = np.asarray(values, dtype=np.float64).ravel()
    if array.size == 0:
        raise FitError(Problem("E-ONEGROUP", "a sample is empty"))
    return scores(array, array.size, "a value")


def _pooled(samples: Sequence[ArrayLike]) -> tuple[Vector, NDArray[np.int64]]:
    """All values, and the sample each came from."""
    if len(samples) < 2:
        raise FitError(Problem("E-ONEGROUP", "a comparison needs at least two groups", found=f"{len(samples)} group"))
    vectors = [_sample(x) for x in samples]
    return np.concatenate(vectors), np.repeat(np.arange(len(vectors)), [v.size for v in vectors])


def _ranks(values: Vector) -> tuple[Vector, float]:
    """Midranks from 1, and the sum of t^3 - t over the ties."""
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2.0)[which]
    size = counts.astype(np.float64)
    return ranks, float((size**3 - size).sum())
