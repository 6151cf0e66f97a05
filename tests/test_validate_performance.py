"""A published nomogram on small tables: every number by hand or by scipy, lifelines and the equations."""

from __future__ import annotations

from dataclasses import replace
from math import log, nan

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit

from mtdlr.errors import CohortError, FitError
from mtdlr.estimate import Estimate
from mtdlr.nomogram import Nomogram
from mtdlr.stats.concordance import concordance
from mtdlr.stats.pooling import pool
from mtdlr.survival import Survival
from mtdlr.validate.performance import (
    CENTER_EVENTS,
    LONG_MONTHS,
    CenterResult,
    _pooled,
    _standard_error,
    judged_rows,
    numbers,
    validate_table,
)


@pytest.fixture(scope="module")
def model() -> Nomogram:
    """Stage IVa adds 0.7, and each unit of the score 0.5; survival 0.8 and 0.6 at 12 and 24 months where both are 0."""
    return Nomogram.from_coefficients(
        {"tnm=IVa": 0.7, "score": 0.5}, baseline_survival={12: 0.8, 24: 0.6}, ranges={"score": (-3.0, 3.0)},
        levels={"tnm": ("III", "IVa")})


@pytest.fixture(scope="module")
def cohort() -> tuple[pd.DataFrame, Survival]:
    """Sixty patients of two centres, whose risk follows the score."""
    rng = np.random.default_rng(11)
    score = rng.normal(size=60)
    time = 30.0 * rng.exponential(np.exp(-0.5 * score))
    table = pd.DataFrame({"tnm": np.where(rng.random(60) < 0.4, "IVa", "III"), "score": score})
    return table, Survival(np.minimum(time, 40.0) + 0.1, time < 40.0)


def test_risk_and_survival_are_the_published_equation(
    model: Nomogram, cohort: tuple[pd.DataFrame, Survival]
) -> None:
    """The log hazard is the sum of the terms, up to the reference; survival is the baseline to the power of its
    exponential."""
    table, surv = cohort
    found = validate_table(model, table, surv)
    terms = 0.7 * (table["tnm"] == "IVa") + 0.5 * table["score"]
    assert np.ptp(found.risk - terms) < 1e-12
    for month, baseline in ((12.0, 0.8), (24.0, 0.6)):
        np.testing.assert_allclose(found.survival[month], baseline ** np.exp(terms), rtol=1e-12)
    assert found.c is not None and found.c.value == pytest.approx(concordance(terms.to_numpy(), surv).c.value)


def test_rows_that_cannot_be_judged_are_left_out_by_name(model: Nomogram) -> None:
    """A missing score and an unknown stage leave their patients out, each with its reason; the others stay in order."""
    table = pd.DataFrame({"tnm": ["III", "IVb", "IVa", None, "III"], "score": [0.1, 0.2, nan, 0.3, 0.4]},
                         index=["a", "b", "c", "d", "e"])
    rows, problems = judged_rows(model, table)
    assert rows.tolist() == [True, False, False, False, True]
    told = {p.code + p.place: p for p in problems}
    assert set(told) == {"W-NEWLEVELcolumn tnm", "W-NOCOVARIATEcolumn tnm", "W-NOCOVARIATEcolumn score"}
    assert (told["W-NEWLEVELcolumn tnm"].found, told["W-NEWLEVELcolumn tnm"].expected) == ("IVb", "III or IVa")
    assert told["W-NOCOVARIATEcolumn score"].what.startswith("1 patients lack")
    found = validate_table(model, table, Survival([5.0, 1.0, 2.0, 3.0, 9.0], [True] * 5))
    assert found.left_out == ("b", "c", "d") and list(found.risk.index) == ["a", "e"] and found.n_events == 2


