"""The small parts of a nomogram: round ticks, limits, typed-in values, published models, stored text and which terms
enter."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from mtdlr.errors import FitError, TableError
from mtdlr.nomogram.axes import (
    Limits,
    by_importance,
    groups,
    is_even,
    is_folded,
    limits_of,
    main_terms,
    pretty,
    runs_back,
    tick_text,
)
from mtdlr.nomogram.columns import column_of, columns_of, term_of, unusable
from mtdlr.nomogram.covariates import clinical_values
from mtdlr.nomogram.curve import Curve
from mtdlr.nomogram.fit import gaining_terms, selected_terms
from mtdlr.nomogram.model import Nomogram
from mtdlr.nomogram.published import published_cox, published_design, published_limits
from mtdlr.nomogram.scores import Scale, Scores, shared_variance
from mtdlr.nomogram.stored import SCHEMA, nan_to_none, none_to_nan, read, written
from mtdlr.stats.cox import fit_cox
from mtdlr.stats.terms import Continuous, Design, Factor, Interaction, Spline
from mtdlr.survival import Survival

MODEL = Nomogram.from_coefficients(
    {"stage=IVa": 0.5, "age": 0.03, "score": 1.2}, baseline_survival={36: 0.9, 60: 0.8},
    levels={"stage": ("III", "IVa")}, ranges={"age": (20.0, 80.0), "score": (-2.0, 2.0)}, endpoint="PFS")


@pytest.mark.parametrize(("low", "high", "n", "expected"), [
    (0, 1, 10, np.arange(11) / 10), (0, 1, 5, np.arange(6) / 5), (0, 97, 5, np.arange(0, 101, 20)),
    (-3.2, 4.7, 5, [-4, -2, 0, 2, 4, 6]), (0.013, 0.087, 5, [0.0, 0.02, 0.04, 0.06, 0.08, 0.1]),
    (1234, 5678, 5, [1000, 2000, 3000, 4000, 5000, 6000]), (0, 10, 3, [0, 5, 10]),
    (1, 2, 4, [1, 1.2, 1.4, 1.6, 1.8, 2]),
])
def test_ticks_are_those_of_rs_pretty(low: float, high: float, n: int, expected: list) -> None:
    """The values that pretty(c(low, high), n) gives in R (its step is 1, 2 or 5 times a power of ten)."""
    np.testing.assert_allclose(pretty(low, high, n), expected, atol=1e-12)


@pytest.mark.parametrize(("low", "high"), [(0.37, 12.2), (-5.0, -1.0), (3e-5, 9e-5), (1e6, 4.4e6), (7.0, 7.0)])
def test_ticks_are_even_round_and_cover_the_range(low: float, high: float) -> None:
    """Steps are equal, the first tick is at or below the smallest value and the last at or above the largest."""
    ticks = pretty(low, high)
    steps = np.diff(ticks)
    assert np.ptp(steps) <= 1e-9 * steps[0] and ticks[0] <= low + 1e-12 and ticks[-1] >= high - 1e-12
    lead = steps[0] / 10.0 ** np.floor(np.log10(steps[0]) + 1e-9)
    assert min(abs(lead - round_step) for round_step in (1.0, 2.0, 5.0, 10.0)) < 1e-6


def test_few_values_are_ticked_each_and_many_evenly() -> None:
    """Ten different numbers stand on the axis one by one; of eleven the range, the median and three places are kept."""
    few = limits_of(Continuous("grade"), [3, 1, 2, 3, 1] * 2)
    assert few.values == few.steps == few.ticks == (1.0, 2.0, 3.0)
    assert (few.low, few.high, few.typical) == (1.0, 3.0, 2.0)
    ten, eleven = (limits_of(Continuous("x"), range(n)) for n in (10, 11))
    assert len(ten.values) == 10 and eleven.values == ()
    assert eleven.typical == 5.0 and eleven.steps == (1.0, 5.0, 9.0) and eleven.ticks == tuple(range(11))


def test_the_typical_level_is_the_most_frequent() -> None:
    """Ties go to the first level in order; a factor has no range and nothing lies beyond it."""
    term = Factor("stage", ("I", "II", "III"), "I")
    limits = limits_of(term, ["III", "II", "III", "II", "I"])
    assert limits.typical == "II" and limits.values == limits.steps == ("I", "II", "III")
    assert np.isnan([limits.low, limits.high]).all() and not limits.beyond(np.array(["IV"])).any()
    numbers = Limits((), 1.0, 3.0, 2.0, (1.0, 2.0, 3.0))
    assert numbers.beyond(np.array([0.9, 1.0, 3.0, 3.1], dtype=object)).tolist() == [True, False, False, True]
    assert Limits.from_dict(json.loads(json.dumps(numbers.as_dict()))) == numbers


@pytest.mark.parametrize(("values", "found"), [([2.5, 2.5], "2.5 in every row"), ([], "no row")])
def test_a_variable_that_does_not_vary_has_no_axis(values: list, found: str) -> None:
    """One value in all rows, or no row, is E-CONSTANT with what was found."""
    with pytest.raises(FitError) as caught:
        limits_of(Continuous("age"), values)
    problem = caught.value.problems[0]
    assert (problem.code, problem.where, problem.found) == ("E-CONSTANT", "column age", found)


def test_ticks_are_printed_without_needless_digits() -> None:
    """Levels as they are, whole numbers without a point, no minus zero, six digits at most."""
    assert [tick_text(v) for v in ("IVa", 2.0, -0.0, 0.1 + 0.2, 123456.7, 1e-7)] == [
        "IVa", "2", "0", "0.3", "123457", "1e-07"]


def test_an_axis_that_turns_back_is_known() -> None:
    """A spline's axis may fold: ticks reached from the right are marked; straight and falling axes are not folded."""
    assert not is_folded([0.0, 1.0, 1.0, 2.0]) and not is_folded([3.0, 1.0, 0.0])
    assert is_folded([0.0, 2.0, 1.0]) and runs_back([0.0, 2.0, 1.0, 3.0]) == [False, False, True, False]
    assert runs_back([2.0, 1.0, 3.0]) == [True, True, False] and runs_back([3.0, 2.0]) == [False, False]
    assert is_even([0.0, 2.0, 4.0]) and not is_even([0.0, 2.0, 4.1]) and is_even([4.0, 2.0, 0.0])


