"""Tables 1-4: the right numbers in the right cells, every cell safe wherever it is opened."""

from __future__ import annotations

import csv
import re
import zipfile
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_models import STUDY, _study_data, fitted

from mtdlr.associate import study_associations
from mtdlr.cohort import Cohort
from mtdlr.cohort.characteristics import characteristics
from mtdlr.evaluate import Judged, evaluate
from mtdlr.nomogram.fit import fit_nomogram
from mtdlr.radiomics import PET_LABELS
from mtdlr.report.documents import EPOCH, to_csv, to_html, to_latex, write_table
from mtdlr.report.numbers import evaluation_numbers
from mtdlr.report.results import Results
from mtdlr.report.tables import FIRTH, Table, make_tables
from mtdlr.spreadsheet import plain_cell
from mtdlr.stats.cox import fit_cox
from mtdlr.stats.cox_firth import firth_cox, profile_interval
from mtdlr.study import Study, models_of
from mtdlr.survival import Survival

NASTY = Table(9, "A <b>title</b> & more", ("Name", "=cmd|' /C calc'!A0"),
              (("  <script>alert(1)</script>", "+1+1"), ("50 % of a_b", "-")), ("note",))


@pytest.fixture(scope="module")
def results() -> Results:
    """The results of a made-up study; no images."""
    return _made_up()


@cache
def _made_up() -> Results:
    """Fitted once for the six test files that read it and change nothing in it."""
    table, folds, raw, features = _study_data()
    rng = np.random.default_rng(0)
    table = table.assign(age=rng.normal(50, 10, len(table)), gender=rng.choice(["Male", "Female"], len(table)),
                         ic=rng.integers(0, 2, len(table)).astype(float))
    table.loc["P3", "age"] = np.nan
    study = Study.of({"cohort": {"stage": "tnm", "continuous": ["age"], "described": ["ic"],
                                 "factors": {"gender": ["Male", "Female"], "tnm": ["III", "IVa"],
                                             "t": ["T1", "T2", "T3"]}}, "nomogram": {"months": [12, 24]}})
    table["t"] = rng.choice(["T1", "T2"], len(table))
    pet = pd.DataFrame({"suv_max": rng.gamma(5, 2, len(table))}, index=table.index)
    found = fitted(table, folds, raw, features)
    return Results(study, Cohort(table, {}), found.model, found.scores, found.findings,
                   characteristics(table, study.cohort, pet, PET_LABELS),
                   study_associations(table.join(pet).join(found.scores), study, pet.columns), features,
                   {"manual": pet}, {}, {}, ())


def _rows(table: Table) -> dict[str, tuple[str, ...]]:
    return {row[0].strip(): row[1:] for row in table.rows}


def test_table_1_counts_everybody_once(results: Results) -> None:
    """Levels add up to the cohort, percentages belong to them, and a missing value takes no part."""
    table = make_tables(results)[1]
    rows = _rows(table)
    assert table.header == ("Characteristic", "Training cohort (n = 100)", "External validation cohort (n = 60)", "P")
    men, women = rows["Male"], rows["Female"]
    assert int(men[0].split()[0]) + int(women[0].split()[0]) == 100
    ages = results.cohort.of("training").table["age"].dropna()
    assert rows["Age"][0].startswith(f"{ages.median():.4g} (")
    assert rows["T3"] == ("0 (0.0%)", "0 (0.0%)", "") and "SUVmax (g/ml)" in rows
    events = int(results.cohort.of("external").table["event"].sum())
    assert rows["Event"][1] == f"{events} ({100 * events / 60:.1f}%)"


def test_table_2_is_a_cox_model_of_each_variable(results: Results) -> None:
    """A cell is the hazard ratio of that variable alone in that cohort; references and empty levels say so."""
    rows = _rows(make_tables(results)[2])
    external = results.cohort.of("external")
    fit = fit_cox(results.scores.loc[external.ids, "deepmts"].to_numpy()[:, None], external.survival)
    ratio = fit.hazard_ratios()["x1"]
    assert rows["DeepMTS-Score"][2] == f"{ratio.value:.3f} ({ratio.low:.3f}-{ratio.high:.3f})"
    assert rows["III"] == ("Reference", "-") * 2
    assert rows["T3"][0] == "not estimable" and rows["T"][0] == "-"
    found = next(one for one in results.associations.univariate if (one.name, one.split) == ("auto_radio", "external"))
    assert found.per_sd is not None
    assert rows["per SD"][2].startswith(f"{found.per_sd.value:.3f} (")  # of the last variable: AutoRadio-Score


