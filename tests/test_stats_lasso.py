"""Lasso Cox: what theory says, folds, limit cases, stability."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtdlr.errors import FitError
from mtdlr.stats import (
    Penalties,
    cross_validate_lasso,
    fit_cox,
    lasso_path,
    relaxed_fit,
    repeat_cross_validation,
    selection_frequency,
    stratified_folds,
)
from mtdlr.stats.lasso_likelihood import Outcome, log_likelihoods
from mtdlr.survival import Survival

steady = settings(deadline=None, derandomize=True, max_examples=15)
seeds = st.integers(0, 10_000)


def _cohort(seed=0, n=80, p=20):
    random = np.random.default_rng(seed)
    x = random.normal(size=(n, p)) + random.normal(size=(n, 1)) * 0.5
    time = np.ceil(random.exponential(np.exp(-x[:, 0] + x[:, 1])) * 10)
    return x, Survival(time, (random.random(n) < 0.6) | (np.arange(n) < 5))


def _objective(beta, x, surv, lam, alpha):
    """-(log partial likelihood, Breslow) / n plus the penalty, by definition; beta per standard deviation."""
    eta = (x / x.std(axis=0)) @ beta
    later = surv.time_months[None, :] >= surv.time_months[surv.event, None]
    loglik = (eta[surv.event] - np.log(later @ np.exp(eta))).sum()
    return -loglik / len(surv) + lam * (alpha * np.abs(beta).sum() + (1 - alpha) / 2 * (beta**2).sum())


@pytest.mark.slow
@steady
@given(seeds, st.sampled_from([1.0, 0.7, 0.2]))
def test_solution_beats_its_neighbours(seed, alpha):
    """No coefficient can be moved to lower the objective, by a little or to 0."""
    x, surv = _cohort(seed)
    path = lasso_path(x, surv, penalties=Penalties(alpha=alpha, n=12, ratio=0.05, tol=1e-8))
    sd = x.std(axis=0)
    for k in (2, 6, len(path.lambdas) - 1):
        beta = path.coef[k] * sd
        best = _objective(beta, x, surv, path.lambdas[k], alpha)
        for j in range(20):
            for step in (1e-3, -1e-3, -beta[j]):
                moved = beta.copy()
                moved[j] += step
                assert _objective(moved, x, surv, path.lambdas[k], alpha) >= best - 1e-10


@steady
@given(seeds, st.floats(0.01, 100.0), st.floats(-50.0, 50.0))
def test_units_shift_and_order_do_not_matter(seed, scale, shift):
    """A scaled column has its coefficient divided, a shift does nothing, patients and features come in any order."""
    x, surv = _cohort(seed)
    random = np.random.default_rng(seed)
    rows, columns = random.permutation(80), random.permutation(20)
    moved = x.copy()
    moved[:, 3] = x[:, 3] * scale + shift
    one = lasso_path(x, surv, penalties=Penalties(n=10, ratio=0.1, tol=1e-9))
    other = lasso_path(moved[rows][:, columns], surv.take(rows), penalties=Penalties(n=10, ratio=0.1, tol=1e-9))
    back = other.coef[:, np.argsort(columns)]
    back[:, 3] *= scale
    assert back == pytest.approx(one.coef, abs=1e-6)


def test_first_penalty_is_the_smallest_that_empties_the_model():
    """At the first penalty nothing is selected; just below it something is."""
    x, surv = _cohort(1)
    path = lasso_path(x, surv)
    assert path.nonzero[0] == 0 and path.deviance_ratio[0] == pytest.approx(0)
    assert lasso_path(x, surv, penalties=Penalties(values=[path.lambdas[0] * 0.999])).nonzero[0] == 1


def test_without_penalty_it_is_coxph():
    """At a vanishing penalty the coefficients are those of the unpenalised Breslow fit, and so is the relaxed fit."""
    x, surv = _cohort(2, n=200, p=5)
    fit = fit_cox(x, surv, ties="breslow")
    for lam in (1e-9, 0.0):
        path = lasso_path(x, surv, penalties=Penalties(values=[lam], tol=1e-3))
        assert path.coef[0] == pytest.approx(fit.coef, abs=1e-6)
    relaxed = relaxed_fit(x, surv, [1, 0, 2, 0, 0], names=list("abcde"))
    assert relaxed.names == ("a", "c")
    assert relaxed.coef == pytest.approx(fit_cox(x[:, [0, 2]], surv, ties="breslow").coef)
    assert relaxed_fit(x, surv, [0.0, 0, 0, 1, 0]).names == ("x4",)


def test_more_features_than_patients():
    """With many more features than patients and a long path the fit stays finite and optimal."""
    x, surv = _cohort(3, n=40, p=400)
    path = lasso_path(x, surv)
    assert np.isfinite(path.coef).all() and (path.nonzero <= 40).all() and path.lambdas[0] / path.lambdas[-1] < 101
    assert (np.diff(path.deviance_ratio) > -1e-6).all()


@pytest.mark.slow
@pytest.mark.parametrize(("n", "p"), [(30, 5), (60, 20), (20, 40)])
@pytest.mark.parametrize("separated", [False, True])
def test_tiny_penalties_are_solved_or_refused(n, p, separated):
    """Down to penalties of 1e-300, with more features than patients and with a feature that orders all events: each
    coefficient is finite and explains between nothing and everything, or the path ends, or E-PENALTY says that the
    first penalty is too small. Never a deviance below that of no model."""
    x, surv = _cohort(1, n=n, p=p)
    if separated:
        x[:, 0] = -surv.time_months
    for values in ([1e-12], [1e-6, 1e-9, 1e-300], [0.0], np.geomspace(0.3, 1e-15, 8)):
        try:
            path = lasso_path(x, surv, penalties=Penalties(values=values))
        except FitError as error:
            assert error.code == "E-PENALTY" and max(values) < 1e-3
            continue
        assert np.isfinite(path.coef).all() and path.lambdas.size == len(path.coef) >= 1
        assert (path.deviance_ratio > -1e-9).all() and (path.deviance_ratio < 1.0 + 1e-9).all()
        assert (np.diff(path.deviance_ratio) > -1e-6).all()


def test_repeated_and_constant_features():
    """A constant feature stays 0; two copies of one feature share what one alone would have."""
    x, surv = _cohort(4, p=4)
    more = np.column_stack([x, x[:, 0], np.full(80, 3.0)])
    one, two = (lasso_path(m, surv, penalties=Penalties(n=20, ratio=0.1, tol=1e-8)) for m in (x, more))
    assert (two.coef[:, 5] == 0).all()
    assert two.coef[:, 0] + two.coef[:, 4] == pytest.approx(one.coef[:, 0], abs=1e-5)


def test_interpolation_is_linear_in_the_penalty():
    """Halfway between two penalties the coefficients are halfway; beyond the ends they are held."""
    x, surv = _cohort(5)
    path = lasso_path(x, surv, penalties=Penalties(n=10, ratio=0.1))
    middle = path.coef_at([(path.lambdas[3] + path.lambdas[4]) / 2])
    assert middle[0] == pytest.approx((path.coef[3] + path.coef[4]) / 2)
    assert path.coef_at(path.lambdas) == pytest.approx(path.coef)
    assert np.array_equal(path.coef_at([99.0, 0.0]), path.coef[[0, -1]])


@steady
@given(st.integers(2, 10), seeds, st.integers(20, 90))
def test_folds_are_even(n_folds, seed, n):
    """Every fold has its share of events, of patients, and of each stratum's events, to within one."""
    random = np.random.default_rng(seed)
    event, centre = random.random(n) < 0.3, random.integers(0, 2, n)
    folds = stratified_folds(event, n_folds, seed)
    for some in (event, np.ones(n, dtype=bool)):
        counts = np.bincount(folds[some], minlength=n_folds)
        assert np.ptp(counts) <= 1
    by_centre = stratified_folds(event, n_folds, seed, strata=centre)
    assert np.ptp(np.bincount(by_centre[event & (centre == 1)], minlength=n_folds)) <= 1
    assert np.array_equal(folds, stratified_folds(event, n_folds, seed))


