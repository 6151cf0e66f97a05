"""Jobs: what runs in a worker process. Each takes what it needs, writes one stored result and returns its folder.

The stages are imported where they run, so that a process which only plans (`status`, `--help`) never loads torch or
SimpleITK.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtdlr.store import TRAINING, Recipe, Store, verify
from mtdlr.study import (
    DeepmtsSettings,
    NetworkName,
    PrepareSettings,
    RadiomicsSettings,
    RunSettings,
    ScoreSettings,
    SignatureSettings,
    SingletaskSettings,
)
from mtdlr.workers import aside

Networks = tuple[tuple[str, tuple[Path, ...]], ...]
"""(name, checkpoint folder of each fold) of each network."""
TOLD = {"Dice loss": "dice_loss", "survival loss": "survival_loss", "C": "val_c_index", "Dice": "val_dice"}
"""The figures of the last finished epoch that a training reports, and their columns in its log."""
if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure as Figure

    from mtdlr.imaging.layout import ScanSet
    from mtdlr.model import FrozenModel
    from mtdlr.nets.device import Name as DeviceName
    from mtdlr.nomogram.scores import Scale
    from mtdlr.report.results import Results
    from mtdlr.signature import Signature
    from mtdlr.train import Progress
    from mtdlr.workers.planning import Stored


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
    from mtdlr.shift import DESCRIPTION, describe

    def build(folder: Path) -> None:
        scan = read_patient(job.scan, job.settings)
        patient = prepare_scan(scan, job.settings, patient_id=job.patient)
        patient.save(folder)
        (folder / DESCRIPTION).write_text(json.dumps(describe(patient)))

    return job.store.make(job.recipe, build)


def hash_scan(scan: ScanSet) -> tuple[str, str, str]:
    """The content hashes of one patient's files: all that is read, the PET, the CT."""
    from mtdlr.imaging.layout import content_hashes

    return content_hashes(scan)


@dataclass(frozen=True)
class Train:
    """One network of one fold; cases are (id, prepared folder, months, event, centre, subfold if held out)."""

    store: Store
    recipe: Recipe
    network: NetworkName
    cases: Sequence[tuple[str, Path, float, bool, str, int | None]]
    settings: DeepmtsSettings | SingletaskSettings
    seed: int
    run: RunSettings
    fold: int = 0

    @property
    def place(self) -> str:
        """Network and fold, as people read them."""
        return f"network {self.network}, fold {self.fold}"


def train(job: Train) -> Path:
    """The folder of the checkpoint."""
    from mtdlr.nets.device import Machine
    from mtdlr.prepared import Prepared
    from mtdlr.train import Case
    from mtdlr.train import train as train_network

    def build(folder: Path) -> None:
        for case in job.cases:
            verify(case[1])
        loaded = [(Prepared.load(case[1]), case) for case in job.cases]
        cases = [Case(id_, patient.image, patient.mask, months, event, center, held_out)
                 for patient, (id_, _, months, event, center, held_out) in loaded]
        train_network(cases, job.network, job.settings, folder, seed=job.seed,
                      machine=Machine(job.run.threads, job.run.device, job.run.deterministic),
                      report=_teller(job, folder))
        (folder / TRAINING).unlink(missing_ok=True)

    return job.store.make(job.recipe, build)


def _teller(job: Train, folder: Path) -> Callable[[Progress], None]:
    """Leaves in the scratch folder how far a training is, every two seconds, for `status` and the bar."""
    told = [0.0]

    def tell(now: Progress) -> None:
        if time.monotonic() - told[0] < 2.0:
            return
        told[0] = time.monotonic()
        row = now.row or {}
        figures = [f"{name} {row[key]:.3f}" for name, key in TOLD.items() if key in row]
        words = ", ".join([f"{job.place}: epoch {min(now.epoch + 1, now.epochs)} of {now.epochs}", *figures])
        share = (now.epoch + now.step / max(now.steps, 1)) / now.epochs
        (folder / TRAINING).write_text(json.dumps({"share": min(share, 1.0), "words": words}))

    return tell


