"""Cumulative/dynamic AUC at a month."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtdlr.stats.inference import two_sided_p
from mtdlr.stats.ipcw import censoring, horizon_weights
from mtdlr.stats.roc import roc
from mtdlr.stats.time_roc import auc_at, compare_auc_at, known_status_roc
from mtdlr.survival import Survival

steady = settings(deadline=None, derandomize=True, max_examples=30)


def _cohort(seed, n=300, strength=1.0):
    generator = np.random.default_rng(seed)
    risk = generator.normal(size=n)
    time, censor = generator.exponential(40 * np.exp(-strength * risk)), generator.uniform(10, 90, n)
    return risk, Survival(np.minimum(time, censor), time <= censor)


@steady
@given(st.lists(st.tuples(st.integers(1, 9), st.booleans(), st.integers(-3, 3)), min_size=3, max_size=30),
       st.integers(2, 8))
def test_area_is_the_weighted_share_of_pairs(rows, month):
    """AUC(t) is the share of case-control pairs in order, each case weighted by 1 / G(T-), ties one half."""
    time, event, risk = (np.array(column) for column in zip(*rows, strict=True))
    surv = Survival(time, event)
    result = auc_at(risk, surv, month)
    case, control = event & (time <= month), time > month
    if not control.any():  # all follow-up is cut at the month, or ends before it
        control = ~event & (time == month)
    if not case.any() or not control.any():
        assert np.isnan(result.auc.value) and result.warnings[0].code == "W-HORIZON"
        assert (result.n_cases, result.n_controls) == (case.sum(), control.sum())
        return
    weight = 1 / censoring(surv).just_before(time[case])
    share = (np.sign(risk[case][:, None] - risk[control]) / 2 + 0.5).mean(axis=1)
    assert result.auc.value == pytest.approx(np.average(share, weights=weight))
    assert auc_at(-risk, surv, month).auc.value == pytest.approx(1 - result.auc.value)
    area = np.trapezoid(result.sensitivity[::-1], 1 - result.specificity[::-1])
    assert area == pytest.approx(result.auc.value)


def test_without_censoring_it_is_the_plain_auc():
    """With everyone followed to the end, AUC(t) is the AUC of the status at t."""
    risk, surv = _cohort(1)
    surv = Survival(surv.time_months, np.ones(300, bool))
    timed, plain = auc_at(risk, surv, 25), roc(risk, surv.time_months <= 25)
    assert timed.auc.value == pytest.approx(plain.auc.value)
    assert timed.auc.p == pytest.approx(two_sided_p((timed.auc.value - 0.5) / timed.se))
    assert timed.se == pytest.approx(plain.variance**0.5, rel=0.01)


def test_error_is_that_of_leaving_one_out():
    """The standard error, with the estimated weights in it, is that of n leave-one-out values."""
    risk, surv = _cohort(2)
    left = np.array([auc_at(np.delete(risk, i), surv.take(np.arange(300) != i), 36).auc.value for i in range(300)])
    jackknife = np.sqrt(299 / 300 * np.sum((left - left.mean()) ** 2))
    assert auc_at(risk, surv, 36).se == pytest.approx(jackknife, rel=0.01)


@pytest.mark.slow
def test_interval_covers_the_truth():
    """About 95 % of intervals contain AUC(36) of the population, under censoring."""
    generator = np.random.default_rng(0)
    risk = generator.normal(size=400_000)
    status = generator.exponential(40 * np.exp(-risk)) <= 36
    truth = roc(risk, status).auc.value
    results = [auc_at(*_cohort(seed, 150), 36).auc for seed in range(1000, 1300)]  # type: ignore[call-arg]
    assert 0.91 < np.mean([r.low < truth < r.high for r in results]) < 0.985
    assert np.mean([r.value for r in results]) == pytest.approx(truth, abs=0.006)


def test_comparison_is_paired():
    """A risk and a copy with noise differ with a far smaller error than two independent areas would."""
    risk, surv = _cohort(3)
    noisy = risk + np.random.default_rng(5).normal(size=300) * 0.5
    paired = compare_auc_at(risk, noisy, surv, 36)
    apart = np.hypot(auc_at(risk, surv, 36).se, auc_at(noisy, surv, 36).se)
    assert paired.difference.value / paired.z < apart / 2
    assert paired.difference.value == pytest.approx(
        auc_at(risk, surv, 36).auc.value - auc_at(noisy, surv, 36).auc.value)


@pytest.mark.parametrize(("time", "event", "month"), [
    ([10, 20, 70, 80], [1, 1, 0, 0], 5),  # no event yet
    ([10, 20, 30, 40], [1, 0, 1, 0], 60),  # nobody followed that long
    ([10, 20, 30, 70], [0, 0, 0, 1], 60),  # everyone censored but the survivor
])
def test_out_of_reach_is_na(time, event, month):
    """Before the first event or after the last follow-up there is no AUC: nan and W-HORIZON, never a guess."""
    surv = Survival(time, event)
    for result in (auc_at([4.0, 3, 2, 1], surv, month), compare_auc_at([4.0, 3, 2, 1], [1.0, 2, 3, 4], surv, month)):
        estimate = result.auc if hasattr(result, "auc") else result.difference
        assert np.isnan([estimate.value, estimate.low, estimate.p]).all()
        assert [w.code for w in result.warnings] == ["W-HORIZON"]


def test_known_status_leaves_out_the_censored():
    """The known-status ROC uses those with the event by the month and those followed to it."""
    surv = Survival([10, 20, 60, 70, 30], [1, 0, 0, 1, 1])
    result = known_status_roc([5.0, 9, 1, 2, 4], surv, 60)
    assert (result.n_positive, result.n_negative, result.auc.value) == (2, 2, 1.0)


def test_weights_sum_to_the_cohort():
    """Cases and controls, weighted, stand for all n patients."""
    _, surv = _cohort(6, 5000)
    cases, controls = horizon_weights(censoring(surv), surv, 36)
    assert cases.sum() + controls.sum() == pytest.approx(5000, rel=1e-9)


def test_agrees_with_r(reference, agrees):
    """AUC(t) is riskRegression's to rounding; its error within 1e-4 of it (R's two packages differ by 1.4e-4)."""
    theirs = reference.numbers("calibration_td")["riskRegression_Score"]["auc"]
    for model, month, auc, se in zip(theirs["model"], theirs["times"], theirs["AUC"], theirs["se"], strict=True):
        ours = auc_at(reference.predicted_risk[f"{model}_risk{month}"], reference.surv, month)
        agrees("AUC(t)", "riskRegression::Score", ours.auc.value, auc)
        agrees("SE of AUC(t), relative", "riskRegression::Score", ours.se / se, 1, within=1e-4)


def test_agrees_with_timeroc(reference, agrees):
    """AUC(t) is timeROC's too, except at 12 months of npc_val, where timeROC stands alone under heavy ties."""
    parts = reference.numbers("calibration_td")
    for model in (key for key, value in parts.items() if isinstance(value, dict) and "terms" in value):
        for key, theirs in parts[model].items():
            if key != "terms" and (reference.name, key) != ("npc_val", "t12"):
                ours = auc_at(reference.predicted_risk[f"{model}_risk{key[1:]}"], reference.surv, float(key[1:]))
                agrees("AUC(t)", "timeROC::timeROC", ours.auc.value, theirs["timeROC"]["auc"])


def test_comparisons_agree_with_r(reference, agrees):
    """The paired difference of AUC(t) is riskRegression's; its p within 1e-5."""
    theirs = reference.numbers("calibration_td")["riskRegression_Score"]["auc_contrasts"]
    for model, other, month, delta, p in zip(*(theirs[k] for k in ("model", "reference", "times", "delta.AUC", "p")),
                                             strict=True):
        a, b = (reference.predicted_risk[f"{m}_risk{month}"] for m in (model, other))
        ours = compare_auc_at(a, b, reference.surv, month)
        agrees("AUC(t) difference", "riskRegression::Score", ours.difference.value, delta)
        agrees("p of AUC(t) difference", "riskRegression::Score", ours.difference.p, p, within=1e-5)
