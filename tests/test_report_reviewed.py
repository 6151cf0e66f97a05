"""Tables 5 to 14 from numbers made up by hand: each number in its cell, a dash for what is missing."""

from __future__ import annotations

import json
from dataclasses import replace
from math import nan
from types import SimpleNamespace
from typing import Any

import numpy as np
import one_study as made
import pandas as pd

from mtdlr.estimate import Estimate
from mtdlr.evaluate.appraise import Development, Subgroup
from mtdlr.evaluate.arms import Arm
from mtdlr.evaluate.competing import CompetingRisks
from mtdlr.report.competing import competing_figures, competing_numbers, competing_table
from mtdlr.report.numbers import evaluation_numbers
from mtdlr.report.review import Review, missing_rows, review_numbers, review_tables, subgroup_rows
from mtdlr.report.rivals import arms_numbers, arms_table, rival_table
from mtdlr.report.summary import Judged
from mtdlr.report.tables import Table
from mtdlr.stats.competing import cumulative_incidence
from mtdlr.stats.decision import IntegratedBrier
from mtdlr.stats.inference import Test as Tested
from mtdlr.stats.sample_size import DevelopmentSize

LABELS = {"stage": "Stage", "deepmts": "DeepMTS", "mtdlr": "MTDLR", "manual_radio_stage": "ManualRadio + stage"}


def judged(**changes: Any) -> Judged:
    """MTDLR and DeepMTS outside; DeepMTS is the strongest other model."""
    known: dict[str, Any] = {
        "labels": LABELS, "evaluations": {
            ("mtdlr", "external"): made.evaluation(), ("stage", "external"): made.evaluation("stage", c=Estimate(0.6)),
            ("deepmts", "external"): made.evaluation("deepmts", c=Estimate(0.7, 0.6, 0.8, 0.01))},
        "appraisals": {
            ("mtdlr", "external"): made.appraisal(versus={"stage": Estimate(0.08, 0.02, 0.14, 0.011),
                                                          "deepmts": Estimate(-0.01, -0.03, 0.01, 0.4)}),
            ("deepmts", "external"): made.appraisal("deepmts", uno=Estimate(nan), versus={}, brier={},
                                                    restricted_mean=Estimate(nan))},
        "development": None, "problems": (), "out_of_fold": True} | changes
    return Judged("mtdlr", "stage", **known)


def review(development: Development | None = None, **changes: Any) -> Review:
    """A review with one appraised cohort and nothing else."""
    known: dict[str, Any] = {"subgroups": (), "differences": {}} | changes
    return Review(changes.pop("judged", judged()), development, **{k: v for k, v in known.items() if k != "judged"})


def table(done: Review, number: int, **results: Any) -> Table:
    """One of the review's tables."""
    (found,) = [one for one in review_tables(made.results(**results), done) if one.number == number]
    return found


# ---- Tables 5 and 6 --------------------------------------------------------------------------------------------------

def test_table_5_has_unos_c_and_paired_differences() -> None:
    """Uno's C, the differences from the stage and from the strongest other model, and the months between the groups."""
    assert table(review(), 5).rows == (
        ("MTDLR", "External", "0.710 (0.640-0.780)", "+0.080 (+0.020 to +0.140), P 0.011",
         "-0.010 (-0.030 to +0.010), P 0.400", "-2.5 (-4.0 to -1.0), P 0.001"),
        ("DeepMTS", "External", "not estimable", "-", "-", "-"))


def test_table_5_leaves_out_what_has_no_name() -> None:
    """A rival that is no model of the study stands in Table 10, not here."""
    more = {**judged().appraisals, ("clinical_ridge", "external"): made.appraisal("clinical_ridge")}
    assert len(table(review(judged=judged(appraisals=more)), 5).rows) == 2


