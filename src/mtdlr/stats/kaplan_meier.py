"""Kaplan-Meier curves, the log-rank family, hazard ratios of two groups, restricted means, median follow-up."""

from __future__ import annotations

from dataclasses import dataclass
from math import nan
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mtdlr.errors import FitError, Problem
from mtdlr.estimate import Estimate
from mtdlr.stats.checks import aligned, coverage, follow_up, labels, month_of, months_of, one_of, within
from mtdlr.stats.inference import normal_estimate, normal_quantile
from mtdlr.survival import Survival

Vector = NDArray[np.float64]
Interval = Literal["log", "log-log", "plain"]
_INTERVALS = ("log", "log-log", "plain")


@dataclass(frozen=True, eq=False)
class KaplanMeier:
    """Kaplan-Meier estimate of staying event-free.

    Args:
        time: (m,), distinct follow-up times in months, ascending.
        survival: (m,), S(t), falling from at most 1.
        low, high: (m,), pointwise interval within [0, 1]; nan where S = 0.
        se: (m,), Greenwood standard error of S.
        at_risk: (m,), patients under observation just before each time.
        events: (m,), events at each time.
        median: time in months at which S reaches one half, with its interval; nan where it is not reached.
        interval: "log", "log-log" or "plain".
        level: coverage.
    """

    time: Vector
    survival: Vector
    low: Vector
    high: Vector
    se: Vector
    at_risk: NDArray[np.int64]
    events: NDArray[np.int64]
    median: Estimate
    interval: str
    level: float

    def at(self, months: ArrayLike) -> tuple[Estimate, ...]:
        """S with its interval at each month; nan after the last follow-up unless S had reached 0."""
        return tuple(self._at(month) for month in months_of(months))

    def se_at(self, month: float) -> float:
        """Greenwood standard error of S at a month; nan after the last follow-up."""
        last = self._last(float(months_of(month)[0]))
        if last is None:
            return nan
        return float(self.se[last]) if last >= 0 else 0.0

    def number_at_risk(self, months: ArrayLike) -> NDArray[np.int64]:
        """Patients still under observation just before each month."""
        left = np.searchsorted(self.time, months_of(months), side="left")
        return np.concatenate((self.at_risk, [0]))[left].astype(np.int64)

    def quantile(self, probability: float) -> Estimate:
        """The month by which a share `probability` has had the event, with its interval; nan if not reached."""
        level = 1.0 - within(probability, "probability", 0.0, 1.0)
        return Estimate(_crossing(self.time, self.survival, level), _crossing(self.time, self.low, level),
                        _crossing(self.time, self.high, level))

    def _at(self, month: float) -> Estimate:
        last = self._last(month)
        if last is None:
            return Estimate(nan, nan, nan)
        if last < 0:
            return Estimate(1.0, 1.0, 1.0)
        return Estimate(float(self.survival[last]), float(self.low[last]), float(self.high[last]))

    def _last(self, month: float) -> int | None:
        """Index of the last time up to `month` (-1: none yet); None where the curve is not known any more."""
        if month > self.time[-1] and self.survival[-1] > 0:
            return None
        return int(np.searchsorted(self.time, month, side="right")) - 1


def kaplan_meier(surv: Survival, *, interval: Interval = "log", level: float = 0.95) -> KaplanMeier:
    """The Kaplan-Meier curve of one group.

    Args:
        surv: follow-up of n >= 1 patients.
        interval: scale on which the interval is symmetric; "log" is R's default, "log-log" SAS's and Stata's.
        level: coverage.

    Raises:
        FitError: E-EMPTYGROUP without any patient.

    References:
        Kaplan & Meier, JASA 1958; Greenwood 1926; survfit in R's survival.

    >>> curve = kaplan_meier(Survival([1.0, 2.0, 3.0, 4.0], [1, 0, 1, 0]))
    >>> curve.survival.tolist()
    [0.75, 0.75, 0.375, 0.375]
    """
    one_of(interval, _INTERVALS, "interval")
    if len(follow_up(surv)) == 0:
        raise FitError(Problem("E-EMPTYGROUP", "a Kaplan-Meier curve needs at least one patient"))
    time, which = np.unique(surv.time_months, return_inverse=True)
    leaving = np.bincount(which, minlength=time.size)
    events = np.bincount(which[surv.event], minlength=time.size)
    survival, log_variance, staying = product_limit(leaving, events)
    at_risk = staying.astype(np.int64)
    with np.errstate(invalid="ignore"):
        se = np.where(survival > 0, survival * np.sqrt(log_variance), nan)
    low, high = _limits(survival, np.sqrt(log_variance), interval, normal_quantile(level))
    median = Estimate(_crossing(time, survival, 0.5), _crossing(time, low, 0.5), _crossing(time, high, 0.5))
    return KaplanMeier(time, survival, low, high, se, at_risk, events, median, interval, level)


