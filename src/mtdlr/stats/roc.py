"""ROC curve of a score against a yes/no outcome: AUC with DeLong's variance, paired test, Youden cut-off."""

from __future__ import annotations

from dataclasses import dataclass
from math import nan

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mtdlr.errors import FitError, Problem
from mtdlr.estimate import Estimate
from mtdlr.stats.checks import coverage, labels, scores, within
from mtdlr.stats.inference import Comparison, all_tied, normal_estimate, perfect

Vector = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Roc:
    """ROC curve of a risk.

    Args:
        thresholds: (k,), ascending from -inf to +inf, midway between neighbouring risks; positive means above it.
        sensitivity: (k,), share of patients with the outcome above each threshold.
        specificity: (k,), share of patients without it at or below each threshold.
        auc: area with DeLong's interval within [0, 1] and p against 0.5; an interval of nan when the variance is 0.
        variance: DeLong's variance of the area.
        n_positive: patients with the outcome.
        n_negative: patients without.
        warnings: W-ALLTIED when every risk is the same.
    """

    thresholds: Vector
    sensitivity: Vector
    specificity: Vector
    auc: Estimate
    variance: float
    n_positive: int
    n_negative: int
    warnings: tuple[Problem, ...] = ()


@dataclass(frozen=True)
class CutOff:
    """A threshold and what it does on the patients it was measured on; nan where a share has no denominator.

    Args:
        threshold: patients with a risk above it are high-risk; nan when there is no useful one.
        sensitivity, specificity, ppv, npv, accuracy: on the patients it was measured on.
        warnings: W-NOCUTOFF when no threshold is better than chance.
    """

    threshold: float
    sensitivity: float
    specificity: float
    ppv: float
    npv: float
    accuracy: float
    warnings: tuple[Problem, ...] = ()

    @property
    def youden(self) -> float:
        """Sensitivity + specificity - 1."""
        return self.sensitivity + self.specificity - 1.0


def roc(risk: ArrayLike, status: ArrayLike, *, level: float = 0.95) -> Roc:
    """The ROC curve of a risk against a 0/1 outcome.

    With the event indicator as `status` this is the "time-independent ROC" of the paper: it ignores when the event
    happened and how long the others were followed. `auc_at` is the one that does not.

    Args:
        risk: (n,), higher is worse.
        status: (n,), 1 where the outcome happened.
        level: coverage of the interval.

    Raises:
        TableError: E-LENGTH, E-MISSING, E-EVENT.
        FitError: E-ONECLASS when all patients have the same outcome.

    References:
        DeLong et al. Biometrics 1988; Sun & Xu, IEEE Signal Process Lett 2014 (midranks).

    >>> curve = roc([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1])
    >>> curve.auc.value
    0.75
    """
    coverage(level)
    positive = labels(status)
    values = scores(risk, positive.size)
    places = _placements(values, positive)
    variance = float(_covariance([places])[0, 0])
    thresholds, sensitivity, specificity = _curve(values, positive)
    auc = normal_estimate(float(places[0].mean()), variance**0.5, level=level, null=0.5, bounds=(0.0, 1.0))
    warnings = (all_tied("the AUC is 0.5 by definition"),) if thresholds.size == 2 else ()
    return Roc(thresholds, sensitivity, specificity, auc, variance, int(positive.sum()), int((~positive).sum()),
               warnings)


def delong(risk_a: ArrayLike, risk_b: ArrayLike, status: ArrayLike, *, level: float = 0.95) -> Comparison:
    """AUC of the first risk minus that of the second on the same patients, by DeLong's paired test.

    Args:
        risk_a: (n,), higher is worse.
        risk_b: (n,), higher is worse.
        status: (n,) 0 or 1, of the same n patients.
        level: coverage of the interval.

    Raises:
        TableError: E-LENGTH, E-MISSING, E-EVENT.
        FitError: E-ONECLASS, E-OPTION.

    References:
        DeLong et al. Biometrics 1988, eq. 5.
    """
    coverage(level)
    positive = labels(status)
    places = [_placements(scores(risk, positive.size, name), positive)
              for risk, name in ((risk_a, "risk_a"), (risk_b, "risk_b"))]
    covariance = _covariance(places)
    difference = float(places[0][0].mean() - places[1][0].mean())
    se = float(np.sqrt(max(covariance[0, 0] + covariance[1, 1] - 2.0 * covariance[0, 1], 0.0)))
    se = se if se > 1e-12 else 0.0  # the same ranking twice: what is left is rounding
    if told := perfect(*(float(one[0].mean()) for one in places)):
        return Comparison(Estimate(difference), nan, "delong", told)
    return Comparison(normal_estimate(difference, se, level=level, null=0.0), difference / se if se else nan, "delong")


