"""The parts of a Cox fit, each written out from its equation: risk sets, residuals, baseline, robust variance."""

from __future__ import annotations

import numpy as np
import pytest

from mtdlr.errors import FitError
from mtdlr.stats.cox import CoxFit, fit_cox
from mtdlr.stats.cox_baseline import Baseline, survival_of, tied_steps
from mtdlr.stats.cox_likelihood import risk_sets
from mtdlr.stats.cox_residuals import cox_residuals, proportional_hazards_test
from mtdlr.stats.cox_rows import Cases
from mtdlr.stats.drop1 import drop1
from mtdlr.stats.hazard_trend import hazard_trends
from mtdlr.stats.terms import Continuous, Factor, Interaction
from mtdlr.survival import Survival

TIES = pytest.mark.parametrize("ties", ["efron", "breslow"])


def _cohort(n: int = 40, seed: int = 2) -> tuple[np.ndarray, Survival, np.ndarray]:
    """Two columns, follow-up in whole months with many ties, and case weights."""
    rng = np.random.default_rng(seed)
    x = np.column_stack([rng.normal(size=n), rng.integers(0, 2, n)]).astype(float)
    time = np.ceil(rng.exponential(8.0, n) * np.exp(-0.6 * x[:, 0])).clip(1, 12)
    return x, Survival(time, rng.random(n) < 0.7), rng.integers(1, 4, n).astype(float)


def _terms(x: np.ndarray, surv: Survival, w: np.ndarray, beta: np.ndarray, ties: str) -> list[dict]:
    """The terms of the likelihood, one by one, from the textbook: time, share, risk-set weights of each row."""
    found = []
    r = w * np.exp(x @ beta)
    for t in np.unique(surv.time_months[surv.event]):
        dead = surv.event & (surv.time_months == t)
        d = int(dead.sum())
        for j in range(d if ties == "efron" else 1):
            inside = r * (surv.time_months >= t) * np.where(dead, 1.0 - j / d if ties == "efron" else 1.0, 1.0)
            found.append({"time": t, "share": w[dead].sum() / (d if ties == "efron" else 1), "in": inside,
                          "mean": inside @ x / inside.sum(), "total": inside.sum()})
    return found


@TIES
def test_martingale_residuals_are_events_less_the_hazard_that_was_borne(ties: str) -> None:
    """Event minus the sum over the terms of share times the row's part of the risk set; deviance from it."""
    x, surv, _ = _cohort()
    fit = fit_cox(x, surv, ties=ties)
    w = np.ones(len(surv))
    borne = sum(term["share"] * term["in"] / term["total"] for term in _terms(x, surv, w, fit.coef, ties))
    found = cox_residuals(fit, x, surv)
    np.testing.assert_allclose(found.martingale, surv.event - borne, atol=1e-9)
    m = found.martingale
    log_part = np.where(surv.event, np.log(np.where(surv.event, surv.event - m, 1.0)), 0.0)
    np.testing.assert_allclose(found.deviance, np.sign(m) * np.sqrt(-2.0 * (m + log_part)), atol=1e-9)


@TIES
def test_score_residuals_are_the_rows_parts_of_the_gradient(ties: str) -> None:
    """Each row: x minus the mean at its event, less x minus the mean at every term it was at risk in."""
    x, surv, w = _cohort()
    fit = fit_cox(x, surv, ties=ties, cases=Cases(weights=w))
    terms = _terms(x, surv, w, fit.coef, ties)
    rows = np.zeros_like(x)
    for t in np.unique(surv.time_months[surv.event]):
        mean = np.mean([term["mean"] for term in terms if term["time"] == t], axis=0)
        dead = surv.event & (surv.time_months == t)
        rows[dead] += w[dead, None] * (x[dead] - mean)
    for term in terms:
        rows -= term["share"] * (term["in"] / term["total"])[:, None] * (x - term["mean"])
    found = cox_residuals(fit, x, surv, cases=Cases(weights=w))
    np.testing.assert_allclose(found.score, rows / w[:, None], atol=1e-9)
    np.testing.assert_allclose(found.dfbeta, rows / w[:, None] @ fit.covariance, atol=1e-9)


