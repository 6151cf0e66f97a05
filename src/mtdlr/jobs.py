"""Jobs: what runs in a worker process. Each takes what it needs, writes one stored result and returns its folder.

The stages are imported where they run, so that a process which only plans (`status`, `--help`) never loads torch or
SimpleITK.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pandas as pd

from mtdlr.errors import Problem
from mtdlr.imaging.layout import ScanSet
from mtdlr.signature import Signature, cross_fit_signature
from mtdlr.signature import fit_signature as fit_once
from mtdlr.store import Recipe, Store
from mtdlr.study import (
    DeepmtsSettings,
    PrepareSettings,
    RadiomicsSettings,
    ScoreSettings,
    SignatureSettings,
    SingletaskSettings,
)
from mtdlr.survival import Survival

NetworkName = Literal["deepmts", "no-mask", "csn-only", "densenet121-3d"]
if TYPE_CHECKING:
    from mtdlr.model import FrozenModel, Scale
    from mtdlr.report.results import Results


@dataclass(frozen=True)
class Stored:
    """Results of a per-patient stage: the folder and the key of each, and what went wrong or was noticed."""

    folders: Mapping[str, Path]
    keys: Mapping[str, str]
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True)
class Prepare:
    """One patient's scans."""

    store: Store
    recipe: Recipe
    patient: str
    scan: ScanSet
    settings: PrepareSettings


def prepare(job: Prepare) -> Path:
    """The folder of the prepared patient."""
    from mtdlr.prepare import prepare as prepare_scan
    from mtdlr.prepare import read_patient

    def build(folder: Path) -> None:
        scan = read_patient(job.scan, job.settings)
        prepare_scan(scan, job.settings, patient_id=job.patient).save(folder)

    return job.store.make(job.recipe, build)


@dataclass(frozen=True)
class Train:
    """One network of one fold; cases are (id, prepared folder, months, event, centre)."""

    store: Store
    recipe: Recipe
    network: NetworkName
    cases: Sequence[tuple[str, Path, float, bool, str]]
    settings: DeepmtsSettings | SingletaskSettings
    seed: int
    threads: int


def train(job: Train) -> Path:
    """The folder of the checkpoint."""
    from mtdlr.prepare import Prepared
    from mtdlr.train import Case
    from mtdlr.train import train as train_network

    def build(folder: Path) -> None:
        loaded = [(Prepared.load(case[1]), case) for case in job.cases]
        cases = [Case(id_, patient.image, patient.mask, months, event, center)
                 for patient, (id_, _, months, event, center) in loaded]
        train_network(cases, job.network, job.settings, folder, seed=job.seed, threads=job.threads)

    return job.store.make(job.recipe, build)


@dataclass(frozen=True)
class Score:
    """Some patients as (recipe, prepared folder, fold or None), and every network's checkpoints."""

    store: Store
    patients: Sequence[tuple[Recipe, Path, int | None]]
    networks: Mapping[str, Sequence[Path]]
    settings: ScoreSettings
    threads: int


def score(job: Score) -> None:
    """Score every patient of the job; the networks are loaded once."""
    from mtdlr.infer import load_networks, score_patient
    from mtdlr.nets.session import torch_session
    from mtdlr.prepared import Prepared

    networks = load_networks(job.networks)
    with torch_session(job.threads):
        for recipe, prepared, fold in job.patients:
            job.store.make(recipe, lambda folder, p=prepared, f=fold: score_patient(  # type: ignore[misc]
                Prepared.load(p), networks, f, job.settings).save(folder))


@dataclass(frozen=True)
class Extract:
    """One patient's features inside the predicted mask of `scored`, or inside the manual mask where that is None."""

    store: Store
    recipe: Recipe
    prepared: Path
    scored: Path | None
    settings: RadiomicsSettings
    perturbations: int = 0


def extract(job: Extract) -> Path:
    """The folder of features.json."""
    from mtdlr.prepared import Prepared, load_mask
    from mtdlr.radiomics.extract import patient_features, patient_pet_parameters
    from mtdlr.radiomics.robustness import perturbed_features

    def build(folder: Path) -> None:
        patient = Prepared.load(job.prepared)
        mask = patient.manual_mask if job.scored is None else load_mask(job.scored)
        features, problems = patient_features(patient, mask, job.settings)
        measured = any(value == value for value in features.values())  # nan: a mask of air, or an empty one
        perturbed = [] if mask is None or not measured else perturbed_features(
            patient.pet_suv, patient.ct_hu, mask, job.settings, seeds=range(job.perturbations))
        (folder / "features.json").write_text(json.dumps({
            "features": features, "perturbed": perturbed, "pet_parameters": patient_pet_parameters(patient, mask),
            "problems": [p.as_dict() for p in problems]}))

    return job.store.make(job.recipe, build)