def test_labels_of_the_ends_and_turns_come_first() -> None:
    """First the two ends, then the places where the axis turns, then every fifth tick from 0 on."""
    order = by_importance([-2.0, -1.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0], [0.0, 1.0, 2.0, 5.0, 4.0, 6.0, 7.0, 8.0])
    assert order[:4] == [0, 7, 3, 4] and order[4] == 2 and sorted(order) == list(range(8))


def test_points_of_a_typed_model_by_hand() -> None:
    """The longest axis (score: 4 x 1.2) is 100 points; age spans 1.8 and the stage 0.5 of 4.8 log hazards."""
    (stage, age, score), scale = groups(MODEL.design, MODEL.cox.coef, MODEL.limits)
    assert scale == pytest.approx(100 / 4.8)
    assert score.axes[0].points[-1] == pytest.approx(100.0) and score.low == pytest.approx(-2.4)
    assert age.axes[0].points[-1] == pytest.approx(1.8 * 100 / 4.8) and stage.axes[0].points == pytest.approx(
        (0.0, 50 / 4.8))
    assert stage.name == "stage" and stage.columns.tolist() == [True, False, False]


def test_a_protective_variable_has_its_zero_at_the_other_end() -> None:
    """With a negative coefficient the largest value has 0 points and the smallest the most."""
    design, limits = Design((Continuous("x"),)), {"x": Limits((), 0.0, 10.0, 5.0, (0.0, 5.0, 10.0))}
    ((group,), _) = groups(design, [-0.2], limits)
    assert group.axes[0].points[0] == pytest.approx(100.0) and group.axes[0].points[-1] == pytest.approx(0.0)
    with pytest.raises(FitError, match="E-FLAT no variable of the nomogram changes the hazard"):
        groups(design, [0.0], limits)


@pytest.mark.parametrize(("given", "expected"), [
    ({"stage": "iva", "age": "61,5"}, {"stage": "IVa", "age": 61.5}),
    ({"stage": " III ", "age": 40}, {"stage": "III", "age": 40.0}),
])
def test_clinical_values_are_read_as_a_person_writes_them(given: dict, expected: dict) -> None:
    """Case, spaces and a decimal comma do not matter; scores are not asked for."""
    assert clinical_values(MODEL, ["stage", "age"], given) == expected


def test_every_wrong_clinical_value_is_named_at_once() -> None:
    """A level never seen, a number that is none, and a name that is not used: three problems, each with its remedy."""
    with pytest.raises(TableError) as caught:
        clinical_values(MODEL, ["stage", "age"], {"stage": "V", "age": "old", "sex": "F"})
    found = {p.where: p for p in caught.value.problems}
    assert {p.code for p in found.values()} == {"E-CLINICAL"} and set(found) == {"stage", "age", "sex"}
    assert (found["stage"].found, found["stage"].expected) == ("'V'", "III or IVa")
    assert found["stage"].remedy == "--clinical stage=III" and found["age"].remedy == "--clinical age=50"
    assert found["sex"].expected == "stage, age"
    for value in ("nan", "inf", ""):
        with pytest.raises(TableError, match="found nothing" if not value else "expected a number"):
            clinical_values(MODEL, ["age"], {"age": value})