def test_a_table_that_cannot_be_judged_is_refused(model: Nomogram) -> None:
    """E-COLUMN names the column and those that there are; E-NOPATIENTS says how many rows there were and why none can
    be judged."""
    surv = Survival([5.0, 6.0], [True, False])
    with pytest.raises(FitError) as error:
        validate_table(model, pd.DataFrame({"tnm": ["III", "III"], "other": [1, 2]}), surv)
    (problem,) = error.value.problems
    assert (problem.code, problem.place, problem.found) == ("E-COLUMN", "column score", "tnm, other")
    with pytest.raises(CohortError) as none:
        validate_table(model, pd.DataFrame({"tnm": ["III", "III"], "score": [nan, nan]}), surv)
    assert [p.code for p in none.value.problems] == ["E-NOPATIENTS", "W-NOCOVARIATE"]
    assert none.value.problems[0].found == "2 rows"


def test_a_horizon_that_was_not_published_is_refused(model: Nomogram, cohort: tuple[pd.DataFrame, Survival]) -> None:
    """E-HORIZON for a month of which the publication gives no survival; one of those given may stand alone."""
    with pytest.raises(FitError) as error:
        validate_table(model, *cohort, months=[18.0])
    assert error.value.problems[0].code == "E-HORIZON"
    assert list(validate_table(model, *cohort, months=[24.0]).months) == [24.0]


def test_the_cut_off_itself_is_high_risk(model: Nomogram, cohort: tuple[pd.DataFrame, Survival]) -> None:
    """A risk that equals the cut-off is high; without a cut-off, or with everybody on one side, no groups are
    compared."""
    table, surv = cohort
    risk = validate_table(model, table, surv).risk.to_numpy()
    at = float(np.sort(risk)[30])
    found = validate_table(model, table, surv, cutoff=at)
    assert found.high is not None and found.high.sum() == 30 and found.high[risk == at].all()
    assert found.groups_hr is not None and found.groups_hr.value > 1.0
    assert validate_table(model, table, surv).high is None
    for beyond in (-99.0, 99.0):
        assert validate_table(model, table, surv, cutoff=beyond).groups_hr is None


def test_days_are_suspected_above_three_hundred_months(model: Nomogram) -> None:
    """W-TIMEUNIT from a median above 300 on; at 300 nothing is said."""
    table = pd.DataFrame({"tnm": ["III"] * 4, "score": [0.0, 1.0, 2.0, -1.0]})

    def codes(last: float) -> set[str]:
        surv = Survival(np.full(4, last), [True, False, True, False])
        return {p.code for p in validate_table(model, table, surv).problems}

    assert "W-TIMEUNIT" not in codes(LONG_MONTHS) and "W-TIMEUNIT" in codes(LONG_MONTHS + 1.0)


def test_without_events_there_are_scores_alone(model: Nomogram, cohort: tuple[pd.DataFrame, Survival]) -> None:
    """No C, no horizon, no groups, W-NOEVENTS, and a risk of everybody."""
    table, surv = cohort
    found = validate_table(model, table, Survival(surv.time_months, np.zeros(60, dtype=bool)), cutoff=0.0,
                           centers=["A", "B"] * 30)
    assert found.c is None and found.months == {} and found.groups_hr is None and found.pooled == {}
    assert [p.code for p in found.problems] == ["W-NOEVENTS"] and found.risk.notna().all() and found.n == 60
    assert [(c.center, c.n, c.n_events) for c in found.centers] == [("A", 30, 0), ("B", 30, 0)]
    assert numbers(found)["centers"][0]["c"]["value"] is None


def test_a_centre_is_judged_as_if_alone(model: Nomogram, cohort: tuple[pd.DataFrame, Survival]) -> None:
    """Each centre's C, O/E and slope are those of its own patients at the last horizon; one centre is no comparison."""
    table, surv = cohort
    centers = np.where(np.arange(60) < 35, "B", "A")
    found = validate_table(model, table, surv, centers=list(centers))
    assert [one.center for one in found.centers] == ["A", "B"]
    for one in found.centers:
        mine = centers == one.center
        alone = validate_table(model, table[mine], surv.take(mine))
        last = alone.months[24.0].calibration
        assert (one.n, one.n_events) == (alone.n, alone.n_events) and alone.c is not None
        assert (one.c, one.oe, one.slope) == (alone.c, last.oe, last.slope)
    assert validate_table(model, table, surv, centers=["A"] * 60).centers == ()


