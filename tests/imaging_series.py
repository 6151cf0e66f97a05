"""Small DICOM series made for the tests: a PET and a CT of one examination, every tag open to change."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, FileMetaDataset
from pydicom.config import disable_value_validation
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian

PET_SOP, CT_SOP = "1.2.840.10008.5.1.4.1.1.128", "1.2.840.10008.5.1.4.1.1.2"
HALF_LIFE_S = 6586.2
DOSE_BQ, WEIGHT_KG = 370e6, 70.0
Edit = Callable[[int, Dataset], None]


def stored(slices: int, seed: int = 5, shape: tuple[int, int] = (9, 7)) -> NDArray[np.int16]:
    """Stored numbers (slices, rows, columns), different in every voxel and slice."""
    return np.random.default_rng(seed).integers(100, 20_000, (slices, *shape)).astype(np.int16)


def activity_factor(minutes: float = 60.0, half_life_s: float = HALF_LIFE_S) -> float:
    """SUVbw of 1 Bq/ml corrected to a moment `minutes` after the injection, by the definition."""
    return WEIGHT_KG * 1000.0 / (DOSE_BQ * 2.0 ** (-minutes * 60.0 / half_life_s))


def tracer(**tags: object) -> Dataset:
    """A radiopharmaceutical item: FDG, 370 MBq at 10:00."""
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "C-111A1", "SRT", "^18^Fluorine"
    item = Dataset()
    item.RadiopharmaceuticalStartTime = "100000"
    item.RadionuclideTotalDose, item.RadionuclideHalfLife = str(DOSE_BQ), str(HALF_LIFE_S)
    item.RadionuclideCodeSequence = Sequence([code])
    put(item, tags)
    return item


def put(ds: Dataset, tags: dict[str, object]) -> None:
    """Set tags; None deletes."""
    for name, value in tags.items():
        if value is None:
            if name in ds:
                delattr(ds, name)
        else:
            setattr(ds, name, value)


def plane(modality: str, k: int, values: NDArray, step_mm: float) -> Dataset:
    """One slice of a well-behaved examination on 2 March 2020: injected at 10:00, scanned from 11:00."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID = PET_SOP if modality == "PT" else CT_SOP
    number = 1 if modality == "PT" else 2
    ds.SOPInstanceUID = f"1.2.3.{number}.{k + 1}"
    ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
    ds.Modality, ds.PatientID, ds.PatientName = modality, "4711", "Test^Person"
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = "1.2.3", f"1.2.3.{number}", "1.2.3.9"
    ds.SeriesNumber, ds.InstanceNumber, ds.SeriesDescription = number, k + 1, f"{modality} WB"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.StudyDate = ds.SeriesDate = ds.AcquisitionDate = "20200302"
    ds.SeriesTime = ds.AcquisitionTime = "110000"
    ds.ImagePositionPatient = [-30.0, -40.0, -200.0 + step_mm * k]
    ds.ImageOrientationPatient, ds.PixelSpacing = [1, 0, 0, 0, 1, 0], [4.0, 5.0]
    ds.SliceThickness = str(step_mm)
    ds.Rows, ds.Columns = values.shape
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PixelRepresentation = 1, "MONOCHROME2", 1
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, 16, 15
    ds.PixelData = np.ascontiguousarray(values, dtype="<i2").tobytes()
    ds.RescaleSlope, ds.RescaleIntercept = "1", "0"
    return ds


def write_pet(
    folder: Path, slices: int = 4, *, edit: Edit | None = None, dose: dict[str, object] | None = None,
    values: NDArray | None = None, step_mm: float = 3.0, **tags: object,
) -> list[Path]:  # fmt: skip
    """A PET series in Bq/ml, one slope a slice; `tags` change every slice, `dose` the tracer, `edit` single slices."""
    if values is None and not (edit or dose or tags):
        return _write(folder, 1, _plain("PT", slices, step_mm))
    values = stored(slices) if values is None else values
    with disable_value_validation():
        planes = [pet_plane(k, values[k], step_mm, slices, dose or {}) for k in range(slices)]
        return save(folder, planes, tags, edit)


def pet_plane(k: int, values: NDArray, step_mm: float, slices: int, dose: dict[str, object]) -> Dataset:
    """One slice of the PET."""
    ds = plane("PT", k, values, step_mm)
    ds.SeriesType, ds.Units, ds.DecayCorrection = ["STATIC", "IMAGE"], "BQML", "START"
    ds.CorrectedImage = ["ATTN", "DECY", "SCAT"]
    ds.PatientWeight, ds.PatientSize, ds.PatientSex = str(WEIGHT_KG), "1.75", "M"
    ds.FrameReferenceTime, ds.ActualFrameDuration = frame_reference_ms(300.0), "300000"
    ds.NumberOfSlices = slices
    ds.RescaleSlope = slope(k)
    ds.RadiopharmaceuticalInformationSequence = Sequence([tracer(**dose)])
    return ds


def slope(k: int) -> str:
    """The rescale slope of a slice."""
    return str(0.25 * (k % 3 + 1))


def frame_reference_ms(duration_s: float, after_s: float = 0.0) -> str:
    """FrameReferenceTime of a frame that starts `after_s` after the reference time."""
    x = math.log(2.0) / HALF_LIFE_S * duration_s
    mean_s = math.log(x / (1.0 - math.exp(-x))) * HALF_LIFE_S / math.log(2.0)
    return f"{1000.0 * (after_s + mean_s):.3f}"


def write_ct(
    folder: Path, slices: int = 4, *, edit: Edit | None = None, values: NDArray | None = None, step_mm: float = 3.0,
    **tags: object,
) -> list[Path]:  # fmt: skip
    """A CT series in HU with the usual intercept of -1024."""
    if values is None and not (edit or tags):
        return _write(folder, 2, _plain("CT", slices, step_mm))
    values = (stored(slices, seed=6) // 10) if values is None else values
    with disable_value_validation():
        return save(folder, [ct_plane(k, values[k], step_mm) for k in range(slices)], tags, edit)


def ct_plane(k: int, values: NDArray, step_mm: float) -> Dataset:
    """One slice of the CT."""
    ds = plane("CT", k, values, step_mm)
    ds.RescaleIntercept = "-1024"
    return ds


@cache
def _plain(modality: str, slices: int, step_mm: float) -> tuple[bytes, ...]:
    """The files of an unchanged series, which most tests share."""
    with disable_value_validation():
        if modality == "PT":
            planes = [pet_plane(k, stored(slices)[k], step_mm, slices, {}) for k in range(slices)]
        else:
            planes = [ct_plane(k, stored(slices, seed=6)[k] // 10, step_mm) for k in range(slices)]
        return tuple(_encoded(ds) for ds in planes)


def save(folder: Path, planes: list[Dataset], tags: dict[str, object], edit: Edit | None) -> list[Path]:
    """The slices, changed, one file each."""
    for k, ds in enumerate(planes):
        put(ds, tags)
        if edit is not None:
            edit(k, ds)
    return _write(folder, planes[0].SeriesNumber, tuple(_encoded(ds) for ds in planes))


def _encoded(ds: Dataset) -> bytes:
    buffer = BytesIO()
    ds.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _write(folder: Path, number: int, files: tuple[bytes, ...]) -> list[Path]:
    """One file a slice, in an order of names that says nothing about the position."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{(k * 7 + 3) % 101:03d}-{number}.dcm" for k in range(len(files))]
    for path, data in zip(paths, files, strict=True):
        path.write_bytes(data)
    return paths
