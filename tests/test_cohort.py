"""The cohort: who is in, who is in which split, and nobody twice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mtdlr.cohort import Cohort, imputation, impute, leakage, read_cohort, require_events, split_patients
from mtdlr.cohort.check import sparse
from mtdlr.cohort.patients import survey_cohort
from mtdlr.errors import CohortError, TableError
from mtdlr.imaging import nifti
from mtdlr.study import CohortSettings
from mtdlr.volume import Volume


def _scan(folder: Path, patient: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for kind in ("PT", "CT"):
        (folder / "images").mkdir(parents=True, exist_ok=True)
        nifti.write(folder / "images" / f"{patient}__{kind}.nii.gz",
                    Volume.on_grid(rng.random((6, 6, 6), dtype=np.float32), (3.0, 3.0, 3.0)))


def _settings(folder: Path, rows: list[str], **more: object) -> CohortSettings:
    (folder / "clinical.csv").write_text("patient_id,time_months,event,stage,split,center\n" + "\n".join(rows))
    base = {"images": folder / "images", "table": folder / "clinical.csv", "stage": "stage",
            "factors": {"stage": ("1", "2")}, "split": "given", "center": "center"}
    return CohortSettings(**(base | more))


def _table(n: int, events: int, centers: tuple[str, ...] = ("A",)) -> pd.DataFrame:
    return pd.DataFrame({"event": [k < events for k in range(n)], "time_months": 10.0, "stage": "1",
                         "center": [centers[k % len(centers)] for k in range(n)]}, index=[f"P{k}" for k in range(n)])


def test_a_cell_of_cohort_csv_is_no_formula() -> None:
    """FAULTS 59: an id or a level that a spreadsheet would run is written with an apostrophe; numbers stay numbers."""
    table = pd.DataFrame({"stage": ["=1+1", "III"], "score": [-1.25, 2.0]}, index=pd.Index(["@sum", "P1"], name="id"))
    text = Cohort(table, {}).to_csv()
    assert text.splitlines() == ["id,stage,score", "'@sum,'=1+1,-1.25", "P1,III,2.0"]


def test_patients_without_scans_are_named_and_left_out(tmp_path: Path) -> None:
    """A row without scans and scans without a row are both reported; the rest is the cohort."""
    for k in (1, 2, 9):
        _scan(tmp_path, f"P{k}", k)
    cohort = read_cohort(_settings(tmp_path, ["P1,5,1,1,training,A", "P2,6,0,2,external,B", "P3,7,0,1,internal,A"]))
    assert cohort.ids == ["P1", "P2"] and cohort.splits == ["training", "external"]
    assert sorted((p.code, p.where) for p in cohort.problems if p.code != "W-NOMASK") == [
        ("E-NOSCAN", "patient P3"), ("W-NOROW", "")]
    assert [p.scan.patient_id for p in cohort] == ["P1", "P2"]


@pytest.mark.parametrize(("masked", "codes"), [((), {"E-NOMASK"}), ((1,), {"W-NOMASK"}), ((1, 2), set())])
def test_check_says_that_nobody_trains_without_masks(tmp_path: Path, masked: tuple[int, ...], codes: set[str]) -> None:
    """Without any tumour mask DeepMTS cannot train: an error before the run prepares everybody; some missing warn."""
    for k in (1, 2):
        _scan(tmp_path, f"P{k}", k)
    for k in masked:
        nifti.write(tmp_path / "images" / f"P{k}.nii.gz", Volume.on_grid(np.ones((6, 6, 6), bool), (3.0, 3.0, 3.0)))
    cohort = read_cohort(_settings(tmp_path, ["P1,5,1,1,training,A", "P2,6,0,2,training,B"]))
    assert {p.code for p in sparse(cohort)} - {"W-EPV"} == codes


def test_an_error_of_the_table_stops_a_run_but_not_a_check(tmp_path: Path) -> None:
    """All errors of the table are raised at once; the tolerant reading leaves those rows out and goes on."""
    for k in (1, 2):
        _scan(tmp_path, f"P{k}", k)
    settings = _settings(tmp_path, ["P1,-5,1,1,training,A", "P2,6,0,2,nowhere,B"])
    with pytest.raises(TableError) as caught:
        read_cohort(settings)
    assert [p.code for p in caught.value.problems] == ["E-TIME", "E-SPLIT"]
    survey = survey_cohort(settings)
    assert survey.cohort.ids == [] and set(survey.scans) == {"P1", "P2"} and survey.ids == ("P1", "P2")


def test_one_scan_under_two_ids_is_leakage(tmp_path: Path) -> None:
    """FAULTS 40-41: the same image in two patients is found by its content, with the cohorts it links."""
    for patient, seed in (("P1", 1), ("P2", 1), ("P3", 3)):
        _scan(tmp_path, patient, seed)
    cohort = read_cohort(_settings(
        tmp_path, ["P1,5,1,1,training,A", "P2,6,0,2,internal,A", "P3,7,0,1,training,A"]))
    hashes, problems = leakage(cohort)
    assert len(set(hashes.values())) == 2
    assert [p.code for p in problems] == ["E-SAMEIMAGE"]
    assert "P1, P2" in str(problems[0]) and "internal and training" in str(problems[0])


def test_the_random_split_is_four_to_one_with_equal_event_shares() -> None:
    """At random: 4:1, stratified by event, the same for the same seed, external centres apart."""
    table = _table(100, 25)
    settings = CohortSettings(split="random", internal_fraction=0.2, seed=3)
    first, second = split_patients(table, settings), split_patients(table, settings)
    assert first["split"].tolist() == second["split"].tolist()
    counts = first.groupby("split")["event"].agg(["size", "sum"])
    assert counts.loc["training"].tolist() == [80, 20] and counts.loc["internal"].tolist() == [20, 5]
    assert split_patients(table, CohortSettings(seed=4))["split"].tolist() != first["split"].tolist()
    apart = split_patients(_table(90, 30, ("A", "B", "C")), CohortSettings(external_centers=("C",)))
    assert set(apart.loc[apart["center"] == "C", "split"]) == {"external"}
    assert set(apart.loc[apart["center"] != "C", "split"]) == {"training", "internal"}


def test_a_split_by_centre() -> None:
    """By centre: the external ones apart, all others training."""
    table = split_patients(_table(9, 3, ("A", "B", "C")), CohortSettings(split="center", external_centers=("B",)))
    assert table.groupby("center")["split"].first().to_dict() == {"A": "training", "B": "external", "C": "training"}


def test_an_unknown_centre_is_an_error(tmp_path: Path) -> None:
    """An external centre nobody comes from is a mistake in the study file."""
    _scan(tmp_path, "P1", 1)
    with pytest.raises(TableError, match="E-CENTER"):
        read_cohort(_settings(tmp_path, ["P1,5,1,1,training,A"], external_centers=("Z",)))


@pytest.mark.parametrize(("n", "events", "code"), [
    (20, 0, "E-NOEVENTS"), (20, 1, "E-FEWEVENTS"), (20, 9, "E-FEWEVENTS"), (0, 0, "E-NOTRAINING")])
def test_too_few_events(n: int, events: int, code: str) -> None:
    """FAULTS 44-45: no event, one or nine events and no patient are refused with the number that is needed."""
    table = _table(n, events).assign(split="training")
    with pytest.raises(CohortError, match=code):
        require_events(Cohort(table, {}))
    require_events(Cohort(_table(20, 10).assign(split="training"), {}))


def test_imputation_looks_at_the_training_cohort_only() -> None:
    """FAULTS 48: a missing value takes the training cohort's mode or median, whatever the other cohorts hold."""
    table = pd.DataFrame({"split": ["training"] * 3 + ["external"] * 3, "stage": ["1", "1", "2", "2", "2", None],
                          "age": [10.0, 20.0, 30.0, 90.0, np.nan, 95.0]}, index=list("abcdef"))
    filled, problems = impute(table, imputation(table[table["split"] == "training"], ["stage", "age"]))
    assert filled.at["f", "stage"] == "1" and filled.at["e", "age"] == 20.0
    assert [p.code for p in problems] == ["W-IMPUTED", "W-IMPUTED"] and "f" in str(problems[0])
