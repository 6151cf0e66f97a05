"""The baseline hazard of a Cox model, and the survival that follows from it; hazards are kept as logarithms, so that no
linear predictor makes them overflow or vanish."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

from mtdlr.errors import FitError, Problem
from mtdlr.stats.checks import months_of
from mtdlr.stats.cox_likelihood import RiskSets, SortedRows, add_scaled, clear, rescaled

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

_EVENTS_A_STEP = 5
_LARGEST_LOG = 700.0  # exp(700) is finite, and survival under that hazard is 0 to the last bit


@dataclass(frozen=True, eq=False)
class Baseline:
    """The cumulative baseline hazard H of the patient at the column means, at the event times of each stratum.

    Args:
        strata: labels; ("all",) without strata.
        last_month: (strata,) the longest follow-up of each, in months; survival beyond it is nan.
        stratum: (m,) index into strata, rising.
        time_months: (m,) event times, rising within a stratum.
        log_hazard: (m,) log H (R: log(basehaz(centered = TRUE)); ties as in the fit).
        log_variance: (m,) of log H with the coefficients held fixed.
        mean: (m, p) mean of the columns in the risk sets up to the time, weighted by the steps of H, less the column
            means; its distance from a patient's columns carries the uncertainty of the coefficients (Tsiatis 1981).
        events: (m,) patients with the event at the time (R: n.event); since the time before, where interpolated.
        at_risk: (m,) patients under observation just before the time.
        interpolated: whether H runs straight between the times (a frozen baseline) instead of stepping at them.
    """

    strata: tuple[str, ...]
    last_month: Vector
    stratum: NDArray[np.int64]
    time_months: Vector
    log_hazard: Vector
    log_variance: Vector
    mean: Matrix
    events: Vector
    at_risk: Vector
    interpolated: bool = False

    def log_cumulative_hazard(self, months: ArrayLike, stratum: str | None = None) -> Vector:
        """(k,) log H at k months: -inf before the first event, nan beyond the last follow-up.

        Args:
            months: (k,), >= 0.
            stratum: whose baseline, for a stratified model.

        Raises:
            FitError: E-HORIZON, E-STRATUM.
        """
        return self._at(months, stratum)[:, 0]

    def log_hazard_se(self, rows: Matrix, months: ArrayLike, covariance: Matrix, stratum: str | None = None) -> Matrix:
        """(n, k) standard error of the log cumulative hazard of patients; 0 before the first event.

        Args:
            rows: (n, p), less the column means.
            months: (k,), >= 0.
            covariance: (p, p) of the coefficients.
            stratum: whose baseline, for a stratified model.

        Raises:
            FitError: E-HORIZON, E-STRATUM.
        """
        values = self._at(months, stratum)
        early, variance, mean = np.isneginf(values[:, 0]), values[:, 1], values[:, 2:]
        lean = mean[None, :, :] - rows[:, None, :]
        total = variance + np.einsum("nmi,ij,nmj->nm", lean, covariance, lean)
        result: Matrix = np.where(early, 0.0, np.sqrt(np.maximum(total, 0.0)))
        return result

    def _at(self, months: ArrayLike, stratum: str | None) -> Matrix:
        """(k, 2 + p) log H, its variance and mean at k months."""
        which, asked = self._index(stratum), months_of(months)
        mine = self.stratum == which
        time = np.append(0.0, self.time_months[mine])
        values = np.column_stack([self.log_hazard, self.log_variance, self.mean])[mine]
        first = values[:1].copy() if len(values) else np.zeros((1, 2 + self.mean.shape[1]))
        first[:, 0] = -np.inf
        steps = np.vstack([first, values])
        at = np.searchsorted(time, asked, side="right") - 1
        found = steps[at]
        if self.interpolated:
            right = np.minimum(at + 1, time.size - 1)
            share = np.where(right > at, (asked - time[at]) / np.maximum(time[right] - time[at], 1e-300), 0.0)
            with np.errstate(divide="ignore"):
                hazard = np.logaddexp(steps[at, 0] + np.log1p(-share), steps[right, 0] + np.log(share))
            found = steps[at] + share[:, None] * np.column_stack([0.0 * at, (steps[right] - steps[at])[:, 1:]])
            found[:, 0] = np.where(share > 0, hazard, steps[at, 0])
        return np.where((asked <= self.last_month[which])[:, None], found, np.nan)

    def _index(self, stratum: str | None) -> int:
        if stratum is None and len(self.strata) == 1:
            return 0
        if stratum not in self.strata:
            raise FitError(Problem("E-STRATUM", "the model has no such stratum", found=str(stratum),
                                   expected=" or ".join(self.strata)))
        return self.strata.index(stratum)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        values = {field.name: np.asarray(getattr(self, field.name)).tolist() for field in fields(self)}
        return values | {"strata": list(self.strata), "interpolated": self.interpolated}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Baseline:
        """The baseline that `as_dict` wrote."""
        arrays = {key: np.array(values[key], dtype=np.float64) for key in _VECTORS}
        for key in _VECTORS[1:]:
            arrays[key] = arrays[key].reshape(arrays["time_months"].size)
        mean = np.array(values["mean"], dtype=np.float64).reshape(arrays["time_months"].size, -1)
        stratum = np.array(values["stratum"], dtype=np.int64).reshape(arrays["time_months"].size)
        return cls(strata=tuple(values["strata"]), stratum=stratum, mean=mean,
                   interpolated=bool(values["interpolated"]), **arrays)


_VECTORS = ("last_month", "time_months", "log_hazard", "log_variance", "events", "at_risk")


def survival_of(log_hazard: ArrayLike) -> NDArray[np.float64]:
    """Survival exp(-H) of log cumulative hazards of any size, exact at both ends: 1 for -inf, 0 from 700 on.

    >>> survival_of([-np.inf, 0.0, 1e3]).round(3).tolist()
    [1.0, 0.368, 0.0]
    """
    result: NDArray[np.float64] = np.exp(-np.exp(np.minimum(np.asarray(log_hazard, dtype=np.float64), _LARGEST_LOG)))
    return result


def baseline_hazard(rows: SortedRows, eta: Vector, sets: RiskSets, scale: Vector, strata: tuple[str, ...]) -> Baseline:
    """The baseline of a fit.

    Args:
        rows: with x (n, p) standardised.
        eta: (n,) log hazards, 0 at the column means.
        sets: the risk sets.
        scale: (p,) units of x in one standardised one.
        strata: labels by stratum code.
    """
    log_hazard, log_variance, mean, events, at_risk = _by_time(rows, eta)
    group = np.flatnonzero(log_variance)
    group = group[np.lexsort((sets.time[group], sets.stratum[group]))]
    last = np.array([sets.time[sets.stratum == code].max() for code in range(len(strata))])
    return Baseline(strata, last, sets.stratum[group], sets.time[group], log_hazard[group], log_variance[group],
                    mean[group] * scale, events[group], at_risk[group])


def log_hazard_at(rows: SortedRows, eta: Vector, time: Vector, month: float) -> float:
    """The log cumulative baseline hazard at a month, at eta = 0; -inf before the first event.

    Args:
        rows: n rows of one stratum; an event time ends its group, which may hold later censored rows too.
        eta: (n,) log relative hazards, in sorted order.
        time: (n,) months, in sorted order.
        month: horizon in months.
    """
    reached = int(np.searchsorted(-time[rows.start[1:] - 1], -month))
    return float(_log_hazard_from(rows, eta, reached))


@njit(cache=True, error_model="numpy")
def _log_hazard_from(rows, eta, reached):  # type: ignore[no-untyped-def]
    """The log of the sum of the hazard's steps of the groups from `reached` on, whose times are the earliest."""
    s0, shift, none, empty = 0.0, 0.0, np.zeros(0), np.zeros((0, 0))
    top, total = -np.inf, 0.0
    for g in range(rows.fresh.size):
        shift, s0 = rescaled(eta, rows.weight, (rows.start[g], rows.start[g + 1]), shift, s0, none, empty)
        deaths, mass, t0 = 0.0, 0.0, 0.0
        for i in range(rows.start[g], rows.start[g + 1]):
            if rows.weight[i] > 0.0:
                r = rows.weight[i] * np.exp(eta[i] - shift)
                if rows.event[i]:
                    deaths += rows.patients[i]
                    mass += rows.weight[i]
                    t0 += r
                else:
                    s0 += r
        if deaths > 0.0 and g >= reached:
            step = np.log(tied_steps(s0, t0, mass, int(deaths) if rows.efron else 1)[0]) - shift
            if step > top:
                total, top = total * np.exp(top - step), step
            total += np.exp(step - top)
        s0 += t0
    return top + np.log(total)