@TIES
def test_schoenfeld_residuals_are_scaled_by_the_events(ties: str) -> None:
    """x at each event minus the mean there, in rising time; scaled: events times it, times the variance, plus coef."""
    x, surv, _ = _cohort()
    fit = fit_cox(x, surv, ties=ties)
    terms = _terms(x, surv, np.ones(len(surv)), fit.coef, ties)
    found = cox_residuals(fit, x, surv)
    assert (np.diff(surv.time_months[found.event_rows]) >= 0).all() and surv.event[found.event_rows].all()
    assert sorted(found.event_rows.tolist()) == np.flatnonzero(surv.event).tolist()
    mean = [np.mean([term["mean"] for term in terms if term["time"] == t], axis=0)
            for t in surv.time_months[found.event_rows]]
    np.testing.assert_allclose(found.schoenfeld, x[found.event_rows] - mean, atol=1e-9)
    np.testing.assert_allclose(found.scaled_schoenfeld,
                               surv.n_events * found.schoenfeld @ fit.covariance + fit.coef, atol=1e-8)


@TIES
def test_the_robust_variance_of_clusters_by_definition(ties: str) -> None:
    """The sandwich: information inverse, cross-product of the score summed within each cluster, information inverse."""
    x, surv, w = _cohort()
    clusters = np.arange(len(surv)) // 3
    plain = fit_cox(x, surv, ties=ties, cases=Cases(weights=w))
    robust = fit_cox(x, surv, ties=ties, cases=Cases(weights=w, clusters=clusters))
    parts = w[:, None] * cox_residuals(plain, x, surv, cases=Cases(weights=w)).score
    sums = np.array([parts[clusters == k].sum(axis=0) for k in np.unique(clusters)])
    np.testing.assert_allclose(robust.covariance, plain.covariance @ sums.T @ sums @ plain.covariance, rtol=1e-8)
    np.testing.assert_allclose(robust.coef, plain.coef)
    assert robust.robust and not plain.robust


@TIES
def test_the_covariance_is_the_inverse_of_the_summed_variances(ties: str) -> None:
    """The information is the sum over the terms of share times the variance of x in the risk set."""
    x, surv, w = _cohort()
    fit = fit_cox(x, surv, ties=ties, cases=Cases(weights=w))
    info = np.zeros((2, 2))
    for term in _terms(x, surv, w, fit.coef, ties):
        p, gap = term["in"] / term["total"], x - term["mean"]
        info += term["share"] * (gap * p[:, None]).T @ gap
    np.testing.assert_allclose(fit.covariance, np.linalg.inv(info), rtol=1e-7)


@TIES
def test_the_baseline_is_the_running_sum_of_its_steps(ties: str) -> None:
    """At the means: each step is the share over the risk set; variance and mean are summed beside it."""
    x, surv, w = _cohort()
    fit = fit_cox(x, surv, ties=ties, cases=Cases(weights=w))
    centred = x - fit.means
    terms = _terms(centred, surv, w, fit.coef, ties)
    base = fit.baseline
    for k, t in enumerate(base.time_months):
        upto = [term for term in terms if term["time"] <= t]
        step = np.array([term["share"] / term["total"] for term in upto])
        assert np.exp(base.log_hazard[k]) == pytest.approx(step.sum(), rel=1e-9)
        variance = sum(s / term["total"] for s, term in zip(step, upto, strict=True)) / step.sum() ** 2
        assert base.log_variance[k] == pytest.approx(variance, rel=1e-9)
        lean = sum(s * term["mean"] for s, term in zip(step, upto, strict=True)) / step.sum()
        np.testing.assert_allclose(base.mean[k], lean, atol=1e-9)
        assert base.events[k] == (surv.event & (surv.time_months == t)).sum()
        assert base.at_risk[k] == (surv.time_months >= t).sum()
    np.testing.assert_allclose(fit.means, np.average(x, axis=0, weights=w))
    np.testing.assert_allclose(fit.cumulative_hazard, np.exp(base.log_hazard - fit.means @ fit.coef))


