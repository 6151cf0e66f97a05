"""Tables 1 to 4 from numbers made up by hand: each stands in its cell, and what is missing is marked as such."""

from __future__ import annotations

from dataclasses import replace
from math import inf, nan

import one_study as made
import pandas as pd
import pytest

from mtdlr.associate import Associations
from mtdlr.cohort.characteristics import Characteristic, Range
from mtdlr.estimate import Estimate
from mtdlr.report.results import Results
from mtdlr.report.tables import (
    FIRTH,
    SPLIT_LABELS,
    Table,
    estimate_text,
    make_tables,
    multivariate,
    p_text,
    patients,
    performance,
    univariate,
)


@pytest.fixture(scope="module")
def results() -> Results:
    """Six training patients and four external ones."""
    return made.results()


def row(table: Table, *begins: str) -> tuple[str, ...]:
    """The only row that begins with these cells."""
    (found,) = [cells for cells in table.rows if cells[:len(begins)] == begins]
    return found


# ---- words -----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("p", "text"), [
    (0.0005, "0.001"), (0.00049, "<0.001"), (0.0, "<0.001"), (1.0, "1.000"), (0.9996, "1.000"), (0.05, "0.050")])
def test_p_is_rounded_to_three_decimals_and_never_to_zero(p: float, text: str) -> None:
    """A P that would be printed as 0.000 is below 0.001; the one that is printed as 0.001 is not."""
    assert p_text(p) == text


@pytest.mark.parametrize(("estimate", "text"), [
    (Estimate(1.5, 1.1, 1000.0), "1.500 (1.100-1000.000)"), (Estimate(1.5, 1.1, 1000.1), "1.500 (1.100 to >1000)"),
    (Estimate(2000.0, 1500.0, inf), ">1000 (>1000 to >1000)"), (Estimate(-0.1, -0.2, 0.1), "-0.100 (-0.200 to 0.100)"),
    (Estimate(inf, 0.0, inf), "not estimable"), (Estimate(0.7), "0.700"), (Estimate(1200.0), ">1000"),
    (Estimate(0.995, 0.9901, 1.0099), "0.99500 (0.99010-1.00990)"),
    (Estimate(0.995, 0.99, 1.02), "0.995 (0.990-1.020)"), (Estimate(0.995, 0.985, 1.005), "0.995 (0.985-1.005)"),
    (Estimate(0.0, -0.0, 0.1), "0.000 (-0.000-0.100)")])
def test_an_estimate_is_printed_by_its_size(estimate: Estimate, text: str) -> None:
    """A dash joins limits that are not negative and not beyond 1000, `to` all others; limits within 0.01 of 1 have five
    decimals; infinity is not estimable."""
    assert estimate_text(estimate) == text


def test_a_table_as_a_frame_has_its_cells() -> None:
    """`to_frame` has the header as columns and a row a line, as text."""
    table = Table(1, "t", ("a", "b"), (("x", "1"), ("y", "2")))
    assert table.to_frame().equals(pd.DataFrame({"a": ["x", "y"], "b": ["1", "2"]}))
    assert Table(1, "t", ("a", "b"), ()).to_frame().shape == (0, 2)


def test_the_four_tables_stand_under_their_numbers(results: Results) -> None:
    """`make_tables` has Tables 1 to 4 by number, and every row is as long as its header."""
    tables = make_tables(results)
    assert {number: table.number for number, table in tables.items()} == {1: 1, 2: 2, 3: 3, 4: 4}
    assert all(len(cells) == len(table.header) for table in tables.values() for cells in table.rows)


# ---- Table 1 ---------------------------------------------------------------------------------------------------------

def test_table_1_prints_medians_ranges_and_p(results: Results) -> None:
    """The median stands before its range, four digits are enough, and P closes the row."""
    assert patients(results).header == ("Characteristic", "Training cohort (n = 6)",
                                        "External validation cohort (n = 4)", "P")
    assert row(patients(results), "Age") == ("Age", "52.5 (40-65)", "60 (50-70)", "0.031")


def test_table_1_counts_levels_with_their_share(results: Results) -> None:
    """The heading of a factor has no numbers but P; each level has its count and its share of the known ones."""
    table = patients(results)
    assert row(table, "TNM") == ("TNM", "", "", "-")
    assert row(table, "  III") == ("  III", "3 (50.0%)", "1 (33.3%)", "")
    assert row(table, "  IVa") == ("  IVa", "3 (50.0%)", "2 (66.7%)", "")


def test_table_1_prints_of_a_flag_those_who_have_it(results: Results) -> None:
    """A treatment is one line: who had it, of those of whom it is known."""
    assert row(patients(results), "IC") == ("IC", "3 (60.0%)", "2 (50.0%)", "<0.001")
    assert not any(cells[0].strip() in ("yes", "no") for cells in patients(results).rows)


