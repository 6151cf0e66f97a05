"""Firth's penalised fits, profile intervals and residuals, against definitions computed another way."""

from __future__ import annotations

from math import erfc, sqrt

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize

from mtdlr.errors import FitError
from mtdlr.stats import Cases, cox_residuals, firth_cox, fit_cox, profile_interval, proportional_hazards_test
from mtdlr.survival import Survival

ties_of = pytest.mark.parametrize("ties", ("efron", "breslow"))


def _cohort(seed=0, n=40):
    random = np.random.default_rng(seed)
    x = np.column_stack([random.integers(0, 2, n), random.normal(size=n)]).astype(float)
    return x, Survival(np.ceil(random.exponential(size=n) * 5), random.random(n) < 0.6)


def _parts(beta, x, surv, ties):
    """Log likelihood and information, term by term."""
    time, event, value = surv.time_months, surv.event, 0.0
    info, relative = np.zeros((2, 2)), np.exp(x @ beta)
    for t in np.unique(time[event]):
        died = event & (time == t)
        value += (x[died] @ beta).sum()
        for j in range(died.sum()):
            w = relative * (time >= t) - (j / died.sum() if ties == "efron" else 0) * relative * died
            mean = w @ x / w.sum()
            value -= np.log(w.sum())
            info += (x - mean).T @ ((x - mean) * w[:, None]) / w.sum()
    return value, info


@ties_of
def test_firth_maximises_the_penalised_likelihood(ties):
    """The estimate is the maximum of l + log det I / 2, found here by a general optimiser."""
    x, surv = _cohort(3)

    def loss(beta):
        value, info = _parts(beta, x, surv, ties)
        return -value - 0.5 * np.linalg.slogdet(info)[1]

    found = minimize(loss, np.zeros(2), method="BFGS", options={"gtol": 1e-8})
    fit = firth_cox(x, surv, ties=ties)
    assert fit.coef == pytest.approx(found.x, abs=1e-5) and fit.loglik == pytest.approx(-found.fun, abs=1e-9)
    assert np.linalg.inv(fit.covariance) == pytest.approx(_parts(fit.coef, x, surv, ties)[1], rel=1e-8)


def test_firth_is_finite_where_the_likelihood_is_not():
    """A level without events gets a finite hazard ratio below 1 and a finite interval."""
    x, surv = _cohort(3)
    surv = Survival(surv.time_months, surv.event & (x[:, 0] == 0))
    assert fit_cox(x, surv).monotone == ("x1",)
    ratio = firth_cox(x, surv).hazard_ratios()["x1"]
    profile = profile_interval(x, surv, "x1", firth=True)
    assert 0 < ratio.low < ratio.value < 1 and ratio.high < np.inf
    assert profile.value == pytest.approx(ratio.value) and 0 < profile.low < profile.value < profile.high < 1
    plain = profile_interval(x, surv, "x1")
    assert (plain.value, plain.low) == (0.0, 0.0) and 0 < plain.high < 1 and plain.p < 0.05


def test_firth_shrinks_and_fades():
    """The penalty pulls towards 0, and matters less and less as the same data are repeated."""
    x, surv = _cohort(4)
    gaps = []
    for times in (1, 5):
        rows = np.tile(np.arange(40), times)
        gaps.append(np.abs(firth_cox(x[rows], surv.take(rows)).coef - fit_cox(x[rows], surv.take(rows)).coef).max())
    assert 0 < gaps[1] < gaps[0] / 3


@pytest.mark.parametrize("column", (0, 1))
def test_profile_interval_ends_where_the_likelihood_has_fallen(column):
    """At each end the profile likelihood is 1.92 below the top; the p value is the likelihood-ratio test."""
    x, surv = _cohort(5, n=60)
    fit, estimate = fit_cox(x, surv), profile_interval(x, surv, column)
    other = 1 - column
    for end in (estimate.low, estimate.high):
        held = fit_cox(x[:, other], surv, cases=Cases(offset=x[:, column] * np.log(end)))
        assert fit.loglik - held.loglik == pytest.approx(3.841458820694124 / 2, abs=1e-7)
    without = fit_cox(x[:, other], surv)
    assert estimate.p == pytest.approx(erfc(sqrt(fit.loglik - without.loglik)), abs=1e-9)
    assert estimate.value == pytest.approx(np.exp(fit.coef[column]))