@dataclass(frozen=True)
class ScorePatient:
    """One patient's prepared folder and fold (None: no training patient), and every network's checkpoints."""

    store: Store
    recipe: Recipe
    prepared: Path
    fold: int | None
    networks: Networks
    settings: ScoreSettings
    run: RunSettings


def score(job: ScorePatient) -> Path:
    """The folder of the patient's score; the process keeps the networks for its next patient."""
    from mtdlr.infer import score_patient
    from mtdlr.nets.session import torch_session
    from mtdlr.prepared import Prepared

    def build(folder: Path) -> None:
        verify(job.prepared)
        networks = _loaded(job.networks, job.run.device)
        score_patient(Prepared.load(job.prepared), networks, job.fold, job.settings).save(folder)

    with torch_session(job.run.threads):
        return job.store.make(job.recipe, build)


@lru_cache(maxsize=1)
def _loaded(networks: Networks, device: DeviceName) -> Any:
    """The networks of some checkpoint folders, each verified, on a device."""
    from mtdlr.infer import load_networks

    for _, folders in networks:
        for folder in folders:
            verify(folder)
    return load_networks(dict(networks), device=device)


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
    from mtdlr.radiomics.stored import save_features

    def build(folder: Path) -> None:
        for stored in filter(None, (job.prepared, job.scored)):
            verify(stored)
        patient = Prepared.load(job.prepared)
        mask = patient.manual_mask if job.scored is None else load_mask(job.scored)
        features, problems = patient_features(patient, mask, job.settings)
        measured = any(value == value for value in features.values())  # nan: a mask of air, or an empty one
        perturbed = [] if mask is None or not measured else perturbed_features(
            patient.pet_suv, patient.ct_hu, mask, job.settings, seeds=range(job.perturbations))
        save_features(folder, features, perturbed, patient_pet_parameters(patient, mask))
        (folder / "problems.json").write_text(json.dumps({"problems": [p.as_dict() for p in problems]}))

    return job.store.make(job.recipe, build)


@dataclass(frozen=True)
class FitSignature:
    """The training cohort's features, follow-up and subfolds."""

    store: Store
    recipe: Recipe
    features: pd.DataFrame
    training: pd.DataFrame
    folds: pd.Series
    settings: SignatureSettings
    perturbed: Sequence[pd.DataFrame] = ()


def fit_signature(job: FitSignature) -> Path:
    """The folder of signature.json and training_scores.csv."""
    from mtdlr.signature import fit_with_scores

    def build(folder: Path) -> None:
        signature, scores = fit_with_scores(job.features, job.training, job.folds, job.settings, job.perturbed)
        signature.save(folder / "signature.json")
        scores.rename("score").to_csv(folder / "training_scores.csv", index_label="patient_id")

    return job.store.make(job.recipe, build)


def load_signature(folder: Path) -> tuple[Signature, pd.Series]:
    """(signature, its training scores) of a stored fit."""
    import pandas as pd

    from mtdlr.signature import Signature

    scores = pd.read_csv(folder / "training_scores.csv", dtype=str).set_index("patient_id")
    return Signature.load(folder / "signature.json"), scores["score"].astype(float)  # exact, also before pandas 3.1


@dataclass(frozen=True)
class Draw:
    """One patient's scans with the predicted mask of `scored`."""

    store: Store
    recipe: Recipe
    prepared: Path
    scored: Path


def drawing(store: Store, prepared: Stored, scored: Stored, patient: str) -> Draw:
    """The job that draws one patient.

    Args:
        store: the run's store.
        prepared: the prepared patients.
        scored: the scored patients.
        patient: the patient's id.
    """
    recipe = Recipe("picture", {}, {"prepared": prepared.keys[patient], "mask": scored.keys[patient]})
    return Draw(store, recipe, prepared.folders[patient], scored.folders[patient])