def test_table_1_marks_a_cohort_without_values(results: Results) -> None:
    """Nobody with a value is a dash, of a continuous variable and of a factor; never nan or 0 of 0."""
    empty = (Characteristic("age", "Age", nan, {"training": Range(6, 12345.678, 0.00012344, 1e6),
                                                "external": Range(0, nan, nan, nan)}),
             Characteristic("t", "T", nan, counts={"T1": {"training": 0, "external": 0}}))
    table = patients(replace(results, characteristics=empty))
    assert row(table, "Age") == ("Age", "1.235e+04 (0.0001234-1e+06)", "-", "-")
    assert row(table, "  T1") == ("  T1", "-", "-", "")
    assert "nan" not in str(table.rows)


def test_table_1_of_one_cohort_has_one_column(results: Results) -> None:
    """A study without an external cohort has one column of numbers, of its own size."""
    rows = made.table()[:6]
    only = patients(made.results(rows=rows, characteristics=(
        Characteristic("age", "Age", nan, {"training": Range(6, 1.0, 0.0, 2.0)}),)))
    assert only.header == ("Characteristic", "Training cohort (n = 6)", "P") and only.rows == (("Age", "1 (0-2)", "-"),)


def test_cohorts_stand_in_the_papers_order() -> None:
    """Training, internal, external, in whatever order the table has them."""
    rows = made.table().assign(split=["external"] * 2 + ["internal"] * 3 + ["training"] * 5)
    header = patients(made.results(rows=rows, characteristics=())).header
    assert header[1:4] == tuple(f"{SPLIT_LABELS[s]} (n = {n})" for s, n in
                                (("training", 5), ("internal", 3), ("external", 2)))


# ---- Tables 2 and 3 --------------------------------------------------------------------------------------------------

def test_table_2_has_a_pair_of_cells_a_cohort(results: Results) -> None:
    """Of a continuous variable the ratio of a unit has its P, and that of an SD stands below it without one."""
    table = univariate(results)
    assert table.header == ("Characteristic", "Training cohort: HR (95% CI)", "P",
                            "External validation cohort: HR (95% CI)", "P")
    assert table.rows == (("Age", *("1.500 (1.100-2.045)", "0.010") * 2),
                          ("  per SD", *("2.250 (1.200-4.200)", "") * 2))


def test_table_2_keeps_cohorts_apart(results: Results) -> None:
    """Each cohort's own numbers stand under its own name."""
    other = made.association("age", "Age", "external", ratios={"": Estimate(0.5, 0.25, 1.0, 0.2)}, per_sd=None)
    changed = Associations((made.association("age", "Age", "training"), other), ())
    first, second = univariate(replace(results, associations=changed)).rows
    assert first == ("Age", "1.500 (1.100-2.045)", "0.010", "0.500 (0.250-1.000)", "0.200")
    assert second == ("  per SD", "2.250 (1.200-4.200)", "", "not estimable", "")


def test_table_3_of_a_factor_with_two_levels(results: Results) -> None:
    """The heading is empty, the reference says so, and the other level has ratio and P; there is no overall P."""
    table = multivariate(results)
    assert table.rows == (("TNM", "", "", "", ""), ("  III", *("Reference", "-") * 2),
                          ("  IVa", *("2.000 (0.800-5.000)", "0.141") * 2))


def test_a_factor_with_three_levels_has_its_overall_p(results: Results) -> None:
    """With two ratios the heading has the test of all levels; a reference in the middle stays in its place."""
    one = made.association("t", "T", "training", levels=("T1", "T2", "T3"), reference="T2", per_sd=None,
                           overall_p=0.0449,
                           ratios={"T1": Estimate(0.4, 0.2, 0.8, 0.01), "T3": Estimate(nan)})
    table = univariate(replace(results, associations=Associations((one,), ())))
    assert table.rows == (("T", "-", "0.045"), ("  T1", "0.400 (0.200-0.800)", "0.010"), ("  T2", "Reference", "-"),
                          ("  T3", "not estimable", "-"))


def test_firths_ratio_is_marked_where_it_stands(results: Results) -> None:
    """Only the level that events separate has the mark; a separated continuous variable has it too."""
    factor = made.association("t", "T", "training", levels=("T1", "T2", "T3"), reference="T1", per_sd=None,
                              ratios={"T2": Estimate(4.0, 2.0, 8.0, 0.1), "T3": Estimate(5.0, 1.0, 25.0, 0.2)},
                              penalised=("T3",))
    score = made.association("s", "Score", "training", penalised=("",))
    cells = {cells[0].strip(): cells[1] for cells in
             univariate(replace(results, associations=Associations((factor, score), ()))).rows}
    assert {name for name, cell in cells.items() if cell.endswith(FIRTH)} == {"T3", "Score"}


