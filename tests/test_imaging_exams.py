"""Several examinations, derived images, damaged and foreign files in one folder: never mixed, never taken silently."""

from __future__ import annotations

from pathlib import Path

import imaging_series as series
import numpy as np
import pytest
import test_imaging_contours as contours
from pydicom import Dataset
from pydicom.uid import generate_uid

from mtdlr.errors import ScanError
from mtdlr.imaging.images import read_ct
from mtdlr.imaging.layout import ScanSet, discover, names_the_patient
from mtdlr.imaging.reading import read_scan


def codes(scan: ScanSet) -> set[str]:
    return {p.code for p in scan.problems}


def patient(folder: Path, **pet_tags: object) -> ScanSet:
    """A PET and a CT of one examination."""
    series.write_pet(folder / "PET", 12, **pet_tags)
    series.write_ct(folder / "CT", 12)
    return discover(folder)[0]


def follow_up(folder: Path, day: str, **tags: object) -> None:
    """A second PET with finer voxels, of another study."""
    dates = dict.fromkeys(("StudyDate", "SeriesDate", "AcquisitionDate"), day)
    series.write_pet(folder / "PET2", 12, StudyInstanceUID="9.3", SeriesInstanceUID="9.3.1", PixelSpacing=[2.0, 2.0],
                     SeriesDescription="PET later", **dates, **tags)


def test_two_examinations(tmp_path: Path) -> None:
    """Two PETs of different days are E-EXAMS with the days between them; asking for one takes it and its CT."""
    patient(tmp_path)
    follow_up(tmp_path, "20200525")
    (scan,) = discover(tmp_path)
    (told,) = (p for p in scan.problems if p.code == "E-EXAMS")
    assert scan.pet is None and "84 days" in told.found
    chosen = read_scan(scan, series="PT WB")
    assert chosen.pet.spacing_mm == pytest.approx((3.0, 4.0, 5.0))
    assert {"W-EXAMDAYS"} <= {p.code for p in read_scan(scan, series="PET later").problems}


@pytest.mark.slow
def test_one_examination_in_two_studies(tmp_path: Path) -> None:
    """Two PETs of one day, or of one study that went on past midnight, are one examination."""
    patient(tmp_path / "a")
    follow_up(tmp_path / "a", "20200302")
    patient(tmp_path / "b")
    follow_up(tmp_path / "b", "20200303")
    series.write_pet(tmp_path / "b" / "PET2", 12, SeriesInstanceUID="9.3.1", PixelSpacing=[2.0, 2.0],
                     AcquisitionDate="20200303")
    assert not codes(discover(tmp_path / "a")[0]) & {"E-EXAMS"}
    assert not codes(discover(tmp_path / "b")[0]) & {"E-EXAMS"}


def test_two_examinations_without_dates(tmp_path: Path) -> None:
    """Without any date, two studies with a PET each are E-EXAMS, the days unknown."""
    gone = dict.fromkeys(("StudyDate", "SeriesDate", "AcquisitionDate"))
    patient(tmp_path, **gone)
    follow_up(tmp_path, None)
    (told,) = (p for p in discover(tmp_path)[0].problems if p.code == "E-EXAMS")
    assert "unknown days" in told.found


DERIVED: dict[str, dict[str, object]] = {
    "MIP by type": {"ImageType": ["DERIVED", "SECONDARY", "AXIAL", "MIP"]},
    "MIP by name": {"ImageType": ["DERIVED", "SECONDARY", "AXIAL"], "SeriesDescription": "ax thin MIP 1.0"},
    "iodine by type": {"ImageType": ["DERIVED", "PRIMARY", "AXIAL", "IODINE"]},
    "iodine by name": {"SeriesDescription": "Iodine map 120kV"},
    "effective Z": {"RescaleType": "Z_EFF"},
    "other derived": {"ImageType": ["DERIVED", "SECONDARY", "AXIAL"]},
}


@pytest.mark.parametrize("case", DERIVED)
def test_derived_ct_is_not_taken(tmp_path: Path, case: str) -> None:
    """A derived CT with finer pixels is never taken where there is an original one."""
    series.write_ct(tmp_path / "MAP", 12, SeriesInstanceUID="1.2.3.77", SeriesNumber=0, PixelSpacing=[0.5, 0.5],
                    **{"SeriesDescription": "CT", **DERIVED[case]})
    scan = patient(tmp_path)
    assert scan.ct is not None and all(p.parent.name == "CT" for p in scan.ct)


