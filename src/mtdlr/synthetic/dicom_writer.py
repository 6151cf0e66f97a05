"""A patient as a hospital archive would send it: CT and PET series, and the contour as RTSTRUCT or SEG.

PET is stored in Bq/ml with a rescale slope of its own in every slice, decay-corrected to the start of the scan, in two
bed positions whose acquisition times differ. UIDs, dates and times follow from the patient's id and the seed, so the
same study gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from operator import is_
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydicom import DataElement, Dataset, FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import correct_ambiguous_vr, write_data_element, write_file_meta_info
from pydicom.sr.codedict import codes
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRLittleEndian,
    PositronEmissionTomographyImageStorage,
    RTStructureSetStorage,
    generate_uid,
)
from pydicom.valuerep import DSfloat

from mtdlr.synthetic.outline import outlines
from mtdlr.synthetic.patient import SyntheticPatient
from mtdlr.volume import Volume

HALF_LIFE_S = 6586.2  # fluorine-18
BED_S = 180.0
ContourKind = Literal["rtstruct", "seg"]


@dataclass(frozen=True)
class Examination:
    """Who was scanned, when, and with how much tracer."""

    patient_id: str
    hospital_id: str  # as in real archives, not the name the study uses
    sex: str
    age_years: int
    weight_kg: float
    height_m: float
    dose_bq: float
    injected: datetime
    started: datetime

    @property
    def bq_per_suv(self) -> float:
        """Activity concentration in Bq/ml at the start of the scan that is SUVbw 1."""
        elapsed_s = (self.started - self.injected).total_seconds()
        return self.dose_bq * 0.5 ** (elapsed_s / HALF_LIFE_S) / (self.weight_kg * 1000.0)


def examination_of(patient: SyntheticPatient, seed: int) -> Examination:
    """A plausible examination: 4.5 MBq/kg, about an hour of uptake, weight from the table's BMI.

    Args:
        patient: whose row of the clinical table gives sex, age and BMI.
        seed: of everything that the row does not say.
    """
    rng = np.random.default_rng([seed, 77])
    sex = "F" if patient.row.get("gender") == "Female" else "M"
    height_m = round(float(np.clip(rng.normal(1.60 if sex == "F" else 1.71, 0.06), 1.45, 1.95)), 2)
    weight_kg = round(float(patient.row.get("bmi", 23.5)) * height_m**2, 1)
    days, minutes = int(rng.integers(0, 1500)), int(rng.integers(0, 360))
    injected = datetime(2015, 3, 2, 8, 30) + timedelta(days=days, minutes=minutes)
    started = injected + timedelta(seconds=int(np.clip(rng.normal(3600, 420), 2700, 5400)))
    return Examination(patient.patient_id, f"H{rng.integers(10**7):07d}", sex, int(patient.row.get("age", 47)),
                       weight_kg, height_m, round(4.5e6 * weight_kg, -4), injected, started)


def write_dicom_patient(folder: Path, patient: SyntheticPatient, *, contour: ContourKind, seed: int = 0) -> None:
    """Leave CT/, PET/ and the contour's own folder under `folder`, one file a slice.

    Args:
        folder: the patient's folder; made if missing.
        patient: the scans; `manual_mask` becomes the contour.
        contour: as which object the contour is stored.
        seed: source of weight, dose and times.
    """
    exam = examination_of(patient, seed)
    ct = list(_ct_slices(exam, patient.ct))
    _save(folder / "CT", ct)
    _save(folder / "PET", _pet_slices(exam, patient.pet))
    if contour == "rtstruct":
        _save(folder / "RTSTRUCT", [_rtstruct(exam, patient.manual_mask, ct)])
    else:
        _save(folder / "SEG", [_seg(exam, patient.manual_mask, ct)])


def _save(folder: Path, datasets: Iterable[Dataset]) -> None:
    """One file a dataset; an element that has the value of the slice before it is not encoded again."""
    folder.mkdir(parents=True, exist_ok=True)
    known: dict[int, tuple[DataElement, bytes]] = {}
    for number, dataset in enumerate(datasets, start=1):
        out = DicomBytesIO()
        out.is_little_endian, out.is_implicit_VR = True, False
        out.write(bytes(128) + b"DICM")
        write_file_meta_info(out, dataset.file_meta, enforce_standard=True)
        for element in correct_ambiguous_vr(dataset, True):
            before = known.get(element.tag)
            if before is None or not _same(before[0], element):
                before = known[element.tag] = element, _encoded(element)
            out.write(before[1])
        (folder / f"{dataset.Modality}{number:04d}.dcm").write_bytes(out.getvalue())


def _same(one: DataElement, other: DataElement) -> bool:
    """Whether two elements of one tag are written alike: the same items of a sequence, else equal values."""
    if one is other:
        return True
    if one.VR == "SQ":
        return len(one.value) == len(other.value) and all(map(is_, one.value, other.value))
    return bool(one.value == other.value)


def _encoded(element: DataElement) -> bytes:
    """An element in explicit little endian; every text here is plain ASCII."""
    out = DicomBytesIO()
    out.is_little_endian, out.is_implicit_VR = True, False
    write_data_element(out, element)
    return out.getvalue()


def _uid(exam: Examination, *parts: object) -> str:
    """A UID that follows from the patient and the parts."""
    return generate_uid(entropy_srcs=["mtdlr synthetic", exam.patient_id, *map(str, parts)])


def _file(exam: Examination, sop_class: str, series: str, instance: object) -> Dataset:
    """A dataset with the patient, study and series modules, ready to be written."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, _uid(exam, series, instance)
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.PatientName, dataset.PatientID = "Synthetic^Patient", exam.hospital_id
    dataset.PatientIdentityRemoved, dataset.DeidentificationMethod = "YES", "nobody real"
    dataset.PatientSex, dataset.PatientAge = exam.sex, f"{exam.age_years:03d}Y"
    dataset.PatientBirthDate, dataset.ReferringPhysicianName = "", ""
    dataset.PatientWeight, dataset.PatientSize = exam.weight_kg, exam.height_m
    dataset.StudyInstanceUID, dataset.StudyID, dataset.AccessionNumber = _uid(exam, "study"), "1", ""
    dataset.SeriesInstanceUID = _uid(exam, series)
    dataset.FrameOfReferenceUID, dataset.PositionReferenceIndicator = _uid(exam, "frame"), ""
    dataset.Manufacturer, dataset.ManufacturerModelName = "Synthetic", "Phantom"
    _stamp(dataset, "Study", exam.started - timedelta(minutes=4))
    return dataset


