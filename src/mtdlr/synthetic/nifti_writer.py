"""A patient as NIfTI files in the naming of the HECKTOR challenge."""

from __future__ import annotations

from pathlib import Path

from mtdlr.imaging import nifti
from mtdlr.synthetic.patient import SyntheticPatient


def write_nifti_patient(folder: Path, patient: SyntheticPatient) -> None:
    """Write images/<ID>__CT.nii.gz (HU), images/<ID>__PT.nii.gz (SUV, g/ml) and labels/<ID>.nii.gz.

    Args:
        folder: where `images` and `labels` are made.
        patient: the patient.
    """
    images, labels = folder / "images", folder / "labels"
    images.mkdir(parents=True, exist_ok=True)
    labels.mkdir(parents=True, exist_ok=True)
    nifti.write(images / f"{patient.patient_id}__CT.nii.gz", patient.ct)
    nifti.write(images / f"{patient.patient_id}__PT.nii.gz", patient.pet)
    nifti.write(labels / f"{patient.patient_id}.nii.gz", patient.manual_mask)