@pytest.mark.parametrize("case", DERIVED)
def test_derived_ct_alone(tmp_path: Path, case: str) -> None:
    """A projection or map alone is E-NOCT; another CT that is marked as derived is taken with W-CTDERIVED."""
    series.write_pet(tmp_path / "PET", 12)
    series.write_ct(tmp_path / "CT", 12, **{"SeriesDescription": "CT", **DERIVED[case]})
    (scan,) = discover(tmp_path)
    wanted = "W-CTDERIVED" if case == "other derived" else "E-NOCT"
    assert wanted in codes(scan) and (scan.ct is None) == (wanted == "E-NOCT")


def test_two_patients_in_one_series(tmp_path: Path) -> None:
    """Slices of two patients under one series are E-PATIENTMIX."""
    def stranger(k: int, ds: Dataset) -> None:
        if k == 7:
            ds.PatientID = ds.PatientName = "0815"

    series.write_pet(tmp_path / "PET", 12)
    series.write_ct(tmp_path / "CT", 12, edit=stranger)
    assert "E-PATIENTMIX" in codes(discover(tmp_path)[0])


@pytest.mark.parametrize("marked", [True, False])
def test_localiser_inside_the_series(tmp_path: Path, marked: bool) -> None:
    """A localiser under the axial CT's series is left out, whether it is marked as one or only lies across."""
    scan = patient(tmp_path)
    whole = read_ct(scan.ct).volume

    def scout(_: int, ds: Dataset) -> None:
        ds.SOPInstanceUID, ds.ImageOrientationPatient = "1.2.3.2.99", [0, 1, 0, 0, 0, -1]
        if marked:
            ds.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]

    series.write_ct(tmp_path / "SCOUT", 1, edit=scout)
    (again,) = discover(tmp_path)
    assert not any(p.is_error for p in again.problems)
    np.testing.assert_array_equal(read_ct(again.ct).volume.array, whole.array)


@pytest.mark.slow
def test_neck_bed_against_whole_body(tmp_path: Path) -> None:
    """A neck bed of 20 cm with smaller voxels is preferred to the whole body; a brain scan of 15 cm is not."""
    for name, slices, expected in (("neck", 68, True), ("brain", 51, False)):
        folder = tmp_path / name
        series.write_pet(folder / "WB", 300, SeriesType=["WHOLE BODY", "IMAGE"], step_mm=3.0)
        bottom = -200.0 + 3.0 * (300 - slices)

        def at_the_top(k: int, ds: Dataset, bottom: float = bottom) -> None:
            ds.ImagePositionPatient = [-30.0, -40.0, bottom + 3.0 * k]

        series.write_pet(folder / "BED", slices, edit=at_the_top, SeriesInstanceUID="1.2.3.5", PixelSpacing=[2.0, 2.0],
                         SeriesDescription="PET bed")
        series.write_ct(folder / "CT", 12)
        (scan,) = discover(folder)
        assert (scan.pet[0].parent.name == "BED") == expected, name


def test_damaged_file_of_a_series_nobody_needs(tmp_path: Path) -> None:
    """Damaged contours and a damaged slice in another folder are W-DICOM; the scan is read."""
    patient(tmp_path)
    other = series.write_pet(tmp_path / "NAC", 12, SeriesInstanceUID="1.2.3.6", CorrectedImage=["DECY"])
    other[3].write_bytes(b"")
    (scan,) = discover(tmp_path)
    assert "W-DICOM" in codes(scan)
    read_scan(scan)


SPELLINGS = ["DOE_JOHN", "doe-john", "JohnDoe", "DOEJOHN", "John Doe", "J_Doe_CT", "Doe, J", "P-DoeJ", "doe.john.2020",
             "4711", "ID4711", "000-4711", "pat_004711_pre"]


@pytest.mark.slow
@pytest.mark.parametrize("folder", SPELLINGS)
def test_folder_is_called_by_the_patient(tmp_path: Path, folder: str) -> None:
    """A folder called by the name or number in the headers is noticed in every usual spelling."""
    series.write_pet(tmp_path / folder, 12, PatientName="DOE^JOHN", PatientID="004711")
    (scan,) = discover(tmp_path / folder)
    assert names_the_patient(scan)


@pytest.mark.parametrize(("folder", "name"), [("Mueller", "Müller^Ina"), ("Muller_I", "Müller^Ina"),
                                              ("INAMUELLER", "Müller^Ina")])