@njit(cache=True, error_model="numpy")
def _by_time(rows, eta):  # type: ignore[no-untyped-def]
    """At the time of each group, latest first: the log cumulative hazard, its variance (0 without an event), the mean
    of x weighted by the steps, patients with the event and patients at risk. A first pass over the falling times gives
    the steps, a second one over the rising times their running sums, all as logarithms."""
    groups, p = rows.fresh.size, rows.x.shape[1]
    log_hazard, log_variance, mean = np.full(groups, -np.inf), np.zeros(groups), np.zeros((groups, p))
    events, at_risk = np.zeros(groups), np.zeros(groups)
    s0, s1, t1, none, shift, alive = 0.0, np.zeros(p), np.zeros(p), np.zeros((0, 0)), 0.0, 0.0
    for g in range(groups):
        if rows.fresh[g]:
            s0, alive = 0.0, 0.0
            clear(s1)
        shift, s0 = rescaled(eta, rows.weight, (rows.start[g], rows.start[g + 1]), shift, s0, s1, none)
        deaths, mass, t0 = 0.0, 0.0, 0.0
        clear(t1)
        for i in range(rows.start[g], rows.start[g + 1]):
            if rows.weight[i] > 0.0:
                r = rows.weight[i] * np.exp(eta[i] - shift)
                alive += rows.patients[i]
                if rows.event[i]:
                    deaths += rows.patients[i]
                    mass += rows.weight[i]
                    t0 += r
                    add_scaled(t1, r, rows.x[i])
                else:
                    s0 += r
                    add_scaled(s1, r, rows.x[i])
        if deaths > 0.0:
            c0, d0, d1 = tied_steps(s0, t0, mass, int(deaths) if rows.efron else 1)
            log_hazard[g], log_variance[g] = np.log(c0) - shift, d0 / c0**2
            events[g], at_risk[g] = deaths, alive
            s0 += t0
            for a in range(p):
                mean[g, a] = (d0 * s1[a] + d1 * t1[a]) / c0
            add_scaled(s1, 1.0, t1)
    _summed(log_hazard, log_variance, mean, rows.fresh)
    return log_hazard, log_variance, mean, events, at_risk


