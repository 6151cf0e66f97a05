"""What the deep score learns on every truth of the generator, from what, and what a linear model would have found.

    python bench/bench_truths.py FOLDER [--seeds 0 1] [--truths places noise] [--follow-ups 1] [--training 300]
                                 [--external 200] [--networks FOLDER ...] [--weights 12]

All truths but `burden` have the same patients with the same images and masks, and no step but the last sees an event.
So images, networks that learn masks, embeddings and radiomics are made once a seed and kept in FOLDER. For each truth
the rest of a run is then done by the run's own functions: the ridge Cox heads of each fold and its subfolds, the
cross-fitted signatures, the nomograms (and, as `_every`, those that take every score), the rivals. A training patient
is scored by what never saw the patient, an external one by all. Each cell is appended to FOLDER/truths.csv when it is
done, and MTDLR's predictions for external patients to FOLDER/outside.csv; a second call goes on from there.

`--networks` takes trained DeepMTS folders in the place of training here: masks of networks that never saw any patient
of these. `--subfolds 1` leaves a whole fold out of heads and signatures, 2 and 5 a half and a fifth. `--follow-ups`
draws the follow-up of the same patients several times, of pure noise the hazards too; the first is the study's own.
Printed at the end: percent of the way from 0.5 to the true log-hazard's C-index, out of fold / outside; of pure noise
the C-index itself.
With --weights: the largest weights of the first fold's head by name.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from mtdlr.cohort.folds import training_subfolds
from mtdlr.evaluate.rivals import coarse_pet, fit_rivals
from mtdlr.imaging.reading import Scan
from mtdlr.infer import score_patient
from mtdlr.model import cross_fitted, fit_model, study_scores
from mtdlr.nets.embedding import NAMES, central_uptake, limited, spatial_embedding
from mtdlr.nets.weights import Checkpoint
from mtdlr.nomogram.scores import Scores, combine_scores
from mtdlr.prepare import prepare
from mtdlr.prepared import Prepared
from mtdlr.radiomics.extract import patient_features
from mtdlr.signature import cross_fit_signature
from mtdlr.stats.calibration import calibrate
from mtdlr.stats.concordance import concordance
from mtdlr.stats.cox import fit_cox
from mtdlr.stats.cox_rows import Cases
from mtdlr.stats.ridge import blockwise_ridge
from mtdlr.study import Study
from mtdlr.survival import Survival
from mtdlr.synthetic import simulate_study
from mtdlr.synthetic.clinic import TABLE_1
from mtdlr.synthetic.study import patient_of
from mtdlr.synthetic.truth import BURDEN, TRUTHS, _follow_up
from mtdlr.train import Case, train

Matrix = NDArray[np.float64]
FACTORS = {"t_stage": ("T1", "T2", "T3", "T4"), "n_stage": ("N0", "N1", "N2", "N3"), "tnm_stage": ("III", "IVa")}
CONTINUOUS = ["age", "bmi", "ldh"]
SETTINGS = {"preset": "quick", "cohort": {"stage": "tnm_stage", "factors": FACTORS, "continuous": CONTINUOUS}}
STUDY = Study.of(SETTINGS)
EVERY = Study.of(SETTINGS | {"nomogram": {"select": "off"}})
FOLDS, AT_ONCE, MONTH = 3, 25, 60.0
BLOCKS = np.array([name.partition(":")[0] for name in NAMES])


# ---- once a seed: no event is looked at -----------------------------------------------------------------------------


def images_of(folder: Path, images: str, seed: int, sizes: tuple[int, int]) -> Mapping[str, NDArray]:
    """Prepared images and manual masks of one seed; each patient is kept under `prepared`."""
    path = folder / "images.npz"
    if not path.exists():
        tables = simulate_study(n_training=sizes[0], n_internal=0, n_external=sizes[1], seed=seed, truth=images)
        found = []
        for k, (row, hidden) in enumerate(zip(*(table.to_dict("records") for table in tables), strict=True)):
            place = folder / "prepared" / f"{k:04d}"
            if not (place / "facts.json").exists():
                made = patient_of({str(k): v for k, v in row.items()}, {str(k): v for k, v in hidden.items()})
                scan = Scan(made.patient_id, made.pet, made.ct, made.manual_mask, {}, ())
                prepare(scan, STUDY.prepare, patient_id=made.patient_id).save(place)
            one = Prepared.load(place)
            found.append((np.array(one.image), np.array(one.mask)))
        np.savez(path, image=np.array([one[0] for one in found]), mask=np.array([one[1] for one in found]))
    return np.load(path)


def networks_of(folder: Path, seed: int, n: int, given: list[Path]) -> list[Checkpoint]:
    """Those at hand, or one a fold, trained on the other folds' masks."""
    if given:
        return [Checkpoint.load(one) for one in given]
    data = np.load(folder / "images.npz")
    image, mask = data["image"][:n], data["mask"][:n]  # an archive reads the whole array each time it is asked
    cases = [Case(f"{k:04d}", image[k], mask[k], 1.0 + k, k % 4 == 0) for k in range(n)]
    # no outcome enters the masks; these only let the head be solved
    return [train([case for k, case in enumerate(cases) if k % FOLDS != fold], "deepmts", STUDY.deepmts,
                  folder / f"network_{fold}", seed=1000 * seed + fold) for fold in range(FOLDS)]


