"""How columns become a design matrix."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtdlr.errors import FitError
from mtdlr.stats import (
    Continuous,
    Design,
    Factor,
    Interaction,
    Spline,
    drop1,
    fit_cox,
    harrell_knots,
    spline_basis,
)
from mtdlr.survival import Survival

steady = settings(deadline=None, derandomize=True, max_examples=40)
STAGE = Factor("stage", ("III", "IVa", "IVb"), "IVa")
AGE = Spline("age", (40.0, 50.0, 60.0, 70.0))
DESIGN = Design((STAGE, AGE, Continuous("score"), Interaction(STAGE, Continuous("score"))))
ROWS = {"stage": ["III", "IVa", "IVb"], "age": [30, 55, 80], "score": [1.0, 2.0, -1.0]}


def test_columns_are_named_after_term_and_level():
    """Indicators are name=level without the reference, spline columns carry primes, products a star."""
    assert DESIGN.columns == ("stage=III", "stage=IVb", "age", "age'", "age''", "score",
                              "stage=III * score", "stage=IVb * score")
    assert DESIGN.slices == {"stage": slice(0, 2), "age": slice(2, 5), "score": slice(5, 6),
                             "stage * score": slice(6, 8)}
    assert DESIGN.variables == ("stage", "age", "score")


def test_matrix_by_hand():
    """Indicators, numbers and their products land in their columns."""
    x = DESIGN.matrix(ROWS)
    assert x[:, :2].tolist() == [[1, 0], [0, 0], [0, 1]]
    assert x[:, 5:].tolist() == [[1, 1, 0], [2, 0, 0], [-1, 0, -1]]


def test_json_round_trip():
    """A design written to JSON and read again is the same design."""
    assert Design.from_dict(json.loads(json.dumps(DESIGN.as_dict()))) == DESIGN


@steady
@given(st.lists(st.floats(-50, 50), min_size=3, max_size=6, unique=True).filter(
    lambda k: np.diff(sorted(k)).min() > 0.1))
def test_spline_is_linear_outside_and_smooth_at_the_knots(knots):
    """Beyond the outer knots every column is a line; at a knot value, slope and curvature are continuous."""
    knots = sorted(knots)
    for start in (knots[0] - 30, knots[-1] + 1):
        outside = spline_basis(start + np.arange(4.0), knots)
        assert np.diff(outside, 2, axis=0) == pytest.approx(0, abs=1e-7)
    h = 1e-4
    for knot in knots:
        values = spline_basis(knot + h * np.arange(-3, 4), knots)
        bends = np.diff(values, 2, axis=0) / h**2
        assert np.abs(np.diff(bends, axis=0)).max() < 0.05


def test_knots_of_a_small_sample_move_inwards():
    """Under a hundred values the outer knots are the fifth smallest and largest."""
    assert harrell_knots(np.arange(50.0), 4)[::3] == (4.0, 45.0)


@pytest.mark.parametrize(("change", "code", "text"), [
    ({"stage": ["III", "V", "IVb"]}, "E-LEVEL", "row 1.*found V.*III or IVa or IVb"),
    ({"stage": ["III", None, "IVb"]}, "E-MISSING", "stage"),
    ({"score": [1.0, np.nan, 2.0]}, "E-MISSING", "column score, row 1"),
    ({"score": ["1", "x", "2"]}, "E-NUMBER", "found x"),
    ({"age": [30, np.inf, 50]}, "E-NUMBER", "age"),
    ({"age": [30, 40]}, "E-LENGTH", "age 2"),
])
def test_wrong_values_name_column_row_and_value(change, code, text):
    """Each wrong value is a FitError that says where, what was found, and what was expected."""
    with pytest.raises(FitError, match=text) as raised:
        DESIGN.matrix(ROWS | change)
    assert raised.value.code == code


def test_all_problems_come_at_once():
    """A missing column and an unseen level are reported together."""
    with pytest.raises(FitError) as raised:
        DESIGN.matrix({"stage": ["V"], "age": [50.0]})
    assert [p.code for p in raised.value.problems] == ["E-LEVEL", "E-COLUMN"]


@pytest.mark.parametrize(("make", "code"), [
    (lambda: Factor("a", ("x",), "x"), "E-LEVEL"),
    (lambda: Factor("a", ("x", "x"), "x"), "E-LEVEL"),
    (lambda: Factor("a", ("x", "y"), "z"), "E-LEVEL"),
    (lambda: Spline("a", (1.0, 2.0)), "E-KNOTS"),
    (lambda: Spline("a", (1.0, 3.0, 2.0)), "E-KNOTS"),
    (lambda: Design(()), "E-TERMS"),
    (lambda: Design((Continuous("a"), Continuous("a"))), "E-TERMS"),
    (lambda: harrell_knots([1.0, 1.0, 1.0, 1.0], 3), "E-KNOTS"),
    (lambda: harrell_knots(range(100), 9), "E-KNOTS"),
])
def test_wrong_terms_have_a_code(make, code):
    """A term that cannot make columns is refused when it is made."""
    with pytest.raises(FitError, match=code):
        make()


def test_a_number_is_a_level_as_text():
    """1, 1.0, numpy's 1 and "1" are one level."""
    design = Design((Factor("grade", ("1", "2"), "1"),))
    for values in ([1, 2], [1.0, 2.0], np.array([1, 2]), ["1", "2"]):
        assert design.matrix({"grade": values}).tolist() == [[0.0], [1.0]]


def test_each_term_is_dropped_as_a_whole():
    """AIC and likelihood-ratio test without a term are those of the two fits, whose likelihoods are coxph's; a factor
    goes with all its levels, a term of an interaction stays, and the patients are found by their labels."""
    random = np.random.default_rng(5)
    x, age = random.normal(size=(2, 90))
    table = pd.DataFrame({"x": x, "age": age, "stage": random.choice(["I", "II", "III"], 90)},
                         index=[f"P{i}" for i in range(90)])
    time = pd.Series(random.exponential(np.exp(-x)) + 0.1, index=table.index)
    surv = Survival(time, pd.Series(random.random(90) < 0.7, index=table.index))
    terms = (Continuous("x"), Continuous("age"), Factor("stage", ("I", "II", "III"), "I"))
    whole = fit_cox(Design(terms).matrix(table), surv)
    found = drop1(table.sample(frac=1, random_state=0), surv, terms)
    assert list(found) == ["x", "age", "stage"]
    rest = fit_cox(Design(terms[:2]).matrix(table), surv)
    assert found["stage"].aic == pytest.approx(rest.aic)
    assert found["stage"].test.statistic == pytest.approx(2.0 * (whole.loglik - rest.loglik))
    assert found["stage"].test.df == 2 and found["x"].test.p < 1e-4 < found["stage"].test.p
    alone = drop1(table, surv, terms[:1])["x"]
    assert alone.aic == -2.0 * fit_cox(x, surv).loglik_null
    assert alone.test.statistic == pytest.approx(fit_cox(x, surv).likelihood_ratio.statistic)
    assert list(drop1(table, surv, (*terms, Interaction(terms[0], terms[2])))) == ["age", "x * stage"]