def test_table_6_has_calibration_and_error_by_month() -> None:
    """O/E, intercept, slope, ICI, E50, E90, Brier and IPA of the main model; a horizon without a Brier score is
    dashed."""
    first, second = table(review(), 6).rows
    assert first == ("External", "6", "1.100 (0.900-1.300)", "0.050 (-0.200 to 0.300)", "0.900 (0.600-1.200)", "0.041",
                     "0.030", "0.080", "-", "-")
    assert second[1:3] == ("12", "1.020 (0.950-1.100)") and second[8:] == ("0.150 (0.100-0.200)", "25.0%")
    assert table(review(), 6).title.endswith("of MTDLR")


def test_table_6_has_the_error_over_the_months() -> None:
    """The integrated Brier score stands below with its months; one that is unknown has no row; nan is a dash."""
    whole = IntegratedBrier(np.arange(1.0, 13.0), np.ones(12), np.ones(12), 0.123, 0.2, 0.385)
    known = {"external": whole, "training": replace(whole, ipa=nan)}
    rows = table(review(integrated=known), 6).rows
    assert rows[2] == ("External", "1 to 12", *["-"] * 6, "0.123", "38.5%") and len(rows) == 3
    poor = {("mtdlr", "external"): made.evaluation(calibration={6.0: made.calibration(6.0, ici=nan, e50=nan, e90=nan)})}
    assert table(review(judged=judged(evaluations=poor, appraisals={})), 6).rows[0][5:] == ("-",) * 5


# ---- Table 7 ---------------------------------------------------------------------------------------------------------

def development(**changes: Any) -> Development:
    """A nomogram of three parameters, tested and bootstrapped."""
    corrected = SimpleNamespace(c=Estimate(0.705, 0.65, 0.76), row=lambda name: {
        "c": {"apparent": 0.72, "optimism": 0.015, "corrected": 0.705},
        "slope": {"apparent": 1.0, "corrected": 0.93}}[name])
    size = DevelopmentSize(3, 0.0991, 0.66, 150, 120, 90, 150, 30.0, 10.0)
    known: dict[str, Any] = {
        "parameters": 3, "candidates": 900, "n": 1200, "n_events": 60, "by_parameters": size,
        "by_candidates": replace(size, parameters=900, n=45678), "corrected": corrected,
        "proportional": {"tnm=IVa": Tested(1.234, 1.0, 0.267), "deepmts": Tested(7.5, 1.0, 0.0062),
                         "GLOBAL": Tested(8.8, 3.0, 0.032)}, "trends": {}} | changes
    return Development(**known)


def test_table_7_tests_each_variable_by_its_name() -> None:
    """Columns are called as people call them, levels too, and the global test last."""
    rows = table(review(development()), 7).rows
    assert rows[:3] == (("Proportional hazards: TNM IVa", "chi-square 1.23, df 1", "P 0.267"),
                        ("Proportional hazards: DeepMTS-Score", "chi-square 7.50, df 1", "P 0.006"),
                        ("Proportional hazards: all together", "chi-square 8.80, df 3", "P 0.032"))


def test_table_7_has_optimism_and_sample_sizes() -> None:
    """Apparent, optimism and corrected C, the slope, and who was needed beside who was there; nothing of what could not
    be computed."""
    rows = table(review(development()), 7).rows
    assert rows[3] == ("C-index, bootstrap of the nomogram step", "apparent 0.720, optimism 0.015",
                       "corrected 0.705 (0.650-0.760)")
    assert rows[4] == ("Slope, bootstrap of the nomogram step", "apparent 1.000", "corrected 0.930")
    assert rows[5] == ("Sample size for its parameters", "3 parameters, R2 0.099", "150 patients needed, 1,200 there")
    assert rows[6][1:] == ("900 parameters, R2 0.099", "45,678 patients needed, 1,200 there")
    bare = development(corrected=None, by_parameters=None, by_candidates=None)
    assert len(table(review(bare), 7).rows) == 3
    assert 7 not in {one.number for one in review_tables(made.results(), review(None))}


