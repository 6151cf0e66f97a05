"""Kaplan-Meier, restricted means, competing risks and log-rank tests: lifelines, scikit-survival, scipy and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from lifelines import AalenJohansenFitter, KaplanMeierFitter
from lifelines.statistics import multivariate_logrank_test
from lifelines.utils import restricted_mean_survival_time
from scipy.stats import chi2, norm
from sksurv.nonparametric import cumulative_incidence_competing_risks

from mtdlr.errors import FitError, TableError
from mtdlr.stats.competing import cumulative_incidence, gray_test
from mtdlr.stats.kaplan_meier import (
    kaplan_meier,
    median_follow_up,
    product_limit,
    restricted_mean,
    restricted_mean_difference,
)
from mtdlr.stats.log_rank import group_hazard_ratio, log_rank, log_rank_trend
from mtdlr.survival import Survival


def _surv(n: int = 50, seed: int = 0) -> Survival:
    """Follow-up in whole months, a third censored."""
    rng = np.random.default_rng(seed)
    return Survival(np.ceil(rng.exponential(12.0, n)).clip(1, 25), rng.random(n) < 0.65)


def _competing(n: int = 80, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Whole months and causes 0, 1, 2."""
    rng = np.random.default_rng(seed)
    return np.ceil(rng.exponential(8.0, n)).clip(1, 20), rng.choice(3, n, p=[0.3, 0.4, 0.3])


def test_the_curve_and_its_log_log_limits_are_lifelines() -> None:
    """S and its log-log limits at every time are lifelines', at two levels."""
    surv = _surv()
    for level in (0.95, 0.8):
        theirs = KaplanMeierFitter(alpha=1 - level).fit(surv.time_months, surv.event)
        ours = kaplan_meier(surv, interval="log-log", level=level)
        inner = (ours.survival > 0) & (ours.survival < 1)
        np.testing.assert_allclose(ours.survival, theirs.survival_function_at_times(ours.time), rtol=1e-12)
        band = theirs.confidence_interval_.loc[ours.time[inner]].to_numpy()
        np.testing.assert_allclose(np.column_stack([ours.low, ours.high])[inner], band, rtol=1e-9)


def test_intervals_on_three_scales_by_hand() -> None:
    """Ten patients, two events at once: S = .8; plain, log and log-log limits from Greenwood's error."""
    surv = Survival([3.0, 3.0] + [9.0] * 8, [1, 1] + [0] * 8)
    z, log_se = norm.ppf(0.95), np.sqrt(2 / (10 * 8))
    expected = {"plain": (0.8 * (1 - z * log_se), 1.0), "log": (0.8 * np.exp(-z * log_se), 1.0),
                "log-log": tuple(0.8 ** np.exp(side * z * log_se / np.log(0.8)) for side in (-1, 1))}
    for interval, limits in expected.items():
        curve = kaplan_meier(surv, interval=interval, level=0.9)
        assert (curve.low[0], curve.high[0]) == pytest.approx(limits)
        assert curve.se[0] == pytest.approx(0.8 * log_se) and (curve.level, curve.interval) == (0.9, interval)


def test_quantiles_and_their_limits_are_where_curves_cross() -> None:
    """The quartile is the first time at which S is below 3/4; its limits are those of the limits of S."""
    surv = _surv(60, 4)
    curve = kaplan_meier(surv)
    for share in (0.25, 0.5):
        found = curve.quantile(share)
        for value, line in ((found.value, curve.survival), (found.low, curve.low), (found.high, curve.high)):
            below = np.flatnonzero(line < 1 - share - 1e-12)
            assert np.isnan(value) if not below.size else value <= curve.time[below[0]]
            if below.size and not np.isclose(line, 1 - share).any():
                assert value == curve.time[below[0]]
    assert curve.median == curve.quantile(0.5)
    with pytest.raises(FitError, match="E-OPTION probability is out of range; found 1.5; expected 0 to 1"):
        curve.quantile(1.5)


