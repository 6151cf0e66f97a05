"""Calibration of predicted survival at a month."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtdlr.errors import FitError, TableError
from mtdlr.stats.calibration import calibrate
from mtdlr.stats.cox import fit_cox
from mtdlr.stats.goodness_of_fit import calibration_groups, gnd_test, hosmer_lemeshow, quantile_groups
from mtdlr.stats.inference import two_sided_p
from mtdlr.stats.kaplan_meier import kaplan_meier
from mtdlr.survival import Survival

steady = settings(deadline=None, derandomize=True, max_examples=30)
MONTH = 36.0


def _cohort(seed, n=1500, *, stretch=1.0, shift=0.0):
    """True event-free probability at 36 months, predictions with a wrong spread or level, and follow-up."""
    generator = np.random.default_rng(seed)
    lp = generator.normal(-0.7, 0.8, n)
    time, censor = generator.exponential(MONTH * np.exp(-lp)), generator.uniform(15, 120, n)
    predicted = np.exp(-np.exp(stretch * lp + shift))
    return np.exp(-np.exp(lp)), predicted, Survival(np.minimum(time, censor), time <= censor)


def test_true_probabilities_are_found_calibrated():
    """Predictions drawn from the truth have O/E and slope 1, intercept 0 and a small ICI, within their intervals."""
    result = calibrate(*_cohort(1, 4000)[1:], MONTH)  # type: ignore[call-arg]
    assert result.oe.low < 1 < result.oe.high and result.slope.low < 1 < result.slope.high
    assert result.intercept.low < 0 < result.intercept.high
    for estimate, null in ((result.intercept, 0.0), (result.slope, 1.0)):  # interval and p tell one story
        z = (estimate.value - null) / ((estimate.high - estimate.low) / (2 * 1.959964))
        assert estimate.p == pytest.approx(two_sided_p(z), rel=0.05)
    log_z = np.log(result.oe.value) / (np.log(result.oe.high / result.oe.low) / (2 * 1.959964))
    assert result.oe.p == pytest.approx(two_sided_p(log_z))
    assert result.ici < 0.02 and result.e50 <= result.e90 and min(result.gnd.p, result.nam_dagostino.p) > 0.01


@pytest.mark.slow
def test_intervals_cover_the_truth():
    """O/E, intercept and slope intervals contain 1, 0 and 1 in about 95 % of samples, and GND rejects about 5 %."""
    results = [calibrate(*_cohort(seed, 300)[1:], MONTH) for seed in range(120)]  # type: ignore[call-arg]
    for covered in ([r.oe.low < 1 < r.oe.high for r in results], [r.slope.low < 1 < r.slope.high for r in results],
                    [r.intercept.low < 0 < r.intercept.high for r in results]):
        assert 0.9 <= np.mean(covered) <= 0.99


@pytest.mark.slow
def test_gnd_rejects_a_calibrated_model_as_often_as_it_says():
    """On new patients GND with a degree of freedom for each group rejects about 5 % of calibrated predictions."""
    p = []
    for seed in range(400):
        _, predicted, surv = _cohort(seed, 500)
        p.append(gnd_test(calibration_groups(1 - predicted, surv, MONTH, groups=4)).p)
    assert 0.03 < np.mean(np.array(p) < 0.05) < 0.085


def test_too_extreme_predictions_have_slope_below_one():
    """Predictions stretched by 2 on the log hazard scale have slope 1/2, and the curve finds the truth."""
    truth, predicted, surv = _cohort(2, 6000, stretch=2.0, shift=0.7)
    result = calibrate(predicted, surv, MONTH)
    assert result.slope.value == pytest.approx(0.5, abs=0.03) and result.slope.p < 1e-6
    assert result.ici == pytest.approx(np.abs(truth - predicted).mean(), abs=0.015)
    assert result.gnd.p < 1e-6


def test_a_shift_is_found_by_the_intercept():
    """Predictions too low by a factor 2 in hazard have intercept log 2, O/E above 1 and slope 1."""
    result = calibrate(*_cohort(3, 6000, shift=-np.log(2))[1:], MONTH)  # type: ignore[call-arg]
    assert result.intercept.value == pytest.approx(np.log(2), abs=0.08)
    assert result.oe.low > 1 and result.slope.value == pytest.approx(1, abs=0.08)


def test_smooth_curve_is_the_hazard_regression_it_says_it_is():
    """The curve runs over the range of predictions, rises and lies within its interval."""
    _, predicted, surv = _cohort(4)
    result = calibrate(predicted, surv, MONTH)
    curve, risk = result.smooth, 1 - predicted
    distance = np.abs(np.interp(risk, curve.predicted, curve.observed) - risk)  # ICI and E90 belong to this curve
    assert (distance.mean(), np.quantile(distance, 0.9)) == pytest.approx((result.ici, result.e90), abs=1e-4)
    assert (curve.predicted[0], curve.predicted[-1]) == pytest.approx((risk.min(), risk.max()))
    assert (np.diff(curve.observed) > 0).all()
    assert ((curve.low <= curve.observed) & (curve.observed <= curve.high)).all()


def test_groups_hold_everyone_once():
    """Groups partition the patients; ten become fewer until each has five events and is followed up to the month."""
    _, predicted, surv = _cohort(5, 130)
    groups = calibrate(predicted, surv, 60).groups
    assert groups.n.sum() == 130 and (groups.events >= 5).all() and not np.isnan(groups.observed).any()
    assert (np.diff(groups.predicted) > 0).all() and groups.n.size < 10
    assert calibrate(predicted, surv, 60, groups=4).groups.n.size == 4


def test_development_takes_a_degree_of_freedom():
    """On the patients of the fit GND has groups - 1 degrees of freedom and Hosmer-Lemeshow groups - 2."""
    _, predicted, surv = _cohort(6)
    new, old = (calibrate(predicted, surv, MONTH, groups=5, development=d) for d in (False, True))
    assert (new.gnd.df, old.gnd.df, new.hl_binary.df, old.hl_binary.df) == (5, 4, 5, 3)
    assert old.gnd.statistic == new.gnd.statistic


def test_follow_up_that_ends_at_the_month_reaches_it():
    """A group whose last patient is censored exactly at the month is followed up to it and is not joined."""
    time = [*[10.0] * 5, 36.0, 36.0, *[12.0] * 5, 36.0, 36.0, *[14.0] * 5, 50.0]
    event = [*[1] * 5, 0, 0, *[1] * 5, 0, 0, *[1] * 5, 0]
    predicted = np.repeat([0.3, 0.4, 0.5], [7, 7, 6])
    assert calibration_groups(1 - predicted, Survival(time, event), 36.0).n.tolist() == [6, 7, 7]


def test_two_distinct_predictions_make_two_groups():
    """A yes/no score has two groups and a straight curve through them."""
    surv = _cohort(7, 400)[2]
    predicted = np.where(np.arange(400) % 2, 0.7, 0.6)
    result = calibrate(predicted, surv, MONTH)
    assert result.groups.predicted == pytest.approx([0.3, 0.4]) and not np.isnan(result.ici)


def test_equal_predictions_have_no_slope():
    """One prediction for all: O/E is known, slope and curve are nan with a warning."""
    result = calibrate(np.full(200, 0.6), _cohort(8, 200)[2], MONTH)
    assert result.oe.value > 0 and np.isnan([result.slope.value, result.ici]).all()
    assert "W-ALLTIED" in [w.code for w in result.warnings]


@pytest.mark.parametrize(("time", "event", "month"), [
    ([10, 20, 30, 40], [1, 0, 1, 0], 60), ([10, 20, 70, 80], [1, 1, 0, 0], 5), ([10, 20, 30, 70], [0, 0, 0, 0], 36)])
def test_out_of_reach_is_na(time, event, month):
    """Without events before the month or follow-up beyond it everything is nan with W-HORIZON; groups is None."""
    result = calibrate([0.9, 0.8, 0.7, 0.6], Survival(time, event), month)
    assert result.groups is None and result.warnings[0].code == "W-HORIZON" and result.smooth.predicted.size == 0
    assert np.isnan([result.oe.value, result.slope.value, result.ici, result.gnd.p, result.hl_binary.p]).all()


def test_one_event_is_said_not_fitted():
    """A single event gives O/E but no slope, with the fit's reason as a warning."""
    result = calibrate([0.9, 0.8, 0.7, 0.6], Survival([10, 50, 60, 70], [1, 0, 0, 0]), 36)
    assert result.oe.value == pytest.approx(1.0) and np.isnan(result.slope.value)
    assert {w.code for w in result.warnings} >= {"W-FEWEVENTS", "W-CALIBRATIONEVENTS"}


