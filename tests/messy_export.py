"""A hospital's raw export as it comes: eighteen patients in DICOM, and what is wrong with most of them."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

from pydicom import Dataset, dcmread
from pydicom.uid import generate_uid

from mtdlr.synthetic import Disease, make_patient
from mtdlr.synthetic.dicom_writer import write_dicom_patient

SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
STUDY = """[cohort]
images = "export"
table = "clinical.csv"
split = "random"
stage = "stage"
[cohort.factors]
stage = ["III", "IVa"]
"""


def write_messy_export(folder: Path) -> Path:
    """The study file of an export in `folder`/export with its table."""
    export = folder / "export"
    for number in range(1, 19):
        if number not in (11, 12):
            _write_patient(export, f"P{number:02d}", number)
    _spoil(export)
    rows = [f"P{n:02d},{'-3' if n == 7 else 20 + n},{n % 2},{'V' if n == 8 else 'IVa'}"
            for n in range(1, 19) if n != 14]
    (folder / "clinical.csv").write_text("patient_id,time_months,event,stage\n" + "\n".join(rows) + "\n")
    (folder / "study.toml").write_text(STUDY)
    return folder / "study.toml"


def edited(files: Path, edit: Callable[[Dataset], None]) -> None:
    """Every DICOM file below a folder, changed."""
    for path in sorted(p for p in files.rglob("*") if p.is_file()):
        dataset = dcmread(path)
        edit(dataset)
        dataset.save_as(path)


def _write_patient(export: Path, name: str, seed: int) -> None:
    patient = make_patient(Disease(), patient_id=name, center="B", voxel_scale=4.0, seed=seed)
    write_dicom_patient(export / name / "DICOM" / "ST0", patient, contour="rtstruct" if seed % 2 else "seg", seed=seed)
    for number, path in enumerate(sorted(p for p in (export / name).rglob("*.dcm"))):
        path.rename(path.with_name(f"IM{number:04d}"))  # names that say nothing


def _spoil(export: Path) -> None:
    """One fault a patient."""
    _add_what_is_never_taken(_study(export, "P01"))
    edited(_study(export, "P02") / "PET", _without("PatientWeight"))
    edited(_study(export, "P03") / "PET", _without_injection)
    edited(_study(export, "P04") / "PET", _in_megabecquerel)
    edited(_study(export, "P05") / "PET", _uncorrected)
    sorted((_study(export, "P06") / "CT").iterdir())[12].unlink()
    _packed(export / "P07")
    other = _study(export, "P09") / "PET"
    shutil.copytree(other, other.with_name("PET2"))
    edited(other.with_name("PET2"), lambda ds: _renamed(ds, "PET AC head and neck sharp"))
    damaged = sorted((_study(export, "P10") / "PET").iterdir())[5]
    damaged.write_bytes(damaged.read_bytes()[:600])
    shutil.copytree(export / "P01", export / "P11")
    edited(_study(export, "P13") / "RTSTRUCT", lambda ds: _second_structure(ds, "GTVn"))
    shutil.rmtree(_study(export, "P14") / "CT")
    shutil.move(export / "P14", export / "Q14")


def _study(export: Path, name: str) -> Path:
    return export / name / "DICOM" / "ST0"


def _add_what_is_never_taken(study: Path) -> None:
    """A series without attenuation correction, a localiser and a secondary capture beside the good ones."""
    shutil.copytree(study / "PET", study / "PET_1")
    edited(study / "PET_1", lambda ds: _renamed(ds, "PET NAC", CorrectedImage=["DECY", "SCAT"]))
    (study / "SCOUT").mkdir()
    shutil.copy(sorted((study / "CT").iterdir())[0], study / "SCOUT" / "IM0")
    edited(study / "SCOUT", lambda ds: _renamed(ds, "Topogram", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]))
    (study / "REPORT").mkdir()
    shutil.copy(sorted((study / "CT").iterdir())[0], study / "REPORT" / "IM0")
    edited(study / "REPORT", lambda ds: _renamed(ds, "Dose report", SOPClassUID=SECONDARY_CAPTURE))


def _renamed(ds: Dataset, description: str, **tags: object) -> None:
    ds.SeriesInstanceUID = generate_uid(entropy_srcs=[ds.SeriesInstanceUID, description])
    ds.SeriesDescription = description
    for name, value in tags.items():
        setattr(ds, name, value)


def _without(keyword: str) -> Callable[[Dataset], None]:
    return lambda ds: delattr(ds, keyword)


def _without_injection(ds: Dataset) -> None:
    tracer = ds.RadiopharmaceuticalInformationSequence[0]
    del tracer.RadiopharmaceuticalStartTime, tracer.RadiopharmaceuticalStartDateTime


def _in_megabecquerel(ds: Dataset) -> None:
    tracer = ds.RadiopharmaceuticalInformationSequence[0]
    tracer.RadionuclideTotalDose = f"{float(tracer.RadionuclideTotalDose) / 1e6:.4f}"


def _uncorrected(ds: Dataset) -> None:
    ds.CorrectedImage, ds.SeriesDescription = ["DECY", "SCAT"], "PET NAC"


def _second_structure(ds: Dataset, name: str) -> None:
    first = ds.StructureSetROISequence[0]
    second, observation, contours = Dataset(), Dataset(), Dataset()
    second.ROINumber, second.ROIName, second.ROIGenerationAlgorithm = 2, name, "MANUAL"
    second.ReferencedFrameOfReferenceUID = first.ReferencedFrameOfReferenceUID
    observation.ObservationNumber = observation.ReferencedROINumber = 2
    observation.RTROIInterpretedType, observation.ROIInterpreter = "GTV", ""
    contours.ReferencedROINumber, contours.ContourSequence = 2, ds.ROIContourSequence[0].ContourSequence
    ds.StructureSetROISequence.append(second)
    ds.RTROIObservationsSequence.append(observation)
    ds.ROIContourSequence.append(contours)


def _packed(folder: Path) -> None:
    """The folder as a zip beside it."""
    with zipfile.ZipFile(folder.with_suffix(".zip"), "w") as archive:
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            archive.write(path, path.relative_to(folder.parent))
    shutil.rmtree(folder)