def test_several_curves_at_once_are_the_curves_one_by_one() -> None:
    """`product_limit` takes rows of counts; each row is the curve of its counts; S = 0 has infinite log variance."""
    leaving, events = np.array([[2, 1, 1], [1, 1, 2]]), np.array([[1, 0, 1], [0, 1, 1]])
    survival, variance, at_risk = product_limit(leaving, events)
    for row in (0, 1):
        one = product_limit(leaving[row], events[row])
        for many, single in zip((survival, variance, at_risk), one, strict=True):
            np.testing.assert_array_equal(many[row], single)
    np.testing.assert_allclose(survival, [[3 / 4, 3 / 4, 0.0], [1.0, 2 / 3, 1 / 3]])
    np.testing.assert_allclose(variance, [[1 / 12, 1 / 12, np.inf], [0.0, 1 / 6, 1 / 6 + 1 / 2]])
    assert at_risk.tolist() == [[4, 2, 1], [4, 3, 2]]


def test_the_restricted_mean_is_lifelines() -> None:
    """The area up to a month between, at and after event times is lifelines' area under its curve."""
    surv = _surv(50, 6)
    theirs = KaplanMeierFitter().fit(surv.time_months, surv.event)
    for month in (0.5, 5.0, 7.25, 20.0):
        assert restricted_mean(surv, month).mean.value == pytest.approx(
            restricted_mean_survival_time(theirs, t=month), rel=1e-9)


def test_the_error_of_a_restricted_mean_by_hand() -> None:
    """Times 1, 2+, 3, 4+ to month 4: each event's squared area to its right over n (n - d)."""
    found = restricted_mean(Survival([1.0, 2.0, 3.0, 4.0], [1, 0, 1, 0]), 4.0, level=0.9)
    assert found.mean.value == pytest.approx(1 + 0.75 * 2 + 0.375 * 1)
    after = {1: 0.75 * 2 + 0.375, 3: 0.375}
    assert found.se == pytest.approx(np.sqrt(after[1] ** 2 / (4 * 3) + after[3] ** 2 / (2 * 1)))
    assert found.mean.high - found.mean.value == pytest.approx(norm.ppf(0.95) * found.se)
    assert found.month == 4.0 and np.isnan(found.mean.p)


def test_a_restricted_mean_before_the_first_event_is_the_month() -> None:
    """Nobody had the event yet: the mean is the month itself, without error and so without interval."""
    found = restricted_mean(Survival([5.0, 6.0], [1, 1]), 3.0)
    assert found.mean.value == 3.0 and found.se == 0.0 and np.isnan(found.mean.low)


def test_a_difference_of_restricted_means_turns_round() -> None:
    """Marking the other group changes the sign and keeps p; all marked, or a group not followed, has no difference."""
    surv, high = _surv(60, 2), np.arange(60) % 2 == 0
    a, b = (restricted_mean_difference(mark, surv, 10.0) for mark in (high, ~high))
    assert (a.value, a.low, a.high) == pytest.approx((-b.value, -b.high, -b.low)) and a.p == pytest.approx(b.p)
    with pytest.raises(FitError, match="E-ONEGROUP"):
        restricted_mean_difference(np.ones(60), surv, 10.0)


def test_median_follow_up_turns_events_round() -> None:
    """The median of the reverse curve: events censor it, so early events shorten nobody's follow-up."""
    surv = Survival([1.0, 2.0, 10.0, 12.0, 14.0], [1, 1, 0, 0, 0])
    assert median_follow_up(surv).value == 12.0
    assert np.isnan(median_follow_up(Survival([1.0, 2.0], [1, 1])).value)
    narrow, wide = (median_follow_up(_surv(80, 3), level=level) for level in (0.5, 0.99))
    assert wide.low <= narrow.low <= narrow.value and (np.isnan(wide.high) or wide.high >= narrow.high)


def test_incidences_are_scikit_survivals() -> None:
    """The Aalen-Johansen curve of every cause at every time is scikit-survival's."""
    time, cause = _competing()
    at, theirs = cumulative_incidence_competing_risks(cause, time)
    for k in (1, 2):
        ours = cumulative_incidence(time, cause, of=k)
        np.testing.assert_allclose([e.value for e in ours.at(at[at <= time.max()])], theirs[k][at <= time.max()])
        assert ours.cause == k and ours.events.sum() == (cause == k).sum() == ours.events.sum()
        assert ours.competing.sum() == (cause == 3 - k).sum()


