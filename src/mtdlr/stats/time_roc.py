"""Cumulative/dynamic ROC at a month: who has had the event by then against who is still free of it.

Patients censored earlier are represented by those followed longer (inverse probability of censoring weighting), so the
area does not depend on how long the patients happened to be followed.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import nan

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mtdlr.errors import Problem
from mtdlr.estimate import Estimate
from mtdlr.stats.checks import coverage, month_of, risks
from mtdlr.stats.inference import (
    Comparison,
    few_events,
    few_events_estimate,
    influence_error,
    normal_estimate,
    perfect,
)
from mtdlr.stats.ipcw import Censoring, censoring, censoring_influence, horizon_weights, out_of_reach
from mtdlr.stats.roc import Roc, roc
from mtdlr.survival import Survival

Vector = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class TimeAuc:
    """Cumulative/dynamic ROC curve at a month.

    Args:
        month: horizon.
        auc: area with a normal interval within [0, 1] and p against 0.5; nan where the data do not reach.
        se: influence-function standard error, which includes the estimation of the censoring weights.
        thresholds, sensitivity, specificity: (k,), as in `Roc`, weighted.
        n_cases: patients with the event by the month.
        n_controls: patients followed beyond it, or to it where nobody is followed beyond.
        warnings: W-HORIZON when there are no cases or no controls, W-FEWEVENTS below 20 of either.
    """

    month: float
    auc: Estimate
    se: float
    thresholds: Vector
    sensitivity: Vector
    specificity: Vector
    n_cases: int
    n_controls: int
    warnings: tuple[Problem, ...] = ()


def auc_at(risk: ArrayLike, surv: Survival, month: float, *, level: float = 0.95) -> TimeAuc:
    """The cumulative/dynamic AUC of a risk at one month; never extrapolated.

    Args:
        risk: (n,), higher is worse.
        surv: follow-up of the same n patients.
        month: horizon > 0.
        level: coverage of the interval.

    Raises:
        TableError: E-LENGTH, E-MISSING.

    References:
        Uno et al. JASA 2007; Hung & Chiang 2010; Blanche et al. Stat Med 2013 (variance); R: riskRegression::Score.

    >>> auc_at([3.0, 2.0, 1.0, 0.0], Survival([10.0, 20.0, 40.0, 50.0], [1, 0, 1, 0]), 36).auc.value
    1.0
    """
    values, month = risks(risk, surv), month_of(month)
    coverage(level)
    curve = censoring(surv)
    weights = horizon_weights(curve, surv, month)
    found = _area(values, surv, month, curve, weights)
    if found is None:
        empty = np.empty(0)
        return TimeAuc(month, Estimate(nan), nan, empty, empty, empty, *_counts(*weights),
                       (out_of_reach(surv, month),))
    area, influence = found
    se = influence_error(influence)
    counts = _counts(*weights)
    fewer = min(counts)
    estimate = few_events_estimate(area, se, fewer, level=level, null=0.5, bounds=(0.0, 1.0))
    return TimeAuc(month, estimate, se, *_curve(values, *weights), *counts, few_events(fewer, "AUC(t)"))


def compare_auc_at(
    risk_a: ArrayLike, risk_b: ArrayLike, surv: Survival, month: float, *, level: float = 0.95
) -> Comparison:
    """AUC(month) of the first risk minus that of the second on the same patients, by their influence functions.

    Args:
        risk_a: (n,), higher is worse.
        risk_b: (n,), higher is worse.
        surv: follow-up of the same n patients.
        month: horizon > 0; where nothing is known at it the difference is nan, with W-HORIZON.
        level: coverage of the interval.

    Raises:
        TableError: E-LENGTH, E-MISSING.
        FitError: E-HORIZON, E-OPTION.

    References:
        Blanche et al. Stat Med 2013.
    """
    first, second, month = risks(risk_a, surv, "risk_a"), risks(risk_b, surv, "risk_b"), month_of(month)
    coverage(level)
    curve = censoring(surv)
    weights = horizon_weights(curve, surv, month)
    a, b = (_area(values, surv, month, curve, weights) for values in (first, second))
    if a is None or b is None:
        return Comparison(Estimate(nan), nan, "ipcw", (out_of_reach(surv, month),))
    difference, se = a[0] - b[0], influence_error(a[1] - b[1])
    z = difference / se if se > 0 else nan
    fewer = min(_counts(*weights))
    if fewer < 2:
        return Comparison(Estimate(difference), nan, "ipcw", few_events(fewer, "the difference"))
    if told := perfect(a[0], b[0]):
        return Comparison(Estimate(difference), nan, "ipcw", told)
    return Comparison(normal_estimate(difference, se, level=level, null=0.0), z, "ipcw")


def known_status_roc(risk: ArrayLike, surv: Survival, month: float, *, level: float = 0.95) -> Roc:
    """ROC of the status at a month among the patients in whom it is known; those censored earlier are left out.

    Biased unless censoring has nothing to do with risk and time: `auc_at` is the one to report.

    Args:
        risk: (n,), higher is worse.
        surv: follow-up of the same n patients.
        month: horizon > 0.
        level: coverage of the interval.

    Raises:
        TableError: E-LENGTH, E-MISSING.
        FitError: E-ONECLASS.
    """
    values = risks(risk, surv)
    event, known = surv.status_at(month_of(month))
    return roc(values[known], event[known], level=level)


def _area(
    values: Vector, surv: Survival, month: float, curve: Censoring, case_and_control: tuple[Vector, Vector]
) -> tuple[float, Vector] | None:
    """AUC(month) and each patient's influence on it (n times the derivative by the patient's share); None out of reach.

    AUC = sum_i w_i P_i / sum_i w_i over the cases, P_i the share of controls below case i: the weight of the controls,
    1 / G(month), is the same for all and cancels.
    """
    weights, controls = case_and_control
    at_end = controls > 0
    if not weights.any() or not at_end.any():
        return None
    distinct, which = np.unique(values, return_inverse=True)
    control_count = np.bincount(which[at_end], minlength=distinct.size)
    case_weight = np.bincount(which, weights=weights, minlength=distinct.size)
    n_controls, total = control_count.sum(), case_weight.sum()
    below = ((np.cumsum(control_count) - control_count / 2.0) / n_controls)[which]
    above = (1.0 - (np.cumsum(case_weight) - case_weight / 2.0) / total)[which]
    area = float(weights @ below / total)
    excess = weights * (below - area)
    n = values.size
    through_censoring = censoring_influence(curve, surv, month, excess, np.zeros(n))
    influence = n * ((excess + through_censoring) / total + np.where(at_end, (above - area) / n_controls, 0.0))
    return area, influence


def _curve(values: Vector, weights: Vector, controls: Vector) -> tuple[Vector, Vector, Vector]:
    """Thresholds midway between the distinct risks, weighted sensitivity and specificity."""
    distinct, which = np.unique(values, return_inverse=True)
    cases = np.bincount(which, weights=weights, minlength=distinct.size)
    others = np.bincount(which, weights=controls, minlength=distinct.size)
    thresholds = np.concatenate(([-np.inf], (distinct[1:] + distinct[:-1]) / 2.0, [np.inf]))
    return (thresholds, 1.0 - np.concatenate(([0.0], np.cumsum(cases))) / cases.sum(),
            np.concatenate(([0.0], np.cumsum(others))) / others.sum())


def _counts(cases: Vector, controls: Vector) -> tuple[int, int]:
    """Patients with a weight: cases and controls."""
    return int((cases > 0).sum()), int((controls > 0).sum())
