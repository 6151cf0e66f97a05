"""Terms and their columns: splines by Harrell's formula, values that are refused, and the indices of R's rms."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.interpolate import CubicSpline
from test_nomogram_reference import formula_terms, numbers, patients

from mtdlr.errors import FitError
from mtdlr.stats.cox import fit_cox
from mtdlr.stats.cox_rows import label_codes, matrix_of
from mtdlr.stats.ranks import midranks, spearman, tie_sum
from mtdlr.stats.sample_tests import anova, mann_whitney, t_test
from mtdlr.stats.terms import Continuous, Design, Factor, Interaction, Spline, harrell_knots, spline_basis
from mtdlr.stats.validation import validate_bootstrap
from mtdlr.survival import Survival

KNOTS = (-1.0, 0.5, 2.0, 4.0)


@pytest.mark.parametrize("dataset", ["lung", "gbsg", "pbc", "npc_train", "npc_val", "npc_ext"])
def test_apparent_indices_of_a_spline_model_are_rms(dataset: str, reference_of) -> None:
    """Nagelkerke's R2, Dxy, Gini's mean difference g and the score test of a model with splines are those that cph
    prints; R2, g and the score test rest on fits that cph stops early, hence the tolerance."""
    theirs = reference_of(dataset).numbers("splines")
    table, facts = patients(dataset), numbers(dataset)
    design = Design(tuple(formula_terms(theirs["formula"], table, facts["levels"])))
    x, surv = design.matrix(table), Survival(table[facts["time"]], table["event"])
    stats, found = theirs["fit"]["stats"], validate_bootstrap(x, surv, n_resamples=1)
    assert abs(found.row("dxy")["apparent"]) == pytest.approx(abs(stats["Dxy"]), abs=1e-6)
    assert found.row("r2")["apparent"] == pytest.approx(stats["R2"], abs=1e-6)
    assert found.row("g")["apparent"] == pytest.approx(stats["g"], abs=1e-4)
    assert np.exp(found.row("g")["apparent"]) == pytest.approx(stats["gr"], rel=1e-4)
    fit = fit_cox(x, surv)
    assert fit.score_test.statistic == pytest.approx(stats["Score"], rel=1e-6)
    assert (fit.n, fit.n_events, fit.df) == (stats["Obs"], stats["Events"], stats["d.f."])


def test_spline_columns_are_harrells_formula() -> None:
    """Column j: (x - t_j)+^3 less the two terms that make the tails straight, over the squared range of the knots."""
    x, t = np.linspace(-3, 7, 41), np.array(KNOTS)
    basis = spline_basis(x, KNOTS)

    def cube(v: np.ndarray) -> np.ndarray:
        return np.where(v > 0, v, 0.0) ** 3

    assert basis.shape == (41, 3)
    np.testing.assert_array_equal(basis[:, 0], x)
    for j in (0, 1):
        expected = (cube(x - t[j]) - cube(x - t[2]) * (t[3] - t[j]) / (t[3] - t[2])
                    + cube(x - t[3]) * (t[2] - t[j]) / (t[3] - t[2])) / (t[3] - t[0]) ** 2
        np.testing.assert_allclose(basis[:, j + 1], expected, atol=1e-12)


def test_the_columns_span_the_natural_cubic_splines() -> None:
    """Any natural cubic spline on the knots is a combination of the columns and a constant, inside and outside."""
    x = np.linspace(-1.0, 4.0, 60)
    target = CubicSpline(KNOTS, [0.3, -1.0, 2.0, 0.7], bc_type="natural")(x)
    columns = np.column_stack([np.ones(60), spline_basis(x, KNOTS)])
    left = target - columns @ np.linalg.lstsq(columns, target, rcond=None)[0]
    assert np.abs(left).max() < 1e-10


@pytest.mark.parametrize(("n", "k", "shares"), [
    (200, 3, (0.1, 0.5, 0.9)), (200, 4, (0.05, 0.35, 0.65, 0.95)), (200, 5, (0.05, 0.275, 0.5, 0.725, 0.95)),
    (200, 6, (0.05, 0.23, 0.41, 0.59, 0.77, 0.95)),
    (200, 7, (0.025, 0.1833, 0.3417, 0.5, 0.6583, 0.8167, 0.975)),
])
def test_knots_are_at_harrells_quantiles(n: int, k: int, shares: tuple) -> None:
    """Table 2.3 of Regression Modeling Strategies, in samples of a hundred or more, in any order of the values."""
    values = np.random.default_rng(0).permutation(np.arange(n) ** 1.5)
    np.testing.assert_allclose(harrell_knots(values, k), np.quantile(values, shares))


def test_the_outer_knots_of_99_and_of_9_values() -> None:
    """Below a hundred the fifth smallest and largest value; below ten the quantiles again."""
    assert harrell_knots(np.arange(99.0), 3) == (4.0, 49.0, 94.0)
    np.testing.assert_allclose(harrell_knots(np.arange(100.0), 3), (9.9, 49.5, 89.1))
    np.testing.assert_allclose(harrell_knots(np.arange(9.0), 3), (0.8, 4.0, 7.2))


@pytest.mark.parametrize(("values", "k", "found"), [
    (range(50), 2, "2 knots for 50 values"), (range(50), 8, "8 knots for 50 values"), ([1, 2], 3, "3 knots for 2"),
    ([1.0, np.nan, 3.0, 4.0], 3, "3 knots for 4 values"), ([1] * 60 + [2], 3, "too few different values for 3 knots"),
])
def test_knots_that_cannot_be_have_a_code(values: object, k: int, found: str) -> None:
    """Two or eight knots, too few or missing values, and values that are nearly all the same are E-KNOTS."""
    with pytest.raises(FitError, match="E-KNOTS") as caught:
        harrell_knots(values, k)
    assert found in str(caught.value)


def test_products_run_over_the_second_term_first() -> None:
    """Columns and their names are in one order: each column of the first term times all of the second."""
    a, b = Factor("g", ("u", "v", "w"), "u"), Spline("x", (0.0, 1.0, 2.0))
    design = Design((a, b, Interaction(a, b)))
    assert design.columns[4:] == ("g=v * x", "g=v * x'", "g=w * x", "g=w * x'")
    matrix = design.matrix({"g": ["v", "w", "u"], "x": [0.5, 1.5, 3.0]})
    first, second = matrix[:, 0:2], matrix[:, 2:4]
    expected = [first[:, i] * second[:, j] for i in (0, 1) for j in (0, 1)]
    np.testing.assert_array_equal(matrix[:, 4:], np.column_stack(expected))
    assert design.slices == {"g": slice(0, 2), "x": slice(2, 4), "g * x": slice(4, 8)}
    assert design.variables == ("g", "x") and design.labels == ("g", "x", "g * x")
    assert Design.from_dict(design.as_dict()) == design


@pytest.mark.parametrize(("value", "found"), [("abc", "abc"), (np.inf, "inf"), ("x" * 60, "x" * 40)])
def test_a_value_that_is_no_number_is_shown_short(value: object, found: str) -> None:
    """E-NUMBER with column, row and at most forty letters of what was there."""
    with pytest.raises(FitError) as caught:
        Design((Continuous("age"),)).matrix({"age": np.array([1.0, 2.0, value], dtype=object)})
    problem = caught.value.problems[0]
    assert (problem.code, problem.where, problem.found) == ("E-NUMBER", "column age, row 2", found)


@pytest.mark.parametrize("missing", [None, np.nan, ""])
def test_missing_values_are_counted(missing: object) -> None:
    """None, nan and empty text are missing: E-MISSING with the first row and how many."""
    with pytest.raises(FitError) as caught:
        Design((Continuous("age"),)).matrix({"age": np.array([1.0, missing, 3.0, missing], dtype=object)})
    problem = caught.value.problems[0]
    assert (problem.code, problem.where, problem.found) == ("E-MISSING", "column age, row 1", "2 of 4 missing")


def test_columns_of_other_lengths_are_named_with_their_lengths() -> None:
    """E-LENGTH lists every column and its length."""
    with pytest.raises(FitError, match="E-LENGTH columns have different lengths; found a 2, b 3"):
        Design((Continuous("a"), Continuous("b"))).matrix({"a": [1, 2], "b": [1, 2, 3]})


def test_a_table_is_taken_by_its_names() -> None:
    """A data frame's columns are put in the asked order; too few names and the same name twice are refused."""
    surv = Survival([1.0, 2.0], [1, 1])
    frame = pd.DataFrame({"a": [1.0, 2.0], "b": [3.0, 4.0]})
    matrix, names = matrix_of(frame, surv, ["b", "a"])
    assert matrix.tolist() == [[3.0, 1.0], [4.0, 2.0]] and names == ("b", "a")
    assert matrix_of(frame, surv)[1] == ("a", "b") and matrix_of([5.0, 6.0], surv)[1] == ("x1",)
    for wrong in (["a"], ["a", "a"]):
        with pytest.raises(FitError, match="E-LENGTH x needs one name for each column, all different"):
            matrix_of(np.ones((2, 2)), surv, wrong)


