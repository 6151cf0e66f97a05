"""Predicted against observed risk in groups of patients, and the chi-square tests built on them."""

from __future__ import annotations

from dataclasses import dataclass
from math import nan

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mtdlr.errors import FitError, Problem, TableError
from mtdlr.stats.checks import labels, scores, whole
from mtdlr.stats.inference import Test, chi_square_test
from mtdlr.stats.kaplan_meier import kaplan_meier
from mtdlr.survival import Survival

Vector = NDArray[np.float64]
Index = NDArray[np.int64]

_DEFAULT_GROUPS = 10
_MIN_EVENTS = 5  # below this the GND test rejects too often (Demler et al. 2015)


@dataclass(frozen=True, eq=False)
class CalibrationGroups:
    """Groups of patients in order of predicted risk.

    Args:
        predicted: (g,), mean predicted risk of the event by the month.
        observed: (g,), 1 - Kaplan-Meier at the month; nan where follow-up of the group ends before.
        low, high: (g,), log-log interval of `observed`.
        se: (g,), its Greenwood standard error.
        n: (g,), patients.
        events: (g,), events by the month.
    """

    predicted: Vector
    observed: Vector
    low: Vector
    high: Vector
    se: Vector
    n: Index
    events: Index


def calibration_groups(
    predicted_risk: Vector, surv: Survival, month: float, *, groups: int | None = None, level: float = 0.95
) -> CalibrationGroups:
    """Predicted and Kaplan-Meier risk in groups cut at quantiles of the predicted risk.

    Args:
        predicted_risk: (n,), probability of the event by `month`.
        surv: follow-up of the same n patients.
        month: horizon.
        groups: number of groups; None starts from ten and joins neighbours until each has five events
            and is followed up to the month. With no more distinct predictions than groups, each prediction is a group.
        level: coverage of the intervals.

    Raises:
        FitError: E-GROUPS for fewer than two groups.
    """
    if groups is not None:
        groups = whole(groups, "the number of groups", 2, code="E-GROUPS")
    member = quantile_groups(predicted_risk, groups or _DEFAULT_GROUPS)
    if groups is None:
        member = _joined(member, surv, month)
    rows = [_group_row(predicted_risk[member == g], surv.take(member == g), month, level) for g in np.unique(member)]
    predicted, observed, low, high, se, n, events = (np.array(column) for column in zip(*rows, strict=True))
    return CalibrationGroups(predicted, observed, low, high, se, n, events)


