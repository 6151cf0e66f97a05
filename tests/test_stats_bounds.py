"""Pooling, ComBat, conformal bounds, calibration groups and sample sizes: each by its equation, or by a search."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import expit, logit
from scipy.stats import chi2, norm, t

from mtdlr.errors import FitError, TableError
from mtdlr.stats.combat import Combat, fit_combat
from mtdlr.stats.conformal import LowerBound, fit_lower_bound
from mtdlr.stats.goodness_of_fit import (
    CalibrationGroups,
    calibration_groups,
    gnd_test,
    hosmer_lemeshow,
    nam_dagostino_test,
    quantile_groups,
)
from mtdlr.stats.ipcw import censoring
from mtdlr.stats.kaplan_meier import kaplan_meier
from mtdlr.stats.pooling import pool
from mtdlr.stats.sample_size import development_size, largest_r2, spread_of, validation_size
from mtdlr.survival import Survival

Y, SE = np.array([0.1, 0.9, 0.4, 0.7, -0.2]), np.array([0.2, 0.15, 0.3, 0.1, 0.25])


def test_the_pooled_mean_and_both_intervals_by_hand() -> None:
    """Weights 1 / (v + tau2); Hartung-Knapp's error; t of k - 1 for the mean and for a new centre's tau2 + se2."""
    found = pool(Y, SE, level=0.9, null=0.2)
    w = 1.0 / (SE**2 + found.tau2)
    mean = (w * Y).sum() / w.sum()
    se = np.sqrt((w * (Y - mean) ** 2).sum() / 4 / w.sum())
    q = t.ppf(0.95, 4)
    assert found.tau2 > 0.05 and found.centers == 5
    assert (found.value.value, found.value.low, found.value.high) == pytest.approx((mean, mean - q * se, mean + q * se))
    assert found.value.p == pytest.approx(2 * t.sf(abs(mean - 0.2) / se, 4))
    wide = q * np.sqrt(found.tau2 + se**2)
    assert found.prediction == pytest.approx((mean - wide, mean + wide))


def test_heterogeneity_is_cochrans_q_and_the_share_between_centres() -> None:
    """Q with the inverse-variance mean on k - 1 degrees; I2 is tau2 over tau2 plus the typical variance."""
    found = pool(Y, SE)
    w = 1.0 / SE**2
    q = (w * (Y - (w * Y).sum() / w.sum()) ** 2).sum()
    assert (found.heterogeneity.statistic, found.heterogeneity.df) == pytest.approx((q, 4))
    assert found.heterogeneity.p == pytest.approx(chi2.sf(q, 4))
    typical = 4 * w.sum() / (w.sum() ** 2 - (w**2).sum())
    assert found.i2 == pytest.approx(found.tau2 / (found.tau2 + typical)) and found.problems == ()


def test_centres_that_agree_have_no_variance_between_them() -> None:
    """Values closer than their errors: tau2 and I2 are 0 and the mean is the inverse-variance one."""
    found = pool([0.50, 0.51, 0.49], [0.1, 0.2, 0.1])
    assert found.tau2 == found.i2 == 0.0
    assert found.value.value == pytest.approx((0.50 * 100 + 0.51 * 25 + 0.49 * 100) / 225)


@pytest.mark.parametrize(("scale", "there", "back"), [("log", np.log, np.exp), ("logit", logit, expit)])
def test_a_scale_carries_values_errors_and_null(scale: str, there: object, back: object) -> None:
    """Pooling on a scale is pooling the transformed values with delta-method errors, and transforming back."""
    values, errors = np.array([0.6, 0.75, 0.7, 0.55]), np.array([0.05, 0.04, 0.1, 0.06])
    slope = 1 / values if scale == "log" else 1 / (values * (1 - values))
    ours, plain = pool(values, errors, scale=scale, null=0.5), pool(there(values), errors * slope, null=there(0.5))
    for mine, theirs in zip((ours.value.value, ours.value.low, ours.value.high, *ours.prediction),
                            (plain.value.value, plain.value.low, plain.value.high, *plain.prediction), strict=True):
        assert mine == pytest.approx(back(theirs))
    assert ours.value.p == pytest.approx(plain.value.p) and ours.tau2 == pytest.approx(plain.tau2)


def test_few_centres_are_told_and_two_have_no_prediction() -> None:
    """Below five centres W-POOLFEW counts them; below three nothing is said of a new one; one centre is itself."""
    two, one = pool(Y[:2], SE[:2]), pool([0.7], [0.1], level=0.9)
    assert np.isnan(two.prediction).all() and two.problems[0].found == "2 centres"
    assert pool(Y[:4], SE[:4]).problems[0].code == "W-POOLFEW" and np.isfinite(pool(Y[:3], SE[:3]).prediction).all()
    assert one.problems[0].found == "1 centre" and np.isnan(one.value.p)
    assert (one.value.low, one.value.high) == pytest.approx((0.7 - norm.ppf(0.95) * 0.1, 0.7 + norm.ppf(0.95) * 0.1))


@pytest.mark.parametrize(("values", "errors", "scale", "centers"), [
    ([0.5, np.nan, 0.6, 0.7], [0.1, 0.1, 0.0, 0.1], "identity", 2), ([0.5, -0.5, 0.6], [0.1] * 3, "log", 2),
    ([0.5, 1.0, 0.0, 0.6], [0.1] * 4, "logit", 2), ([0.5, 0.6, 0.7], [0.1, np.inf, np.nan], "identity", 1),
])
def test_centres_that_cannot_be_carried_are_left_out(values: list, errors: list, scale: str, centers: int) -> None:
    """Missing values, errors of 0 or none, and values outside the scale take no part."""
    assert pool(values, errors, scale=scale).centers == centers


def test_an_unknown_scale_and_no_centre_at_all_have_codes() -> None:
    """E-OPTION lists the scales, E-POOL says that one centre is needed."""
    with pytest.raises(FitError, match="E-OPTION unknown scale; found 'sqrt'; expected identity or log or logit"):
        pool([0.5], [0.1], scale="sqrt")
    with pytest.raises(FitError, match="E-POOL no centre has a value"):
        pool([np.nan, 1.0], [0.1, 0.1], scale="logit")


def _features(n: int = 8, p: int = 6) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(2)
    x = rng.normal(size=(2 * n, p)) * np.arange(1, p + 1)
    x[n:] = 1.7 * x[n:] + 2.0
    return x, np.repeat(["a", "b"], n)


def test_shift_and_ratio_solve_the_empirical_bayes_equations() -> None:
    """Johnson's equations hold at the result: the shift is the precision-weighted mean of the batch's own and the prior
    mean, the ratio the posterior mean under the inverse gamma prior of matching moments."""
    x, batch = _features()
    fit = fit_combat(x, batch, reference="a")
    z = (x[batch == "b"] - x[:8].mean(axis=0)) / x[:8].std(axis=0)
    own, spread = z.mean(axis=0), z.var(axis=0, ddof=1)
    m, s2, tau = spread.mean(), spread.var(ddof=1), own.var(ddof=1)
    shape, rate = m**2 / s2 + 2, m * (m**2 / s2 + 1)
    part = fit.batches["b"]
    weighted = (8 * tau * own + part.ratio * own.mean()) / (8 * tau + part.ratio)
    np.testing.assert_allclose(part.shift, weighted, rtol=1e-8)
    squares = ((z - part.shift) ** 2).sum(axis=0)
    np.testing.assert_allclose(part.ratio, (rate + squares / 2) / (8 / 2 + shape - 1), rtol=1e-8)
    assert part.n == 8 and fit.batches["a"].shift.tolist() == [0.0] * 6


def test_the_common_scale_without_a_reference_is_pooled_within_batches() -> None:
    """The mean is that of all patients, the SD that within batches: a shift between scanners is no spread."""
    x, batch = _features()
    fit = fit_combat(x, batch)
    np.testing.assert_allclose(fit.mean, x.mean(axis=0))
    np.testing.assert_allclose(fit.sd, np.sqrt((x[:8].var(axis=0) + x[8:].var(axis=0)) / 2))


def test_moving_is_undone_by_its_inverse_and_follows_the_unit() -> None:
    """transform is (z - shift) / sqrt(ratio) on the common scale; features in another unit move in that unit."""
    x, batch = _features()
    fit = fit_combat(x, batch)
    moved, part = fit.transform(x[8:], "b"), fit.batches["b"]
    back = ((moved - fit.mean) / fit.sd * np.sqrt(part.ratio) + part.shift) * fit.sd + fit.mean
    np.testing.assert_allclose(back, x[8:])
    np.testing.assert_allclose(fit_combat(1000 * x, batch).transform(1000 * x[8:], "b"), 1000 * moved)
    again = Combat.from_dict(json.loads(json.dumps(fit.as_dict())))
    np.testing.assert_array_equal(again.transform(x[8:], "b"), moved)
    assert again.varies.dtype == np.bool_ and again.batches["b"].n == 8


def _by_definition(values: np.ndarray, surv: Survival, level: float) -> float:
    """The smallest threshold whose weighted failures above it, and one more, stay within the share of n + 1."""
    weight = np.where(surv.event, 1 / censoring(surv).just_before(surv.time_months), 0.0)
    room = (1 - level) * (len(surv) + 1) - 1.0
    fine = [q for q in np.arange(0, 1001) / 1000 if weight[values > q].sum() <= room + 1e-9]
    return fine[0]


@pytest.mark.parametrize("level", [0.5, 0.7, 0.8, 0.9])
def test_a_threshold_is_the_lowest_that_holds_its_level(level: float) -> None:
    """With censoring and ties: found by trying every thousandth."""
    rng = np.random.default_rng(4)
    values = np.round(rng.random(80), 2)
    surv = Survival(np.ceil(rng.exponential(10, 80)), rng.random(80) < 0.6)
    found = fit_lower_bound(values, surv, levels=[level])
    assert found.thresholds[0] == pytest.approx(_by_definition(values, surv, level), abs=1e-12)
    assert found.early[0] == (surv.event & (values > found.thresholds[0])).sum()
    assert (found.n, found.n_events) == (80, surv.n_events)


BOUND = LowerBound(np.array([0.5, 0.8, 0.9, 0.95]), np.array([0.3, 0.6, 0.8, np.nan]), np.array([30, 12, 4, 0]),
                   np.array([0.51, 0.79, 0.9, np.nan]), 60, 40)


def test_the_bound_is_the_first_month_at_or_below_the_threshold() -> None:
    """A curve that meets the threshold ends there; one that stays above ends with the last month; nan without one."""
    curves = [[0.9, 0.6, 0.4], [0.95, 0.9, 0.7], [0.5, 0.4, 0.3]]
    assert BOUND.months([12, 24, 36], curves, 0.8).tolist() == [24.0, 36.0, 12.0]
    assert BOUND.months([12, 24, 36], curves[0], 0.5).tolist() == [36.0]
    assert np.isnan(BOUND.months([12, 24, 36], curves, 0.95)).all()
    with pytest.raises(FitError, match=r"E-OPTION .*found 0.7; expected 0.5, 0.8, 0.9, 0.95"):
        BOUND.months([12], [[0.5]], 0.7)


def test_the_level_at_a_month_is_the_largest_whose_bound_lies_beyond() -> None:
    """Survival above a threshold reaches its level; at the threshold it does not; below all there is none."""
    found = BOUND.level_at([0.3, 0.31, 0.6, 0.61, 0.99])
    np.testing.assert_array_equal(found, [np.nan, 0.5, 0.5, 0.8, 0.9])


def test_few_early_events_are_told_and_never_counted_exactly() -> None:
    """Ten events are enough; below five the count is not written, in the warning or in the file."""
    assert BOUND.problems(0.8) == () and BOUND.problems(0.9)[0].found == "4 events before the bounds, 60 patients"
    assert BOUND.problems(0.95)[0].found.startswith("fewer than 5 events")
    assert BOUND.as_dict()["early"] == [30, 12, 0, 0] and BOUND.as_dict()["thresholds"][-1] is None
    assert BOUND.coverage_text(0.8) == "79 % of 60 patients" and "not known" in BOUND.coverage_text(0.95)


def _groups() -> CalibrationGroups:
    n = np.array([50, 40])
    return CalibrationGroups(np.array([0.2, 0.5]), np.array([0.25, 0.4]), np.zeros(2), np.ones(2),
                             np.array([0.05, 0.08]), n, np.array([12, 16]))


def test_the_group_tests_by_hand() -> None:
    """GND divides by Greenwood's error, Nam-D'Agostino by the binomial one; development costs a degree of freedom."""
    gnd, nam = gnd_test(_groups()), nam_dagostino_test(_groups(), development=True)
    assert (gnd.statistic, gnd.df) == pytest.approx((1.0 + (0.1 / 0.08) ** 2, 2))
    assert (nam.statistic, nam.df) == pytest.approx((0.05**2 * 50 / 0.16 + 0.1**2 * 40 / 0.25, 1))
    assert gnd_test(_groups(), development=True).df == 1 and gnd.p == pytest.approx(chi2.sf(gnd.statistic, 2))


def test_groups_are_kaplan_meier_of_their_patients() -> None:
    """Mean prediction, 1 - S with its log-log limits turned round, Greenwood's error, patients and events."""
    rng = np.random.default_rng(1)
    risk, surv = rng.random(90), Survival(rng.exponential(10, 90) + 0.1, rng.random(90) < 0.7)
    found = calibration_groups(risk, surv, 5.0, groups=3, level=0.9)
    member = quantile_groups(risk, 3)
    for g in range(3):
        curve = kaplan_meier(surv.take(member == g), interval="log-log", level=0.9)
        s = curve.at(5.0)[0]
        assert (found.observed[g], found.low[g], found.high[g]) == pytest.approx((1 - s.value, 1 - s.high, 1 - s.low))
        assert found.predicted[g] == pytest.approx(risk[member == g].mean()) and found.se[g] == curve.se_at(5.0)
        assert found.n[g] == 30 and found.events[g] == (surv.event & (surv.time_months <= 5) & (member == g)).sum()


