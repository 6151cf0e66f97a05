"""Comparison of patient characteristics between groups: the tests of a baseline table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import nan, sqrt

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mtdlr.errors import FitError, Problem, TableError
from mtdlr.estimate import Estimate
from mtdlr.stats.checks import coverage, groups_of, scores
from mtdlr.stats.inference import chi_square_test, normal_estimate
from mtdlr.stats.ranks import midranks, tie_sum
from mtdlr.survival import numbers

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
_LARGEST = 1e100


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

    Args:
        rows: (n,) labels of the r rows.
        columns: (n,) labels of the c columns, of the same n patients.

    Raises:
        TableError: E-LENGTH, E-MISSING, E-LEVEL.
    """
    n = np.size(rows)
    (row_levels, i), (column_levels, j) = groups_of(rows, n, "rows"), groups_of(columns, n, "columns")
    k = len(column_levels)
    return np.bincount(i * k + j, minlength=len(row_levels) * k).reshape(-1, max(k, 1)).astype(np.int64)


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
                        found=f"{100 * small:.0f}% of cells expect fewer than 5, minimum {expected.min():.2g}",
                        remedy="Use Fisher's exact test"),) if small > 0.2 or expected.min() < 1 else ()
    return GroupTest("chi-square", test.statistic, test.df, test.p, warnings=warnings)


def occupied(table: ArrayLike) -> Matrix:
    """The non-empty rows and columns of a table of counts, checked."""
    counts = numbers(table, "counts")
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

    Returns:
        H with k - 1 degrees of freedom; nan when all values are the same.

    Raises:
        TableError: E-MISSING, E-NUMBER. FitError: E-ONEGROUP.

    References:
        Kruskal & Wallis, JASA 1952; kruskal.test in R.
    """
    vectors = samples_of(samples)
    if all_equal(vectors):
        return GroupTest("Kruskal-Wallis", nan, len(vectors) - 1, nan)
    values = np.concatenate(vectors)
    n, ranks = values.size, midranks(values)
    sums = [part.sum() for part in np.split(ranks, np.cumsum([v.size for v in vectors])[:-1])]
    h = 12.0 / (n * (n + 1.0)) * sum(s * s / v.size for s, v in zip(sums, vectors, strict=True)) - 3.0 * (n + 1.0)
    test = chi_square_test(float(h / (1.0 - tie_sum(values) / (float(n) ** 3 - n))), len(vectors) - 1)
    return GroupTest("Kruskal-Wallis", test.statistic, test.df, test.p)


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
    coverage(level)
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
    coverage(level)
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
    """A vector of finite numbers up to 1e100, not empty."""
    array = np.atleast_1d(numbers(values, "a value"))
    if array.size == 0:
        raise FitError(Problem("E-ONEGROUP", "a sample is empty"))
    vector = scores(array, array.size, "a value")
    if np.abs(vector).max() > _LARGEST:
        raise TableError(Problem("E-NUMBER", "a number is too large to compute with", expected=f"up to {_LARGEST:g}"))
    return vector


def samples_of(samples: Sequence[ArrayLike]) -> list[Vector]:
    """Two or more samples, each as a vector of finite values.

    Args:
        samples: one vector per group.

    Raises:
        TableError: E-MISSING, E-NUMBER. FitError: E-ONEGROUP.
    """
    if len(samples) < 2:
        raise FitError(Problem("E-ONEGROUP", "a comparison needs at least two groups", found=f"{len(samples)} group"))
    return [_sample(values) for values in samples]


def constant(values: Vector) -> bool:
    """Whether a sample does not vary beyond rounding.

    Args:
        values: (n,).
    """
    return bool(np.ptp(values) <= 1e-14 * np.abs(values).max())


def all_equal(vectors: list[Vector]) -> bool:
    """Whether all values of all samples are the same.

    Args:
        vectors: of `samples_of`.
    """
    return all((vector == vectors[0][0]).all() for vector in vectors)
