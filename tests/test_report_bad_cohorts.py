"""Cohorts that can judge little: the report says what cannot be computed and why, and is otherwise complete."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_models import STUDY, _study_data, fitted

from mtdlr.associate import study_associations
from mtdlr.cohort import Cohort
from mtdlr.cohort.characteristics import characteristics
from mtdlr.evaluate.appraise import appraise
from mtdlr.radiomics import PET_LABELS
from mtdlr.report import pictures, review, write
from mtdlr.report.pictures import make_figures, undrawn
from mtdlr.report.results import Results
from mtdlr.report.write import write_report
from mtdlr.survival import Survival
from mtdlr.workers.planning import noticed

Change = Callable[[pd.DataFrame], pd.DataFrame]
SECTIONS = ("summary", "warnings", "flow", "tables", "nomogram", "discrimination", "groups", "review", "optimism",
            "masks", "signatures", "training", "checklists", "patients", "settings")


def _outside(table: pd.DataFrame) -> pd.Index:
    return table.index[table["split"] == "external"]


def _no_event(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(event=table["event"] & (table["split"] != "external"))


def _short(table: pd.DataFrame) -> pd.DataFrame:
    """Nobody outside is followed to a horizon; the first four months have events."""
    changed, rows = table.copy(), _outside(table)
    changed.loc[rows, "time_months"] = np.minimum(table.loc[rows, "time_months"], 8 + 0.01 * np.arange(len(rows)))
    changed.loc[rows, "event"] = table.loc[rows, "event"] & (changed.loc[rows, "time_months"] < 4)
    return changed


def _one(table: pd.DataFrame) -> pd.DataFrame:
    """One external patient, with an event."""
    rows = _outside(table)
    return table.drop(index=rows.drop(table.index[table["event"] & table.index.isin(rows)][0]))


def _alone(table: pd.DataFrame) -> pd.DataFrame:
    return table.drop(index=_outside(table))


def _three(table: pd.DataFrame) -> pd.DataFrame:
    """Of the external patients the last three are an internal cohort."""
    return table.assign(split=np.where(np.arange(len(table)) < len(table) - 3, table["split"], "internal"))


def _same(table: pd.DataFrame) -> pd.DataFrame:
    return table


def _results(change: Change, *, constant: bool = False, masked: bool = True) -> Results:
    """The results of a made-up study of a training and an external cohort.

    Args:
        change: what happens to its table.
        constant: whether every network gives everybody one risk.
        masked: whether the external patients have manual masks.
    """
    table, folds, raw, features = _study_data()
    table = change(table.assign(age=np.random.default_rng(0).normal(50, 10, len(table))))
    features = {source: values.loc[table.index].copy() for source, values in features.items()}
    pet = pd.DataFrame({"suv_max": np.random.default_rng(1).gamma(5, 2, len(table))}, index=table.index)
    if not masked:
        features["manual"].loc[_outside(table)] = np.nan
    risks = {i: {"risks": {"deepmts": [1.0] * 3, "csn-only": raw[i]["risks"]["csn-only"]} if constant else
                 raw[i]["risks"]} for i in table.index}
    study = STUDY.model_copy(update={"cohort": STUDY.cohort.model_copy(update={"continuous": ("age",)})})
    found = fitted(table, folds[folds.index.isin(table.index)], risks, features)
    manual = pet if masked else pet.where(table["split"] != "external")
    return Results(study, Cohort(table, {}), found.model, found.scores, found.findings,
                   characteristics(table, study.cohort, manual, PET_LABELS),
                   study_associations(table.join(manual).join(found.scores), study, pet.columns), features,
                   {"manual": manual, "auto": pet}, {}, {}, found.problems)


def _on_disk(results: Results, folder: Path) -> Results:
    """The results with a folder for each patient; those without manual parameters have no manual mask."""
    known = results.pet_parameters["manual"]["suv_max"].notna()
    places = {i: folder / i for i in results.cohort.ids}
    for i, place in places.items():
        place.mkdir(parents=True)
        agreement = {"dice": 0.8, "hausdorff95_mm": 5.0, "volume_ml": 11.0, "reference_ml": 10.0} if known[i] else {}
        (place / "facts.json").write_text(json.dumps({"facts": {}, "audit": {}, "problems": []}))
        (place / "score.json").write_text(json.dumps({"agreement": agreement, "problems": []}))
    return replace(results, prepared=places, scored=places)


def _refuse(name: str) -> None:
    raise AssertionError(f"{name} is no JSON")


@pytest.mark.slow
@pytest.mark.parametrize(("name", "said"), [
    ("no event", ("(60 patients, 0 events) cannot tell", "No ROC curve at 12 months in the external validation cohort: "
                  "no event", "W-NOEVENTS")),
    ("short", ("No calibration at 24 months in the external validation cohort: no event before the horizon, or nobody "
               "followed beyond it", "Cannot be said: no event before a horizon", "W-HORIZON")),
    ("one", ("(1 patient, 1 event) cannot tell", "median follow-up not reached", "W-NOPAIRS",
             "no patient was followed for longer than another with an event")),
    ("alone", ("in the training cohort, the only one that can be judged",)),
    ("three", ("Internal validation cohort (n = 3)",)),
    ("constant", ("MTDLR has a C-index of",)),
    ("no masks", ("60 patients without a score are left out", "no manual mask", "W-NOSCORE")),
])
def test_a_poor_cohort_has_a_whole_report(
    name: str, said: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page says what a cohort cannot tell and why; it has every section, no nan, and a text for every picture."""
    change = {"no event": _no_event, "short": _short, "one": _one, "alone": _alone, "three": _three}.get(name, _same)
    for module in (write, review):
        monkeypatch.setattr(module, "write_table", lambda *_: [])  # five files a table: tested elsewhere
        monkeypatch.setattr(module, "write_word", lambda *_, **__: Path())
    monkeypatch.setattr(pictures, "FORMATS", (".svg",))
    results = _on_disk(_results(change, constant=name == "constant", masked=name != "no masks"), tmp_path / "patients")
    folder = tmp_path / "report"
    folder.mkdir()
    write_report(results, folder)
    page = (folder / "report.html").read_text(encoding="utf-8")
    text = re.sub(r"<[^>]*>", " ", re.sub(r"<(style|script).*?</\1>", "", page, flags=re.DOTALL))
    everything = text + "".join(path.read_text() for path in (folder / "patients").glob("*.html"))
    assert [line for line in said if line not in everything] == []
    assert re.findall(r"\b(?:nan|inf|None)\b", text) == []
    assert [section for section in SECTIONS if f'<section id="{section}"' not in page] == []
    assert len(re.findall(r"<img ", page)) == len(re.findall(r'<img [^>]*alt="[^"]{5,}"', page)) > 5
    json.loads((folder / "evaluation.json").read_text(), parse_constant=_refuse)
    noted = [problem["code"] for problem in json.loads((folder / "problems.json").read_text())]
    assert {code: noted.count(code) for code in noted} == {
        group.code: len(group.lines) for group in write.group_problems(noticed({"report": folder}, folder))}
    assert [code for code in set(noted) if f'>{code}</span>' not in page] == []


