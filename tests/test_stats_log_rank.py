"""Log-rank tests and the hazard ratio of two groups."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtdlr.errors import FitError, TableError
from mtdlr.stats.cox import fit_cox
from mtdlr.stats.inference import log_estimate
from mtdlr.stats.log_rank import group_hazard_ratio, log_rank, log_rank_trend
from mtdlr.survival import Survival

steady = settings(deadline=None, derandomize=True, max_examples=30)
patients = st.lists(st.tuples(st.integers(1, 12), st.booleans(), st.integers(0, 2)), min_size=4, max_size=40).filter(
    lambda rows: any(r[1] for r in rows) and len({r[2] for r in rows}) > 1)


def _split(rows):
    time, event, group = (np.array(column) for column in zip(*rows, strict=True))
    return group, Survival(time, event)


@steady
@given(patients)
def test_expected_events_add_up(rows):
    """Observed and expected events have one sum, and each row of the covariance sums to 0."""
    test = log_rank(*_split(rows))
    assert test.expected.sum() == pytest.approx(test.observed.sum())
    assert test.variance.sum(axis=1) == pytest.approx(np.zeros(len(test.levels)), abs=1e-9)


@steady
@given(patients)
def test_names_of_the_groups_do_not_matter(rows):
    """Other labels in another order give the same chi-square."""
    group, surv = _split(rows)
    renamed = np.array(["z", "a", "m"])[group]
    assert log_rank(renamed, surv).statistic == pytest.approx(log_rank(group, surv).statistic, nan_ok=True)


@steady
@given(patients)
def test_one_stratum_is_no_stratum(rows):
    """A single stratum changes nothing; a stratum for each group leaves nothing to compare."""
    group, surv = _split(rows)
    assert log_rank(group, surv, strata=np.zeros(len(surv))).p == pytest.approx(log_rank(group, surv).p, nan_ok=True)
    assert np.isnan(log_rank(group, surv, strata=group).statistic)


@steady
@given(patients)
def test_without_ties_it_is_the_score_test_of_cox(rows):
    """With distinct times the log-rank chi-square is the score statistic of a Cox model on the groups."""
    group, surv = _split(rows)
    surv = Survival(surv.time_months + np.arange(len(surv)) / 1000, surv.event)
    test = log_rank(group, surv)
    if surv.n_events < 2 or np.isnan(test.statistic) or test.df < len(test.levels) - 1:
        return
    columns = (group[:, None] == np.unique(group)[1:]).astype(float)
    fit = fit_cox(columns, surv)
    if not fit.dropped:
        assert test.statistic == pytest.approx(fit.score_test.statistic, rel=1e-6)


def test_stratified_sums_are_sums_over_strata():
    """Observed, expected and covariance of a stratified test are the sums over its strata."""
    generator = np.random.default_rng(1)
    group, strata = generator.integers(0, 2, 80), generator.integers(0, 3, 80)
    surv = Survival(generator.integers(1, 20, 80), generator.random(80) < 0.7)
    parts = [log_rank(group[strata == s], surv.take(strata == s)) for s in range(3)]
    whole = log_rank(group, surv, strata=strata)
    assert whole.expected == pytest.approx(sum(p.expected for p in parts))
    difference = sum(p.observed[1] - p.expected[1] for p in parts)
    assert whole.statistic == pytest.approx(difference**2 / sum(p.variance[1, 1] for p in parts))


def test_trend_of_two_groups_is_the_log_rank_test():
    """With two groups the trend test is the log-rank test, whatever the groups count for; with more it is sharper."""
    generator = np.random.default_rng(2)
    group = generator.integers(0, 4, 200)
    surv = Survival(generator.exponential(20 * 0.7**group), generator.random(200) < 0.8)
    two = group > 1
    assert log_rank_trend(two, surv).statistic == pytest.approx(log_rank(two, surv).statistic)
    assert log_rank_trend(two, surv, values=[3, 7]).p == pytest.approx(log_rank(two, surv).p)
    trend, whole = log_rank_trend(group, surv), log_rank(group, surv)
    assert trend.df == 1 and whole.df == 3 and trend.statistic <= whole.statistic and trend.p < whole.p


@pytest.mark.slow
def test_p_is_uniform_when_the_groups_are_alike():
    """Under the null hypothesis about 5 % of p values are below 0.05."""
    p = []
    for seed in range(600):
        generator = np.random.default_rng(seed)
        p.append(log_rank(generator.integers(0, 3, 60), Survival(generator.exponential(10, 60),
                                                                 generator.random(60) < 0.7)).p)
    assert 0.03 < np.mean(np.array(p) < 0.05) < 0.075


@pytest.mark.parametrize(("observed", "expected", "total", "printed"), [
    (34, 24.35, 127, (1.541, 0.991, 2.397)),
    (8, 6.13, 24, (1.457, 0.582, 3.646)),
    (13, 8.14, 45, (1.839, 0.861, 3.928)),
])
def test_tnm_ratios_printed_in_the_paper(observed, expected, total, printed):
    """The paper's hazard ratios of the TNM stage are observed over expected, with se(log) = sqrt(1/E1 + 1/E0)."""
    other = total - expected
    ratio = observed / expected / ((total - observed) / other)
    ours = log_estimate(ratio, float(np.sqrt(1 / expected + 1 / other)))
    assert (ours.value, ours.low, ours.high) == pytest.approx(printed, rel=2e-3)