# ---- Tables 8 and 9 --------------------------------------------------------------------------------------------------

def test_table_8_dashes_what_has_too_few_events() -> None:
    """Counts stand for every subgroup, figures only where they are known; the column is called as people call it."""
    slope = Estimate(0.9, 0.5, 1.3)
    parts = (Subgroup("external", "tnm_stage", "IVa", 40, 12, Estimate(0.66, 0.5, 0.8), made.OE, slope),
             Subgroup("training", "age", "> 52", 9, 3, *[Estimate(nan)] * 3))
    found = table(review(subgroups=parts), 8)
    assert found.rows == tuple(subgroup_rows(review(subgroups=parts)))
    assert found.rows[0] == ("External", "TNM stage", "IVa", "40", "12", "0.660 (0.500-0.800)", "1.100 (0.900-1.300)",
                             "0.900 (0.500-1.300)")
    assert found.rows[1] == ("Training", "Age", "> 52", "9", "3", "-", "-", "-") and "O/E at 12 months" in found.header


def test_table_9_has_differences_and_missing_values() -> None:
    """Differences with two decimals where they are known, then what each centre lacks, of how many."""
    done = review(differences={"external": {"age": Estimate(-0.512, -1.0, 0.02), "ic": Estimate(nan)}})
    assert table(done, 9).rows == (("Age", "External", "-0.51 (-1.00 to +0.02)"), ("Age: missing", "B", "1 of 4"),
                                   ("TNM: missing", "B", "1 of 4"), ("IC: missing", "A", "1 of 6"))


def test_missing_values_are_counted_by_centre() -> None:
    """Only where some are missing; a column that the table lacks is left out."""
    rows = pd.DataFrame({"center": ["B", "A", "B"], "age": [nan, 1.0, nan], "ic": [0.0, 1.0, 1.0]})
    assert missing_rows(rows, ["age", "ic", "gone"]) == [("Age", "B", "2", "2")]


# ---- Tables 10 and 14 ------------------------------------------------------------------------------------------------

def test_table_10_compares_rivals_with_both_models() -> None:
    """Each rival with its C and what the nomogram and DeepMTS have more; a cohort that was not appraised is dashed."""
    versus = {"clinical_ridge": Estimate(0.05, 0.01, 0.09, 0.02)}
    known = judged()
    rival = {split: made.evaluation("clinical_ridge", split, c=c) for split, c in (
        ("external", Estimate(0.65, 0.6, 0.7, 0.1)), ("training", Estimate(0.6)))}
    more = known.evaluations | {("clinical_ridge", split): one for split, one in rival.items()}
    found = rival_table(judged(evaluations=more, appraisals={("mtdlr", "external"): made.appraisal(versus=versus)}))
    rows = {row[:2]: row[2:] for row in found.rows}
    assert found.header[4:] == ("C of MTDLR less it", "C of DeepMTS less it")
    assert rows["Clinical ridge Cox", "External"] == (
        "0.650 (0.600-0.700)", "0.100", "+0.050 (+0.010 to +0.090), P 0.020", "-")
    assert rows["Clinical ridge Cox", "Training"] == ("0.600", "-", "-", "-")
    assert rows["MTDLR", "External"][2:] == ("-", "-")
    assert rival_table(known).rows == ()