def test_a_quantile_belongs_to_the_lower_group() -> None:
    """Cuts are closed on the right (R's cut of type-7 quantiles); equal values share a group and none is empty."""
    assert quantile_groups(np.arange(1.0, 10.0), 4).tolist() == [0, 0, 0, 1, 1, 2, 2, 3, 3]
    assert quantile_groups(np.array([5.0, 1.0, 2.0, 2.0, 2.0, 2.0, 3.0]), 2).tolist() == [1, 0, 0, 0, 0, 0, 1]
    # A quantile that is the smallest value cuts nothing, as cut(x, unique(quantile(x))) in R.
    assert quantile_groups(np.array([5.0, 1.0, 1.0, 1.0, 1.0, 2.0, 3.0]), 2).tolist() == [0] * 7
    assert quantile_groups(np.array([0.2, 0.1, 0.2]), 5).tolist() == [1, 0, 1]


def test_hosmer_lemeshow_by_hand() -> None:
    """Two groups of three: (O - E)^2 / (E (1 - E / n)); development takes two degrees, new patients none."""
    risk, status = [0.1, 0.1, 0.1, 0.6, 0.6, 0.6], [0, 0, 1, 1, 1, 0]
    new = hosmer_lemeshow(risk, status, groups=2, development=False)
    assert new.statistic == pytest.approx(0.7**2 / (0.3 * 0.9) + 0.2**2 / (1.8 * 0.4)) and new.df == 2
    old = hosmer_lemeshow(risk, status, groups=2)
    assert old.df == 0 and np.isnan(old.p)
    assert np.isnan(hosmer_lemeshow([0.0, 0.5], [1, 1], groups=2, development=False).statistic)
    for groups, code in ((1, "E-GROUPS"), (2.5, "E-GROUPS")):
        with pytest.raises(FitError, match=code):
            hosmer_lemeshow(risk, status, groups=groups)
    with pytest.raises(FitError, match="E-EMPTYGROUP"):
        hosmer_lemeshow([], [])


