"""Cumulative incidence and Gray's test."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtdlr.errors import FitError, TableError
from mtdlr.stats.competing import cumulative_incidence, gray_test
from mtdlr.stats.kaplan_meier import kaplan_meier
from mtdlr.stats.log_rank import log_rank
from mtdlr.survival import Survival

steady = settings(deadline=None, derandomize=True, max_examples=30)
follow_up = st.lists(st.tuples(st.integers(1, 12), st.integers(0, 2)), min_size=1, max_size=40)


def _split(rows):
    time, cause = (np.array(column) for column in zip(*rows, strict=True))
    return time.astype(float), cause


@steady
@given(follow_up)
def test_incidences_and_survival_fill_the_whole(rows):
    """The incidences of all causes and the probability of no failure add up to 1 at every time."""
    time, cause = _split(rows)
    first, second = (cumulative_incidence(time, cause, of=k) for k in (1, 2))
    free = kaplan_meier(Survival(time, cause > 0))
    assert first.incidence + second.incidence + free.survival == pytest.approx(np.ones(free.time.size))
    assert (np.diff(first.incidence) >= 0).all()


@steady
@given(follow_up)
def test_one_cause_is_kaplan_meier(rows):
    """With a single cause the incidence is 1 - S with Greenwood's error."""
    time, cause = _split(rows)
    incidence = cumulative_incidence(time, np.minimum(cause, 1))
    curve = kaplan_meier(Survival(time, cause > 0))
    assert incidence.incidence == pytest.approx(1 - curve.survival)
    inner = (curve.survival > 0) & (curve.survival < 1)
    assert incidence.se[inner] == pytest.approx(curve.se[inner])


def test_an_incidence_by_hand():
    """Times 1 (cause 1), 2 (cause 2), 3 (lost), 4 (cause 1): F1 = 1/4, then 1/4 + S(3) = 3/4; F2 = 3/4 x 1/3."""
    first, second = (cumulative_incidence([1.0, 2, 3, 4], [1, 2, 0, 1], of=k) for k in (1, 2))
    assert [e.value for e in first.at([1, 2, 3.5, 4])] == pytest.approx([1 / 4, 1 / 4, 1 / 4, 3 / 4])
    assert [e.value for e in second.at([1, 2, 3.5, 4])] == pytest.approx([0, 1 / 4, 1 / 4, 1 / 4])


def test_error_is_that_of_leaving_one_out():
    """The standard error is that of n leave-one-out values, under competing events and ties."""
    generator = np.random.default_rng(1)
    time, cause = generator.integers(1, 25, 250).astype(float), generator.integers(0, 3, 250)
    whole = cumulative_incidence(time, cause)
    at = int(np.searchsorted(whole.time, 12))
    left = [cumulative_incidence(np.delete(time, i), np.delete(cause, i)).at(12)[0].value for i in range(250)]
    assert whole.se[at] == pytest.approx(np.sqrt(249 / 250 * np.sum((left - np.mean(left)) ** 2)), rel=0.01)


def test_limits_and_values_at_months():
    """`at` steps with the curve, is 0 before the first failure and nan after the last follow-up."""
    incidence = cumulative_incidence([1.0, 2.0, 3.0, 4.0], [1, 2, 1, 0])
    assert [round(e.value, 4) for e in incidence.at([0.5, 1, 2.5, 3])] == [0, 0.25, 0.25, 0.5]
    assert np.isnan(incidence.at(4.5)[0].value)
    third = incidence.at(3)[0]
    spread = 1.959964 * incidence.se[2] / (0.5 * np.log(0.5))  # log(-log F) +- z se / (F log F)
    assert (third.low, third.high) == pytest.approx((0.5 ** np.exp(-spread), 0.5 ** np.exp(spread)))
    ended = cumulative_incidence([1.0, 2.0, 3.0, 4.0], [1, 2, 1, 2])
    assert ended.at(9)[0].value == 0.5


