"""The first page and the reviewer's part: what they say follows the numbers, and what cannot be computed is said."""

from __future__ import annotations

import json
from dataclasses import replace
from math import isfinite
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from test_tables import results  # noqa: F401  (the made-up study)

from mtdlr.cohort import Cohort
from mtdlr.errors import Problem, StudyError
from mtdlr.estimate import Estimate
from mtdlr.evaluate import judge
from mtdlr.evaluate.appraise import Development
from mtdlr.evaluate.arms import Arm
from mtdlr.evaluate.rivals import Rivals
from mtdlr.nomogram.scores import DEEP_PLAIN
from mtdlr.report import review as module
from mtdlr.report import shown
from mtdlr.report.checklist import fill_checklists
from mtdlr.report.facts import facts_of, review_facts
from mtdlr.report.figures.judged import concordance_figure
from mtdlr.report.figures.page import page, save, sheet
from mtdlr.report.numbers import evaluation_numbers
from mtdlr.report.pictures import make_figures, write_figures
from mtdlr.report.results import Results
from mtdlr.report.review import Review, review, review_figures, review_numbers, review_tables, write_review
from mtdlr.report.summary import FEW, Judged, strongest_rival, summary_lines
from mtdlr.report.tables import make_tables
from mtdlr.stats.decision import integrated_brier
from mtdlr.survival import Survival
from mtdlr.workers import aside


@pytest.fixture(scope="module")
def done(results: Results) -> Review:  # noqa: F811
    """The review of the made-up study."""
    return review(results)


def _line(judged: Judged, question: str) -> tuple[str, str]:
    found = next(line for line in summary_lines(judged) if line.question == question)
    return found.answer, found.mark


def _changed(done: Review, split: str, **values: object) -> Judged:
    """The same study with other numbers of the main model in one cohort."""
    judged, key = done.judged, (done.judged.main, split)
    return replace(judged, evaluations={**judged.evaluations, key: replace(judged.evaluations[key], **values)})


def test_ten_lines_say_what_the_numbers_say(done: Review) -> None:
    """At most ten lines; the first holds the C-index outside, patients and events."""
    lines, found = summary_lines(done.judged), done.judged.evaluations["mtdlr", "external"]
    assert 5 < len(lines) <= 10
    assert f"{found.c.value:.3f}" in lines[0].answer and f"{found.n_events} events" in lines[0].answer
    assert lines[0].mark == ("good" if found.c.low > 0.5 else "bad")


def test_a_difference_is_better_worse_or_not_shown(done: Review) -> None:
    """The line on the stage follows the interval of the paired difference."""
    question, key = "Better than the stage?", ("mtdlr", "external")
    for difference, begins, mark in ((Estimate(0.1, 0.05, 0.15, 0.001), "Yes", "good"),
                                     (Estimate(-0.1, -0.2, -0.05, 0.001), "No, worse", "bad"),
                                     (Estimate(0.05, -0.05, 0.15, 0.3), "Not shown", "open")):
        appraisal = replace(done.judged.appraisals[key], versus={"stage": difference})
        judged = replace(done.judged, appraisals={**done.judged.appraisals, key: appraisal})
        answer, found = _line(judged, question)
        assert answer.startswith(begins) and found == mark


def test_few_events_do_not_look_sure(done: Review) -> None:
    """Seven events: not sure at all, and a good C-index is an open question; 886 patients with 200 events are sure."""
    few = _changed(done, "external", n=36, n_events=7)
    assert _line(few, "How sure is this?") == (_line(few, "How sure is this?")[0], "bad")
    assert "Not at all: 7 events" in _line(few, "How sure is this?")[0] and FEW > 7
    assert _line(few, "Does it work?")[1] != "good"
    good = {line.question for line in summary_lines(few) if line.mark == "good"}
    assert good <= {"Were there enough patients?", "What is wrong?"}
    assert _line(_changed(done, "external", n=886, n_events=200), "How sure is this?")[1] == "good"


def test_unos_c_must_agree_that_it_works(done: Review) -> None:
    """A Harrell's C above chance whose Uno's C may be chance is an open question, however many events there are."""
    key, many = ("mtdlr", "external"), _changed(done, "external", n=886, n_events=200)
    assert _line(many, "Does it work?")[1] == "good"
    doubted = replace(many.appraisals[key], uno=Estimate(0.55, 0.37, 0.74))
    answer, mark = _line(replace(many, appraisals={**many.appraisals, key: doubted}), "Does it work?")
    assert mark == "open" and "not shown by Uno's, 0.550 (0.370-0.740)" in answer


