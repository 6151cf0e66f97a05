"""Prediction error and usefulness at a month: Brier score and IPA, decision curve."""

from __future__ import annotations

from dataclasses import dataclass
from math import nan

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mtdlr.errors import Problem, TableError
from mtdlr.estimate import Estimate
from mtdlr.stats.checks import aligned, coverage, follow_up, month_of, months_of, probabilities
from mtdlr.stats.inference import Comparison, influence_error, normal_estimate
from mtdlr.stats.ipcw import censoring, censoring_influence, horizon_weights, out_of_reach
from mtdlr.stats.kaplan_meier import kaplan_meier
from mtdlr.survival import Survival, numbers

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Brier:
    """Mean squared error of a predicted probability at a month; nan where the data do not reach.

    Args:
        month: horizon.
        score: Brier score with a normal interval; 0 is perfect, 0.25 is a coin.
        null: score of the Kaplan-Meier risk given to everybody.
        ipa: index of prediction accuracy, 1 - score / null; at or below 0 the model is no better than no model.
        se: influence-function standard error of the score, which includes the estimation of the censoring weights.
        warnings: W-HORIZON.
    """

    month: float
    score: Estimate
    null: float
    ipa: float
    se: float
    warnings: tuple[Problem, ...] = ()


@dataclass(frozen=True, eq=False)
class IntegratedBrier:
    """Brier score integrated over a span of months and divided by its length (trapezoids).

    Args:
        months: (m,), ascending.
        scores, null: (m,), of the model and of the Kaplan-Meier risk.
        ibs, null_ibs: their integrals.
        ipa: 1 - ibs / null_ibs.
    """

    months: Vector
    scores: Vector
    null: Vector
    ibs: float
    null_ibs: float
    ipa: float


@dataclass(frozen=True, eq=False)
class DecisionCurve:
    """Net benefit of treating those whose predicted risk reaches a threshold.

    Args:
        month: horizon.
        thresholds: (k,), risk at which one would treat.
        net_benefit: (k,), true positives less false positives weighed by the odds of the threshold, per patient.
        treat_all: (k,), net benefit of treating everybody; treating nobody has 0.
        tp_rate, fp_rate: (k,), true and false positives per patient (Kaplan-Meier among the positives).
        n_positive: (k,), patients at or above the threshold.
        warnings: W-HORIZON.
    """

    month: float
    thresholds: Vector
    net_benefit: Vector
    treat_all: Vector
    tp_rate: Vector
    fp_rate: Vector
    n_positive: NDArray[np.int64]
    warnings: tuple[Problem, ...] = ()


def brier_score(predicted_survival: ArrayLike, surv: Survival, month: float, *, level: float = 0.95) -> Brier:
    """The Brier score at a month, with the patients censored earlier represented by weights.

    Args:
        predicted_survival: (n,), predicted probability of being event-free at `month`.
        surv: follow-up of the same n patients.
        month: horizon > 0; beyond the last follow-up everything is nan.
        level: coverage of the interval.

    Raises:
        TableError: E-LENGTH, E-MISSING, E-PROBABILITY.

    References:
        Graf et al. Stat Med 1999; Gerds & Schumacher 2006; Kattan & Gerds 2018 (IPA); R: riskRegression::Score.
    """
    risk, month = 1.0 - probabilities(predicted_survival, surv), month_of(month)
    coverage(level)
    if _beyond(surv, month):
        return Brier(month, Estimate(nan), nan, nan, nan, (out_of_reach(surv, month),))
    score, influence = _squared_error(risk, surv, month)
    null = _squared_error(np.full(risk.size, _kaplan_meier_risk(surv, month)), surv, month)[0]
    se = influence_error(influence)
    ipa = 1.0 - score / null if null > 0 else nan
    return Brier(month, normal_estimate(score, se, level=level, bounds=(0.0, 1.0)), null, ipa, se)


def compare_brier(
    survival_a: ArrayLike, survival_b: ArrayLike, surv: Survival, month: float, *, level: float = 0.95
) -> Comparison:
    """Brier score of the first prediction minus that of the second on the same patients; below 0 the first is better.

    Args:
        survival_a: (n,), predicted probability of being event-free at `month`.
        survival_b: (n,), the same of the second model.
        surv: follow-up of the same n patients.
        month: horizon > 0; where nothing is known at it the difference is nan, with W-HORIZON.
        level: coverage of the interval.

    Raises:
        TableError: E-LENGTH, E-MISSING, E-PROBABILITY.
        FitError: E-HORIZON, E-OPTION.
    """
    a = 1.0 - probabilities(survival_a, surv, "survival_a")
    b = 1.0 - probabilities(survival_b, surv, "survival_b")
    month = month_of(month)
    coverage(level)
    if _beyond(surv, month):
        return Comparison(Estimate(nan), nan, "ipcw", (out_of_reach(surv, month),))
    (first, influence_a), (second, influence_b) = (_squared_error(risk, surv, month) for risk in (a, b))
    difference, se = first - second, influence_error(influence_a - influence_b)
    z = difference / se if se > 0 else nan
    return Comparison(normal_estimate(difference, se, level=level, null=0.0), z, "ipcw")


