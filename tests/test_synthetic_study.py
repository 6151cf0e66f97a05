"""A synthetic study on disk: complete, readable, and the same bytes for the same seed."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mtdlr.errors import StudyError
from mtdlr.imaging import nifti
from mtdlr.imaging.layout import discover
from mtdlr.imaging.reading import read_scan
from mtdlr.model import read_known_risk
from mtdlr.study import Study
from mtdlr.synthetic import write_study
from mtdlr.synthetic.study import patient_of, simulate_study
from mtdlr.synthetic.truth import WEIGHTS
from mtdlr.workers import Workers

SIZES = {"n_training": 2, "n_internal": 1, "n_external": 2, "seed": 5}
SCALE = 3.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_study(tmp_path_factory.mktemp("study"), voxel_scale=SCALE, **SIZES).parent


def _bytes(folder: Path) -> dict[Path, bytes]:
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_files(folder: Path) -> None:
    """Centre A is NIfTI in HECKTOR naming, centre B DICOM with RTSTRUCT and SEG by turns, beside tables and truth."""
    names = {str(path) for path in _bytes(folder)}
    for name in ("centerA/images/A001__CT.nii.gz", "centerA/images/A001__PT.nii.gz", "centerA/labels/A001.nii.gz",
                 "centerB/B001/RTSTRUCT/RTSTRUCT0001.dcm", "centerB/B002/SEG/SEG0001.dcm", "clinical.csv", "truth.csv",
                 "manifest.csv", "study.toml", "README.txt", "truth/A003_primary.nii.gz", "truth/B002_nodes.nii.gz",
                 "truth/B001_invasion.nii.gz"):
        assert name in names
    assert len(pd.read_csv(folder / "clinical.csv")) == 5


@pytest.mark.slow
def test_every_scan_can_be_read(folder: Path) -> None:
    """The manifest leads to every patient, and each is read without a warning as it was made."""
    clinical, truth = simulate_study(**SIZES)
    scans = discover(folder)
    assert [scan.patient_id for scan in scans] == clinical["patient_id"].tolist()
    rows = zip(scans, clinical.to_dict("records"), truth.to_dict("records"), strict=True)
    for found, row, hidden in rows:
        scan = read_scan(found)
        made = patient_of(row, hidden, voxel_scale=SCALE)  # type: ignore[arg-type]
        assert scan.problems == ()
        np.testing.assert_allclose(scan.pet.array, made.pet.array, atol=2e-3)
        assert (scan.ct.array == made.ct.array).all()
        assert scan.mask is not None
        assert (scan.mask.array.astype(bool) == made.manual_mask.array).all()


def test_settings_fit_the_table(folder: Path) -> None:
    """study.toml loads, points at files that exist, and lists every column and level of the table."""
    study = Study.load(folder / "study.toml")
    table = pd.read_csv(study.cohort.table)
    assert study.cohort.images.exists()
    assert {*study.cohort.continuous, *study.cohort.described, *study.cohort.factors} <= set(table.columns)
    for name, levels in study.cohort.factors.items():
        assert set(table[name].astype(str)) <= set(levels)
    assert study.cohort.split == "given"
    assert study.cohort.stage in study.cohort.factors


def test_report_can_show_the_truth(folder: Path) -> None:
    """study.toml names truth.csv as the known risk, and the pipeline reads it for every patient."""
    known = Study.load(folder / "study.toml").evaluate.known_risk
    assert known is not None
    truth = pd.read_csv(folder / "truth.csv", index_col="patient_id")
    pd.testing.assert_series_equal(read_known_risk(known), truth["log_hazard"], check_names=False)


def test_truth_stands_beside_the_table(folder: Path) -> None:
    """truth.csv has one row a patient in the table's order, and its masks hold the stated volumes."""
    clinical, truth = pd.read_csv(folder / "clinical.csv"), pd.read_csv(folder / "truth.csv")
    assert truth["patient_id"].tolist() == clinical["patient_id"].tolist()
    np.testing.assert_allclose(truth[list(WEIGHTS)].sum(axis=1), truth["log_hazard"], atol=5e-6)
    for kind, column in (("primary", "volume_ml"), ("invasion", "invasion_ml"), ("nodes", "node_ml")):
        mask, problems = nifti.read(folder / "truth" / f"A002_{kind}.nii.gz")
        assert problems == ()
        assert mask.array.sum() * mask.voxel_ml == pytest.approx(truth[column][1], abs=3 * mask.voxel_ml)


@pytest.mark.slow
def test_same_seed_same_bytes(folder: Path, tmp_path: Path) -> None:
    """The same seed writes the same bytes in every file; another seed other scans."""
    write_study(tmp_path / "again", voxel_scale=SCALE, **SIZES)
    write_study(tmp_path / "other", n_training=1, n_internal=0, n_external=0, voxel_scale=SCALE, seed=6)
    assert _bytes(tmp_path / "again") == _bytes(folder)
    image = "centerA/images/A001__CT.nii.gz"
    assert (tmp_path / "other" / image).read_bytes() != (folder / image).read_bytes()


@pytest.mark.slow
def test_workers_write_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    """Two processes write what one does."""
    write_study(tmp_path, voxel_scale=SCALE, workers=Workers(count=2), **SIZES)
    assert _bytes(tmp_path) == _bytes(folder)


def test_a_study_may_have_one_cohort() -> None:
    """A study without internal or external patients is a study."""
    clinical, _ = simulate_study(n_training=10, n_internal=0, n_external=0)
    assert set(clinical["split"]) == {"training"}
    clinical, _ = simulate_study(n_training=0, n_internal=0, n_external=5)
    assert set(clinical["center"]) == {"B"}


@pytest.mark.parametrize("sizes", [(0, 0, 0), (10, -1, 0)])
def test_impossible_sizes(sizes: tuple[int, int, int], tmp_path: Path) -> None:
    """No patients, or fewer than none, is an error that says what was asked for."""
    with pytest.raises(StudyError, match=r"E-SYNTHETIC .*found \(") as caught:
        write_study(tmp_path, n_training=sizes[0], n_internal=sizes[1], n_external=sizes[2])
    assert str(sizes) in str(caught.value)
