"""The nomogram as a value: exact both ways, honest about what it does not know, the same after a trip through JSON."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtdlr.errors import BundleError, FitError
from mtdlr.nomogram.axes import limits_of
from mtdlr.nomogram.model import Nomogram, term_of
from mtdlr.stats.terms import Continuous, Factor, Interaction, Spline
from mtdlr.survival import Survival

SCORES = [Factor("stage", ("III", "IVa"), "III"), Continuous("score")]


def cohort(n: int = 200, seed: int = 0) -> tuple[pd.DataFrame, Survival]:
    """Patients whose hazard doubles with stage IVa and triples with each unit of the score."""
    rng = np.random.default_rng(seed)
    table = pd.DataFrame({"stage": rng.choice(["III", "IVa"], n), "score": rng.normal(size=n).round(3),
                          "age": rng.integers(20, 80, n), "grade": rng.choice(["G1", "G2", "G3"], n)},
                         index=[f"P{i:03d}" for i in range(n)])
    log_hazard = np.log(2.0) * (table.stage == "IVa") + np.log(3.0) * table.score
    time = rng.exponential(60.0 / np.exp(log_hazard))
    censored = rng.uniform(6.0, 90.0, n)
    return table, Survival(np.minimum(time, censored) + 0.1, time <= censored)


@pytest.fixture(scope="module")
def fitted() -> tuple[Nomogram, pd.DataFrame]:
    table, surv = cohort()
    return Nomogram.fit(table, surv, ["stage", "score"], [36, 60], endpoint="PFS"), table


@pytest.fixture(scope="module")
def bent() -> tuple[Nomogram, pd.DataFrame]:
    """With a spline and an interaction."""
    table, surv = cohort(400, seed=1)
    stage, score = SCORES
    terms = [Spline("age", (25.0, 50.0, 75.0)), "grade", stage, score, Interaction(stage, score)]
    return Nomogram.fit(table, surv, terms, [24.0, 48.0]), table


PUBLISHED = Nomogram.from_coefficients(
    {"stage=IVa": 0.381, "auto": 0.399, "deep": 1.433}, baseline_survival={36: 0.86, 60: 0.80},
    levels={"stage": ("III", "IVa")}, ranges={"auto": (-4.0, 5.0), "deep": (-2.0, 2.0)}, endpoint="PFS")


def test_a_published_model_is_labelled() -> None:
    """What is printed for a column or a level of a published model can be given, as for a fit."""
    labelled = Nomogram.from_coefficients({"x=b": 0.5}, baseline_survival={36: 0.8}, levels={"x": ("a", "b")},
                                          labels={"x": "Stage", "x=b": "IVa"})
    assert (labelled.label("x"), labelled.label("x", "a"), labelled.label("x", "b")) == ("Stage", "a", "IVa")


class TestExactness:
    """Points, log hazard and survival are one thing said three ways."""

    @pytest.mark.parametrize("which", ["fitted", "bent"])
    def test_points_lead_back_to_the_model(self, which: str, request: pytest.FixtureRequest) -> None:
        """A patient's total points give the model's log hazard and survival to 1e-12."""
        nomogram, table = request.getfixturevalue(which)
        total = nomogram.points(table)["total"].to_numpy()
        np.testing.assert_allclose(nomogram.log_hazard_of(total), nomogram.log_hazard(table), rtol=0, atol=1e-12)
        direct = nomogram.survival(table).value
        for column, month in enumerate(nomogram.months):
            np.testing.assert_allclose(nomogram.survival_of(total, month), direct[:, column], rtol=0, atol=1e-12)
            probabilities = np.linspace(0.02, 0.98, 49)
            points = nomogram.points_for(probabilities, month)
            np.testing.assert_allclose(nomogram.survival_of(points, month), probabilities, rtol=0, atol=1e-12)

    @pytest.mark.parametrize("which", ["fitted", "bent"])
    def test_total_is_the_sum_of_the_factors(self, which: str, request: pytest.FixtureRequest) -> None:
        """The points of the variables, or groups of interacting ones, add up to the total."""
        nomogram, table = request.getfixturevalue(which)
        points = nomogram.points(table)
        assert list(points.index) == list(table.index)
        np.testing.assert_allclose(points.drop(columns="total").sum(axis=1), points["total"], rtol=0, atol=1e-10)

    def test_ticks_are_patients_too(self, bent: tuple[Nomogram, pd.DataFrame]) -> None:
        """A patient whose values stand at a tick of an axis, whichever level it is for, has the tick's points."""
        nomogram, table = bent
        for group in nomogram.groups:
            for axis in group.axes:
                rows = pd.DataFrame([{**table.iloc[0].to_dict(), **dict(axis.given), axis.variable: value}
                                     for value in axis.values])
                np.testing.assert_allclose(nomogram.points(rows)[group.name], axis.points, rtol=0, atol=1e-9)

    def test_the_longest_axis_is_100_points_and_each_begins_at_0(self, bent: tuple[Nomogram, pd.DataFrame]) -> None:
        """Over every group the fewest points are 0, and the most are 100 in one group."""
        ends = [[point for axis in group.axes for point in axis.points] for group in bent[0].groups]
        np.testing.assert_allclose([min(points) for points in ends], 0.0, atol=1e-12)
        assert max(max(points) for points in ends) == pytest.approx(100.0, abs=1e-12)

    def test_two_continuous_variables_interact(self) -> None:
        """Their axis is drawn at three values of the other, and points stay exact for a patient between them."""
        table, surv = cohort(300, seed=4)
        terms = [Continuous("age"), Continuous("score"), Interaction(Continuous("age"), Continuous("score"))]
        nomogram = Nomogram.fit(table, surv, terms, [36])
        (group,) = nomogram.groups
        assert group.variables == ("age", "score")
        assert [axis.given[0][1] for axis in group.axes] == np.quantile(table.score, [0.1, 0.5, 0.9]).tolist()
        np.testing.assert_allclose(nomogram.log_hazard_of(nomogram.points(table)["total"]), nomogram.log_hazard(table),
                                   rtol=0, atol=1e-12)

    def test_a_chain_of_interactions_is_one_group(self) -> None:
        """a * b and b * c bind all three: one group, an axis for each pair of levels."""
        table, surv = cohort(300, seed=6)
        stage, score = SCORES
        grade = Factor("grade", ("G1", "G2", "G3"), "G1")
        terms = [stage, score, grade, Interaction(stage, score), Interaction(score, grade)]
        nomogram = Nomogram.fit(table, surv, terms, [36])
        (group,) = nomogram.groups
        assert group.variables == ("score", "stage", "grade") and len(group.axes) == 6
        assert group.axes[1].name == "score (stage=IVa grade=G1)"

    @settings(deadline=None, derandomize=True, max_examples=60)
    @given(beta=st.lists(st.floats(-3, 3).filter(lambda b: abs(b) > 0.01), min_size=2, max_size=4),
           survival=st.floats(0.05, 0.95), at=st.floats(-2.0, 2.0), probability=st.floats(0.01, 0.99))
    def test_round_trip_for_any_coefficients(self, beta: list[float], survival: float, at: float,
                                             probability: float) -> None:
        """Points -> probability -> points is exact to 1e-12 in survival, whatever was typed in."""
        names = [f"x{i}" for i in range(len(beta))]
        nomogram = Nomogram.from_coefficients(
            dict(zip(names, beta, strict=True)), baseline_survival={36: survival},
            ranges={name: (-2.0, 2.0) for name in names}, baseline_log_hazard=at)
        points = nomogram.points_for(probability, 36)
        assert abs(float(nomogram.survival_of(points, 36)) - probability) < 1e-12

    @settings(deadline=None, derandomize=True, max_examples=40)
    @given(scale=st.floats(0.01, 100.0), shift=st.floats(-50.0, 50.0))
    def test_points_do_not_depend_on_the_unit(self, scale: float, shift: float) -> None:
        """In another unit a variable has another axis, but a patient has the same survival."""
        beta = {"stage=IVa": 0.5, "x": 0.8}
        first = Nomogram.from_coefficients(beta, baseline_survival={36: 0.8}, levels={"stage": ("III", "IVa")},
                                           ranges={"x": (-3.0, 3.0)})
        second = Nomogram.from_coefficients(
            {"stage=IVa": 0.5, "x": 0.8 / scale}, baseline_survival={36: 0.8}, levels={"stage": ("III", "IVa")},
            ranges={"x": (shift - 3.0 * scale, shift + 3.0 * scale)}, baseline_log_hazard=0.8 * shift / scale)
        here = first.survival({"stage": "IVa", "x": 1.3}).value
        there = second.survival({"stage": "IVa", "x": 1.3 * scale + shift}).value
        np.testing.assert_allclose(here, there, rtol=0, atol=1e-9)


