"""Brier score, decision curve."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtdlr.errors import TableError
from mtdlr.stats.decision import (
    brier_score,
    compare_brier,
    decision_curve,
    integrated_brier,
)
from mtdlr.stats.kaplan_meier import kaplan_meier
from mtdlr.stats.time_roc import auc_at, compare_auc_at
from mtdlr.survival import Survival

steady = settings(deadline=None, derandomize=True, max_examples=30)
MONTH = 36.0


def _cohort(seed, n=400):
    """Event-free probabilities at 36 months from the truth and from a noisy copy, and follow-up."""
    generator = np.random.default_rng(seed)
    lp = generator.normal(-0.5, 1.0, n)
    time, censor = generator.exponential(MONTH * np.exp(-lp)), generator.uniform(15, 120, n)
    noisy = np.exp(-np.exp(lp + generator.normal(0, 1.0, n)))
    return np.exp(-np.exp(lp)), noisy, Survival(np.minimum(time, censor), time <= censor)


def _everyone(surv):
    """The same patients, followed to the event."""
    return Survival(surv.time_months, np.ones(len(surv), bool))


def test_without_censoring_it_is_the_mean_squared_error():
    """With everyone followed to the event the Brier score and its error are those of a plain mean."""
    good, _, surv = _cohort(1)
    surv = _everyone(surv)
    squared = ((surv.time_months > MONTH) - good) ** 2
    result = brier_score(good, surv, MONTH)
    assert result.score.value == pytest.approx(squared.mean())
    assert result.se == pytest.approx(squared.std(ddof=1) / 20)
    share = (surv.time_months > MONTH).mean()
    assert result.null == pytest.approx(share * (1 - share))
    assert result.ipa == pytest.approx(1 - result.score.value / result.null)


@pytest.mark.slow
@pytest.mark.parametrize("constant", [False, True])
def test_error_is_that_of_leaving_one_out(constant):
    """The standard error with estimated weights is that of n leave-one-out values, also for a constant prediction."""
    good, _, surv = _cohort(2)
    predicted = np.full(400, 0.5) if constant else good
    score = brier_score(predicted, surv, MONTH)
    left = np.array([brier_score(np.delete(predicted, i), surv.take(np.arange(400) != i), MONTH).score.value
                     for i in range(400)])
    jackknife = np.sqrt(399 / 400 * np.sum((left - left.mean()) ** 2))
    assert score.se == pytest.approx(jackknife, rel=0.01, abs=1e-5)


def test_score_recovers_the_uncensored_one():
    """Weighting gives, under censoring, the score that full follow-up would have given."""
    generator = np.random.default_rng(3)
    lp = generator.normal(-0.5, 1.0, 20_000)
    time, censor = generator.exponential(MONTH * np.exp(-lp)), generator.exponential(60, 20_000)
    good = np.exp(-np.exp(lp))
    full = np.mean(((time > MONTH) - good) ** 2)
    seen = brier_score(good, Survival(np.minimum(time, censor), time <= censor), MONTH)
    assert seen.score.value == pytest.approx(full, abs=0.004) and seen.score.low < full < seen.score.high


def test_better_predictions_win():
    """The truth beats its noisy copy in the paired test; a prediction against itself differs by 0."""
    good, noisy, surv = _cohort(4)
    result = compare_brier(good, noisy, surv, MONTH)
    assert result.difference.high < 0 and result.difference.p < 0.01
    same = compare_brier(good, good, surv, MONTH)
    assert same.difference.value == 0 and np.isnan(same.z)


def test_no_model_has_ipa_zero():
    """The Kaplan-Meier risk given to everybody has an IPA of 0."""
    surv = _cohort(5)[2]
    flat = np.full(400, kaplan_meier(surv).at(MONTH)[0].value)
    assert brier_score(flat, surv, MONTH).ipa == pytest.approx(0, abs=1e-12)


def test_integral_of_a_constant_is_the_constant():
    """The integrated score is the area under the scores by trapezoids over the width; a narrow span is one score."""
    good, _, surv = _cohort(6)
    months = np.array([12.0, 24.0, 36.0])
    table = good[:, None] ** (months / MONTH)
    result = integrated_brier(table, surv, months)
    parts = [brier_score(table[:, j], surv, m).score.value for j, m in enumerate(months)]
    assert result.ibs == pytest.approx((parts[0] + 2 * parts[1] + parts[2]) / 4)
    narrow = integrated_brier(np.column_stack([good, good]), surv, [36.0, 36.0 + 1e-9])
    assert narrow.ibs == pytest.approx(brier_score(good, surv, MONTH).score.value)
    assert result.ipa == pytest.approx(1 - result.ibs / result.null_ibs)


def test_net_benefit_is_counted_without_censoring():
    """Without censoring net benefit is TP/n - FP/n x odds, counted; at a tiny threshold all are treated."""
    good, _, surv = _cohort(7)
    surv = _everyone(surv)
    event = surv.time_months <= MONTH
    curve = decision_curve(good, surv, MONTH, thresholds=[0.001, 0.2, 0.5])
    positive = (1 - good)[:, None] >= curve.thresholds
    tp, fp = (event[:, None] & positive).mean(axis=0), (~event[:, None] & positive).mean(axis=0)
    assert curve.net_benefit == pytest.approx(tp - fp * curve.thresholds / (1 - curve.thresholds))
    assert curve.n_positive.tolist() == positive.sum(axis=0).tolist()
    assert curve.treat_all[0] == pytest.approx(event.mean(), abs=0.002)


@steady
@given(st.lists(st.tuples(st.integers(1, 80), st.booleans(), st.integers(0, 10)), min_size=5, max_size=40))
def test_net_benefit_never_exceeds_the_event_rate(rows):
    """No model has a net benefit above the share of events, and the rates are shares of the patients."""
    time, event, p = (np.array(c) for c in zip(*rows, strict=True))
    curve = decision_curve(1 - p / 10, Survival(time, event), MONTH, thresholds=[0.1, 0.3, 0.7])
    known = ~np.isnan(curve.tp_rate)
    assert (curve.net_benefit[known] <= curve.tp_rate[known] + 1e-12).all()
    assert (curve.tp_rate[known] + curve.fp_rate[known] <= 1 + 1e-12).all()


def test_out_of_reach_is_na():
    """Beyond the last follow-up every number is nan and says W-HORIZON."""
    good, noisy, surv = _cohort(9)
    results: list[Any] = [brier_score(good, surv, 200), compare_brier(good, noisy, surv, 200),
                          decision_curve(good, surv, 200)]
    assert all("W-HORIZON" in [w.code for w in r.warnings] for r in results)
    assert np.isnan([results[0].score.value, results[0].ipa, results[1].difference.value]).all()
    assert np.isnan(results[2].net_benefit[:50]).all()
    assert np.isnan(integrated_brier(np.column_stack([good, good]), surv, [36, 200]).ibs)


def test_follow_up_cut_at_the_month_loses_nobody():
    """Who is censored at the month beyond which nobody is followed is free of the event at it: scores and errors of the
    Brier score, AUC(t), IPA and integral are those of all follow-up. An event at that month counts as one."""
    good, noisy, surv = _cohort(11)
    cut = Survival(np.minimum(surv.time_months, MONTH), surv.event & (surv.time_months <= MONTH))
    for score in (lambda s: brier_score(good, s, MONTH).score, lambda s: auc_at(-good, s, MONTH).auc,
                  lambda s: compare_brier(good, noisy, s, MONTH).difference,
                  lambda s: compare_auc_at(-good, -noisy, s, MONTH).difference):
        whole, short = score(surv), score(cut)
        assert (short.value, short.low, short.high) == pytest.approx((whole.value, whole.low, whole.high), abs=1e-12)
    assert brier_score(good, cut, MONTH).ipa == pytest.approx(brier_score(good, surv, MONTH).ipa, abs=1e-12)
    grid = np.column_stack([good**0.5, good])
    assert integrated_brier(grid, cut, [18, MONTH]).ibs == pytest.approx(
        integrated_brier(grid, surv, [18, MONTH]).ibs, abs=1e-12)
    last = Survival([10.0, MONTH, MONTH, MONTH], [0, 1, 0, 0])
    assert brier_score([0.9, 0.2, 0.8, 0.9], last, MONTH).score.value == pytest.approx(
        (0.2**2 + 0.2**2 + 0.1**2) / 3)  # the first patient weighs nothing, the others 4/3 each


def test_follow_up_that_ends_before_the_month_is_na():
    """Follow-up cut a moment before the month leaves its status unknown: nan and W-HORIZON, no number."""
    good, _, surv = _cohort(12)
    short = Survival(np.minimum(surv.time_months, MONTH - 0.01), surv.event & (surv.time_months <= MONTH - 0.01))
    for found in (brier_score(good, short, MONTH), auc_at(-good, short, MONTH)):
        assert [w.code for w in found.warnings] == ["W-HORIZON"]
        assert np.isnan(found.score.value if hasattr(found, "score") else found.auc.value)
    assert np.isnan(integrated_brier(np.column_stack([good, good]), short, [18, MONTH]).ibs)


@pytest.mark.parametrize("call", [
    lambda good, surv: brier_score(good + 1, surv, 36),
    lambda good, surv: decision_curve(good, surv, 36, thresholds=[0.0]),
    lambda good, surv: integrated_brier(good[:, None], surv, [36]),
    lambda good, surv: integrated_brier(np.column_stack([good, good]), surv, [36, 24]),
])
def test_bad_input_is_refused(call):
    """Numbers that are no probabilities and tables of another shape are typed errors."""
    good, _, surv = _cohort(10)
    with pytest.raises(TableError):
        call(good, surv)


def test_brier_agrees_with_r(reference, agrees):
    """Brier scores and differences are riskRegression's; p within 1e-4 where censoring weights were estimated."""
    theirs = reference.numbers("calibration_td")["riskRegression_Score"]
    km = kaplan_meier(reference.surv)

    def survival(model, month):
        if model == "Null model":
            return np.full(len(reference.surv), km.at(month)[0].value)
        return 1 - reference.predicted_risk[f"{model}_risk{month}"]

    rows = theirs["brier"]
    for model, month, score, se in zip(rows["model"], rows["times"], rows["Brier"], rows["se"], strict=True):
        ours = brier_score(survival(model, month), reference.surv, month)
        agrees("Brier score", "riskRegression::Score", ours.score.value, score)
        if model != "Null model":  # there R's error leaves out how the weights are estimated
            agrees("SE of Brier score, relative", "riskRegression::Score", ours.se / se, 1, within=2e-3)
    rows = theirs["brier_contrasts"]
    keys = ("model", "reference", "times", "delta.Brier", "p")
    for model, other, month, delta, p in zip(*(rows[k] for k in keys), strict=True):
        gain = compare_brier(survival(model, month), survival(other, month), reference.surv, month).difference
        agrees("Brier difference", "riskRegression::Score", gain.value, delta)
        agrees("p of Brier difference", "riskRegression::Score", gain.p, p, within=1e-4)