def embeddings_of(folder: Path, networks: list[Checkpoint], *, of_others: bool) -> Mapping[str, NDArray]:
    """deep (folds, n, m): by the network of each fold, or by the mean map of networks of other patients; free (n, m)
    without a mask; pet (n, 512) coarse; dice (n,) of the mask."""
    path = folder / "embedded.npz"
    if not path.exists():
        data = np.load(folder / "images.npz")
        image, mask = torch.from_numpy(data["image"]), data["mask"]
        parts, reach = image.split(AT_ONCE), STUDY.deepmts.near_voxels
        maps = folder / "probability.npy"
        with torch.no_grad():
            if not maps.exists():
                np.save(maps, np.array([torch.cat([one.model.segment(x) for x in parts]).numpy()  # type: ignore
                                        for one in networks]))
            probability = np.load(maps)
            if of_others:
                probability = probability.mean(axis=0, keepdims=True)
            deep = [torch.cat([spatial_embedding(x, p, reach) for x, p in
                               zip(parts, torch.from_numpy(one).split(AT_ONCE), strict=True)]).numpy()
                    for one in probability]
            free = torch.cat([spatial_embedding(x, central_uptake(x, reach), reach) for x in parts]).numpy()
        hard = probability > 0.5
        dice = 2 * (hard & mask).sum((2, 3, 4)) / (hard.sum((2, 3, 4)) + mask.sum((1, 2, 3)))
        np.savez(path, deep=np.array(deep * (FOLDS if of_others else 1)), free=free, dice=dice,
                 pet=np.array([coarse_pet(x) for x in data["image"]]))
    return np.load(path)


def radiomics_of(folder: Path, networks: list[Checkpoint], sizes: tuple[int, int], *, of_others: bool
                 ) -> dict[str, pd.DataFrame]:
    """Features in predicted (out of fold) and manual masks, a row a patient."""
    if not (folder / "auto.csv").exists():
        auto, manual = {}, {}
        for k in range(sum(sizes)):
            patient = Prepared.load(folder / "prepared" / f"{k:04d}")
            fold = k % FOLDS if k < sizes[0] and not of_others else None
            mask = score_patient(patient, {"deepmts": networks}, fold, STUDY.score).mask
            auto[k] = patient_features(patient, mask, STUDY.radiomics)[0] | {
                "_ml": float(mask.array.sum()) * mask.voxel_ml}
            manual[k] = patient_features(patient, patient.manual_mask, STUDY.radiomics)[0]
        for name, rows in (("manual", manual), ("auto", auto)):
            pd.DataFrame.from_dict(rows, orient="index").to_csv(folder / f"{name}.csv")
    return {name: pd.read_csv(folder / f"{name}.csv", index_col=0) for name in ("auto", "manual")}


# ---- once a truth ---------------------------------------------------------------------------------------------------