class TestFit:
    """A nomogram from a table."""

    def test_numbers_are_continuous_and_text_is_a_factor(self) -> None:
        """Columns named without a term get the natural one; a categorical keeps its own order."""
        assert term_of("age", [1, 2, 3]) == Continuous("age")
        assert term_of("stage", ["IVa", "III"]) == Factor("stage", ("III", "IVa"), "III")
        ordered = pd.Series(pd.Categorical(["low", "high"], ["low", "high"]))
        assert term_of("risk", ordered) == Factor("risk", ("low", "high"), "low")
        assert term_of("smoker", pd.Series([True, False])) == Factor("smoker", ("False", "True"), "False")

    def test_survival_is_that_of_the_cox_model(self, fitted: tuple[Nomogram, pd.DataFrame]) -> None:
        """The nomogram's survival and interval are those of the Cox fit inside it."""
        nomogram, table = fitted
        x = nomogram.design.matrix({name: table[name].to_numpy() for name in ("stage", "score")})
        curve = nomogram.survival(table)
        np.testing.assert_array_equal(curve.value, nomogram.cox.survival(x, [36.0, 60.0]))
        assert ((curve.low < curve.value) & (curve.value < curve.high)).all()

    def test_interval_covers_the_truth(self) -> None:
        """The 90 % interval at 24 months holds the true survival of a patient in about 90 of 100 samples."""
        patient, truth = {"stage": "IVa", "score": 0.4}, np.exp(-24.0 / 60.0 * 2.0 * 3.0**0.4)
        hits = 0
        for seed in range(60):
            table, surv = cohort(150, seed=1000 + seed)
            estimate = Nomogram.fit(table, surv, SCORES, [24]).survival(patient, level=0.9).estimate(0, 24)
            hits += estimate.low <= truth <= estimate.high
        assert 48 <= hits <= 59  # binomial(60, .9): 2.5 to 99.5 %

    def test_ties_change_the_baseline(self) -> None:
        """Efron's and Breslow's corrections give different survival when follow-up is in whole years."""
        table, surv = cohort()
        coarse = Survival(np.ceil(surv.time_months / 12.0) * 12.0, surv.event)
        efron, breslow = (Nomogram.fit(table, coarse, SCORES, [36], ties=ties).survival(table).value
                          for ties in ("efron", "breslow"))
        assert np.abs(efron - breslow).max() > 1e-3

    def test_median_survival_is_where_the_curve_falls_to_one_half(self, fitted: tuple[Nomogram, pd.DataFrame]) -> None:
        """Survival is at most 1/2 at the median and above it just before; nan where it stays above."""
        nomogram, table = fitted
        medians = nomogram.median_survival(table)
        reached = [i for i, median in enumerate(medians) if np.isfinite(median.value)]
        assert 0 < len(reached) < len(medians)
        for i in reached[:20]:
            at = nomogram.survival(table.iloc[[i]], [medians[i].value - 1e-9, medians[i].value]).value[0]
            assert at[1] <= 0.5 < at[0]
            assert not medians[i].low > medians[i].value
        last = nomogram.cox.baseline.last_month[0]
        stays = next(i for i, median in enumerate(medians) if np.isnan(median.value))
        assert nomogram.survival(table.iloc[[stays]], [last]).value[0, 0] > 0.5

    def test_limits_of_the_median_are_where_the_limits_of_survival_fall_to_one_half(
        self, fitted: tuple[Nomogram, pd.DataFrame]
    ) -> None:
        """At the lower limit of the median the lower limit of survival, and at the upper the upper, reach one half."""
        nomogram, table = fitted
        both = [(i, m) for i, m in enumerate(nomogram.median_survival(table)) if np.isfinite([m.low, m.high]).all()]
        assert both
        for i, median in both[:10]:
            at = nomogram.survival(table.iloc[[i]], [median.low - 1e-9, median.low, median.high - 1e-9, median.high])
            assert at.low[0, 1] <= 0.5 < at.low[0, 0] and at.high[0, 3] <= 0.5 < at.high[0, 2]

    def test_survival_is_not_extrapolated(self, fitted: tuple[Nomogram, pd.DataFrame]) -> None:
        """Beyond the last follow-up survival is not known."""
        nomogram, table = fitted
        beyond = nomogram.survival(table, [nomogram.cox.baseline.last_month[0] + 1.0])
        assert np.isnan(beyond.value).all() and np.isnan(beyond.low).all()

    def test_before_the_first_event_survival_is_certain(self, fitted: tuple[Nomogram, pd.DataFrame]) -> None:
        """Before anybody had the event, survival and its limits are 1."""
        nomogram, table = fitted
        early = nomogram.survival(table, [nomogram.cox.baseline.time_months[0] / 2.0])
        assert (early.low == 1.0).all() and (early.value == 1.0).all() and (early.high == 1.0).all()

    def test_values_outside_the_model_are_named(self, fitted: tuple[Nomogram, pd.DataFrame]) -> None:
        """A value beyond those of the training patients is a W-RANGE that names row, column and limits; others none."""
        nomogram, table = fitted
        assert nomogram.outside(table) == ()
        (problem,) = nomogram.outside({"stage": ["III", "IVa"], "score": [0.0, 9.5]})
        assert problem.code == "W-RANGE" and "row 1" in problem.where and "score" in problem.where
        assert problem.found == "9.5"

    def test_separation_is_refused(self) -> None:
        """A level without events has no finite coefficient, so there is no scale to draw: E-SEPARATION; Firth's has."""
        table, surv = cohort()
        table["extra"] = np.where(surv.event, "no", "yes")
        with pytest.raises(FitError) as error:
            Nomogram.fit(table, surv, ["score", "extra"], [36])
        assert error.value.code == "E-SEPARATION" and "extra" in str(error.value)
        finite = Nomogram.fit(table, surv, ["score", "extra"], [36], firth=True)
        assert np.isfinite([point for axis in finite.axes for point in axis.points]).all()
        total = finite.points(table)["total"]
        np.testing.assert_allclose(finite.log_hazard_of(total), finite.log_hazard(table), atol=1e-12)

    @pytest.mark.parametrize(("change", "code"), [
        (lambda table: table.drop(columns="score"), "E-COLUMN"),
        (lambda table: table.assign(score=1.0), "E-CONSTANT"),
        (lambda table: table.assign(score=table.score.where(table.score > -1)), "E-MISSING"),
    ])
    def test_unusable_columns_are_named(self, change: object, code: str) -> None:
        """An absent, constant or incomplete column is an error that names it."""
        table, surv = cohort()
        with pytest.raises(FitError) as error:
            Nomogram.fit(change(table), surv, ["stage", "score"], [36])  # type: ignore[operator]
        assert error.value.code == code and "score" in str(error.value)

    def test_a_column_without_rows_has_no_limits(self) -> None:
        """A variable of an empty table is E-CONSTANT, not an index out of range."""
        with pytest.raises(FitError, match="E-CONSTANT column age: .*found no row"):
            limits_of(Continuous("age"), [])

    @pytest.mark.parametrize("months", [[], [0], [-3.0], [36, 36], [float("nan")]])
    def test_horizons_must_be_months(self, months: list[float]) -> None:
        """No horizon, one that is not positive, or the same one twice is E-HORIZON."""
        table, surv = cohort()
        with pytest.raises(FitError) as error:
            Nomogram.fit(table, surv, SCORES, months)
        assert error.value.code == "E-HORIZON"

    def test_a_level_never_seen_is_refused(self, fitted: tuple[Nomogram, pd.DataFrame]) -> None:
        """A patient with an unknown level gets no points but E-LEVEL."""
        with pytest.raises(FitError) as error:
            fitted[0].points({"stage": "V", "score": 0.0})
        assert error.value.code == "E-LEVEL"


