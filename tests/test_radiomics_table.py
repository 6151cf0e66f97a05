"""Features of many patients: tables in, one table out, resumed, the same bytes however it ran."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import mtdlr
from mtdlr.errors import MtdlrError
from mtdlr.imaging import nifti
from mtdlr.radiomics import table as feature_table
from mtdlr.radiomics.table import read_cases, write_features
from mtdlr.study import RadiomicsSettings
from mtdlr.texture import jit
from mtdlr.volume import Volume
from mtdlr.workers import Workers

PARAMETERS = ("setting: {binWidth: 10, additionalInfo: false}\n"
              "featureClass: {firstorder: [Mean, Entropy], glcm: [Contrast], shape: [Sphericity]}\n")


def cohort(folder: Path, patients: int = 3) -> Path:
    """A table of images and masks with the files it names, and a parameter file beside it."""
    rows = ["ID,Image,Mask"]
    for k in range(patients):
        random = np.random.default_rng(k)
        mask = np.zeros((12, 14, 13), bool)
        mask[3:9, 4:10, 3:9] = True
        for name, array in (("image", (random.normal(size=mask.shape) * 30).astype(np.float32)), ("mask", mask)):
            nifti.write(folder / f"{name}{k}.nii.gz", Volume.on_grid(array, (2.0, 2.0, 2.0)))
        rows.append(f"P{k},image{k}.nii.gz,mask{k}.nii.gz")
    (folder / "own.yaml").write_text(PARAMETERS)
    (folder / "cases.csv").write_text("\n".join(rows) + "\n")
    return folder / "cases.csv"


def extract(table: Path, output: str = "features.csv", workers: Workers | None = None) -> tuple[str, ...]:
    """Codes of what was said while writing the table."""
    settings = RadiomicsSettings(profile=str(table.with_name("own.yaml")))
    return tuple(p.code for p in write_features(table, table.with_name(output), settings, workers=workers))


def test_table(tmp_path: Path) -> None:
    """One row a patient in the table's order, PyRadiomics' names, every value there."""
    assert extract(cohort(tmp_path)) == ()
    found = pd.read_csv(tmp_path / "features.csv", index_col=0)
    assert found.index.tolist() == ["P0", "P1", "P2"] and found.notna().all(axis=None)
    assert found.columns.tolist() == ["original_shape_Sphericity", "original_firstorder_Mean",
                                      "original_firstorder_Entropy", "original_glcm_Contrast"]


def test_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second run extracts nothing, a changed image alone is done again, and the bytes stay the same."""
    table, done = cohort(tmp_path), []
    real = feature_table.radiomics.image_features
    monkeypatch.setattr(feature_table.radiomics, "image_features",
                        lambda *a, **k: done.append(1) or real(*a, **k))
    extract(table)
    first = (tmp_path / "features.csv").read_bytes()
    extract(table)
    assert len(done) == 3 and (tmp_path / "features.csv").read_bytes() == first
    nifti.write(tmp_path / "image1.nii.gz", Volume.on_grid(np.ones((12, 14, 13), np.float32), (2.0, 2.0, 2.0)))
    extract(table)
    assert len(done) == 4 and (tmp_path / "features.csv").read_bytes() != first


def test_another_parameter_file_is_another_result(tmp_path: Path) -> None:
    """What the parameter file says counts, not its name."""
    table = cohort(tmp_path)
    extract(table)
    (tmp_path / "own.yaml").write_text(PARAMETERS.replace("Mean", "Median"))
    extract(table)
    assert "original_firstorder_Median" in (tmp_path / "features.csv").read_text()


def test_failures_are_rows(tmp_path: Path) -> None:
    """A missing file and an empty mask cost their own row; each is named, the others are whole."""
    table = cohort(tmp_path)
    (tmp_path / "image0.nii.gz").unlink()
    nifti.write(tmp_path / "mask1.nii.gz", Volume.on_grid(np.zeros((12, 14, 13), bool), (2.0, 2.0, 2.0)))
    assert extract(table) == ("E-NOFILE", "W-EMPTYREGION")
    found = pd.read_csv(tmp_path / "features.csv", index_col=0)
    assert found.isna().all(axis=1).tolist() == [True, True, False]


def test_wrong_tables(tmp_path: Path) -> None:
    """No such table, no mask column, and an id that occurs twice are refused before any work."""
    table = cohort(tmp_path)
    lines = table.read_text().splitlines()
    wrong = {"E-MANIFEST": "ID,Image\nP0,image0.nii.gz\n", "E-DUPLICATEID": "\n".join([*lines, lines[1]])}
    for code, text in wrong.items():
        table.write_text(text)
        with pytest.raises(MtdlrError) as error:
            read_cases(table)
        assert error.value.code == code
    with pytest.raises(MtdlrError, match="E-NOFILE"):
        read_cases(tmp_path / "none.csv")


