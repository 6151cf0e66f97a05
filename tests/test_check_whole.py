"""`mtdlr check` tells all of it, whatever else is wrong: no patient, table or folder hides another."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import imaging_series as series
import numpy as np
import pandas as pd
import pytest

from mtdlr.cohort.check import Checked, blind_cohorts, check_study
from mtdlr.cohort.check_table import as_csv, as_text, rows_of
from mtdlr.cohort.ids import propose_ids
from mtdlr.cohort.patients import Cohort, read_cohort
from mtdlr.errors import Problem, TableError
from mtdlr.imaging import archive, nifti
from mtdlr.imaging.layout import NOTHING, ScanSet, discover
from mtdlr.study import Study
from mtdlr.volume import Volume

ROOT = Path(__file__).parents[1]
STUDY = """[cohort]
images = "images"
table = "clinical.csv"
split = "random"
stage = "stage"
factors = { stage = ["III", "IVa"] }
"""


def pair(folder: Path, name: str, seed: int) -> None:
    """PET and CT of one patient as HECKTOR names them, different in every voxel."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for kind, low, high in (("PT", 0.0, 9.0), ("CT", -1000.0, 1000.0)):
        array = rng.uniform(low, high, (6, 5, 4)).astype(np.float32)
        nifti.write(folder / f"{name}__{kind}.nii.gz", Volume.on_grid(array, (3.0, 2.0, 2.0)))


def cohort(folder: Path, n: int = 12, rows: list[str] | None = None, study: str = STUDY, **encoding: str) -> Path:
    """A study of `n` good patients; `rows` replace the table's."""
    for k in range(n):
        pair(folder / "images", f"P{k:02d}", k)
    lines = rows or [f"P{k:02d},{20 + k},{int(k < 11)},{'III' if k % 2 else 'IVa'}" for k in range(n)]
    (folder / "clinical.csv").write_text("patient_id,time_months,event,stage\n" + "\n".join(lines), **encoding)
    (folder / "study.toml").write_text(study)
    return folder / "study.toml"


def dicom(folder: Path, number: int, size: int = 9) -> Path:
    """A DICOM patient of its own."""
    tags = {"PatientID": f"id{number}", "StudyInstanceUID": f"1.2.{number}"}
    shape = (size, size)
    series.write_pet(folder, 12, values=series.stored(12, number, shape), **tags)
    series.write_ct(folder, 12, values=series.stored(12, number + 50, shape) // 10, **tags)
    return folder


def packed(folder: Path, target: Path, method: int = zipfile.ZIP_DEFLATED, joint: str = "/") -> Path:
    """The folder as a zip, in the folder's place."""
    with zipfile.ZipFile(target, "w", method) as zipped:
        for path in sorted(folder.iterdir()):
            zipped.write(path, f"DICOM{joint}{path.name}")
    shutil.rmtree(folder)
    return target


def codes_of(checked: Checked, patient: str) -> set[str]:
    return {p.code for p in checked.problems if patient in p.patients}


def command(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "mtdlr", *arguments], capture_output=True, text=True, cwd=cwd,
                          env=os.environ | {"PYTHONPATH": str(ROOT / "src"), "COLUMNS": "160"}, check=False)


@pytest.mark.parametrize(("row", "code"), [
    ("A-{k:03d},{t},{e},III", "E-IDS"), ("P{k:02d},2020-03-{t},{e},III", "E-NUMBER"),
    ("P{k:02d},{t},{e},T4", "E-LEVEL"), ("P{k:02d},{t},maybe,III", "E-EVENT")])
def test_all_patients_wrong_in_one_way(tmp_path: Path, row: str, code: str) -> None:
    """FAULTS 86: where every patient is wrong, check shows it in one row, can use nobody and never says all is well."""
    study = cohort(tmp_path, rows=[row.format(k=k, t=10 + k, e=k % 2) for k in range(12)])
    checked = check_study(study)
    assert checked.usable == () and not checked.is_fine
    (found,) = (r for r in rows_of(checked.problems) if r.code == code)
    assert len(found.patients) == 12 and "0 patients can be used" in as_text(checked, width=200)
    assert "nothing is wrong" not in as_text(checked) and len(as_csv(checked).splitlines()) > 1
    assert code != "E-IDS" or "12 in the table, 12 in the scans, none in common: " in as_csv(checked)


