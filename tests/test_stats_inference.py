"""Intervals and p values, and what every score is checked for."""

from __future__ import annotations

from dataclasses import is_dataclass

import numpy as np
import pytest

from mtdlr import stats
from mtdlr.errors import FitError, MtdlrError, TableError
from mtdlr.stats.checks import labels, need_events, scores
from mtdlr.stats.inference import (
    chi_square_test,
    influence_error,
    log_estimate,
    normal_estimate,
    normal_quantile,
    two_sided_p,
)
from mtdlr.survival import Survival


@pytest.mark.parametrize(("level", "z"), [(0.9, 1.6448536269514722), (0.95, 1.959963984540054),
                                          (0.99, 2.5758293035489)])
def test_normal_quantiles(level, z):
    """Half-widths are R's qnorm, and the p value of each is what the level leaves."""
    assert normal_quantile(level) == pytest.approx(z)
    assert two_sided_p(z) == two_sided_p(-z) == pytest.approx(1 - level)


def test_small_p_values_do_not_vanish():
    """A z of 20 has the p value of R's 2 * pnorm(-20), not 0."""
    assert two_sided_p(20) == pytest.approx(5.507248237212467e-89, rel=1e-9)


@pytest.mark.parametrize(("x", "df", "p"), [(3.841458820694124, 1, 0.05), (9.487729036781154, 4, 0.05), (0.0, 3, 1.0)])
def test_chi_square_tail(x, df, p):
    """Upper tails are R's pchisq(lower.tail = FALSE)."""
    assert chi_square_test(x, df).p == pytest.approx(p)


def test_chi_square_without_freedom_has_no_p():
    """No degree of freedom, or a statistic that is not finite, has no p value."""
    assert np.isnan([chi_square_test(1.0, 0).p, chi_square_test(np.nan, 2).p]).all()


def test_normal_interval_is_cut_at_its_bounds():
    """An interval is symmetric unless it would leave the possible range; p is against the null value given."""
    inside, cut = normal_estimate(0.6, 0.1, null=0.5), normal_estimate(0.95, 0.1, null=0.5, bounds=(0.0, 1.0))
    assert inside.high - 0.6 == pytest.approx(0.6 - inside.low) and cut.high == 1.0
    assert inside.p == pytest.approx(two_sided_p(1.0)) and np.isnan(normal_estimate(0.6, 0.1).p)


@pytest.mark.parametrize("se", [0.0, np.nan, -1.0])
def test_no_spread_no_interval(se):
    """Without a positive standard error there is a value and nothing else."""
    for estimate in (normal_estimate(0.6, se, null=0.5), log_estimate(0.6, se)):
        assert estimate.value == 0.6 and np.isnan([estimate.low, estimate.high, estimate.p]).all()


def test_log_interval_is_symmetric_in_ratios():
    """Value / low = high / value; a ratio of 0 has no interval."""
    estimate = log_estimate(2.0, 0.3, level=0.9, p=0.02)
    assert estimate.value / estimate.low == pytest.approx(estimate.high / estimate.value) and estimate.p == 0.02
    assert np.isnan(log_estimate(0.0, 0.3).low)


def test_influence_error_of_a_mean():
    """The error of a mean from its influence values is sd / sqrt(n); rounding is not an error."""
    values = np.array([1.0, 4.0, 2.0, 7.0])
    assert influence_error(values - values.mean()) == pytest.approx(values.std(ddof=1) / 2)
    assert influence_error(np.full(5, 1e-17)) == 0.0


def test_scores_and_labels_pass_what_is_right():
    """Lists, integers and booleans become the arrays the statistics work on."""
    assert scores([1, 2, 3], 3).dtype == np.float64
    assert labels([0, 1, 1]).tolist() == labels(np.array([False, True, True]), 3).tolist() == [False, True, True]


@pytest.mark.parametrize(("call", "code", "found"), [
    (lambda: scores([1.0, np.nan], 2, "SUVmax"), "E-MISSING", "SUVmax"),
    (lambda: scores([[1.0]], 1), "E-LENGTH", "(1, 1)"),
    (lambda: labels([0, 1, 2]), "E-EVENT", "row 2"),
    (lambda: labels([0, 1], 3), "E-LENGTH", "(2,)"),
])
def test_what_is_wrong_is_named(call, code, found):
    """The message names the column, the row or the shape."""
    with pytest.raises(TableError) as caught:
        call()
    assert caught.value.code == code and found in str(caught.value)