def gnd_test(groups: CalibrationGroups, *, development: bool = False) -> Test:
    """Greenwood-Nam-D'Agostino test: sum of ((observed - predicted) / se)^2.

    Args:
        groups: as made by `calibration_groups`; a group without a standard error gives nan.
        development: True on the patients the model was fitted on: groups - 1 degrees of freedom, as published. False
            on new patients: one for each group, because nothing was fitted to them; with groups - 1 a calibrated
            model is rejected in 10 to 14 % of cohorts instead of 5 % (docs/statistics.md).

    References:
        Demler, Paynter & Cook, Stat Med 2015.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        statistic = float(np.sum(((groups.observed - groups.predicted) / groups.se) ** 2))
    return chi_square_test(statistic if np.isfinite(statistic) else nan, groups.n.size - development)


def nam_dagostino_test(groups: CalibrationGroups, *, development: bool = False) -> Test:
    """Nam-D'Agostino test: as GND with the binomial variance of the prediction, which ignores censoring.

    Args:
        groups: as made by `calibration_groups`; with a group not followed to the month the result is nan.
        development: True on the patients the model was fitted on, which costs one degree of freedom; False on new
            patients.

    References:
        D'Agostino & Nam, Handbook of Statistics 2003.
    """
    spread = groups.predicted * (1.0 - groups.predicted) / groups.n
    with np.errstate(divide="ignore", invalid="ignore"):
        statistic = float(np.sum((groups.observed - groups.predicted) ** 2 / spread))
    return chi_square_test(statistic if np.isfinite(statistic) else nan, groups.n.size - development)


def hosmer_lemeshow(
    predicted_risk: ArrayLike, status: ArrayLike, *, groups: int = 10, development: bool = True
) -> Test:
    """The Hosmer-Lemeshow test of predicted probabilities against a 0/1 outcome that is known for all patients.

    With follow-up data the outcome at a month is not known for those censored before it, and leaving them out biases
    the test towards too many events: prefer `gnd_test`.

    Args:
        predicted_risk: (n,), within [0, 1].
        status: (n,), 1 where the outcome happened.
        groups: cut at quantiles of the prediction.
        development: True (the usual test) has groups - 2 degrees of freedom, False (new patients) has groups.

    Raises:
        TableError: E-LENGTH, E-MISSING, E-EVENT, E-PROBABILITY.
        FitError: E-GROUPS, E-EMPTYGROUP.

    References:
        Hosmer & Lemeshow 1980; ResourceSelection::hoslem.test.
    """
    outcome = labels(status)
    risk = scores(predicted_risk, outcome.size, "predicted_risk")
    if ((risk < 0) | (risk > 1)).any():
        raise TableError(Problem("E-PROBABILITY", "predicted_risk must be a probability",
                                 found=f"{risk.min():g} to {risk.max():g}", expected="0 to 1"))
    groups = whole(groups, "the number of groups", 2, code="E-GROUPS")
    if not outcome.size:
        raise FitError(Problem("E-EMPTYGROUP", "a test of calibration needs patients", found="0 patients"))
    member = quantile_groups(risk, groups)
    n = np.bincount(member).astype(np.float64)
    observed, expected = np.bincount(member, weights=outcome), np.bincount(member, weights=risk)
    with np.errstate(divide="ignore", invalid="ignore"):
        statistic = float(np.sum((observed - expected) ** 2 / (expected * (1.0 - expected / n))))
    return chi_square_test(statistic if np.isfinite(statistic) else nan, n.size - 2 if development else n.size)


def quantile_groups(values: Vector, groups: int) -> Index:
    """(n,) group numbers from 0, cut at the quantiles (type 7, closed on the right); ties share a group.

    Args:
        values: (n,) finite numbers, such as predicted risks.
        groups: number of groups wanted; >= 1. Ties may leave fewer.
    """
    distinct, which = np.unique(values, return_inverse=True)
    if distinct.size <= groups:
        return which
    cuts = np.unique(np.quantile(values, np.linspace(0.0, 1.0, groups + 1)))[1:-1]
    _, member = np.unique(np.searchsorted(cuts, values, side="left"), return_inverse=True)
    return member


def _joined(member: Index, surv: Survival, month: float) -> Index:
    """Join a group that cannot carry the tests to the next one (the last to the one before), lowest risk first.

    A group can when it has five events by the month and its Kaplan-Meier curve reaches the month. Two groups remain.
    """
    member = member.copy()
    event = surv.event & (surv.time_months <= month)

    def usable(rows: NDArray[np.bool_]) -> bool:
        last = surv.time_months[rows].max()
        reached = last >= month or event[rows & (surv.time_months == last)].all()
        return bool(event[rows].sum() >= _MIN_EVENTS and reached)

    while True:
        kept = np.unique(member)
        poor = [i for i, g in enumerate(kept) if not usable(member == g)]
        if not poor or kept.size < 3:
            return member
        at = poor[0]
        member[member == kept[at]] = kept[at - 1] if at == kept.size - 1 else kept[at + 1]


def _group_row(risk: Vector, surv: Survival, month: float, level: float) -> tuple[float, ...]:
    """Predicted, observed, low, high, se, n, events of one group."""
    curve = kaplan_meier(surv, interval="log-log", level=level)
    stay = curve.at(month)[0]
    events = int((surv.event & (surv.time_months <= month)).sum())
    return float(risk.mean()), 1 - stay.value, 1 - stay.high, 1 - stay.low, curve.se_at(month), len(surv), events