@pytest.mark.slow
def test_check_without_anybody_exits_2(tmp_path: Path) -> None:
    """FAULTS 86: the command's status is 2 and its table holds the id hint with counts and an example pair."""
    study = cohort(tmp_path, rows=[f"P-{k:03d},{20 + k},1,III" for k in range(12)])
    done = command("check", study.name, "--csv", "problems.csv", cwd=tmp_path)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "0 patients can be used" in done.stdout and "E-IDS" in done.stdout
    told = (tmp_path / "problems.csv").read_text(encoding="utf-8-sig")
    assert "12 in the table, 12 in the scans, none in common: 'P-000' against 'P00'" in told


def test_an_empty_cohort_is_there(tmp_path: Path) -> None:
    """A cohort of nobody is not mistaken for no cohort, and nobody to run with is never fine."""
    assert not Checked(()).is_fine and Checked((), ("P1",)).is_fine
    empty = read_cohort(Study.load(cohort(tmp_path)).cohort).only([])
    assert len(empty) == 0 and empty and isinstance(empty, Cohort)


@pytest.mark.parametrize(("table", "scans", "pairs"), [
    (["A-001", "A-002"], ["a001", "A002"], {"A-001": "a001", "A-002": "A002"}),
    (["1", "2"], ["sub-01", "sub-02"], {"1": "sub-01", "2": "sub-02"}),
    (["1", "01"], ["P1"], {}), (["A1", "B1"], ["P1"], {}), (["Anna"], ["Berta"], {}), (["P1"], ["P1", "P01"], {}),
    (["0815 a"], ["0815A"], {"0815 a": "0815A"})])
def test_ids_are_proposed_where_only_one_fits(table: list[str], scans: list[str], pairs: dict[str, str]) -> None:
    """Case, blanks, punctuation, padding and prefix are seen through; where two would fit, nothing is proposed."""
    assert propose_ids(table, scans) == pairs


def test_ids_are_proposed_and_never_joined(tmp_path: Path) -> None:
    """Ten ids that match are used; two in another spelling are told with what they look like, and left out."""
    rows = [f"{'P-' if k > 9 else 'P'}{k:02d},{20 + k},1,III" for k in range(12)]
    checked = check_study(cohort(tmp_path, rows=rows))
    assert len(checked.usable) == 10 and codes_of(checked, "P-10") == {"E-IDS"}
    (problem,) = (p for p in checked.problems if p.code == "E-IDS")
    assert problem.patients == ("P-10", "P-11") and "'P-10' against 'P10'" in problem.found
    assert "W-NOROW" not in {p.code for p in checked.problems}


def test_errors_hide_no_errors(tmp_path: Path) -> None:
    """A table in Windows-1252 without a column, cells that are wrong, no scans: all of it is told at once."""
    study = cohort(tmp_path, n=0, rows=["Ä1,-5,ja", "Ä2,7,vielleicht"], study=STUDY, encoding="cp1252")
    text = (tmp_path / "clinical.csv").read_bytes().replace(b",stage", b"")
    (tmp_path / "clinical.csv").write_bytes(text)
    (tmp_path / "images").mkdir()
    found = {p.code for p in check_study(study).problems}
    assert {"E-COLUMN", "E-TIME", "E-EVENT", "E-LAYOUT", "W-ENCODING", "W-EVENTWORD"} <= found
    with pytest.raises(TableError) as caught:
        read_cohort(Study.load(study).cohort)
    assert {"E-COLUMN", "E-TIME", "E-EVENT", "E-LAYOUT"} <= {p.code for p in caught.value.problems}


def test_a_missing_column_names_the_likely_one(tmp_path: Path) -> None:
    """E-COLUMN says which setting names the column and which of the table's is probably meant."""
    study = cohort(tmp_path, study=STUDY + 'id = "patientid"\n')
    (problem,) = (p for p in check_study(study).problems if p.code == "E-COLUMN")
    assert "cohort.id" in problem.what and "'patient_id'?" in problem.remedy


BAD = {
    "encrypted": "E-ZIP", "bomb": "E-ZIP", "cut": "E-ZIP", "crc": "E-ZIP", "nozip": "E-ZIP", "empty": "E-NOIMAGES",
    "pictures": "E-NOIMAGES", "packed": "E-ARCHIVE", "link": "E-LINK", "damaged": "E-DICOM", "locked": "E-NOACCESS",
}  # fmt: skip


