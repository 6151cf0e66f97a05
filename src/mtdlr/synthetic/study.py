"""The whole synthetic study on disk: two centres, clinical table, truth, settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypedDict, Unpack

import numpy as np
import pandas as pd

from mtdlr.errors import Problem, StudyError
from mtdlr.imaging import nifti
from mtdlr.synthetic.dicom_writer import ContourKind, write_dicom_patient
from mtdlr.synthetic.nifti_writer import write_nifti_patient
from mtdlr.synthetic.patient import SyntheticPatient, make_patient
from mtdlr.synthetic.truth import BURDEN, TRUTHS, disease_of, simulate_cohort
from mtdlr.workers import Workers, run_jobs, values_of

CENTER_OF = {"training": "A", "internal": "A", "external": "B"}
CLINICAL_COLUMNS = (
    "patient_id", "center", "split", "age", "gender", "ebv", "histology", "bmi", "ldh", "t_stage", "n_stage",
    "tnm_stage", "ic", "ccrt", "ac", "targeted", "time_months", "event",
)

def simulate_study(
    *, n_training: int = 522, n_internal: int = 130, n_external: int = 234, seed: int = 0,
    truth: str = BURDEN,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(clinical table, truth table) of both centres; no images are made.

    Args:
        n_training: training patients, of centre A.
        n_internal: internal validation patients, of centre A.
        n_external: patients of centre B.
        seed: source of everything.
        truth: what drives the hazard, one of `mtdlr.synthetic.TRUTHS`. All but `burden` have the same patients.

    Raises:
        StudyError: E-SYNTHETIC for a negative number of patients, or none at all, or a truth of another name.

    >>> clinical, truth = simulate_study(n_training=20, n_internal=5, n_external=8, seed=3)
    >>> clinical.patient_id.iloc[[0, -1]].tolist(), bool((clinical.patient_id == truth.patient_id).all())
    (['A001', 'B008'], True)
    """
    sizes = (n_training, n_internal, n_external)
    if min(sizes) < 0 or sum(sizes) == 0:
        raise StudyError(Problem("E-SYNTHETIC", "a synthetic study needs patients", where="cohort sizes",
                                 found=str(sizes), expected="numbers >= 0, not all 0"))
    if truth not in TRUTHS:
        raise StudyError(Problem("E-SYNTHETIC", "there is no such truth", where="truth", found=truth,
                                 expected=", ".join(TRUTHS)))
    tables = []
    for number, (split, n) in enumerate(zip(CENTER_OF, sizes, strict=True)):
        if n > 0:
            clinical, hidden = simulate_cohort(split, n, np.random.default_rng([seed, number]), truth)
            seeds = np.arange(n) + 100_000 * (3 * seed + number)
            tables.append((clinical.assign(split=split, center=CENTER_OF[split]),
                           hidden.assign(split=split, image_seed=seeds)))
    clinical = pd.concat([pair[0] for pair in tables], ignore_index=True)
    hidden = pd.concat([pair[1] for pair in tables], ignore_index=True)
    number_in_center = clinical.groupby("center").cumcount() + 1
    names = [f"{center}{k:03d}" for center, k in zip(clinical["center"], number_in_center, strict=True)]
    clinical, hidden = clinical.assign(patient_id=names), hidden.assign(patient_id=names)
    first = ["patient_id", "split", "log_hazard"]
    return clinical[list(CLINICAL_COLUMNS)], hidden[[*first, *hidden.columns.difference(first, sort=False)]].round(6)


def patient_of(row: Mapping[str, Any], truth: Mapping[str, Any], *, voxel_scale: float = 1.0) -> SyntheticPatient:
    """The scans of one patient of a simulated study.

    Args:
        row: the patient's row of the clinical table.
        truth: the patient's row of the truth table.
        voxel_scale: factor on the voxel sizes; 1 is a hospital's, 2 has an eighth of the voxels.
    """
    patient = make_patient(disease_of(truth), patient_id=row["patient_id"], center=row["center"],
                           voxel_scale=voxel_scale, seed=truth["image_seed"])
    return replace(patient, row=row, truth=truth)


class Simulation(TypedDict, total=False):
    """Keywords of a function that simulates patients: those of `simulate_study` beside the numbers of patients."""

    seed: int
    truth: str


def write_study(
    folder: str | Path, *, n_training: int = 72, n_internal: int = 24, n_external: int = 36, voxel_scale: float = 1.0,
    workers: Workers | None = None, **simulation: Unpack[Simulation],
) -> Path:
    """The path of the study.toml of a synthetic study, after writing it.

    Args:
        folder: made if missing; gets centerA/ (NIfTI), centerB/ (DICOM), truth/ (masks), clinical.csv, truth.csv,
            manifest.csv, study.toml and README.txt.
        n_training: training patients, of centre A.
        n_internal: internal validation patients, of centre A.
        n_external: patients of centre B.
        voxel_scale: factor on the voxel sizes; 0.5 is near clinical.
        workers: where the patients are made; by default here, one after the other.
        seed: the same seed writes the same bytes; 0 by default.
        truth: as in `simulate_study`.

    Raises:
        StudyError: as `simulate_study`.
    """
    clinical, known = simulate_study(n_training=n_training, n_internal=n_internal, n_external=n_external, **simulation)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    rows = zip(clinical.to_dict("records"), known.to_dict("records"), strict=True)
    jobs = [_Job(folder, _plain(row), _plain(hidden), voxel_scale) for row, hidden in rows]
    scans = values_of(run_jobs(_write_patient, jobs, workers or Workers(), label="synthetic patients"))
    pd.DataFrame(scans).to_csv(folder / "manifest.csv", index=False)
    clinical.to_csv(folder / "clinical.csv", index=False)
    known.to_csv(folder / "truth.csv", index=False)
    (folder / "README.txt").write_text(README, encoding="utf-8")
    path = folder / "study.toml"
    path.write_text(STUDY_TOML, encoding="utf-8")
    return path


