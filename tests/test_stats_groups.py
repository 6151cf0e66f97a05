"""Tests of a baseline table."""

from __future__ import annotations

from itertools import product
from math import comb, prod

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import gammaln

from mtdlr.errors import FitError, TableError
from mtdlr.stats.fisher import _bound, _halves, _listed, _nodes, _work, fisher
from mtdlr.stats.groups import (
    chi_square,
    contingency_table,
    kruskal_wallis,
    standardised_difference,
    standardised_difference_levels,
)
from mtdlr.stats.sample_tests import anova, mann_whitney, t_test

steady = settings(deadline=None, derandomize=True, max_examples=30)


def _tables(rows, columns, most):
    return st.lists(st.lists(st.integers(0, most), min_size=columns, max_size=columns), min_size=rows, max_size=rows
                    ).map(np.array).filter(lambda t: (t.sum(0) > 0).all() and (t.sum(1) > 0).all())


def _brute_force(table):
    """Fisher's p by going through every table with the margins, in whole numbers."""
    rows, columns = table.sum(axis=1), table.sum(axis=0)

    def ways(t):
        left, out = columns.copy(), 1
        for row in t:
            out *= prod(comb(int(c), int(x)) for c, x in zip(left, row, strict=True))
            left = left - row
        return out

    observed, whole, tail = ways(table), 0, 0
    for free in product(*(range(min(r, c) + 1) for r in rows[:-1] for c in columns[:-1])):
        inner = np.array(free).reshape(len(rows) - 1, -1)
        block = np.column_stack([inner, rows[:-1] - inner.sum(axis=1)])
        full = np.vstack([block, columns - block.sum(axis=0)])
        if (full >= 0).all():
            whole += ways(full)
            tail += ways(full) if ways(full) <= observed else 0
    return tail / whole


@pytest.mark.slow
@steady
@given(st.one_of(_tables(2, 2, 8), _tables(2, 3, 5), _tables(3, 3, 3), _tables(4, 2, 4), _tables(4, 3, 1)))
def test_fisher_is_the_sum_over_all_tables(table):
    """The split search gives the p value of going through every table, for 2 x 2 to 4 x 3."""
    assert fisher(table).p == pytest.approx(_brute_force(table), rel=1e-9)


@steady
@given(_tables(5, 2, 4), st.permutations(range(5)))
def test_fisher_ignores_the_order_of_rows_and_columns(table, order):
    """Other orders of rows and columns, the transpose and empty rows give the same p."""
    p = fisher(table).p
    padded = np.vstack([table[list(order)][:, ::-1], [[0, 0]]])
    assert fisher(padded).p == pytest.approx(p, rel=1e-9) and fisher(padded.T).p == pytest.approx(p, rel=1e-9)


def test_fisher_refuses_what_it_cannot_finish():
    """A table with too many arrangements is a typed error that points to the chi-square test, at once."""
    with pytest.raises(FitError) as caught:
        fisher(np.full((6, 6), 300))
    assert caught.value.code == "E-FISHERSIZE"


@pytest.mark.parametrize("file", ["paper_table1_categorical.json", "npc_table1_tests.json"])
def test_categorical_rows_agree_with_r(file, reference_json, agrees):
    """Chi-square and Fisher's exact p are R's for every row of both baseline tables; 4 x 3 tables are slow below."""
    rows = reference_json(file)
    for row in rows.get("categorical", rows).values():
        ours = chi_square(row["counts"])
        agrees("chi-square, df, p", "stats::chisq.test", [ours.statistic, ours.df, ours.p],
               [row["chisq"][k] for k in ("stat", "df", "p")])
        assert bool(ours.warnings) == ((np.array(_expected(row["counts"])) < 5).mean() > 0.2
                                       or row["chisq"]["min_expected"] < 1)
        if len(row["counts"]) < 4:
            agrees("Fisher's exact p", "stats::fisher.test", fisher(row["counts"]).p, row["fisher_p"])


@pytest.mark.slow
@pytest.mark.parametrize("file", ["paper_table1_categorical.json", "npc_table1_tests.json"])
def test_large_tables_agree_with_r(file, reference_json, agrees):
    """The exact p of 4 x 3 tables of 886 patients is R's to a relative 4e-7; its network rounds path lengths."""
    rows = reference_json(file)
    for row in rows.get("categorical", rows).values():
        if len(row["counts"]) == 4:
            agrees("Fisher's exact p, 4 x 3, relative", "stats::fisher.test",
                   fisher(row["counts"]).p / row["fisher_p"], 1, within=5e-7)