def test_the_error_of_an_incidence_is_lifelines_without_ties() -> None:
    """Without ties in time the variance is that of lifelines' Aalen-Johansen fitter (Marubini and Valsecchi)."""
    rng = np.random.default_rng(3)
    time, cause = rng.permutation(60) + rng.random(60), rng.choice(3, 60)
    theirs = AalenJohansenFitter(calculate_variance=True).fit(time, cause, event_of_interest=1)
    ours = cumulative_incidence(time, cause)
    inside = ours.at_risk > 1
    variance = theirs.variance_.reindex(ours.time[inside]).to_numpy()
    np.testing.assert_allclose(ours.se[inside] ** 2, variance, rtol=1e-6, atol=1e-12)


def test_codes_of_causes_not_asked_for_do_not_matter() -> None:
    """How the other causes are numbered is nothing to the incidence or to Gray's test of one."""
    time, cause = _competing()
    group = np.arange(80) % 2
    other = np.where(cause == 2, np.where(np.arange(80) % 3 == 0, 7, 99), cause)
    np.testing.assert_allclose(cumulative_incidence(time, other).incidence, cumulative_incidence(time, cause).incidence)
    assert gray_test(group, time, other).statistic == pytest.approx(gray_test(group, time, cause).statistic)


def test_the_level_of_an_incidence_is_kept_on_its_log_log_scale() -> None:
    """Limits are F to the powers exp(+-z se / (F log F)) at any level, within 0 and 1 and around F."""
    time, cause = _competing()
    for level in (0.8, 0.99):
        found = cumulative_incidence(time, cause, level=level)
        k = 5
        f, half = found.incidence[k], norm.ppf(0.5 + level / 2) * found.se[k]
        expected = [f ** np.exp(side * half / (f * np.log(f))) for side in (-1, 1)]
        assert [found.low[k], found.high[k]] == pytest.approx(expected) and found.low[k] < f < found.high[k]


def test_everyone_failing_at_once_from_one_cause_is_certain() -> None:
    """All fail from the cause at one time: an incidence of 1 without error or limits, known for ever after."""
    found = cumulative_incidence([4.0, 4.0, 4.0], [1, 1, 1])
    assert found.incidence.tolist() == [1.0] and found.se[0] == 0.0 and np.isnan(found.low[0])
    assert found.at([3.9, 4.0, 50.0])[0].value == 0.0 and found.at(50.0)[0].value == 1.0


@pytest.mark.parametrize(("time", "cause", "of", "code"), [
    ([], [], 1, "E-EMPTYGROUP"), ([1.0, 2.0], [1, 0], 0, "E-OPTION"), ([1.0, 2.0], [1, 0], 1.5, "E-OPTION"),
    ([1.0, -2.0], [1, 0], 1, "E-TIME"), ([1.0], [1, 0], 1, "E-LENGTH"), ([1.0, 2.0], [1, 100], 1, "E-CAUSE"),
    ([1.0, 2.0], [[1, 0]], 1, "E-CAUSE"), ([1.0, 2.0], [1, np.nan], 1, "E-CAUSE"),
])
def test_wrong_causes_and_times_have_a_code(time: list, cause: list, of: float, code: str) -> None:
    """Nobody, a cause that is none, and times and codes that do not match are typed errors."""
    with pytest.raises((FitError, TableError)) as caught:
        cumulative_incidence(time, cause, of=of)
    assert caught.value.code == code


def test_gray_of_three_groups_has_two_degrees_of_freedom() -> None:
    """Three groups: statistic from any two scores and their covariance; doubling everybody nearly doubles it."""
    time, cause = _competing(120, 5)
    group = np.array(["c", "a", "b"])[np.arange(120) % 3]
    found = gray_test(group, time, cause)
    assert found.levels == ("a", "b", "c") and found.df == 2 and found.p == pytest.approx(chi2.sf(found.statistic, 2))
    for kept in ([0, 1], [0, 2]):
        part = found.variance[np.ix_(kept, kept)]
        assert found.score[kept] @ np.linalg.solve(part, found.score[kept]) == pytest.approx(found.statistic, rel=1e-6)
    assert np.allclose(found.variance, found.variance.T) and (np.linalg.eigvalsh(found.variance) > -1e-9).all()
    twice = gray_test(np.tile(group, 2), np.tile(time, 2), np.tile(cause, 2))
    np.testing.assert_allclose(twice.score, 2 * found.score)
    assert twice.statistic == pytest.approx(2 * found.statistic, rel=0.1)


