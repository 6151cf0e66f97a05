"""Survival statistics where the numbers are extreme: no overflow, no log of 0, no warning; warnings are errors here."""

import numpy as np
import pandas as pd
import pytest

from mtdlr.errors import FitError, MtdlrError, TableError
from mtdlr.nomogram import Nomogram
from mtdlr.stats import (
    Cases,
    auc_at,
    brier_score,
    compare_auc_at,
    compare_concordance,
    concordance,
    delong,
    fit_cox,
    group_hazard_ratio,
    kaplan_meier,
    log_rank,
    proportional_hazards_test,
    restricted_mean_difference,
    validate_bootstrap,
)
from mtdlr.survival import Survival


def _cohort(n=60, seed=0, effect=1.0):
    random = np.random.default_rng(seed)
    x = random.normal(size=n)
    time = np.round(random.exponential(20.0 * np.exp(-effect * x)), 1) + 0.1
    return x, Survival(time, random.random(n) < 0.7)


@pytest.mark.parametrize("relative", [-1e3, -700.0, -40.0, -30.0, 0.0, 6.0, 40.0, 700.0, 1e3])
def test_survival_and_its_interval_are_finite_for_any_log_hazard(relative):
    """For log hazards up to 1000 from the mean, survival and both limits are numbers in [0, 1], in order."""
    x, surv = _cohort()
    fit = fit_cox(x, surv)
    row = fit.means + relative / fit.coef
    months = [0.01, 6.0, float(surv.time_months.max())]
    survival, (low, high) = fit.survival(row[None], months), fit.survival_interval(row[None], months)
    assert np.isfinite([survival, low, high]).all()
    assert (0.0 <= low).all() and (low <= survival).all() and (survival <= high).all() and (high <= 1.0).all()
    assert survival[0, 0] == low[0, 0] == high[0, 0] == 1.0  # before the first event


def test_the_interval_of_a_survival_that_rounds_to_one_still_has_a_width():
    """A patient whose survival is 1 to the last bit keeps the interval of the log cumulative hazard."""
    x, surv = _cohort()
    fit = fit_cox(x, surv)
    row = fit.means - 45.0 / fit.coef
    low, high = fit.survival_interval(row[None], [12.0])
    hazard = fit.baseline.log_cumulative_hazard([12.0])[0] - 45.0
    se = fit.baseline.log_hazard_se(row[None] - fit.means, [12.0], fit.covariance, None)[0, 0]
    assert fit.survival(row[None], [12.0])[0, 0] == 1.0
    assert low[0, 0] == pytest.approx(np.exp(-np.exp(hazard + 1.959963984540054 * se)), rel=1e-12)
    assert low[0, 0] < high[0, 0]


def test_a_nomogram_predicts_for_patients_far_from_its_own():
    """A score 1000 log hazards above the training patients gets survival 0 with finite limits, and finite points."""
    x, surv = _cohort(effect=2.0)
    nomogram = Nomogram.fit({"score": x}, surv, ["score"], [12.0, 24.0])
    far = {"score": np.array([-1e3, -30.0, 0.0, 30.0, 1e3]) / nomogram.cox.coef[0]}
    curve = nomogram.survival(far)
    assert np.isfinite([curve.value, curve.low, curve.high]).all()
    assert curve.value[0].tolist() == [1.0, 1.0] and curve.value[-1].tolist() == [0.0, 0.0]
    points = nomogram.points(far)["total"]
    assert np.isfinite(points).all()
    assert nomogram.survival_of(points, 12.0) == pytest.approx(curve.value[:, 0], abs=1e-12)
    assert nomogram.points_for([0.0, 1.0], 12.0).tolist() == [np.inf, -np.inf]


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_perfect_separation_is_said_and_no_nomogram_is_made(sign):
    """A column that orders all events is W-SEPARATION without a hazard ratio, and E-SEPARATION for a nomogram."""
    surv = Survival(np.arange(1.0, 61.0), np.ones(60, dtype=bool))
    x = sign * np.arange(1.0, 61.0)
    fit = fit_cox(x, surv, names=["x"])
    assert fit.monotone == ("x",) and "W-SEPARATION" in [problem.code for problem in fit.problems]
    assert np.isnan(fit.hazard_ratios()["x"].value) and np.isfinite(fit.se).all()
    with pytest.raises(FitError, match="E-SEPARATION"):
        Nomogram.fit({"x": x}, surv, ["x"], [12.0])