def head(x: Matrix, surv: Survival, columns: NDArray[np.bool_]) -> tuple[Matrix, Matrix, float]:
    """(risk of every row of x[1], weights, SD of the risks of x[0]) of the head that `nets.refit.solve_linear` fits to
    some columns of x[0]."""
    seen, others = x
    center, spread = seen.mean(axis=0), seen.std(axis=0)
    columns = columns & (spread > 1e-6 * np.maximum(1.0, np.abs(seen).max(axis=0)))
    z, w = (limited(torch.from_numpy((part - center) / np.where(columns, spread, 1.0))).numpy()[:, columns]
            for part in (seen, others))
    of_block, size = BLOCKS[columns], z.std(axis=0)
    blocks = [np.flatnonzero(of_block == block) for block in dict.fromkeys(of_block.tolist())]
    coef, _ = blockwise_ridge(z / size, surv, blocks, left_out=False)
    coef /= size
    weights = np.zeros(len(NAMES))
    weights[columns] = coef
    return w @ coef, weights, float((z @ coef).std())


def deep_scores(data: Mapping[str, NDArray], table: pd.DataFrame, subfolds: pd.Series, shown: int) -> dict[str, Scores]:
    """`combine_scores` of the heads of every fold: with all numbers, and without the measures."""
    folds = subfolds % FOLDS
    surv = Survival(table["time_months"].to_numpy(float), table["event"].to_numpy(bool))
    n, every, part = len(folds), np.ones(len(NAMES), bool), subfolds.to_numpy()
    risks: dict[str, list[Matrix]] = {"deepmts": [], "plain": [], "no-mask": []}
    for k in range(FOLDS):
        for name, x, columns in (("deepmts", data["deep"][k], every), ("plain", data["deep"][k], BLOCKS != "measures"),
                                 ("no-mask", data["free"], every)):
            x = x.astype(np.float64)
            risk, weights, _ = head((x[:n], x), surv.take(np.arange(n)), columns)
            learned = np.flatnonzero(part % FOLDS != k)
            scale = head((x[learned], x[:0]), surv.take(learned), columns)[2]
            for subfold in sorted({int(s) for s in part if s % FOLDS == k}):
                seen, mine = np.flatnonzero(part != subfold), np.flatnonzero(part == subfold)
                own, _, spread = head((x[seen], x[mine]), surv.take(seen), columns)
                risk[mine] = own * scale / spread
            risks[name].append(risk)
            if shown and not k and name == "deepmts":
                top = np.argsort(-np.abs(weights))[:shown]
                print("  " + ", ".join(f"{NAMES[j]} {weights[j]:+.2f}" for j in top), flush=True)
    raw = {i: {"risks": {name: [float(one[j]) for one in found] for name, found in risks.items()}}
           for j, i in enumerate(table.index)}
    plain = {i: {"risks": {"deepmts": one["risks"]["plain"], "no-mask": one["risks"]["no-mask"]}}
             for i, one in raw.items()}
    return {"all": combine_scores(raw, folds, "no-mask"), "plain": combine_scores(plain, folds, "no-mask")}