def test_a_separated_level_has_firths_ratio(results: Results) -> None:
    """A level without events has the profile interval of Firth's likelihood, marked; without it, it would be 0."""
    table = results.cohort.table.copy()
    table.loc[table["t"] == "T2", "event"] = False
    found = next(one for one in study_associations(table.join(results.pet_parameters["manual"]).join(results.scores),
                                                   results.study, ["suv_max"]).univariate
                 if (one.name, one.split) == ("t", "external"))
    rows = table[table["split"] == "external"]
    surv = Survival(rows["time_months"].to_numpy(float), rows["event"].to_numpy(bool))
    level = (rows["t"] == "T2").to_numpy(float)[:, None]
    expected = profile_interval(level, surv, 0, firth=True)
    assert found.penalised == ("T2",)
    assert (found.ratios["T2"].value, found.ratios["T2"].high) == pytest.approx((expected.value, expected.high))
    assert 0.0 < found.ratios["T2"].low < found.ratios["T2"].value < 1.0 and found.ratios["T2"].p < 0.05
    assert found.ratios["T2"].value == pytest.approx(firth_cox(level, surv).hazard_ratios()["x1"].value)
    changed = replace(results, associations=study_associations(
        table.join(results.pet_parameters["manual"]).join(results.scores), results.study, ["suv_max"]))
    assert _rows(make_tables(changed)[2])["T2"][2].endswith(FIRTH)
    numbers = evaluation_numbers(changed)["univariate"]
    assert next(n for n in numbers if (n["variable"], n["cohort"]) == ("t", "external"))["firth"] == ["T2"]


@pytest.mark.parametrize("select", ["off", "gain"])
def test_table_3_holds_the_nomograms_variables(results: Results, select: str) -> None:
    """The multivariate model has the candidates of the MTDLR nomogram, and its training column the HRs of the nomogram
    that takes them all; one that got no weight is named under the table."""
    nomogram = results.study.nomogram.model_copy(update={"select": select})
    study = results.study.model_copy(update={"nomogram": nomogram})
    rows = results.cohort.table.join(results.scores)
    main = next(model for model in models_of(study) if model.name == "mtdlr")
    nomograms = {**results.model.nomograms, "mtdlr": fit_nomogram(rows, main, study)}
    table = make_tables(replace(results, model=replace(results.model, nomograms=nomograms)))[3]
    found = _rows(table)
    assert list(found) == ["TNM", "III", "IVa", "AutoRadio-Score", "per SD", "DeepMTS-Score"]
    ratio = nomograms["mtdlr"].cox.hazard_ratios()["deepmts"]
    assert found["DeepMTS-Score"][0].startswith(f"{ratio.value:.3f} (") == (select == "off")
    assert ("Not in the nomogram: AutoRadio-Score." in table.footnotes) == (select == "gain")


def test_table_4_has_every_model_in_every_cohort(results: Results) -> None:
    """One row a model and cohort; the stage is compared with nothing."""
    table = make_tables(results)[4]
    assert len(table.rows) == 8 * 2 and len(table.header) == 5 + 3 * 2
    first = table.rows[0]
    assert first[:2] == ("Stage", "Training") and first[4] == "-"
    assert STUDY.cohort.stage == "tnm"


def test_every_number_has_its_method(results: Results) -> None:
    """Each table says in its footnotes how its numbers were made."""
    assert all(table.footnotes for table in make_tables(results).values())


