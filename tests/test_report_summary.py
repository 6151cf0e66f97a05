"""The first page's lines from numbers made up by hand: one number is changed, and its line says so."""

from __future__ import annotations

from dataclasses import replace
from math import nan
from types import SimpleNamespace
from typing import Any

import numpy as np
import one_study as made
import pytest

from mtdlr.errors import Problem
from mtdlr.estimate import Estimate
from mtdlr.evaluate.appraise import Development
from mtdlr.report.summary import Judged, difference_text, interval_of, strongest_rival, summary_lines
from mtdlr.stats.sample_size import DevelopmentSize

LABELS = {"stage": "Stage", "deepmts": "DeepMTS", "mtdlr": "MTDLR", "single_task_stage": "SingleTask + stage"}


def size(n: int, parameters: int = 3) -> DevelopmentSize:
    """A sample size that asks for n patients."""
    return DevelopmentSize(parameters, 0.1, 0.6, n, n, n, n, n * 0.2, 10.0)


def development(**changes: Any) -> Development:
    """200 patients with 60 events for a nomogram of 3 parameters; 180 were needed."""
    known: dict[str, Any] = {
        "parameters": 3, "candidates": 900, "n": 200, "n_events": 60, "by_parameters": size(180),
        "by_candidates": size(25000, 900), "corrected": None, "proportional": {}, "trends": {}} | changes
    return Development(**known)


def judged(main: dict[str, Any] | None = None, own: dict[str, Any] | None = None, **changes: Any) -> Judged:
    """MTDLR is judged well outside; `main` changes its evaluation there, `own` its appraisal, `changes` the rest."""
    evaluations = {("mtdlr", "training"): made.evaluation(split="training", c=Estimate(0.75, 0.7, 0.8)),
                   ("mtdlr", "external"): made.evaluation(**(main or {})),
                   ("deepmts", "external"): made.evaluation("deepmts", c=Estimate(0.70, 0.6, 0.8)),
                   ("single_task_stage", "external"): made.evaluation("single_task_stage", c=Estimate(0.71, 0.6, 0.8)),
                   ("stage", "external"): made.evaluation("stage", c=Estimate(0.9, 0.8, 1.0))}
    versus = {"stage": Estimate(0.08, 0.02, 0.14, 0.011), "single_task_stage": Estimate(0.01, -0.02, 0.04, 0.5),
              "deepmts": Estimate(0.02, -0.01, 0.05, 0.2)}
    known: dict[str, Any] = {
        "labels": LABELS, "evaluations": evaluations,
        "appraisals": {("mtdlr", "external"): made.appraisal(**({"versus": versus} | (own or {})))},
        "development": development(), "problems": (), "out_of_fold": True, "parts": ("auto_radio", "deepmts")} | changes
    return Judged("mtdlr", "stage", **known)


def said(found: Judged, question: str) -> tuple[str, str]:
    """Answer and mark of a question."""
    (line,) = [line for line in summary_lines(found) if line.question == question]
    return line.answer, line.mark


def asked(found: Judged) -> list[str]:
    """The questions that have an answer."""
    return [line.question for line in summary_lines(found)]


def test_a_good_model_has_ten_good_lines() -> None:
    """All is known and good but the rival, which is not shown to be worse: ten lines, in the order of the page."""
    lines = summary_lines(judged())
    assert [line.question for line in lines] == [
        "Does it work?", "Better than the stage?", "Better than the strongest other model?",
        "Does it keep what it promised?", "Are its probabilities right?",
        "Would it help decisions?", "Do the risk groups differ?", "How sure is this?", "Were there enough patients?",
        "What is wrong?"]
    assert [line.mark for line in lines] == ["good", "good", "open", *["good"] * 7]


def test_a_nomogram_without_a_score_is_said() -> None:
    """Where no score has a weight, the line that compares it with the stage says why they are nearly one."""
    question = "Better than the stage?"
    answer, mark = said(judged(parts=()), question)
    assert answer == (said(judged(), question)[0]
                      + " No score has a weight in the nomogram: none adds to the stage.") and mark == "good"