def _another(base: Dataset, exam: Examination, series: str, instance: object) -> Dataset:
    """A dataset of the same series that shares everything but its identity."""
    dataset = Dataset(dict(base.items()))
    dataset.file_meta = FileMetaDataset(dict(base.file_meta.items()))
    del dataset.SOPInstanceUID, dataset.file_meta.MediaStorageSOPInstanceUID  # setting would change the shared ones
    dataset.SOPInstanceUID = _uid(exam, series, instance)
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    return dataset


def _stamp(dataset: Dataset, what: str, moment: datetime) -> None:
    """Date and time attributes of a name such as Series."""
    setattr(dataset, f"{what}Date", moment.strftime("%Y%m%d"))
    setattr(dataset, f"{what}Time", moment.strftime("%H%M%S.%f"))


def _grid(dataset: Dataset, volume: Volume, *, signed: bool) -> None:
    """What all slices share of the image plane and pixel modules."""
    spacing = volume.spacing_mm
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    dataset.PatientPosition = "HFS"
    dataset.PixelSpacing = [DSfloat(spacing[1], auto_format=True), DSfloat(spacing[2], auto_format=True)]
    dataset.SliceThickness = DSfloat(spacing[0], auto_format=True)
    dataset.Rows, dataset.Columns = volume.shape[1:]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit, dataset.PixelRepresentation = 15, int(signed)


def _image(dataset: Dataset, volume: Volume, index: int, stored: NDArray) -> None:
    """Image plane and pixels of one slice."""
    x, y, z = volume.points_mm((index, 0, 0)).tolist()
    dataset.ImagePositionPatient = [DSfloat(round(v, 4)) for v in (x, y, z)]
    dataset.SliceLocation, dataset.InstanceNumber = DSfloat(round(z, 4)), index + 1
    dataset.PixelData = stored.astype(stored.dtype.newbyteorder("<")).tobytes()