def test_the_footnotes_say_how_ratios_were_made() -> None:
    """Efron's or Breslow's ties; whether the training cohort's scores were out of fold, and what that does to P."""
    modern = " ".join(univariate(made.results()).footnotes)
    paper = made.results({"nomogram": {"ties": "breslow"}, "score": {"training": "in_sample"}})
    old = " ".join(multivariate(paper).footnotes)
    assert "Efron's handling" in modern and "varies by chance up to 1.4 times as much" in modern
    assert "Breslow's handling" in old and "in-sample in the training cohort, and so too good there" in old
    assert "1.4" not in old
    assert FIRTH in modern and "it does not validate" in modern


# ---- Table 4 ---------------------------------------------------------------------------------------------------------

def test_table_4_has_a_row_a_model_and_cohort(results: Results) -> None:
    """C, its P and its difference from the stage, then the same of each horizon, in the order of the header."""
    table = performance(results)
    assert table.header == ("Model", "Cohort", "C-index (95% CI)", "P", "P vs stage", "AUC at 6 months (95% CI)", "P",
                            "P vs stage", "AUC at 12 months (95% CI)", "P", "P vs stage")
    assert row(table, "MTDLR", "External")[2:] == (
        "0.720 (0.660-0.780)", "<0.001", "0.011", "0.750 (0.650-0.850)", "0.002", "0.049",
        "0.700 (0.600-0.800)", "0.010", "0.330")
    assert [cells[:2] for cells in table.rows[:4]] == [("Stage", "Training"), ("Stage", "External"),
                                                       ("ManualRadio", "Training"), ("ManualRadio", "External")]


def test_table_4_compares_the_stage_with_nothing(results: Results) -> None:
    """The reference has a dash where its own difference would stand."""
    assert [row(performance(results), "Stage", "Training")[k] for k in (4, 7, 10)] == ["-"] * 3


def test_table_4_says_what_cannot_be_estimated(results: Results) -> None:
    """Without an order of two patients C and AUC are not estimable, a note explains it, and P is a dash; a table where
    everything is known has no such note."""
    blind = made.evaluation("mtdlr", "external", c=None, concordance_vs_stage=None, auc={}, auc_vs_stage={})
    known = results.findings.evaluations
    table = performance(replace(results, findings=replace(
        results.findings, evaluations={**known, ("mtdlr", "external"): blind})))
    assert row(table, "MTDLR", "External")[2:] == ("not estimable", "-", "-") * 3
    assert any(note.startswith("Not estimable: no two patients") for note in table.footnotes)
    assert not any(note.startswith("Not estimable") for note in performance(results).footnotes)


def test_table_4_of_the_paper_has_one_roc() -> None:
    """With the ROC of the event status one AUC stands under 0, and the footnote names DeLong; the comparison that was
    made is named too."""
    paper = made.results({"evaluate": {"roc": "status", "comparison": "jackknife"}})
    status = {key: replace(one, auc={0.0: made.area(Estimate(0.81, 0.7, 0.9, 0.001))}, auc_vs_stage={})
              for key, one in paper.findings.evaluations.items()}
    table = performance(replace(paper, findings=replace(paper.findings, evaluations=status)))
    assert table.header[5:] == ("AUC (95% CI)", "P", "P vs stage")
    assert row(table, "MTDLR", "Training")[5:] == ("0.810 (0.700-0.900)", "0.001", "-")
    assert "DeLong" in table.footnotes[1] and "P vs stage by jackknife." in table.footnotes[0]
    assert "censoring weights" not in table.footnotes[1]
    assert "censoring weights" in performance(made.results()).footnotes[1]


def test_table_4_leaves_out_what_was_not_judged(results: Results) -> None:
    """A model without an evaluation in a cohort has no row there."""
    some = {key: one for key, one in results.findings.evaluations.items() if key != ("deepmts", "external")}
    rows = performance(replace(results, findings=replace(results.findings, evaluations=some))).rows
    assert ("DeepMTS", "Training") in {cells[:2] for cells in rows}
    assert ("DeepMTS", "External") not in {cells[:2] for cells in rows}


def test_the_true_risk_has_its_row_in_a_simulated_study() -> None:
    """Where the true risk is known it stands in Table 4 beside the models; otherwise nothing is called simulated."""
    known = made.results({"evaluate": {"known_risk": "truth.csv"}})
    truth = {**known.findings.evaluations, ("truth", "training"): made.evaluation("truth", "training")}
    table = performance(replace(known, findings=replace(known.findings, evaluations=truth)))
    assert row(table, "True risk (simulated)", "Training")[2] == "0.720 (0.660-0.780)"
    assert not any("simulated" in cells[0] for cells in performance(made.results()).rows)