@pytest.mark.parametrize(("value", "code", "found"), [
    (np.nan, "E-MISSING", "1 such values"), (2e100, "E-NUMBER", "2e+100"), (-np.inf, "E-MISSING", "1 such values")])
def test_the_first_bad_number_of_a_matrix_is_placed(value: float, code: str, found: str) -> None:
    """Column, row and value or count; numbers beyond 1e100 are too large."""
    x = np.ones((3, 2))
    x[2, 1] = value
    with pytest.raises(FitError) as caught:
        matrix_of(x, Survival([1.0, 2.0, 3.0], [1, 1, 1]), ["a", "b"])
    problem = caught.value.problems[0]
    assert (problem.code, problem.where, problem.found) == (code, "column b, row 2", found)


def test_labels_are_sorted_and_coded() -> None:
    """Numbers sort as numbers and become text; codes are places among them."""
    levels, codes = label_codes([10, 9, 10], Survival([1.0, 2.0, 3.0], [1, 1, 1]), "strata")
    assert levels == ("9", "10") and codes.tolist() == [1, 0, 1]


def test_welchs_test_by_hand() -> None:
    """t and Welch's degrees of freedom from means and variances; one value has no t test; two flat samples none."""
    a, b = [1.0, 2.0, 3.0, 4.0], [2.0, 8.0, 5.0]
    va, vb = np.var(a, ddof=1) / 4, np.var(b, ddof=1) / 3
    found = t_test(a, b)
    assert found.statistic == pytest.approx((2.5 - 5.0) / np.sqrt(va + vb))
    assert found.df == pytest.approx((va + vb) ** 2 / (va**2 / 3 + vb**2 / 2))
    assert t_test(b, a).statistic == -found.statistic and t_test(b, a).p == pytest.approx(found.p)
    with pytest.raises(FitError, match="E-ONEGROUP a t test needs two values in each sample; found 1 and 2"):
        t_test([1.0], [1.0, 2.0])
    assert np.isnan(t_test([1.0, 1.0], [2.0, 2.0]).p)