@pytest.mark.slow
def test_a_profile_without_an_end_is_unbounded():
    """Two columns that say nearly the same of three patients: where the information becomes singular before the profile
    has fallen, that end is 0 or infinity, and nothing is divided by infinity."""
    x = np.array([[-0.20417992, -0.35834742], [-1.25083495, -1.42187135], [-2.31610292, -2.5990925]])
    surv = Survival([0.50788385, 11.49913809, 40.1], [True, True, False])
    found = profile_interval(x, surv, 1, firth=True)
    assert found.low >= 0.0 and found.high > found.value and 0.0 <= found.p <= 1.0


def test_profile_needs_a_column_that_says_something():
    """An unknown or constant column is E-COLUMN."""
    x, surv = _cohort(1)
    for column in ("nobody", "same"):
        with pytest.raises(FitError, match="E-COLUMN"):
            table = pd.DataFrame(np.column_stack([x, np.ones(40)]), columns=["a", "b", "same"])
            profile_interval(table, surv, column)


@ties_of
def test_residuals_sum_to_nothing(ties):
    """Martingale, score and Schoenfeld residuals sum to 0; the last two give the coefficients' influence and drift."""
    x, surv = _cohort(6, n=80)
    fit = fit_cox(x, surv, ties=ties)
    r = cox_residuals(fit, x, surv)
    assert r.martingale.sum() == pytest.approx(0, abs=1e-9) and r.martingale.max() <= 1
    assert r.score.sum(axis=0) == pytest.approx(0, abs=1e-7) and r.schoenfeld.sum(axis=0) == pytest.approx(0, abs=1e-7)
    assert r.scaled_schoenfeld.mean(axis=0) == pytest.approx(fit.coef, abs=1e-8)
    assert r.dfbeta == pytest.approx(r.score @ fit.covariance, abs=1e-9)
    assert (np.diff(surv.time_months[r.event_rows]) >= 0).all() and surv.event[r.event_rows].all()


def test_dfbeta_is_close_to_leaving_the_patient_out():
    """The change when a patient is left out has dfbeta as its first order."""
    x, surv = _cohort(7, n=150)
    fit = fit_cox(x, surv)
    ours = cox_residuals(fit, x, surv).dfbeta[:20]
    left = np.array([fit.coef - fit_cox(np.delete(x, i, 0), surv.take(np.arange(150) != i)).coef for i in range(20)])
    assert np.corrcoef(ours.ravel(), left.ravel())[0, 1] > 0.995 and np.abs(ours - left).max() < 0.01


def test_proportional_hazards_test_sees_a_changing_effect():
    """An effect that turns at the median time is found; one that does not is not; separation is refused."""
    random = np.random.default_rng(1)
    x = random.integers(0, 2, 400).astype(float)
    early, late = random.exponential(np.exp(-1.5 * x)), random.exponential(np.exp(1.5 * x))
    turning = Survival(np.where(early < 0.7, early, 0.7 + late) + 1e-3, np.ones(400))
    steady = Survival(early + 1e-3, np.ones(400))
    for surv, found in ((turning, True), (steady, False)):
        tests = proportional_hazards_test(fit_cox(x, surv, names=["x"]), x, surv)
        assert (tests["x"].p < 1e-4) is found and tests["GLOBAL"] == tests["x"]
    empty = Survival(steady.time_months, x == 0)
    with pytest.raises(FitError, match="E-SEPARATION"):
        proportional_hazards_test(fit_cox(x, empty), x, empty)