def test_a_table_of_any_dialect_is_read(tmp_path: Path) -> None:
    """Semicolons, Windows-1252 and .xlsx name the same cases; a row of other length and no text are typed errors."""
    table = cohort(tmp_path)
    plain = read_cases(table)
    rows = [line.split(",") for line in table.read_text().splitlines()]
    (tmp_path / "german.csv").write_bytes("\r\n".join([";".join(row) for row in rows]).encode("cp1252"))
    assert read_cases(tmp_path / "german.csv") == plain
    (tmp_path / "umlaut.csv").write_bytes("\n".join(";".join(["Ä" + row[0], *row[1:]]) for row in rows[1:]).join(
        [";".join(rows[0]) + "\n", "\n"]).encode("cp1252"))
    assert [case.id for case in read_cases(tmp_path / "umlaut.csv")] == ["Ä" + c.id for c in plain]
    book = pytest.importorskip("openpyxl").Workbook()
    for row in rows:
        book.active.append(row)
    book.save(tmp_path / "cases.xlsx")
    assert read_cases(tmp_path / "cases.xlsx") == plain
    for text in (b"\x00\x01\x02" * 50, table.read_bytes() + b"P9,a,b,c,d,e,f,g\n"):
        table.write_bytes(text)
        with pytest.raises(MtdlrError):
            read_cases(table)


def test_labels_and_time_points(tmp_path: Path) -> None:
    """Labels of one label map and several time points are rows of one patient, each with its own numbers."""
    cohort(tmp_path, 2)
    labels = np.zeros((12, 14, 13), np.uint8)
    labels[3:9, 4:10, 3:6], labels[3:9, 4:10, 6:9] = 1, 2
    nifti.write(tmp_path / "labels.nii.gz", Volume.on_grid(labels, (2.0, 2.0, 2.0)))
    table = tmp_path / "cases.csv"
    table.write_text("ID,Image,Mask,Timepoint,Label\n" + "".join(
        f"P0,image{k}.nii.gz,labels.nii.gz,week {k},{label}\n" for k in (0, 1) for label in (1, 2, 3)))
    assert extract(table) == ("W-EMPTYREGION", "W-EMPTYREGION")
    found = pd.read_csv(tmp_path / "features.csv")
    assert found.columns[:3].tolist() == ["patient_id", "timepoint", "label"]
    assert set(found.patient_id) == {"P0"} and found.timepoint.tolist() == ["week 0"] * 3 + ["week 1"] * 3
    for row in found[found.label < 3].itertuples():
        image = nifti.read(tmp_path / f"image{row.timepoint[-1]}.nii.gz")[0].array
        assert row.original_firstorder_Mean == pytest.approx(image[labels == row.label].mean(), rel=1e-5)
    assert found[found.label == 3].original_firstorder_Mean.isna().all()
    frame = mtdlr.extract_features(table, profile=str(tmp_path / "own.yaml"))
    assert frame.features.index.tolist() == ["P0"] * 6 and frame.features.label.tolist() == ["1", "2", "3"] * 2
    assert str(frame.problems[0]).startswith("W-EMPTYREGION patient P0: timepoint week 0, label 3")


def test_rows_that_cannot_be_told_apart(tmp_path: Path) -> None:
    """The same patient, time point and label twice, a label in words, and labels of PET with CT are refused."""
    cohort(tmp_path)
    first = "P0,image0.nii.gz,mask0.nii.gz"
    for columns, rows, code in (("ID,Image,Mask,Label", [f"{first},1", f"{first},1"], "E-DUPLICATEID"),
                                ("ID,Image,Mask,Label", [f"{first},left"], "E-MANIFEST"),
                                ("patient_id,pet,mask,ct,label", [f"{first},image1.nii.gz,1"], "E-MANIFEST")):
        (tmp_path / "cases.csv").write_text("\n".join([columns, *rows]) + "\n")
        with pytest.raises(MtdlrError) as error:
            read_cases(tmp_path / "cases.csv")
        assert error.value.code == code


def scans(folder: Path) -> Path:
    """A manifest of PET and CT on different grids, one patient with PET alone and one with CT alone."""
    rows = ["patient_id,pet,ct,mask", "both,pet0.nii.gz,ct0.nii.gz,mask0.nii.gz", "pet,pet1.nii.gz,,mask1.nii.gz",
            "ct,,ct1.nii.gz,mask1.nii.gz"]
    for k in range(2):
        random = np.random.default_rng(k)
        mask = np.zeros((20, 26, 24), bool)
        mask[5:15, 7:18, 6:19] = True
        pet = random.gamma(2.0, 2.0, (12, 14, 13)).astype(np.float32)
        ct = (random.normal(size=mask.shape) * 60).astype(np.float32)
        nifti.write(folder / f"pet{k}.nii.gz", Volume.on_grid(pet, (4.1, 4.0, 4.0)))
        for name, array in (("ct", ct), ("mask", mask)):
            nifti.write(folder / f"{name}{k}.nii.gz", Volume.on_grid(array, (2.0, 2.0, 2.0)))
    (folder / "scans.csv").write_text("\n".join(rows) + "\n")
    return folder / "scans.csv"