def test_the_rank_sum_counts_pairs_and_two_samples_of_anova_are_a_t_test() -> None:
    """U is the pairs in which the first is larger, ties one half; F of two samples is that of the pooled variance."""
    a, b = np.array([1.0, 3.0, 5.0, 5.0]), np.array([2.0, 5.0, 0.0])
    pairs = (a[:, None] > b).sum() + 0.5 * (a[:, None] == b).sum()
    assert mann_whitney(a, b).statistic == pairs and mann_whitney(b, a).statistic == 12 - pairs
    assert mann_whitney(a, b).p == pytest.approx(mann_whitney(b, a).p)
    assert mann_whitney(a, b, continuity=False).p < mann_whitney(a, b).p
    found = anova([a, b])
    pooled = (((a - a.mean()) ** 2).sum() + ((b - b.mean()) ** 2).sum()) / 5
    assert found.statistic == pytest.approx((a.mean() - b.mean()) ** 2 / (pooled * (1 / 4 + 1 / 3)))
    assert (found.df, found.df_within) == (1, 5)


def test_ranks_of_ties_by_hand() -> None:
    """Equal values share their mean rank; t^3 - t of each group of ties; rho of ties is Pearson's of the midranks."""
    values = [2.0, 1.0, 2.0, 2.0, 7.0, 7.0]
    assert midranks(values).tolist() == [3.0, 1.0, 3.0, 3.0, 5.5, 5.5] and tie_sum(values) == 24.0 + 6.0
    other = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    rho, p = spearman(values, other)
    assert rho == pytest.approx(np.corrcoef(midranks(values), other)[0, 1]) and 0 < p < 1
    assert spearman(values, -np.array(other)) == pytest.approx((-rho, p))
