"""A prediction as DICOM: read back by others it says the same, in the same examination, and nothing else names it."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from one_prediction import outside, prediction, prepared
from typer.testing import CliRunner

from mtdlr import predict as stage
from mtdlr.cli import app
from mtdlr.errors import MtdlrError, ScanError
from mtdlr.predict import Prediction, one_scan
from mtdlr.report import pdf
from mtdlr.volume import Volume

hd = pytest.importorskip("highdicom")
sitk = pytest.importorskip("SimpleITK")

from one_examination import examination, predicted, source_of  # noqa: E402

from mtdlr.dicom_out import Source, read_source, write_dicom  # noqa: E402

SHARED = Path(__file__).parents[1].parent / "shared" / "data"
NAMES = ("SECRET4711", "Zyxwv", "19610203", "ACC9988")


def _expected(made: Prediction, source: Source) -> NDArray[np.bool_]:
    whole = np.zeros(source.shape, bool)
    whole[1:33, 2:, 1:] = made.mask.array
    return whole


def _on_ct(voxels: NDArray[Any], affine: NDArray[np.float64], source: Source) -> NDArray[np.bool_]:
    """Voxels above 0 of an array with its own place in space, put where they lie among those of the CT."""
    inside = np.argwhere(voxels)
    exact = Volume(np.zeros(source.shape), source.affine).indices(inside @ affine[:3, :3].T + affine[:3, 3])
    np.testing.assert_allclose(exact, np.rint(exact), atol=1e-3)
    whole = np.zeros(source.shape, bool)
    whole[tuple(np.rint(exact).astype(int).T)] = True
    assert whole.sum() == len(inside)
    return whole


def _image_on_ct(path: Path, source: Source) -> NDArray[np.bool_]:
    """An image as SimpleITK reads it, where it lies among the voxels of the CT."""
    image = sitk.ReadImage(str(path))
    affine = np.eye(4)
    affine[:3, :3] = (np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing())[:, ::-1]  # of index (z, y, x)
    affine[:3, 3] = image.GetOrigin()
    return _on_ct(sitk.GetArrayFromImage(image), affine, source)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Prediction]:
    """The objects of one prediction, with a PDF."""
    folder = tmp_path_factory.mktemp("examination")
    source = source_of(examination(folder / "in"))
    made = predicted(source)
    write_dicom(made, source, folder / "out", pdf=b"%PDF-1.7\n%%EOF")
    return folder / "out", made


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["anisotropic", "oblique", "reversed"])
def test_the_segmentation_is_the_mask(kind: str, tmp_path: Path) -> None:
    """Read by highdicom by files and by geometry, and by SimpleITK, it is the mask in every voxel."""
    source = source_of(examination(tmp_path / "in", kind))
    made = predicted(source)
    path = write_dicom(made, source, tmp_path / "out")[0]
    expected = _expected(made, source)
    segmentation = hd.seg.segread(path)
    by_files = segmentation.get_pixels_by_source_instance([str(ds.SOPInstanceUID) for ds in source.ct])[..., 0]
    np.testing.assert_array_equal(by_files, expected)
    ct = {ds.SOPInstanceUID: ds for ds in map(pydicom.dcmread, (tmp_path / "in" / "CT").iterdir())}
    assert [ct[ds.SOPInstanceUID].ImagePositionPatient for ds in source.ct] == \
        [ds.ImagePositionPatient for ds in source.ct]
    volume = segmentation.get_volume(combine_segments=True)
    np.testing.assert_array_equal(_on_ct(volume.array, volume.affine, source), expected)
    np.testing.assert_array_equal(_image_on_ct(path, source), expected)


@pytest.mark.skipif(shutil.which("segimage2itkimage") is None, reason="segimage2itkimage (dcmqi) is not installed")
@pytest.mark.parametrize("kind", ["anisotropic", "oblique", "reversed"])
def test_dcmqi_reads_the_mask(kind: str, tmp_path: Path) -> None:
    """Converted by dcmqi, the segmentation is the mask in every voxel."""
    source = source_of(examination(tmp_path / "in", kind))
    made = predicted(source)
    path = write_dicom(made, source, tmp_path / "out")[0]
    subprocess.run(["segimage2itkimage", "--inputDICOM", path, "--outputDirectory", tmp_path, "--outputType", "nrrd"],
                   check=True, capture_output=True)
    np.testing.assert_array_equal(_image_on_ct(tmp_path / "1.nrrd", source), _expected(made, source))


@pytest.mark.skipif(shutil.which("tid1500reader") is None, reason="tid1500reader (dcmqi) is not installed")
def test_dcmqi_reads_the_numbers(written: tuple[Path, Prediction], tmp_path: Path) -> None:
    """dcmqi's reader of TID 1500 finds the tumour's volume and uptake under their codes."""
    subprocess.run(["tid1500reader", "--inputDICOM", written[0] / "measurements.dcm", "--outputMetadata",
                    tmp_path / "sr.json"], check=True, capture_output=True)
    group = json.loads((tmp_path / "sr.json").read_text())["Measurements"][0]
    found = [(one["quantity"]["CodeValue"], float(one["value"])) for one in group["measurementItems"]]
    expected = [(code, value) for code, _, value in _numbers(pydicom.dcmread(written[0] / "measurements.dcm"))]
    assert [code for code, _ in found] == [code for code, _ in expected[:len(found)]] and len(found) == 6
    np.testing.assert_allclose([v for _, v in found], [v for _, v in expected[:len(found)]], rtol=1e-9)


def test_the_objects_belong_to_the_examination(written: tuple[Path, Prediction]) -> None:
    """Study, patient and frame of reference are those of the CT; each object has its own new series."""
    folder, made = written
    objects = [pydicom.dcmread(path) for path in sorted(folder.glob("*.dcm"))]
    assert [ds.Modality for ds in objects] == ["SR", "DOC", "SEG"]
    for ds in objects:
        assert ds.StudyInstanceUID == "1.2.3" and ds.PatientID == "SECRET4711" and ds.PatientName == "Zyxwv^Quentin"
        assert ds.AccessionNumber == "ACC9988" and ds.PatientBirthDate == "19610203"
        assert ds.SOPInstanceUID.startswith("2.25.") and ds.SeriesInstanceUID.startswith("2.25.")
    assert len({ds.SeriesInstanceUID for ds in objects} | {"1.2.3.1", "1.2.3.2"}) == 5
    tumour = objects[2]
    assert tumour.FrameOfReferenceUID == "1.2.3.9" and tumour.SegmentationType == "BINARY"
    algorithm = tumour.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence[0]
    assert algorithm.AlgorithmName == "mtdlr" and algorithm.AlgorithmVersion == made.version
    assert made.model in algorithm.AlgorithmParameters
    assert tumour.SegmentSequence[0].SegmentedPropertyTypeCodeSequence[0].CodingSchemeDesignator == "SCT"
    assert objects[1].EncapsulatedDocument[:14] == b"%PDF-1.7\n%%EOF" and objects[1].EncapsulatedDocumentLength == 14


def _numbers(item: pydicom.Dataset) -> list[tuple[str, str, float]]:
    """(code, unit, value) of every number in a structured report."""
    found = []
    for child in item.get("ContentSequence", ()):
        if child.ValueType == "NUM":
            measured = child.MeasuredValueSequence[0]
            exact = measured.get("FloatingPointValue", measured.NumericValue)
            found.append((child.ConceptNameCodeSequence[0].CodeValue,
                          measured.MeasurementUnitsCodeSequence[0].CodeValue, float(exact)))
        found += _numbers(child)
    return found


def test_the_report_says_what_the_prediction_says(written: tuple[Path, Prediction]) -> None:
    """Volume, uptake, risk, points and survival with limits equal prediction.json, in UCUM units."""
    folder, made = written
    said = made.as_dict()
    expected = [("118565006", "ml", said["mask_ml"])]
    for name, code, unit in (("suv_max", "126401", "g/ml{SUVbw}"), ("suv_mean", "126401", "g/ml{SUVbw}"),
                             ("suv_peak", "126401", "g/ml{SUVbw}"), ("mtv_ml_2_5", "126032", "ml"),
                             ("tlg_g_2_5", "126033", "g")):
        if said["uptake"].get(name) is not None:
            expected.append((code, unit, said["uptake"][name]))
    expected += [("RISK", "1", said["risk"]), ("POINTS", "1", said["points"]["total"])]
    for month, estimate in said["survival"].items():
        expected += [(f"SURV{month}{part}", "1", estimate[name])
                     for part, name in (("", "value"), ("LOW", "low"), ("HIGH", "high"))]
    found = _numbers(pydicom.dcmread(folder / "measurements.dcm"))
    assert len(expected) >= 13 and len(found) == len(expected)
    for (code, unit, value), (want_code, want_unit, want) in zip(found, expected, strict=True):
        assert (code, unit) == (want_code, want_unit)
        assert math.isclose(value, want, rel_tol=1e-9), code


def test_the_fhir_resource_says_it_too(written: tuple[Path, Prediction]) -> None:
    """A RiskAssessment has the probability of the event, one less the survival, at each horizon."""
    folder, made = written
    resource = json.loads((folder / "risk_assessment.json").read_text())
    assert resource["resourceType"] == "RiskAssessment" and resource["subject"]["identifier"]["value"] == "SECRET4711"
    assert resource["basis"][0]["identifier"]["value"] == "urn:oid:1.2.3"
    for one, (month, estimate) in zip(resource["prediction"], made.survival.items(), strict=True):
        assert one["whenRange"]["high"]["value"] == month
        assert one["probabilityDecimal"] == pytest.approx(1.0 - estimate.value, abs=1e-12)


@pytest.mark.slow
def test_the_fhir_resource_follows_the_standard(written: tuple[Path, Prediction], tmp_path: Path) -> None:
    """fhir.resources, which nobody here wrote, accepts it as a RiskAssessment; also where the patient has no number."""
    standard = pytest.importorskip("fhir.resources.R4B.riskassessment").RiskAssessment
    source = source_of(examination(tmp_path / "in"))
    source.patient.PatientID = ""
    write_dicom(predicted(source, group=""), source, tmp_path / "out")
    for folder in (written[0], tmp_path / "out"):
        standard.model_validate_json((folder / "risk_assessment.json").read_text())


@pytest.mark.slow
def test_warnings_go_along(tmp_path: Path) -> None:
    """A prediction of a scan unlike the training scans says so in the report and in the FHIR resource, as text."""
    source = source_of(examination(tmp_path / "in"))
    problems = outside().problems
    folder = write_dicom(predicted(source, problems=problems), source, tmp_path / "out")[0].parent
    said = [one.TextValue for group in pydicom.dcmread(folder / "measurements.dcm").ContentSequence[-1].ContentSequence
            for one in group.ContentSequence if one.ValueType == "TEXT" and one.RelationshipType == "CONTAINS"]
    noted = [one["text"] for one in json.loads((folder / "risk_assessment.json").read_text())["note"]]
    assert len(problems) == 2 and said == noted[2:] == [str(problem) for problem in problems]
    assert shutil.which("dciodvfy") is None or _verified(folder / "measurements.dcm") == []


@pytest.mark.slow
def test_a_name_in_other_letters_arrives_in_utf8(tmp_path: Path) -> None:
    """A name that the CT holds in GB18030 is the same name in the objects, which are UTF-8."""
    folder = examination(tmp_path / "in")
    for path in (folder / "CT").iterdir():
        ds = pydicom.dcmread(path)
        ds.SpecificCharacterSet, ds.PatientName = "GB18030", "Wang^XiaoDong=王^小东"
        ds.save_as(path)
    source = source_of(folder)
    for path in write_dicom(predicted(source), source, tmp_path / "out", pdf=b"%PDF-1.7\n%%EOF")[:3]:
        ds = pydicom.dcmread(path)
        assert ds.SpecificCharacterSet == "ISO_IR 192" and ds.PatientName.ideographic == "王^小东", path.name


@pytest.mark.slow
def test_the_same_prediction_is_the_same_bytes(written: tuple[Path, Prediction], tmp_path: Path) -> None:
    """Written again from the files in another folder, nothing differs; another mask has other UIDs."""
    folder, made = written
    source = source_of(examination(tmp_path / "again"))
    paths = write_dicom(made, source, tmp_path / "out", pdf=b"%PDF-1.7\n%%EOF")
    assert len(paths) == 4
    for path in paths:
        assert path.read_bytes() == (folder / path.name).read_bytes(), path.name
    array = made.mask.array.copy()
    array[0, 0, 0] ^= True
    write_dicom(replace(made, mask=made.mask.with_array(array)), source, tmp_path / "other", pdf=b"%PDF-1.7\n%%EOF")
    for path in (tmp_path / "other").glob("*.dcm"):
        ours, theirs = pydicom.dcmread(path), pydicom.dcmread(folder / path.name)
        assert ours.SOPInstanceUID != theirs.SOPInstanceUID and ours.SeriesInstanceUID != theirs.SeriesInstanceUID


@pytest.mark.slow
def test_no_tumour_is_an_empty_segmentation(tmp_path: Path) -> None:
    """A prediction without a tumour is written: no voxel, volume 0, and no uptake."""
    source = source_of(examination(tmp_path / "in"))
    made = predicted(source)
    made = replace(made, mask=made.mask.with_array(np.zeros(made.mask.shape, bool)), uptake={})
    folder = write_dicom(made, source, tmp_path / "out")[0].parent
    assert not pydicom.dcmread(folder / "tumour.dcm").pixel_array.any()
    assert _numbers(pydicom.dcmread(folder / "measurements.dcm"))[0] == ("118565006", "ml", 0.0)


@pytest.mark.slow
def test_a_mask_of_another_ct_is_refused(tmp_path: Path) -> None:
    """A mask off this CT's grid is an error of one line, and nothing is written."""
    source = source_of(examination(tmp_path / "in"))
    made = predicted(source)
    affine = made.mask.affine.copy()
    affine[0, 3] += 1.0
    moved = Volume(made.mask.array, affine)
    with pytest.raises(ScanError, match="E-DICOMOUT the mask does not lie on the grid"):
        write_dicom(replace(made, mask=moved, prepared=replace(made.prepared, ct_hu=moved)), source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_half_a_result_is_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where writing ends half way, neither the folder that `send` takes nor its parts exist."""
    source = source_of(examination(tmp_path / "in"))
    monkeypatch.setattr("mtdlr.dicom_out.write.risk_assessment", None)
    with pytest.raises(TypeError):
        write_dicom(predicted(source), source, tmp_path / "dicom")
    assert not (tmp_path / "dicom.part").exists() and not (tmp_path / "dicom").exists()


class _Bundle:
    """A model that answers without networks."""

    @classmethod
    def load(cls, folder: Path) -> _Bundle:
        return cls()

    def predict(self, patient: Path, **options: Any) -> Prediction:
        return predicted(source_of(patient))


@pytest.mark.parametrize("kind", ["a folder", "two files"])
def test_nifti_is_refused_before_the_work(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NIfTI belongs to no examination: one line with a code, and no folder is made."""
    monkeypatch.setattr(stage, "Bundle", None)
    (tmp_path / "p").mkdir()
    for name in ("P1__PT.nii.gz", "P1__CT.nii.gz"):
        stage.nifti.write(tmp_path / "p" / name, Volume(np.ones((3, 3, 3), np.float32), np.eye(4)))
    words = [str(tmp_path / "p")] if kind == "a folder" else [
        "--pet", str(tmp_path / "p" / "P1__PT.nii.gz"), "--ct", str(tmp_path / "p" / "P1__CT.nii.gz")]
    done = CliRunner().invoke(app, ["predict", "model", *words, "--dicom", "-o", str(tmp_path / "out")])
    assert isinstance(done.exception, MtdlrError) and str(done.exception).startswith("E-DICOMINPUT")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_only_the_dicom_folder_names_the_patient(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`predict --dicom` writes four objects; no other output and no line on the screen holds name, number or birth."""
    monkeypatch.setattr(stage, "Bundle", _Bundle)
    patient = examination(tmp_path / "in")
    done = CliRunner().invoke(app, ["predict", "model", str(patient), "--dicom", "-o", str(tmp_path / "out"), "--json"])
    assert done.exit_code == 0, done.exception
    names = {path.name for path in (tmp_path / "out" / "dicom").iterdir()}
    assert names == {"tumour.dcm", "measurements.dcm", "risk_assessment.json"} | (
        {"report.dcm"} if pdf.can_write_pdf() else set())
    others = [path for path in (tmp_path / "out").iterdir() if path.is_file()]
    assert len(others) >= 6
    for text in (done.output.encode(), *(path.read_bytes() for path in others)):
        assert not any(name.encode() in text for name in NAMES)
    assert b"SECRET4711" in (tmp_path / "out" / "dicom" / "tumour.dcm").read_bytes()


def test_without_highdicom_it_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--dicom` without its extra says what to install before anything is read."""
    monkeypatch.setattr("mtdlr.versions.find_spec", lambda name: None)
    done = CliRunner().invoke(app, ["predict", "model", str(tmp_path / "none"), "--dicom", "-o", str(tmp_path / "out")])
    assert isinstance(done.exception, MtdlrError)
    assert str(done.exception).startswith("E-EXTRA --dicom needs the package highdicom")


@pytest.mark.slow
def test_an_error_names_no_value(tmp_path: Path) -> None:
    """A header that cannot be carried over is named by its tag, not by what stands in it."""
    folder = examination(tmp_path / "in")
    for path in (folder / "CT").iterdir():
        ds = pydicom.dcmread(path)
        del ds.FrameOfReferenceUID
        ds.save_as(path)
    scan = one_scan(folder, None, None)
    with pytest.raises(ScanError, match="E-DICOMOUT .*an identifier of the examination is missing") as caught:
        read_source(replace(scan, problems=()))
    assert not any(name in str(caught.value) for name in NAMES)


@pytest.mark.slow
@pytest.mark.parametrize(("series", "number", "code"), [
    ("CT", 20, "E-GAP"), ("PET", 20, "E-GAP"), ("PET", 40, "E-DICOMOUT .*from a part of a series; found 39")])
def test_no_result_is_written_from_half_a_series(series: str, number: int, code: str, tmp_path: Path) -> None:
    """An examination that lacks a slice in the middle or, by its own count, at the end is refused before the work."""
    folder = examination(tmp_path / "in")
    next(p for p in (folder / series).iterdir() if pydicom.dcmread(p).InstanceNumber == number).unlink()
    with pytest.raises(ScanError, match=code):
        source_of(folder)


def _verified(path: Path) -> list[str]:
    """The errors that dciodvfy, which nobody here wrote, finds."""
    done = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True)
    return [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("Error")]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy (Debian dicom3tools) is not installed")
@pytest.mark.parametrize("patient", ["STS_008", "STS_025"])
def test_real_examinations_give_objects_that_follow_the_standard(patient: str, tmp_path: Path) -> None:
    """On two real GE examinations, whose study id is longer than allowed, dciodvfy finds no error; the mask is kept."""
    if not (SHARED / "dicom").exists():
        pytest.skip("the real DICOM series (../shared/data/dicom) are not here")
    source = source_of(SHARED / "dicom" / "sts_real" / patient)
    mask = Volume(np.random.default_rng(4).random(source.shape) < 0.01, source.affine)
    made = prediction(mask=mask, prepared=replace(prepared()[0], ct_hu=mask))
    paths = write_dicom(made, source, tmp_path / "out", pdf=b"%PDF-1.7\n%%EOF")[:3]
    assert {path.name: _verified(path) for path in paths} == {path.name: [] for path in paths}
    names = [str(ds.SOPInstanceUID) for ds in source.ct]
    read = hd.seg.segread(paths[0]).get_pixels_by_source_instance(names)[..., 0]
    np.testing.assert_array_equal(read, mask.array)


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy (Debian dicom3tools) is not installed")
@pytest.mark.parametrize("name", ["tumour.dcm", "measurements.dcm", "report.dcm"])
def test_the_objects_follow_the_standard(name: str, written: tuple[Path, Prediction]) -> None:
    """dciodvfy finds no error."""
    assert _verified(written[0] / name) == []
