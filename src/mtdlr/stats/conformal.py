"""A lower bound of the time to the event that holds for a stated share of new patients, by conformal prediction.

The model's curve S(t | x) orders the times of each patient; the bound is where the curve falls to a threshold q. The
threshold is set on patients whom the scores never saw, so that at most the share 1 - level has the event before its
bound; censored patients are replaced by inverse-probability-of-censoring weights. The guarantee is marginal, over
patients like those, not for each of them.

References: Candès, Lei & Ren, JRSS B 2023; Tibshirani et al., NeurIPS 2019 (weights); Robins & Rotnitzky 1992 (IPCW).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import nan
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mtdlr.errors import FitError, Problem
from mtdlr.stats.checks import need_events, probabilities
from mtdlr.stats.ipcw import censoring
from mtdlr.survival import Survival

Vector = NDArray[np.float64]
LEVELS = (0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
"""The guarantees that are kept."""
ENOUGH_EVENTS = 10
"""Events before the bounds below which a guarantee rests on too few."""
_STEP = 1000  # thresholds are rounded up to 1 / _STEP: no patient's own value is kept, and the bound stays valid
_FINE = 10_000  # patients from which on a tenth of a per cent lies outside chance
_FEWEST = 5  # patients behind a count that is written
_FOLDS = 10


@dataclass(frozen=True, eq=False)
class LowerBound:
    """Thresholds on predicted survival, by guaranteed share.

    Args:
        levels: (k,) shares of patients, rising.
        thresholds: (k,) predicted survival down to which a patient of each level is followed; nan where the patients
            are too few for the level.
        early: (k,) events before the bounds: what each guarantee rests on.
        coverage: (k,) share of patients without the event before the bound, cross-validated, with censoring weights.
        n, n_events: patients and events.
    """

    levels: Vector
    thresholds: Vector
    early: NDArray[np.int64]
    coverage: Vector
    n: int
    n_events: int

    def months(self, times: ArrayLike, survival: ArrayLike, level: float = 0.9) -> Vector:
        """(n,) months that each patient stays free of the event, with the guaranteed share `level`.

        Args:
            times: (m,) rising months at which the curves step.
            survival: (n, m) predicted survival there, falling.
            level: one of `levels`.

        Returns:
            The first time at which the curve is at or below the threshold; the last time where it stays above; nan
            where the level has no threshold.

        Raises:
            FitError: E-OPTION for a level that is not kept.
        """
        at = np.asarray(times, dtype=np.float64)
        threshold = self.thresholds[self._at(level)]
        curves = np.atleast_2d(np.asarray(survival, dtype=np.float64))
        if np.isnan(threshold):
            return np.full(len(curves), nan)
        fallen = curves <= threshold
        first = np.where(fallen.any(axis=1), fallen.argmax(axis=1), at.size - 1)
        result: Vector = at[first]
        return result

    def level_at(self, survival: ArrayLike) -> Vector:
        """(n,) the largest kept share whose bound lies beyond a month, from the survival there; nan below all."""
        values = np.asarray(survival, dtype=np.float64)
        reached = values[:, None] > np.where(np.isnan(self.thresholds), np.inf, self.thresholds)
        result: Vector = np.where(reached, self.levels, -np.inf).max(axis=1)
        return np.where(np.isfinite(result), result, nan)

    def problems(self, level: float = 0.9) -> tuple[Problem, ...]:
        """W-BOUNDEVENTS where a guarantee rests on too few events."""
        at = self._at(level)
        if self.early[at] >= ENOUGH_EVENTS and np.isfinite(self.thresholds[at]):
            return ()
        events = self.early[at] or f"fewer than {_FEWEST}"
        share = f"{100 * level:g} %"
        return (Problem("W-BOUNDEVENTS", f"too few events for a lower bound that holds for {share} of patients",
                        found=f"{events} events before the bounds, {self.n} patients",
                        expected=f"at least {ENOUGH_EVENTS}", remedy="Do not report the bound as guaranteed"),)

    def coverage_text(self, level: float = 0.9) -> str:
        """The cross-validated coverage of a level in words, in as many digits as the patients can carry.

        >>> LowerBound(np.array([0.9]), np.array([0.2]), np.array([12]), np.array([0.8765]), 120, 40).coverage_text()
        '88 % of 120 patients'
        """
        share = self.coverage[self._at(level)]
        if np.isnan(share):
            return f"not known from {self.n} patients"
        digits = int(self.n >= _FINE)
        return f"{100 * share:.{digits}f} % of {self.n} patients"

    def _at(self, level: float) -> int:
        found = np.flatnonzero(np.isclose(self.levels, level))
        if not found.size:
            raise FitError(Problem("E-OPTION", "this share was not kept with the model", found=f"{level:g}",
                                   expected=", ".join(f"{each:g}" for each in self.levels)))
        return int(found[0])

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; None where there is no threshold, 0 for counts of one to four events."""
        early = np.where(self.early < _FEWEST, 0, self.early)
        return {"levels": self.levels.tolist(), "early": early.tolist(), "n": self.n, "n_events": self.n_events,
                "thresholds": _plain(self.thresholds), "coverage": _plain(self.coverage)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> LowerBound:
        """The bound that `as_dict` wrote."""
        floats = {name: np.array([nan if v is None else v for v in values[name]], dtype=np.float64)
                  for name in ("levels", "thresholds", "coverage")}
        return cls(early=np.array(values["early"], dtype=np.int64), n=int(values["n"]),
                   n_events=int(values["n_events"]), **floats)


def fit_lower_bound(survival_at_own_time: ArrayLike, surv: Survival, *, levels: Sequence[float] = LEVELS) -> LowerBound:
    """Thresholds of the lower bound from patients whom the scores never saw.

    Args:
        survival_at_own_time: (n,) predicted survival of each patient at its own follow-up time, from cross-fitted
            scores, within [0, 1].
        surv: follow-up of the same patients.
        levels: shares to be guaranteed, in (0, 1).

    Raises:
        FitError: E-NOEVENTS; TableError: E-LENGTH, E-MISSING, E-PROBABILITY.
    """
    values = probabilities(survival_at_own_time, surv, "survival_at_own_time")
    need_events(surv.n_events, "a lower bound")
    rising = np.sort(np.asarray(levels, dtype=np.float64))
    thresholds, early = _thresholds(values, surv, rising)
    return LowerBound(rising, thresholds, early, _coverage(values, surv, rising), len(surv), surv.n_events)


def _thresholds(values: Vector, surv: Survival, levels: Vector) -> tuple[Vector, NDArray[np.int64]]:
    """(thresholds, events above each) of the levels.

    A patient fails its bound when the event comes while its curve is still above q. Going down from q = 1, weighted
    failures are added until one more would exceed the share, with the new patient counted as a failure.
    """
    n, order = len(surv), np.argsort(-values, kind="stable")
    weight = _failure_weights(surv)[order]
    above = np.cumsum(weight) - weight  # weight of the failures strictly before this one
    sorted_values = values[order]
    tied = np.searchsorted(-sorted_values, -sorted_values, side="right") - 1
    with_all_tied = (above + weight)[tied]
    thresholds, early = np.full(levels.size, nan), np.zeros(levels.size, dtype=np.int64)
    for k, level in enumerate(levels):
        room = (1.0 - level) * (n + 1) - 1.0
        if room < 0:
            continue
        over = np.flatnonzero(with_all_tied > room + 1e-12)
        q = float(sorted_values[over[0]]) if over.size else 0.0
        thresholds[k] = min(1.0, np.ceil(q * _STEP) / _STEP)
        early[k] = int(((sorted_values > thresholds[k]) & (weight > 0)).sum())
    return thresholds, early


def _failure_weights(surv: Survival) -> Vector:
    """(n,) 1 / G(T-) of each event, 0 for the censored."""
    remaining = censoring(surv).just_before(surv.time_months)
    return np.where(surv.event, 1.0 / np.maximum(remaining, 1e-12), 0.0)


def _coverage(values: Vector, surv: Survival, levels: Vector) -> Vector:
    """Share without the event before the bound, in folds that did not set the thresholds."""
    n, weight = len(surv), _failure_weights(surv)
    ranked = np.empty(n, dtype=np.int64)
    ranked[np.lexsort((values, surv.event))] = np.arange(n)
    fold, failures = ranked % min(_FOLDS, n), np.zeros(levels.size)
    for k in range(min(_FOLDS, n)):
        rest = surv.take(fold != k)
        if not rest.n_events:
            return np.full(levels.size, nan)
        thresholds, _ = _thresholds(values[fold != k], rest, levels)
        failures += (weight[fold == k, None] * (values[fold == k, None] > thresholds)).sum(axis=0)
        failures[np.isnan(thresholds)] = nan
    return 1.0 - failures / n


def _plain(values: Vector) -> list[float | None]:
    return [None if np.isnan(value) else float(value) for value in values]
