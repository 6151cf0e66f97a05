"""Tables 2 and 3 as numbers: each cohort on its own complete cases, every ratio that of the Cox model it names."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from mtdlr.associate import NOT_ESTIMABLE, Association, Variable, associate
from mtdlr.estimate import Estimate
from mtdlr.stats.cox import fit_cox
from mtdlr.stats.cox_firth import profile_interval
from mtdlr.stats.terms import Continuous, Factor
from mtdlr.survival import Survival

AGE, STAGE = Continuous("age"), Factor("stage", ("I", "II", "III"), "II")
SEX = Factor("sex", ("F", "M"), "F")
PAIRS: list[tuple[Variable, str]] = [(AGE, "Age"), (STAGE, "Stage"), (SEX, "Sex")]


def _rows() -> pd.DataFrame:
    """Seventy training and fifty validation patients; some ages missing in the second cohort."""
    rng = np.random.default_rng(5)
    n = 120
    rows = pd.DataFrame({
        "split": ["validation"] * 50 + ["training"] * 70, "age": rng.integers(30, 80, n).astype(float),
        "stage": rng.choice(["I", "II", "III"], n), "sex": rng.choice(["F", "M"], n)})
    hazard = 0.03 * (rows["age"] - 55) + 0.6 * (rows["stage"] == "III")
    rows["time_months"] = np.ceil(rng.exponential(30.0, n) * np.exp(-hazard)) + 1.0
    rows["event"] = rng.random(n) < 0.7
    rows.loc[[3, 8, 20], "age"] = np.nan
    return rows


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    return _rows()


def _surv(rows: pd.DataFrame) -> Survival:
    return Survival(rows["time_months"].to_numpy(float), rows["event"].to_numpy(bool))


def _only(found: tuple[Association, ...], name: str, split: str) -> Association:
    (one,) = [each for each in found if (each.name, each.split) == (name, split)]
    return one


def _same(a: Estimate, b: Estimate) -> None:
    np.testing.assert_allclose([a.value, a.low, a.high, a.p], [b.value, b.low, b.high, b.p], rtol=1e-9)


def test_every_variable_alone_comes_once_a_cohort_in_the_order_given(rows: pd.DataFrame) -> None:
    """Variables in the order asked, cohorts within each in the order of the table; labels are carried."""
    found = associate(rows, PAIRS, [PAIRS[2]], ties="efron").univariate
    assert [(one.label, one.split) for one in found] == [
        (label, split) for label in ("Age", "Stage", "Sex") for split in ("validation", "training")]


def test_the_joint_model_is_sorted_by_variable_then_cohort(rows: pd.DataFrame) -> None:
    """Table 3 lists a variable in all cohorts before the next variable."""
    found = associate(rows, [PAIRS[0]], PAIRS, ties="efron").multivariate
    assert [(one.name, one.split) for one in found] == [
        (name, split) for name in ("age", "stage", "sex") for split in ("validation", "training")]


@pytest.mark.parametrize("ties", ["efron", "breslow"])
@pytest.mark.parametrize("split", ["training", "validation"])
def test_a_ratio_alone_is_that_of_its_cox_model(rows: pd.DataFrame, split: str, ties: str) -> None:
    """The ratio of one year, with interval and p, is that of a Cox model of the cohort's complete cases."""
    one = _only(associate(rows, PAIRS, [PAIRS[2]], ties=ties).univariate, "age", split)
    mine = rows[(rows["split"] == split) & rows["age"].notna()]
    fit = fit_cox(mine["age"].to_numpy(), _surv(mine), names=["age"], ties=ties)
    _same(one.ratios[""], fit.hazard_ratios()["age"])
    assert (one.n, one.n_events) == (len(mine), int(mine["event"].sum()))
    assert one.levels == () and one.reference == "" and math.isnan(one.overall_p) and one.penalised == ()


def test_ties_are_treated_as_asked(rows: pd.DataFrame) -> None:
    """Whole months tie: Breslow's ratio is another than Efron's."""
    a, b = (_only(associate(rows, PAIRS, [PAIRS[2]], ties=ties).univariate, "age", "training").ratios[""].value
            for ties in ("efron", "breslow"))
    assert abs(a - b) > 1e-5


def test_one_sd_is_that_of_the_training_cohort_in_every_cohort(rows: pd.DataFrame) -> None:
    """The ratio per SD is the ratio per year to the power of the training SD (n - 1), also in other cohorts."""
    sd = float(np.std(rows.loc[rows["split"] == "training", "age"], ddof=1))
    for split in ("training", "validation"):
        one = _only(associate(rows, PAIRS, [PAIRS[2]], ties="efron").univariate, "age", split)
        ratio = one.ratios[""]
        assert one.per_sd is not None
        _same(one.per_sd, Estimate(ratio.value**sd, ratio.low**sd, ratio.high**sd, ratio.p))


def test_without_a_training_cohort_one_sd_is_that_of_all(rows: pd.DataFrame) -> None:
    """A table of external patients alone has no training SD: the SD of all of them stands in."""
    outside = rows[rows["split"] == "validation"]
    one = _only(associate(outside, PAIRS, [PAIRS[2]], ties="efron").univariate, "age", "validation")
    assert one.per_sd is not None
    assert one.per_sd.value == pytest.approx(one.ratios[""].value ** float(outside["age"].std()), rel=1e-12)


