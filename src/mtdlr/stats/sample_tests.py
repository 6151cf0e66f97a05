"""Tests of means and of ranks of two or more samples: scipy's, checked and named as the others.

No verb of the command line asks for them; scipy.stats costs half a second and 40 MB, and loads with this file only.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import nan

from numpy.typing import ArrayLike
from scipy import stats

from mtdlr.errors import FitError, Problem
from mtdlr.stats.groups import GroupTest, all_equal, constant, samples_of


def mann_whitney(first: ArrayLike, second: ArrayLike, *, continuity: bool = True) -> GroupTest:
    """Mann-Whitney (Wilcoxon rank-sum) test with the normal approximation, corrected for ties (scipy.stats).

    Args:
        first: (m,) finite values.
        second: (n,) finite values.
        continuity: half a unit towards the mean, as R and SPSS do.

    Returns:
        The statistic counts the pairs in which the first sample is larger, ties as one half; p is nan when all values
        are the same.

    Raises:
        TableError: E-MISSING, E-NUMBER. FitError: E-ONEGROUP.

    References:
        Mann & Whitney 1947; wilcox.test(exact = FALSE) in R.
    """
    vectors = samples_of([first, second])
    if all_equal(vectors):
        return GroupTest("Mann-Whitney", vectors[0].size * vectors[1].size / 2.0, nan, nan)
    test = stats.mannwhitneyu(*vectors, use_continuity=continuity, method="asymptotic")
    return GroupTest("Mann-Whitney", float(test.statistic), nan, float(test.pvalue))


def t_test(first: ArrayLike, second: ArrayLike) -> GroupTest:
    """Welch's t test of two means, without assuming equal variances (scipy.stats).

    Args:
        first: (m,) finite values.
        second: (n,) finite values.

    Returns:
        t with Welch's degrees of freedom; nan when neither sample varies.

    Raises:
        TableError: E-MISSING, E-NUMBER. FitError: E-ONEGROUP when a sample has fewer than two values.

    References:
        Welch 1947; t.test in R.
    """
    a, b = samples_of([first, second])
    if min(a.size, b.size) < 2:
        raise FitError(Problem("E-ONEGROUP", "a t test needs two values in each sample",
                               found=f"{a.size} and {b.size}"))
    if constant(a) and constant(b):
        return GroupTest("Welch t", nan, nan, nan)
    va, vb = a.var(ddof=1) / a.size, b.var(ddof=1) / b.size
    df = float((va + vb) ** 2 / (va**2 / (a.size - 1) + vb**2 / (b.size - 1)))
    test = stats.ttest_ind_from_stats(a.mean(), a.std(ddof=1), a.size, b.mean(), b.std(ddof=1), b.size, equal_var=False)
    return GroupTest("Welch t", float(test.statistic), df, float(test.pvalue))


def anova(samples: Sequence[ArrayLike]) -> GroupTest:
    """One-way analysis of variance of two or more samples (scipy.stats.f_oneway).

    Args:
        samples: one vector of finite values per group.

    Returns:
        F with k - 1 and n - k degrees of freedom; nan when no sample varies.

    Raises:
        TableError: E-MISSING, E-NUMBER. FitError: E-ONEGROUP.
    """
    vectors = samples_of(samples)
    between, within = len(vectors) - 1, sum(v.size for v in vectors) - len(vectors)
    if within == 0 or all(constant(v) for v in vectors):
        return GroupTest("ANOVA F", nan, between, nan, df_within=within)
    test = stats.f_oneway(*vectors)
    return GroupTest("ANOVA F", float(test.statistic), between, float(test.pvalue), df_within=within)
