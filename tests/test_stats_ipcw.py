"""Censoring weights and what rests on them: scikit-survival's numbers, and derivatives found by adding patients."""

from __future__ import annotations

import numpy as np
import pytest
from sksurv.metrics import brier_score as sksurv_brier
from sksurv.metrics import cumulative_dynamic_auc
from sksurv.nonparametric import CensoringDistributionEstimator
from sksurv.util import Surv

from mtdlr.errors import FitError, TableError
from mtdlr.stats.decision import brier_score, compare_brier, decision_curve, integrated_brier
from mtdlr.stats.ipcw import censoring, censoring_influence, horizon_weights, out_of_reach
from mtdlr.stats.kaplan_meier import kaplan_meier
from mtdlr.stats.net_benefit import compare_net_benefit, net_benefit
from mtdlr.stats.time_roc import auc_at, compare_auc_at
from mtdlr.survival import Survival


def _cohort(n: int = 60, seed: int = 3, *, tied: bool = False) -> tuple[np.ndarray, Survival]:
    """Predicted survival at 10 months, and follow-up; in whole months when tied."""
    rng = np.random.default_rng(seed)
    hazard = rng.normal(0.0, 0.8, n)
    time, censor = rng.exponential(15.0 * np.exp(-hazard)), rng.uniform(2.0, 40.0, n)
    seen = np.minimum(time, censor)
    surv = Survival(np.ceil(seen) if tied else seen + 0.01, time <= censor)
    return np.exp(-10.0 / 15.0 * np.exp(0.7 * hazard)), surv


def _repeated(surv: Survival, counts: np.ndarray) -> np.ndarray:
    return np.repeat(np.arange(len(surv)), counts)


def test_the_censoring_curve_by_hand() -> None:
    """Times 1 (event), 2 (event and censored), 3 (event), 4 (censored): at 2 the event leaves before the censored."""
    curve = censoring(Survival([1.0, 2.0, 2.0, 3.0, 4.0], [1, 1, 0, 1, 0]))
    assert curve.time.tolist() == [1.0, 2.0, 3.0, 4.0]
    assert curve.at_risk.tolist() == [4.0, 3.0, 1.0, 1.0] and curve.censored.tolist() == [0.0, 1.0, 0.0, 1.0]
    assert curve.before.tolist() == pytest.approx([1.0, 1.0, 2 / 3, 2 / 3])
    assert curve.after.tolist() == pytest.approx([1.0, 2 / 3, 2 / 3, 0.0])


def test_the_curve_steps_at_the_time_or_after_it() -> None:
    """G(t-) still holds those who are censored at t, G(t) does not; both are 1 before and constant after."""
    curve = censoring(Survival([1.0, 2.0, 2.0, 3.0], [1, 1, 0, 1]))
    months = [0.0, 1.9, 2.0, 2.1, 99.0]
    assert curve.just_before(months).tolist() == [1.0, 1.0, 1.0, 0.5, 0.5]
    assert curve.at(months).tolist() == [1.0, 1.0, 0.5, 0.5, 0.5]


@pytest.mark.parametrize("tied", [False, True])
def test_the_censoring_curve_is_scikit_survivals(tied: bool) -> None:
    """G at every follow-up time is that of scikit-survival's reverse Kaplan-Meier, events before the censored."""
    _, surv = _cohort(tied=tied)
    theirs = CensoringDistributionEstimator().fit(Surv.from_arrays(surv.event, surv.time_months))
    curve = censoring(surv)
    inside = curve.time < curve.time[-1]
    np.testing.assert_allclose(curve.after[inside], theirs.predict_proba(curve.time[inside]), rtol=1e-12)


def test_weights_of_cases_and_controls_by_definition() -> None:
    """A case weighs 1 / G(T-), a control 1 / G(month), everybody censored earlier nothing, and all weigh n."""
    _, surv = _cohort(tied=True)
    curve = censoring(surv)
    cases, controls = horizon_weights(curve, surv, 10.0)
    for i, (time, event) in enumerate(zip(surv.time_months, surv.event, strict=True)):
        case, control = event and time <= 10.0, time > 10.0
        assert cases[i] == pytest.approx(1.0 / curve.just_before([time])[0] if case else 0.0)
        assert controls[i] == pytest.approx(1.0 / curve.at([10.0])[0] if control else 0.0)
    assert cases.sum() + controls.sum() == pytest.approx(len(surv))