def test_table_14_has_each_arm_below_the_full_signature() -> None:
    """The full signature first, with the C of its score; then each modality with what it kept and what it lost."""
    arms = (Arm("auto", "PET", "external", 400, 3, Estimate(0.61, 0.5, 0.72), Estimate(0.05, -0.01, 0.11, 0.1)),
            Arm("auto", "CT", "external", 500, 0, Estimate(nan), Estimate(nan)),
            Arm("manual", "PET", "training", 400, 2, Estimate(0.6), Estimate(0.1)),
            Arm("manual", "CT", "external", 500, 1, Estimate(0.5), Estimate(0.2)))
    known = judged(evaluations={("auto_radio", "external"): made.evaluation("auto_radio", c=Estimate(0.66, 0.6, 0.72))})
    assert arms_table(arms, known).rows == (
        ("AutoRadio-Score, PET and CT", "External", "-", "0.660 (0.600-0.720)", "-"),
        ("AutoRadio-Score, PET alone", "External", "3 of 400", "0.610 (0.500-0.720)", "+0.050 (-0.010 to +0.110), P "
                                                                                      "0.100"),
        ("AutoRadio-Score, CT alone", "External", "0 of 500", "not estimable", "-"),
        ("ManualRadio-Score, PET and CT", "Training", "-", "-", "-"),
        ("ManualRadio-Score, PET alone", "Training", "2 of 400", "0.600", "+0.100 (no interval)"),
        ("ManualRadio-Score, PET and CT", "External", "-", "-", "-"),
        ("ManualRadio-Score, CT alone", "External", "1 of 500", "0.500", "+0.200 (no interval)"))
    assert arms_numbers(arms)[1] == {
        "source": "auto", "modality": "CT", "split": "external", "candidates": 500, "kept": 0,
        "c": dict.fromkeys(("value", "low", "high", "p")), "lost": dict.fromkeys(("value", "low", "high", "p"))}
    assert arms_table((), known).rows == ()


# ---- Table 11 --------------------------------------------------------------------------------------------------------

def competing(split: str = "training", *, groups: bool = True, p: float = 0.0312) -> CompetingRisks:
    """Eight patients: three failures from the cause, two from another."""
    time, cause = np.arange(1.0, 9.0), np.array([1, 2, 1, 0, 2, 1, 0, 0])
    parts = {"All": np.ones(8, dtype=bool)} | ({"Low risk": time > 4, "High risk": time <= 4} if groups else {})
    curves = {name: cumulative_incidence(time[rows], cause[rows]) for name, rows in parts.items()}
    values = {name: {3.0: Estimate(0.25, 0.1, 0.5), 6.0: Estimate(nan)} for name in parts}
    return CompetingRisks("mtdlr", split, "Other death", 8, 3, 2, curves, values, p)


def test_table_11_counts_failures_of_each_group() -> None:
    """Patients, failures from the cause and from others, incidence by month, and P once, beside the high-risk group."""
    found = competing_table([competing()])
    assert found.header[6:] == ("Incidence at 3 months (95% CI)", "Incidence at 6 months (95% CI)", "P (Gray)")
    assert found.rows == (
        ("Training", "Other death", "All", "8", "3", "2", "0.250 (0.100-0.500)", "not estimable", "-"),
        ("Training", "Other death", "Low risk", "4", "1", "1", "0.250 (0.100-0.500)", "not estimable", "-"),
        ("Training", "Other death", "High risk", "4", "2", "1", "0.250 (0.100-0.500)", "not estimable", "0.031"))
    assert competing_table([]).rows == () and competing_figures([]) == {}


def test_figure_8_says_what_it_shows() -> None:
    """The caption names the causes; one group alone is drawn as everybody, without a test."""
    caption, figure = competing_figures([competing(groups=False, p=nan), competing("external")])["8"]
    assert "(rows: other death)" in caption and "95 % intervals" in caption
    words = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert sum("Gray P = 0.031" in word for word in words) == 1 and "All" in words and "High risk" in words


def test_competing_numbers_are_plain() -> None:
    """An unknown P or incidence is null; months are keys."""
    found = json.loads(json.dumps(competing_numbers(competing(p=nan)), allow_nan=False))
    assert (found["n"], found["events"], found["competing"], found["gray_p"]) == (8, 3, 2, None)
    assert found["incidence"]["All"]["3"]["low"] == 0.1 and found["incidence"]["High risk"]["6"]["value"] is None