def _ct_slices(exam: Examination, ct: Volume) -> Iterator[Dataset]:
    """The CT, low dose, just before the PET."""
    moment = exam.started - timedelta(minutes=3)
    base = _file(exam, CTImageStorage, "ct", 0)
    base.Modality, base.SeriesNumber, base.SeriesDescription = "CT", 2, "CT head and neck"
    base.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    for what in ("Series", "Acquisition", "Content"):
        _stamp(base, what, moment)
    base.KVP, base.AcquisitionNumber = 120, 1
    base.RescaleIntercept, base.RescaleSlope, base.RescaleType = -1024, 1, "HU"
    _grid(base, ct, signed=False)
    for index, plane in enumerate(ct.array):
        dataset = _another(base, exam, "ct", index)
        _image(dataset, ct, index, (plane.astype(np.int32) + 1024).astype(np.uint16))
        yield dataset


def _pet_slices(exam: Examination, pet: Volume) -> Iterator[Dataset]:
    """The PET in Bq/ml; the lower half of the slices was acquired one bed later."""
    n = pet.shape[0]
    base = _file(exam, PositronEmissionTomographyImageStorage, "pet", 0)
    base.Modality, base.SeriesNumber, base.SeriesDescription = "PT", 3, "PET AC head and neck"
    base.ImageType = ["ORIGINAL", "PRIMARY"]
    _stamp(base, "Series", exam.started)
    base.Units, base.DecayCorrection, base.CountsSource = "BQML", "START", "EMISSION"
    base.SeriesType, base.NumberOfSlices = ["WHOLE BODY", "IMAGE"], n
    base.CorrectedImage = ["NORM", "DTIM", "ATTN", "SCAT", "DECY", "RAN"]
    base.CollimatorType, base.ReconstructionMethod = "NONE", "OSEM"
    base.ActualFrameDuration, base.RescaleIntercept = int(BED_S * 1000), 0
    base.RadiopharmaceuticalInformationSequence = [_tracer(exam)]
    _grid(base, pet, signed=True)
    for index, plane in enumerate(pet.array):
        later_s = BED_S if index < n // 2 else 0.0
        dataset = _another(base, exam, "pet", index)
        for what in ("Acquisition", "Content"):
            _stamp(dataset, what, exam.started + timedelta(seconds=later_s))
        dataset.ImageIndex = n - index
        dataset.FrameReferenceTime = DSfloat(round(1000 * (later_s + _mean_activity_s()), 3))
        dataset.DecayFactor = DSfloat(2 ** ((later_s + _mean_activity_s()) / HALF_LIFE_S), auto_format=True)
        activity = plane.astype(np.float64) * exam.bq_per_suv
        slope = max(float(activity.max()), 1e-3) / 32767
        _image(dataset, pet, index, np.rint(activity / slope).astype(np.int16))
        dataset.RescaleSlope = DSfloat(slope, auto_format=True)
        yield dataset


def _mean_activity_s() -> float:
    """When in a bed position the decaying activity equals its mean (QIBA)."""
    decay = np.log(2) / HALF_LIFE_S
    return float(np.log(decay * BED_S / -np.expm1(-decay * BED_S)) / decay)


def _tracer(exam: Examination) -> Dataset:
    """The radiopharmaceutical information item."""
    item = Dataset()
    item.Radiopharmaceutical = "FDG -- fluorodeoxyglucose"
    item.RadiopharmaceuticalStartTime = exam.injected.strftime("%H%M%S.%f")
    item.RadiopharmaceuticalStartDateTime = exam.injected.strftime("%Y%m%d%H%M%S.%f")
    item.RadionuclideTotalDose = DSfloat(exam.dose_bq)
    item.RadionuclideHalfLife, item.RadionuclidePositronFraction = DSfloat(HALF_LIFE_S), DSfloat(0.9673)
    item.RadionuclideCodeSequence = [_code("77004003", "SCT", "^18^Fluorine")]
    item.RadiopharmaceuticalCodeSequence = [_code("35321007", "SCT", "Fluorodeoxyglucose F^18^")]
    return item


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    """A coded concept."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def _reference(dataset: Dataset) -> Dataset:
    """A pointer to an image."""
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = dataset.SOPClassUID, dataset.SOPInstanceUID
    return item


def _rtstruct(exam: Examination, mask: Volume, ct: Sequence[Dataset]) -> Dataset:
    """The contour as a structure set: the outline of every slice, along the voxels' edges."""
    dataset = _file(exam, RTStructureSetStorage, "rtstruct", 1)
    dataset.Modality, dataset.SeriesNumber, dataset.SeriesDescription = "RTSTRUCT", 4, "Contours"
    for what in ("Series", "StructureSet"):
        _stamp(dataset, what, exam.started + timedelta(days=1))
    dataset.InstanceNumber, dataset.StructureSetLabel = 1, "CONTOURS"
    dataset.ReferencedFrameOfReferenceSequence = [_frame_reference(exam, ct)]
    roi, observation, contours = Dataset(), Dataset(), Dataset()
    roi.ROINumber, roi.ROIName, roi.ROIGenerationAlgorithm = 1, "GTVp", "MANUAL"
    roi.ReferencedFrameOfReferenceUID = dataset.FrameOfReferenceUID
    observation.ObservationNumber = observation.ReferencedROINumber = 1
    observation.RTROIInterpretedType, observation.ROIInterpreter = "GTV", ""
    contours.ReferencedROINumber, contours.ROIDisplayColor = 1, [255, 255, 0]
    contours.ContourSequence = [
        _contour(points, ct[index]) for index in range(mask.shape[0]) for points in _outlines_mm(mask, index)
    ]
    dataset.StructureSetROISequence, dataset.RTROIObservationsSequence = [roi], [observation]
    dataset.ROIContourSequence = [contours]
    return dataset