def test_levels_are_compared_with_the_reference(rows: pd.DataFrame) -> None:
    """Levels but the reference have a ratio, against an indicator matrix; all levels together have a Wald p."""
    one = _only(associate(rows, PAIRS, [PAIRS[2]], ties="efron").univariate, "stage", "training")
    mine = rows[rows["split"] == "training"]
    x = np.column_stack([mine["stage"] == "I", mine["stage"] == "III"]).astype(float)
    fit = fit_cox(x, _surv(mine), names=["I", "III"])
    assert list(one.ratios) == ["I", "III"] and one.levels == ("I", "II", "III") and one.reference == "II"
    for level in ("I", "III"):
        _same(one.ratios[level], fit.hazard_ratios()[level])
    beta, block = fit.coef, fit.covariance
    assert one.overall_p == pytest.approx(fit.wald().p) and fit.wald().df == 2
    assert fit.wald().statistic == pytest.approx(beta @ np.linalg.inv(block) @ beta)
    assert one.per_sd is None


def test_two_levels_have_no_overall_p(rows: pd.DataFrame) -> None:
    """The p of two levels is that of their ratio; there is no second one."""
    one = _only(associate(rows, PAIRS, [PAIRS[2]], ties="efron").univariate, "sex", "training")
    assert math.isnan(one.overall_p) and not math.isnan(one.ratios["M"].p)


def test_the_joint_model_is_one_model_of_complete_cases(rows: pd.DataFrame) -> None:
    """A patient without an age is in no line of Table 3, and each ratio is adjusted for the other variables."""
    found = associate(rows, PAIRS, PAIRS, ties="efron")
    mine = rows[(rows["split"] == "validation") & rows["age"].notna()]
    x = np.column_stack([mine["age"], mine["stage"] == "I", mine["stage"] == "III", mine["sex"] == "M"]).astype(float)
    ratios = fit_cox(x, _surv(mine), names=["age", "I", "III", "M"]).hazard_ratios()
    joint = {name: _only(found.multivariate, name, "validation") for name in ("age", "stage", "sex")}
    _same(joint["age"].ratios[""], ratios["age"])
    _same(joint["stage"].ratios["III"], ratios["III"])
    _same(joint["sex"].ratios["M"], ratios["M"])
    assert {one.n for one in joint.values()} == {len(mine)} == {47}
    assert _only(found.univariate, "sex", "validation").n == 50


def test_a_level_without_events_has_firths_ratio_and_is_marked() -> None:
    """Its ratio is the profile of the penalised likelihood, finite; the ordinary ratios of other levels stay."""
    rows = _rows()
    rows.loc[rows["stage"] == "I", "event"] = False
    one = _only(associate(rows, PAIRS, [PAIRS[2]], ties="efron").univariate, "stage", "training")
    assert one.penalised == ("I",)
    mine = rows[rows["split"] == "training"]
    x = np.column_stack([mine["stage"] == "I", mine["stage"] == "III"]).astype(float)
    _same(one.ratios["I"], profile_interval(x, _surv(mine), 0, firth=True))
    assert 0 < one.ratios["I"].low < one.ratios["I"].value < one.ratios["I"].high < np.inf
    plain = fit_cox(x, _surv(mine), names=["a", "b"]).hazard_ratios()
    assert one.ratios["III"].value == pytest.approx(plain["b"].value)


def test_a_separating_number_is_marked_by_an_empty_level() -> None:
    """A score that orders all events has Firth's ratio, under the empty level."""
    rows = _rows()[50:]
    rows["age"] = -rows["time_months"]
    one = _only(associate(rows, [(AGE, "Age")], [PAIRS[2]], ties="efron").univariate, "age", "training")
    assert one.penalised == ("",) and 1 < one.ratios[""].low < one.ratios[""].value


@pytest.mark.parametrize("events", [0, 1])
def test_too_few_events_leave_nothing_to_estimate(events: int) -> None:
    """Without two events every ratio is nan, and patients and events are still counted."""
    rows = _rows()[50:]
    rows["event"] = np.arange(len(rows)) < events
    for one in associate(rows, PAIRS, PAIRS, ties="efron").univariate:
        assert all(math.isnan(ratio.value) for ratio in one.ratios.values())
        assert (one.n, one.n_events, one.penalised) == (70, events, ()) and math.isnan(one.overall_p)
        if one.name == "age":
            assert one.per_sd is not None and math.isnan(one.per_sd.value)


def test_an_unknown_level_is_not_estimable() -> None:
    """Where a cohort holds a level that the term does not know, its line says nothing rather than something wrong."""
    rows = _rows()
    rows.loc[rows["split"] == "validation", "stage"] = "IV"
    found = associate(rows, PAIRS, [PAIRS[2]], ties="efron").univariate
    assert all(math.isnan(ratio.value) for ratio in _only(found, "stage", "validation").ratios.values())
    assert all(np.isfinite(ratio.value) for ratio in _only(found, "stage", "training").ratios.values())
    assert math.isnan(NOT_ESTIMABLE.value)


def test_a_unit_that_no_number_holds_is_not_estimable() -> None:
    """A ratio per unit to the power of a huge SD overflows: nan, not an error."""
    rows = _rows()[50:]
    outside = rows.assign(split="external")
    rows = pd.concat([rows.assign(age=rows["age"] * 1e6), outside])
    one = _only(associate(rows, [(AGE, "Age")], [PAIRS[2]], ties="efron").univariate, "age", "external")
    assert one.per_sd is not None
    assert np.isfinite(one.ratios[""].value) and math.isnan(one.per_sd.value)