def test_who_is_censored_at_the_end_of_all_follow_up_is_free_of_the_event() -> None:
    """Where nobody is seen beyond the month, those censored at it are the controls, with weight 1 / G(month-)."""
    surv = Survival([2.0, 4.0, 10.0, 10.0, 10.0], [1, 0, 0, 1, 0])
    cases, controls = horizon_weights(censoring(surv), surv, 10.0)
    assert cases.tolist() == pytest.approx([1.0, 0.0, 0.0, 4 / 3, 0.0])
    assert controls.tolist() == pytest.approx([0.0, 0.0, 4 / 3, 0.0, 4 / 3])


def test_influence_through_the_weights_is_a_derivative() -> None:
    """What one more patient like each changes of the weighted sums, to first order, through the curve G alone."""
    _, surv = _cohort(25, 7, tied=True)
    rng = np.random.default_rng(0)
    value, month, many = rng.random(25), 9.0, 1000

    def total(weights: np.ndarray) -> float:
        rows = _repeated(surv, weights)
        curve = censoring(surv.take(rows))
        case = surv.event & (surv.time_months <= month)
        g_case, g_end = curve.just_before(surv.time_months), curve.at([month])[0]
        return float((value * case / g_case).sum() + (value * (surv.time_months > month) / g_end).sum())

    curve = censoring(surv)
    cases, controls = horizon_weights(curve, surv, month)
    ours = censoring_influence(curve, surv, month, value * cases, value * controls)
    base = np.full(25, many)
    slopes = [(total(base + one) - total(base - one)) / (2.0 / many) for one in np.eye(25, dtype=int)]
    np.testing.assert_allclose(ours, slopes, atol=1e-5)
    assert np.abs(ours).max() > 0.05


def test_the_warning_of_a_horizon_out_of_reach_has_its_numbers() -> None:
    """W-HORIZON says the month, the events by then and the last follow-up."""
    problem = out_of_reach(Survival([2.0, 5.0, 7.5], [1, 1, 0]), 5.0)
    assert (problem.code, problem.where) == ("W-HORIZON", "month 5")
    assert problem.found == "2 events by then, last follow-up at 7.5" and problem.remedy == "Choose an earlier month"


@pytest.mark.parametrize("month", [4.0, 10.0, 20.0])
def test_the_brier_score_is_scikit_survivals(month: float) -> None:
    """Without ties the score at a month is scikit-survival's with the same patients for the weights."""
    predicted, surv = _cohort(200, 5)
    table = Surv.from_arrays(surv.event, surv.time_months)
    theirs = sksurv_brier(table, table, predicted, [month])[1][0]
    assert brier_score(predicted, surv, month).score.value == pytest.approx(theirs, rel=1e-10)


def test_auc_over_time_is_scikit_survivals_with_ties_in_the_risk() -> None:
    """AUC(t) counts tied risks one half, as scikit-survival does."""
    predicted, surv = _cohort(150, 8)
    risk = np.round(1.0 - predicted, 1)
    table = Surv.from_arrays(surv.event, surv.time_months)
    theirs = cumulative_dynamic_auc(table, table, risk, [5.0, 12.0])[0]
    assert [auc_at(risk, surv, month).auc.value for month in (5.0, 12.0)] == pytest.approx(theirs.tolist(), rel=1e-10)


def test_the_error_of_a_brier_score_is_its_derivative_by_the_patients() -> None:
    """The influence behind the standard error is the derivative of the score by each patient's share, weights and all:
    found by giving every patient in turn one copy more among thousands."""
    predicted, surv = _cohort(12, 11, tied=True)
    many, n = 1000, 12

    def score(counts: np.ndarray) -> float:
        rows = _repeated(surv, counts)
        return brier_score(predicted[rows], surv.take(rows), 8.0).score.value

    base = np.full(n, many)
    slopes = np.array([(score(base + one) - score(base - one)) * many * n / 2.0 for one in np.eye(n, dtype=int)])
    assert brier_score(predicted, surv, 8.0).se == pytest.approx(slopes.std(ddof=1) / np.sqrt(n), rel=1e-3)


