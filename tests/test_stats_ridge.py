"""The ridge Cox model: at its optimum, as others fit it, and no better than chance where there is nothing."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import integrate

from mtdlr.errors import FitError
from mtdlr.stats.concordance import concordance
from mtdlr.stats.ridge import (
    PENALTIES,
    blockwise_ridge,
    cross_validate_ridge,
    log_partial_likelihood,
    ridge_path,
)
from mtdlr.survival import Survival


def _sample(n: int = 120, p: int = 30, seed: int = 0, strength: float = 1.0) -> tuple[np.ndarray, Survival]:
    """Features of which the first two drive the hazard, with tied times."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, p))
    time = rng.exponential(size=n) * np.exp(-strength * (x[:, 0] - x[:, 1])) * 30
    return x, Survival(np.ceil(np.minimum(time, 40.0)) + 0.5, time < 40.0)


def test_the_optimum_is_scikit_survivals() -> None:
    """Coefficients agree with scikit-survival's penalised Cox model (Breslow ties) to 1e-5, with more features than
    patients too."""
    linear_model = pytest.importorskip("sksurv.linear_model")
    for p in (5, 150):
        x, surv = _sample(p=p)
        outcome = np.array(list(zip(surv.event, surv.time_months, strict=True)), dtype=[("e", bool), ("t", float)])
        for penalty, ours in zip((20.0, 2.0), ridge_path(x, surv, (20.0, 2.0)), strict=True):
            theirs = linear_model.CoxPHSurvivalAnalysis(alpha=penalty, ties="breslow", tol=1e-12).fit(x, outcome)
            np.testing.assert_allclose(ours, theirs.coef_, atol=1e-5)


def test_the_left_out_log_hazards_come_from_models_that_never_saw_the_patient() -> None:
    """A patient's own follow-up does not move the patient's left-out log-hazard against the others of the fold."""
    x, surv = _sample()
    folds = np.arange(len(surv)) % 4
    first = cross_validate_ridge(x, surv, folds=folds)
    changed = surv.event.copy()
    changed[folds == 0] = ~changed[folds == 0]
    second = cross_validate_ridge(x, Survival(surv.time_months, changed), folds=folds)
    np.testing.assert_allclose(first.left_out[:, folds == 0], second.left_out[:, folds == 0], atol=1e-10)
    assert not np.allclose(first.left_out[:, folds == 1], second.left_out[:, folds == 1])


def test_noise_is_told_from_signal() -> None:
    """Features that drive the hazard help on patients left out at a small penalty; features of noise alone choose the
    largest."""
    x, surv = _sample(strength=1.5)
    assert cross_validate_ridge(x, surv).helps
    noise = cross_validate_ridge(np.random.default_rng(5).standard_normal((120, 30)), surv)
    assert noise.best == 0


def test_constant_features_do_no_harm() -> None:
    """Features that do not vary get the coefficient 0."""
    x, surv = _sample(p=3)
    wide = np.column_stack([x, np.full(len(x), 7.0)])
    np.testing.assert_allclose(ridge_path(wide, surv, [1.0])[0], [*ridge_path(x, surv, [1.0])[0], 0.0], atol=1e-9)
    assert not ridge_path(np.ones((len(x), 2)), surv).any()


@pytest.mark.parametrize(("x", "penalties", "code"), [
    (np.ones((3, 2)), PENALTIES, "E-LENGTH"), (np.full((120, 2), np.nan), PENALTIES, "E-MISSING"),
    (np.ones((120, 2)), [0.0], "E-PENALTY")])
def test_what_cannot_be_fitted_is_refused(x: np.ndarray, penalties: object, code: str) -> None:
    """Features of another length, values that are missing and penalties of 0 are typed errors."""
    with pytest.raises(FitError) as caught:
        ridge_path(x, _sample()[1], penalties)  # type: ignore[arg-type]
    assert caught.value.code == code


@pytest.mark.parametrize("events", [2, 5, 9])
def test_few_events_give_finite_weights_and_one_is_refused(events: int) -> None:
    """A fold of a small study may leave few events: blocks of more numbers than events still have finite weights, and
    with one event the cross-validation is a typed error."""
    x, _ = _sample(n=40, p=12)
    few = Survival(np.arange(1.0, 41.0), np.arange(40) < events)
    coef, facts = blockwise_ridge(x, few, [np.arange(6), np.arange(6, 12)])
    assert np.isfinite(coef).all() and np.isfinite(facts["variances"]).all()
    with pytest.raises(FitError) as caught:
        blockwise_ridge(x, Survival(np.arange(1.0, 41.0), np.arange(40) < 1), [np.arange(12)])
    assert caught.value.code == "E-FOLDS"