def test_limits_of_the_tests_are_said():
    """Few events and patients with unknown status come with the sentence a reader needs."""
    _, predicted, surv = _cohort(9, 130)
    codes = [w.code for w in calibrate(predicted, surv, 60).warnings]
    assert "W-CALIBRATIONEVENTS" in codes and "W-HLBINARY" in codes
    at_five = Survival([10.0, 11, 12, 13, 14, 20, 21, 22, 23, 24, 50, 51], [1] * 10 + [0, 0])
    five = calibrate(np.r_[[0.4] * 5, [0.6] * 7], at_five, 36, groups=2)
    assert five.groups.events.tolist() == [5, 5] and "W-GNDEVENTS" not in [w.code for w in five.warnings]
    assert "W-GNDEVENTS" in [w.code for w in calibrate(predicted, surv, 12, groups=10).warnings]


def test_a_group_lost_before_the_month_makes_the_test_na():
    """Groups asked for by number are not joined: one that is not followed up to the month gives nan and says so."""
    surv = Survival([10, 20, 30, 12, 40, 60, 70, 80], [1, 0, 0, 1, 1, 0, 1, 0])
    result = calibrate([0.5, 0.52, 0.54, 0.55, 0.7, 0.75, 0.8, 0.85], surv, 36, groups=2)
    assert np.isnan(result.groups.observed).any() and np.isnan(result.gnd.statistic)
    assert "W-GROUPHORIZON" in [w.code for w in result.warnings]