def test_one_modality(tmp_path: Path) -> None:
    """A patient without CT, or without PET, keeps the features of the other under the same names."""
    assert write_features(scans(tmp_path), tmp_path / "features.csv") == ()
    found = pd.read_csv(tmp_path / "features.csv", index_col=0)
    assert found.notna().sum(axis=1).to_dict() == {"both": 1456, "pet": 736, "ct": 736}


def test_modality_of_an_image(tmp_path: Path) -> None:
    """A column Modality bins an image as PET or CT; without it an image is binned as CT and never cut to a range."""
    cohort(tmp_path, 1)
    table = tmp_path / "cases.csv"
    table.write_text("Image,Mask,Modality\n" + "".join(f"image0.nii.gz,mask0.nii.gz,{m}\n" for m in ("PET", "ct", "")))
    write_features(table, tmp_path / "features.csv", RadiomicsSettings(pet_bin_width=50.0, ct_bin_width=5.0))
    entropy = pd.read_csv(tmp_path / "features.csv", index_col=0)["original_firstorder_Entropy"]
    assert entropy[1] < entropy[2] == entropy[3]


def test_missing_file_is_named(tmp_path: Path) -> None:
    """A file that does not exist is named by its line and column: a file's name may be a person's."""
    table = scans(tmp_path)
    (tmp_path / "ct0.nii.gz").unlink()
    (problem,) = write_features(table, tmp_path / "features.csv")
    assert problem.code == "E-NOFILE" and problem.where == "patient both: line 2: ct"


def test_diagnostics(tmp_path: Path) -> None:
    """A parameter file's table begins with diagnostics_*, unless it says additionalInfo: false."""
    table = cohort(tmp_path, 2)
    (tmp_path / "own.yaml").write_text(PARAMETERS.replace("false", "true"))
    extract(table)
    found = pd.read_csv(tmp_path / "features.csv", index_col=0)
    assert found.columns[0] == "diagnostics_Versions_mtdlr" and found.columns[-1] == "original_glcm_Contrast"
    assert found["diagnostics_Mask-original_VoxelNum"].tolist() == [216.0, 216.0]


@pytest.mark.slow
def test_as_a_frame(tmp_path: Path) -> None:
    """The Python function gives the table of the command line, and says the same."""
    table = scans(tmp_path)
    (tmp_path / "mask1.nii.gz").write_bytes(b"")
    problems = write_features(table, tmp_path / "features.csv")
    found = mtdlr.extract_features(table)
    assert found.problems == problems != ()
    expected = pd.read_csv(tmp_path / "features.csv", dtype=str).set_index("patient_id").astype(float)
    pd.testing.assert_frame_equal(found.features, expected)


def test_a_wrong_setting_leaves_nothing_behind(tmp_path: Path) -> None:
    """An unknown profile is refused before a cache is made."""
    with pytest.raises(MtdlrError, match="E-PROFILE"):
        write_features(cohort(tmp_path), tmp_path / "features.csv", RadiomicsSettings(profile="paper1457"))
    assert not list(tmp_path.glob("features.csv*"))


@pytest.mark.slow
def test_same_bytes(tmp_path: Path) -> None:
    """All 1456 features are the same bytes from this process, from two others, and whatever BLAS may use."""
    table = scans(tmp_path)
    assert write_features(table, tmp_path / "here.csv") == ()
    bytes_ = {(tmp_path / "here.csv").read_bytes()}
    for name, workers, threads in (("b", 2, 1), ("c", 1, 2)):
        output = tmp_path / f"{name}.csv"
        subprocess.run([sys.executable, "-m", "mtdlr", "features", str(table), "-o", str(output), "--workers",
                        str(workers)], check=True, capture_output=True, env=os.environ | {
                            "OPENBLAS_NUM_THREADS": str(threads), "OMP_NUM_THREADS": str(threads)})
        bytes_.add(output.read_bytes())
    assert len(bytes_) == 1


@pytest.mark.slow
def test_first_use_by_several_processes(tmp_path: Path) -> None:
    """Three processes that compile loops at the same moment into an empty cache agree, and leave it whole."""
    code = ("import numpy as np; from mtdlr import texture; x = np.random.default_rng(0).normal(size=(9, 9, 9)) * 50;"
            "few = texture.Profile({name: texture.FEATURES[name] for name in ('firstorder', 'ngtdm', 'gldm')});"
            "print(repr(texture.extract(x, x > 0, (1., 1., 1.), profile=few)))")
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "cache"), "PYTHONPATH": os.pathsep.join(sys.path)}
    start = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment)
             for _ in range(3)]
    found = {process.communicate()[0] for process in start}
    assert [process.returncode for process in start] == [0] * 3 and len(found) == 1
    files = sorted((tmp_path / "cache").rglob("*.nb?"))
    again = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment, check=True)
    assert {again.stdout} == found and sorted((tmp_path / "cache").rglob("*.nb?")) == files != []


def test_nowhere_to_keep_compiled_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no folder can be written, a loop is compiled for this process alone."""

    def njit(cache: bool = False, **options: Any) -> Any:
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return lambda function: ("compiled", function)

    monkeypatch.setattr(jit, "njit", njit)
    assert jit.jit(test_table) == ("compiled", test_table)