def test_cross_validation_finds_the_signal():
    """Where two of twenty features matter they are kept; the larger penalty keeps fewer."""
    x, surv = _cohort(6, n=150)
    cv = cross_validate_lasso(x, surv, penalties=Penalties(n=40), seed=3)
    kept = np.flatnonzero(cv.coef[cv.index_min])
    assert {0, 1} <= set(kept.tolist()) and cv.lambda_1se >= cv.lambda_min and not cv.problems
    assert cv.cvm[cv.index_1se] <= cv.cvm[cv.index_min] + cv.cvsd[cv.index_min]
    again = cross_validate_lasso(x, surv, penalties=Penalties(n=40), seed=3)
    assert np.array_equal(cv.cvm, again.cvm)


def test_a_held_out_patient_far_from_all_others_makes_no_model_perfect():
    """A feature that one patient has a billion times over: the fold that never saw it has a finite, large deviance."""
    x, surv = _cohort(seed=3, n=120)
    x[np.argmin(surv.time_months), 0] = 1e9  # in no risk set but the first
    cv = cross_validate_lasso(x, surv, n_folds=5, seed=0)
    assert np.isfinite(cv.cvm).all() and np.isfinite(cv.cvsd).all()
    assert cv.index_min == 0, "a model of that feature is the worse, the larger its coefficient"


