"""What the deep score learns on every truth of the generator, from what, and what a linear model would have found.

    python bench/bench_truths.py FOLDER [--seeds 0 1 2 3] [--training 300] [--external 200] [--epochs 14] [--weights 12]

All truths but `burden` have the same patients with the same images, so images are made, and masks learned, once a seed
(both are kept in FOLDER; a second call takes seconds). The ridge Cox model of the embedding is then fitted for each
truth, fold by fold as in a run: a training patient is scored by the network and the fit that never saw the patient, an
external one by all. Printed: percent of the way from 0.5 to the true log-hazard's C-index, out of fold / outside, and,
with --weights, the largest weights of the first fold's fit by name. Radiomics and nomogram are left to bench_learning.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from mtdlr.evaluate.rivals import clinical_matrix, coarse_pet, fit_components, fit_free, fit_ridge
from mtdlr.imaging.reading import Scan
from mtdlr.nets.embedding import LIMIT_SD, NAMES, central_uptake, spatial_embedding
from mtdlr.prepare import prepare
from mtdlr.stats.concordance import concordance
from mtdlr.stats.ridge import solved_ridge
from mtdlr.study import Study
from mtdlr.survival import Survival
from mtdlr.synthetic import simulate_study
from mtdlr.synthetic.study import patient_of
from mtdlr.synthetic.truth import TRUTHS
from mtdlr.train import Case, train

Matrix = NDArray[np.float64]
Fit = Callable[[Matrix, Survival], Callable[[Matrix], Matrix]]
STUDY = Study.of({"preset": "quick"})
FOLDS, AT_ONCE = 3, 25
LEVELS = {"t_stage": ["T1", "T2", "T3", "T4"], "n_stage": ["N0", "N1", "N2", "N3"], "tnm_stage": ["III", "IVa"]}


def images_of(folder: Path, seed: int, sizes: tuple[int, int]) -> Mapping[str, NDArray]:
    """Prepared images and manual masks of one seed, made once."""
    path = folder / f"images_{seed}_{sizes[0]}_{sizes[1]}.npz"
    if not path.exists():
        tables = simulate_study(n_training=sizes[0], n_internal=0, n_external=sizes[1], seed=seed, truth="places")
        found = []
        for row, hidden in zip(*(table.to_dict("records") for table in tables), strict=True):
            made = patient_of({str(k): v for k, v in row.items()}, {str(k): v for k, v in hidden.items()})
            scan = Scan(made.patient_id, made.pet, made.ct, made.manual_mask, {}, ())
            found.append(prepare(scan, STUDY.prepare, patient_id=made.patient_id))
        np.savez(path, image=np.array([one.image for one in found]), mask=np.array([one.mask for one in found]))
    return np.load(path)


def embeddings_of(folder: Path, seed: int, sizes: tuple[int, int], epochs: int) -> tuple[NDArray, NDArray, NDArray]:
    """(embeddings by the network of each fold (3, n, m), embedding without a mask (n, m), coarse PET (n, 512))."""
    path = folder / f"embedded_{seed}_{sizes[0]}_{sizes[1]}_{epochs}.npz"
    if not path.exists():
        data = images_of(folder, seed, sizes)
        image, mask = torch.from_numpy(data["image"]), data["mask"]
        reach = STUDY.deepmts.near_voxels
        parts = image.split(AT_ONCE)
        free = torch.cat([spatial_embedding(x, central_uptake(x, reach), reach) for x in parts])
        deep = []
        for fold in range(FOLDS):
            cases = [Case(f"{k:04d}", data["image"][k], mask[k], 1.0 + k, k % 4 == 0) for k in range(sizes[0])
                     if k % FOLDS != fold]  # no outcome enters the masks; these only let the head be solved
            network = train(cases, "deepmts", STUDY.deepmts.model_copy(update={"epochs": epochs}),
                            folder / f"network_{seed}_{sizes[0]}_{epochs}_{fold}", seed=1000 * seed + fold).model
            with torch.no_grad():
                probability = torch.cat([network.segment(x) for x in parts])  # type: ignore[operator]
                deep.append(torch.cat([spatial_embedding(x, p, reach) for x, p in
                                       zip(parts, probability.split(AT_ONCE), strict=True)]).numpy())
            hard = probability.numpy() > 0.5
            dice = 2 * (hard & mask).sum((1, 2, 3)) / (hard.sum((1, 2, 3)) + mask.sum((1, 2, 3)))
            held = np.arange(sizes[0]) % FOLDS == fold
            print(f"seed {seed}, fold {fold}: Dice held out {dice[:sizes[0]][held].mean():.3f}, outside "
                  f"{dice[sizes[0]:].mean():.3f}, in sample {dice[:sizes[0]][~held].mean():.3f}", flush=True)
        np.savez(path, deep=np.array(deep), free=free.numpy(), pet=np.array([coarse_pet(x) for x in data["image"]]))
    found = np.load(path)
    return found["deep"], found["free"], found["pet"]


def fit_embedding(x: Matrix, surv: Survival) -> Callable[[Matrix], Matrix]:
    """What `nets.refit.solve_linear` fits, for vectors at hand; its weights by name are kept on the function."""
    center, spread = x.mean(axis=0), x.std(axis=0)
    scale = np.where(spread > 1e-6, spread, 1.0)

    def standardised(values: Matrix) -> Matrix:
        return np.clip((values - center) / scale, -LIMIT_SD, LIMIT_SD)

    size = float(np.sqrt(standardised(x).var(axis=0).sum()))
    coef, _ = solved_ridge(standardised(x) / size, surv)
    fit_embedding.weights = coef / size  # type: ignore[attr-defined]
    return lambda values: standardised(values) @ coef / size


def ways(by_fold: list[Matrix], clinical: pd.DataFrame, truth: NDArray[np.float64], fit: Fit) -> tuple[float, float]:
    """Percent of the way to the truth, out of fold and outside."""
    surv = Survival(clinical["time_months"].to_numpy(float), clinical["event"].to_numpy(bool))
    n = int((clinical["split"] == "training").sum())
    fold, inner, outer = np.arange(n) % FOLDS, np.zeros(n), np.zeros(len(clinical) - n)
    for k, x in enumerate(by_fold):
        rows = np.flatnonzero(fold != k)
        risk = fit(x[rows], surv.take(rows))(x)
        held = risk[:n][fold == k]
        scale = held.std() or 1.0
        inner[fold == k] = (held - held.mean()) / scale
        outer += (risk[n:] - held.mean()) / scale / FOLDS
    parts = ((inner, np.arange(n)), (outer, np.arange(n, len(clinical))))
    found = []
    for risk, rows in parts:
        best = concordance(truth[rows], surv.take(rows)).c.value
        found.append(100.0 * (concordance(risk, surv.take(rows)).c.value - 0.5) / (best - 0.5))
    return found[0], found[1]


def learn(folder: Path, seed: int, asked: argparse.Namespace) -> dict[tuple[str, str], tuple[float, float]]:
    """Every model's ways by (truth, model)."""
    sizes = (asked.training, asked.external)
    deep, free, pet = embeddings_of(folder, seed, sizes, asked.epochs)
    plain = np.array([not name.startswith("measures") for name in NAMES])
    size = deep[:, :, [NAMES.index("shape: size")]]
    found = {}
    for truth in (name for name in TRUTHS if name != "burden"):
        clinical, hidden = simulate_study(n_training=sizes[0], n_internal=0, n_external=sizes[1], seed=seed,
                                          truth=truth)
        matrix = clinical_matrix(clinical, LEVELS, ["age", "bmi", "ldh"])
        stage = matrix[["tnm_stage=IVa"]].to_numpy()
        work: dict[str, tuple[list[Matrix], Fit]] = {
            "DeepMTS": (list(deep.astype(float)), fit_embedding),
            "DeepMTS without the measures": (list(deep[:, :, plain].astype(float)), fit_embedding),
            "SingleTask (no-mask)": ([free.astype(float)] * FOLDS, fit_embedding),
            "image-PCA ridge": ([pet] * FOLDS, fit_components),
            "clinical ridge": ([matrix.to_numpy()] * FOLDS, fit_ridge),
            "volume + stage": ([np.column_stack([one, stage]) for one in size], fit_free),
            "stage": ([stage] * FOLDS, fit_free)}
        for model, (by_fold, fit) in work.items():
            found[truth, model] = ways(by_fold, clinical, hidden["log_hazard"].to_numpy(), fit)
        if asked.weights:
            seen = np.arange(sizes[0]) % FOLDS != 0
            fit_embedding(deep[0][:sizes[0]][seen].astype(float), _outcome(clinical, sizes[0]))
            weights = fit_embedding.weights  # type: ignore[attr-defined]
            top = np.argsort(-np.abs(weights))[:asked.weights]
            print(f"seed {seed}, {truth}: " + ", ".join(f"{NAMES[j]} {weights[j]:+.2f}" for j in top), flush=True)
    return found


def _outcome(clinical: pd.DataFrame, n: int) -> Survival:
    """Follow-up of the training patients outside the first fold."""
    rows = np.flatnonzero(np.arange(n) % FOLDS != 0)
    return Survival(clinical["time_months"].to_numpy(float)[rows], clinical["event"].to_numpy(bool)[rows])


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3])
    parser.add_argument("--training", type=int, default=300)
    parser.add_argument("--external", type=int, default=200)
    parser.add_argument("--epochs", type=int, default=STUDY.deepmts.epochs)
    parser.add_argument("--weights", type=int, default=0)
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    warnings.filterwarnings("ignore", category=RuntimeWarning)
    by_seed = [learn(asked.folder, seed, asked) for seed in asked.seeds]
    print(f"\npercent of the way to the truth, out of fold / outside; seeds {asked.seeds}")
    for key in by_seed[0]:
        shown = ", ".join(f"{one[key][0]:.0f} / {one[key][1]:.0f}" for one in by_seed)
        mean = np.mean([one[key] for one in by_seed], axis=0)
        print(f"{key[0]:8} {key[1]:30} {shown}; mean {mean[0]:.0f} / {mean[1]:.0f}")


if __name__ == "__main__":
    main()