def cell(folder: Path, table: pd.DataFrame, truth: Matrix, asked: argparse.Namespace,
         radiomics: Mapping[str, pd.DataFrame]) -> tuple[list[dict[str, object]], pd.DataFrame]:
    """Every model's figures on one truth and follow-up; and of each external patient MTDLR's log cumulative hazard with
    the follow-up."""
    data = np.load(folder / "embedded.npz")
    training = table[table["split"] == "training"]
    folds = pd.Series(np.arange(len(training)) % FOLDS, index=training.index)
    subfolds = training_subfolds(training, folds, STUDY.score.model_copy(update={"subfolds": asked.subfolds}))
    surv = Survival(training["time_months"].to_numpy(float), training["event"].to_numpy(bool))
    deep = deep_scores(data, table, subfolds, asked.weights)
    features = {name: rows.drop(columns=[c for c in rows if c.startswith("_")]).set_axis(table.index)
                for name, rows in radiomics.items()}
    signatures = {name: cross_fit_signature(rows.loc[training.index], surv, subfolds.to_numpy(), STUDY.signature)
                  for name, rows in features.items()}
    scores = study_scores(table, deep["all"], features, signatures)
    rivals = fit_rivals(table, subfolds, stage="tnm_stage", factors=FACTORS, continuous=CONTINUOUS, inputs={
        "volume": radiomics["auto"][["_ml"]].set_axis(table.index), "radiomics": features["auto"],
        "image": pd.DataFrame(data["pet"], table.index)})
    risks = rivals.risks.assign(deepmts_plain=deep["plain"].table["deepmts"])
    calibrations, notes = {}, {}
    for label, study in (("", STUDY), ("_every", EVERY)):
        model = fit_model(table, scores, deep["all"], {name: pair[0] for name, pair in signatures.items()}, study,
                          networks={}, mean_image=Path())
        found, predicted = model.risks(table.join(scores)), model.predicted(table.join(scores))
        if label:
            found = found[list(model.nomograms.keys() & set(found))].add_suffix(label)
        else:
            held, _ = cross_fitted(table.join(scores), subfolds, study)
            found.update(held)
        risks = risks.join(found)
        outside = (table["split"] == "external").to_numpy()
        pfs = predicted["mtdlr"][MONTH].to_numpy(float)[outside]
        followed = table.loc[outside, ["time_months", "event"]]
        calibrations["mtdlr" + label] = calibrate(pfs, Survival(*followed.to_numpy(float).T), MONTH)
        if not label:
            patients = followed.assign(log_cumulative_hazard=np.log(-np.log(pfs))).reset_index()
        notes["mtdlr" + label] = "+".join(model.nomograms["mtdlr"].design.variables)
    rows = []
    for name in risks:
        row: dict[str, object] = {"model": name}
        for split in ("training", "external"):
            mine = (table["split"] == split).to_numpy() & risks[name].notna().to_numpy()
            own = Survival(table["time_months"].to_numpy(float)[mine], table["event"].to_numpy(bool)[mine])
            c, best = (concordance(r[mine], own).c.value for r in (risks[name].to_numpy(float), truth))
            row |= {f"c_{split}": c, f"way_{split}": 100.0 * (c - 0.5) / (best - 0.5)}
        calibration = calibrations.get(str(name))
        row |= {"slope": calibration.slope.value if calibration else np.nan,
                "oe": calibration.oe.value if calibration else np.nan, "terms": notes.get(str(name), "")}
        rows.append(row)
    return rows, patients


def redrawn(clinical: pd.DataFrame, truth: Matrix, number: int) -> pd.DataFrame:
    """The same patients with another follow-up from the same hazards."""
    rng, parts = np.random.default_rng([number, 77]), []
    for split, rows in clinical.groupby("split", sort=False):
        margins = TABLE_1[str(split)]
        months, event = _follow_up(truth[clinical.index.get_indexer(rows.index)], str(split),
                                   round(len(rows) * margins.events / margins.n), rng)
        parts.append(rows.assign(time_months=months, event=event.astype(int)))
    return pd.concat(parts).loc[clinical.index]


def measure(asked: argparse.Namespace, seed: int, done: set[tuple[int, str, int]]) -> None:
    """All truths of one seed that are not in the CSV yet."""
    sizes = (asked.training, asked.external)
    for truth in asked.truths:
        todo = [number for number in range(asked.follow_ups) if (seed, truth, number) not in done]
        if not todo:
            continue
        images = BURDEN if truth == BURDEN else "places"
        folder = asked.folder / f"{images}_{seed}"
        folder.mkdir(parents=True, exist_ok=True)
        images_of(folder, images, seed, sizes)
        networks = networks_of(folder, seed, sizes[0], asked.networks)
        data = embeddings_of(folder, networks, of_others=bool(asked.networks))
        radiomics = radiomics_of(folder, networks, sizes, of_others=bool(asked.networks))
        clinical, hidden = simulate_study(n_training=sizes[0], n_internal=0, n_external=sizes[1], seed=seed,
                                          truth=truth)
        clinical, hazard = clinical.set_index("patient_id"), hidden["log_hazard"].to_numpy()
        for number in todo:
            anew = truth == "noise" and number  # hazards of one draw would tie all follow-ups to one chance
            drawn = np.random.default_rng([number, 78]).permutation(hazard) if anew else hazard
            table = redrawn(clinical, drawn, number) if number else clinical
            print(f"seed {seed}, {truth}, follow-up {number}: Dice {data['dice'].mean():.3f}", flush=True)
            rows, patients = cell(folder, table, drawn, asked, radiomics)
            for name, found in (("outside.csv", patients), ("truths.csv", pd.DataFrame(rows))):
                for column, value in (("follow_up", number), ("truth", truth), ("seed", seed)):
                    found.insert(0, column, value)
                path = asked.folder / name
                found.round(4).to_csv(path, mode="a", header=not path.exists(), index=False)