def test_the_error_of_a_net_benefit_is_its_derivative_by_the_patients() -> None:
    """The same for the net benefit at two thresholds, through the Kaplan-Meier curve of the positives."""
    predicted, surv = _cohort(12, 12, tied=True)
    many, n, thresholds = 1000, 12, [0.3, 0.6]

    def value(counts: np.ndarray) -> np.ndarray:
        rows = _repeated(surv, counts)
        return np.asarray(net_benefit(predicted[rows], surv.take(rows), 8.0, thresholds).value)

    base = np.full(n, many)
    slopes = np.array([(value(base + one) - value(base - one)) * many * n / 2.0 for one in np.eye(n, dtype=int)])
    ours = net_benefit(predicted, surv, 8.0, thresholds)
    np.testing.assert_allclose(ours.se, slopes.std(axis=0, ddof=1) / np.sqrt(n), rtol=1e-3)
    np.testing.assert_allclose(ours.high - ours.value, 1.959964 * ours.se, rtol=1e-6)
    np.testing.assert_allclose(ours.value - ours.low, 1.959964 * ours.se, rtol=1e-6)


def test_a_net_benefit_against_itself_and_turned_round() -> None:
    """A prediction gains nothing on itself, with no error; the difference of two changes sign when they change places;
    its value is that of the two net benefits."""
    predicted, surv = _cohort(80, 13)
    other, grid = np.clip(predicted + np.random.default_rng(1).normal(0, 0.2, 80), 0, 1), [0.2, 0.5]
    same = compare_net_benefit(predicted, predicted, surv, 10.0, grid)
    assert same.value.tolist() == [0.0, 0.0] and same.se.tolist() == [0.0, 0.0]
    ab, ba = (compare_net_benefit(x, y, surv, 10.0, grid) for x, y in ((predicted, other), (other, predicted)))
    np.testing.assert_allclose(ab.value, -ba.value)
    np.testing.assert_allclose(ab.low, -ba.high)
    np.testing.assert_allclose(ab.value, net_benefit(predicted, surv, 10.0, grid).value
                               - net_benefit(other, surv, 10.0, grid).value)
    assert ab.month == 10.0 and ab.thresholds.tolist() == grid


def test_net_benefit_at_a_level() -> None:
    """A wider level has wider limits; nobody positive has a net benefit of 0 without error."""
    predicted, surv = _cohort(80, 13)
    narrow, wide = (net_benefit(predicted, surv, 10.0, [0.4], level=level) for level in (0.5, 0.99))
    assert wide.high[0] > narrow.high[0] > narrow.value[0] > narrow.low[0] > wide.low[0]
    nobody = net_benefit(np.ones(80), surv, 10.0, [0.4])
    assert (nobody.value[0], nobody.se[0]) == (0.0, 0.0)


def test_treating_everybody_is_the_line_of_treat_all() -> None:
    """A prediction of certain events treats all: its net benefit is risk - (1 - risk) odds, the curve's `treat_all`."""
    _, surv = _cohort(80, 14)
    curve = decision_curve(np.zeros(80), surv, 10.0, thresholds=[0.1, 0.5, 0.8])
    risk = 1.0 - kaplan_meier(surv).at(10.0)[0].value
    np.testing.assert_allclose(curve.net_benefit, curve.treat_all)
    np.testing.assert_allclose(curve.treat_all, [risk - (1 - risk) * t / (1 - t) for t in (0.1, 0.5, 0.8)])
    assert curve.n_positive.tolist() == [80, 80, 80] and curve.tp_rate == pytest.approx([risk] * 3)


def test_a_risk_at_the_threshold_is_treated() -> None:
    """Who is predicted exactly the threshold is positive, and so is one a rounding error below; less is not."""
    surv = Survival(np.arange(1.0, 6.0), [1, 1, 1, 1, 0])
    predicted = np.array([0.7, 1.0 - 0.3, 0.7 + 1e-13, 0.7 + 1e-9, 0.9])
    assert decision_curve(predicted, surv, 3.0, thresholds=[0.3]).n_positive.tolist() == [3]
    assert decision_curve(predicted, surv, 3.0).thresholds.tolist() == [k / 100 for k in range(1, 100)]


