"""Inverse probability of censoring: the curve of staying under observation, its weights and their influence."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mtdlr.errors import Problem
from mtdlr.survival import Survival

Vector = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Censoring:
    """Kaplan-Meier curve G of the censoring; at a shared time events leave first, censored patients after them.

    Args:
        time: (m,), distinct follow-up times, ascending.
        at_risk: (m,), patients who can still be censored at each time (events of that time taken out).
        censored: (m,), patients censored at each time.
        before: (m,), G(t-), the probability of being uncensored just before each time.
        after: (m,), G(t).
    """

    time: Vector
    at_risk: Vector
    censored: Vector
    before: Vector
    after: Vector

    def just_before(self, months: ArrayLike) -> Vector:
        """G(t-) at any months."""
        return self._step(np.searchsorted(self.time, np.asarray(months, dtype=np.float64), side="left"))

    def at(self, months: ArrayLike) -> Vector:
        """G(t) at any months."""
        return self._step(np.searchsorted(self.time, np.asarray(months, dtype=np.float64), side="right"))

    def _step(self, passed: NDArray[np.intp]) -> Vector:
        return np.concatenate(([1.0], self.after))[passed]


def censoring(surv: Survival) -> Censoring:
    """The censoring curve of the patients.

    >>> c = censoring(Survival([1.0, 2.0, 2.0, 3.0], [1, 1, 0, 1]))
    >>> c.just_before([2.0, 3.0]).tolist()
    [1.0, 0.5]
    """
    time, which = np.unique(surv.time_months, return_inverse=True)
    leaving = np.bincount(which, minlength=time.size).astype(np.float64)
    events = np.bincount(which, weights=surv.event, minlength=time.size)
    at_risk: Vector = leaving[::-1].cumsum()[::-1] - events
    censored = leaving - events
    after = np.asarray(np.cumprod(1.0 - censored / np.maximum(at_risk, 1.0)), dtype=np.float64)
    return Censoring(time, at_risk, censored, np.concatenate(([1.0], after[:-1])), after)


def horizon_weights(curve: Censoring, surv: Survival, month: float) -> tuple[Vector, Vector]:
    """Weights of the patients with the event by `month` and of those still free of it, each summing to about n.

    A case weighs 1 / G(T-), a patient followed beyond `month` 1 / G(month), everybody censored earlier 0. Where nobody
    is followed beyond it, as when all follow-up is cut there, a patient censored at it is free of the event and weighs
    1 / G(month-). Whether the horizon is within follow-up at all is the caller's question.

    Args:
        curve: `censoring(surv)`.
        surv: follow-up of the n patients.
        month: horizon in months.

    Returns:
        (cases, controls), each (n,); 0 for all other patients.

    References:
        Graf et al. Stat Med 1999; Uno et al. JASA 2007.
    """
    case = surv.event & (surv.time_months <= month)
    control, watched = surv.time_months > month, curve.at(month)
    if not control.any():
        control, watched = ~surv.event & (surv.time_months == month), curve.just_before(month)
    cases, controls = np.zeros(len(surv)), np.zeros(len(surv))
    cases[case] = 1.0 / curve.just_before(surv.time_months[case])
    if control.any():
        controls[control] = 1.0 / float(watched)
    return cases, controls


def out_of_reach(surv: Survival, month: float) -> Problem:
    """The warning W-HORIZON: nothing can be estimated at a month.

    Args:
        surv: follow-up of the patients.
        month: the horizon asked about, in months.
    """
    events = int((surv.event & (surv.time_months <= month)).sum())
    return Problem("W-HORIZON", "nothing can be said at this month: no event before it, or follow-up ends before it",
                   where=f"month {month:g}", found=f"{events} events by then, last follow-up at "
                   f"{surv.time_months.max():g}", remedy="Choose an earlier month")


def censoring_influence(
    curve: Censoring, surv: Survival, month: float, cases: Vector, controls: Vector
) -> Vector:
    """(n,) derivative of sum(cases) + sum(controls) by each patient's weight, through the censoring curve alone.

    `cases` holds terms that carry 1 / G(T-), `controls` terms that carry 1 / G(month). A patient censored at u lowers
    G after u and so raises every later term; being at risk of censoring does the opposite.

    Args:
        curve: `censoring(surv)`.
        surv: follow-up of the n patients.
        month: horizon in months.
        cases: (n,) terms that carry 1 / G(T-).
        controls: (n,) terms that carry 1 / G(month).

    References:
        Blanche, Dartigues & Jacqmin-Gadda, Stat Med 2013 (appendix), here as the exact derivative of the
        Kaplan-Meier product.
    """
    which = np.searchsorted(curve.time, surv.time_months)
    at_time = np.bincount(which, weights=cases, minlength=curve.time.size)
    affected = at_time[::-1].cumsum()[::-1] - at_time + controls.sum() * (curve.time <= month)
    left = curve.at_risk - curve.censored
    per_unit = np.divide(affected, left, out=np.zeros(left.size), where=left > 0)
    hazard = np.divide(curve.censored, curve.at_risk, out=np.zeros(left.size), where=curve.at_risk > 0)
    compensator = np.concatenate(([0.0], np.cumsum(per_unit * hazard)))
    # Those with an event are not at risk of censoring at their own time.
    return np.where(surv.event, 0.0, per_unit[which]) - compensator[which + ~surv.event]