def youden(curve: Roc) -> CutOff:
    """The threshold with the largest sensitivity + specificity - 1; the lowest of them when several tie.

    Take it from the training patients and keep it for all others: a cut-off chosen on the patients it is then judged
    on looks better than it is. Where no threshold beats chance there is no cut-off (W-NOCUTOFF, threshold nan).
    """
    gain = curve.sensitivity + curve.specificity - 1.0
    best = int(np.argmax(gain > gain.max() - 1e-12))
    if gain[best] <= 1e-12:
        return CutOff(nan, nan, nan, nan, nan, nan, (Problem(
            "W-NOCUTOFF", "no threshold of the score is better than chance, so there is no cut-off",
            remedy="Check the direction and the spread of the score"),))
    return _cut_off(float(curve.thresholds[best]), float(curve.sensitivity[best]), float(curve.specificity[best]),
                    curve.n_positive, curve.n_negative)


def at_threshold(risk: ArrayLike, status: ArrayLike, threshold: float) -> CutOff:
    """Sensitivity, specificity, predictive values and accuracy of a given threshold in these patients.

    Args:
        risk: (n,), higher is worse; a patient is positive above the threshold.
        status: (n,) 0 or 1.
        threshold: finite number in the units of `risk`.

    Raises:
        TableError: E-LENGTH, E-MISSING, E-EVENT.
        FitError: E-OPTION for a threshold that is not finite.
    """
    positive = labels(status)
    threshold = within(threshold, "threshold", -np.finfo(float).max, np.finfo(float).max)
    above = scores(risk, positive.size) > threshold
    n_positive, n_negative = int(positive.sum()), int((~positive).sum())
    return _cut_off(threshold, _share((above & positive).sum(), n_positive),
                    _share((~above & ~positive).sum(), n_negative), n_positive, n_negative)


def _cut_off(threshold: float, sensitivity: float, specificity: float, n_positive: int, n_negative: int) -> CutOff:
    """Predictive values and accuracy from the two rates."""
    true_positive, true_negative = _count(sensitivity, n_positive), _count(specificity, n_negative)
    false_positive, false_negative = n_negative - true_negative, n_positive - true_positive
    return CutOff(threshold, sensitivity, specificity, _share(true_positive, true_positive + false_positive),
                  _share(true_negative, true_negative + false_negative),
                  _share(true_positive + true_negative, n_positive + n_negative))


def _count(share: float, n: int) -> int:
    """The count a share of n came from."""
    return round(share * n) if n else 0


def _share(part: float, whole: float) -> float:
    return float(part / whole) if whole else nan


def _curve(values: Vector, positive: NDArray[np.bool_]) -> tuple[Vector, Vector, Vector]:
    """Thresholds midway between distinct values, with sensitivity and specificity at each."""
    distinct, which = np.unique(values, return_inverse=True)
    with_outcome = np.bincount(which, weights=positive, minlength=distinct.size)
    without = np.bincount(which, weights=~positive, minlength=distinct.size)
    thresholds = np.concatenate(([-np.inf], (distinct[1:] + distinct[:-1]) / 2.0, [np.inf]))
    sensitivity = 1.0 - np.concatenate(([0.0], np.cumsum(with_outcome))) / with_outcome.sum()
    specificity = np.concatenate(([0.0], np.cumsum(without))) / without.sum()
    return thresholds, sensitivity, specificity


def _midranks(values: Vector) -> Vector:
    """Ranks from 1; tied values share their mean rank."""
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2.0)[which]


def _placements(values: Vector, positive: NDArray[np.bool_]) -> tuple[Vector, Vector]:
    """For each patient with the outcome the share of the others below it (ties half), and for each other its own."""
    m, n = int(positive.sum()), int((~positive).sum())
    if m == 0 or n == 0:
        raise FitError(Problem("E-ONECLASS", "all patients have the same outcome, so there is no ROC curve",
                               found=f"{m} with, {n} without the event", expected="both kinds"))
    ranks = _midranks(values)
    above = (ranks[positive] - _midranks(values[positive])) / n
    below = 1.0 - (ranks[~positive] - _midranks(values[~positive])) / m
    return above, below


def _covariance(places: list[tuple[Vector, Vector]]) -> NDArray[np.float64]:
    """DeLong's covariance of the areas; nan with a single patient on one side."""
    total = np.zeros((len(places), len(places)))
    for side in (0, 1):
        stacked = np.stack([place[side] for place in places])
        size = stacked.shape[1]
        centred = stacked - stacked.mean(axis=1, keepdims=True)
        total += centred @ centred.T / (size * (size - 1)) if size > 1 else nan
    return total