def test_p_values_printed_in_the_papers_table_1(reference_json):
    """Every categorical P of the paper's Table 1 is Pearson's chi-square without correction, to the printed digits."""
    for name, row in reference_json("paper_table1_categorical.json").items():
        p = chi_square(row["counts"]).p
        printed = row["published_p"]
        assert abs(p - printed) <= (0.00051 if name != "histology" else 0.0005), name


def _expected(counts):
    table = np.array(counts)
    return np.outer(table.sum(1), table.sum(0)) / table.sum()


def test_continuous_rows_agree_with_r(reference_of, reference_json, agrees):
    """Kruskal-Wallis, ANOVA, Mann-Whitney with and without correction and Welch's t are R's."""
    for name, theirs in reference_json("npc_table1_tests.json")["continuous"].items():
        samples = {c: [float(v) for v in reference_of(f"npc_{c}").columns[name]] for c in ("train", "val", "ext")}
        h, f = kruskal_wallis(list(samples.values())), anova(list(samples.values()))
        agrees("Kruskal-Wallis H, df, p", "stats::kruskal.test", [h.statistic, h.df, h.p],
               [theirs["kruskal"][k] for k in ("H", "df", "p")])
        agrees("ANOVA F, p", "stats::anova", [f.statistic, f.p], [theirs["anova"]["F"], theirs["anova"]["p"]])
        for pair in theirs["mannwhitney"]:
            a, b = samples[pair["a"]], samples[pair["b"]]
            w = mann_whitney(a, b)
            agrees("Mann-Whitney W, p", "stats::wilcox.test", [w.statistic, w.p, mann_whitney(
                a, b, continuity=False).p], [pair["W"], pair["p_corrected"], pair["p_uncorrected"]])
            agrees("Welch's t p", "stats::t.test", t_test(a, b).p, pair["t_welch_p"])


samples = st.lists(st.integers(-6, 6), min_size=2, max_size=15)


@steady
@given(samples, samples)
def test_two_samples_are_a_special_case(a, b):
    """With two samples Kruskal-Wallis is Mann-Whitney without correction, and signs turn with the order."""
    h, w, other = kruskal_wallis([a, b]), mann_whitney(a, b, continuity=False), mann_whitney(b, a, continuity=False)
    assert w.p == pytest.approx(h.p, nan_ok=True) and other.p == pytest.approx(w.p, nan_ok=True)
    assert w.statistic + other.statistic == len(a) * len(b)
    assert t_test(b, a).statistic == pytest.approx(-t_test(a, b).statistic, nan_ok=True)


@steady
@given(samples, samples, st.integers(1, 5), st.integers(-9, 9))
def test_units_do_not_matter(a, b, scale, shift):
    """Another unit or zero point changes neither a p value nor a standardised difference."""
    a2, b2 = ([scale * x + shift + 100.5 for x in sample] for sample in (a, b))
    assert t_test(a2, b2).p == pytest.approx(t_test(a, b).p, nan_ok=True, abs=1e-9)
    assert mann_whitney(a2, b2).p == pytest.approx(mann_whitney(a, b).p, nan_ok=True)
    if set(a + b) - {0, 1}:
        assert standardised_difference(a2, b2).value == pytest.approx(
            standardised_difference(a, b).value, nan_ok=True, abs=1e-9)


def test_standardised_differences_by_hand():
    """Means 1 apart with SD 2 differ by 0.5; shares of .5 and .3 differ by .2 / sqrt((.25 + .21) / 2)."""
    spread = np.array([-2.0, -2.0, 2.0, 2.0]) * np.sqrt(3 / 4)
    assert standardised_difference(spread + 1, spread).value == pytest.approx(0.5)
    shares = standardised_difference([1] * 5 + [0] * 5, [1] * 3 + [0] * 7)
    assert shares.value == pytest.approx(0.2 / np.sqrt(0.23)) and shares.low < 0 < shares.high
    two = standardised_difference_levels([[5, 7], [5, 3]])
    assert two.value == pytest.approx(shares.value)  # the multinomial form with two levels is the binary one