def test_centres_are_pooled_on_their_own_scales() -> None:
    """C is pooled as a logit, O/E as a logarithm, the slope as it is; standard errors come from the intervals. Two
    equal centres have their own value."""
    c, oe, slope = Estimate(0.7, 0.6, 0.8), Estimate(1.2, 1.0, 1.44), Estimate(0.9, 0.7, 1.1)
    same = [CenterResult(name, 50, 20, c, oe, slope) for name in "AB"]
    found = _pooled(same)
    assert [found[name].value.value for name in ("c", "oe", "slope")] == pytest.approx([0.7, 1.2, 0.9])
    other = replace(same[1], c=Estimate(0.6, 0.5, 0.7), oe=Estimate(0.8, 0.6, 0.8**2 / 0.6))
    found = _pooled([same[0], other])
    errors = [0.2 / (2 * 1.959963984540054)] * 2
    expected = pool([0.7, 0.6], errors, scale="logit", null=0.5).value
    assert vars(found["c"].value) == pytest.approx(vars(expected))
    weights = np.array([0.7 * 0.3, 0.6 * 0.4]) ** 2  # of the logits: the inverse of their variances
    fixed = expit((logit([0.7, 0.6]) * weights).sum() / weights.sum())
    assert found["c"].value.value == pytest.approx(fixed, abs=0.01)
    assert 0.8 < found["oe"].value.value < 1.2
    half = log(1.44) / (2 * 1.959963984540054)
    assert _standard_error(oe, "log") == pytest.approx(1.2 * half)
    assert _standard_error(slope, "identity") == pytest.approx(0.4 / (2 * 1.959963984540054))
    assert np.isnan(_standard_error(Estimate(0.5, 0.0, 2.0), "log"))
    expected = pool([1.2, 0.8], [_standard_error(same[0].oe, "log"), _standard_error(other.oe, "log")], scale="log",
                    null=1.0)
    assert vars(found["oe"].value) == pytest.approx(vars(expected.value))


def test_a_centre_with_few_events_is_not_pooled() -> None:
    """Four events are shown and not pooled, five are; with one centre left nothing is pooled."""
    slope = Estimate(1.0, 0.5, 1.5)
    whole = CenterResult("A", 50, CENTER_EVENTS, Estimate(0.7, 0.6, 0.8), Estimate(1.1, 0.9, 1.3), slope)
    assert set(_pooled([whole, whole])) == {"c", "oe", "slope"}
    assert _pooled([whole, replace(whole, n_events=CENTER_EVENTS - 1)]) == {}
    blind = replace(whole, slope=Estimate(nan), oe=Estimate(1.0, 0.0, 2.0))
    assert set(_pooled([whole, blind])) == {"c"}


def test_the_doubled_baseline_hazard_doubles_the_expected(cohort: tuple[pd.DataFrame, Survival]) -> None:
    """Survival squared is twice the hazard: the slope and C stay, and O/E falls."""
    table, surv = cohort
    levels, ranges = {"tnm": ("III", "IVa")}, {"score": (-3.0, 3.0)}
    one, two = (validate_table(Nomogram.from_coefficients(
        {"tnm=IVa": 0.7, "score": 0.5}, baseline_survival={24: base}, ranges=ranges, levels=levels), table, surv)
        for base in (0.7, 0.7**2))
    assert one.c == two.c
    first, second = one.months[24.0].calibration, two.months[24.0].calibration
    assert second.slope.value == pytest.approx(first.slope.value) and second.oe.value < first.oe.value
    expected = (1.0 - np.exp(np.log(0.7) * np.exp(0.7 * (table["tnm"] == "IVa") + 0.5 * table["score"]))).mean()
    assert first.predicted == pytest.approx(expected) or 1.0 - first.predicted == pytest.approx(expected)