def test_umlauts(tmp_path: Path, folder: str, name: str) -> None:
    """A name with an umlaut is noticed spelled out and without it."""
    series.write_pet(tmp_path / folder, 12, PatientName=name, SpecificCharacterSet="ISO_IR 100")
    assert names_the_patient(discover(tmp_path / folder)[0])


@pytest.mark.parametrize("folder", ["P001", "patient 12", "scan-2020-03-02", "HN_CHUM_0042"])
def test_folder_that_names_nobody(tmp_path: Path, folder: str) -> None:
    """Study numbers and dates are not taken for a name."""
    series.write_pet(tmp_path / folder, 12, PatientName="DOE^JOHN", PatientID="004711")
    assert not names_the_patient(discover(tmp_path / folder)[0])


def test_high_bit(tmp_path: Path) -> None:
    """Twelve bits that end at HighBit 15 are read as such; where the lower bits are used too it is E-PIXELS."""
    values = series.stored(12) % 4096

    def upper(shift: int) -> series.Edit:
        def edit(k: int, ds: Dataset) -> None:
            ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 12, 15, 0
            ds.PixelData = (values[k].astype(np.uint16) << shift).tobytes()
        return edit

    files = series.write_ct(tmp_path / "a", 12, edit=upper(4))
    np.testing.assert_array_equal(read_ct(tuple(files)).volume.array, values - 1024.0)
    with pytest.raises(ScanError) as caught:
        read_ct(tuple(series.write_ct(tmp_path / "b", 12, edit=upper(0))))
    assert caught.value.code == "E-PIXELS"


def test_frame_of_reference_absent_in_the_ct(tmp_path: Path) -> None:
    """A CT that names no frame of reference is W-NOFRAME: nothing says that it lies where the PET does."""
    series.write_pet(tmp_path / "PET", 12)
    series.write_ct(tmp_path / "CT", 12, FrameOfReferenceUID=None)
    assert "W-NOFRAME" in {p.code for p in read_scan(discover(tmp_path)[0]).problems}


def test_structure_set_names_its_frame_inside(tmp_path: Path) -> None:
    """Contours whose frame and series stand in a later item of their sequences are found all the same."""
    patient(tmp_path)
    frames = contours.Sequence([
        contours.item(FrameOfReferenceUID="8.8.8"),
        contours.item(FrameOfReferenceUID="1.2.3.9", RTReferencedStudySequence=contours.Sequence([
            contours.item(RTReferencedSeriesSequence=contours.Sequence([contours.item(SeriesInstanceUID="8.8.9")])),
            contours.item(RTReferencedSeriesSequence=contours.Sequence([contours.item(SeriesInstanceUID="1.2.3.2")]))]))])
    contours.write_rtstruct(tmp_path / "RS" / "rs.dcm", {"GTV": [contours.square(-20, -10, z=-191.0)]},
                            FrameOfReferenceUID=None, ReferencedFrameOfReferenceSequence=frames)
    (scan,) = discover(tmp_path)
    assert scan.mask is not None and not codes(scan) & {"W-MASKSERIES", "W-MASKOTHER"}
    assert not {"W-MASKFRAME"} & {p.code for p in read_scan(scan).problems}


def test_structure_set_names_its_frame_once(tmp_path: Path) -> None:
    """Contours that name no series, and their frame of reference in that sequence alone, are those of the CT in it."""
    for frame, there in (("1.2.3.9", True), ("8.8.8", False)):
        folder = tmp_path / frame
        patient(folder)
        contours.write_rtstruct(
            folder / "RS" / "rs.dcm", {"GTV": [contours.square(-20, -10, z=-191.0)]}, FrameOfReferenceUID=None,
            ReferencedFrameOfReferenceSequence=contours.Sequence([contours.item(FrameOfReferenceUID=frame)]),
            StructureSetROISequence=contours.Sequence([contours.item(ROINumber=1, ROIName="GTV")]))
        (scan,) = discover(folder)
        assert (scan.mask is not None) == there, frame
        assert codes(scan) & {"W-MASKOTHER"} == (set() if there else {"W-MASKOTHER"})


def test_series_label_without_numbers(tmp_path: Path) -> None:
    """A series whose voxel size is not described says so instead of printing nan."""
    series.write_pet(tmp_path, 12, PixelSpacing=None, SeriesInstanceUID=generate_uid())
    (scan,) = discover(tmp_path)
    assert "nan" not in " ".join([scan.why, *map(str, scan.problems)]) and "voxel size unknown" in scan.why
