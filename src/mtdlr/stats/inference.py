"""Tests, intervals and p values from an estimate and its standard error."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite, nan
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtrc, ndtr, ndtri, stdtr, stdtrit

from mtdlr.errors import Problem
from mtdlr.estimate import Estimate
from mtdlr.stats.checks import coverage

_ENOUGH_EVENTS = 20  # from here on a normal interval holds its level


@dataclass(frozen=True)
class Test:
    """A test statistic, its degrees of freedom (nan for a normal statistic) and its two-sided p value."""

    __test__: ClassVar[bool] = False  # not a pytest class
    statistic: float
    df: float
    p: float


@dataclass(frozen=True)
class Comparison:
    """Two scores compared on the same patients.

    Args:
        difference: first minus second, with its interval and p value.
        z: difference over its standard error (nan where the test does not use one).
        method: how the variance was found.
        warnings: what the reader should know.
    """

    difference: Estimate
    z: float
    method: str
    warnings: tuple[Problem, ...] = ()


def normal_quantile(level: float) -> float:
    """The half-width in standard errors of a two-sided normal interval: 1.96 at .95.

    Raises:
        FitError: E-OPTION for a level outside (0, 1).

    >>> round(normal_quantile(0.95), 6)
    1.959964
    """
    return float(ndtri(0.5 + coverage(level) / 2.0))


def two_sided_p(z: float) -> float:
    """Two-sided normal p value; nan where z is nan."""
    return float(2.0 * ndtr(-abs(z)))


def chi_square_test(statistic: float, df: float) -> Test:
    """A chi-square statistic with its upper-tail p value; nan when there is no degree of freedom.

    Args:
        statistic: >= 0, or nan.
        df: degrees of freedom; with 0 or fewer p is nan.
    """
    usable = df > 0 and isfinite(statistic)
    return Test(float(statistic), float(df), float(chdtrc(df, statistic)) if usable else nan)


def normal_estimate(
    value: float, se: float, *, level: float = 0.95, null: float = nan, bounds: tuple[float, float] | None = None
) -> Estimate:
    """`value` with a symmetric normal interval, cut at `bounds`, and a two-sided p against `null`.

    Args:
        value: the point estimate.
        se: its standard error; 0 or nan gives an interval of nan, for nothing is known about the spread.
        level: coverage, in (0, 1).
        null: value under the null hypothesis; nan gives no p.
        bounds: smallest and largest possible value.
    """
    if not (isfinite(value) and isfinite(se) and se > 0):
        return Estimate(float(value))
    half = normal_quantile(level) * se
    low, high = value - half, value + half
    if bounds is not None:
        low, high = max(low, bounds[0]), min(high, bounds[1])
    return Estimate(float(value), float(low), float(high), two_sided_p((value - null) / se))


def few_events_estimate(
    value: float, se: float, n: int, *, level: float = 0.95, null: float = nan,
    bounds: tuple[float, float] | None = None,
) -> Estimate:
    """As `normal_estimate`, for a value that rests on n events (or on n controls, if they are fewer).

    The spread of a handful of events is hardly known. Below 20 the error is multiplied by sqrt(n / (n - 1)) and the
    normal distribution replaced by Student's with n - 1 degrees of freedom: a score that knows nothing then has P < .05
    for its C in 0 to 7 % of samples and for its AUC(t) in 0 to 4 %, with 2 to 19 events (`bench/bench_few_events.py`),
    where the normal test has it in 18 % (5 events) to 78 % (1 event). With a single event there is no interval.

    Args:
        value: as in `normal_estimate`.
        se: as in `normal_estimate`.
        n: events or controls, whichever are fewer.
        level: as in `normal_estimate`.
        null: as in `normal_estimate`.
        bounds: as in `normal_estimate`.
    """
    if n >= _ENOUGH_EVENTS:
        return normal_estimate(value, se, level=level, null=null, bounds=bounds)
    if n < 2 or not (isfinite(value) and isfinite(se) and se > 0):
        return Estimate(float(value))
    wider = se * float(np.sqrt(n / (n - 1.0)))
    half = float(stdtrit(n - 1.0, 0.5 + coverage(level) / 2.0)) * wider
    low, high = value - half, value + half
    if bounds is not None:
        low, high = max(low, bounds[0]), min(high, bounds[1])
    return Estimate(float(value), float(low), float(high), 2.0 * float(stdtr(n - 1.0, -abs(value - null) / wider)))


def few_events(n: int, what: str) -> tuple[Problem, ...]:
    """W-FEWEVENTS where `few_events_estimate` departs from the normal distribution: below 20 events.

    Args:
        n: events or controls, whichever are fewer.
        what: the quantity, for the message: "the AUC".
    """
    if n >= _ENOUGH_EVENTS:
        return ()
    single = "no interval and no p" if n < 2 else "the interval and p use Student's distribution"
    return (Problem("W-FEWEVENTS", f"{what} rests on few events: {single}", found=f"{n} events",
                    expected=f">= {_ENOUGH_EVENTS}"),)


def perfect(*areas: float) -> tuple[Problem, ...]:
    """W-PERFECT where one of two compared areas or C-indices is exactly 0 or 1: its error is estimated as 0, and the
    difference would be tested with the other's error alone."""
    if all(0.0 < area < 1.0 for area in areas):
        return ()
    return (Problem("W-PERFECT", "a score orders all patients without a mistake: how sure that is cannot be estimated, "
                    "so the difference has no interval and no p", found=f"{next(a for a in areas if not 0 < a < 1):g}",
                    expected="between 0 and 1"),)


def log_estimate(value: float, se_log: float, *, level: float = 0.95, p: float = nan) -> Estimate:
    """An estimate with an interval that is symmetric on the log scale: value * exp(+-z se_log).

    Args:
        value: the estimate, > 0; otherwise there is no interval.
        se_log: standard error of its logarithm, > 0; otherwise there is no interval.
        level: coverage of the interval.
        p: p value to carry; nan for none.
    """
    if not (isfinite(value) and value > 0 and isfinite(se_log) and se_log > 0):
        return Estimate(float(value), p=p)
    with np.errstate(over="ignore", under="ignore"):  # hardly any events: from 0 to infinity
        low, high = np.exp(np.log(value) + np.array([-1.0, 1.0]) * normal_quantile(level) * se_log).tolist()
    return Estimate(float(value), low, high, p)


def influence_error(influence: NDArray[np.float64]) -> float:
    """Standard error of a mean from the influence of each patient on it; 0 when only rounding is left, nan for one."""
    if influence.size < 2:
        return nan
    se = float(influence.std(ddof=1) / np.sqrt(influence.size))
    return se if se > 1e-12 else 0.0


def all_tied(consequence: str) -> Problem:
    """The warning that every patient has the same risk."""
    return Problem("W-ALLTIED", f"all patients have the same risk, so {consequence}",
                   remedy="Check the score: it does not tell patients apart")