def test_no_events_is_an_error():
    """Zero events stop a statistic that needs them; one does not."""
    need_events(1, "C")
    with pytest.raises(FitError) as caught:
        need_events(0, "C")
    assert caught.value.code == "E-NOEVENTS"


RESULTS = [getattr(stats, name) for name in stats.__all__ if is_dataclass(getattr(stats, name))]


@pytest.mark.parametrize("result", RESULTS, ids=lambda cls: cls.__name__)
def test_results_are_frozen(result):
    """Every value that statistics return is frozen: nobody changes a reported number by accident."""
    assert result.__dataclass_params__.frozen


def test_public_names_are_sorted_and_there():
    """`mtdlr.stats` lists its public names once, in order, and each can be used."""
    assert list(stats.__all__) == sorted(set(stats.__all__)) and all(hasattr(stats, name) for name in stats.__all__)


@pytest.mark.slow
def test_no_small_cohort_surprises():
    """On 200 random cohorts of 1 to 24 patients every function answers or raises a typed error, without a warning."""
    for seed in range(200):
        for call in _every_function(np.random.default_rng(seed)):
            try:
                call()
            except MtdlrError as error:
                assert error.code.startswith("E-")


def _every_function(generator):
    """Calls on one random cohort with ties, constant scores, empty groups and horizons out of reach."""
    n = int(generator.integers(1, 25))
    time = generator.integers(1, int(generator.integers(2, 12)), n).astype(float)
    event, (cause, group) = generator.random(n) < generator.random(), generator.integers(0, 3, (2, n))
    risk, other = generator.integers(-2, 3, n) * float(generator.random() < 0.9), generator.normal(size=n)
    p, q = np.round(generator.random(n), int(generator.integers(0, 4))), generator.random(n)
    surv, month, high = Survival(time, event), float(generator.integers(1, 12)), risk > 0
    table = stats.contingency_table(group, cause)
    return [
        lambda: stats.concordance(risk, surv),
        lambda: stats.concordance(risk, surv, weighting="uno", tau=month),
        *(lambda m=m: stats.compare_concordance(risk, other, surv, method=m, resamples=10)
          for m in ("compareC", "jackknife", "bootstrap")),
        lambda: stats.youden(stats.roc(risk, event)),
        lambda: stats.delong(risk, other, event),
        lambda: stats.auc_at(risk, surv, month),
        lambda: stats.compare_auc_at(risk, other, surv, month),
        lambda: stats.known_status_roc(risk, surv, month),
        *(lambda i=i: stats.kaplan_meier(surv, interval=i).at([0, month, 20]) for i in ("log", "log-log", "plain")),
        lambda: stats.restricted_mean_difference(high, surv, month),
        lambda: stats.median_follow_up(surv),
        lambda: stats.log_rank(group, surv, strata=high),
        lambda: stats.log_rank_trend(group, surv),
        *(lambda m=m: stats.group_hazard_ratio(high, surv, method=m) for m in ("cox", "logrank_oe", "peto")),
        lambda: stats.cumulative_incidence(time, cause).at([0, month, 20]),
        lambda: stats.gray_test(group, time, cause),
        lambda: stats.calibrate(p, surv, month),
        lambda: stats.calibrate(p, surv, month, groups=3, development=True),
        lambda: stats.brier_score(p, surv, month),
        lambda: stats.compare_brier(p, q, surv, month),
        lambda: stats.integrated_brier(np.column_stack([p, q]), surv, [month, month + 1]),
        lambda: stats.decision_curve(p, surv, month),
        lambda: stats.chi_square(table),
        lambda: stats.fisher(table),
        lambda: stats.kruskal_wallis([risk, other]),
        lambda: stats.mann_whitney(risk, other),
        lambda: stats.t_test(risk, other),
        lambda: stats.anova([risk, other]),
        lambda: stats.standardised_difference(risk, other),
        lambda: stats.standardised_difference_levels(stats.contingency_table(group, high)),
    ]
