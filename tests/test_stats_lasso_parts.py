"""Lasso, ridge and gain: optimality with weights and penalty factors, stability by definition, left-out deviances."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.stats import norm

from mtdlr.errors import FitError
from mtdlr.stats.cox import fit_cox
from mtdlr.stats.gain import score_gains
from mtdlr.stats.lasso import (
    LassoPath,
    Penalties,
    cross_validate_lasso,
    lasso_path,
    relaxed_fit,
    stratified_folds,
)
from mtdlr.stats.lasso_stability import RepeatedLassoCV, repeat_cross_validation, selection_frequency
from mtdlr.stats.ridge import cross_validate_ridge, log_partial_likelihood, ridge_path
from mtdlr.survival import Survival

SHORT = Penalties(n=12, ratio=0.1)


def _data(n: int = 60, p: int = 5, seed: int = 0) -> tuple[np.ndarray, Survival]:
    """Features of which the first drives the hazard; whole months with ties."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, p))
    return x, Survival(np.ceil(rng.exponential(10.0, n) * np.exp(-x[:, 0])).clip(1, 30), rng.random(n) < 0.7)


def _gradient(x: np.ndarray, surv: Survival, beta: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Gradient of the weighted log partial likelihood (Breslow), event by event."""
    r, out = w * np.exp(x @ beta), np.zeros(x.shape[1])
    for i in np.flatnonzero(surv.event):
        inside = r * (surv.time_months >= surv.time_months[i])
        out += w[i] * (x[i] - inside @ x / inside.sum())
    return out


@pytest.mark.parametrize("alpha", [1.0, 0.4])
def test_weights_and_penalty_factors_enter_the_optimality_conditions(alpha: float) -> None:
    """With weights summing to n, factors summing to p and 1/n weighted SDs: at a kept coefficient the slope equals the
    penalty with its sign, at one left out it is below the penalty."""
    x, surv = _data()
    rng = np.random.default_rng(1)
    w, factor = rng.random(60) + 0.5, np.array([0.5, 1.0, 2.0, 1.0, 0.0])
    lam = 0.08
    found = lasso_path(x, surv, penalties=Penalties(alpha=alpha, values=[lam], tol=1e-12), weights=w,
                       penalty_factor=factor)
    w, f = w * 60 / w.sum(), factor * 5 / factor.sum()
    mean = w @ x / w.sum()
    scale = np.sqrt(w @ (x - mean) ** 2 / w.sum())
    b = found.coef[0] * scale
    slope = _gradient((x - mean) / scale, surv, b, w) / 60
    kept = b != 0
    assert kept[4] and not kept.all()
    penalty = lam * f * (alpha * np.sign(b) + (1 - alpha) * b)
    np.testing.assert_allclose(slope[kept], penalty[kept], atol=1e-5)
    assert (np.abs(slope[~kept]) <= lam * f[~kept] * alpha + 1e-6).all()


def test_weights_that_are_counts_stand_for_repeated_patients() -> None:
    """A patient of weight 2 is the patient twice: the same path on the same penalties."""
    x, surv = _data()
    counts = 1 + np.arange(60) % 2
    rows = np.repeat(np.arange(60), counts)
    grid = Penalties(values=[0.15, 0.08, 0.04], tol=1e-12)
    a, b = lasso_path(x, surv, penalties=grid, weights=counts), lasso_path(x[rows], surv.take(rows), penalties=grid)
    np.testing.assert_allclose(a.coef, b.coef, atol=1e-6)


def test_the_explained_deviance_is_that_of_the_likelihood() -> None:
    """(l(b) - l(0)) / (saturated - l(0)), where ties alone keep the saturated likelihood from 0."""
    x, surv = _data()
    found = lasso_path(x, surv, penalties=SHORT)
    deaths = np.unique(surv.time_months[surv.event], return_counts=True)[1]
    saturated, null = -(deaths * np.log(deaths)).sum(), log_partial_likelihood(np.zeros(60), surv)
    assert found.null_deviance == pytest.approx(2 * (saturated - null))
    for k in (0, 5, 11):
        value = log_partial_likelihood(x @ found.coef[k], surv)
        assert found.deviance_ratio[k] == pytest.approx((value - null) / (saturated - null), abs=1e-9)
    assert found.nonzero.tolist() == [(row != 0).sum() for row in found.coef] and found.nonzero[0] == 0


def test_the_penalties_fall_by_equal_factors() -> None:
    """n penalties from the largest to ratio times it; given ones are sorted, the largest first."""
    x, surv = _data()
    found = lasso_path(x, surv, penalties=SHORT).lambdas
    np.testing.assert_allclose(found[1:] / found[:-1], 0.1 ** (1 / 11))
    assert lasso_path(x, surv, penalties=Penalties(values=[0.02, 0.3, 0.1])).lambdas.tolist() == [0.3, 0.1, 0.02]


def test_coefficients_between_penalties() -> None:
    """A quarter of the way between two penalties lie a quarter and three quarters of their coefficients; one penalty
    alone holds everywhere."""
    path = LassoPath(np.array([0.4, 0.2, 0.1]), np.array([[0.0], [2.0], [4.0]]), np.zeros(3), 1.0)
    np.testing.assert_allclose(path.coef_at([0.5, 0.4, 0.35, 0.2, 0.125, 0.01])[:, 0], [0.0, 0.0, 0.5, 2.0, 3.5, 4.0])
    single = LassoPath(np.array([0.4]), np.array([[1.5]]), np.zeros(1), 1.0)
    assert single.coef_at([0.1, 0.9]).tolist() == [[1.5], [1.5]]


def test_a_folds_deviance_is_all_less_training_per_event() -> None:
    """Mean and standard error over the folds, weighted by their events, from the public path of each fold's training
    patients."""
    x, surv = _data()
    folds = stratified_folds(surv.event, 4, 3)
    found = cross_validate_lasso(x, surv, folds=folds, penalties=SHORT)

    def deviance(rows: np.ndarray, coef: np.ndarray) -> np.ndarray:
        some = surv.take(rows)
        deaths = np.unique(some.time_months[some.event], return_counts=True)[1]
        saturated = -(deaths * np.log(deaths)).sum()
        return np.array([2 * (saturated - log_partial_likelihood(x[rows] @ b, some)) for b in coef])

    values, events = [], []
    for k in range(4):
        rows = folds != k
        coef = lasso_path(x[rows], surv.take(rows), penalties=SHORT).coef_at(found.lambdas)
        events.append(int((surv.event & ~rows).sum()))
        values.append((deviance(np.ones(60, bool), coef) - deviance(rows, coef)) / events[-1])
    mean = np.average(values, axis=0, weights=events)
    np.testing.assert_allclose(found.cvm, mean, rtol=1e-6)
    spread = np.average((values - mean) ** 2, axis=0, weights=events)
    np.testing.assert_allclose(found.cvsd, np.sqrt(spread / 3), rtol=1e-5)
    best = int(np.argmin(found.cvm))
    within = np.flatnonzero(found.cvm <= found.cvm[best] + found.cvsd[best])
    assert (found.index_min, found.index_1se) == (best, within[0]) and found.lambda_1se >= found.lambda_min
    assert found.lambda_min == found.lambdas[best]


def test_the_frequency_is_the_share_of_halves_that_keep_a_feature() -> None:
    """By hand: one lasso on half of the events and half of the others for each drawn seed."""
    x, surv = _data()
    found = selection_frequency(x, surv, 0.1, n_resamples=4, seed=9)
    kept = []
    for seed in np.random.default_rng(9).integers(0, 2**31, 4).tolist():
        half = stratified_folds(surv.event, 2, seed) == 0
        assert abs(int((surv.event & half).sum()) - surv.n_events / 2) <= 1
        kept.append(lasso_path(x[half], surv.take(half), penalties=Penalties(values=[0.1])).coef[0] != 0)
    assert found.tolist() == np.mean(kept, axis=0).tolist()
    assert selection_frequency(x, surv, 50.0, n_resamples=2).tolist() == [0.0] * 5


def test_the_repeated_choice_is_the_median_of_the_runs() -> None:
    """Of an even number of choices the penalty between the middle two, on the common path; 1se chooses larger ones."""
    x, surv = _data()
    runs = {rule: repeat_cross_validation(x, surv, n_repeats=4, n_folds=3, seed=6, rule=rule, penalties=SHORT)
            for rule in ("min", "1se")}
    for rule, found in runs.items():
        at = sorted(run.index_min if rule == "min" else run.index_1se for run in found.runs)
        assert found.index == int(np.floor((at[1] + at[2]) / 2)) < (at[1] + at[2]) / 2
        assert found.lambdas.tolist() == [run.lambda_min if rule == "min" else run.lambda_1se for run in found.runs]
        assert found.lambda_median == found.runs[0].lambdas[found.index]
        assert found.coef.tolist() == found.runs[0].coef[found.index].tolist()
    assert isinstance(runs["min"], RepeatedLassoCV) and runs["1se"].lambda_median >= runs["min"].lambda_median
    assert any((runs["min"].runs[0].folds != run.folds).any() for run in runs["min"].runs[1:])


@pytest.mark.parametrize(("keywords", "code"), [
    ({"n_repeats": 0}, "E-REPEATS"), ({"n_repeats": 1.5}, "E-REPEATS"), ({"rule": "median"}, "E-OPTION"),
    ({"seed": -1}, "E-OPTION"), ({"n_folds": 1}, "E-FOLDS"),
])
def test_wrong_repeats_have_a_code(keywords: dict, code: str) -> None:
    """No repeat, half a one, another rule, a negative seed and one fold are typed errors."""
    x, surv = _data()
    with pytest.raises(FitError, match=code):
        repeat_cross_validation(x, surv, **{"n_repeats": 1, **keywords})


def test_wrong_halves_and_coefficients_have_a_code() -> None:
    """No half and a negative seed; coefficients of another number of columns."""
    x, surv = _data()
    for keywords, code in (({"n_resamples": 0}, "E-REPEATS"), ({"seed": -3}, "E-OPTION")):
        with pytest.raises(FitError, match=code):
            selection_frequency(x, surv, 0.1, **keywords)
    with pytest.raises(FitError, match="E-LENGTH one coefficient is needed for each column"):
        relaxed_fit(x, surv, [1.0, 0.0])


def test_the_relaxed_fit_has_the_kept_features_by_name() -> None:
    """Unpenalised, with Breslow's ties, in the order of the columns."""
    x, surv = _data()
    fit = relaxed_fit(x, surv, [0.3, 0.0, 0.0, -0.1, 0.0], names=list("abcde"))
    assert fit.names == ("a", "d") and fit.ties == "breslow"
    np.testing.assert_allclose(fit.coef, fit_cox(x[:, [0, 3]], surv, ties="breslow").coef, atol=1e-9)


def test_the_partial_likelihood_by_definition() -> None:
    """The sum over events of eta less the log of the summed risk set, ties by Breslow, however large eta is."""
    x, surv = _data()
    eta = 3.0 * x[:, 0]
    terms = [eta[i] - np.log(np.exp(eta[surv.time_months >= surv.time_months[i]]).sum())
             for i in np.flatnonzero(surv.event)]
    assert log_partial_likelihood(eta, surv) == pytest.approx(sum(terms))
    assert log_partial_likelihood(eta + 5000.0, surv) == pytest.approx(sum(terms))


def test_a_ridge_solution_has_no_slope() -> None:
    """At every penalty the gradient of the likelihood equals the penalty times the coefficients, with ties and with
    more features than patients."""
    for p in (5, 70):
        x, surv = _data(60, p)
        for penalty, coef in zip((30.0, 3.0), ridge_path(x, surv, [30.0, 3.0]), strict=True):
            np.testing.assert_allclose(_gradient(x, surv, coef, np.ones(60)), penalty * coef, atol=1e-3)


def test_a_single_ridge_coefficient_is_found_by_search() -> None:
    """One feature: the minimum of the penalised likelihood by a scalar search; weak penalties shrink less."""
    x, surv = _data(60, 1)
    found = ridge_path(x, surv, [50.0, 5.0])[:, 0]
    for penalty, ours in zip((50.0, 5.0), found, strict=True):
        best = minimize_scalar(lambda b: penalty / 2 * b * b - log_partial_likelihood(b * x[:, 0], surv),  # noqa: B023
                               bounds=(-3, 3), method="bounded", options={"xatol": 1e-9}).x
        assert ours == pytest.approx(best, abs=1e-4)
    assert 0 < found[0] < found[1] < fit_cox(x, surv, ties="breslow").coef[0]


def test_left_out_deviances_of_ridge_by_definition() -> None:
    """All patients' deviance less the training patients', per event; the same for a model that knows nothing; a
    patient's left-out log hazard is relative to the training patients' mean."""
    x, surv = _data(40, 3)
    folds = np.arange(40) % 4
    found = cross_validate_ridge(x, surv, penalties=[10.0, 1.0], folds=folds)
    deviance, null = np.zeros(2), 0.0
    for k in range(4):
        inside = folds != k
        inner = surv.take(inside)
        for at, coef in enumerate(ridge_path(x[inside], inner, [10.0, 1.0])):
            eta = x @ coef
            deviance[at] -= 2 * (log_partial_likelihood(eta, surv) - log_partial_likelihood(eta[inside], inner))
            np.testing.assert_allclose(found.left_out[at][~inside], eta[~inside] - eta[inside].mean(), atol=1e-6)
        null -= 2 * (log_partial_likelihood(np.zeros(40), surv) - log_partial_likelihood(np.zeros(len(inner)), inner))
    np.testing.assert_allclose(found.deviance, deviance / surv.n_events, atol=1e-6)
    assert found.null_deviance == pytest.approx(null / surv.n_events)
    assert found.best == int(np.argmin(found.deviance)) and found.helps == (found.deviance.min() < found.null_deviance)
    np.testing.assert_allclose(found.coef, ridge_path(x, surv, [10.0, 1.0]), atol=1e-7)


def test_a_gain_is_a_signed_root_of_the_likelihood_ratio() -> None:
    """One-sided p is that of the signed root; the coefficient is per SD; a stricter level lets fewer in."""
    x, surv = _data(120, 3, 4)
    (first, *_) = score_gains(x[:, 1:2], {"score": 7.0 * x[:, 0] + 3.0}, surv)
    full, base = (fit_cox(columns, surv, ties="breslow") for columns in (x[:, :2], x[:, 1:2]))
    assert first.chi_square == pytest.approx(2 * (full.loglik - base.loglik), abs=0.02)
    assert first.coefficient == pytest.approx(full.coef[0] * x[:, 0].std(), rel=0.01)
    assert first.p == pytest.approx(norm.sf(np.sqrt(first.chi_square))) and first.enters
    (turned,) = score_gains(x[:, 1:2], {"score": -x[:, 0]}, surv)
    assert not turned.enters and turned.p == pytest.approx(1 - first.p) and turned.coefficient < 0
    weak = {"w": x[:, 2] * np.sign(fit_cox(x[:, 2], surv).coef[0])}
    p = score_gains(np.zeros((120, 0)), weak, surv)[0].p
    assert [score_gains(np.zeros((120, 0)), weak, surv, first=first)[0].enters for first in (p * 1.01, p * 0.99)] == [
        True, False]


def test_the_best_score_enters_first_and_a_copy_adds_nothing() -> None:
    """In the order of entering; the copy of a score that is in gains nothing and stays out."""
    x, surv = _data(120, 3, 4)
    found = score_gains(np.zeros((120, 0)), {"copy": 2 * x[:, 0] + 1e-9 * x[:, 1], "flat": np.ones(120),
                                             "score": x[:, 0]}, surv)
    assert found[0].name in ("copy", "score") and [gain.enters for gain in found] == [True, False, False]
    rest = {gain.name: gain for gain in found[1:]}
    assert rest["flat"].p == 1.0 and rest["flat"].coefficient == rest["flat"].chi_square == 0.0
    assert rest[({"copy", "score"} - {found[0].name}).pop()].chi_square < 0.01