# ---- evaluation.json -------------------------------------------------------------------------------------------------

def test_evaluation_json_holds_the_tables_numbers() -> None:
    """What the tables print stands there as plain numbers, null for what is not estimable, under the printed names."""
    found = json.loads(json.dumps(evaluation_numbers(made.results()), allow_nan=False))
    assert found["schema"] == 2 and found["model"] == "0123456789abcdef" and found["months"] == [6.0, 12.0]
    assert found["follow_up"]["training"]["value"] == 14.0 and found["characteristics"][1]["p"] is None
    own = next(one for one in found["performance"] if (one["model"], one["cohort"]) == ("mtdlr", "external"))
    assert own["label"] == "MTDLR" and own["c"]["low"] == 0.66 and own["auc"]["12"]["p"] == 0.01
    assert own["auc_vs_stage"]["6"]["p"] == 0.049 and own["groups"]["hazard_ratio"]["high"] == 7.5
    assert own["groups"]["cutoff"] == 0.25 and own["groups"]["log_rank_p"] == 0.013
    assert own["calibration"]["6"] == {
        "slope": {"value": 0.9, "low": 0.6, "high": 1.2, "p": None}, "ici": 0.041, "gnd_p": 0.57, "hl_binary_p": 0.031,
        "oe": {"value": 1.1, "low": 0.9, "high": 1.3, "p": None}}
    age = found["univariate"][0]
    assert (age["variable"], age["cohort"], age["hazard_ratios"][""]["value"]) == ("age", "training", 1.5)
    assert age["hazard_ratio_per_sd"]["high"] == 4.2 and found["multivariate"][0]["hazard_ratio_per_sd"] is None
    assert found["optimism"]["deepmts"]["in_sample"]["value"] == 0.95
    assert found["calibration"][3]["cohort"] == "external" and found["calibration"][3]["months"] == 12.0


def test_the_reviews_numbers_are_plain() -> None:
    """Every estimate of the appraisal stands as numbers or null; without a development there is none."""
    found = json.loads(json.dumps(review_numbers(review(development())), allow_nan=False))
    assert found["development"]["needed"] == {"parameters": 150, "candidates": 45678}
    assert found["development"]["corrected_slope"] == 0.93 and found["development"]["corrected_c"]["low"] == 0.65
    assert found["development"]["proportional_hazards_p"]["GLOBAL"] == 0.032
    deep = found["appraisals"][1]
    assert deep["model"] == "deepmts" and deep["uno_c"]["value"] is None and deep["auc_over_time"] is None
    main = found["appraisals"][0]
    assert main["benefit"]["12"]["value"] == [0.3, 0.2, 0.1] and main["over_all"]["12"]["low"] == [-0.1, 0.05, 0.1]
    assert main["brier"]["12"]["ipa"] == 0.25 and main["brier"]["12"]["null"] == 0.2
    assert review_numbers(review(None))["development"] is None


def test_an_unknown_count_of_events_has_no_figure() -> None:
    """A model that could not be judged keeps its counts in evaluation.json, and null for the rest."""
    blind = made.evaluation(c=None, concordance_vs_stage=None, auc={}, auc_vs_stage={}, calibration={}, groups=None,
                            n=1, n_events=0)
    own = made.results()
    known = replace(own.findings, evaluations={("mtdlr", "external"): blind})
    (found,) = evaluation_numbers(replace(own, findings=known))["performance"]
    assert (found["n"], found["events"], found["c"]["value"], found["groups"]) == (1, 0, None, None)
    assert found["auc"] == found["calibration"] == {} and found["c_vs_stage"] is None


def test_tables_without_rows_are_not_printed() -> None:
    """No rivals, no causes, no scans, no arms: Tables 10, 11, 12 and 14 are left out, and the others keep their
    numbers."""
    numbers = [one.number for one in review_tables(made.results(), review())]
    assert numbers == [5, 6, 9]