@pytest.mark.parametrize(("all_from", "own_to", "answer", "mark"), [
    (2, 5, "at thresholds from", "good"), (5, 2, "at any threshold", "open"), (3, 3, "except at", "open")])
def test_a_decision_needs_to_beat_nobody_too(done: Review, all_from: int, own_to: int, answer: str, mark: str) -> None:
    """Net benefit must be shown above treating everybody and above treating nobody, at more than one threshold."""
    key = ("mtdlr", "external")
    appraisal = done.judged.appraisals[key]
    month = max(appraisal.over_all)
    place = np.arange(appraisal.over_all[month].thresholds.size)
    over = replace(appraisal.over_all[month], low=np.where(place >= all_from, 0.1, -0.1))
    own = replace(appraisal.benefit[month], low=np.where(place <= own_to, 0.1, -0.1))
    changed = replace(appraisal, over_all={month: over}, benefit={**appraisal.benefit, month: own})
    judged = replace(done.judged, appraisals={**done.judged.appraisals, key: changed})
    said, found = _line(judged, "Would it help decisions?")
    assert answer in said and found == mark


def test_the_strongest_rival_may_be_a_part(done: Review) -> None:
    """A score that enters the nomogram and is ahead of it is called one of its parts; another model is not."""
    question, key = "Better than the strongest other model?", ("mtdlr", "external")
    rival = strongest_rival(done.judged, "external")
    assert done.judged.parts == ("auto_radio", "deepmts") and rival is not None
    assert ("one of its own parts" in _line(done.judged, question)[0]) == (rival in done.judged.parts)
    evaluations = {**done.judged.evaluations, ("deepmts", "external"): replace(
        done.judged.evaluations[key], model="deepmts", concordance=replace(
            done.judged.evaluations[key].concordance, c=Estimate(0.99, 0.98, 1.0, 0.001)))}
    said = _line(replace(done.judged, evaluations=evaluations), question)[0]
    assert "against DeepMTS, one of its own parts, (" in said


def test_probabilities_no_better_than_no_model_are_not_right(done: Review) -> None:
    """The line on probabilities has the IPA; at or below 0 a fitting O/E is no good calibration."""
    found, key = done.judged.evaluations["mtdlr", "external"], ("mtdlr", "external")
    calibration = {month: replace(one, oe=Estimate(1.02, 0.9, 1.15)) for month, one in found.calibration.items()}
    judged = _changed(done, "external", calibration=calibration, n_events=200)
    assert "IPA" in _line(judged, "Are its probabilities right?")[0]
    brier = {month: replace(one, ipa=-0.08) for month, one in judged.appraisals[key].brier.items()}
    worse = replace(judged, appraisals={**judged.appraisals, key: replace(judged.appraisals[key], brier=brier)})
    assert _line(worse, "Are its probabilities right?")[1] == "open"
    assert "IPA -8.0%: no better than no model." in _line(worse, "Are its probabilities right?")[0]


def test_a_wide_interval_is_no_good_calibration(done: Review) -> None:
    """O/E 1.12 (0.66 to 1.92) is open, 1.02 (0.9 to 1.15) good, 1.5 (1.2 to 1.9) bad."""
    for oe, mark in ((Estimate(1.12, 0.66, 1.92), "open"), (Estimate(1.02, 0.9, 1.15), "good"),
                     (Estimate(1.5, 1.2, 1.9), "bad")):
        found = done.judged.evaluations["mtdlr", "external"]
        calibration = {month: replace(one, oe=oe) for month, one in found.calibration.items()}
        changed = _changed(done, "external", calibration=calibration, n_events=200)
        assert _line(changed, "Are its probabilities right?")[1] == mark


def test_what_is_wrong_names_the_codes(done: Review) -> None:
    """Errors and warnings of the run are named by code; without any, nothing was noticed."""
    wrong = replace(done.judged, problems=(Problem("E-SUV", "x"), Problem("W-ROI", "y")))
    assert "1 kind of error (E-SUV) and 1 kind of warning (W-ROI)" in _line(wrong, "What is wrong?")[0]
    assert _line(replace(done.judged, problems=()), "What is wrong?")[1] == "good"
    many = replace(done.judged, problems=[Problem(f"W-{name}", "x") for name in ("A", "B", "NEGATIVEWEIGHT", "RIVAL")])
    assert "(W-NEGATIVEWEIGHT, W-RIVAL, W-A, W-B)" in _line(many, "What is wrong?")[0], "the gravest first"


