"""`mtdlr check` on a hospital's raw export: everything that is wrong, in one table, and nobody named."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from io import StringIO
from pathlib import Path

import messy_export as messy
import pandas as pd
import pytest

from mtdlr.cohort.check import Checked, check_study, few_steps
from mtdlr.cohort.check_table import as_csv, as_text, rows_of, scans_text
from mtdlr.errors import Problem, ScanError, TableError
from mtdlr.pipeline import Run
from mtdlr.predict import one_scan
from mtdlr.prepare import Prepared, read_patient
from mtdlr.study import PrepareSettings, Study
from mtdlr.workers import Workers

EXPECTED = {
    "P02": "E-WEIGHT", "P03": "E-NOINJECTION", "P04": "W-DOSEMBQ", "P05": "E-NAC", "P06": "E-GAP", "P07": "E-TIME",
    "P08": "E-LEVEL", "P09": "E-SERIESTIE", "P10": "E-DICOM", "P12": "E-NOSCAN", "P13": "E-ROINAME",
}  # fmt: skip
NAME = "ZZPHI"


@pytest.fixture(scope="module")
def study_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return messy.write_messy_export(tmp_path_factory.mktemp("hospital"))


@pytest.fixture(scope="module")
def checked(study_file: Path) -> Checked:
    before = sorted(study_file.parent.rglob("*"))
    found = check_study(study_file)
    assert sorted(study_file.parent.rglob("*")) == before
    return found


def of(checked: Checked, patient: str) -> set[str]:
    return {p.code for p in checked.problems if patient in p.patients}


@pytest.mark.slow
def test_everything_wrong_comes_at_once(checked: Checked) -> None:
    """Eleven faults of eleven patients, the copied patient and the scan without a row: each under its own code."""
    expected = {p: {code} for p, code in EXPECTED.items()} | {"P10": {"E-DICOM", "E-GAP"}}
    assert {patient: of(checked, patient) for patient in EXPECTED} == expected
    assert of(checked, "P01") == of(checked, "P11") == {"E-SAMEIMAGE"}
    assert {p.code for p in checked.problems if not p.patients} == {
        "W-NOROW", "W-EPV", "W-FEWSTEPS", "E-FEWEVENTS", "W-VALIDATION"}
    assert checked.usable == ("P04", "P15", "P16", "P17", "P18")


@pytest.mark.slow
def test_each_error_says_what_to_do(checked: Checked, study_file: Path) -> None:
    """Every row of a patient's scans has a remedy, and no row holds a traceback, a path or a UID."""
    rows = rows_of(checked.problems)
    assert [row for row in rows if not row.remedy] == []
    text = as_text(checked)
    assert "Traceback" not in text and str(study_file.parent) not in text and "1.2.826" not in text


@pytest.mark.slow
@pytest.mark.parametrize("width", [80, 120, 200])
def test_the_table_fits_the_screen(checked: Checked, width: int) -> None:
    """No line is wider than the terminal, errors stand above warnings, the last line says who can be used."""
    lines = as_text(checked, width=width).splitlines()
    assert max(map(len, lines)) <= width
    codes = [line.split()[0] for line in lines if line[:2] in ("E-", "W-")]
    assert codes == sorted(codes, key=lambda code: code[0])
    assert "5 patients can be used" in as_text(checked, width=200).splitlines()[-1]


def test_the_same_fault_of_many_is_one_row() -> None:
    """Seventy patients with one fault are one row that names six; the CSV has a line for each."""
    problems = tuple(Problem("W-DOSEMBQ", "taken as MBq", where="PET: Dose").of_patient(f"P{n:02d}") for n in range(70))
    (row,) = rows_of(problems)
    assert len(row.patients) == 70 and "and 64 more" in as_text(Checked(problems))
    assert len(list(csv.DictReader(StringIO(as_csv(Checked(problems)))))) == 70