def test_columns_become_terms_and_absent_ones_are_named() -> None:
    """Empty categories are left out, booleans are a factor, missing labels are no level; E-COLUMN lists the table."""
    kind = pd.Categorical(["b", "a", "b"], categories=["c", "b", "a"])
    assert term_of("k", kind) == Factor("k", ("b", "a"), "b")
    assert term_of("k", ["x", None, "w"]) == Factor("k", ("w", "x"), "w")
    assert term_of("n", [1.5, None]) == Continuous("n")
    with pytest.raises(FitError, match="E-COLUMN column z: .*found a, b"):
        column_of({"a": [1], "b": [2]}, "z")
    columns = columns_of(Design((Continuous("a"), Continuous("q"))), {"a": 3.0, "b": 4.0})
    assert list(columns) == ["a"] and columns["a"].shape == (1,)


def test_why_a_fit_is_no_nomogram() -> None:
    """An infinite coefficient, a level of nobody and a number that others give have their own codes."""
    surv = Survival(np.arange(1.0, 21.0), np.arange(20) < 8)
    order = -np.arange(20.0)
    x = np.column_stack([order, np.zeros(20), 2.0 * order])
    found = unusable(fit_cox(x, surv, names=["score", "stage=II", "twice"]))
    assert [(p.code, p.where) for p in found] == [
        ("E-SEPARATION", "column score"), ("E-LEVEL", "column stage=II"), ("E-COLLINEAR", "column twice")]
    assert found[1].remedy == "Leave the level out" and found[2].remedy == "Leave the variable out"


def test_a_published_design_is_read_from_its_names() -> None:
    """`stage=IV`, `age'` and products become factor, spline and interaction, in the order of first use."""
    design = published_design(["age", "age'", "stage=IV", "stage=IV * score", "score"], {"stage": ("III", "IV")},
                              {"age": (30.0, 50.0, 70.0)})
    assert design.terms == (Spline("age", (30.0, 50.0, 70.0)), Factor("stage", ("III", "IV"), "III"),
                            Continuous("score"),
                            Interaction(Factor("stage", ("III", "IV"), "III"), Continuous("score")))
    assert list(main_terms(design)) == ["age", "stage", "score"]
    limits = published_limits(design, {"age": (20.0, 90.0), "score": (-1.0, 3.0)})
    assert (limits["stage"].values, limits["stage"].typical) == (("III", "IV"), "III")
    assert limits["score"].typical == 1.0 and limits["score"].steps == (-1.0, 1.0, 3.0)
    for names, levels, code in ((["age"], {}, "E-TERMS"), (["stage=II"], {"stage": ("I", "II", "III")}, "E-LEVEL"),
                                (["stage=II"], {}, "E-LEVEL")):
        with pytest.raises(FitError) as caught:
            published_design(names, levels, {"age": (30.0, 50.0, 70.0)})
        assert caught.value.code == code
    with pytest.raises(FitError, match="E-RANGE column score"):
        published_limits(design, {"age": (20.0, 90.0), "score": (3.0, 3.0)})


def test_a_published_baseline_is_that_of_its_patient() -> None:
    """The patient whose X beta is given has the published survival, at those months alone; no patient is counted."""
    coef = np.array([0.5, -2.0])
    fit = published_cox(("a", "b"), coef, {60: 0.7, 36: 0.8}, -1.3)
    assert fit.center == pytest.approx(-1.3) and fit.n == fit.n_events == 0 and np.isnan(fit.loglik)
    row = np.array([[0.4, (0.2 + 1.3) / 2.0]])
    np.testing.assert_allclose(fit.survival(row, [36.0, 60.0]), [[0.8, 0.7]])
    assert fit.survival(row + np.array([np.log(2.0) / 0.5, 0.0]), [36.0])[0, 0] == pytest.approx(0.8**2)
    for survival in ({36: 0.8, 60: 0.9}, {36: 1.0}, {36: 0.0}):
        with pytest.raises(FitError, match="E-SURVIVAL .*fall with time"):
            published_cox(("a", "b"), coef, survival, 0.0)


def test_stored_text_has_its_keys_and_no_nan() -> None:
    """nan is null and comes back; another schema, a key too few or too many, and a huge number are refused."""
    values = {"a": [1.0, float("nan")], "b": {"c": float("nan"), "d": (2, "x")}}
    plain = nan_to_none(values)
    assert plain == {"a": [1.0, None], "b": {"c": None, "d": [2, "x"]}} and np.isnan(none_to_nan(plain)["b"]["c"])
    text = MODEL.to_json()
    whole = json.loads(text)
    assert whole["schema"] == SCHEMA and "NaN" not in text and json.loads(written({"x": float("nan")}))["x"] is None
    assert set(read(text)) == set(whole)
    for change in ({"schema": SCHEMA - 1}, {"more": 1}, {"months": [1e31]}):
        with pytest.raises(ValueError, match="schema|keys more|beyond 1e"):
            read(json.dumps(whole | change))
    with pytest.raises(ValueError, match="keys labels"):
        read(json.dumps({key: value for key, value in whole.items() if key != "labels"}))
    with pytest.raises(ValueError, match="schema missing"):
        read("[1]")