def test_steps_of_ties_by_hand() -> None:
    """Two deaths of risk 1 and 2 beside a survivor of risk 3: 1/6 + 1/4.5 with Efron, 2/6 with Breslow."""
    efron, breslow = tied_steps(3.0, 3.0, 2.0, 2), tied_steps(3.0, 3.0, 2.0, 1)
    assert efron == pytest.approx((1 / 6 + 1 / 4.5, 1 / 36 + 1 / 20.25, 1 / 36 + 0.5 / 20.25))
    assert breslow == pytest.approx((2 / 6, 2 / 36, 2 / 36))


def test_risk_sets_are_sorted_by_stratum_and_falling_time() -> None:
    """Strata rise, times fall, at one time the censored come first and rows keep their order; groups are marked."""
    time, event = np.array([2.0, 5.0, 5.0, 5.0, 3.0, 2.0]), np.array([True, True, False, True, False, False])
    sets = risk_sets(time, event, np.array([0, 0, 0, 0, 1, 1], dtype=np.int64))
    assert sets.order.tolist() == [2, 1, 3, 0, 4, 5]
    assert sets.start.tolist() == [0, 3, 4, 5, 6] and sets.fresh.tolist() == [True, False, True, False]
    assert sets.time.tolist() == [5.0, 2.0, 3.0, 2.0] and sets.stratum.tolist() == [0, 0, 1, 1]
    assert sets.group.tolist() == [0, 0, 0, 1, 2, 3] and sets.event.tolist() == event[sets.order].tolist()
    assert risk_sets(time, event).order.tolist() == [2, 1, 3, 4, 5, 0]


@pytest.fixture(scope="module")
def stratified() -> tuple[CoxFit, np.ndarray, Survival, np.ndarray]:
    x, surv, _ = _cohort(60, 9)
    centre = np.where(np.arange(60) < 35, "B", "A")
    return fit_cox(x, surv, cases=Cases(strata=centre)), x, surv, centre


def test_each_stratum_has_its_own_curve(stratified: tuple) -> None:
    """Strata are sorted by label; a curve steps at the events of its own patients alone and ends with them."""
    fit, x, surv, centre = stratified
    assert fit.baseline.strata == ("A", "B")
    for k, label in enumerate(("A", "B")):
        mine = centre == label
        times = fit.baseline.time_months[fit.baseline.stratum == k]
        assert times.tolist() == np.unique(surv.time_months[mine & surv.event]).tolist()
        assert fit.baseline.last_month[k] == surv.time_months[mine].max()
        r = np.exp((x - fit.means) @ fit.coef)
        first = mine & surv.event & (surv.time_months == times[0])
        d = int(first.sum())
        hazard = sum(1.0 / (r[mine].sum() - j / d * r[first].sum()) for j in range(d))
        assert fit.baseline.log_cumulative_hazard(times[0], label)[0] == pytest.approx(np.log(hazard))


def test_a_stratum_must_be_named_and_known(stratified: tuple) -> None:
    """Without a stratum, or with another, the survival of a stratified model is E-STRATUM with its strata."""
    fit, x, _, _ = stratified
    for stratum, found in ((None, "None"), ("C", "C")):
        with pytest.raises(FitError) as caught:
            fit.survival(x, [2.0], stratum=stratum)
        assert (caught.value.code, caught.value.problems[0].found) == ("E-STRATUM", found)
        assert caught.value.problems[0].expected == "A or B"
    a, b = (fit.survival(x[:1], [4.0], stratum=label)[0, 0] for label in ("A", "B"))
    assert 0 < a < 1 and 0 < b < 1 and a != b