@pytest.fixture(scope="module")
def spoiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cohort folder of good patients, LZMA and Windows zips, and one of each bad item."""
    folder = tmp_path_factory.mktemp("spoiled")
    images = folder / "images"
    for k in range(10):
        dicom(images / f"G{k}", k)
    packed(dicom(images / "lzma", 20), images / "lzma.zip", zipfile.ZIP_LZMA)
    packed(dicom(images / "windows", 21), images / "windows.zip", joint="\\")
    data = bytearray(packed(dicom(images / "encrypted", 22), images / "encrypted.zip").read_bytes())
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):  # the flag that says a member is encrypted
        at = -1
        while (at := data.find(mark, at + 1)) >= 0:
            data[at + offset] |= 1
    (images / "encrypted.zip").write_bytes(data)
    with zipfile.ZipFile(images / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as zipped:
        zipped.writestr("x.dcm", bytes(1 << 26))
    whole = packed(dicom(images / "cut", 23), images / "cut.zip").read_bytes()
    (images / "cut.zip").write_bytes(whole[: len(whole) // 2])
    crc = packed(dicom(images / "crc", 24, 200), images / "crc.zip", zipfile.ZIP_STORED)
    data = bytearray(crc.read_bytes())
    data[78_000] ^= 0xFF  # behind the first 64 KB of a slice: its header reads well
    crc.write_bytes(data)
    (images / "nozip.zip").write_bytes(b"not a zip at all")
    (images / "empty").mkdir()
    (images / "pictures").mkdir()
    (images / "pictures" / "a.jpg").write_bytes(b"\xff\xd8")
    (images / "packed.tar.gz").write_bytes(b"\x1f\x8b")
    dicom(folder / "elsewhere", 25)
    (images / "link").symlink_to(folder / "elsewhere", target_is_directory=True)
    slices = sorted(dicom(images / "damaged", 26).iterdir())
    slices[3].write_bytes(slices[3].read_bytes()[:400])
    dicom(images / "locked", 27)
    ids = [*(f"G{k}" for k in range(10)), "lzma", "windows", *BAD]
    rows = [f"{i},{20 + n},1,III" for n, i in enumerate(ids)]
    (folder / "clinical.csv").write_text("patient_id,time_months,event,stage\n" + "\n".join(rows))
    (folder / "study.toml").write_text(STUDY)
    return folder / "study.toml"


@pytest.fixture()
def locked(monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder `locked` can be listed and not entered, for root too."""
    scan = os.scandir

    def refuse(path: object = ".") -> object:
        if Path(os.fspath(path)).name == "locked":  # type: ignore[arg-type, call-overload]
            raise PermissionError(13, "Permission denied")
        return scan(path)  # type: ignore[arg-type, call-overload]

    monkeypatch.setattr(archive.os, "scandir", refuse)


@pytest.mark.slow
def test_a_bad_item_costs_its_patient_only(spoiled: Path, locked: None) -> None:
    """FAULTS 87: each bad zip, folder, link or file is told under its patient with its own code; others are used."""
    checked = check_study(spoiled)
    assert checked.usable == tuple(sorted([*(f"G{k}" for k in range(10)), "lzma", "windows"]))
    for patient, code in BAD.items():
        assert code in codes_of(checked, patient), patient
        assert "E-NOSCAN" not in codes_of(checked, patient)
    assert all(p.remedy for p in checked.problems if p.is_error)
    text = as_text(checked, width=200) + as_csv(checked)
    assert str(spoiled.parent) not in text and "Test" not in text and "4711" not in text


@pytest.mark.slow
def test_items_without_a_row_do_not_stop_anything(spoiled: Path, locked: None) -> None:
    """Bad items that the table does not know are warnings; those that hold no image at all are passed over."""
    rows = "\n".join(f"G{k},{20 + k},1,III" for k in range(10))
    table = spoiled.with_name("few.csv")
    table.write_text("patient_id,time_months,event,stage\n" + rows)
    checked = check_study(spoiled, [f"cohort.table={table}", "cohort.split=center"])
    assert len(checked.usable) == 10 and {p.code for p in checked.problems if p.is_error} == {"E-NOMASK"}
    assert {"W-ARCHIVE", "W-LINK", "W-NOACCESS", "W-ZIP", "W-NOROW"} <= {p.code for p in checked.problems}


@pytest.mark.slow
def test_discover_names_what_holds_no_scan(spoiled: Path, locked: None) -> None:
    """A folder without images comes as a patient of the kind `NOTHING`, with the number of files in it."""
    found = {scan.patient_id: scan for scan in discover(spoiled.parent / "images", empty=True)}
    assert found["pictures"].kind == NOTHING and found["pictures"].problems[0].found == "1 files"
    assert not [p for name in ("lzma", "windows") for p in found[name].problems if p.is_error]