def test_what_the_appraisal_found_fills_items(results: Results, done: Review) -> None:  # noqa: F811
    """Net benefit, subgroups with events and two centres are facts of this run; without them the items stay open."""
    judged, parts = done.judged, done.subgroups
    facts = review_facts(results, judged=judged, parts=parts)
    assert facts["decision"].value.endswith("external validation cohort at 12 and 24 months")
    assert facts["by_centre"].value == ""
    one = next(part for part in parts if part.variable == "center" and isfinite(part.c.value))
    two = (replace(one, level="A"), replace(one, level="B"), replace(one, variable="gender", level="Male"))
    facts = review_facts(results, judged=judged, parts=two)
    assert facts["by_centre"].value.count("O/E") == 2 and facts["subgroups"].value.endswith("by gender")
    items = {(i.checklist, i.number): i.status for i in fill_checklists(facts_of(results) | facts, {})}
    assert items["CLEAR", "42"] == "done" and items["TRIPOD+AI", "14"] == "part"
    nothing = review_facts(results, judged=replace(judged, appraisals={}), parts=())
    assert {fact.value for fact in nothing.values()} == {""}


def test_a_cohort_without_events_is_judged_elsewhere(done: Review) -> None:
    """FAULTS 92: without an event outside, the training cohort is judged, both are said; without any, one line."""
    none = {key: replace(e, n_events=0, concordance=None, concordance_vs_stage=None) if key[1] == "external" else e
            for key, e in done.judged.evaluations.items()}
    said = summary_lines(replace(done.judged, evaluations=none))[0].answer
    assert "in the training cohort, the only one that can be judged" in said
    assert "The external validation cohort (60 patients, 0 events) cannot tell." in said
    nobody = {key: replace(e, n_events=0, concordance=None) for key, e in none.items()}
    assert [line.question for line in summary_lines(replace(done.judged, evaluations=nobody))] == [
        "Does it work?", "What is wrong?"]


def test_every_number_is_in_the_json(results: Results, done: Review) -> None:  # noqa: F811
    """The numbers are plain JSON and those of the appraisal; nan is null."""
    numbers = json.loads(json.dumps(review_numbers(done), allow_nan=False))
    own = next(a for a in numbers["appraisals"] if (a["model"], a["cohort"]) == ("mtdlr", "external"))
    assert own["uno_c"]["value"] == done.judged.appraisals["mtdlr", "external"].uno.value
    assert own["c_versus"]["stage"]["p"] == done.judged.appraisals["mtdlr", "external"].versus["stage"].p
    assert isinstance(done.development, Development) and numbers["development"]["n"] == 100
    assert set(own["brier"]) == {"12", "24"}


def test_the_integrated_error_is_the_librarys(results: Results, done: Review) -> None:  # noqa: F811
    """Table 6 and evaluation.json hold the Brier score integrated over the months 1 to 24 of the frozen nomogram."""
    nomogram, months = results.model.nomograms["mtdlr"], np.arange(1.0, 25.0)
    rows = results.cohort.of("external").table.join(results.scores)
    surv = Survival(rows["time_months"].to_numpy(), rows["event"].to_numpy())
    expected = integrated_brier(nomogram.survival(rows, months).value, surv, months)
    assert review_numbers(done)["integrated_brier"]["external"]["ibs"] == pytest.approx(expected.ibs)
    assert 0.0 < expected.ibs < expected.null_ibs < 0.25
    table = next(t for t in review_tables(results, done) if t.number == 6)
    assert ("External", "1 to 24", *["-"] * 6, f"{expected.ibs:.3f}", f"{expected.ipa:.1%}") in table.rows


@pytest.mark.slow
def test_the_page_gets_figures_tables_and_lists(results: Results, done: Review, tmp_path: Path) -> None:  # noqa: F811
    """Figures have captions for those who do not see them, tables are written, checklists filled."""
    shown = write_review(results, done, tmp_path)
    assert {"_summary", "4", "5", "6", "7"} == set(shown["review_figures"])
    assert all(len(caption) > 30 and data.startswith("data:image/svg") for caption, data in
               shown["review_figures"].values())
    assert (tmp_path / "figures" / "figure4.pdf").exists() and (tmp_path / "tables" / "table5.csv").exists()
    assert len((tmp_path / "checklists.csv").read_text().splitlines()) == 141
    assert shown["metrics"].certain > 20 and shown["checklist_counts"]["CLEAR"]["done"] > 10