def test_three_ratios_of_one_cohort():
    """Cox, O/E and Peto ratios agree in direction; O/E lies nearer 1 than Cox under a strong effect."""
    generator = np.random.default_rng(5)
    high = generator.random(400) < 0.4
    surv = Survival(generator.exponential(np.where(high, 10, 50)), generator.random(400) < 0.8)
    cox, oe, peto = (group_hazard_ratio(high, surv, method=m) for m in ("cox", "logrank_oe", "peto"))
    assert 1 < oe.value < cox.value and peto.value > 1
    assert oe.p == peto.p == log_rank(high, surv).p
    turned = group_hazard_ratio(~high, surv, method="logrank_oe")
    assert (turned.value, turned.high) == pytest.approx((1 / oe.value, 1 / oe.low))


@pytest.mark.parametrize("method", ["cox", "logrank_oe", "peto"])
def test_a_group_without_events_has_no_interval(method):
    """Never HR 0.000 (0.000-Inf): a group without events gives 0 or infinity without interval, and the log-rank p."""
    surv = Survival([1, 2, 3, 4, 5, 6], [1, 1, 1, 0, 0, 0])
    ratio = group_hazard_ratio([0, 0, 0, 1, 1, 1], surv, method=method)
    assert ratio.value == 0 and np.isnan(ratio.low) and 0 < ratio.p < 0.05
    assert group_hazard_ratio([1, 1, 1, 0, 0, 0], surv, method=method).value == np.inf


@pytest.mark.parametrize(("group", "event", "kind", "code"), [
    ([1, 1, 1], [1, 1, 0], FitError, "E-ONEGROUP"),
    ([0, 1, 1], [0, 0, 0], FitError, "E-NOEVENTS"),
    ([0, 1], [1, 1, 0], TableError, "E-LENGTH"),
])
def test_bad_groups_are_refused(group, event, kind, code):
    """One group, no event, or a label for other patients are typed errors."""
    with pytest.raises(kind) as caught:
        log_rank(group, Survival([1, 2, 3], event))
    assert caught.value.code == code


def test_wrong_lengths_are_refused():
    """Strata and trend values of another length are refused."""
    surv = Survival([1, 2, 3], [1, 1, 0])
    for call in (lambda: log_rank([0, 1, 1], surv, strata=[0]), lambda: log_rank_trend([0, 1, 1], surv, values=[1])):
        with pytest.raises(TableError) as caught:
            call()
        assert caught.value.code == "E-LENGTH"


def test_agrees_with_r(reference, agrees):
    """Chi-square, p, observed, expected and covariance are survdiff's; the three hazard ratios are R's."""
    for name, theirs in reference.numbers("km").items():
        if name.startswith("risk_"):
            group = np.where(reference.scores[theirs["score"]] > theirs["cutoff"], 1, 0)
        else:
            group = np.array([theirs["levels"].index(x) for x in reference.columns[name]])
        ours, r = log_rank(group, reference.surv), theirs["logrank"]
        agrees("log-rank chi-square, df, p", "survival::survdiff", [ours.statistic, ours.df, ours.p],
               [r["chisq"], r["df"], r["p"]])
        agrees("log-rank observed, expected, covariance", "survival::survdiff",
               np.concatenate([ours.observed, ours.expected, ours.variance.ravel()]),
               [*r["obs"], *r["exp"], *np.ravel(r["var"])])
        early = log_rank(group, reference.surv, rho=1)
        agrees("Peto-Peto chi-square, p", "survival::survdiff(rho = 1)", [early.statistic, early.p],
               [theirs["peto_peto_rho1"]["chisq"], theirs["peto_peto_rho1"]["p"]])
        for method, key in (("cox", "cox"), ("logrank_oe", "logrank_OE"), ("peto", "peto_mantel_haenszel")):
            if "hr_2_vs_1" in theirs:
                ratio, r = group_hazard_ratio(group, reference.surv, method=method), theirs["hr_2_vs_1"][key]
                agrees(f"group hazard ratio ({method}), interval", "survival::coxph" if key == "cox" else
                       "survival::survdiff", [ratio.value, ratio.low, ratio.high], [r["hr"], *r["ci"]])


def test_everyone_failing_at_once_compares_nothing():
    """When all fail at one time observed equals expected without any variance: nan, no division by zero."""
    surv = Survival([3, 3, 3, 3], [1, 1, 1, 1])
    assert log_rank([0, 0, 1, 1], surv).variance[1, 1] == 0 and np.isnan(log_rank([0, 0, 1, 1], surv).p)
    assert np.isnan(group_hazard_ratio([0, 0, 1, 1], surv, method="peto").value)