def test_the_first_line_has_c_patients_and_events() -> None:
    """C with its interval, where it was found, in how many patients with how many events."""
    assert said(judged(), "Does it work?") == (
        "MTDLR has a C-index of 0.720 (0.660-0.780) outside (120 patients, 110 events). Better than chance.", "good")


@pytest.mark.parametrize(("main", "own", "ends", "mark"), [
    ({"c": Estimate(0.55, 0.5, 0.6)}, {}, "Not shown to be better than chance.", "bad"),
    ({"c": Estimate(0.55, 0.5, 0.6)}, {"uno": Estimate(0.55, 0.5, 0.6)}, "Not shown to be better than chance.", "bad"),
    ({"c": Estimate(0.55, 0.501, 0.6)}, {}, "Better than chance.", "good"),
    ({"c": Estimate(0.7)}, {}, "Its error cannot be estimated.", "open"),
    ({"n_events": 19}, {}, "Better than chance.", "open"), ({"n_events": 20}, {}, "Better than chance.", "good"),
    ({}, {"uno": Estimate(0.6, 0.5, 0.7)}, "which censoring moves less.", "open"),
    ({}, {"uno": Estimate(nan)}, "Better than chance.", "good")])
def test_the_first_line_follows_the_interval_of_c(
    main: dict[str, Any], own: dict[str, Any], ends: str, mark: str
) -> None:
    """A lower limit of a half is chance, one above it is not; nineteen events are too few to be sure, twenty are not;
    Uno's C may doubt Harrell's, but not where it is unknown."""
    answer, found = said(judged(main, own), "Does it work?")
    assert answer.endswith(ends) and found == mark


def test_the_internal_cohort_is_judged_where_nobody_is_outside() -> None:
    """External comes before internal, internal before training, and a model judged in training is never good."""
    known = judged().evaluations
    inside = {("mtdlr", "training"): known["mtdlr", "training"],
              ("mtdlr", "internal"): made.evaluation(split="internal")}
    answer, mark = said(judged(evaluations=inside, appraisals={}), "Does it work?")
    assert "in the internal validation cohort (120 patients" in answer and mark == "good"
    alone = judged(evaluations={("mtdlr", "training"): known["mtdlr", "training"]}, appraisals={})
    answer, mark = said(alone, "Does it work?")
    assert "in the training cohort, the only one that can be judged" in answer and mark == "open"
    assert "Does it keep what it promised?" not in asked(alone)


def test_cohorts_that_cannot_tell_are_named_in_the_singular_too() -> None:
    """One patient with one event outside is said in the singular, and the internal cohort is judged."""
    blind = made.evaluation(c=None, n=1, n_events=1)
    found = judged(evaluations={**judged().evaluations, ("mtdlr", "external"): blind,
                                ("mtdlr", "internal"): made.evaluation(split="internal")})
    assert "The external validation cohort (1 patient, 1 event) cannot tell." in said(found, "Does it work?")[0]


def test_the_true_risk_of_simulated_patients_is_told() -> None:
    """Where the truth was judged in the same cohort its C is told; elsewhere, or without a number, nothing is."""
    known = judged().evaluations
    truth = {("truth", "external"): made.evaluation("truth", c=Estimate(0.81, 0.7, 0.9))}
    assert "simulated patients' true risk has 0.810." in said(judged(evaluations=known | truth), "Does it work?")[0]
    for other in ({("truth", "training"): truth["truth", "external"]},
                  {("truth", "external"): made.evaluation("truth", c=None)}):
        assert "simulated" not in said(judged(evaluations=known | other), "Does it work?")[0]


@pytest.mark.parametrize(("difference", "answer", "mark"), [
    (Estimate(0.08, 0.02, 0.14, 0.011), "Yes: C +0.080 against Stage (+0.020 to +0.140, P 0.011).", "good"),
    (Estimate(0.08, 0.0, 0.16, 0.05), "Not shown: C +0.080 against Stage (+0.000 to +0.160, P 0.050).", "open"),
    (Estimate(-0.08, -0.16, -0.01, 0.03), "No, worse: C -0.080 against Stage (-0.160 to -0.010, P 0.030).", "bad"),
    (Estimate(0.08), "Not shown: C +0.080 against Stage (no interval, P -).", "open")])
