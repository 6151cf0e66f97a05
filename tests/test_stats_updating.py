"""Updating a received Cox model: baseline, slope, refit; the closed test; optimism and effective sample size."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from mtdlr.errors import FitError
from mtdlr.stats.concordance import concordance
from mtdlr.stats.cox import CoxFit, fit_cox
from mtdlr.stats.updating import (
    METHODS,
    Method,
    closed_test,
    effective_sample_size,
    performance,
    update_cox,
    update_optimism,
)
from mtdlr.survival import Survival

COEF = np.array([0.8, -0.5, 0.4])


def _cohort(n: int, seed: int, *, coef: np.ndarray = COEF, rate: float = 0.006) -> tuple[np.ndarray, Survival]:
    """Exponential event times under a Cox model, censored between 44 and 97 months."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, coef.size))
    time = rng.exponential(1.0 / (rate * np.exp(x @ coef)))
    contact = rng.uniform(44.0, 97.0, n)
    return x, Survival(np.minimum(time, contact), time <= contact)


@pytest.fixture(scope="module")
def received() -> CoxFit:
    """A model developed on 1,500 patients."""
    return fit_cox(*_cohort(1500, 1))


def test_new_baseline_is_breslow_with_the_predictions_as_offset() -> None:
    """By hand: at each event the hazard grows by one over the sum of exp(log hazard) still at risk."""
    x = np.log([[2.0], [1.0], [3.0], [1.0]])
    surv = Survival([1.0, 2.0, 3.0, 4.0], [1, 0, 1, 1])
    fit = fit_cox(np.array([[0.0], [1.0], [0.5], [0.2]]), Survival([4.0, 1.0, 2.0, 3.0], [1, 1, 1, 0]))
    one = CoxFit(**{**vars(fit), "coef": np.array([1.0])})
    updated = update_cox(one, x, surv, "baseline").fit
    np.testing.assert_allclose(updated.cumulative_hazard, np.cumsum([1 / 7, 1 / 4, 1 / 1]))


def test_baseline_update_changes_no_rank(received: CoxFit) -> None:
    """Every risk, and so every C-index, is the same to the last bit after a new baseline."""
    x, surv = _cohort(300, 2, rate=0.012)
    updated = update_cox(received, x, surv, "baseline").fit
    assert concordance(updated.log_hazard(x), surv).c == concordance(received.log_hazard(x), surv).c
    assert updated.coef.tolist() == received.coef.tolist()


def test_baseline_update_mends_calibration_in_the_large(received: CoxFit) -> None:
    """A hazard twice the model's: O/E is far from 1 as received, and near 1 in patients not used for the update."""
    x, surv = _cohort(800, 3, rate=0.012)
    other = _cohort(4000, 4, rate=0.012)
    updated = update_cox(received, x, surv, "baseline").fit
    assert performance(received, *other, 36).oe > 1.3
    assert performance(updated, *other, 36).oe == pytest.approx(1.0, abs=0.06)


def test_slope_equals_lifelines(received: CoxFit) -> None:
    """The slope is the Cox coefficient of the received log hazard."""
    lifelines = pytest.importorskip("lifelines")
    x, surv = _cohort(400, 5, coef=0.5 * COEF)
    frame = pd.DataFrame({"risk": received.log_hazard(x), "t": surv.time_months, "e": surv.event})
    theirs = lifelines.CoxPHFitter().fit(frame, "t", "e").params_["risk"]
    updated = update_cox(received, x, surv, "slope")
    assert updated.slope == pytest.approx(theirs, rel=1e-5)
    np.testing.assert_allclose(updated.fit.coef, updated.slope * received.coef)
    assert performance(updated.fit, x, surv, 36).slope == pytest.approx(1.0, abs=1e-6)


def test_refit_shrinks_deviations_by_their_likelihood_ratio(received: CoxFit) -> None:
    """The kept share of each deviation is (chi-square - df) / chi-square of refit against slope, from lifelines."""
    lifelines = pytest.importorskip("lifelines")
    x, surv = _cohort(500, 6, coef=np.array([0.3, -0.5, 0.9]))
    frame = pd.DataFrame(x, columns=["a", "b", "c"]).assign(t=surv.time_months, e=surv.event)
    full = lifelines.CoxPHFitter().fit(frame, "t", "e")
    slope = lifelines.CoxPHFitter().fit(frame.assign(risk=received.log_hazard(x))[["risk", "t", "e"]], "t", "e")
    gain = 2 * (full.log_likelihood_ - slope.log_likelihood_)
    updated = update_cox(received, x, surv, "refit")
    assert updated.shrinkage == pytest.approx((gain - 2) / gain, rel=1e-4)
    recalibrated = slope.params_["risk"] * received.coef
    expected = recalibrated + updated.shrinkage * (full.params_.to_numpy() - recalibrated)
    np.testing.assert_allclose(updated.fit.coef, expected, rtol=1e-4)