@pytest.mark.slow
def test_a_damaged_file_is_named_where_its_name_says_nothing(spoiled: Path, tmp_path: Path) -> None:
    """E-DICOM gives the path of a file called by figures, and the place in order of one that could bear a name."""
    damaged = spoiled.parent / "images" / "damaged"
    shutil.copytree(damaged, tmp_path / "a" / "P1" / "DICOM")
    shutil.copytree(damaged, tmp_path / "b" / "P1" / "DICOM")
    for n, path in enumerate(sorted((tmp_path / "a" / "P1" / "DICOM").iterdir())):
        path.rename(path.with_name(f"IM{n:04d}"))
    for n, path in enumerate(sorted((tmp_path / "b" / "P1" / "DICOM").iterdir())):
        path.rename(path.with_name(f"{n:02d}_MEIER_ANNA"))
    told = [next(p.found for p in discover(tmp_path / name)[0].problems if p.code == "E-DICOM") for name in "ab"]
    assert told == ["1 file, IM0003", "1 file, number 4 of 24 in the order of their paths"]


def test_voxels_tell_what_headers_do_not(tmp_path: Path) -> None:
    """A cut .nii.gz, NaN, activity given as SUV: each under its patient, with the table's error of the same patient."""
    study = cohort(tmp_path, rows=[f"P{k:02d},{-1 if k == 3 else 20 + k},1,III" for k in range(12)])
    cut = tmp_path / "images" / "P00__CT.nii.gz"
    cut.write_bytes(cut.read_bytes()[:-9])
    pet = nifti.read(tmp_path / "images" / "P01__PT.nii.gz")[0]
    holes = np.array(pet.array)
    holes[0, 0, 0] = np.nan
    nifti.write(tmp_path / "images" / "P01__PT.nii.gz", pet.with_array(holes))
    nifti.write(tmp_path / "images" / "P02__PT.nii.gz", pet.with_array(pet.array * 5000))
    damaged = tmp_path / "images" / "P03__PT.nii.gz"
    damaged.write_bytes(damaged.read_bytes()[:100])
    checked = check_study(study)
    assert codes_of(checked, "P00") & {"E-TRUNCATED", "E-GZIP"} and "E-NONFINITE" in codes_of(checked, "P01")
    assert "E-PETUNITS" in codes_of(checked, "P02") and len(checked.usable) == 8
    assert "E-TIME" in codes_of(checked, "P03") and codes_of(checked, "P03") & {"E-TRUNCATED", "E-GZIP"}


@pytest.mark.slow
def test_the_same_voxels_are_leakage(tmp_path: Path) -> None:
    """FAULTS 40, 41, 89: a scan packed anew, or moved with new UIDs, is known again by its voxels."""
    study = cohort(tmp_path, rows=[*(f"P{k:02d},{20 + k},1,III" for k in range(10)), "D1,20,1,III", "D2,20,1,III"],
                   n=10)
    for kind in ("PT", "CT"):
        data = gzip.decompress((tmp_path / "images" / f"P00__{kind}.nii.gz").read_bytes())
        (tmp_path / "images" / f"P01__{kind}.nii.gz").write_bytes(gzip.compress(data, 1))
    dicom(tmp_path / "images" / "D1", 1)
    shutil.copytree(tmp_path / "images" / "D1", tmp_path / "images" / "D2")
    for path in (tmp_path / "images" / "D2").iterdir():
        path.write_bytes(path.read_bytes().replace(b"1.2.3", b"1.9.3"))
    shared = [p.patients for p in check_study(study).problems if p.code == "E-SAMEIMAGE"]
    assert shared == [("D1", "D2"), ("P00", "P01")]


def _cohort_of(events: dict[str, list[int]], masks: bool = True) -> Cohort:
    ids = [f"{split}{n}" for split, values in events.items() for n in range(len(values))]
    table = pd.DataFrame({"time_months": 10.0, "event": [bool(e) for v in events.values() for e in v],
                          "split": [split for split, v in events.items() for _ in v], "center": "A"}, index=ids)
    mask = Path("m.nii") if masks else None
    return Cohort(table, {i: ScanSet(i, Path("p.nii"), Path("c.nii"), mask, "files") for i in ids})