def test_the_stage_is_beaten_only_beyond_the_interval(difference: Estimate, answer: str, mark: str) -> None:
    """The whole interval above 0 is better, below 0 worse, and anything else is not shown."""
    assert said(judged(own={"versus": {"stage": difference}}), "Better than the stage?") == (answer, mark)


def test_a_difference_that_was_not_computed_is_no_line() -> None:
    """Without a paired difference nothing is said about the stage or a rival."""
    for versus in ({}, {"stage": Estimate(nan), "single_task_stage": Estimate(nan)}):
        assert not {"Better than the stage?", "Better than the strongest other model?"} & set(
            asked(judged(own={"versus": versus})))


def test_the_strongest_other_model_is_neither_stage_nor_truth() -> None:
    """The highest C of the cohort counts, without the model itself, the reference, the truth and what has no label."""
    known = judged().evaluations
    assert strongest_rival(judged(), "external") == "single_task_stage"
    assert strongest_rival(judged(), "internal") is None
    more = {("truth", "external"): made.evaluation("truth", c=Estimate(0.99)),
            ("clinical_ridge", "external"): made.evaluation("clinical_ridge", c=Estimate(0.98)),
            ("deepmts", "external"): made.evaluation("deepmts", c=Estimate(nan))}
    found = judged(evaluations=known | more, labels={**LABELS, "truth": "True risk (simulated)"})
    assert strongest_rival(found, "external") == "single_task_stage"


def test_a_rival_that_is_ahead_takes_the_line() -> None:
    """W-RIVAL is told in its own words with what was found, and the mark is bad; other warnings take no line."""
    ahead = Problem("W-RIVAL", "clinical ridge is ahead of MTDLR", found="0.75 against 0.70")
    answer, mark = said(judged(problems=(Problem("W-EPV", "x"), ahead)), "Would a simpler model do?")
    assert answer == "Yes: clinical ridge is ahead of MTDLR (0.75 against 0.70). Table 10 has all of them."
    assert mark == "bad" and "Better than the strongest other model?" not in asked(judged(problems=(ahead,)))


@pytest.mark.parametrize(("training", "told", "mark"), [
    (0.76, "0.040 lower", "good"), (0.80, "0.080 lower", "open"), (0.85, "0.130 lower", "bad"),
    (0.60, "0.120 higher", "good")])
def test_what_was_promised_is_the_c_of_training(training: float, told: str, mark: str) -> None:
    """A drop below 0.05 is good, below 0.1 open, beyond it bad; a higher C outside is no drop."""
    known = judged().evaluations
    promised = {("mtdlr", "training"): made.evaluation(split="training", c=Estimate(training, 0.5, 0.9))}
    answer, found = said(judged(evaluations=known | promised), "Does it keep what it promised?")
    assert answer.endswith(f"{told} in the other cohort.") and found == mark


def test_the_promise_says_how_training_was_scored() -> None:
    """Out of fold or in sample; after the bootstrap of the nomogram step where there is one."""
    question = "Does it keep what it promised?"
    assert "in training (out of fold); " in said(judged(), question)[0]
    assert "in training (in sample, and so too good); " in said(judged(out_of_fold=False), question)[0]
    corrected = SimpleNamespace(c=Estimate(0.733, 0.7, 0.8), row=lambda name: {"corrected": {"slope": 0.914}[name]})
    assert "; 0.733 after bootstrapping the nomogram step, slope 0.91; " in said(
        judged(development=development(corrected=corrected)), question)[0]


@pytest.mark.parametrize(("oe", "tone", "mark"), [
    (Estimate(1.099, 0.95, 1.2), "as many events as predicted", "good"),
    (Estimate(1.2, 0.81, 1.24), "20% more events than predicted", "good"),
    (Estimate(0.8, 0.7, 1.1), "20% fewer events than predicted", "open"),
    (Estimate(1.0, 0.9, 1.25), "as many events as predicted", "open"),
    (Estimate(1.3, 1.01, 1.6), "30% more events than predicted", "bad"),
    (Estimate(1.0), "as many events as predicted", "bad")])
