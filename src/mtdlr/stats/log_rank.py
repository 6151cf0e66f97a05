"""The log-rank test and its relatives, and the hazard ratio of two groups by Cox, by observed/expected and by Peto."""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, inf, nan, sqrt
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mtdlr.errors import FitError, Problem, TableError
from mtdlr.estimate import Estimate
from mtdlr.stats.checks import Labels, aligned, coverage, follow_up, groups_of, labels, need_events, one_of, within
from mtdlr.stats.cox import fit_cox
from mtdlr.stats.inference import Test, chi_square_test, log_estimate
from mtdlr.survival import Survival, numbers

Vector = NDArray[np.float64]
_METHODS = ("cox", "logrank_oe", "peto")


@dataclass(frozen=True, eq=False)
class LogRank:
    """Log-rank test of k groups.

    Args:
        statistic: chi-square.
        df: groups in which an event could be expected, less one.
        p: upper tail.
        observed, expected: (k,), events seen, and expected if all groups had one hazard.
        variance: (k, k), hypergeometric covariance of observed - expected.
        levels: (k,), the groups in sorted order.
        n: (k,), patients in each.
    """

    statistic: float
    df: int
    p: float
    observed: Vector
    expected: Vector
    variance: NDArray[np.float64]
    levels: tuple[str | int | float | bool, ...]
    n: NDArray[np.int64]


def log_rank(group: ArrayLike, surv: Survival, *, strata: ArrayLike | None = None, rho: float = 0.0) -> LogRank:
    """The (stratified) log-rank test of k groups; with `rho` = 1 the Peto-Peto form, which weighs early events more.

    Args:
        group: (n,), labels of at least two groups.
        surv: follow-up of the same n patients.
        strata: (n,), labels; patients are compared only within a stratum.
        rho: each event weighs S(t-)^rho (Fleming & Harrington).

    Raises:
        TableError: E-LENGTH, E-MISSING, E-ORDER when the follow-up stands first, as in R.
        FitError: E-ONEGROUP with a single group, E-NOEVENTS.

    References:
        Mantel 1966; Peto & Peto 1972; Harrington & Fleming 1982; survdiff in R's survival.

    >>> test = log_rank(["a", "a", "b", "b"], Survival([1.0, 2.0, 3.0, 4.0], [1, 1, 1, 1]))
    >>> round(test.statistic, 4), test.expected.round(4).tolist()
    (2.8824, [0.8333, 3.1667])
    """
    levels, member = _members(group, surv)
    rho = within(rho, "rho", 0.0, 100.0)
    stratum = np.zeros(len(surv), dtype=np.int64)
    if strata is not None:
        stratum = groups_of(aligned(strata, surv), len(surv), "strata")[1]
    need_events(surv.n_events, "the log-rank test")
    k = len(levels)
    observed, expected, variance = np.zeros(k), np.zeros(k), np.zeros((k, k))
    for value in np.unique(stratum):
        rows = stratum == value
        o, e, v = _observed_expected(member[rows], surv.take(rows), k, rho)
        observed, expected, variance = observed + o, expected + e, variance + v
    test = _quadratic(observed - expected, expected, variance)
    return LogRank(test.statistic, int(test.df), test.p, observed, expected, variance, levels,
                   np.bincount(member, minlength=k))


def log_rank_trend(
    group: ArrayLike, surv: Survival, *, values: ArrayLike | None = None, strata: ArrayLike | None = None
) -> Test:
    """Log-rank test for a trend over ordered groups: one degree of freedom.

    Args:
        group: (n,), labels; their sorted order is the order of the groups.
        surv: follow-up of the same n patients.
        values: (k,), what each group counts for; 0, 1, 2, ... if not given.
        strata: as in `log_rank`.

    Raises:
        TableError: E-LENGTH.
        FitError: E-ONEGROUP, E-NOEVENTS.

    References:
        Tarone, Biometrika 1975.
    """
    test = log_rank(group, surv, strata=strata)
    size = len(test.levels)
    weights = np.arange(size, dtype=np.float64) if values is None else numbers(values, "values")
    if weights.shape != (size,):
        raise TableError(Problem("E-LENGTH", "values must hold one number per group", found=f"shape {weights.shape}"))
    spread = float(weights @ test.variance @ weights)
    return chi_square_test(float(weights @ (test.observed - test.expected)) ** 2 / spread if spread > 0 else nan, 1)