@njit(cache=True, error_model="numpy")
def tied_steps(s0, t0, mass, terms):  # type: ignore[no-untyped-def]
    """Sums over the terms j of one time of step, step / at_risk and v step / at_risk, with v = (terms - j) / terms,
    at_risk = s0 + v t0 and step = mass / terms / at_risk.

    Args:
        s0: sum of the relative hazards of those at risk who do not die at this time.
        t0: sum of the relative hazards of those who die at this time.
        mass: weight of the events of this time.
        terms: number of terms: the tied events with Efron's correction, 1 with Breslow's.

    Returns:
        (c0, d0, d1): the three sums.
    """
    c0, d0, d1 = 0.0, 0.0, 0.0
    for j in range(terms):
        v = (terms - j) / terms
        at_risk = s0 + v * t0
        step = mass / terms / at_risk
        c0 += step
        d0 += step / at_risk
        d1 += step * v / at_risk
    return c0, d0, d1


@njit(cache=True, error_model="numpy")
def _summed(log_hazard, log_variance, mean, fresh):  # type: ignore[no-untyped-def]
    """Steps (groups,), latest first, made into running sums from the earliest time of each stratum on, in place."""
    last = -1  # the group of the event before
    for g in range(fresh.size - 1, -1, -1):
        if log_variance[g] > 0.0:
            if last >= 0:
                total = np.logaddexp(log_hazard[last], log_hazard[g])
                before, new = np.exp(log_hazard[last] - total), np.exp(log_hazard[g] - total)
                log_hazard[g] = total
                log_variance[g] = before**2 * log_variance[last] + new**2 * log_variance[g]
                for a in range(mean.shape[1]):
                    mean[g, a] = before * mean[last, a] + new * mean[g, a]
            last = g
        if fresh[g]:
            last = -1


def frozen_baseline(baseline: Baseline, months: ArrayLike) -> Baseline:
    """The baseline at the horizons and on a coarse grid of whole months, to be given away with a model.

    A baseline at every event time gives the training patients away: from the steps of the hazard and of the mean
    follows who left the risk set between two events. Here each step holds at least five events; H runs straight in
    between, and ends at the last step. A horizon with fewer than five events since the step before keeps its hazard
    to the last bit and takes the variance and the mean of that step.

    Args:
        baseline: of a fit without strata.
        months: the horizons, kept exactly where they lie within follow-up.

    Returns:
        An interpolated baseline; the horizons' survival is that of `baseline`.

    Raises:
        FitError: E-HORIZON, E-STRATUM.
    """
    which = baseline._index(None)
    end = float(baseline.last_month[which])
    kept = months_of(months)
    kept = np.sort(kept[kept <= end])
    time, events = baseline.time_months, np.cumsum(baseline.events)
    whole = np.arange(1.0, np.floor(end) + 1.0)
    seen = np.append(0.0, events)[np.searchsorted(time, np.append(whole, kept), side="right")]
    until_whole, until_kept = seen[: whole.size], seen[whole.size :]
    points: list[float] = []
    before = 0.0
    for month, count in zip(whole, until_whole, strict=True):
        following = until_kept[kept >= month]
        room = following[0] - count if following.size else np.inf
        passed = until_kept[kept < month]
        before = max(before, float(passed[-1]) if passed.size else 0.0)
        if count - before >= _EVENTS_A_STEP and (room == 0 or room >= _EVENTS_A_STEP):
            points.append(float(month))
            before = float(count)
    grid = np.unique(np.append(kept[until_kept > 0], points))
    values, count = baseline._at(grid, None), np.append(0.0, events)[np.searchsorted(time, grid, side="right")]
    for k in range(1, grid.size):
        if count[k] - count[k - 1] < _EVENTS_A_STEP:
            values[k, 1:] = values[k - 1, 1:]
    at_risk = np.append(baseline.at_risk, 0.0)[np.searchsorted(time, grid, side="left")]
    last = grid[-1] if grid.size else 0.0
    return Baseline(baseline.strata, np.array([last]), np.zeros(grid.size, dtype=np.int64), grid, values[:, 0],
                    values[:, 1], values[:, 2:], np.diff(count, prepend=0.0), at_risk, interpolated=True)