@dataclass(frozen=True)
class FitSignature:
    """The training cohort's features, follow-up and folds."""

    store: Store
    recipe: Recipe
    features: pd.DataFrame
    training: pd.DataFrame
    folds: pd.Series
    settings: SignatureSettings
    perturbed: Sequence[pd.DataFrame] = ()


def fit_signature(job: FitSignature) -> Path:
    """The folder of signature.json and training_scores.csv."""
    surv = Survival(job.training["time_months"].to_numpy(float), job.training["event"].to_numpy(bool))

    def build(folder: Path) -> None:
        if job.folds.nunique() > 1:
            signature, scores = cross_fit_signature(job.features, surv, job.folds.to_numpy(), job.settings,
                                                    job.perturbed)
        else:
            signature = fit_once(job.features, surv, job.settings, job.perturbed)
            scores = signature.score(job.features)
        signature.save(folder / "signature.json")
        scores.rename("score").to_csv(folder / "training_scores.csv", index_label="patient_id")

    return job.store.make(job.recipe, build)


def load_signature(folder: Path) -> tuple[Signature, pd.Series]:
    """(signature, its training scores) of a stored fit."""
    scores = pd.read_csv(folder / "training_scores.csv", index_col="patient_id", dtype={"patient_id": str},
                         float_precision="round_trip")
    return Signature.load(folder / "signature.json"), scores["score"]


@dataclass(frozen=True)
class Draw:
    """One patient's scans with the predicted mask of `scored`."""

    store: Store
    recipe: Recipe
    prepared: Path
    scored: Path


def draw(job: Draw) -> Path:
    """The folder of the picture."""
    from mtdlr.report.pictures import PICTURE, draw_patient

    return job.store.make(job.recipe, lambda folder: draw_patient(job.prepared, job.scored, folder / PICTURE))


def average(store: Store, recipe: Recipe, patients: Sequence[Path]) -> Path:
    """The folder of the mean image of some prepared patients."""
    from mtdlr.prepared import save_mean_image

    return store.make(recipe, lambda folder: save_mean_image(patients, folder))


@dataclass(frozen=True)
class Explain:
    """Patients as (recipe, prepared folder, scored folder, fold or None), DeepMTS by fold, the mean image."""

    store: Store
    patients: Sequence[tuple[Recipe, Path, Path, int | None]]
    networks: Sequence[Path]
    scales: Sequence[Scale]
    mean: Path
    threads: int


def explain(job: Explain) -> None:
    """attribution.json and attribution.jpg of every patient of the job; the networks are loaded once."""
    from mtdlr.explain import explain_patient
    from mtdlr.infer import load_networks
    from mtdlr.nets.session import torch_session
    from mtdlr.prepared import Prepared, load_mask, load_mean_image
    from mtdlr.report.pictures import ATTRIBUTION, draw_attribution

    networks = load_networks({"deepmts": job.networks})["deepmts"]
    mean = load_mean_image(job.mean)

    def build(folder: Path, prepared: Path, scored: Path, fold: int | None) -> None:
        patient, mask = Prepared.load(prepared), load_mask(scored)
        found = explain_patient(patient.image, mask, networks, job.scales, mean, fold)
        (folder / "attribution.json").write_text(json.dumps(found.as_dict(), indent=1))
        draw_attribution(patient, mask, found.maps, folder / ATTRIBUTION)

    with torch_session(job.threads):
        for recipe, *patient in job.patients:
            job.store.make(recipe, lambda folder, p=tuple(patient): build(folder, *p))  # type: ignore[misc]


def report(store: Store, recipe: Recipe, results: Results) -> Path:
    """The folder of the report, its tables and figures."""
    from mtdlr.report.write import write_report

    return store.make(recipe, lambda folder: write_report(results, folder))


def bundle(store: Store, recipe: Recipe, model: FrozenModel) -> Path:
    """The folder of the frozen model."""
    from mtdlr.bundle import save_bundle

    return store.make(recipe, lambda folder: save_bundle(model, folder))


def left_with(folders: Mapping[str, Path], name: str) -> tuple[Problem, ...]:
    """Warnings that a stage left with each patient's result."""
    return tuple(Problem(**problem).of_patient(i) for i, folder in folders.items()
                 for problem in json.loads((folder / name).read_text())["problems"])