@pytest.mark.parametrize(("events", "masks", "roc", "found"), [
    ({"internal": [0] * 20}, True, "cumulative", ["no event in 20 patients"]),
    ({"external": [1]}, True, "cumulative", ["one patient only in 1 patient"]),
    ({"external": [1] * 20}, True, "status", ["events only in 20 patients"]),
    ({"external": [1] * 20}, True, "cumulative", []),
    ({"internal": [1] * 3 + [0] * 17}, False, "status", ["no manual mask in 20 patients"]),
    ({"internal": [1] * 10 + [0] * 10}, True, "status", [])])
def test_a_validation_cohort_that_says_little(events: dict[str, list[int]], masks: bool, roc: str,
                                              found: list[str]) -> None:
    """FAULTS 92: validation cohorts without events, of events only, of one patient, without masks are told first."""
    study = Study.of({"evaluate": {"roc": roc}})
    told = blind_cohorts(_cohort_of({"training": [1] * 20, **events}, masks), study)
    assert [p.found for p in told] == found and {p.code for p in told} <= {"W-VALIDATION"}


def test_check_says_it_of_a_validation_cohort(tmp_path: Path) -> None:
    """FAULTS 92: `check` of a study whose external cohort has no event says so, and that nobody there has a mask."""
    rows = [f"P{k:02d},{20 + k},{int(k < 9)},III,{'training' if k < 9 else 'external'}" for k in range(12)]
    study = cohort(tmp_path, study=STUDY.replace('"random"', '"given"\nsplit_column = "split"'))
    (tmp_path / "clinical.csv").write_text("patient_id,time_months,event,stage,split\n" + "\n".join(rows))
    told = [p for p in check_study(study).problems if p.code == "W-VALIDATION"]
    assert [(p.where, p.found) for p in told] == [("external cohort", "no event in 3 patients"),
                                                  ("external cohort", "no manual mask in 3 patients")]


def test_values_that_differ_are_one_row() -> None:
    """300 patients with 300 values of one fault are one row with a range; words: the commonest first."""
    times = [Problem("W-UPTAKE", "unusual uptake time", where="PET", found=f"{60 + n / 10:.1f} min",
                     patients=(f"P{n}",))
             for n in range(300)]
    words = [Problem("E-LEVEL", "not a level", where="stage", found=repr("V" if n % 3 else "X"), remedy="Correct it",
                     patients=(f"Q{n}",)) for n in range(9)]
    level, uptake = rows_of([*times, *words])
    assert uptake.what == "unusual uptake time; found 60.0 to 89.9 min" and len(uptake.patients) == 300
    assert level.what == "not a level; found 'V' (6), 'X' (3)"


@pytest.mark.parametrize("id_", ["a:b", "patient 7", "x, y"])
def test_an_odd_id_is_left_out_like_any_other(tmp_path: Path, id_: str) -> None:
    """An id with a colon, a comma or the word patient does not keep a broken patient usable."""
    study = cohort(tmp_path, rows=[*(f"P{k:02d},{20 + k},1,III" for k in range(11)), f'"{id_}",-4,1,III'])
    pair(tmp_path / "images", id_, 77)
    checked = check_study(study)
    assert codes_of(checked, id_) == {"E-TIME"} and id_ not in checked.usable and len(checked.usable) == 11


def test_the_order_of_rows_decides_nothing(tmp_path: Path) -> None:
    """A shuffled table gives the same patients in the same order and the same split."""
    first = read_cohort(Study.load(cohort(tmp_path)).cohort).table
    lines = (tmp_path / "clinical.csv").read_text().split("\n")
    (tmp_path / "clinical.csv").write_text("\n".join([lines[0], *reversed(lines[1:])]))
    assert read_cohort(Study.load(tmp_path / "study.toml").cohort).table.equals(first)


@pytest.mark.slow
def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    """`check --csv` and `init` to a place that cannot be written end in one line, not a traceback."""
    cohort(tmp_path)
    (tmp_path / "file").write_text("")
    for arguments in (("check", "study.toml", "--csv", "file/problems.csv"), ("init", "file/new")):
        done = command(*arguments, cwd=tmp_path)
        assert done.returncode == 2 and "E-READONLY" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.slow
def test_json_holds_the_patients(tmp_path: Path) -> None:
    """`check --json` has the ids of each problem as a list."""
    study = cohort(tmp_path, rows=[f"P{k:02d},{-1 if k == 3 else 20 + k},1,III" for k in range(12)])
    done = command("check", study.name, "--json", cwd=tmp_path)
    told = json.loads(done.stdout)
    (problem,) = (p for p in told["problems"] if p["code"] == "E-TIME")
    assert problem["patients"] == ["P03"] and problem["where"] == "patient P03: time_months"
    assert len(told["usable"]) == 11
