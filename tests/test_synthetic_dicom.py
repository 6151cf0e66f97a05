"""Centre B's DICOM says what the patient is: the same SUV, HU and mask come back, by our reader and by hand."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import pytest

from mtdlr.imaging.layout import discover
from mtdlr.imaging.reading import read_scan
from mtdlr.synthetic import Disease, SyntheticPatient, make_patient
from mtdlr.synthetic.dicom_writer import (
    HALF_LIFE_S,
    _ct_slices,
    _pet_slices,
    _save,
    examination_of,
    write_dicom_patient,
)


@pytest.fixture(scope="module")
def patient() -> SyntheticPatient:
    return make_patient(Disease(), patient_id="B007", center="B", voxel_scale=2.5, seed=3)


@pytest.fixture(scope="module", params=["rtstruct", "seg"])
def written(request: pytest.FixtureRequest, patient: SyntheticPatient) -> Path:
    root = request.getfixturevalue("tmp_path_factory").mktemp(request.param)
    write_dicom_patient(root / "B007", patient, contour=request.param, seed=3)
    return root


def _slices(folder: Path) -> list[pydicom.Dataset]:
    found = [pydicom.dcmread(path) for path in folder.iterdir()]
    return sorted(found, key=lambda ds: float(ds.ImagePositionPatient[2]))


def _seconds(text: str) -> float:
    return int(text[:2]) * 3600 + int(text[2:4]) * 60 + float(text[4:])


def test_suv_by_hand(written: Path, patient: SyntheticPatient) -> None:
    """Bq/ml x weight / dose decayed from injection to the series time is the patient's SUV in every slice."""
    for ds, plane in zip(_slices(written / "B007" / "PET"), patient.pet.array, strict=True):
        tracer = ds.RadiopharmaceuticalInformationSequence[0]
        elapsed = _seconds(ds.SeriesTime) - _seconds(tracer.RadiopharmaceuticalStartTime)
        dose = tracer.RadionuclideTotalDose * 2 ** (-elapsed / tracer.RadionuclideHalfLife)
        suv = ds.pixel_array * float(ds.RescaleSlope) * ds.PatientWeight * 1000 / float(dose)
        np.testing.assert_allclose(suv, plane, atol=plane.max() / 32767)


def test_reader_gives_back_the_patient(written: Path, patient: SyntheticPatient) -> None:
    """The package's own reader finds the patient and returns its SUV, HU, mask and grids without a warning."""
    (found,) = discover(written)
    scan = read_scan(found)
    assert found.patient_id == "B007"
    assert scan.problems == ()
    assert scan.pet.same_grid(patient.pet)
    assert scan.ct.same_grid(patient.ct)
    np.testing.assert_allclose(scan.pet.array, patient.pet.array, atol=patient.pet.array.max() / 32767)
    assert (scan.ct.array == patient.ct.array).all()
    assert scan.mask is not None
    assert (scan.mask.array.astype(bool) == patient.manual_mask.array).all()


def test_slopes_differ_between_slices(written: Path) -> None:
    """Nearly every PET slice has a rescale slope of its own, and none an intercept."""
    slices = _slices(written / "B007" / "PET")
    assert len({float(ds.RescaleSlope) for ds in slices}) > 0.9 * len(slices)
    assert {float(ds.RescaleIntercept) for ds in slices} == {0.0}


def test_timing_tags(written: Path) -> None:
    """Decay is corrected to the start: two beds with two acquisition times, and frame reference times that agree."""
    slices = _slices(written / "B007" / "PET")
    assert {ds.DecayCorrection for ds in slices} == {"START"}
    assert {ds.Units for ds in slices} == {"BQML"}
    assert len({ds.AcquisitionTime for ds in slices}) == 2
    decay = np.log(2) / HALF_LIFE_S
    for ds in slices:
        bed = float(ds.ActualFrameDuration) / 1000
        mean_s = np.log(decay * bed / (1 - np.exp(-decay * bed))) / decay
        back = _seconds(ds.AcquisitionTime) + mean_s - float(ds.FrameReferenceTime) / 1000
        assert back == pytest.approx(_seconds(ds.SeriesTime), abs=0.01)
        assert float(ds.DecayFactor) == pytest.approx(np.exp(decay * float(ds.FrameReferenceTime) / 1000), rel=1e-6)


def test_uids_are_unique_and_consistent(written: Path) -> None:
    """Each file has its own SOP instance; CT, PET and contour share one study and one frame of reference."""
    files = [pydicom.dcmread(path, stop_before_pixels=True) for path in written.rglob("*.dcm")]
    assert len({ds.SOPInstanceUID for ds in files}) == len(files)
    assert len({ds.SeriesInstanceUID for ds in files}) == 3
    assert len({ds.StudyInstanceUID for ds in files}) == 1
    assert len({ds.FrameOfReferenceUID for ds in files}) == 1
    assert len({ds.PatientID for ds in files} - {"B007"}) == 1


@pytest.mark.slow
def test_same_seed_same_bytes(written: Path, patient: SyntheticPatient, tmp_path: Path) -> None:
    """Writing the patient again gives the same bytes in every file, clock stamps and UIDs included."""
    kind = "seg" if (written / "B007" / "SEG").exists() else "rtstruct"
    write_dicom_patient(tmp_path / "B007", patient, contour=kind, seed=3)  # type: ignore[arg-type]
    first = {path.relative_to(written): path.read_bytes() for path in written.rglob("*.dcm")}
    again = {path.relative_to(tmp_path): path.read_bytes() for path in tmp_path.rglob("*.dcm")}
    assert first == again


@pytest.mark.parametrize("seed", range(20))
def test_examinations_are_plausible(patient: SyntheticPatient, seed: int) -> None:
    """Weight, dose and uptake time stay inside what a PET centre would accept without a warning."""
    exam = examination_of(patient, seed)
    assert 35 < exam.weight_kg < 130
    assert 1.5e8 < exam.dose_bq < 6e8
    assert 45 <= (exam.started - exam.injected).total_seconds() / 60 <= 90
    assert exam.injected.date() == exam.started.date()


def test_every_file_is_what_pydicom_writes_of_its_dataset(tmp_path: Path, patient: SyntheticPatient) -> None:
    """Encoding an element once for many slices gives the bytes of pydicom's own writer, and every slice its own UID."""
    exam = examination_of(patient, 1)
    for name, slices in (("CT", list(_ct_slices(exam, patient.ct))), ("PET", list(_pet_slices(exam, patient.pet)))):
        _save(tmp_path / name, slices)
        written = [path.read_bytes() for path in sorted((tmp_path / name).iterdir())]
        for dataset, data in zip(slices, written, strict=True):
            out = BytesIO()
            dataset.save_as(out, enforce_file_format=True)
            assert data == out.getvalue()
        assert len({dataset.SOPInstanceUID for dataset in slices}) == len(slices) > 4
        assert all(d.SOPInstanceUID == d.file_meta.MediaStorageSOPInstanceUID for d in slices)