def test_hosmer_lemeshow_of_known_status():
    """hl_binary is the Hosmer-Lemeshow test of those whose status at the month is known."""
    _, predicted, surv = _cohort(10)
    event, known = surv.status_at(MONTH)
    direct = hosmer_lemeshow(1 - predicted[known], event[known], development=False)
    assert calibrate(predicted, surv, MONTH).hl_binary == direct


@steady
@given(st.lists(st.integers(0, 30), min_size=2, max_size=60), st.integers(2, 10))
def test_quantile_groups_keep_order_and_ties(values, groups):
    """A larger prediction is never in a lower group, equal ones share a group, and there are no gaps."""
    values = np.array(values, dtype=float)
    member = quantile_groups(values, groups)
    order = np.argsort(values, kind="stable")
    assert (np.diff(member[order]) >= 0).all() and np.unique(member).tolist() == list(range(member.max() + 1))
    assert all(np.unique(member[values == v]).size == 1 for v in values) and member.max() < groups


@pytest.mark.parametrize(("predicted", "groups", "kind", "code"), [
    ([0.5, 1.2, 0.3], None, TableError, "E-PROBABILITY"), ([0.5, np.nan, 0.3], None, TableError, "E-MISSING"),
    ([0.5, 0.3], None, TableError, "E-LENGTH"), ([0.5, 0.4, 0.3], 1, FitError, "E-GROUPS")])
def test_bad_input_is_refused(predicted, groups, kind, code):
    """Numbers that are no probabilities, other patients, or a single group are typed errors."""
    with pytest.raises(kind) as caught:
        calibrate(predicted, Survival([10, 40, 50], [1, 0, 1]), 36, groups=groups)
    assert caught.value.code == code


@pytest.mark.parametrize("factor", [5.0, -1.0, np.nan])
def test_hosmer_lemeshow_wants_probabilities(factor):
    """Predicted risks outside [0, 1], or missing, are typed errors, not a statistic."""
    risk = np.linspace(0.01, 0.9, 40)
    with pytest.raises(TableError, match="E-PROBABILITY|E-MISSING"):
        hosmer_lemeshow(factor * risk, np.arange(40) % 2 == 0)


@pytest.mark.slow
def test_agrees_with_r(reference, agrees):
    """Groups, GND, Nam-D'Agostino and Hosmer-Lemeshow are R's (where it had two groups followed up to the month)."""
    parts = reference.numbers("calibration_td")
    for model in (key for key, value in parts.items() if isinstance(value, dict) and "terms" in value):
        for key, theirs in parts[model].items():
            month = float(key[1:]) if key != "terms" else 0
            if key == "terms" or theirs["gnd5"]["df"] == 0:
                continue
            risk = reference.predicted_risk[f"{model}_risk{month:g}"]
            for part, groups in (("gnd5", 5), ("gnd10_min5", None)):
                _compare_groups(agrees, calibrate(1 - risk, reference.surv, month, groups=groups,
                                                   development=True), theirs[part])
            hl, r = hosmer_lemeshow(risk, reference.surv.event), theirs["hosmer_lemeshow_any_event"]
            agrees("Hosmer-Lemeshow chi-square, p", "ResourceSelection::hoslem.test", [hl.statistic, hl.p],
                   [r["chisq"], r["p"]])