def test_arms_have_a_table_where_there_are_any(results: Results, done: Review) -> None:  # noqa: F811
    """Table 14 stands among the tables of a run that fitted arms, and in no other."""
    arm = Arm("auto", "PET", "external", 700, 3, Estimate(0.6, 0.5, 0.7, 0.1), Estimate(0.05, -0.05, 0.15, 0.3))
    numbers = [[table.number for table in review_tables(replace(results, arms=arms), done)] for arms in ((), (arm,))]
    assert 14 not in numbers[0] and numbers[1] == [*numbers[0], 14]


@pytest.mark.slow
def test_a_figure_for_a_journal_has_600_dpi(tmp_path: Path) -> None:
    """On request a figure is also a TIFF of 600 dpi, 84 mm wide; without the request there is none."""
    figure = concordance_figure({"Training": {"MTDLR": Estimate(0.7, 0.6, 0.8)}}, width="single")
    write_figures({"1": ("C", figure)}, tmp_path / "with", tiff=True)
    write_figures({"1": ("C", figure)}, tmp_path / "without")
    with Image.open(tmp_path / "with" / "figure1.tiff") as picture:
        assert picture.width == pytest.approx(84 / 25.4 * 600, abs=2)
        assert [round(float(d)) for d in picture.info["dpi"]] == [600, 600]
    assert not (tmp_path / "without" / "figure1.tiff").exists()


def test_the_development_is_of_the_patients_that_the_nomogram_saw(
    results: Results, monkeypatch: pytest.MonkeyPatch  # noqa: F811
) -> None:
    """A training patient without a stage, which is imputed for the nomogram, counts in its events per parameter."""
    table = results.cohort.table.copy()
    table.loc[table.index[table["split"] == "training"][:3], "tnm"] = np.nan
    seen: list[pd.DataFrame] = []

    def stop(_: object, rows: pd.DataFrame, *__: object, **___: object) -> None:
        seen.append(rows)
        raise InterruptedError

    for name, value in (("appraise", {}), ("subgroups", ())):
        monkeypatch.setattr(module, name, lambda *_, value=value, **__: value)
    monkeypatch.setattr(module, "develop", stop)
    with pytest.raises(InterruptedError):
        review(replace(results, cohort=Cohort(table, {})))
    assert len(seen[0]) == 100 and seen[0]["tnm"].notna().all()


@pytest.mark.slow
def test_a_hopeless_study_is_still_reviewed(results: Results, tmp_path: Path) -> None:  # noqa: F811
    """No event outside and one patient inside: the review is written, and holds no made-up number."""
    table = results.cohort.table.copy()
    table.loc[table["split"] == "external", "event"] = False
    found = review(replace(results, cohort=Cohort(table, {})))
    assert {split for _, split in found.judged.appraisals} == {"training"}
    assert not any(isfinite(s.c.value) for s in found.subgroups if s.split == "external")
    shown = write_review(replace(results, cohort=Cohort(table, {})), found, tmp_path, hand_over=lambda *_: None)
    assert shown["summary"] and np.isfinite(shown["metrics"].certain)


@pytest.mark.slow
def test_a_rival_that_is_ahead_is_in_the_first_lines(results: Results) -> None:  # noqa: F811
    """Rivals and DeepMTS without its measures are in Table 10 and evaluation.json with each cohort's C; one that is
    ahead out of fold is said among the first lines, and the lines stay ten. Without rivals there is no Table 10."""
    table, rng = results.cohort.table, np.random.default_rng(0)
    better = results.findings.risks["mtdlr"] - 0.05 * table["time_months"]
    scores = results.scores.assign(**{DEEP_PLAIN: results.scores["deepmts"] + rng.normal(size=len(table))})
    rivals = Rivals(pd.DataFrame({"clinical_ridge": better, "image_pca": rng.normal(size=len(table))}, table.index))
    findings = judge(results.model, table, scores, results.study.evaluate, rivals=rivals)
    shown = replace(results, scores=scores, findings=findings, problems=findings.problems)
    done = review(shown)
    lines = summary_lines(done.judged)
    answer, mark = _line(done.judged, "Would a simpler model do?")
    assert len(lines) <= 10 and lines.index(next(x for x in lines if x.answer == answer)) <= 2
    assert "Clinical ridge Cox" in answer and mark == "bad" and "Image-PCA" not in answer
    rows = {row[:2]: row[2:] for row in next(t for t in review_tables(shown, done) if t.number == 10).rows}
    assert {name for name, _ in rows} == {"MTDLR", "DeepMTS", "DeepMTS without measures", "Clinical ridge Cox",
                                          "Image-PCA ridge Cox"}
    c = findings.evaluations["clinical_ridge", "external"].c.value
    assert rows["Clinical ridge Cox", "External"][0].startswith(f"{c:.3f}")
    numbers = {(one["model"], one["cohort"]): one for one in evaluation_numbers(shown)["performance"]}
    assert numbers["clinical_ridge", "external"]["c"]["value"] == c
    assert numbers["clinical_ridge", "external"]["label"] == "Clinical ridge Cox"
    assert 10 not in {t.number for t in review_tables(results, review(results))}