def test_log_likelihoods_hold_where_exponentials_do_not():
    """Linear predictors thousands apart: the sum over events of eta less the log of the summed risk set."""
    random = np.random.default_rng(0)
    eta = random.normal(size=(3, 40)) * np.array([[1.0], [800.0], [1e5]])
    outcome = Outcome(np.ones(40), random.random(40) < 0.5, np.arange(41))
    later = np.logaddexp.accumulate(eta, axis=1)
    np.testing.assert_allclose(log_likelihoods(eta, outcome), (eta - later)[:, outcome.event].sum(axis=1), rtol=1e-12)


def test_repeats_choose_the_median_penalty():
    """The median of the repeated choices is a penalty of the path, and one repeat is the cross-validation itself."""
    x, surv = _cohort(7, n=100)
    repeated = repeat_cross_validation(x, surv, n_repeats=5, n_folds=5, penalties=Penalties(n=30))
    assert repeated.lambdas.min() <= repeated.lambda_median <= repeated.lambdas.max()
    assert np.array_equal(repeated.coef, repeated.runs[0].coef[repeated.index])
    strict = repeat_cross_validation(x, surv, n_repeats=5, n_folds=5, penalties=Penalties(n=30), rule="1se")
    assert strict.lambda_median >= repeated.lambda_median


def test_selection_frequency_ranks_signal_over_noise():
    """Features that matter are kept in nearly every half of the patients, the others less."""
    x, surv = _cohort(8, n=200)
    frequency = selection_frequency(x, surv, 0.1, n_resamples=20, seed=1)
    assert frequency[:2].min() > 0.9 > frequency[2:].max() and frequency.min() >= 0


def test_fold_without_events_is_left_out_and_said():
    """A fold in which nobody had the event does not count, and the reader is told."""
    x, surv = _cohort(9)
    folds = np.where(surv.event, np.arange(80) % 3, np.arange(80) % 4)
    cv = cross_validate_lasso(x, surv, folds=folds, penalties=Penalties(n=10))
    assert np.isfinite(cv.cvm).all() and [p.code for p in cv.problems] == ["W-FOLDEVENTS"]


GOOD = _cohort(1, n=30, p=3)


@pytest.mark.parametrize(("call", "code"), [
    (lambda: lasso_path(GOOD[0], Survival(GOOD[1].time_months, np.zeros(30))), "E-NOEVENTS"),
    (lambda: lasso_path(GOOD[0][:9], GOOD[1]), "E-LENGTH"),
    (lambda: lasso_path(GOOD[0] * np.nan, GOOD[1]), "E-MISSING"),
    (lambda: lasso_path(*GOOD, penalties=Penalties(alpha=0.0)), "E-PENALTY"),
    (lambda: lasso_path(*GOOD, penalties=Penalties(ratio=2.0)), "E-PENALTY"),
    (lambda: lasso_path(*GOOD, penalties=Penalties(values=[-1.0])), "E-PENALTY"),
    (lambda: lasso_path(*GOOD, weights=np.zeros(30)), "E-CASEWEIGHTS"),
    (lambda: lasso_path(*GOOD, penalty_factor=[1.0]), "E-CASEWEIGHTS"),
    (lambda: cross_validate_lasso(*GOOD, folds=np.zeros(30, dtype=int)), "E-FOLDS"),
    (lambda: cross_validate_lasso(*GOOD, folds=np.linspace(0, 1, 30)), "E-FOLDS"),
    (lambda: stratified_folds([1, 0, 1], 4, 0), "E-FOLDS"),
    (lambda: selection_frequency(*GOOD, 0.1, n_resamples=0), "E-REPEATS"),
    (lambda: repeat_cross_validation(*GOOD, n_repeats=0), "E-REPEATS"),
    (lambda: relaxed_fit(*GOOD, [1.0]), "E-LENGTH"),  # type: ignore[call-arg]
])
def test_wrong_input_has_a_code(call, code):
    """Each mistake of the caller is a FitError with its code."""
    with pytest.raises(FitError, match=code):
        call()
