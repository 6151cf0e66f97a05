"""Kaplan-Meier curves, medians, numbers at risk, restricted means, follow-up."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtdlr.errors import FitError
from mtdlr.stats.inference import two_sided_p
from mtdlr.stats.ipcw import censoring
from mtdlr.stats.kaplan_meier import kaplan_meier, median_follow_up, restricted_mean, restricted_mean_difference
from mtdlr.survival import Survival

steady = settings(deadline=None, derandomize=True, max_examples=30)
follow_up = st.lists(st.tuples(st.integers(1, 15), st.booleans()), min_size=1, max_size=40)


def _surv(rows):
    time, event = zip(*rows, strict=True)
    return Survival(time, event)


@steady
@given(follow_up, st.sampled_from(["log", "log-log", "plain"]))
def test_curve_falls_within_its_limits(rows, interval):
    """S falls from 1 within [0, 1] and lies within its interval, which lies within [0, 1]."""
    curve = kaplan_meier(_surv(rows), interval=interval)
    assert (np.diff(curve.survival) <= 0).all() and ((curve.survival >= 0) & (curve.survival <= 1)).all()
    known = ~np.isnan(curve.low)
    assert (curve.low[known] <= curve.survival[known] + 1e-12).all()
    assert (curve.high[known] >= curve.survival[known] - 1e-12).all()
    assert ((curve.low[known] >= 0) & (curve.high[known] <= 1)).all()
    assert known[curve.survival > 0].all()


@steady
@given(follow_up)
def test_without_censoring_it_is_the_empirical_share(rows):
    """With everyone followed to the event S is the share still free of it, and its error the binomial one."""
    surv = Survival([t for t, _ in rows], np.ones(len(rows), bool))
    curve = kaplan_meier(surv)
    share = (surv.time_months[:, None] > curve.time).mean(axis=0)
    assert curve.survival == pytest.approx(share)
    inner = share > 0
    assert curve.se[inner] == pytest.approx(np.sqrt(share * (1 - share) / len(rows))[inner])


@steady
@given(follow_up)
def test_curve_and_censoring_curve_share_the_cohort(rows):
    """S(t) G(t) is the share still under observation: nobody is lost between the two curves."""
    surv = _surv(rows)
    curve, other = kaplan_meier(surv), censoring(surv)
    assert curve.survival * other.after == pytest.approx((surv.time_months[:, None] > curve.time).mean(axis=0))


@steady
@given(follow_up, st.integers(2, 6))
def test_repeating_everyone_keeps_the_curve(rows, times):
    """Each patient k times gives the same curve with an error smaller by sqrt(k)."""
    one, many = kaplan_meier(_surv(rows)), kaplan_meier(_surv(rows * times))
    assert many.survival == pytest.approx(one.survival)
    assert many.se * np.sqrt(times) == pytest.approx(one.se, nan_ok=True)


def test_a_curve_by_hand():
    """Times 1, 2+, 3, 3, 5+ give S = 4/5 and then 4/5 x 1/3, with the right counts."""
    curve = kaplan_meier(Survival([1, 2, 3, 3, 5], [1, 0, 1, 1, 0]))
    assert curve.survival == pytest.approx([0.8, 0.8, 0.8 / 3, 0.8 / 3])
    assert curve.at_risk.tolist() == [5, 4, 3, 1] and curve.events.tolist() == [1, 0, 2, 0]
    assert curve.number_at_risk([0, 1, 1.5, 3, 5, 6]).tolist() == [5, 5, 4, 3, 1, 0]
    assert curve.median.value == 3.0
    assert curve.at([0.5, 4])[0].value == 1.0 and curve.at(4)[0].value == pytest.approx(0.8 / 3)


def test_nothing_is_said_after_the_last_follow_up():
    """After the last follow-up S is nan, unless everyone has had the event and S stays 0."""
    assert np.isnan(kaplan_meier(Survival([1, 2, 3], [1, 1, 0])).at(3.5)[0].value)
    assert np.isnan(kaplan_meier(Survival([1, 2, 3], [1, 1, 0])).se_at(4))
    assert kaplan_meier(Survival([1, 2, 3], [1, 1, 1])).at(3.5)[0].value == 0.0
    assert kaplan_meier(Survival([1, 2, 3], [1, 1, 0])).se_at(0.5) == 0.0


def test_median_not_reached_is_nan():
    """When S never falls to one half there is no median; on a flat half it is the middle of the flat stretch."""
    assert np.isnan(kaplan_meier(Survival([1, 2, 3], [1, 0, 0])).median.value)
    assert kaplan_meier(Survival([1, 2, 4, 6], [1, 1, 1, 1])).median.value == 3.0


def test_without_events_the_curve_stays_at_one():
    """No event: S = 1 with limits 1 and no median."""
    curve = kaplan_meier(Survival([5, 6], [0, 0]))
    assert curve.survival.tolist() == curve.low.tolist() == curve.high.tolist() == [1, 1]
    assert np.isnan(curve.median.value)


def test_an_empty_group_is_refused():
    """A group without patients is a typed error."""
    with pytest.raises(FitError) as caught:
        kaplan_meier(Survival([], np.zeros(0, bool)))
    assert caught.value.code == "E-EMPTYGROUP"


@steady
@given(follow_up, st.integers(1, 15))
def test_restricted_mean_is_the_area_under_the_curve(rows, month):
    """The restricted mean is the mean of min(T, month) without censoring, and nan beyond the follow-up."""
    surv = Survival([t for t, _ in rows], np.ones(len(rows), bool))
    assert restricted_mean(surv, month).mean.value == pytest.approx(np.minimum(surv.time_months, month).mean())
    assert np.isnan(restricted_mean(Survival(surv.time_months, np.zeros(len(rows))), 16).mean.value)


def test_restricted_mean_error_is_that_of_resampling():
    """The standard error of the restricted mean is the spread of the estimate over samples."""
    def sample(seed):
        generator = np.random.default_rng(seed)
        time, censor = generator.exponential(20, 200), generator.uniform(20, 60, 200)
        return Survival(np.minimum(time, censor), time <= censor)

    results = [restricted_mean(sample(seed), 18) for seed in range(400)]
    spread = np.std([r.mean.value for r in results])
    assert np.mean([r.se for r in results]) == pytest.approx(spread, rel=0.08)


def test_difference_of_restricted_means():
    """The difference is first group minus second with p against 0, nan when one is not followed long enough."""
    surv = Survival([2, 4, 6, 8, 10, 12, 14, 16], np.ones(8, bool))
    high = [True] * 4 + [False] * 4
    difference = restricted_mean_difference(high, surv, 16)
    assert difference.value == pytest.approx(5 - 13) and difference.high < 0
    z = difference.value / np.hypot(*(restricted_mean(surv.take(rows), 16).se for rows in ([0, 1, 2, 3], [4, 5, 6, 7])))
    assert difference.p == pytest.approx(two_sided_p(z))
    assert np.isnan(restricted_mean_difference(high, Survival(surv.time_months, [1] * 7 + [0]), 20).value)


def test_agrees_with_r(reference, agrees):
    """S, Greenwood's error, three intervals, quartiles and numbers at risk are survfit's.

    Two departures: beyond the last follow-up of a group we say nan where R was asked to extend the curve, and where
    S = 1 the log-log limits are 1 where R has none.
    """
    for name, theirs in reference.numbers("km").items():
        group = _groups(reference, name, theirs)
        for interval, rows in theirs["km"].items():
            curves = {level: kaplan_meier(reference.surv.take(group == level), interval=interval)
                      for level in theirs["levels"]}
            keys = ("strata", "time", "surv", "se", "lower", "upper", "n_risk")
            for stratum, month, *numbers, at_risk in zip(*(rows[key] for key in keys), strict=True):
                curve = curves[stratum.split("=")[1]]
                s = curve.at(month)[0]
                if np.isnan(s.value):
                    assert month > curve.time[-1]
                    continue
                assert curve.number_at_risk(month)[0] == at_risk
                if numbers[2] is None and s.value == 1:
                    assert (s.low, s.high) == (1, 1)
                    continue
                agrees(f"S(t), SE, {interval} interval", "survival::survfit",
                       [s.value, curve.se_at(month), s.low, s.high], numbers)
            for at, level in enumerate(theirs["levels"]):
                for j, probability in enumerate(rows["quantiles"]["prob"]):
                    q = curves[level].quantile(probability)
                    agrees(f"quartiles, {interval} interval", "survival::quantile.survfit", [q.value, q.low, q.high],
                           [rows["quantiles"][key][at][j] for key in ("time", "lower", "upper")])


def test_overall_curve_means_and_follow_up_agree_with_r(reference, agrees):
    """The curve of everyone, restricted means (where followed to the end) and the median follow-up are R's."""
    last = float(reference.surv.time_months.max())
    for name, theirs in reference.numbers("km").items():
        group, overall = _groups(reference, name, theirs), theirs["overall"]
        curve = kaplan_meier(reference.surv).at(overall["time"])
        agrees("S(t), SE, log interval", "survival::survfit", [[s.value, s.low, s.high] for s in curve],
               np.transpose([overall[key] for key in ("surv", "lower", "upper")]))
        agrees("median follow-up", "survival::survfit (reversed)", median_follow_up(reference.surv).value,
               theirs["reverse_km_median_followup"])
        for at, level in enumerate(theirs["levels"]):
            mean = restricted_mean(reference.surv.take(group == level), last)
            if not np.isnan(mean.se):
                agrees("restricted mean, SE", "survival::print.survfit(rmean =)", [mean.mean.value, mean.se],
                       [theirs["rmst"]["rmean"][at], theirs["rmst"]["se"][at]])


def _groups(reference, name, theirs):
    """The labels R grouped by."""
    if name.startswith("risk_"):
        return np.where(reference.scores[theirs["score"]] > theirs["cutoff"], "high", "low")
    return np.array(reference.columns[name])