@pytest.mark.parametrize("id_", ["a:b", "patient 1", "1, 2", "P1: PET", "x"])
def test_a_problem_knows_its_patients(id_: str) -> None:
    """Ids with colons, commas and the word patient stay whole; a patient is put in front once; JSON brings it back."""
    problem = Problem("E-WEIGHT", "no weight", where="PET").of_patient(id_)
    assert problem.patients == (id_,) and problem.place == "PET" and problem.of_patient("other") is problem
    assert str(problem) == f"E-WEIGHT patient {id_}: PET: no weight."
    again = Problem(**json.loads(json.dumps(problem.as_dict())))
    assert again == problem and replace(again, found="nothing").where == problem.where
    assert problem.at("line 3").where == f"patient {id_}: line 3: PET"
    older = Problem("E-WEIGHT", "no weight", where=f"patient {id_}: PET").of_patient(id_)
    assert older == problem
    assert "patients" not in Problem("E-WEIGHT", "no weight").as_dict()
    assert Problem("E-SAMEIMAGE", "twice", patients=("a:b", "c")).where == "patients a:b, c"


def test_the_csv_starts_no_formula() -> None:
    """FAULTS 59: a cell that a spreadsheet would run is quoted."""
    checked = Checked((Problem("E-LEVEL", "=cmd()", where="stage", found="@x", patients=("P1",)),))
    (row,) = csv.DictReader(StringIO(as_csv(checked)))
    assert row["what"] == "'=cmd()" and row["found"] == "'@x" and row["patient"] == "P1"


@pytest.mark.slow
def test_choice_and_suv_are_told(checked: Checked) -> None:
    """For each patient: the series taken, why, what was left and why not, and what the SUV rests on."""
    first = scans_text(checked, width=200).split("P02:")[0]
    assert "attenuation corrected" in first and "left: PT series" in first and "not corrected for attenuation" in first
    assert "in the PET's frame of reference" in first and "localiser" not in first
    assert "BQML, 72 kg, 324 MBq, 56 min uptake, decay reference from series time" in first


@pytest.mark.slow
def test_settings_heal_what_they_can(checked: Checked, study_file: Path) -> None:
    """A series asked for ends the tie, a structure's name and an uptake time end their errors; nobody else changes."""
    told = checked
    tie = next(p for p in told.problems if p.code == "E-SERIESTIE").found
    key = tie.split("PT series ")[1][:8]
    healed = check_study(study_file, [f'cohort.series=["{key}"]', "cohort.mask_name=GTVp", "prepare.uptake_min=60"])
    gone = {p.code for p in told.problems} - {p.code for p in healed.problems}
    assert gone == {"E-SERIESTIE", "E-ROINAME", "E-NOINJECTION", "W-VALIDATION"}
    assert set(healed.usable) - set(told.usable) == {"P03", "P09", "P13"}
    unknown = check_study(study_file, ['cohort.series=["deadbeef"]'])
    assert "E-NOSERIES" in {p.code for p in unknown.problems}


