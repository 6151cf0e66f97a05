"""How well predicted probabilities at a month agree with what happened."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import nan

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mtdlr.errors import FitError, Problem
from mtdlr.estimate import Estimate
from mtdlr.stats.checks import coverage, month_of, probabilities
from mtdlr.stats.cox import CoxFit, fit_cox
from mtdlr.stats.goodness_of_fit import (
    CalibrationGroups,
    calibration_groups,
    gnd_test,
    hosmer_lemeshow,
    nam_dagostino_test,
)
from mtdlr.stats.inference import Test, all_tied, log_estimate, normal_estimate, two_sided_p
from mtdlr.stats.ipcw import out_of_reach
from mtdlr.stats.kaplan_meier import kaplan_meier
from mtdlr.stats.terms import harrell_knots, spline_basis
from mtdlr.survival import Survival

Vector = NDArray[np.float64]

_SMALLEST = 1e-9  # a predicted risk of exactly 0 or 1 has no complementary log-log
_NO_TEST = Test(nan, nan, nan)
_ENOUGH_EVENTS = 100  # for a validation that can see miscalibration (Vergouwe 2005, Collins 2016)
_BEND_EVENTS = 10  # five for each coefficient of the curve
_CURVE_POINTS = 101


@dataclass(frozen=True, eq=False)
class SmoothCalibration:
    """Smoothed calibration curve: predicted risk (k,) against estimated observed risk (k,) with its interval."""

    predicted: Vector = field(default_factory=lambda: np.empty(0))
    observed: Vector = field(default_factory=lambda: np.empty(0))
    low: Vector = field(default_factory=lambda: np.empty(0))
    high: Vector = field(default_factory=lambda: np.empty(0))


@dataclass(frozen=True, eq=False)
class Calibration:
    """Agreement of predicted and observed risk at a month; nan where the data do not reach.

    Args:
        month: horizon.
        n, events: patients, and events by the month.
        groups: predicted and Kaplan-Meier risk by group; None when follow-up ends before the month.
        smooth: calibration curve; straight on the log hazard scale with fewer than ten events.
        observed: Kaplan-Meier risk of all patients.
        predicted: mean predicted risk.
        oe: observed / predicted; p against 1.
        intercept: shift of cloglog(risk) that makes the mean predicted risk the observed one; p against 0.
        slope: coefficient of cloglog(risk) in a Cox model; p against 1. Below 1 the predictions are too extreme.
        ici, e50, e90: mean, median and 90th percentile of |smoothed observed - predicted| over the patients.
        gnd: Greenwood-Nam-D'Agostino test (the one to report).
        nam_dagostino: the older form.
        hl_binary: Hosmer-Lemeshow among those whose status at the month is known (the paper's test; biased).
        warnings: what the reader must be told next to the numbers.
    """

    month: float
    n: int
    events: int
    groups: CalibrationGroups | None
    smooth: SmoothCalibration
    observed: Estimate
    predicted: float
    oe: Estimate
    intercept: Estimate
    slope: Estimate
    ici: float
    e50: float
    e90: float
    gnd: Test
    nam_dagostino: Test
    hl_binary: Test
    warnings: tuple[Problem, ...] = ()


def calibrate(
    predicted_survival: ArrayLike,
    surv: Survival,
    month: float,
    *,
    groups: int | None = None,
    development: bool = False,
    level: float = 0.95,
) -> Calibration:
    """Calibration of predicted survival at one month: in the large, slope, smooth curve, groups and tests.

    Args:
        predicted_survival: (n,), predicted probability of being event-free at `month`, within [0, 1].
        surv: follow-up of the same n patients.
        month: horizon > 0.
        groups: number of groups; None means ten, joined until each has five events (the paper used 3 to 5).
        development: True when the model was fitted on these very patients: the tests lose a degree of freedom.
        level: coverage of the intervals.

    Raises:
        TableError: E-LENGTH, E-MISSING, E-PROBABILITY when a prediction is outside [0, 1].
        FitError: E-GROUPS.

    References:
        Crowson et al. SMMR 2016; Austin, Harrell & van Klaveren, Stat Med 2020 (curve, ICI); Demler et al. 2015 (GND);
        Royston & Altman 2013 (slope).
    """
    risk = 1.0 - probabilities(predicted_survival, surv)
    month = month_of(month)
    coverage(level)
    curve = kaplan_meier(surv, interval="log-log", level=level)
    stay = curve.at(month)[0]
    events = int((surv.event & (surv.time_months <= month)).sum())
    empty = Calibration(month, len(surv), events, None, SmoothCalibration(), Estimate(nan), float(risk.mean()),
                        *(Estimate(nan),) * 3, *(nan,) * 3, *(_NO_TEST,) * 3)
    if events == 0 or np.isnan(stay.value):
        return replace(empty, warnings=(out_of_reach(surv, month),))
    observed = Estimate(1 - stay.value, 1 - stay.high, 1 - stay.low)
    table = calibration_groups(risk, surv, month, groups=groups, level=level)
    scale = _cloglog(risk)
    slope, problems = _slope(scale, surv, level)
    smooth, fitted, more = _smooth(scale, surv, month, level)
    distance = np.abs(fitted - risk)
    known = surv.status_at(month)
    return replace(
        empty, groups=table, smooth=smooth, observed=observed, oe=_ratio(observed, curve.se_at(month), risk, level),
        intercept=_intercept(scale, observed, curve.se_at(month)), slope=slope,
        ici=float(distance.mean()), e50=float(np.median(distance)), e90=float(np.quantile(distance, 0.9)),
        gnd=gnd_test(table, development=development),
        nam_dagostino=nam_dagostino_test(table, development=development),
        hl_binary=_known_status_test(risk, known, groups or 10, development),
        warnings=(*_certain(risk), *problems, *more, *_cautions(table, events, int((~known[1]).sum()), len(surv))),
    )


def _cloglog(risk: Vector) -> Vector:
    """log(-log(1 - risk)), the log cumulative hazard."""
    clipped = np.clip(risk, _SMALLEST, 1.0 - _SMALLEST)
    result: Vector = np.log(-np.log1p(-clipped))
    return result


def _certain(risk: Vector) -> tuple[Problem, ...]:
    """W-CERTAIN for predictions that nothing can happen."""
    count = int((risk <= _SMALLEST).sum())
    return () if not count else (Problem(
        "W-CERTAIN", "predictions of a survival of exactly 1 have no log cumulative hazard; slope, intercept and curve "
        "take a risk of one in a thousand million for them", found=f"{count} of {risk.size}",
        remedy="Read the slope without these patients too; one of them who is wrong moves it far"),)


def _ratio(observed: Estimate, se: float, risk: Vector, level: float) -> Estimate:
    """Observed over mean predicted risk; the interval carries the Kaplan-Meier error on the log scale."""
    if not risk.any():
        return Estimate(nan)
    ratio, log_se = observed.value / risk.mean(), se / observed.value
    p = two_sided_p(float(np.log(ratio)) / log_se) if log_se > 0 else nan
    return log_estimate(float(ratio), log_se, level=level, p=p)


def _intercept(scale: Vector, observed: Estimate, se: float) -> Estimate:
    """The shift of the log cumulative hazard that brings the mean risk to the observed one, and to its limits."""
    value = _shift(scale, observed.value)
    hazards = np.exp(scale + value)
    log_se = se / float((hazards * np.exp(-hazards)).mean())
    p = two_sided_p(value / log_se) if log_se > 0 else nan
    return Estimate(value, _shift(scale, observed.low), _shift(scale, observed.high), p)


def _shift(scale: Vector, target: float) -> float:
    """The number to add to every log cumulative hazard so that the mean risk becomes `target`, by bisection."""
    if not 0.0 < target < 1.0:
        return nan
    low, high = -60.0, 60.0
    while high - low > 1e-13:
        middle = (low + high) / 2.0
        if -np.expm1(-np.exp(scale + middle)).mean() < target:
            low = middle
        else:
            high = middle
    return (low + high) / 2.0


def _slope(scale: Vector, surv: Survival, level: float) -> tuple[Estimate, tuple[Problem, ...]]:
    """Cox coefficient of the predicted log cumulative hazard, tested against 1."""
    fit, problems = _fit(scale[:, None] - scale.mean(), surv)
    if fit is None:
        return Estimate(nan), problems
    return normal_estimate(float(fit.coef[0]), float(fit.se[0]), level=level, null=1.0), problems


def _smooth(
    scale: Vector, surv: Survival, month: float, level: float
) -> tuple[SmoothCalibration, Vector, tuple[Problem, ...]]:
    """Curve, smoothed observed risk of each patient, and problems: hazard regression on a spline (Austin 2020)."""
    knots = _knots(scale, surv.n_events)

    def basis(values: Vector) -> NDArray[np.float64]:
        return values[:, None] if knots is None else spline_basis(values, knots)

    columns = basis(scale)
    middle = columns.mean(axis=0)  # keeps the exponentials of the fit within range
    fit, problems = _fit(columns - middle, surv)
    if fit is None:
        return SmoothCalibration(), np.full(scale.size, nan), problems
    lowest, highest = (-np.expm1(-np.exp([scale.min(), scale.max()]))).tolist()
    risks = np.linspace(lowest, highest, _CURVE_POINTS)
    grid = basis(_cloglog(risks)) - middle
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # a curve at 0 has no interval
        low, high = fit.survival_interval(grid, month, level=level)
    curve = SmoothCalibration(risks, 1.0 - fit.survival(grid, month)[:, 0], 1.0 - high[:, 0], 1.0 - low[:, 0])
    return curve, 1.0 - fit.survival(columns - middle, month)[:, 0], problems


def _knots(scale: Vector, n_events: int) -> tuple[float, ...] | None:
    """Three knots, or None for a straight line: too few events or distinct predictions for a bend."""
    if n_events < _BEND_EVENTS:
        return None
    try:
        return harrell_knots(scale, 3)
    except FitError:
        return None


def _fit(columns: NDArray[np.float64], surv: Survival) -> tuple[CoxFit | None, tuple[Problem, ...]]:
    """A Cox fit, or None with the reason when the data cannot carry it."""
    if np.ptp(columns[:, 0]) == 0:
        return None, (all_tied("there is no calibration slope or curve"),)
    try:
        fit = fit_cox(columns, surv)
    except FitError as error:
        reason = error.problems[0]
        return None, (Problem("W-FEWEVENTS", f"no calibration slope or curve: {reason.what}", found=reason.found),)
    if fit.monotone:
        return None, fit.problems
    return fit, ()


def _known_status_test(
    risk: Vector, known: tuple[NDArray[np.bool_], NDArray[np.bool_]], groups: int, development: bool
) -> Test:
    """Hosmer-Lemeshow among the patients whose status at the month is known."""
    event, seen = known
    if event[seen].all() or not event[seen].any():
        return _NO_TEST
    return hosmer_lemeshow(risk[seen], event[seen], groups=groups, development=development)


def _cautions(groups: CalibrationGroups, events: int, unknown: int, n: int) -> tuple[Problem, ...]:
    """What has to be said next to the tests."""
    out = []
    if events < _ENOUGH_EVENTS:
        out.append(Problem("W-CALIBRATIONEVENTS", "with so few events a large p value is no evidence of good "
                           "calibration", found=f"{events} events", expected=f">= {_ENOUGH_EVENTS}",
                           remedy="Read the slope and the curve with their intervals"))
    if (groups.events < 5).any():
        out.append(Problem("W-GNDEVENTS", "a group has fewer than 5 events: the GND and Nam-D'Agostino tests reject "
                           "too often", found=", ".join(str(e) for e in groups.events), remedy="Take fewer groups"))
    if np.isnan(groups.observed).any():
        out.append(Problem("W-GROUPHORIZON", "follow-up of a group ends before the month, so its risk and the tests "
                           "over the groups are not known", remedy="Take fewer groups"))
    if unknown:
        out.append(Problem("W-HLBINARY", "the Hosmer-Lemeshow test leaves out patients censored before the month, "
                           "which makes events look too frequent", found=f"{unknown} of {n} left out",
                           remedy="Report the GND test instead"))
    return tuple(out)