def group_hazard_ratio(
    high: ArrayLike,
    surv: Survival,
    *,
    method: Literal["cox", "logrank_oe", "peto"] = "cox",
    level: float = 0.95,
) -> Estimate:
    """Hazard of the patients marked `high` relative to the others.

    Args:
        high: (n,), True or 1 in the group of interest.
        surv: follow-up of the same n patients.
        method: "cox" is the Cox model (Efron ties; Wald interval and p). "logrank_oe" is (O1/E1) / (O0/E0) with
            se(log) = sqrt(1/E1 + 1/E0) and the log-rank p: what the paper prints (METHOD 7e), biased towards 1 for
            strong effects and with an interval that can contradict its p. "peto" is exp((O1 - E1) / V) with the
            log-rank p: for effects near 1.
        level: coverage of the interval.

    Returns:
        The ratio; infinite or 0 without an interval when one group had no event.

    Raises:
        TableError: E-LENGTH, E-EVENT.
        FitError: E-ONEGROUP, E-NOEVENTS.

    References:
        Berry, Kitchin & Mock, Stat Med 1991; Yusuf et al. 1985.
    """
    one_of(method, _METHODS, "method")
    coverage(level)
    marked = labels(aligned(high, follow_up(surv)), len(surv), "high")
    test = log_rank(marked, surv)
    if not test.observed.all():
        return Estimate(inf if test.observed[1] else 0.0, p=test.p)
    if method == "cox":
        return _cox_ratio(marked, surv, level)
    if method == "peto":
        v = float(test.variance[1, 1])
        if v == 0:  # the groups were never at risk together
            return Estimate(nan)
        return log_estimate(exp((test.observed[1] - test.expected[1]) / v), 1.0 / sqrt(v), level=level, p=test.p)
    ratio = test.observed[1] / test.expected[1] / (test.observed[0] / test.expected[0])
    return log_estimate(float(ratio), sqrt(1 / test.expected[0] + 1 / test.expected[1]), level=level, p=test.p)


def _members(group: ArrayLike, surv: Survival) -> tuple[Labels, NDArray[np.int64]]:
    """Sorted levels, and each patient's position among them."""
    if isinstance(group, Survival):
        groups_of(group, 0)
    levels, member = groups_of(aligned(group, follow_up(surv)), len(surv))
    if len(levels) < 2:
        raise FitError(Problem("E-ONEGROUP", "a comparison needs at least two groups", found=f"{len(levels)} group"))
    return levels, member


def _observed_expected(
    member: NDArray[np.int64], surv: Survival, k: int, rho: float
) -> tuple[Vector, Vector, NDArray[np.float64]]:
    """Observed and expected events of each group in one stratum, and the covariance of their difference."""
    time, which = np.unique(surv.time_months, return_inverse=True)
    cell = which * k + member
    leaving = np.bincount(cell, minlength=time.size * k).reshape(-1, k)
    events = np.bincount(cell[surv.event], minlength=time.size * k).reshape(-1, k)
    at_risk = leaving[::-1].cumsum(axis=0)[::-1]
    n, d = at_risk.sum(axis=1), events.sum(axis=1)
    survival = np.cumprod(1.0 - d / n)
    weight = np.concatenate(([1.0], survival[:-1])) ** rho
    share = at_risk / n[:, None]
    observed = weight @ events
    expected = (weight * d) @ share
    spread = weight**2 * d * (n - d) / np.maximum(n - 1, 1)
    variance = np.diag(spread @ share) - share.T @ (spread[:, None] * share)
    return observed, expected, variance


def _quadratic(difference: Vector, expected: Vector, variance: NDArray[np.float64]) -> Test:
    """Chi-square of the groups in which an event was expected, one of them left out."""
    kept = np.flatnonzero(expected > 0)[1:]
    if kept.size == 0 or not np.linalg.matrix_rank(variance[np.ix_(kept, kept)]) == kept.size:
        return Test(nan, float(kept.size), nan)
    part = difference[kept]
    return chi_square_test(float(part @ np.linalg.solve(variance[np.ix_(kept, kept)], part)), kept.size)


def _cox_ratio(marked: NDArray[np.bool_], surv: Survival, level: float) -> Estimate:
    """Hazard ratio of a Cox model with the group as its only column."""
    return fit_cox(marked.astype(np.float64), surv, names=["high"]).hazard_ratios(level)["high"]