def test_a_single_event_has_no_p():
    """With one event C and AUC(t) have a value and no interval; with three, Student's distribution keeps P from 0."""
    x, surv = _cohort(n=50)
    one = Survival(surv.time_months, np.arange(50) == 3)
    found = concordance(x, one)
    assert np.isnan(found.c.p) and np.isnan(found.c.low) and found.warnings[-1].code == "W-FEWEVENTS"
    three = Survival(np.r_[1.0, 2.0, 3.0, np.full(47, 60.0)], np.arange(50) < 3)
    risk = np.r_[40.5, 48.5, 44.5, np.arange(3.0, 50.0)]
    assert auc_at(risk, three, 36.0).auc.p > 1e-4


@pytest.mark.parametrize(("call", "nearest"), [
    (lambda x, s: fit_cox(x, s, ties="Efron"), "efron"),
    (lambda x, s: group_hazard_ratio(x > 0, s, method="Cox"), "cox"),
    (lambda x, s: concordance(x, s, weighting="Uno"), "uno"),
    (lambda x, s: compare_concordance(x, -x, s, method="comparec"), "compareC"),
    (lambda x, s: kaplan_meier(s, interval="loglog"), "log-log"),
    (lambda x, s: proportional_hazards_test(fit_cox(x, s), x, s, transform="KM"), "km"),
    (lambda x, s: concordance(x, s, level=95), "0.95"),
])
def test_a_misspelt_option_is_named_with_the_nearest(call, nearest):
    """No option runs another method in silence: E-OPTION names the word that was meant."""
    with pytest.raises(FitError, match="E-OPTION") as error:
        call(*_cohort())
    assert nearest in str(error.value)


def test_follow_up_first_is_a_clear_error():
    """Arguments in R's order are E-ORDER, not a message about arrays."""
    x, surv = _cohort()
    for call in (lambda: log_rank(surv, x > 0), lambda: concordance(surv, x), lambda: fit_cox(surv, x)):
        with pytest.raises(TableError, match="E-ORDER"):
            call()


def test_tables_are_aligned_by_their_labels():
    """Swapped columns give the same log hazard, shuffled rows the same fit, rows of other patients are E-INDEX."""
    x, _ = _cohort()
    random = np.random.default_rng(2)
    table = pd.DataFrame({"a": x, "b": random.normal(size=60)}, index=[f"P{i}" for i in range(60)])
    time = pd.Series(random.exponential(10.0, 60) + 0.1, index=table.index)
    surv = Survival(time, pd.Series(True, index=table.index))
    fit = fit_cox(table, surv)
    assert fit.names == ("a", "b")
    assert fit_cox(table.sample(frac=1, random_state=1), surv).coef.tolist() == fit.coef.tolist()
    np.testing.assert_array_equal(fit.log_hazard(table[["b", "a"]]), fit.log_hazard(table))
    with pytest.raises(TableError, match="E-INDEX"):
        fit_cox(table.rename(index={"P0": "Q0"}), surv)


@pytest.mark.parametrize("values", [[pd.NA, 1, 2], ["a", "b", "c"], [None, 1.0, 2.0], [[1], [1, 2], [3]],
                                    pd.to_timedelta([1, 2, 3], unit="D"), []])
def test_what_is_no_number_has_a_code(values):
    """Missing values, text, ragged lists, durations and nothing at all are typed errors."""
    surv = Survival([1.0, 2.0, 3.0], [1, 1, 0])
    for call in (lambda: concordance(values, surv), lambda: fit_cox(values, surv), lambda: auc_at(values, surv, 2.0)):
        with pytest.raises(MtdlrError):
            call()


@pytest.mark.parametrize("month", [np.nan, -3.0, [1.0, 2.0], "36", None, np.inf, 0.0])
def test_a_horizon_is_one_positive_month(month):
    """Anything but one month above 0 is E-HORIZON."""
    x, surv = _cohort()
    for call in (lambda: auc_at(x, surv, month), lambda: brier_score(np.full(60, 0.5), surv, month)):
        with pytest.raises(FitError, match="E-HORIZON"):
            call()


def test_missing_groups_are_no_group():
    """A missing label is E-MISSING, not a third group or the high one."""
    _, surv = _cohort()
    group = np.where(np.arange(60) < 30, 0.0, 1.0)
    group[5] = np.nan
    for call in (lambda: log_rank(group, surv), lambda: restricted_mean_difference(group, surv, 10.0)):
        with pytest.raises(TableError, match="E-MISSING"):
            call()