def test_a_block_of_noise_is_penalised_more_than_one_that_tells() -> None:
    """With a block that drives the hazard and a large one of noise, the noise gets the smaller variance, and patients
    left out are told better than by one penalty."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((160, 44)) * rng.uniform(0.1, 10.0, 44)
    time = rng.exponential(np.exp(-(x / x.std(axis=0))[:, :4] @ np.array([0.8, -0.6, 0.5, 0.4])))
    surv, x = Survival(np.minimum(time, 2.0), time < 2.0), x / x.std(axis=0) * 3.0
    blocks = [np.arange(4), np.arange(4, 44)]
    coef, facts = blockwise_ridge(x, surv, blocks)
    tells, noise = facts["variances"]
    assert tells > 4.0 * noise
    one = cross_validate_ridge(x / np.sqrt(x.var(axis=0).sum()), surv)
    assert facts["left_out_c_index"] > concordance(one.left_out[one.best], surv).c.value
    np.testing.assert_array_equal(coef, blockwise_ridge(x, surv, blocks, left_out=False)[0])


def test_each_coefficient_has_the_prior_that_its_own_size_asks_for() -> None:
    """The slope of the log likelihood at the coefficients is that of a normal prior whose variance, by feature, is
    three parts the block's and one part the coefficient's expected square after the data; slopes and curvature are
    differences of the likelihood alone."""
    x, surv = _sample(n=80, p=5, seed=4)
    z = (x - x.mean(axis=0)) / x.std(axis=0)
    coef, facts = blockwise_ridge(z, surv, [np.arange(3), np.arange(3, 5)])
    scale = np.repeat(facts["variances"], (3, 2)) / np.array([3, 3, 3, 2, 2])
    step, unit = 1e-3, np.eye(5)

    def value(b: np.ndarray) -> float:
        return log_partial_likelihood(z @ b, surv)

    slope = np.array([(value(coef + step * e) - value(coef - step * e)) / (2 * step) for e in unit])
    curve = np.array([[(value(coef + step * (a + b)) - value(coef + step * (a - b)) - value(coef - step * (a - b))
                        + value(coef - step * (a + b))) / (4 * step**2) for a in unit] for b in unit])
    variances = scale.copy()
    for _ in range(200):
        after = np.diag(np.linalg.inv(np.diag(1.0 / variances) - curve))
        variances = (3.0 * scale + coef**2 + after) / 4.0
    np.testing.assert_allclose(slope, coef / variances, rtol=0.01)


def test_one_feature_of_many_that_tells_is_hardly_shrunk() -> None:
    """Of twenty features of one block of which one tells, that one's coefficient is nearer to the truth than where all
    share one penalty, and the others are smaller beside it."""
    rng = np.random.default_rng(3)
    x = rng.standard_normal((200, 20))
    time = rng.exponential(np.exp(-1.2 * x[:, 0]))
    surv = Survival(np.minimum(time, 1.0), time < 1.0)
    coef = blockwise_ridge(x, surv, [np.arange(20)], left_out=False)[0]
    path = ridge_path(x, surv)
    shared = path[cross_validate_ridge(x, surv).best]
    assert abs(coef[0] - 1.2) < 0.5 * abs(shared[0] - 1.2)
    assert np.abs(coef[1:]).mean() / coef[0] < np.abs(shared[1:]).mean() / shared[0]


@pytest.mark.parametrize(("effect", "seed"), [(0.0, 1), (0.7, 2), (1.5, 3)])
def test_the_variance_is_the_most_probable_one(effect: float, seed: int) -> None:
    """Of one block with one feature the variance is that, among its neighbours on the search's grid, of which the
    likelihood integrated over the coefficient by quadrature, times the prior, is largest."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(60)
    time = rng.exponential(np.exp(-effect * x))
    surv, z = Survival(np.minimum(time, 1.0), time < 1.0), (x - x.mean()) / x.std()

    def log_posterior(log_variance: float) -> float:
        sd, null = np.exp(log_variance / 2.0), log_partial_likelihood(np.zeros(60), surv)
        value, _ = integrate.quad(lambda b: np.exp(log_partial_likelihood(b * sd * z, surv) - null - b**2 / 2.0),
                                  -8.0, 8.0, limit=200)
        return float(np.log(value) - log_variance**2 / 2.0)

    chosen = float(np.log(blockwise_ridge(x[:, None], surv, [np.arange(1)])[1]["variances"][0]))
    assert log_posterior(chosen) > max(log_posterior(chosen - 0.75), log_posterior(chosen + 0.75)) - 0.02


def test_what_a_block_is_measured_in_does_not_count() -> None:
    """A block in other units gets the same variance, and patients the same log-hazards."""
    x, surv = _sample(n=80, p=6)
    blocks, units = [np.arange(3), np.arange(3, 6)], np.repeat([1024.0, 1.0], 3)  # a power of two rounds nothing
    coef, facts = blockwise_ridge(x, surv, blocks)
    other, said = blockwise_ridge(x * units, surv, blocks)
    np.testing.assert_allclose(other * units, coef, atol=1e-6)
    assert said["variances"] == facts["variances"]


def test_blocks_of_noise_alone_are_expected_to_add_little() -> None:
    """Where nothing tells, no block gets more variance than it was expected to have."""
    x = np.random.default_rng(8).standard_normal((150, 20))
    rng = np.random.default_rng(9)
    surv = Survival(rng.exponential(size=150), rng.random(150) < 0.5)
    _, facts = blockwise_ridge(x, surv, [np.arange(10), np.arange(10, 20)])
    assert max(facts["variances"]) <= 0.5 and facts["left_out_c_index"] < 0.62