def product_limit(leaving: ArrayLike, events: ArrayLike) -> tuple[Vector, Vector, Vector]:
    """The Kaplan-Meier product from counts at m distinct times; several groups at once in the rows before.

    Args:
        leaving: (..., m) patients whose follow-up ends at each time, by an event or not, times ascending.
        events: (..., m) those with the event.

    Returns:
        (survival, log_variance, at_risk), each (..., m): S(t), Greenwood's variance of log S(t) (inf once S = 0), and
        the patients under observation just before each time.

    >>> survival, _, at_risk = product_limit([1, 1, 2], [1, 0, 1])
    >>> survival.tolist(), at_risk.tolist()
    ([0.75, 0.75, 0.375], [4.0, 3.0, 2.0])
    """
    leaves, dies = np.asarray(leaving, dtype=np.float64), np.asarray(events, dtype=np.float64)
    at_risk: Vector = leaves[..., ::-1].cumsum(-1)[..., ::-1]
    with np.errstate(divide="ignore", invalid="ignore"):
        survival: Vector = np.where(dies > 0, 1.0 - dies / at_risk, 1.0).cumprod(-1)
        log_variance: Vector = np.where(dies > 0, dies / (at_risk * (at_risk - dies)), 0.0).cumsum(-1)
    return survival, log_variance, at_risk


def median_follow_up(surv: Survival, *, level: float = 0.95) -> Estimate:
    """Median follow-up in months by the reverse Kaplan-Meier method: censoring is the event (Schemper & Smith 1996).

    Args:
        surv: follow-up of the patients.
        level: coverage of the interval.
    """
    return kaplan_meier(Survival(follow_up(surv).time_months, ~surv.event), level=level).median


@dataclass(frozen=True)
class RestrictedMean:
    """Mean event-free time up to a month.

    Args:
        mean: months, with a normal interval; nan when follow-up ends before the month.
        se: its standard error.
        month: the horizon.
    """

    mean: Estimate
    se: float
    month: float


def restricted_mean(surv: Survival, month: float, *, level: float = 0.95) -> RestrictedMean:
    """Mean event-free time up to `month`: the area under the Kaplan-Meier curve.

    Args:
        surv: follow-up of one group.
        month: horizon > 0; nobody is extrapolated beyond the last follow-up.
        level: coverage.

    References:
        Royston & Parmar, Stat Med 2011; print.survfit in R's survival.
    """
    month = month_of(month)
    coverage(level)
    curve = kaplan_meier(surv)
    if curve._last(month) is None:
        return RestrictedMean(Estimate(nan), nan, month)
    inside = curve.time <= month
    edges = np.concatenate(([0.0], curve.time[inside], [month]))
    areas = np.diff(edges) * np.concatenate(([1.0], curve.survival[inside]))
    after = areas.sum() - np.cumsum(areas)[:-1]  # area right of each time
    n, d = curve.at_risk[inside], curve.events[inside]
    step = np.divide(d, n * (n - d), out=np.zeros(n.size), where=n > d)
    se = float(np.sqrt(np.sum(after**2 * step)))
    return RestrictedMean(normal_estimate(float(areas.sum()), se, level=level), se, month)


def restricted_mean_difference(high: ArrayLike, surv: Survival, month: float, *, level: float = 0.95) -> Estimate:
    """Restricted mean of the group marked by `high` minus that of the others, with its interval and p against 0.

    Args:
        high: (n,), True or 1 in the group of interest.
        surv: follow-up of the same n patients.
        month: horizon > 0.
        level: coverage.

    Returns:
        The difference in months; nan when follow-up of a group ends before the month.

    Raises:
        TableError: E-LENGTH, E-MISSING, E-EVENT. FitError: E-ONEGROUP, E-HORIZON.
    """
    marked = labels(aligned(high, follow_up(surv)), len(surv), "high")
    coverage(level)
    if marked.all() or not marked.any():
        raise FitError(Problem("E-ONEGROUP", "a comparison needs at least two groups", found="1 group"))
    first, second = (restricted_mean(surv.take(rows), month) for rows in (marked, ~marked))
    return normal_estimate(first.mean.value - second.mean.value, float(np.hypot(first.se, second.se)), level=level,
                           null=0.0)


def _limits(survival: Vector, log_se: Vector, interval: Interval, z: float) -> tuple[Vector, Vector]:
    """Pointwise interval on the chosen scale; 1 before the first event, nan once S = 0."""
    inner = (survival > 0) & (survival < 1)
    s, half = survival[inner], z * log_se[inner]
    if interval == "plain":
        low, high = s - half * s, s + half * s
    elif interval == "log":
        low, high = s * np.exp(-half), s * np.exp(half)
    else:
        shift = half / np.log(s)  # negative
        low, high = s ** np.exp(-shift), s ** np.exp(shift)
    outside = np.where(survival == 1, 1.0, nan)
    lower, upper = outside.copy(), outside.copy()
    lower[inner], upper[inner] = np.clip(low, 0.0, 1.0), np.clip(high, 0.0, 1.0)
    return lower, upper


def _crossing(time: Vector, curve: Vector, level: float) -> float:
    """First time the falling curve is below `level`; midway over a stretch that lies on it; nan if it never is."""
    tolerance = 1e-12
    reached = np.flatnonzero(curve <= level + tolerance)
    if reached.size == 0:
        return nan
    first = reached[0]
    if curve[first] < level - tolerance:
        return float(time[first])
    below = np.flatnonzero(curve < level - tolerance)
    return float((time[first] + time[below[0]]) / 2.0) if below.size else float(time[first])
