"""Competing events of a study: read by name; cumulative incidence and Gray's test in the report."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_models import STUDY, _study_data, fitted
from test_tables import results  # noqa: F401  (the made-up study)

from mtdlr.cohort.clinical import read_clinical
from mtdlr.errors import TableError
from mtdlr.evaluate.competing import competing_risks
from mtdlr.nomogram.fit import competing_notice
from mtdlr.report.competing import competing_figures, competing_numbers, competing_table
from mtdlr.report.pictures import make_figures
from mtdlr.report.results import Results
from mtdlr.report.review import Review, review_numbers
from mtdlr.report.summary import Judged
from mtdlr.stats.competing import cumulative_incidence, gray_test
from mtdlr.stats.kaplan_meier import kaplan_meier
from mtdlr.study import Study
from mtdlr.survival import Survival


def _study(folder: Path, statuses: list[str], competing: list[str]) -> Study:
    rows = [f"P{k},{10 + k},{status},III" for k, status in enumerate(statuses)]
    (folder / "clinical.csv").write_text("\n".join(["patient_id,time_months,event,tnm_stage", *rows]) + "\n")
    return Study.of({"cohort": {"table": str(folder / "clinical.csv"), "competing": competing, "stage": "tnm_stage",
                                "factors": {"tnm_stage": ["III", "IVa"]}}})


def test_a_type_of_event_is_read_by_its_name(tmp_path: Path) -> None:
    """2 and a word are competing events where they are named: the event is 0, the cause 2 and 3, W-COMPETING counts."""
    study = _study(tmp_path, ["1", "0", "2", "Other death", "other  death"], ["2", "other death"])
    table, problems = read_clinical(study.cohort)
    assert table["event"].tolist() == [1, 0, 0, 0, 0] and table["cause"].tolist() == [1, 0, 2, 3, 3]
    assert [p.code for p in problems] == ["W-COMPETING"]
    assert "1 of '2'" in problems[0].found and "2 of 'other death'" in problems[0].found


def test_an_unnamed_type_is_an_error_that_names_the_setting(tmp_path: Path) -> None:
    """A status of 2 is not guessed to be anything: E-EVENT names cohort.competing."""
    table, problems = read_clinical(_study(tmp_path, ["1", "0", "2"], []).cohort)
    assert "cause" not in table and [p.code for p in problems] == ["E-EVENT"]
    assert "cohort.competing" in problems[0].remedy


def _table(n: int = 200) -> tuple[pd.Series, pd.DataFrame]:
    rng = np.random.default_rng(1)
    risk = pd.Series(rng.normal(size=n), name="mtdlr", index=[f"P{k}" for k in range(n)])
    table = pd.DataFrame({"time_months": rng.exponential(40 * np.exp(-0.8 * risk)) + 0.1,
                          "cause": rng.choice([0, 1, 2], n, p=[0.3, 0.4, 0.3]),
                          "split": np.where(np.arange(n) < 120, "training", "external")}, index=risk.index)
    return risk, table.assign(event=table["cause"] == 1)


def test_incidence_and_gray_are_those_of_the_library() -> None:
    """Table 11 prints the Aalen-Johansen incidence and Gray's P of the groups; 1 - Kaplan-Meier is larger."""
    risk, table = _table()
    found = {one.split: one for one in competing_risks(risk, 0.2, table, (12.0, 36.0))}
    rows = table["split"] == "external"
    time, cause, high = (v[rows].to_numpy() for v in (table["time_months"], table["cause"], risk >= 0.2))
    one = found["external"]
    assert one.gray_p == gray_test(high, time, cause).p
    assert one.incidence["High risk"][12.0] == cumulative_incidence(time[high], cause[high]).at([12.0])[0]
    free = kaplan_meier(Survival(time, cause == 1)).at([36.0])[0].value
    assert one.incidence["All"][36.0].value < 1.0 - free
    assert (one.n, one.events, one.competing) == (80, int((cause == 1).sum()), int((cause == 2).sum()))
    table_rows = competing_table(list(found.values())).rows
    cells = next(row for row in table_rows if row[:3] == ("External", "Event", "High risk"))
    assert cells[6].startswith(f"{one.incidence['High risk'][12.0].value:.3f} (")


