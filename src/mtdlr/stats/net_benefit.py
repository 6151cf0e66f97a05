"""Net benefit with its error, and how much more of it one model gives than another."""

from __future__ import annotations

from dataclasses import dataclass
from math import nan

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mtdlr.errors import Problem, TableError
from mtdlr.stats.checks import probabilities
from mtdlr.stats.inference import influence_error, normal_quantile
from mtdlr.survival import Survival

Vector = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class NetBenefit:
    """Net benefit, or a difference of two, over thresholds.

    Args:
        month: horizon.
        thresholds: (k,), risk at which one would treat.
        value: (k,), true positives less false positives weighed by the odds of the threshold, per patient; nan where
            the positives are not followed to the month.
        low, high: (k,), pointwise normal interval.
        se: (k,), influence-function standard error.
    """

    month: float
    thresholds: Vector
    value: Vector
    low: Vector
    high: Vector
    se: Vector


def net_benefit(
    predicted_survival: ArrayLike, surv: Survival, month: float, thresholds: ArrayLike, *, level: float = 0.95
) -> NetBenefit:
    """Net benefit at a month with its interval; the value is that of `decision_curve`.

    Args:
        predicted_survival: (n,), predicted probability of being event-free at `month`; zeros treat everybody.
        surv: follow-up of the same n patients.
        month: horizon > 0.
        thresholds: (k,), within (0, 1).
        level: coverage of the interval.

    Raises:
        TableError: E-LENGTH, E-MISSING, E-PROBABILITY.

    References:
        Vickers & Elkin 2006; Vickers et al. 2008 (censoring); the error is the derivative of the Kaplan-Meier product
        by each patient's weight.
    """
    return _estimated(_influences(predicted_survival, surv, month, thresholds), month, thresholds, level)


def compare_net_benefit(
    survival_a: ArrayLike, survival_b: ArrayLike, surv: Survival, month: float, thresholds: ArrayLike, *,
    level: float = 0.95,
) -> NetBenefit:
    """Net benefit of the first prediction minus that of the second on the same patients; above 0 the first is better.

    Args:
        survival_a: (n,), predicted probability of being event-free at `month`.
        survival_b: (n,), the same of the second model.
        surv: follow-up of the same n patients.
        month: horizon > 0.
        thresholds: (k,), within (0, 1).
        level: coverage of the interval.

    Raises:
        TableError: E-LENGTH, E-MISSING, E-PROBABILITY.
    """
    first, second = (_influences(each, surv, month, thresholds) for each in (survival_a, survival_b))
    return _estimated((first[0] - second[0], first[1] - second[1]), month, thresholds, level)


def _estimated(found: tuple[Vector, NDArray[np.float64]], month: float, thresholds: ArrayLike, level: float
               ) -> NetBenefit:
    value, influence = found
    se = np.array([influence_error(column) for column in influence.T])
    half = normal_quantile(level) * se
    return NetBenefit(month, np.asarray(thresholds, dtype=np.float64), value, value - half, value + half, se)


def _influences(
    predicted_survival: ArrayLike, surv: Survival, month: float, thresholds: ArrayLike
) -> tuple[Vector, NDArray[np.float64]]:
    """(k,) net benefit and (n, k) each patient's influence on it."""
    risk = 1.0 - probabilities(predicted_survival, surv)
    grid = np.atleast_1d(np.asarray(thresholds, dtype=np.float64))
    if ((grid <= 0) | (grid >= 1)).any():
        raise TableError(Problem("E-PROBABILITY", "a decision threshold must lie between 0 and 1"))
    value, influence = np.zeros(grid.size), np.zeros((risk.size, grid.size))
    for k, threshold in enumerate(grid):
        positive = risk >= threshold - 1e-12  # within rounding of the threshold counts as reaching it
        odds, share = threshold / (1.0 - threshold), float(positive.mean())
        true, true_influence = _true_positives(positive, surv, month)
        value[k] = (1.0 + odds) * true - odds * share
        influence[:, k] = (1.0 + odds) * true_influence - odds * (positive - share)
    return value, influence


def _true_positives(positive: NDArray[np.bool_], surv: Survival, month: float) -> tuple[float, Vector]:
    """Events by the month among the positives, per patient of the whole, and each patient's influence on it."""
    n, share, influence = positive.size, float(positive.mean()), np.zeros(positive.size)
    if not positive.any():
        return 0.0, influence
    inside = surv.take(positive)
    stay, gradient = _kaplan_meier_gradient(inside, month)
    influence[positive] = -share * n * stay * gradient
    return share * (1.0 - stay), influence + (positive - share) * (1.0 - stay)


def _kaplan_meier_gradient(surv: Survival, month: float) -> tuple[float, Vector]:
    """Survival at a month, and the derivative of its logarithm by each patient's weight; nan beyond follow-up."""
    time, which = np.unique(surv.time_months, return_inverse=True)
    at_risk = np.bincount(which)[::-1].cumsum()[::-1]
    events = np.where(time <= month, np.bincount(which[surv.event], minlength=time.size), 0)
    staying = at_risk - events
    stay = float(np.prod(1.0 - events / at_risk))
    if month > time[-1] and staying[-1] > 0:
        return nan, np.full(len(surv), nan)
    per_event = np.divide(1.0, staying, out=np.zeros(time.size), where=staying > 0)
    passed = np.cumsum(events / at_risk * per_event)
    own = np.where(surv.event & (surv.time_months <= month), per_event[which], 0.0)
    return stay, passed[which] - own