def _frame_reference(exam: Examination, ct: Sequence[Dataset]) -> Dataset:
    """Which frame, study and series the contours are drawn on."""
    frame, study, series = Dataset(), Dataset(), Dataset()
    series.SeriesInstanceUID = ct[0].SeriesInstanceUID
    series.ContourImageSequence = [_reference(image) for image in ct]
    study.ReferencedSOPClassUID, study.ReferencedSOPInstanceUID = "1.2.840.10008.3.1.2.3.1", _uid(exam, "study")
    study.RTReferencedSeriesSequence = [series]
    frame.FrameOfReferenceUID, frame.RTReferencedStudySequence = ct[0].FrameOfReferenceUID, [study]
    return frame


def _outlines_mm(mask: Volume, index: int) -> list[NDArray[np.float64]]:
    """Closed outlines (n, 3) in LPS mm of one slice."""
    return [
        mask.points_mm(np.column_stack([np.full(len(loop), index), loop])) for loop in outlines(mask.array[index])
    ]


def _contour(points_mm: NDArray[np.float64], image: Dataset) -> Dataset:
    """One closed planar contour on its image."""
    item = Dataset()
    item.ContourImageSequence = [_reference(image)]
    item.ContourGeometricType, item.NumberOfContourPoints = "CLOSED_PLANAR", len(points_mm)
    item.ContourData = [f"{value:.3f}" for value in points_mm.ravel()]
    return item


def _seg(exam: Examination, mask: Volume, ct: Sequence[Dataset]) -> Dataset:
    """The contour as a binary segmentation; what the writer stamps at random or by the clock is replaced."""
    import highdicom as hd  # the extra `dicom`

    segment = hd.seg.SegmentDescription(
        1, "GTVp", codes.SCT.MorphologicallyAbnormalStructure, codes.SCT.Neoplasm,
        hd.seg.SegmentAlgorithmTypeValues.MANUAL, tracking_uid=_uid(exam, "tracking"), tracking_id="primary tumour")
    dataset = hd.seg.Segmentation(
        list(ct), mask.array.astype(np.uint8), hd.seg.SegmentationTypeValues.BINARY, [segment],
        series_instance_uid=_uid(exam, "seg"), series_number=5, sop_instance_uid=_uid(exam, "seg", 1),
        instance_number=1, manufacturer="Synthetic", manufacturer_model_name="Phantom", software_versions="1",
        device_serial_number="1", content_label="GTV", series_description="Contours")
    _make_reproducible(dataset, exam)
    return dataset


def _make_reproducible(dataset: Dataset, exam: Examination) -> None:
    """The same bytes each time: dates from the examination, dimension UIDs from the patient."""
    for what in ("Series", "Content", "InstanceCreation"):
        _stamp(dataset, what, exam.started + timedelta(days=1))
    organization = _uid(exam, "dimensions")
    for item in (*dataset.DimensionOrganizationSequence, *dataset.DimensionIndexSequence):
        item.DimensionOrganizationUID = organization
    for item in dataset.ContributingEquipmentSequence:
        item.ContributionDateTime = (exam.started + timedelta(days=1)).strftime("%Y%m%d%H%M%S.%f")