class TestPublished:
    """A model typed in from a paper."""

    def test_paper_coefficients_give_the_points_by_hand(self) -> None:
        """With the paper's training coefficients IVa is worth 100 x 0.381 / (4 x 1.433) points, and so on."""
        scale = 100.0 / (4.0 * 1.433)
        points = PUBLISHED.points({"stage": "IVa", "auto": 1.0, "deep": -1.0}).iloc[0]
        assert points["stage"] == pytest.approx(0.381 * scale, abs=1e-12)
        assert points["auto"] == pytest.approx(0.399 * 5.0 * scale, abs=1e-12)
        assert points["deep"] == pytest.approx(1.433 * 1.0 * scale, abs=1e-12)

    def test_survival_by_hand(self) -> None:
        """S = S0 to the power exp(X beta - that of the baseline patient)."""
        survival = PUBLISHED.survival({"stage": "IVa", "auto": 1.0, "deep": 0.5}).value[0]
        expected = np.array([0.86, 0.80]) ** np.exp(0.381 + 0.399 + 1.433 * 0.5)
        np.testing.assert_allclose(survival, expected, rtol=0, atol=1e-14)

    def test_nothing_is_claimed_that_was_not_published(self) -> None:
        """No interval, no median, and no survival at other months (E-HORIZON)."""
        patient = {"stage": "III", "auto": 0.0, "deep": 0.0}
        curve = PUBLISHED.survival(patient)
        assert np.isnan(curve.low).all() and np.isnan(curve.high).all()
        assert np.isnan(PUBLISHED.median_survival(patient)[0].value)
        with pytest.raises(FitError) as error:
            PUBLISHED.survival(patient, [48])
        assert error.value.code == "E-HORIZON"

    def test_splines_and_interactions_can_be_typed_in(self, bent: tuple[Nomogram, pd.DataFrame]) -> None:
        """The coefficients of a fitted model, typed in with its mean and baseline, give its points and survival."""
        nomogram, table = bent
        again = Nomogram.from_coefficients(
            dict(zip(nomogram.design.columns, nomogram.cox.coef.tolist(), strict=True)),
            baseline_survival={m: float(np.exp(-nomogram.baseline_hazard(m))) for m in nomogram.months},
            baseline_log_hazard=nomogram.cox.center, knots={"age": (25.0, 50.0, 75.0)},
            levels={"stage": ("III", "IVa"), "grade": ("G1", "G2", "G3")},
            ranges={name: (nomogram.limits[name].low, nomogram.limits[name].high) for name in ("age", "score")})
        np.testing.assert_allclose(again.survival(table).value, nomogram.survival(table).value, rtol=0, atol=1e-12)
        ours, theirs = again.points(table), nomogram.points(table)
        np.testing.assert_allclose(ours["total"], theirs["total"], rtol=0, atol=1e-9)
        assert [axis.name for axis in again.axes] == [axis.name for axis in nomogram.axes]

    @pytest.mark.parametrize(("keywords", "code"), [
        ({"ranges": {}}, "E-RANGE"),
        ({"ranges": {"x": (2.0, 2.0)}}, "E-RANGE"),
        ({"levels": {}}, "E-LEVEL"),
        ({"levels": {"stage": ("III", "IVa", "IVb")}}, "E-LEVEL"),
        ({"knots": {"x": (0.0, 1.0, 2.0)}}, "E-TERMS"),
        ({"baseline_survival": {36: 1.2}}, "E-SURVIVAL"),
        ({"baseline_survival": {36: 0.5, 60: 0.6}}, "E-SURVIVAL"),
        ({"baseline_survival": {}}, "E-HORIZON"),
    ])
    def test_incomplete_models_are_refused(self, keywords: dict[str, object], code: str) -> None:
        """A range, a level, a spline's coefficient or a survival that is missing or impossible is named."""
        complete: dict[str, object] = {"baseline_survival": {36: 0.8}, "levels": {"stage": ("III", "IVa")},
                                       "ranges": {"x": (0.0, 4.0)}}
        with pytest.raises(FitError) as error:
            Nomogram.from_coefficients({"stage=IVa": 0.4, "x": 0.2}, **{**complete, **keywords})  # type: ignore[arg-type]
        assert error.value.code == code

    def test_a_model_without_effect_has_no_nomogram(self) -> None:
        """All coefficients 0: E-FLAT."""
        with pytest.raises(FitError) as error:
            Nomogram.from_coefficients({"x": 0.0}, baseline_survival={36: 0.8}, ranges={"x": (0.0, 1.0)})
        assert error.value.code == "E-FLAT"