def test_integrated_brier_agrees_with_r(reference, agrees):
    """The score of the Kaplan-Meier curve at every time is pec's: the mean of its steps is pec's integrated score."""
    theirs = reference.numbers("calibration_td")["pec_crps_IBS"]
    curve = kaplan_meier(reference.surv)
    for month, ibs in zip(theirs["times"], theirs["ibs"][0], strict=True):
        end = month if month < theirs["times"][-1] else curve.time[curve.time <= month][-1]  # where pec's grid ends
        grid = np.append(curve.time[curve.time < end], end)
        steps = np.array([stay.value for stay in curve.at(grid)])
        ours = integrated_brier(np.tile(steps, (len(reference.surv), 1)), reference.surv, grid)
        assert ours.scores == pytest.approx(ours.null) and ours.ipa == pytest.approx(0, abs=1e-9)
        mean_of_steps = np.average(ours.scores[:-1], weights=np.diff(grid))
        agrees("mean of Brier score over time", "pec::crps", mean_of_steps, ibs)


def test_net_benefit_agrees_with_r(reference, agrees):
    """Net benefit is dcurves' wherever both know it."""
    parts = reference.numbers("calibration_td")
    for model in (key for key, value in parts.items() if isinstance(value, dict) and "terms" in value):
        for key, theirs in parts[model].items():
            if key == "terms":
                continue
            predicted = 1 - reference.predicted_risk[f"{model}_risk{key[1:]}"]
            rows = theirs["dca"]
            ours = decision_curve(predicted, reference.surv, float(key[1:]), thresholds=rows["p"]["threshold"])
            r = np.array(rows["p"]["net_benefit"], dtype=object).astype(float)
            both = ~np.isnan(r) & ~np.isnan(ours.net_benefit)
            agrees("net benefit", "dcurves::dca", ours.net_benefit[both], r[both])
            agrees("net benefit of treating all", "dcurves::dca", ours.treat_all, rows["all"]["net_benefit"])


