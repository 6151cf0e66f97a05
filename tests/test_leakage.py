"""The same image under two ids ends a run before any network trains, whatever was done to its files."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from mtdlr.errors import CohortError
from mtdlr.imaging import nifti
from mtdlr.pipeline import Run
from mtdlr.shift import images_of
from mtdlr.study import Study
from mtdlr.volume import Volume
from mtdlr.workers import Workers

SETTINGS = {"preset": "quick", "prepare": {"roi": "center", "spacing_mm": 4.0, "alignment": "off"},
            "report": {"thumbnails": 0}}


def _image(path: Path, seed: int, low: float, high: float) -> None:
    array = np.random.default_rng(seed).uniform(low, high, (16, 14, 12)).astype(np.float32)
    array[:, :3] = low
    nifti.write(path, Volume.on_grid(array, (4.0, 4.0, 4.0)))


def _study(folder: Path) -> Study:
    """Eleven patients of centre A that train, and P11 of centre B outside."""
    (folder / "images").mkdir()
    for n in range(12):
        _image(folder / "images" / f"P{n:02d}__PT.nii.gz", n, 0.0, 9.0)
        _image(folder / "images" / f"P{n:02d}__CT.nii.gz", 100 + n, -1000.0, 900.0)
    rows = "".join(f"P{n:02d},{20 + n},1,III,{'B' if n == 11 else 'A'}\n" for n in range(12))
    (folder / "clinical.csv").write_text("patient_id,time_months,event,stage,center\n" + rows)
    cohort = {"images": str(folder / "images"), "table": str(folder / "clinical.csv"), "split": "center",
              "center": "center", "external_centers": ["B"], "stage": "stage", "factors": {"stage": ["III", "IVa"]}}
    return Study.of({**SETTINGS, "cohort": cohort})


def _repacked(source: Path, target: Path) -> None:
    """The same voxels in another compression."""
    target.write_bytes(gzip.compress(gzip.decompress(source.read_bytes()), 1))


@pytest.mark.slow
def test_a_scan_repacked_in_the_external_cohort_is_found(tmp_path: Path) -> None:
    """FAULTS 40, 41, 89: the CT of a training patient, compressed anew in the external cohort, is E-SAMEIMAGE in `run`
    before training; with another CT the same run goes on."""
    study = _study(tmp_path)
    own = tmp_path / "images" / "P11__CT.nii.gz"
    kept = own.read_bytes()
    _repacked(tmp_path / "images" / "P03__CT.nii.gz", own)
    with Run(study, tmp_path / "run", Workers(1)) as run:
        assert len(run.hashes) == 12  # the bytes of the files differ
        with pytest.raises(CohortError, match="E-SAMEIMAGE") as caught:
            assert run.included
        assert not (tmp_path / "run" / "objects" / "train").exists()
    (problem,) = caught.value.problems
    assert problem.patients == ("P03", "P11") and problem.found == "in the cohorts external and training"
    own.write_bytes(kept)
    with Run(study, tmp_path / "run", Workers(1)) as run:
        assert len(run.included) == 12


def test_a_patient_without_a_description_is_like_no_other(tmp_path: Path) -> None:
    """Prepared patients of an older version, which kept no hash, are left out of the comparison."""
    assert images_of({"P1": tmp_path}) == {}