def test_each_competing_event_has_its_curve() -> None:
    """The event and every competing event by its name have their own incidence; at any month they and the share without
    any failure (Kaplan-Meier) add up to 1. Gray's test of a competing event is that of its code."""
    risk, table = _table()
    found = competing_risks(risk, 0.2, table, (12.0,), competing=("other death",))
    assert [(one.split, one.cause) for one in found] == [
        (split, cause) for split in ("training", "external") for cause in ("Event", "Other death")]
    rows = table[table["split"] == "training"]
    free = kaplan_meier(Survival(rows["time_months"].to_numpy(), rows["cause"].to_numpy() > 0)).at([12.0])[0].value
    assert sum(one.incidence["All"][12.0].value for one in found[:2]) + free == pytest.approx(1.0)
    high = (risk >= 0.2)[rows.index].to_numpy()
    assert found[1].gray_p == gray_test(high, rows["time_months"], rows["cause"].to_numpy(int), of=2).p
    assert (found[1].events, found[1].competing) == (found[0].competing, found[0].events)


@pytest.mark.slow
def test_the_figure_shows_every_cause_in_every_cohort() -> None:
    """Figure 8 has a row a cause and a column a cohort, both risk groups with the library's numbers, and a caption that
    names the causes for those who do not see it."""
    risk, table = _table()
    found = competing_risks(risk, 0.2, table, (12.0,), competing=("2",))
    caption, figure = competing_figures(found)["8"]
    assert "event, competing event 2" in caption
    panels = [axes for axes in figure.axes if axes.get_xlabel() == "Months"]
    assert len(panels) == 4
    for axes, one in zip(panels, (found[0], found[2], found[1], found[3]), strict=True):
        lines = {line.get_label(): line for line in axes.get_lines()}
        assert set(lines) == {"Low risk", "High risk"}
        curve = one.curves["High risk"]
        drawn = lines["High risk"].get_ydata()
        assert drawn[0] == 0.0 and np.array_equal(drawn[1:], curve.incidence[: len(drawn) - 1])
        assert any("Gray" in text.get_text() for text in axes.texts)
    assert competing_figures(()) == {}


@pytest.mark.slow
def test_a_prediction_says_what_it_means_with_competing_events(results: Results, tmp_path: Path) -> None:  # noqa: F811
    """The nomogram of a study with competing events says in the model's problems, in its caption and in its calculator
    that a probability is cause-specific; without them nothing is said."""
    cohort = results.study.cohort.model_copy(update={"competing": ("death",)})
    study = results.study.model_copy(update={"cohort": cohort})
    (notice,) = competing_notice(cohort.competing)
    assert notice.code == "W-COMPETING" and "cannot have a competing event" in notice.what and "death" in notice.found
    assert "cannot have a competing event" in make_figures(replace(results, study=study))["2a"][0]
    assert competing_notice(()) == ()
    table, folds, raw, features = _study_data()
    assert notice in fitted(table, folds, raw, features, study=STUDY.model_copy(update={
        "cohort": STUDY.cohort.model_copy(update={"competing": ("death",)})})).model.problems


def test_what_cannot_be_computed_is_null() -> None:
    """One group, no event, or no causes at all: no P, no made-up number, no table."""
    risk, table = _table()
    alone = competing_risks(risk, float("nan"), table, (12.0,))
    assert all(np.isnan(one.gray_p) and set(one.curves) == {"All"} for one in alone)
    none = competing_risks(risk, 0.0, table.assign(cause=0), (12.0,))
    assert json.loads(json.dumps(competing_numbers(none[0]), allow_nan=False))["gray_p"] is None
    assert competing_risks(risk, 0.0, table.drop(columns="cause"), (12.0,)) == () and not competing_table(()).rows


def test_the_numbers_are_in_evaluation_json(results: Results) -> None:  # noqa: F811
    """evaluation.json holds incidence and Gray's P of the main nomogram by cohort."""
    risk, table = results.findings.risks["mtdlr"], results.cohort.table.copy()
    table["cause"] = np.where(table["event"], 1, np.where(np.arange(len(table)) % 3 == 0, 2, 0))
    found = competing_risks(risk, results.model.cutoffs["mtdlr"], table, (12.0, 24.0))
    judged = Judged("mtdlr", "stage", {}, {}, {}, None, (), True)
    done = Review(judged, None, (), {}, found)
    numbers = json.loads(json.dumps(review_numbers(done), allow_nan=False))["competing_risks"]
    assert [n["cohort"] for n in numbers] == ["training", "external"]
    assert numbers[0]["incidence"]["All"]["24"]["value"] == found[0].incidence["All"][24.0].value
    assert numbers[1]["competing"] > 0


def test_a_table_error_is_still_an_error(tmp_path: Path) -> None:
    """A column that is not there is E-COLUMN, with competing events as without."""
    study = _study(tmp_path, ["1", "0"], ["2"])
    with pytest.raises(TableError, match="E-COLUMN"):
        read_clinical(study.cohort.model_copy(update={"event": "status"}))