@pytest.mark.parametrize("threshold", [0.0, 1.0, -0.1, 1.5])
def test_thresholds_are_risks_between_0_and_1(threshold: float) -> None:
    """At 0 and 1 the odds are 0 or infinite: both are refused, by both functions."""
    predicted, surv = _cohort()
    for call in (net_benefit, decision_curve):
        with pytest.raises(TableError, match="E-PROBABILITY a decision threshold must lie between 0 and 1"):
            call(predicted, surv, 10.0, thresholds=[0.5, threshold])


def test_at_the_last_time_the_brier_score_still_counts() -> None:
    """At a last follow-up that is an event the score is known; a moment later only if nobody is left."""
    surv = Survival([1.0, 2.0, 3.0, 4.0], [1, 1, 1, 1])
    predicted = [0.1, 0.2, 0.3, 0.4]
    assert brier_score(predicted, surv, 4.0).score.value == pytest.approx(np.mean(np.square(predicted)))
    assert brier_score(predicted, surv, 9.0).score.value == pytest.approx(np.mean(np.square(predicted)))
    ended = Survival([1.0, 2.0, 3.0, 4.0], [1, 1, 1, 0])
    assert brier_score(predicted, ended, 4.0).score.value == pytest.approx((0.01 + 0.04 + 0.09 + 0.36) / 4)
    assert np.isnan(brier_score(predicted, ended, 4.5).score.value)


def test_a_constant_prediction_of_the_observed_risk_is_no_model() -> None:
    """Its score is the null score, its IPA 0; the null score without censoring is S (1 - S)."""
    surv = Survival(np.arange(1.0, 11.0), np.ones(10, bool))
    found = brier_score(np.full(10, 0.6), surv, 4.0)
    assert found.score.value == pytest.approx(0.24) and found.null == pytest.approx(0.24)
    assert found.ipa == pytest.approx(0.0, abs=1e-12)
    perfect = brier_score(np.arange(1, 11) > 4, surv, 4.0)
    assert perfect.score.value == 0.0 and perfect.ipa == 1.0 and np.isnan(perfect.score.low)


def test_the_integrated_score_is_trapezoids_over_uneven_months() -> None:
    """Each span counts by its length, for the model and for the null, whose ratio gives the IPA."""
    _, surv = _cohort(90, 15)
    months = np.array([3.0, 4.0, 9.0, 10.0])
    table = np.exp(-months / 12.0) * np.ones((90, 1))
    found = integrated_brier(table, surv, months)
    single = [brier_score(table[:, k], surv, month) for k, month in enumerate(months)]
    np.testing.assert_allclose(found.scores, [one.score.value for one in single])
    np.testing.assert_allclose(found.null, [one.null for one in single])
    area = sum((months[k + 1] - months[k]) * (found.scores[k] + found.scores[k + 1]) / 2 for k in range(3))
    assert found.ibs == pytest.approx(area / 7.0)
    assert found.ipa == pytest.approx(1.0 - found.ibs / found.null_ibs)


@pytest.mark.parametrize("call", [
    lambda p, s, m: brier_score(p, s, m), lambda p, s, m: compare_brier(p, p, s, m),
    lambda p, s, m: auc_at(p, s, m), lambda p, s, m: compare_auc_at(p, p, s, m),
    lambda p, s, m: decision_curve(p, s, m),
])
@pytest.mark.parametrize("month", [0.0, -1.0, np.nan, [3.0]])
def test_each_needs_one_horizon_above_0(call: object, month: object) -> None:
    """A horizon of 0, below it, missing, or a list is E-HORIZON for every statistic at a month."""
    predicted, surv = _cohort(20)
    with pytest.raises(FitError, match="E-HORIZON"):
        call(predicted, surv, month)


def test_a_difference_of_brier_scores_is_first_less_second() -> None:
    """Sign, value, z and the method are those of the two scores; out of reach it is nan with W-HORIZON."""
    predicted, surv = _cohort(80, 16)
    worse = np.full(80, 0.5)
    found = compare_brier(worse, predicted, surv, 10.0)
    a, b = (brier_score(x, surv, 10.0).score.value for x in (worse, predicted))
    assert found.difference.value == pytest.approx(a - b) and found.method == "ipcw"
    half = (found.difference.high - found.difference.low) / 2.0 / 1.959964
    assert found.z == pytest.approx(found.difference.value / half, rel=1e-6)
    beyond = compare_brier(worse, predicted, surv, 1000.0)
    assert np.isnan(beyond.difference.value) and beyond.warnings[0].code == "W-HORIZON"