def test_probabilities_are_right_where_the_interval_is_narrow(oe: Estimate, tone: str, mark: str) -> None:
    """The interval holds 1 and lies between 0.8 and 1.25: good. Wider: open. Without 1, or without an interval: bad."""
    answer, found = said(judged({"calibration": {12.0: made.calibration(12.0, oe)}}), "Are its probabilities right?")
    assert tone in answer and answer.startswith("At 12 months") and found == mark


def test_probabilities_are_told_of_the_last_known_horizon() -> None:
    """A horizon beyond follow-up does not count; where none is known it is said, and a model without survival has no
    line."""
    question = "Are its probabilities right?"
    known = {"calibration": {6.0: made.calibration(6.0), 12.0: made.calibration(12.0, Estimate(nan))}}
    assert said(judged(known), question)[0].startswith("At 6 months 10% more events than predicted (O/E 1.100 (0.900-")
    none = {"calibration": {6.0: made.calibration(6.0, Estimate(nan))}}
    assert said(judged(none), question) == (
        "Cannot be said: no event before a horizon, or follow-up ends before it.", "open")
    assert question not in asked(judged({"calibration": {}}))


def test_no_gain_over_no_model_is_no_good_calibration() -> None:
    """The index of prediction accuracy stands with its sign; at 0 it is no better than no model."""
    question = "Are its probabilities right?"
    right = {"calibration": {12.0: made.calibration(12.0, Estimate(1.0, 0.9, 1.1))}}
    assert said(judged(right), question)[0].endswith(" IPA 25.0%.")
    brier = {12.0: replace(made.appraisal().brier[12.0], ipa=0.0)}
    answer, mark = said(judged(right, {"brier": brier}), question)
    assert answer.endswith(" IPA 0.0%: no better than no model.") and mark == "open"
    assert "IPA" not in said(judged(right, {"brier": {}}), question)[0]
    assert said(judged(right, {"brier": {}}), question)[1] == "good"


def test_decisions_are_helped_between_two_thresholds() -> None:
    """The thresholds at which both intervals lie above 0 are named; a single one is not enough; without net benefit
    there is no line."""
    question = "Would it help decisions?"
    assert said(judged(), question) == ("Net benefit at 12 months is above treating everybody and nobody at thresholds "
                                        "from 20% to 30%.", "good")
    only = {"over_all": {12.0: made.benefit(12.0, [0.0, 0.1, 0.2], [-0.1, 0.0, 0.1])}}
    assert said(judged(own=only), question)[0].endswith("nobody, except at 30%.")
    none = {"over_all": {12.0: made.benefit(12.0, [0.0, 0.1, 0.2], [-0.1, -0.1, 0.0])}}
    assert said(judged(own=none), question)[0].endswith("nobody at any threshold.")
    for nothing in ({}, {12.0: made.benefit(12.0, [nan, nan], [nan, nan])}):
        assert question not in asked(judged(own={"over_all": nothing}))


def test_groups_have_their_ratio_and_their_months() -> None:
    """HR with its interval, then the event-free months; an interval that holds 1 is open; no groups are said."""
    question = "Do the risk groups differ?"
    assert said(judged(), question) == ("High against low risk: HR 3.000 (1.200-7.500); -2.5 event-free months "
                                        "(-4.0 to -1.0).", "good")
    wide = {"groups": made.groups(Estimate(1.5, 0.9, 2.5))}
    assert said(judged(wide, {"restricted_mean": Estimate(nan)}), question) == (
        "High against low risk: HR 1.500 (0.900-2.500).", "open")
    assert said(judged({"groups": made.groups(Estimate(3.0))}), question)[1] == "open"
    assert said(judged({"groups": None}), question) == ("The frozen cut-off does not split this cohort.", "open")


