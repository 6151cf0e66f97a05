"""Updating a Cox model that came from elsewhere: its baseline, its slope, or its coefficients with shrinkage.

Each step keeps more of the model than the next: `baseline` estimates the baseline hazard again and leaves every rank
(and so every C-index) unchanged; `slope` also multiplies all coefficients by one number; `refit` lets each coefficient
deviate from that, shrunk towards it. The original is never changed.

References: van Houwelingen, Stat Med 2000 (validation by calibration); Steyerberg et al., Stat Med 2004 (revision with
shrinkage); Vergouwe et al., Stat Med 2017 (closed test); Thomassen et al., Stat Med 2024 (effective sample size).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import nan
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mtdlr.errors import FitError, Problem
from mtdlr.stats.concordance import concordance
from mtdlr.stats.cox import CoxFit, fit_cox
from mtdlr.stats.cox_baseline import baseline_hazard
from mtdlr.stats.cox_likelihood import sorted_rows
from mtdlr.stats.cox_rows import Cases, CoxRows
from mtdlr.stats.decision import brier_score
from mtdlr.stats.inference import Test, chi_square_test
from mtdlr.stats.kaplan_meier import kaplan_meier
from mtdlr.survival import Survival

Method = Literal["baseline", "slope", "refit"]
METHODS: tuple[Method, ...] = ("baseline", "slope", "refit")
"""From the smallest change to the largest."""
ENOUGH_EVENTS = {"baseline": 10, "slope": 50, "refit": 100}
"""Events below which each update is warned of."""
Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Update:
    """A model after its update.

    Args:
        method: what was estimated again.
        fit: the updated model, with the names of the original.
        slope: factor on all coefficients; 1 for `baseline`.
        shrinkage: share of each deviation that `refit` kept, 0 to 1; nan for the other methods.
        n, n_events: patients and events it was estimated from.
        problems: W-UPDATEEVENTS where the events are too few for the method, and what the fits said.
    """

    method: Method
    fit: CoxFit
    slope: float
    shrinkage: float
    n: int
    n_events: int
    problems: tuple[Problem, ...]


@dataclass(frozen=True)
class ClosedTest:
    """The tests of Vergouwe's closed procedure, and the smallest update that they do not reject.

    Args:
        chosen: "none", "baseline", "slope" or "refit".
        against_none, against_baseline, against_slope: refitted coefficients against each smaller change.
    """

    chosen: Literal["none", "baseline", "slope", "refit"]
    against_none: Test
    against_baseline: Test
    against_slope: Test


@dataclass(frozen=True)
class Performance:
    """C-index, calibration slope, observed over expected and scaled Brier score of a model, at a month."""

    c: float
    slope: float
    oe: float
    ipa: float


@dataclass(frozen=True)
class UpdateOptimism:
    """Performance of an update on the patients it was made from, and what is left of it after the bootstrap's optimism.

    O/E is corrected on the log scale. `failed` resamples could not be updated.
    """

    apparent: Performance
    corrected: Performance
    resamples: int
    failed: int


def update_cox(fit: CoxFit, x: ArrayLike, surv: Survival, method: Method) -> Update:
    """The model updated by the follow-up of other patients.

    Args:
        fit: the model as received (of a published one, coefficients and baseline alone).
        x: (n, p) design matrix of the new patients, the model's columns.
        surv: their follow-up.
        method: "baseline", "slope" or "refit".

    Raises:
        FitError: E-OPTION for another method; E-NOEVENTS, E-FEWEVENTS (fewer than 2), E-LENGTH, E-MISSING.

    >>> surv = Survival([2.0, 3.0, 5.0, 7.0, 8.0, 9.0], [1, 1, 0, 1, 0, 1])
    >>> fit = fit_cox([1.0, 0.0, 1.0, 0.5, 0.0, 0.2], surv)
    >>> update_cox(fit, [[2.0], [0.0], [1.0], [1.5], [0.0], [0.2]], surv, "baseline").fit.coef == fit.coef
    array([ True])
    """
    if method not in METHODS:
        raise FitError(Problem("E-OPTION", "unknown update", found=repr(method), expected=" or ".join(METHODS)))
    rows = np.asarray(x, dtype=np.float64)
    coef, covariance, slope, shrinkage, problems = _coefficients(fit, rows, surv, method)
    updated = _at_coefficients(fit, coef, covariance, rows, surv)
    return Update(method, updated, slope, shrinkage, len(surv), surv.n_events,
                  (*_few_events(method, surv.n_events), *problems))


def closed_test(fit: CoxFit, x: ArrayLike, surv: Survival, month: float, *, alpha: float = 0.05) -> ClosedTest:
    """The smallest update that the new patients do not reject, in Vergouwe's closed procedure.

    Refitted coefficients are tested against the model as received (p + 1 degrees of freedom: the baseline's error at
    `month` and the p coefficients), against a new baseline (p) and against a new slope (p - 1); the first test that
    does not reject decides. The baseline's squared z is independent of the partial likelihood ratio when the model is
    right, so the two add to a chi-square.

    Args:
        fit: the model as received.
        x: (n, p) design matrix of the new patients.
        surv: their follow-up.
        month: where the baseline hazards are compared, within both follow-ups.
        alpha: level of each test.

    Raises:
        FitError: as `update_cox`.
    """
    rows = np.asarray(x, dtype=np.float64)
    relative = _relative(fit, rows)
    full = fit_cox(rows, surv, names=fit.names, ties=fit.ties)
    recalibrated = fit_cox(relative, surv, ties=fit.ties)
    p, top = full.df, full.loglik
    ratio = max(0.0, 2.0 * (top - _loglik_at(relative, surv, fit)))
    z = _baseline_z(fit, rows, surv, month)
    tests = (chi_square_test(ratio + z**2, p + 1), chi_square_test(ratio, p),
             chi_square_test(max(0.0, 2.0 * (top - recalibrated.loglik)), p - 1))
    steps: tuple[Literal["none", "baseline", "slope"], ...] = ("none", "baseline", "slope")
    for step, test in zip(steps, tests, strict=True):
        if not test.p < alpha:  # with one coefficient, a refit is a slope
            return ClosedTest(step, *tests)
    return ClosedTest("refit", *tests)


def performance(fit: CoxFit, x: ArrayLike, surv: Survival, month: float) -> Performance:
    """C-index, calibration slope, observed over expected and scaled Brier score of a model in some patients.

    Where the data do not reach the month, what depends on it is nan.

    Args:
        fit: the model.
        x: (n, p) design matrix of the patients.
        surv: their follow-up.
        month: horizon > 0 of observed over expected and of the Brier score.

    Raises:
        FitError: as `fit_cox`, for the calibration slope.
    """
    rows = np.asarray(x, dtype=np.float64)
    survival, relative = fit.survival(rows, [month])[:, 0], _relative(fit, rows)
    slope = fit_cox(relative, surv, ties=fit.ties)
    return Performance(concordance(relative, surv).c.value, float(slope.coef[0]),
                       *calibration_at(survival, surv, month))


def calibration_at(survival: Vector, surv: Survival, month: float) -> tuple[float, float]:
    """(observed over expected, scaled Brier score) of predicted survival at a month.

    Both are nan where a prediction is: a baseline hazard that was estimated again ends with its patients' follow-up.

    Args:
        survival: (n,), predicted probability of being event-free at the month.
        surv: follow-up of the same n patients.
        month: horizon > 0.
    """
    if not np.isfinite(survival).all():
        return nan, nan
    observed = 1.0 - kaplan_meier(surv).at(month)[0].value
    return float(observed / (1.0 - survival.mean())), brier_score(survival, surv, month).ipa


def update_optimism(
    fit: CoxFit, x: ArrayLike, surv: Survival, method: Method, month: float, *, resamples: int = 200, seed: int = 0
) -> UpdateOptimism:
    """How much of an update's performance is optimism, by the bootstrap (Harrell, Lee & Mark 1996).

    Each resample is updated, and the update judged on the resample and on the original patients.

    Args:
        fit: as in `update_cox`.
        x: as in `update_cox`.
        surv: as in `update_cox`.
        method: as in `update_cox`.
        month: of calibration and Brier score.
        resamples: number of bootstrap resamples.
        seed: of the resamples.

    Raises:
        FitError: as `update_cox`; E-RESAMPLES when no resample can be updated.
    """
    rows, rng = np.asarray(x, dtype=np.float64), np.random.default_rng(seed)
    apparent = performance(update_cox(fit, rows, surv, method).fit, rows, surv, month)
    gaps = []
    for _ in range(resamples):
        drawn = rng.integers(len(surv), size=len(surv))
        try:
            updated = update_cox(fit, rows[drawn], surv.take(drawn), method).fit
            inside, outside = (_numbers(performance(updated, *part, month))
                               for part in ((rows[drawn], surv.take(drawn)), (rows, surv)))
        except FitError:
            continue
        if np.isfinite(inside - outside).all():
            gaps.append(inside - outside)
    if not gaps:
        raise FitError(Problem("E-RESAMPLES", "no resample could be updated", found=f"{surv.n_events} events"))
    left = _numbers(apparent) - np.mean(gaps, axis=0)
    corrected = Performance(float(left[0]), float(left[1]), float(np.exp(left[2])), float(left[3]))
    return UpdateOptimism(apparent, corrected, len(gaps), resamples - len(gaps))


def effective_sample_size(fit: CoxFit, x: ArrayLike, month: float) -> Vector:
    """(n,) how many patients like each one would give an observed survival as certain as the model's prediction.

    S (1 - S) / Var(S) at the month; nan for a published model, whose uncertainty is unknown.

    Args:
        fit: the model, with its covariance.
        x: (n, p) design matrix of the patients.
        month: horizon > 0.

    References:
        Thomassen et al., Stat Med 2024.
    """
    rows = np.asarray(x, dtype=np.float64)
    survival = fit.survival(rows, [month])[:, 0]
    se = fit.baseline.log_hazard_se(rows - fit.means, [month], fit.covariance, None)[:, 0]
    with np.errstate(divide="ignore", invalid="ignore"):
        result: Vector = survival * (1.0 - survival) / (survival * np.log(survival) * se) ** 2
    return result


def _coefficients(
    fit: CoxFit, x: Matrix, surv: Survival, method: Method
) -> tuple[Vector, Matrix, float, float, tuple[Problem, ...]]:
    """(coefficients, covariance, slope, shrinkage, problems) of the update."""
    if method == "baseline":
        return fit.coef, fit.covariance, 1.0, nan, ()
    relative = _relative(fit, x)
    recalibrated = fit_cox(relative, surv, names=["slope"], ties=fit.ties)
    slope, variance = float(recalibrated.coef[0]), float(recalibrated.covariance[0, 0])
    if recalibrated.dropped or recalibrated.monotone:
        raise FitError(Problem("E-SLOPE", "the predictions of the model do not allow a slope in these patients",
                               found="constant" if recalibrated.dropped else "separated events"))
    coef = slope * fit.coef
    covariance = slope**2 * fit.covariance + variance * np.outer(fit.coef, fit.coef)
    if method == "slope":
        return coef, covariance, slope, nan, ()
    full = fit_cox(x, surv, names=fit.names, ties=fit.ties)
    free = np.array([name not in full.dropped and name not in full.monotone for name in full.names])
    gain, df = 2.0 * (full.loglik - recalibrated.loglik), full.df - 1
    shrinkage = max(0.0, (gain - df) / gain) if gain > 0 and df > 0 else 0.0
    shrunk = np.where(free, coef + shrinkage * (full.coef - coef), coef)
    both = np.outer(free, free)
    mixed = np.where(both, shrinkage**2 * full.covariance + (1.0 - shrinkage) ** 2 * covariance, covariance)
    return shrunk, mixed, slope, shrinkage, tuple(p for p in full.problems if p.code != "W-EPV")


def _at_coefficients(fit: CoxFit, coef: Vector, covariance: Matrix, x: Matrix, surv: Survival) -> CoxFit:
    """The model with given coefficients and the baseline hazard of these patients (Breslow or Efron, as the fit)."""
    data = CoxRows.checked(x, surv, fit.names, Cases())
    rows = sorted_rows(data.z, data.weight, data.sets, efron=fit.ties == "efron")
    baseline = baseline_hazard(rows, data.z @ (data.scale * coef), data.sets, data.scale, data.strata)
    return replace(fit, coef=coef, covariance=covariance, means=data.means, baseline=baseline, n=len(surv),
                   n_events=data.n_events, loglik=nan, loglik_null=nan, score_statistic=nan, problems=())


def _relative(fit: CoxFit, x: Matrix) -> Vector:
    """(n,) log hazard under the model, 0 at its own means."""
    return fit.log_hazard(x) - fit.center


def _loglik_at(relative: Vector, surv: Survival, fit: CoxFit) -> float:
    """The partial log likelihood with the predictor's slope held at 1: that of an offset."""
    index = np.arange(relative.size, dtype=np.float64)  # any column: the null likelihood does not use it
    return fit_cox(index, surv, cases=Cases(offset=relative), ties=fit.ties).loglik_null