def test_a_curve_gives_one_patients_estimate_at_one_month() -> None:
    """Row and month pick value, lower and upper limit in this order."""
    grid = np.arange(6.0).reshape(2, 3)
    found = Curve(np.array([12.0, 36.0, 60.0]), grid, grid - 10, grid + 10).estimate(1, 36)
    assert (found.value, found.low, found.high) == (4.0, -6.0, 14.0) and np.isnan(found.p)


def _training(n: int = 150) -> tuple[pd.DataFrame, Survival]:
    """A score and a stage that matter, and noise."""
    rng = np.random.default_rng(3)
    table = pd.DataFrame({"score": rng.normal(size=n), "noise": rng.normal(size=n),
                          "stage": rng.choice(["I", "II", "III"], n)})
    hazard = np.exp(table["score"] + 1.2 * (table["stage"] == "III"))
    return table, Survival(rng.exponential(1.0 / hazard) + 0.01, rng.random(n) < 0.7)


def test_selection_by_p_keeps_what_matters_alone_and_together() -> None:
    """Score and stage stay, noise goes; where score and copy take each other's P, both stay as they did alone."""
    table, surv = _training()
    score, noise, stage = Continuous("score"), Continuous("noise"), Factor("stage", ("I", "II", "III"), "I")
    assert selected_terms(table, surv, [score, noise, stage], "efron") == [score, stage]
    table["copy"] = table["score"] + np.random.default_rng(2).normal(0, 1e-3, len(table))
    assert selected_terms(table, surv, [score, Continuous("copy")], "efron") == [score, Continuous("copy")]
    assert selected_terms(table, surv, [noise], "efron") == []


def test_scores_enter_by_their_gain_and_the_others_are_told() -> None:
    """Covariates stay whatever they add; a score that adds nothing is W-NOGAIN with its coefficient and P."""
    table, surv = _training()
    terms, notes = gaining_terms(table, surv, [Factor("stage", ("I", "II", "III"), "I"), Continuous("score"),
                                               Continuous("noise")], ["score", "noise"])
    assert [term.name for term in terms] == ["stage", "score"]
    assert [note.code for note in notes] == ["W-NOGAIN"] and notes[0].what.startswith("noise adds nothing")
    assert "one-sided P = " in notes[0].found and notes[0].expected == "a coefficient above 0, P below 0.1"
    alone, notes = gaining_terms(table, surv, [Continuous("noise")], ["noise"])
    assert [term.name for term in alone] == ["noise"] and notes == []


def test_scales_of_new_patients_are_narrower_by_the_shared_variance() -> None:
    """Training scores spread as new ones: times the root of one network's SD over that of the mean."""
    scores = Scores(pd.DataFrame(), {"deepmts": (Scale(1.0, 1.0),), "single": (Scale(0.0, 2.0),)},
                    pd.Series([0], index=["a"]), {"deepmts": (Scale(1.0, 4.0),), "single": (Scale(0.0, 2.0),)})
    wider = scores.spread_as_new(pd.DataFrame({"deepmts": [1.0], "single_task": [3.0], "age": [50]}), "single")
    assert wider.to_dict("list") == {"deepmts": [2.0], "single_task": [3.0], "age": [50]}
    assert scores.deep_scales("a") == (Scale(1.0, 4.0),) and scores.deep_scales("new") == (Scale(1.0, 1.0),)
    assert Scale(1.0, 4.0)(9.0) == 2.0


def test_networks_that_share_nothing_have_the_variance_of_a_mean() -> None:
    """Uncorrelated risks of K networks have a mean of variance 1 / K; negative covariances count as none."""
    folds = pd.Series([0, 0, 0, 0, 1, 1, 1, 1], index=list("abcdefgh"))
    first, second = [1.0, -1, 1, -1, 1, -1, 1, -1], [1.0, 1, -1, -1, 1, 1, -1, -1]
    assert shared_variance(pd.DataFrame({0: first, 1: second}, index=folds.index), folds) == 0.5
    assert shared_variance(pd.DataFrame({0: first, 1: [-v for v in first]}, index=folds.index), folds) == 0.5
    assert shared_variance(pd.DataFrame({0: first}, index=folds.index), folds) == 1.0