def test_a_baseline_with_strata_survives_json(stratified: tuple) -> None:
    """Written and read, each stratum gives the same hazards; strata are a tuple again."""
    fit, _, _, _ = stratified
    again = Baseline.from_dict(fit.baseline.as_dict())
    assert again.strata == ("A", "B") and not again.interpolated
    months = np.linspace(0.0, 14.0, 29)
    for label in again.strata:
        np.testing.assert_array_equal(again.log_cumulative_hazard(months, label),
                                      fit.baseline.log_cumulative_hazard(months, label))


def test_a_straight_baseline_is_halfway_at_half_time() -> None:
    """An interpolated baseline runs straight from 0 and between its steps in the hazard, not in its logarithm."""
    base = Baseline(("all",), np.array([20.0]), np.zeros(2, np.int64), np.array([10.0, 20.0]),
                    np.log([0.2, 0.6]), np.array([0.04, 0.02]), np.array([[1.0], [3.0]]), np.ones(2), np.ones(2), True)
    hazard = np.exp(base.log_cumulative_hazard([0.0, 5.0, 10.0, 15.0, 20.0, 20.1]))
    np.testing.assert_allclose(hazard, [0.0, 0.1, 0.2, 0.4, 0.6, np.nan])
    se = base.log_hazard_se(np.array([[2.0]]), [15.0, 20.0], np.array([[0.01]]))
    np.testing.assert_allclose(se[0] ** 2, [0.03 + 0.01 * 0.0, 0.02 + 0.01 * 1.0])


def test_survival_is_exact_at_both_ends() -> None:
    """No hazard is survival 1, an infinite one 0, a log hazard of 0 is 1 / e, and what is unknown stays so."""
    found = survival_of([-np.inf, np.inf, 0.0, 5000.0, np.nan, np.log(np.log(2.0))])
    np.testing.assert_allclose(found, [1.0, 0.0, np.exp(-1.0), 0.0, np.nan, 0.5])


@TIES
@pytest.mark.parametrize("transform", ["identity", "log", "rank", "km"])
def test_proportional_hazards_are_tested_by_an_added_product(transform: str, ties: str) -> None:
    """The statistic of a column is the score test of x times g(time), written out term by term."""
    x, surv, _ = _cohort()
    fit = fit_cox(x, surv, ties=ties)
    t = surv.time_months
    order = np.unique(t)
    before = 1.0 - np.concatenate(([1.0], np.cumprod([1.0 - (surv.event & (t == u)).sum() / (t >= u).sum()
                                                      for u in order])))[:-1]
    g = {"identity": lambda u: u, "log": np.log, "km": lambda u: before[order == u][0],
         "rank": lambda u: (t < u).sum() + ((t == u).sum() + 1) / 2}[transform]
    terms = _terms(x, surv, np.ones(len(surv)), fit.coef, ties)
    scale = np.array([g(term["time"]) for term in terms])
    scale = scale - scale.mean()
    u, info = np.zeros(2), np.zeros((3, 2, 2))
    for time in np.unique(t[surv.event]):
        own = [(term, s) for term, s in zip(terms, scale, strict=True) if term["time"] == time]
        dead = surv.event & (t == time)
        u += own[0][1] * (x[dead] - np.mean([term["mean"] for term, _ in own], axis=0)).sum(axis=0)
        for term, s in own:
            gap = x - term["mean"]
            variance = term["share"] * (gap * (term["in"] / term["total"])[:, None]).T @ gap
            info += np.array([1.0, s, s * s])[:, None, None] * variance
    left = info[2] - info[1] @ np.linalg.inv(info[0]) @ info[1]
    found = proportional_hazards_test(fit, x, surv, transform=transform)
    assert found["x1"].statistic == pytest.approx(u[0] ** 2 / left[0, 0], rel=1e-7) and found["x1"].df == 1
    assert found["GLOBAL"].statistic == pytest.approx(u @ np.linalg.solve(left, u), rel=1e-7)
    assert found["GLOBAL"].df == 2