class TestJson:
    """The nomogram on disk."""

    @pytest.mark.parametrize("which", ["fitted", "bent"])
    def test_json_round_trip_is_exact(self, which: str, request: pytest.FixtureRequest) -> None:
        """Read back from its JSON, a nomogram gives the same points, survival and intervals to the last bit."""
        nomogram, table = request.getfixturevalue(which)
        again = Nomogram.from_json(nomogram.to_json())
        assert again.to_json() == nomogram.to_json()
        pd.testing.assert_frame_equal(again.points(table), nomogram.points(table), check_exact=True)
        for part in ("value", "low", "high"):
            np.testing.assert_array_equal(getattr(again.survival(table), part), getattr(nomogram.survival(table), part))

    def test_published_models_survive_json(self) -> None:
        """What is unknown (nan) stays unknown, in strict JSON."""
        text = PUBLISHED.to_json()
        assert "NaN" not in text
        again = Nomogram.from_json(text)
        assert again.published and np.isnan(again.survival({"stage": "III", "auto": 0, "deep": 0}).low).all()
        assert again.to_json() == text

    def test_no_patient_is_in_the_json(self, fitted: tuple[Nomogram, pd.DataFrame]) -> None:
        """The file holds no patient id and no column of the table."""
        nomogram, table = fitted
        text = nomogram.to_json()
        assert not any(patient in text for patient in table.index)
        ends = {float(table.score.min()), float(table.score.max()), float(table.score.median())}
        inner = {value for value in table.score if value not in ends and abs(value) > 0.01}
        numbers = set(_numbers(json.loads(text)))
        assert len(numbers & inner) <= 2  # chance agreement of three-digit numbers

    @pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": 99}', '{"schema": 1, "design": 3}', "nonsense"])
    def test_other_text_is_refused(self, text: str) -> None:
        """Anything else is E-NOMOGRAM, never a half-read nomogram."""
        with pytest.raises(BundleError) as error:
            Nomogram.from_json(text)
        assert error.value.code == "E-NOMOGRAM"


