"""The conformal lower bound: by hand without censoring, coverage with it, and what it refuses to promise."""

from __future__ import annotations

import json

import numpy as np
import pytest

from mtdlr.errors import FitError
from mtdlr.stats.conformal import LowerBound, fit_lower_bound
from mtdlr.stats.cox import fit_cox
from mtdlr.survival import Survival


def _cohort(n: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(score, months to the event, months to the last contact): a noisy score of a Weibull hazard."""
    rng = np.random.default_rng(seed)
    truth = rng.standard_normal(n)
    time = 2.0 + 95.0 * (rng.exponential(size=n) * np.exp(-truth)) ** (1 / 1.2)
    return truth + 0.7 * rng.standard_normal(n), time, rng.uniform(12.0, 110.0, n)


def _observed(time: np.ndarray, contact: np.ndarray) -> Survival:
    return Survival(np.minimum(time, contact), time <= contact)


def test_without_censoring_it_is_the_split_conformal_quantile() -> None:
    """By hand: of 19 patients the bound of 90 % is failed by the one who fails earliest on the curve's scale."""
    values = np.linspace(0.05, 0.95, 19)  # survival at the own time: the largest fails first
    bound = fit_lower_bound(values, Survival(np.arange(1.0, 20.0), np.ones(19)), levels=(0.9, 0.8, 0.96))
    assert bound.thresholds[:2].tolist() == [0.8, 0.9]  # 0.8 guaranteed: three above; 0.9: one above
    assert bound.early[:2].tolist() == [3, 1]
    assert np.isnan(bound.thresholds[2])  # 19 patients cannot carry 96 %


@pytest.mark.slow
@pytest.mark.parametrize("level", [0.8, 0.9])
def test_coverage_over_twenty_cohorts(level: float) -> None:
    """Over 20 cohorts with a third of the events censored, the true coverage is within 3 points of nominal."""
    shares, estimated = [], []
    for seed in range(20):
        score, time, contact = _cohort(400, seed)
        surv = _observed(time, contact)
        fold, own = np.arange(400) % 5, np.empty(400)
        for k in range(5):
            fit = fit_cox(score[fold != k], surv.take(fold != k))
            curves = fit.survival(score[fold == k, None], surv.time_months[fold == k])
            own[fold == k] = np.nan_to_num(np.diag(curves), nan=0.0)
        bound, fit = fit_lower_bound(own, surv), fit_cox(score, surv)
        new, later, _ = _cohort(3000, 1000 + seed)
        steps = fit.baseline.time_months
        shares.append(np.mean(later >= bound.months(steps, fit.survival(new[:, None], steps), level)))
        estimated.append(bound.coverage[bound.levels == level][0])
    assert np.mean(shares) == pytest.approx(level, abs=0.03)
    assert np.mean(estimated) == pytest.approx(level, abs=0.03)


@pytest.mark.slow
def test_censored_patients_do_not_make_the_bound_loose() -> None:
    """Without the censoring weights, early failures among long-observed patients would be missed."""
    score, time, contact = _cohort(4000, 77)
    surv = _observed(time, np.minimum(contact, 60))
    fit = fit_cox(score, surv)
    own = np.diag(fit.survival(score[:, None], surv.time_months))
    weighted = fit_lower_bound(own, surv, levels=(0.7,)).thresholds[0]
    plain = np.sort(np.where(surv.event, own, 0.0))[::-1][int(0.3 * 4001) - 1]
    assert weighted > plain + 0.01


def test_level_and_months_say_the_same() -> None:
    """A patient's bound lies beyond a month exactly when the level reached there is at least the asked one."""
    score, time, contact = _cohort(500, 5)
    surv = _observed(time, contact)
    fit = fit_cox(score, surv)
    steps = fit.baseline.time_months
    curves = fit.survival(score[:, None], steps)
    bound = fit_lower_bound(np.diag(fit.survival(score[:, None], surv.time_months)), surv)
    at = int(np.searchsorted(steps, 36.0, side="right")) - 1
    beyond = bound.months(steps, curves, 0.8) > steps[at]
    assert 0 < beyond.sum() < 500
    np.testing.assert_array_equal(beyond, bound.level_at(curves[:, at]) >= 0.8)


def test_higher_guarantee_is_earlier() -> None:
    """The bound falls as the guaranteed share rises."""
    score, time, contact = _cohort(300, 6)
    surv = _observed(time, contact)
    fit = fit_cox(score, surv)
    bound = fit_lower_bound(np.diag(fit.survival(score[:, None], surv.time_months)), surv)
    curves = fit.survival(score[:, None], fit.baseline.time_months)
    months = np.array([bound.months(fit.baseline.time_months, curves, level) for level in bound.levels])
    assert (np.diff(months, axis=0) <= 0).all()


def test_few_events_are_said() -> None:
    """A bound that rests on fewer than ten events is warned of, one without a threshold has no months."""
    bound = fit_lower_bound(np.linspace(0.2, 0.9, 8), Survival(np.arange(1.0, 9.0), [1, 0, 0, 1, 0, 0, 0, 0]))
    assert [p.code for p in bound.problems(0.9)] == ["W-BOUNDEVENTS"]
    assert np.isnan(bound.months([1.0, 2.0], [[0.9, 0.8]], 0.9)).all()
    with pytest.raises(FitError, match="E-NOEVENTS"):
        fit_lower_bound([0.5, 0.6], Survival([1.0, 2.0], [0, 0]))
    with pytest.raises(FitError, match="E-OPTION"):
        bound.months([1.0], [[0.9]], 0.42)


def test_it_survives_json() -> None:
    """What is written is read back the same, and no threshold is finer than a thousandth."""
    score, time, contact = _cohort(200, 8)
    surv = _observed(time, contact)
    fit = fit_cox(score, surv)
    bound = fit_lower_bound(np.diag(fit.survival(score[:, None], surv.time_months)), surv)
    again = LowerBound.from_dict(json.loads(json.dumps(bound.as_dict())))
    np.testing.assert_array_equal(again.thresholds, bound.thresholds)
    assert (np.round(bound.thresholds * 1000) == pytest.approx(bound.thresholds * 1000))


def test_coverage_has_the_digits_that_the_patients_carry() -> None:
    """Whole per cents of a few hundred patients, tenths of many thousands, and no number where none is known."""
    def bound(n: int, coverage: float) -> LowerBound:
        return LowerBound(np.array([0.9, 0.975]), np.full(2, 0.2), np.array([3, 3]), np.full(2, coverage), n, 40)

    assert bound(120, 0.8765).coverage_text(0.9) == "88 % of 120 patients"
    assert bound(20_000, 0.8767).coverage_text(0.9) == "87.7 % of 20000 patients"
    assert bound(12, np.nan).coverage_text(0.9) == "not known from 12 patients"
    assert "for 97.5 % of patients" in bound(120, 0.9).problems(0.975)[0].what