@pytest.mark.parametrize(("preset", "ties", "roc", "header"), [
    ("paper", "breslow", "DeLong", "AUC"), ("modern", "efron", "censoring weights", "AUC at 12 months"),
])
def test_paper_and_modern(results: Results, preset: str, ties: str, roc: str, header: str) -> None:
    """In `paper` mode Table 2 is Breslow's and Table 4 has the ROC of the status, in `modern` Efron's and AUC(t); the
    footnotes say so."""
    study = Study.of({"preset": preset, "nomogram": {"months": [12, 24]}, "cohort": results.study.cohort.model_dump()})
    rows = results.cohort.table
    cohort = Cohort(rows.assign(time_months=np.ceil(rows["time_months"] / 6) * 6), {})  # tied
    found = evaluate(Judged(results.findings.risks, results.findings.predicted, results.model.cutoffs), cohort.table,
                     study.nomogram.months, study.evaluate)
    pet = results.pet_parameters["manual"]
    tables = make_tables(replace(
        results, study=study, cohort=cohort, findings=replace(results.findings, evaluations=found),
        associations=study_associations(cohort.table.join(pet).join(results.scores), study, pet.columns)))
    external = cohort.of("external")
    fit = fit_cox(results.scores.loc[external.ids, "deepmts"].to_numpy()[:, None], external.survival, ties=ties)
    ratio = fit.hazard_ratios()["x1"]
    assert _rows(tables[2])["DeepMTS-Score"][2] == f"{ratio.value:.3f} ({ratio.low:.3f}-{ratio.high:.3f})"
    assert all(any(f"{ties.title()}'s" in note for note in tables[k].footnotes) for k in (2, 3))
    assert any(roc in note for note in tables[4].footnotes) and f"{header} (95% CI)" in tables[4].header
    auc = found["mtdlr", "external"].auc[0.0 if preset == "paper" else 12.0].auc
    row = next(r for r in tables[4].rows if r[:2] == ("MTDLR", "External"))
    assert row[5] == f"{auc.value:.3f} ({auc.low:.3f}-{auc.high:.3f})"


def test_no_cell_is_a_formula_or_markup(tmp_path: Path) -> None:
    """FAULTS 59, 80: formulas are defused in CSV and spreadsheets, markup is escaped in HTML, TeX stays text."""
    assert plain_cell("=1+1") == "'=1+1" and plain_cell("-1+cmd|x") == "'-1+cmd|x"
    assert plain_cell("-") == "-" and plain_cell("-0.5 (-1.0-0.2)") == "-0.5 (-1.0-0.2)"
    cells = list(csv.reader(to_csv(NASTY).splitlines()))
    assert cells[0][1].startswith("'=") and cells[1][1] == "'+1+1"
    assert "<script>" not in to_html(NASTY) and "&lt;script&gt;" in to_html(NASTY) and "<b>" not in to_html(NASTY)
    assert r"50 \% of a\_b" in to_latex(NASTY)
    written = write_table(NASTY, tmp_path)
    assert {p.suffix for p in written} >= {".csv", ".html", ".tex"}


def test_spreadsheet_and_word_hold_the_same_cells(results: Results, tmp_path: Path) -> None:
    """The Excel and Word files hold the printed cells."""
    openpyxl, docx = pytest.importorskip("openpyxl"), pytest.importorskip("docx")
    table = make_tables(results)[3]
    write_table(table, tmp_path)
    sheet = openpyxl.load_workbook(tmp_path / "table3.xlsx").active
    assert tuple(cell.value for cell in sheet[1]) == table.header
    word = docx.Document(str(tmp_path / "table3.docx")).tables[0]
    assert [cell.text for cell in word.rows[-1].cells] == [cell.strip() for cell in table.rows[-1]]


def test_spreadsheet_and_word_hold_no_time_of_writing(tmp_path: Path) -> None:
    """Every part of the Excel and the Word file is dated 1980, and both name one day as that of their making."""
    pytest.importorskip("openpyxl"), pytest.importorskip("docx")
    for path in (path for path in write_table(NASTY, tmp_path) if path.suffix in (".xlsx", ".docx")):
        with zipfile.ZipFile(path) as parts:
            assert {part.date_time for part in parts.infolist()} == {(1980, 1, 1, 0, 0, 0)}
            days = set(re.findall(r"\d{4}-\d\d-\d\dT[\d:]+", parts.read("docProps/core.xml").decode()))
        assert days == {EPOCH.strftime("%Y-%m-%dT%H:%M:%S")}, path.suffix
