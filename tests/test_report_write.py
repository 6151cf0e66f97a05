"""The rows of the report's page from numbers made up by hand: flow, optimism, calibration, signatures, settings."""

from __future__ import annotations

from dataclasses import replace
from math import nan
from pathlib import Path

import one_study as made
import pytest

from mtdlr.errors import Problem
from mtdlr.estimate import Estimate
from mtdlr.report import write as module
from mtdlr.report.results import Results
from mtdlr.report.write import (
    CALIBRATION_TESTS,
    flow,
    group_problems,
    optimism_rows,
    settings_rows,
    signature_rows,
    slope_rows,
)


@pytest.fixture(scope="module")
def results() -> Results:
    """Six training patients and four external ones."""
    return made.results()


def test_the_flow_counts_patients_and_events(results: Results) -> None:
    """Each cohort by name with patients, events, their share and the median follow-up."""
    found = flow(results)
    assert found["included"] == 10 and found["left_out"] == [] and found["codes"] == []
    assert found["arms"] == [
        {"name": "Training cohort", "n": 6, "events": 3, "share": "50 %", "follow_up": "median follow-up 14 months"},
        {"name": "External validation cohort", "n": 4, "events": 2, "share": "50 %",
         "follow_up": "median follow-up 11 months"}]


def test_the_flow_names_who_was_left_out(results: Results) -> None:
    """Patients with an error once each, by name; a code counts its patients once each, and warnings leave nobody
    out."""
    problems = (Problem("E-SUV", "x", patients=("B", "A")), Problem("E-SUV", "y", patients=("A",)),
                Problem("E-GRID", "z", patients=("A",)), Problem("W-ROI", "w", patients=("C",)),
                Problem("E-COLUMN", "of nobody"))
    found = flow(replace(results, problems=problems))
    assert found["left_out"] == ["patient A", "patient B"]
    assert found["codes"] == [("E-COLUMN", 0), ("E-GRID", 1), ("E-SUV", 2)]


def test_optimism_is_in_sample_beside_every_cohort(results: Results) -> None:
    """A score by its title, then C in sample, out of fold and outside; what is no score of the paper has no row."""
    assert optimism_rows(results) == [("DeepMTS-Score", "0.950 (0.900-1.000)", "0.700 (0.600-0.800)",
                                       "0.650 (0.500-0.800)")]
    more = {**results.findings.optimism, "other": {"in_sample": Estimate(1.0)}}
    assert len(optimism_rows(replace(results, findings=replace(results.findings, optimism=more)))) == 1


def test_slopes_stand_by_kind_cohort_and_month(results: Results) -> None:
    """Slope, O/E and P of the chosen test at each horizon; a cohort without calibration has no row."""
    cells = ("0.900 (0.600-1.200)", "1.100 (0.900-1.300)", "0.570")
    assert slope_rows(results) == [("out-of-fold scores", "Training", *cells * 2),
                                   ("out-of-fold scores", "External", *cells * 2)]
    paper = made.results({"evaluate": {"calibration_test": "hl_binary"}})
    assert [row[4] for row in slope_rows(paper)] == ["0.031"] * 2
    inside = {"in-sample scores": {("training", month): made.calibration(month) for month in (6.0, 12.0)}}
    alone = replace(results, findings=replace(results.findings, calibrations=inside))
    assert [row[:2] for row in slope_rows(alone)] == [("in-sample scores", "Training")]
    assert set(CALIBRATION_TESTS) == {"gnd", "hl_binary"}


def test_signatures_begin_with_the_largest_weight(results: Results) -> None:
    """Coefficients with their sign, the largest in size first, each with the share in which it was selected."""
    assert signature_rows(results)["auto"] == [("ct_original_shape_Volume", "-0.3500", "55 %"),
                                               ("pet_original_glcm_Contrast", "+0.2000", "80 %")]
    three = made.signature(features=("a", "b", "c"), coef=(0.2, -0.35, 0.5), selected_in=(1.0, 0.994, 0.0))
    assert signature_rows(made.results(model=made.model(signatures={"auto": three})))["auto"] == [
        ("c", "+0.5000", "0 %"), ("b", "-0.3500", "99 %"), ("a", "+0.2000", "100 %")]
    empty = made.signature(features=(), coef=(), selected_in=())
    assert signature_rows(made.results(model=made.model(signatures={"auto": empty}))) == {"auto": []}


def test_settings_show_what_was_changed_and_no_path() -> None:
    """Every setting has its row; a changed one is marked; of a path the last part alone is shown, for folders may name
    people."""
    own = made.results({"cohort": {"images": "/home/dr_smith/scans", "seed": 3}})
    rows = {key: (text, changed) for key, text, changed in settings_rows(own)}
    assert rows["cohort.images"] == ("scans", True) and rows["cohort.seed"] == ("3", True)
    assert rows["radiomics.pet_bin_width"] == ("0.25", False) and rows["nomogram.months"] == ("[6.0, 12.0]", True)
    assert not any("smith" in text for text, _ in rows.values()) and not any(key.startswith("run.") for key in rows)


def test_problems_of_one_code_keep_their_order() -> None:
    """Errors before warnings, codes by their letters, lines as they came and without their code."""
    groups = group_problems([Problem("W-B", "second"), Problem("W-A", "x", found="1", expected="2", remedy="Do"),
                             Problem("E-Z", "error"), Problem("W-B", "third")])
    assert [group.code for group in groups] == ["E-Z", "W-A", "W-B"]
    assert groups[2].lines == ("second.", "third.") and groups[1].lines[0].startswith("x")
    assert all(part in groups[1].lines[0] for part in ("1", "2", "Do")) and group_problems([]) == []


def test_a_pdf_that_cannot_be_written_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    """W-PDF where a PDF is asked for and the library is not there; hours of work are not lost for it."""
    wanted = made.results({"report": {"pdf": True}})
    monkeypatch.setattr(module, "can_write_pdf", lambda: False)
    (problem,) = module._no_pdf(wanted)
    assert problem.code == "W-PDF" and problem.place == "report.pdf" and "WeasyPrint" in problem.expected
    assert "docs-out" in problem.remedy and module._no_pdf(made.results()) == []
    monkeypatch.setattr(module, "can_write_pdf", lambda: True)
    assert module._no_pdf(wanted) == []


def test_a_picture_is_embedded_with_its_kind(tmp_path: Path) -> None:
    """SVG and JPEG become data addresses of their own type."""
    for name, begins in (("a.svg", "data:image/svg+xml;base64,"), ("b.jpg", "data:image/jpeg;base64,")):
        (tmp_path / name).write_bytes(b"abc")
        assert module._embedded(tmp_path / name) == f"{begins}YWJj"


def test_the_digest_stands_for_every_number(results: Results) -> None:
    """Another risk, score or model is another digest; the same numbers are the same."""
    assert results.digest == made.results().digest
    risks = results.findings.risks.copy()
    risks.iloc[0, 0] += 1e-9
    scores = results.scores.copy()
    scores.iloc[-1, -1] = nan
    others = (replace(results, findings=replace(results.findings, risks=risks)), replace(results, scores=scores),
              replace(results, model=made.model(digest="f" * 16)))
    assert len({results.digest, *(one.digest for one in others)}) == 4