def test_log_rank_of_four_groups_is_lifelines() -> None:
    """The chi-square and p of four groups with ties are lifelines'; sizes and events are counted by group."""
    surv, group = _surv(90, 7), np.arange(90) % 4
    theirs = multivariate_logrank_test(surv.time_months, group, surv.event)
    ours = log_rank(group, surv)
    assert (ours.statistic, ours.p) == pytest.approx((theirs.test_statistic, theirs.p_value)) and ours.df == 3
    assert ours.n.tolist() == np.bincount(group).tolist()
    assert ours.observed.tolist() == np.bincount(group[surv.event]).tolist()


def test_early_events_weigh_more_with_rho() -> None:
    """The Fleming-Harrington weights are lifelines' (p = rho, q = 0), with S just before each time."""
    surv, group = _surv(90, 8), np.arange(90) % 3
    theirs = multivariate_logrank_test(surv.time_months, group, surv.event, weightings="fleming-harrington", p=1.0,
                                       q=0.0)
    assert log_rank(group, surv, rho=1.0).statistic == pytest.approx(theirs.test_statistic, rel=0.02)
    by_hand = log_rank(["a", "a", "b", "b"], Survival([1.0, 2.0, 3.0, 4.0], [1, 1, 1, 1]), rho=1.0)
    np.testing.assert_allclose(by_hand.observed, [1.0 + 0.75, 0.5 + 0.25])
    np.testing.assert_allclose(by_hand.expected, [0.5 + 0.75 / 3, 0.5 + 0.75 * 2 / 3 + 0.5 + 0.25])


def test_a_trend_needs_one_value_for_each_group() -> None:
    """Values scale and shift without effect; (values . (O - E))^2 over its variance; too few are E-LENGTH."""
    surv, group = _surv(90, 9), np.arange(90) % 3
    test = log_rank(group, surv)
    values = np.array([1.0, 5.0, 6.0])
    found = log_rank_trend(group, surv, values=values)
    gap = values @ (test.observed - test.expected)
    assert found.statistic == pytest.approx(gap**2 / (values @ test.variance @ values)) and found.df == 1
    assert log_rank_trend(group, surv, values=3.0 * values + 2.0).statistic == pytest.approx(found.statistic)
    with pytest.raises(TableError, match="E-LENGTH values must hold one number per group"):
        log_rank_trend(group, surv, values=[1.0, 2.0])


@pytest.mark.parametrize("method", ["cox", "logrank_oe", "peto"])
def test_ratios_turn_round_with_the_group(method: str) -> None:
    """Marking the others gives the inverse ratio with inverse limits; a wider level has wider limits."""
    surv, high = _surv(90, 10), np.arange(90) % 2 == 0
    a, b = (group_hazard_ratio(mark, surv, method=method) for mark in (high, ~high))
    assert (a.value, a.low, a.high) == pytest.approx((1 / b.value, 1 / b.high, 1 / b.low))
    wide = group_hazard_ratio(high, surv, method=method, level=0.99)
    assert wide.low < a.low < a.value < a.high < wide.high


def test_peto_and_observed_over_expected_by_hand() -> None:
    """exp((O - E) / V) with 1 / sqrt(V), and O1/E1 over O0/E0 with sqrt(1/E1 + 1/E0), both with the log-rank p."""
    surv, high = _surv(60, 11), np.arange(60) % 2
    test = log_rank(high, surv)
    o, e, v = test.observed, test.expected, test.variance[1, 1]
    peto, ratio = (group_hazard_ratio(high, surv, method=method) for method in ("peto", "logrank_oe"))
    z = norm.ppf(0.975)
    assert np.log([peto.value, peto.low]) == pytest.approx([(o[1] - e[1]) / v, (o[1] - e[1]) / v - z / np.sqrt(v)])
    assert ratio.value == pytest.approx(o[1] / e[1] / (o[0] / e[0]))
    assert np.log(ratio.high / ratio.value) == pytest.approx(z * np.sqrt(1 / e[1] + 1 / e[0]))
    assert peto.p == ratio.p == test.p


def test_groups_that_never_met_have_no_peto_ratio() -> None:
    """Where one group is gone before the other's events begin, expected equals observed: nothing can be compared."""
    surv = Survival([1.0, 1.0, 1.0, 2.0], [1, 1, 1, 1])
    assert np.isnan(group_hazard_ratio([0, 0, 0, 1], Survival([1.0, 1.0, 1.0, 1.0], np.ones(4)),
                                       method="peto").value)
    assert group_hazard_ratio([0, 0, 0, 1], surv, method="peto").value < 1