@pytest.mark.slow
def test_figures_that_another_process_prints_have_the_same_bytes(tmp_path):
    """A figure's PDF, PNG and TIFF do not depend on which process writes them."""
    figure = page("single", 40.0)
    sheet(figure).text(5.0, 20.0, "C 0.71 (0.60 to 0.82), α ≤ 0.05")
    write_figures({"1": ("A caption.", figure)}, tmp_path / "here", tiff=True)
    with aside(2) as hand_over:
        write_figures({"1": ("A caption.", figure)}, tmp_path / "there", tiff=True, hand_over=hand_over)
    here = {path.name: path.read_bytes() for path in (tmp_path / "here").iterdir()}
    assert here == {path.name: path.read_bytes() for path in (tmp_path / "there").iterdir()}
    assert set(here) == {"figure1.svg", "figure1.pdf", "figure1.png", "figure1.tiff"}


@pytest.fixture
def reviewed(monkeypatch: pytest.MonkeyPatch, done: Review) -> None:
    """A table or figure that is asked for finds the study reviewed already."""
    monkeypatch.setattr(shown, "review", lambda _: done)


@pytest.mark.usefixtures("reviewed")
def test_a_table_of_the_report_is_a_data_frame_of_what_it_prints(results, done):  # noqa: F811
    """`run.table(4)` has the header and the cells of Table 4; later numbers are the report's own tables."""
    four = make_tables(results)[4]
    assert shown.table(results, 4).columns.tolist() == list(four.header)
    assert shown.table(results, 4).to_numpy().tolist() == [list(row) for row in four.rows]
    later = review_tables(results, done)[0]
    assert shown.table(results, later.number).to_numpy().tolist() == [list(row) for row in later.rows]


@pytest.mark.slow
def test_a_figure_of_the_report_is_drawn_by_its_name(results, done, tmp_path):  # noqa: F811
    """`run.figure("2a")` is the nomogram that the report shows, byte for byte when saved."""
    save(shown.figure(results, "2a"), tmp_path / "one.svg")
    save(make_figures(results)["2a"][1], tmp_path / "other.svg")
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "other.svg").read_bytes()
    assert shown.figure(results, next(iter(review_figures(results, done)))).axes


def test_a_figure_is_one_of_the_paper_or_of_the_review(results, done, monkeypatch):  # noqa: F811
    """A name of the paper's figures is drawn without a review; another is one of the review's figures."""
    asked = []
    monkeypatch.setattr(shown, "make_figures", lambda _: {"2a": ("A caption.", "nomogram")})
    monkeypatch.setattr(shown, "review", lambda of: asked.append(of) or done)
    monkeypatch.setattr(shown, "review_figures", lambda *of: asked.append(of) or {"5": ("Another.", "AUC")})
    assert shown.figure(results, "2a") == "nomogram" and asked == []
    assert shown.figure(results, "5") == "AUC" and asked == [results, (results, done)]
    with pytest.raises(StudyError, match="E-NOTSHOWN") as refused:
        shown.figure(results, "9z")
    assert (refused.value.problems[0].found, refused.value.problems[0].expected) == ("figure 9z", "2a, 5")


@pytest.mark.usefixtures("reviewed")
def test_a_table_that_is_not_there_is_refused_with_those_that_are(results):  # noqa: F811
    """E-NOTSHOWN names what was asked for and everything that the report has."""
    with pytest.raises(StudyError, match="E-NOTSHOWN") as refused:
        shown.table(results, 99)
    problem = refused.value.problems[0]
    assert problem.found == "table 99" and problem.expected.startswith("1, 2, 3, 4, 5")
