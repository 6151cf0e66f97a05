"""Features of many patients: tables in, one table out, resumed, the same bytes however it ran."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mtdlr import feature_table
from mtdlr.errors import MtdlrError
from mtdlr.feature_table import read_cases, write_features
from mtdlr.imaging import nifti
from mtdlr.volume import Volume
from mtdlr.workers import Workers

PARAMETERS = ("setting: {binWidth: 10}\n"
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
    profile = str(table.with_name("own.yaml"))
    return tuple(p.code for p in write_features(table, table.with_name(output), profile=profile, workers=workers))


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


@pytest.mark.slow
def test_any_number_of_workers(tmp_path: Path) -> None:
    """One process and two give the same bytes."""
    table = cohort(tmp_path, 4)
    extract(table, "one.csv", Workers(1))
    extract(table, "two.csv", Workers(2))
    assert (tmp_path / "one.csv").read_bytes() == (tmp_path / "two.csv").read_bytes()