def test_columns_are_tested_together_by_term() -> None:
    """A term of two columns has two degrees of freedom, and one term of all columns is the global test."""
    x, surv, _ = _cohort()
    fit = fit_cox(x, surv)
    found = proportional_hazards_test(fit, x, surv, terms={"both": slice(0, 2), "second": slice(1, 2)})
    assert list(found) == ["both", "second", "GLOBAL"]
    assert found["both"] == found["GLOBAL"] and found["both"].df == 2
    assert found["second"] == proportional_hazards_test(fit, x, surv)["x2"]


def test_a_dropped_column_has_no_test_of_proportional_hazards() -> None:
    """A constant column is tested with 0 degrees of freedom and takes none from the others."""
    x, surv, _ = _cohort()
    wide = np.column_stack([x, np.full(len(surv), 4.0)])
    fit = fit_cox(wide, surv)
    found = proportional_hazards_test(fit, wide, surv)
    assert found["x3"].df == 0 and np.isnan(found["x3"].p)
    assert found["GLOBAL"].statistic == pytest.approx(
        proportional_hazards_test(fit_cox(x, surv), x, surv)["GLOBAL"].statistic)


def test_a_term_bound_in_an_interaction_is_not_dropped_alone() -> None:
    """Only the product and the free term are tested; the statistic is twice the loss of log likelihood."""
    x, surv, _ = _cohort(80, 4)
    table = {"a": x[:, 0], "b": x[:, 1], "c": np.where(np.arange(80) % 3 == 0, "u", "v")}
    a, b, c = Continuous("a"), Continuous("b"), Factor("c", ("u", "v"), "u")
    found = drop1(table, surv, [a, b, c, Interaction(a, b)])
    assert list(found) == ["c", "a * b"]
    columns = np.column_stack([x[:, 0], x[:, 1], table["c"] == "v", x[:, 0] * x[:, 1]])
    whole, without = fit_cox(columns, surv), fit_cox(columns[:, :3], surv)
    assert found["a * b"].test.statistic == pytest.approx(2.0 * (whole.loglik - without.loglik))
    assert found["a * b"].test.df == 1 and found["a * b"].aic == pytest.approx(without.aic)


def test_the_only_term_is_tested_against_no_model() -> None:
    """Without its only term a model has the null likelihood: AIC without parameters, the test is the whole model's."""
    x, surv, w = _cohort()
    cases = Cases(weights=w)
    found = drop1({"a": x[:, 0]}, surv, [Continuous("a")], ties="breslow", cases=cases)["a"]
    fit = fit_cox(x[:, 0], surv, ties="breslow", cases=cases)
    assert found.aic == pytest.approx(-2.0 * fit.loglik_null)
    assert found.test.statistic == pytest.approx(fit.likelihood_ratio.statistic) and found.test.df == 1


def test_columns_without_a_coefficient_have_no_trend_over_time() -> None:
    """A dropped column and an infinite one are left out of the trends; the band is level at 95 %."""
    x, surv, _ = _cohort(60, 5)
    fit = fit_cox(np.column_stack([x[:, 0], np.ones(60)]), surv, names=["score", "constant"])
    found = hazard_trends(fit, np.column_stack([x[:, 0], np.ones(60)]), surv)
    assert list(found) == ["score"]
    trend = found["score"]
    assert trend.coef == fit.coef[0] and trend.time.size == surv.n_events == trend.residual.size
    np.testing.assert_allclose(trend.high - trend.smooth, trend.smooth - trend.low)
    assert trend.grid[0] == surv.time_months[surv.event].min() and (np.diff(trend.grid) >= 0).all()