def show(found: pd.DataFrame) -> None:
    """Means over seeds and follow-ups: percent of the way, out of fold / outside; of noise the C-index itself."""
    table = {}
    for truth, part in found.groupby("truth", sort=False):
        means = part.groupby("model", sort=False)[["way_training", "way_external", "c_training", "c_external"]].mean()
        table[truth] = {model: f"{row.c_training:.3f} / {row.c_external:.3f}" if truth == "noise"
                        else f"{row.way_training:.0f} / {row.way_external:.0f}" for model, row in means.iterrows()}
    print(pd.DataFrame(table).to_string())
    for model, part in found[found["model"].str.startswith("mtdlr")].groupby("model"):
        pooled = part[part["truth"] != "noise"]
        print(f"{model}: calibration slope outside {pooled['slope'].median():.2f} in the median "
              f"({pooled['slope'].quantile(0.25):.2f} to {pooled['slope'].quantile(0.75):.2f}), O/E "
              f"{pooled['oe'].median():.2f}")


def pooled_slope(patients: pd.DataFrame) -> str:
    """The calibration slope of MTDLR in all external patients together: a study has a baseline hazard of its own, and
    the interval knows that follow-ups share patients."""
    of_study = ["seed", "truth", "follow_up"]
    true = patients[patients["truth"] != "noise"]
    true = true.drop_duplicates([*of_study, "patient_id"])  # a cell that was killed comes twice
    if true.empty:
        return "-"
    studies = true.groupby(of_study).ngroup()
    of_one = true.groupby(["seed", "patient_id"]).ngroup()
    surv = Survival(true["time_months"].to_numpy(float), true["event"].to_numpy(bool))
    fit = fit_cox(true["log_cumulative_hazard"].to_numpy(float), surv, names=["slope"],
                  cases=Cases(strata=studies.to_numpy(), clusters=of_one.to_numpy()))
    ratio = fit.hazard_ratios()["slope"]
    interval = f"{np.log(ratio.low):.2f} to {np.log(ratio.high):.2f}"
    return f"{fit.coef[0]:.2f} ({interval}), {surv.n_events:,} events of {studies.max() + 1} studies"


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3])
    parser.add_argument("--truths", nargs="+", default=[*(name for name in TRUTHS if name != BURDEN), BURDEN])
    parser.add_argument("--follow-ups", type=int, default=1)
    parser.add_argument("--training", type=int, default=300)
    parser.add_argument("--external", type=int, default=200)
    parser.add_argument("--networks", type=Path, nargs="+", default=[])
    parser.add_argument("--weights", type=int, default=0)
    parser.add_argument("--subfolds", type=int, default=STUDY.score.subfolds)
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    warnings.filterwarnings("ignore", category=RuntimeWarning)
    path = asked.folder / "truths.csv"
    known = pd.read_csv(path) if path.exists() else pd.DataFrame(columns=["seed", "truth", "follow_up"])
    done = set(known[["seed", "truth", "follow_up"]].itertuples(index=False, name=None))
    for seed in asked.seeds:
        measure(asked, seed, done)
    show(pd.read_csv(path))
    if not (outside := asked.folder / "outside.csv").exists():  # all cells were made before 2026-11-30
        return
    patients = pd.read_csv(outside)
    for words, kept in (("all follow-ups", patients), ("the studies' own", patients[patients["follow_up"] == 0])):
        print(f"mtdlr: calibration slope outside, pooled, {words}: {pooled_slope(kept)}")


if __name__ == "__main__":
    main()
