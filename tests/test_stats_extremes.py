"""Survival statistics where the numbers are extreme: no overflow, no log of 0, no warning; warnings are errors here."""

import numpy as np
import pytest

from mtdlr.nomogram import Nomogram
from mtdlr.stats.cox import fit_cox
from mtdlr.survival import Survival


def _cohort(n=60, seed=0, effect=1.0):
    random = np.random.default_rng(seed)
    x = random.normal(size=n)
    time = np.round(random.exponential(20.0 * np.exp(-effect * x)), 1) + 0.1
    return x, Survival(time, random.random(n) < 0.7)


@pytest.mark.parametrize("relative", [-1e3, -700.0, -40.0, -30.0, 0.0, 6.0, 40.0, 700.0, 1e3])
def test_survival_and_its_interval_are_finite_for_any_log_hazard(relative):
    """For log hazards up to 1000 from the mean, survival and both limits are numbers in [0, 1], in order."""
    x, surv = _cohort()
    fit = fit_cox(x, surv)
    row = fit.means + relative / fit.coef
    months = [0.01, 6.0, float(surv.time_months.max())]
    survival, (low, high) = fit.survival(row[None], months), fit.survival_interval(row[None], months)
    assert np.isfinite([survival, low, high]).all()
    assert (0.0 <= low).all() and (low <= survival).all() and (survival <= high).all() and (high <= 1.0).all()
    assert survival[0, 0] == low[0, 0] == high[0, 0] == 1.0  # before the first event


def test_the_interval_of_a_survival_that_rounds_to_one_still_has_a_width():
    """A patient whose survival is 1 to the last bit keeps the interval of the log cumulative hazard."""
    x, surv = _cohort()
    fit = fit_cox(x, surv)
    row = fit.means - 45.0 / fit.coef
    low, high = fit.survival_interval(row[None], [12.0])
    hazard = fit.baseline.log_cumulative_hazard([12.0])[0] - 45.0
    se = fit.baseline.log_hazard_se(row[None] - fit.means, [12.0], fit.covariance, None)[0, 0]
    assert fit.survival(row[None], [12.0])[0, 0] == 1.0
    assert low[0, 0] == pytest.approx(np.exp(-np.exp(hazard + 1.959963984540054 * se)), rel=1e-12)
    assert low[0, 0] < high[0, 0]


def test_a_nomogram_predicts_for_patients_far_from_its_own():
    """A score 1000 log hazards above the training patients gets survival 0 with finite limits, and finite points."""
    x, surv = _cohort(effect=2.0)
    nomogram = Nomogram.fit({"score": x}, surv, ["score"], [12.0, 24.0])
    far = {"score": np.array([-1e3, -30.0, 0.0, 30.0, 1e3]) / nomogram.cox.coef[0]}
    curve = nomogram.survival(far)
    assert np.isfinite([curve.value, curve.low, curve.high]).all()
    assert curve.value[0].tolist() == [1.0, 1.0] and curve.value[-1].tolist() == [0.0, 0.0]
    points = nomogram.points(far)["total"]
    assert np.isfinite(points).all()
    assert nomogram.survival_of(points, 12.0) == pytest.approx(curve.value[:, 0], abs=1e-12)
    assert nomogram.points_for([0.0, 1.0], 12.0).tolist() == [np.inf, -np.inf]
