"""A small PET/CT as DICOM with a patient to be named, and a prediction whose mask lies on its CT."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from imaging_series import write_ct, write_pet
from numpy.typing import NDArray
from one_prediction import prediction, prepared

from mtdlr.dicom_out import Source, read_source
from mtdlr.predict import Prediction, one_scan
from mtdlr.volume import Volume

SHAPE, STEP_MM = (40, 9, 7), 3.0
IDENTITY = {"PatientID": "SECRET4711", "PatientName": "Zyxwv^Quentin", "PatientBirthDate": "19610203",
            "AccessionNumber": "ACC9988", "StudyTime": "105900", "PatientSex": "M", "StudyID": "S77"}


def turned() -> NDArray[np.float64]:
    """Rows and columns turned about all three axes."""
    a, b, c = np.radians([20.0, -15.0, 30.0])
    x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return x @ y @ z


def examination(folder: Path, kind: str = "anisotropic") -> Path:
    """PET and CT of one examination; the CT's pixels are 4 x 5 mm, its slices 3 mm apart."""
    axes = turned() if kind == "oblique" else np.eye(3)

    def place(k: int, ds: pydicom.Dataset) -> None:
        at = SHAPE[0] - 1 - k if kind == "reversed" else k
        ds.ImagePositionPatient = [f"{v:.6f}" for v in np.array([-30.0, -40.0, -200.0]) + STEP_MM * at * axes[:, 2]]
        ds.ImageOrientationPatient = [f"{v:.9f}" for v in (*axes[:, 0], *axes[:, 1])]

    write_ct(folder / "CT", SHAPE[0], edit=place, step_mm=STEP_MM, **IDENTITY)
    write_pet(folder / "PET", SHAPE[0], step_mm=STEP_MM, **IDENTITY)
    return folder


def source_of(folder: Path) -> Source:
    """The headers that results of it need."""
    return read_source(one_scan(folder, None, None))


def predicted(source: Source, **changes: Any) -> Prediction:
    """A prediction whose mask, without any symmetry, lies on a part of this CT's grid.

    The 32 slices of 63 voxels fill whole bytes: of a last byte that is not full, GDCM leaves bits to chance.
    """
    affine = source.affine.copy()
    affine[:3, 3] = Volume(np.zeros(source.shape), source.affine).points_mm(np.array([1, 2, 1]))
    grid = Volume(np.zeros((32, 7, 6), np.float32), affine)
    mask = grid.with_array(np.random.default_rng(3).random(grid.shape) < 0.3)
    return prediction(**({"mask": mask, "prepared": replace(prepared()[0], ct_hu=grid)} | changes))
