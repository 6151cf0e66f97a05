"""Tests, intervals and p values from an estimate and its standard error; and the checks every score passes once."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite, nan
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import chdtrc, ndtr, ndtri

from mtdlr.errors import FitError, Problem, TableError
from mtdlr.estimate import Estimate


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

    >>> round(normal_quantile(0.95), 6)
    1.959964
    """
    return float(ndtri(0.5 + level / 2.0))


def two_sided_p(z: float) -> float:
    """Two-sided normal p value; nan where z is nan."""
    return float(2.0 * ndtr(-abs(z)))


def chi_square_test(statistic: float, df: float) -> Test:
    """A chi-square statistic with its upper-tail p value; nan when there is no degree of freedom."""
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


def log_estimate(value: float, se_log: float, *, level: float = 0.95, p: float = nan) -> Estimate:
    """`value` > 0 with an interval that is symmetric on the log scale."""
    if not (isfinite(value) and value > 0 and isfinite(se_log) and se_log > 0):
        return Estimate(float(value), p=p)
    factor = float(np.exp(normal_quantile(level) * se_log))
    return Estimate(float(value), float(value / factor), float(value * factor), p)


def influence_error(influence: NDArray[np.float64]) -> float:
    """Standard error of a mean from the influence of each patient on it; 0 when only rounding is left, nan for one."""
    if influence.size < 2:
        return nan
    se = float(influence.std(ddof=1) / np.sqrt(influence.size))
    return se if se > 1e-12 else 0.0


def scores(values: ArrayLike, n: int, name: str = "risk") -> NDArray[np.float64]:
    """One finite number per patient, (n,) float64.

    Raises:
        TableError: E-LENGTH when there are not n of them, E-MISSING when one is not finite.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.shape != (n,):
        raise TableError(Problem("E-LENGTH", f"{name} must hold one number per patient", found=f"shape {array.shape}",
                                 expected=f"({n},)"))
    bad = np.flatnonzero(~np.isfinite(array))
    if bad.size:
        raise TableError(Problem("E-MISSING", f"{name} is missing or not finite", where=f"row {bad[0]}",
                                 found=f"{bad.size} such values", remedy="Leave these patients out or impute first"))
    return array


def labels(values: ArrayLike, n: int | None = None, name: str = "status") -> NDArray[np.bool_]:
    """A 0/1 vector as booleans.

    Raises:
        TableError: E-LENGTH for a wrong shape, E-EVENT for anything but 0/1 or False/True.
    """
    array = np.asarray(values)
    if array.ndim != 1 or (n is not None and array.size != n):
        raise TableError(Problem("E-LENGTH", f"{name} must hold one 0/1 per patient", found=f"shape {array.shape}"))
    if array.dtype == np.bool_:
        return array
    wrong = np.flatnonzero(~np.isin(array, (0, 1)))
    if wrong.size:
        raise TableError(Problem("E-EVENT", f"{name} must be 0 or 1", where=f"row {wrong[0]}",
                                 found=str(array[wrong[0]])))
    return array.astype(np.bool_)


def all_tied(consequence: str) -> Problem:
    """The warning that every patient has the same risk."""
    return Problem("W-ALLTIED", f"all patients have the same risk, so {consequence}",
                   remedy="Check the score: it does not tell patients apart")


def need_events(n_events: int, what: str) -> None:
    """Raise FitError E-NOEVENTS when nobody had the event."""
    if n_events == 0:
        raise FitError(Problem("E-NOEVENTS", f"no event was seen, so {what} cannot be estimated", expected=">= 1 event",
                               remedy="Check the event column, or wait for longer follow-up"))