@pytest.mark.slow
def test_what_cannot_be_drawn_is_said_and_not_drawn() -> None:
    """A cohort without events has neither calibration nor ROC panel: both are said with the reason, by horizon."""
    results = _results(_no_event)
    assert undrawn(results) == {
        number: [f"No {what} at {month} months in the external validation cohort: no event." for month in (12, 24)]
        for number, what in (("2", "calibration"), ("3", "ROC curve"))}
    figures = make_figures(results)
    assert "2b" in figures and "2c" not in figures
    assert figures["3a"][0] == "ROC curves of the event by 12 months, training cohort."
    assert len([axes for axes in figures["3a"][1].axes if axes.get_xlabel()]) == 1
    assert pictures.survival_panels(results)["MTDLR"]["External validation cohort"].why == "No event."


@pytest.mark.slow
def test_one_patient_with_an_event_stops_nothing() -> None:
    """Nobody can be ordered: no C, W-NOPAIRS for every model, nothing appraised; the other cohort is whole."""
    results = _results(_one)
    found = results.findings.evaluations["mtdlr", "external"]
    assert found.concordance is None and (found.n, found.n_events) == (1, 1)
    assert [p.code for p in found.problems] == ["W-NOPAIRS"]
    appraisals = appraise(results.findings.risks, results.findings.predicted, results.cohort.table, (12.0, 24.0),
                          cutoffs=results.model.cutoffs)
    assert {split for _, split in appraisals} == {"training"}
    assert np.isnan(results.findings.optimism["deepmts"]["external"].value)


@pytest.mark.parametrize(("time", "event", "orderable"), [
    ([1.0, 2.0], [1, 0], True), ([1.0, 1.0], [1, 0], True), ([1.0, 1.0], [1, 1], False), ([2.0, 1.0], [1, 0], False),
    ([1.0, 2.0], [0, 0], False), ([1.0], [1], False), ([], [], False)])
def test_patients_can_be_ordered(time: list[float], event: list[int], orderable: bool) -> None:
    """An event with a patient followed for longer, or censored at that time, is what a concordance needs."""
    assert Survival(time, np.array(event, dtype=int)).orderable is orderable