def test_censoring_the_other_causes_exaggerates():
    """1 - Kaplan-Meier with the other causes censored lies above the incidence: the reason for this module."""
    generator = np.random.default_rng(3)
    time, cause = generator.exponential(10, 500), generator.choice(3, 500, p=[0.2, 0.4, 0.4])
    wrong = 1 - kaplan_meier(Survival(time, cause == 1)).at(15)[0].value
    assert wrong > cumulative_incidence(time, cause).at(15)[0].value + 0.08


@pytest.mark.parametrize(("cause", "statistic", "p"), [(1, 2.8623325, 0.09067592), (2, 0.4481279, 0.50322531)])
def test_gray_agrees_with_r(cause, statistic, p, reference_table, agrees):
    """Gray's tests of relapse and of death between two leukaemias are those cmprsk prints."""
    rows = reference_table("bmtcrr.csv")
    time, codes = np.array(rows["time_months"], dtype=float), np.array(rows["cause"], dtype=int)
    ours = gray_test(rows["disease"], time, codes, of=cause)
    assert ours.levels == ("ALL", "AML") and ours.df == 1
    agrees("Gray's test chi-square, p", "cmprsk::cuminc", [ours.statistic, ours.p], [statistic, p], within=5e-8)


@steady
@given(st.lists(st.tuples(st.integers(1, 12), st.integers(0, 2), st.integers(0, 2)), min_size=6, max_size=40).filter(
    lambda rows: any(r[1] == 1 for r in rows) and len({r[2] for r in rows}) > 1))
def test_gray_scores_add_up(rows):
    """The scores sum to 0, the covariance has rows that sum to 0, and labels do not matter."""
    time, cause, group = (np.array(column) for column in zip(*rows, strict=True))
    test = gray_test(group, time, cause)
    assert test.score.sum() == pytest.approx(0, abs=1e-9)
    assert test.variance.sum(axis=0) == pytest.approx(np.zeros(len(test.levels)), abs=1e-8)
    again = gray_test(np.array(["z", "b", "q"])[group], time, cause)
    assert again.statistic == pytest.approx(test.statistic, nan_ok=True, rel=1e-6)


def test_gray_without_competing_events_is_nearly_log_rank():
    """Without other causes Gray's scores are those of the log-rank test, with another estimate of their variance."""
    generator = np.random.default_rng(4)
    group = generator.integers(0, 2, 300)
    time, event = generator.exponential(np.where(group, 10, 14)), generator.random(300) < 0.7
    gray, plain = gray_test(group, time, event.astype(int)), log_rank(group, Survival(time, event))
    assert gray.score == pytest.approx(plain.observed - plain.expected)
    assert gray.statistic == pytest.approx(plain.statistic, rel=0.15)


@pytest.mark.slow
def test_gray_p_is_uniform_where_only_the_other_cause_differs():
    """Groups with one incidence of the cause give uniform p, although the other cause comes at different times."""
    p = []
    for seed in range(500):
        generator = np.random.default_rng(seed)
        group = generator.integers(0, 2, 150)
        own = generator.random(150) < 0.4
        time = np.where(own, generator.exponential(20, 150), generator.exponential(np.where(group, 8, 40)))
        censor = generator.uniform(5, 40, 150)
        p.append(gray_test(group, np.minimum(time, censor), np.where(censor < time, 0, np.where(own, 1, 2))).p)
    assert 0.03 < np.mean(np.array(p) < 0.05) < 0.075


@pytest.mark.parametrize(("cause", "group", "kind", "code"), [
    ([0, 1, -1], [0, 1, 1], TableError, "E-CAUSE"),
    ([0, 1.5, 1], [0, 1, 1], TableError, "E-CAUSE"),
    ([0, 2, 2], [0, 1, 1], FitError, "E-NOEVENTS"),
    ([0, 1, 2], [1, 1, 1], FitError, "E-ONEGROUP"),
    ([0, 1, 2], [1, 0], TableError, "E-LENGTH"),
])
def test_bad_input_is_refused(cause, group, kind, code):
    """Codes that are no causes, no event of the cause, one group or other patients are typed errors."""
    with pytest.raises(kind) as caught:
        gray_test(group, [1.0, 2.0, 3.0], cause)
    assert caught.value.code == code