def test_events_at_one_time_leave_no_test_of_proportional_hazards():
    """With all events at one time the test is nan, not a LinAlgError."""
    x, _ = _cohort()
    surv = Survival(np.where(np.arange(60) < 20, 5.0, 9.0), np.arange(60) < 20)
    tests = proportional_hazards_test(fit_cox(x, surv), x, surv)
    assert np.isnan(tests["GLOBAL"].p)


def test_a_large_constant_does_not_hide_a_column():
    """x + 1e12 is fitted as x is, as far as its digits reach."""
    x, surv = _cohort()
    assert fit_cox(x + 1e9, surv).coef == pytest.approx(fit_cox(x, surv).coef, rel=1e-4)
    assert fit_cox(x + 1e12, surv).dropped == ()


def test_offsets_of_a_thousand_do_not_overflow():
    """A fit with offsets up to 1000 is finite and equal to the fit without the patients they put aside."""
    x, surv = _cohort()
    offset = np.where(np.arange(60) % 2 == 0, 1e3, -1e3)
    fit = fit_cox(x, surv, cases=Cases(offset=offset))
    assert np.isfinite([fit.coef[0], fit.se[0], fit.loglik]).all() and np.isfinite(fit.baseline.log_hazard).all()


def test_a_categorical_level_without_patients_is_no_level():
    """Nomogram.fit leaves an unused level out: predicting it is E-LEVEL, not the risk of the reference."""
    x, surv = _cohort()
    stage = pd.Categorical(np.where(x > 0, "II", "III"), categories=["I", "II", "III"])
    nomogram = Nomogram.fit(pd.DataFrame({"stage": stage, "x": x}), surv, ["stage", "x"], [12.0])
    with pytest.raises(FitError, match="E-LEVEL"):
        nomogram.log_hazard({"stage": "I", "x": 0.0})
    with pytest.raises(FitError, match="E-COLLINEAR"):
        Nomogram.fit({"x": x, "y": 2.0 * x}, surv, ["x", "y"], [12.0])


def test_a_printed_fit_fits_a_screen():
    """The repr is one short line, the summary has a line per column."""
    x, surv = _cohort()
    fit = fit_cox(x, surv)
    assert len(repr(fit)) < 200 and len(str(fit).splitlines()) < 10
    assert fit.aic == pytest.approx(2.0 - 2.0 * fit.loglik)


@pytest.mark.parametrize("change", [{"n_resamples": 0}, {"n_resamples": 2.5}, {"indices": np.zeros((3, 59), dtype=int)},
                                    {"indices": np.zeros((3, 60))}])
def test_resamples_are_whole_numbers_and_whole_rows(change):
    """No resample, half a one, and indices of another width or kind are E-RESAMPLES."""
    x, surv = _cohort()
    with pytest.raises(FitError, match="E-RESAMPLES"):
        validate_bootstrap(x, surv, **change)


def test_a_perfect_score_is_not_tested_against_another():
    """An area of exactly 1 has an error of 0 by its formula: a difference from it has no interval and no P (W-PERFECT),
    by compareC, by the influence functions and by DeLong; one of almost 1 has both."""
    n = 7
    surv = Survival(np.arange(1.0, n + 1.0), [1, 1, 1, 1, 0, 0, 0])
    perfect, other = -np.arange(n), np.array([3.0, 1.0, 2.0, 0.0, 2.5, 1.5, 0.5])
    almost = perfect.astype(float)
    almost[[3, 4]] = almost[[4, 3]]
    status = np.arange(n) < 4
    calls = (lambda a, b: compare_concordance(a, b, surv), lambda a, b: compare_auc_at(a, b, surv, 4.0),
             lambda a, b: compare_concordance(a, b, surv, method="jackknife"), lambda a, b: delong(a, b, status))
    for call in calls:
        for found in (call(perfect, other), call(other, perfect)):
            assert np.isfinite(found.difference.value)
            assert np.isnan([found.difference.p, found.difference.low, found.z]).all()
            assert [one.code for one in found.warnings] == ["W-PERFECT"]
        assert np.isfinite(call(almost, other).difference.p)


@pytest.mark.parametrize("events", [2, 3, 5])
def test_few_events_are_seldom_significant_by_chance(events):
    """Of 200 scores that know nothing at most a tenth has P < .05; by the normal test it was 18 to 37 %."""
    random, seen = np.random.default_rng(events), []
    for _ in range(200):
        event = np.zeros(60, bool)
        event[random.choice(60, events, replace=False)] = True
        seen.append(concordance(random.normal(size=60), Survival(random.exponential(1.0, 60) + 0.01, event)).c.p)
    assert np.mean(np.array(seen) < 0.05) <= 0.1