@pytest.mark.slow
def test_run_works_from_the_messy_export(study_file: Path, tmp_path: Path) -> None:
    """`run` refuses the table's errors at once; with the table mended it prepares all but those whose scans are bad."""
    with pytest.raises(TableError) as caught:
        Run(Study.load(study_file), tmp_path / "run").until("prepare")
    assert {p.code for p in caught.value.problems} == {"E-TIME", "E-LEVEL"}
    rows = "\n".join(f"P{n:02d},{20 + n},1,IVa" for n in range(1, 19) if n not in (11, 14))
    (tmp_path / "mended.csv").write_text("patient_id,time_months,event,stage\n" + rows)
    settings = [f"cohort.table={tmp_path / 'mended.csv'}", "cohort.split=center", "cohort.mask_name=GTVp",
                "prepare.uptake_min=60", 'cohort.series=["PET AC*sharp"]', "prepare.size=32", "prepare.spacing_mm=8"]
    with Run(Study.load(study_file, settings), tmp_path / "run", Workers(1)) as run:
        stored = run.until("prepare").prepared
        assert sorted(stored.folders) == [f"P{n:02d}" for n in (1, 3, 4, 7, 8, 9, 13, 15, 16, 17, 18)]
        assert {(p.code, p.patients[0]) for p in stored.problems if p.is_error} == {
            ("E-WEIGHT", "P02"), ("E-GAP", "P06")}
        audit = Prepared.load(stored.folders["P09"]).audit
    assert "asked for" in str(audit["choice"]) and audit["pet"]["suv"]["dose_bq"] > 1e8  # type: ignore[index]


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export whose folders bear the patients' names, as archives make them."""
    folder = tmp_path_factory.mktemp("named")
    for number, name in enumerate((f"{NAME}_ANNA", f"{NAME}_BERT")):
        messy._write_patient(folder / "export", name, number)
        messy.edited(folder / "export" / name, lambda ds, name=name: _identify(ds, name))
    rows = "".join(f"{NAME}_{given},20,1,III\n" for given in ("ANNA", "BERT"))
    (folder / "clinical.csv").write_text("patient_id,time_months,event,stage\n" + rows)
    (folder / "study.toml").write_text(messy.STUDY)
    return folder / "study.toml"


def _identify(ds: object, name: str) -> None:
    ds.PatientIdentityRemoved, ds.PatientName = "NO", name.replace("_", "^")  # type: ignore[attr-defined]
    if "DoseCalibrationFactor" not in ds and ds.Modality == "PT":  # type: ignore[attr-defined, operator]
        ds.PatientWeight = None  # type: ignore[attr-defined]


@pytest.mark.slow
def test_a_prediction_does_not_repeat_the_folders_name(named: Path) -> None:
    """A patient's folder that bears the name is called "patient" in every message of a prediction."""
    scan = one_scan(named.parent / "export" / f"{NAME}_ANNA", None, None)
    with pytest.raises(ScanError, match="E-WEIGHT patient patient: PET") as caught:
        read_patient(scan, PrepareSettings())
    assert NAME not in str(caught.value) + str(scan.problems)


@pytest.mark.slow
def test_folders_that_name_patients_stop_a_run(named: Path, tmp_path: Path) -> None:
    """Names in folders are E-IDFOLDER; check shows lines of the table instead of names; keep_ids lets them pass."""
    found = check_study(named)
    for text in (as_text(found), as_csv(found), scans_text(found), repr(found)):
        assert NAME not in text
    assert "E-IDFOLDER" in {p.code for p in found.problems} and "(line 2)" in as_text(found)
    with pytest.raises(TableError, match="E-IDFOLDER") as caught:
        Run(Study.load(named), tmp_path / "run").until("cohort")
    assert NAME not in str(caught.value)
    kept = check_study(named, ["cohort.keep_ids=true"])
    assert "E-IDFOLDER" not in {p.code for p in kept.problems} and NAME in as_text(kept)


@pytest.mark.parametrize(("settings", "n", "found"), [
    ({}, 29, "14 epochs of 2"), ({}, 120, None), ({"steps_per_epoch": 8}, 29, None),
    ({"epochs": 40, "steps_per_epoch": 2}, 29, "40 epochs of 2")])
def test_a_training_of_few_steps_is_said_beforehand(settings: dict[str, int], n: int, found: str | None) -> None:
    """W-FEWSTEPS names epochs and steps, and the setting that would give a hundred steps."""
    study = Study.of({"preset": "quick", "deepmts": settings})
    training = pd.DataFrame({"center": ["A"] * n})
    problems = few_steps(study, training)
    assert [p.found for p in problems] == ([found] if found else [])
    for problem in problems:
        healed = settings | {"steps_per_epoch": int(problem.remedy.split(" = ")[1])}
        assert not few_steps(Study.of({"preset": "quick", "deepmts": healed}), training)