def test_the_two_first_criteria_invert_their_formulas() -> None:
    """At the number of patients the expected shrinkage is .9 (1) and the optimism .05 (2), with one fewer it is not."""
    size = development_size(20, rate=0.08, horizon=3.0, mean_follow_up=2.5)
    most = largest_r2(0.08, 2.5)
    assert size.r2 == pytest.approx(0.15 * most) and size.largest_r2 == most

    def shrinkage(n: int) -> float:
        """S that solves n = p / ((S - 1) ln(1 - R2 / S))."""
        return float(minimize_scalar(lambda s: (20 / ((s - 1) * np.log(1 - size.r2 / s)) - n) ** 2,
                                     bounds=(size.r2 + 1e-6, 1 - 1e-9), method="bounded",
                                     options={"xatol": 1e-12}).x)

    assert shrinkage(size.by_shrinkage) == pytest.approx(0.9, abs=2e-4)
    target = size.r2 / (size.r2 + 0.05 * most)
    assert shrinkage(size.by_optimism) == pytest.approx(target, abs=2e-3)
    assert size.events == pytest.approx(size.n * 0.2) and size.events_per_parameter == pytest.approx(size.events / 20)


@pytest.mark.parametrize("c", [0.55, 0.7, 0.85])
def test_the_spread_of_log_hazards_gives_its_concordance(c: float) -> None:
    """Of two patients with normal log hazards the worse fails first with probability c, by numerical integration."""
    sd = spread_of(c) * np.sqrt(2.0)
    d = np.linspace(0, 12 * sd, 20001)
    density = 2 * norm.pdf(d, scale=sd)
    assert np.trapezoid(density * expit(d), d) == pytest.approx(c, abs=1e-5)


@pytest.mark.parametrize(("keywords", "name"), [
    ({"c": 0.5}, "c"), ({"c": 0.99}, "c"), ({"risk": 0.0}, "risk"), ({"lost": 1.0}, "lost"),
    ({"threshold": 1.0}, "threshold"),
])
def test_a_cohort_that_cannot_be_is_named(keywords: dict, name: str) -> None:
    """The value out of range is named, with what was found."""
    with pytest.raises(TableError) as caught:
        validation_size(**{"c": 0.7, "risk": 0.3, **keywords})
    problem = caught.value.problems[0]
    assert problem.code == "E-SAMPLESIZE" and f"`{name}`" in problem.what and problem.found == f"{keywords[name]:g}"