def test_equal_shares_have_no_multinomial_difference():
    """Groups with the same shares differ by 0; three unequal levels differ by more than any one pair suggests."""
    assert standardised_difference_levels([[10, 20], [20, 40], [30, 60]]).value == pytest.approx(0, abs=1e-12)
    three = standardised_difference_levels([[30, 10], [10, 30], [20, 20]]).value
    assert np.isnan(standardised_difference_levels([[9, 0], [0, 9]]).value)  # no level in common
    assert three > standardised_difference_levels([[30, 10], [30, 50]]).value > 0.7


def test_contingency_table_counts_labels():
    """Counts are by sorted levels, and add up."""
    table = contingency_table(["b", "a", "b", "a"], [1, 1, 2, 1])
    assert table.tolist() == [[2, 0], [1, 1]]


def test_constant_values_have_no_p():
    """Samples without any spread have nan p values, no division by zero."""
    same = [[1.0, 1.0, 1.0], [1.0, 1.0]]
    assert np.isnan([kruskal_wallis(same).p, mann_whitney(*same).p, t_test(*same).p, anova(same).p,
                     standardised_difference([2.0, 2.0], [2.0, 2.0]).value]).all()


@pytest.mark.parametrize(("call", "kind", "code"), [
    (lambda: chi_square([[1, 2], [0, 0]]), FitError, "E-ONEGROUP"),
    (lambda: chi_square([[1, -2], [3, 4]]), TableError, "E-COUNTS"),
    (lambda: fisher([[1, 2.5], [3, 4]]), TableError, "E-COUNTS"),
    (lambda: fisher([1, 2]), TableError, "E-COUNTS"),
    (lambda: kruskal_wallis([[1, 2]]), FitError, "E-ONEGROUP"),
    (lambda: anova([[1, 2], []]), FitError, "E-ONEGROUP"),
    (lambda: t_test([1.0], [2.0, 3.0]), FitError, "E-ONEGROUP"),
    (lambda: mann_whitney([1, np.nan], [2]), TableError, "E-MISSING"),
    (lambda: contingency_table([1, 2], [1]), TableError, "E-LENGTH"),
    (lambda: standardised_difference_levels([[1, 2, 3], [4, 5, 6]]), TableError, "E-COUNTS"),
])
def test_bad_input_is_refused(call, kind, code):
    """Tables that are no counts, single groups and missing values are typed errors."""
    with pytest.raises(kind) as caught:
        call()
    assert caught.value.code == code


@steady
@given(st.lists(st.integers(1, 7), min_size=2, max_size=3), st.lists(st.integers(0, 9), min_size=2, max_size=3))
def test_fisher_bound_is_above_every_table(rows, columns):
    """The bound that lets a node be added whole is never below the most likely table, and meets it for two rows."""
    rows, columns = np.array(sorted(rows, reverse=True)), np.array(columns)
    columns[-1] += max(0, rows.sum() - columns.sum())
    rows[0] += max(0, columns.sum() - rows.sum())
    log_factorial = gammaln(np.arange(rows.sum() + 1) + 1.0)
    values = np.empty(100_000)
    listed = values[: _listed(rows, columns, log_factorial, values)]
    bound = _bound(rows, columns, log_factorial)
    assert bound >= listed.max() - 1e-9
    if rows.size == 2:
        assert bound == pytest.approx(listed.max())


@steady
@given(st.lists(st.integers(1, 9), min_size=2, max_size=5), st.lists(st.integers(1, 9), min_size=2, max_size=3))
def test_fisher_work_is_not_underestimated(rows, columns):
    """The halves hold all rows, the longest of each first, and the work foreseen is at least the work done."""
    rows, columns = np.array(rows), np.sort(columns)
    rows[0] += max(0, columns.sum() - rows.sum())
    columns[-1] += max(0, rows.sum() - columns.sum())
    top, bottom = _halves(rows)
    assert sorted([*top, *bottom]) == sorted(rows) and abs(top.size - bottom.size) <= 1
    assert top[0] == top.max() and bottom[0] == bottom.max()
    log_factorial, none = gammaln(np.arange(rows.sum() + 1) + 1.0), np.empty(0)
    nodes = _nodes(columns, int(top.sum()))
    done = sum(_listed(top, node, log_factorial, none) + _listed(bottom, columns - node, log_factorial, none)
               for node in nodes)
    foreseen_nodes, foreseen = _work(top, bottom, columns)
    assert foreseen_nodes >= len(nodes) and foreseen >= done