@dataclass(frozen=True)
class _Job:
    """One patient to be made and written."""

    folder: Path
    row: Mapping[str, Any]
    truth: Mapping[str, Any]
    voxel_scale: float


def _plain(row: Mapping[Any, Any]) -> dict[str, Any]:
    """A row by column name."""
    return {str(name): value for name, value in row.items()}


def _write_patient(job: _Job) -> dict[str, str]:
    """Scans and true masks on disk; the row of the manifest."""
    patient, truth = patient_of(job.row, job.truth, voxel_scale=job.voxel_scale), job.folder / "truth"
    truth.mkdir(exist_ok=True)
    masks = {"primary": patient.true_mask, "invasion": patient.invasion_mask, "nodes": patient.node_mask}
    for kind, mask in masks.items():
        nifti.write(truth / f"{patient.patient_id}_{kind}.nii.gz", mask)
    return _write_nifti(job.folder, patient) if patient.row["center"] == "A" else _write_dicom(job.folder, patient)


def _write_nifti(folder: Path, patient: SyntheticPatient) -> dict[str, str]:
    """Centre A's way."""
    write_nifti_patient(folder / "centerA", patient)
    name, images = patient.patient_id, "centerA/images"
    return {"patient_id": name, "pet": f"{images}/{name}__PT.nii.gz", "ct": f"{images}/{name}__CT.nii.gz",
            "mask": f"centerA/labels/{name}.nii.gz"}


def _write_dicom(folder: Path, patient: SyntheticPatient) -> dict[str, str]:
    """Centre B's way: every second patient's contour is an RTSTRUCT, the others' a SEG."""
    name, place = patient.patient_id, f"centerB/{patient.patient_id}"
    kind: ContourKind = "rtstruct" if int(name[1:]) % 2 else "seg"
    write_dicom_patient(folder / place, patient, contour=kind, seed=int(patient.truth["image_seed"]))
    return {"patient_id": name, "pet": f"{place}/PET", "ct": f"{place}/CT", "mask": f"{place}/{kind.upper()}"}


STUDY_TOML = """\
# Settings of the synthetic study. Every key that is missing keeps the default of the preset.
preset = "quick"

[cohort]
images = "manifest.csv"
table = "clinical.csv"
center = "center"
split = "given"
split_column = "split"
stage = "tnm_stage"
continuous = ["age", "bmi", "ldh"]
described = ["ic", "ccrt", "ac", "targeted"]

[cohort.factors]
gender = ["Male", "Female"]
ebv = ["Negative", "Positive", "Unknown"]
histology = ["I", "II", "III"]
t_stage = ["T1", "T2", "T3", "T4"]
n_stage = ["N0", "N1", "N2", "N3"]
tnm_stage = ["III", "IVa"]

[cohort.references]
histology = "III"
n_stage = "N3"

[evaluate]
known_risk = "truth.csv"  # shown beside the models, never used by them

[report]
title = "Synthetic nasopharyngeal carcinoma, two centres"
thumbnails = 12

[report.statements]  # what only the authors know; docs/report.md lists the names
title = "Development and external validation of a radiomic nomogram on synthetic patients of two centres"
objectives = "To show the whole chain on patients whose true risk is known."
intended_use = "Demonstration and tests of the software; nobody may be treated by it."
study_nature = "Simulation; no patient was enrolled."
data_source = "Generated by mtdlr.synthetic; nobody in it is real."
setting = "Two made-up centres."
eligibility = "Every simulated patient is eligible."
outcome = "Time of the first event, drawn from a known hazard; censored by simulated follow-up."
ethics = "None needed: no patient is involved."
funding = "None."
conflicts = "None."
data_sharing = "The generator and its seed reproduce every patient."
code_sharing = "The package is open source (MIT)."
"""

README = """\
A synthetic study: nobody in it is real, and nothing can be learnt from it about nasopharyngeal carcinoma.

centerA/        NIfTI in the naming of HECKTOR: images/<ID>__CT.nii.gz, images/<ID>__PT.nii.gz (SUV), labels/<ID>.nii.gz
centerB/        DICOM, a folder a patient: CT, PET in Bq/ml, contour as RTSTRUCT or SEG
clinical.csv    one row a patient; the margins follow Table 1 of Gu et al., Eur J Nucl Med Mol Imaging 2023
manifest.csv    where each patient's PET, CT and mask are
truth.csv       what really drives the hazard: log_hazard = stage + volume + heterogeneity + invasion + nodes
truth/          true masks: the primary, its extension beyond the contour (invasion), the neck nodes
study.toml      settings; `mtdlr run study.toml` makes the report

truth.csv and truth/ are for judging results; no model may read them.
"""