def draw(job: Draw) -> Path:
    """The folder of the picture."""
    from mtdlr.report.pictures import PICTURE, draw_patient

    return job.store.make(job.recipe, lambda folder: draw_patient(job.prepared, job.scored, folder / PICTURE))


def average(store: Store, recipe: Recipe, patients: Sequence[Path]) -> Path:
    """The folder of the mean image of some prepared patients.

    Args:
        store: the run's store.
        recipe: of the mean image.
        patients: folders of the prepared patients.
    """
    from mtdlr.prepared import save_mean_image

    return store.make(recipe, lambda folder: save_mean_image(patients, folder))


@dataclass(frozen=True)
class Explain:
    """One patient's prepared and scored folders and fold; DeepMTS by fold, its scales, the mean image."""

    store: Store
    recipe: Recipe
    prepared: Path
    scored: Path
    fold: int | None
    networks: Networks
    scales: Sequence[Scale]
    mean: Path
    run: RunSettings


def explaining(
    store: Store, stored: tuple[Stored, Stored], patient: str, *, fold: int | None,
    deep: tuple[Networks, Sequence[Scale]], mean: tuple[str, Path], run: RunSettings
) -> Explain:
    """The job that explains one patient.

    Args:
        store: the run's store.
        stored: the prepared and the scored patients.
        patient: the patient's id.
        fold: the patient's fold; None for a patient outside training.
        deep: the networks, and the scale of each one's risk.
        mean: key and folder of the mean image.
        run: settings of the run.
    """
    prepared, scored = stored
    recipe = Recipe("explain", {"scales": [asdict(scale) for scale in deep[1]]}, {
        "prepared": prepared.keys[patient], "mask": scored.keys[patient],  # that of its networks
        "mean": mean[0]})
    return Explain(store, recipe, prepared.folders[patient], scored.folders[patient], fold, deep[0], deep[1], mean[1],
                   run)


def explain(job: Explain) -> Path:
    """The folder of attribution.json and attribution.jpg."""
    from mtdlr.explain import explain_patient
    from mtdlr.nets.session import torch_session
    from mtdlr.prepared import Prepared, load_mask, load_mean_image
    from mtdlr.report.pictures import ATTRIBUTION, draw_attribution

    def build(folder: Path) -> None:
        patient, mask = Prepared.load(job.prepared), load_mask(job.scored)
        found = explain_patient(patient.image, mask, _loaded(job.networks, job.run.device)["deepmts"], job.scales,
                                load_mean_image(job.mean), job.fold)
        (folder / "attribution.json").write_text(json.dumps(found.as_dict(), indent=1))
        draw_attribution(patient, mask, found.maps, folder / ATTRIBUTION)

    with torch_session(job.run.threads):
        return job.store.make(job.recipe, build)


def report(store: Store, recipe: Recipe, results: Results) -> Path:
    """The folder of the report, its tables and figures.

    Args:
        store: the run's store.
        recipe: of the report.
        results: of the finished run.
    """
    from mtdlr.report.write import write_report

    def build(folder: Path) -> None:
        with aside(results.study.run.workers) as hand_over:
            write_report(results, folder, hand_over)

    return store.make(recipe, build)


def shown_table(results: Results, number: int) -> pd.DataFrame:
    """A table of the report: `report.shown.table`."""
    from mtdlr.report.shown import table

    return table(results, number)


def shown_figure(results: Results, name: str) -> Figure:
    """A figure of the report: `report.shown.figure`."""
    from mtdlr.report.shown import figure

    return figure(results, name)


def bundle(store: Store, recipe: Recipe, model: FrozenModel, c: Mapping[str, Sequence[float | None]]) -> Path:
    """The folder of the frozen model; `c` is the main model's C by cohort, for the reader of a prediction.

    Args:
        store: the run's store.
        recipe: of the bundle.
        model: the frozen model.
        c: of `save_bundle`.
    """
    from mtdlr.bundle import save_bundle

    known = replace(model, facts={**model.facts, "c": c})
    return store.make(recipe, lambda folder: save_bundle(known, folder))