def integrated_brier(predicted_survival: ArrayLike, surv: Survival, months: ArrayLike) -> IntegratedBrier:
    """The Brier score over a span of months as one number.

    Args:
        predicted_survival: (n, m), event-free probability of each patient at each month.
        surv: follow-up of the same n patients.
        months: (m >= 2,), ascending; the last must be before the last follow-up, or the result is nan.

    Raises:
        TableError: E-LENGTH, E-MISSING, E-PROBABILITY.
    """
    grid, table = months_of(months), numbers(aligned(predicted_survival, follow_up(surv)), "predicted_survival")
    if grid.ndim != 1 or grid.size < 2 or (np.diff(grid) <= 0).any() or table.shape != (len(surv), grid.size):
        raise TableError(Problem("E-LENGTH", "predictions need one row per patient and one column per rising month",
                                 found=f"shape {table.shape} for {grid.size} months",
                                 expected=f"({len(surv)}, m >= 2)"))
    risk = 1.0 - np.column_stack([probabilities(column, surv) for column in table.T])
    overall = np.array([1.0 - stay.value for stay in kaplan_meier(surv).at(grid)])
    model, null = _mean_squared_errors(risk, surv, grid), _mean_squared_errors(overall[None, :], surv, grid)
    model = np.where(np.isnan(overall), nan, model)
    width = grid[-1] - grid[0]
    ibs, null_ibs = (float(np.trapezoid(y, grid) / width) for y in (model, null))
    return IntegratedBrier(grid, model, null, ibs, null_ibs, 1.0 - ibs / null_ibs if null_ibs > 0 else nan)


def decision_curve(
    predicted_survival: ArrayLike, surv: Survival, month: float, *, thresholds: ArrayLike | None = None
) -> DecisionCurve:
    """Net benefit at a month over a range of thresholds.

    Args:
        predicted_survival: (n,), predicted probability of being event-free at `month`.
        surv: follow-up of the same n patients.
        month: horizon > 0.
        thresholds: (k,), within (0, 1); 0.01 to 0.99 in hundredths if not given.

    Returns:
        The curve; nan at a threshold whose positives are not followed up to the month.

    Raises:
        TableError: E-LENGTH, E-MISSING, E-PROBABILITY.

    References:
        Vickers & Elkin 2006; Vickers et al. BMC Med Inform Decis Mak 2008, extension to censored data; R: dcurves.
    """
    risk, month = 1.0 - probabilities(predicted_survival, surv), month_of(month)
    grid = np.arange(1, 100) / 100.0 if thresholds is None else np.atleast_1d(numbers(thresholds, "thresholds"))
    if grid.ndim != 1 or not ((grid > 0) & (grid < 1)).all():
        raise TableError(Problem("E-PROBABILITY", "a decision threshold must lie between 0 and 1"))
    odds = grid / (1.0 - grid)
    everyone = nan if _beyond(surv, month) else _kaplan_meier_risk(surv, month)
    # A prediction within rounding of the threshold counts as reaching it.
    positive = risk[:, None] >= grid - 1e-12
    share = positive.mean(axis=0)
    tp_rate = np.array([_true_positives(surv, rows, month) for rows in positive.T])
    fp_rate = share - tp_rate
    warnings = (out_of_reach(surv, month),) if np.isnan(everyone) else ()
    return DecisionCurve(month, grid, tp_rate - odds * fp_rate, everyone - odds * (1.0 - everyone), tp_rate, fp_rate,
                         positive.sum(axis=0), warnings)


def _squared_error(risk: Vector, surv: Survival, month: float) -> tuple[float, Vector]:
    """Brier score, and each patient's influence on it."""
    curve = censoring(surv)
    cases, controls = horizon_weights(curve, surv, month)
    case_part, control_part = cases * (1.0 - risk) ** 2, controls * risk**2
    score = float((case_part + control_part).mean())
    influence = case_part + control_part - score + censoring_influence(curve, surv, month, case_part, control_part)
    return score, influence


def _mean_squared_errors(risk: NDArray[np.float64], surv: Survival, months: Vector) -> Vector:
    """(m,) Brier scores of risks (n or 1, m) at every month."""
    curve, risk = censoring(surv), np.broadcast_to(risk, (len(surv), months.size))
    weights = [horizon_weights(curve, surv, float(month)) for month in months]
    return np.array([float((cases * (1.0 - own) ** 2 + controls * own**2).mean())
                     for (cases, controls), own in zip(weights, risk.T, strict=True)])


def _beyond(surv: Survival, month: float) -> bool:
    """Whether the status at the month cannot be known any more."""
    return np.isnan(kaplan_meier(surv).at(month)[0].value)


def _kaplan_meier_risk(surv: Survival, month: float) -> float:
    return 1.0 - kaplan_meier(surv).at(month)[0].value


def _true_positives(surv: Survival, rows: NDArray[np.bool_], month: float) -> float:
    """Events by the month among the marked, per patient of the whole."""
    if not rows.any():
        return 0.0
    return float(_kaplan_meier_risk(surv.take(rows), month) * rows.mean())