@pytest.mark.parametrize(("events", "begins", "mark"), [
    (19, "Not at all: 19 events in the external validation cohort.", "bad"),
    (20, "Moderately: 20 events in the external validation cohort; the interval of C is 0.12 wide. 100 or", "open"),
    (99, "Moderately: 99 events", "open"), (100, "100 events in the external validation cohort; the interval", "good")])
def test_how_sure_is_a_matter_of_events(events: int, begins: str, mark: str) -> None:
    """Below 20 events nothing is sure, below 100 it is moderate."""
    answer, found = said(judged({"n_events": events}), "How sure is this?")
    assert answer.startswith(begins) and found == mark


def test_few_events_make_good_lines_open() -> None:
    """With nineteen events only the lines on training's size and on problems may be good; bad ones stay bad."""
    few = judged({"n_events": 19, "c": Estimate(0.5, 0.4, 0.6)})
    marks = {line.question: line.mark for line in summary_lines(few)}
    assert {question for question, mark in marks.items() if mark == "good"} == {"Were there enough patients?",
                                                                                "What is wrong?"}
    assert marks["Does it work?"] == "bad" and marks["Better than the stage?"] == "open"


def test_enough_patients_are_those_that_riley_asks_for() -> None:
    """Events per parameter and both sizes are told; a patient too few is open; without a size there is no line."""
    question = "Were there enough patients?"
    assert said(judged(), question) == (
        "200 with 60 events in training, 20.0 events per parameter of the nomogram; Riley's criteria ask for 180 "
        "patients for these 3 parameters and 25,000 for all 900 candidate features.", "good")
    answer, mark = said(judged(development=development(by_parameters=size(201), by_candidates=None)), question)
    assert answer.endswith("ask for 201 patients for these 3 parameters.") and mark == "open"
    assert said(judged(development=development(by_parameters=size(200))), question)[1] == "good"
    for nothing in (None, development(by_parameters=None)):
        assert question not in asked(judged(development=nothing))


def test_what_is_wrong_counts_kinds_and_cuts_the_list() -> None:
    """Four codes of errors and six of warnings are named, more are dots; the gravest warnings come first; an error is
    bad."""
    errors = [Problem(f"E-{k}", "x") for k in "EDCBA"] + [Problem("E-A", "y")]
    warnings = [Problem(f"W-{k}", "x") for k in "GFEDCBA"] + [Problem("W-EPV", "x")]
    assert said(judged(problems=[*errors, *warnings]), "What is wrong?") == (
        "5 kinds of error (E-A, E-B, E-C, E-D, ...) and 8 kinds of warning (W-EPV, W-A, W-B, W-C, W-D, W-E, ...): read "
        "them below.", "bad")
    assert said(judged(problems=[Problem("W-A", "x")]), "What is wrong?") == (
        "1 kind of warning (W-A): read them below.", "open")
    assert said(judged(), "What is wrong?") == ("Nothing was noticed.", "good")


def test_without_a_cohort_that_can_tell_two_lines_are_left() -> None:
    """No order of two patients anywhere: that is said, and what is wrong."""
    blind = {key: replace(one, concordance=None) for key, one in judged().evaluations.items()}
    lines = summary_lines(judged(evaluations=blind))
    assert [line.mark for line in lines] == ["bad", "good"] and "nothing can be said" in lines[0].answer


def test_differences_as_text() -> None:
    """Signs stand before value and limits; P is there where it is known; nothing is a dash."""
    assert difference_text(Estimate(-2.46, -4.04, 1.0, 0.0312), 1) == "-2.5 (-4.0 to +1.0), P 0.031"
    assert difference_text(Estimate(0.1, 0.0, 0.2)) == "+0.100 (+0.000 to +0.200)"
    assert difference_text(Estimate(0.1)) == "+0.100 (no interval)"
    assert difference_text(None) == difference_text(Estimate(nan, 0.0, 1.0)) == difference_text(Estimate(np.inf)) == "-"
    assert interval_of(Estimate(nan, 1.0, 2.0), 0) == "+1 to +2"