def test_refit_of_a_right_model_keeps_hardly_any_deviation(received: CoxFit) -> None:
    """Where the model is right, the shrinkage is near 0 and the coefficients stay proportional."""
    kept = [update_cox(received, *_cohort(200, seed), "refit").shrinkage for seed in range(20, 40)]
    assert np.median(kept) < 0.3


def test_refit_leaves_a_column_that_does_not_vary(received: CoxFit) -> None:
    """A column that is constant in the new cohort keeps its recalibrated coefficient."""
    x, surv = _cohort(300, 7)
    x[:, 1] = 0.5
    updated = update_cox(received, x, surv, "refit")
    assert updated.fit.coef[1] == updated.slope * received.coef[1]


@pytest.mark.slow
def test_closed_test_holds_its_level(received: CoxFit) -> None:
    """A right model is left alone in about 95 of 100 cohorts."""
    chosen = [closed_test(received, *_cohort(250, seed), 36).chosen for seed in range(100, 220)]
    assert np.mean([choice == "none" for choice in chosen]) == pytest.approx(0.95, abs=0.05)


@pytest.mark.parametrize(("expected", "coef", "rate"), [
    ("baseline", COEF, 0.015), ("slope", 0.3 * COEF, 0.012), ("refit", np.array([-0.6, -0.6, 0.9]), 0.012)])
def test_closed_test_takes_the_smallest_sufficient_update(
    received: CoxFit, expected: str, coef: np.ndarray, rate: float
) -> None:
    """A wrong baseline asks for a baseline, a wrong slope for a slope, wrong coefficients for a refit."""
    chosen = [closed_test(received, *_cohort(600, seed, coef=coef, rate=rate), 36).chosen for seed in range(20)]
    assert chosen.count(expected) >= 17, chosen


def test_single_coefficient_is_never_refitted() -> None:
    """With one coefficient a refit is a slope, so the closed test stops there."""
    x, surv = _cohort(600, 8, coef=np.array([1.0]))
    fit = fit_cox(x, surv)
    assert closed_test(fit, *_cohort(600, 9, coef=np.array([0.2])), 36).chosen == "slope"


@pytest.mark.slow
def test_optimism_grows_with_what_is_estimated(received: CoxFit) -> None:
    """The corrected Brier gain is below the apparent one, and a refit has more optimism than a baseline."""
    x, surv = _cohort(150, 10)
    gap = {}
    for method in ("baseline", "refit"):
        found = update_optimism(received, x, surv, method, 36, resamples=60, seed=3)  # type: ignore[arg-type]
        gap[method] = found.apparent.ipa - found.corrected.ipa
        assert found.resamples + found.failed == 60
    assert gap["refit"] > max(gap["baseline"], 0.0)


def test_effective_sample_size_of_a_mean_patient_is_that_of_a_kaplan_meier_estimate() -> None:
    """Without effects and without censoring, the patient at the means is worth about all n patients."""
    rng = np.random.default_rng(11)
    x, time = rng.standard_normal((400, 1)), rng.exponential(40.0, 400)
    fit = fit_cox(x, Survival(time, np.ones(400, bool)))
    assert effective_sample_size(fit, fit.means[None, :], 36)[0] == pytest.approx(400, rel=0.03)
    assert effective_sample_size(fit, [[2.5]], 36)[0] < 120


@pytest.mark.parametrize(("method", "n", "warned"), [
    ("baseline", 150, False), ("slope", 200, False), ("slope", 60, True), ("refit", 200, True), ("refit", 700, False)])
def test_few_events_are_warned_of(received: CoxFit, method: Method, n: int, warned: bool) -> None:
    """Below 50 events a slope and below 100 a refit is made, and warned of."""
    found = update_cox(received, *_cohort(n, 12), method)
    assert ("W-UPDATEEVENTS" in [p.code for p in found.problems]) == warned


def test_original_is_not_changed(received: CoxFit) -> None:
    """An update returns a new model."""
    before = str(received.as_dict())
    for method in METHODS:
        update_cox(received, *_cohort(200, 13), method)
    assert str(received.as_dict()) == before


def test_bad_requests_are_named(received: CoxFit) -> None:
    """Another method, no event and a constant prediction have their codes."""
    x, surv = _cohort(50, 14)
    with pytest.raises(FitError, match="E-OPTION"):
        update_cox(received, x, surv, "everything")  # type: ignore[arg-type]
    with pytest.raises(FitError, match="E-NOEVENTS"):
        update_cox(received, x, Survival(surv.time_months, np.zeros(50, bool)), "baseline")
    with pytest.raises(FitError, match="E-SLOPE"):
        update_cox(received, np.zeros((50, 3)), surv, "slope")