class TestTable:
    """The points as a table."""

    def test_points_table_has_every_tick(self, fitted: tuple[Nomogram, pd.DataFrame]) -> None:
        """The table lists the ticks of every axis and of every horizon with their points."""
        nomogram, _ = fitted
        table = nomogram.points_table()
        assert list(table.columns) == ["axis", "value", "points"]
        assert set(table["axis"]) == {"stage", "score", "PFS at 36 months", "PFS at 60 months"}
        late = table[table["axis"] == "PFS at 60 months"]
        back = nomogram.survival_of(late["points"], 60)
        np.testing.assert_allclose(back, late["value"].astype(float), rtol=0, atol=1e-12)

    def test_labels_replace_names(self) -> None:
        """Printed names come from the labels, and from the column where there is none."""
        table, surv = cohort()
        nomogram = Nomogram.fit(table, surv, SCORES, [36], labels={"stage": "TNM stage", "stage=IVa": "IV a"})
        assert nomogram.label("stage") == "TNM stage" and nomogram.label("stage", "IVa") == "IV a"
        assert nomogram.label("deep_score") == "deep score" and nomogram.label("stage", "III") == "III"


def _numbers(value: object) -> list[float]:
    if isinstance(value, dict):
        return [number for each in value.values() for number in _numbers(each)]
    if isinstance(value, list):
        return [number for each in value for number in _numbers(each)]
    return [float(value)] if isinstance(value, int | float) else []