def _compare_groups(agrees, ours, theirs):
    """Compare one set of groups; R extended the curve of a group whose follow-up had ended, we do not."""
    table = theirs["groups"]
    joined_further = ours.groups.n.size < len(table["n"])
    if np.isnan(ours.groups.observed).any() or joined_further:
        return
    agrees("calibration groups", "survival::survfit", np.stack([getattr(ours.groups, f) for f in (
        "predicted", "observed", "se", "n", "events")]), [table[k] for k in ("pm", "km", "se", "n", "ev")])
    r = theirs["nam_dagostino"]
    agrees("Nam-D'Agostino chi-square, p", "by the published formula", [ours.nam_dagostino.statistic,
           ours.nam_dagostino.p], [r["chisq"], r["p"]])
    if theirs["gnd"]["chisq"] is not None:  # R divided by the zero error of a group without events
        agrees("GND chi-square, p", "by the published formula", [ours.gnd.statistic, ours.gnd.p],
               [theirs["gnd"]["chisq"], theirs["gnd"]["p"]])


def test_slope_of_a_model_on_its_own_patients_is_one(reference):
    """The calibration slope of a Cox model on the patients it was fitted on is 1: R's predictions show it."""
    for name, risk in reference.predicted_risk.items():
        month = float(name.rsplit("risk", 1)[1])
        result = calibrate(1 - risk, reference.surv, month, development=True)
        if 0 < risk.max() < 1 - 1e-6 and not np.isnan(result.slope.value):
            assert result.slope.value == pytest.approx(1, abs=0.01)
            assert result.observed.value == pytest.approx(1 - kaplan_meier(reference.surv).at(month)[0].value)


def test_slope_is_the_cox_coefficient():
    """Slope and interval are those of a Cox model of the predicted log cumulative hazard."""
    _, predicted, surv = _cohort(11)
    fit = fit_cox(np.log(-np.log(predicted)), surv, names=["scale"])
    slope = calibrate(predicted, surv, MONTH).slope
    assert (slope.value, slope.high - slope.value) == pytest.approx((fit.coef[0], 1.959964 * fit.se[0]), rel=1e-5)


def test_a_certain_prediction_is_said():
    """One survival of exactly 1 for a patient with the event moves the slope by a tenth and is W-CERTAIN; without one
    there is no such warning, and for a patient without the event it changes little."""
    random = np.random.default_rng(0)
    risk = random.normal(size=300)
    time, censored = random.exponential(60 * np.exp(-risk)), random.uniform(20, 100, 300)
    surv = Survival(np.minimum(time, censored) + 0.01, time <= censored)
    survival = np.exp(-np.exp(1.3 * risk) * 36 / 60)
    plain = calibrate(survival, surv, 36.0)
    assert "W-CERTAIN" not in {p.code for p in plain.warnings}
    for event, far in ((True, True), (False, False)):
        sure = survival.copy()
        sure[np.flatnonzero(surv.event == event)[0]] = 1.0
        found = calibrate(sure, surv, 36.0)
        assert [p.found for p in found.warnings if p.code == "W-CERTAIN"] == ["1 of 300"]
        assert np.isfinite(found.slope.value) and (abs(found.slope.value - plain.slope.value) > 0.05) == far


def test_predictions_of_no_risk_have_no_ratio():
    """When nobody is predicted any risk O/E has no denominator: nan, not infinity."""
    result = calibrate(np.ones(6), Survival([10, 20, 40, 50, 60, 70], [1, 1, 0, 1, 0, 0]), 36)
    assert np.isnan(result.oe.value) and result.observed.value == pytest.approx(1 / 3) and result.predicted == 0


def test_everyone_gone_by_the_month():
    """When all had the event by the month the observed risk is 1, and no finite shift of the predictions reaches it."""
    result = calibrate([0.4, 0.5, 0.6, 0.3], Survival([10, 20, 30, 35], [1, 1, 1, 1]), 36)
    assert result.observed.value == 1 and np.isnan([result.intercept.value, result.oe.low]).all()


def test_predictions_that_separate_have_no_slope():
    """When the higher prediction always fails first the slope is infinite: nan with the fit's warning, not a number."""
    predicted = np.linspace(0.2, 0.8, 12)
    result = calibrate(predicted, Survival(np.arange(1, 13) * 6.0, np.ones(12)), 36)
    assert np.isnan([result.slope.value, result.ici]).all()
    assert "W-SEPARATION" in [w.code for w in result.warnings]


def test_few_events_get_a_straight_curve():
    """With fewer than ten events the smooth curve has no bend: it is a line between log cumulative hazards."""
    _, predicted, surv = _cohort(12, 60)
    few = Survival(surv.time_months, surv.event & (np.cumsum(surv.event) <= 9))
    curve = calibrate(predicted, few, 30).smooth
    x, y = (np.log(-np.log1p(-risk)) for risk in (curve.predicted, curve.observed))
    assert np.polyfit(x, y, 1)[0] * (x[-1] - x[0]) == pytest.approx(y[-1] - y[0])
    assert y == pytest.approx(np.polyval(np.polyfit(x, y, 1), x))