def _baseline_z(fit: CoxFit, x: Matrix, surv: Survival, month: float) -> float:
    """z of the log ratio of the new patients' cumulative hazard to the model's, at a month."""
    new = _at_coefficients(fit, fit.coef, fit.covariance, x, surv)
    everybody = float(new.means @ fit.coef) - fit.center  # the new means on the scale of the model's
    expected = float(fit.baseline.log_cumulative_hazard([month])[0]) + everybody
    observed = float(new.baseline.log_cumulative_hazard([month])[0])
    at = np.searchsorted(new.baseline.time_months, month, side="right") - 1
    if not (np.isfinite(expected) and np.isfinite(observed) and at >= 0):
        return 0.0
    return float((observed - expected) / np.sqrt(new.baseline.log_variance[at]))


def _numbers(judged: Performance) -> Vector:
    """The measures, O/E on the log scale."""
    with np.errstate(divide="ignore"):
        return np.array([judged.c, judged.slope, np.log(judged.oe), judged.ipa])


def _few_events(method: Method, events: int) -> tuple[Problem, ...]:
    """W-UPDATEEVENTS below the number the method needs."""
    if events >= ENOUGH_EVENTS[method]:
        return ()
    smaller = {"baseline": "Validate without an update", "slope": "Update the baseline alone",
               "refit": "Update the baseline or the slope"}
    return (Problem("W-UPDATEEVENTS", f"few events for the update '{method}'", found=f"{events} events",
                    expected=f"at least {ENOUGH_EVENTS[method]}", remedy=smaller[method]),)
