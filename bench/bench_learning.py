"""What the whole chain learns from synthetic studies whose truth is known.

    python bench/bench_learning.py FOLDER [--seeds 0 1 2 3] [--training 200] [--external 100] [--set key=value]
                                          [--figure slopes.svg]

Writes one study a seed into FOLDER (a second run goes on from what is there), runs it, and prints Dice out of fold and
outside, the C-index of every model beside that of the true log-hazard and of its partial sums, and the MTDLR nomogram's
calibration slope with cross-fitted and with in-sample scores, beside that of the true log-hazard fitted in the same
training patients: so far the sample itself is from 1. After the seeds: their means, and the slopes over all
external patients together, which `--figure` also draws.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from mtdlr.model import nomogram_predictions
from mtdlr.nomogram import Nomogram
from mtdlr.pipeline import Run
from mtdlr.report.figures import calibration_figure, save
from mtdlr.stats.calibration import calibrate
from mtdlr.stats.concordance import concordance
from mtdlr.stats.terms import Continuous
from mtdlr.study import Study
from mtdlr.survival import Survival
from mtdlr.synthetic import write_study
from mtdlr.workers import Workers

NOMOGRAMS = {"mtdlr": "cross-fitted scores", "mtdlr_in_sample": "in-sample scores"}
TRUTH = "log_hazard"
MONTH = 60.0


def follow_up(table: pd.DataFrame) -> Survival:
    """The follow-up of a clinical table."""
    return Survival(table["time_months"].to_numpy(), table["event"].to_numpy())


def way_to_truth(c: float, truth: float) -> float:
    """How far from 0.5 to the truth's C-index, in percent."""
    return 100.0 * (c - 0.5) / (truth - 0.5)


def show_concordance(run: Run, folder: Path) -> dict[tuple[str, str], float]:
    """One line a model and cohort; the percent of the way to the truth by (cohort, model)."""
    clinical, truth = (pd.read_csv(folder / name).set_index("patient_id") for name in ("clinical.csv", "truth.csv"))
    ways = {}
    for split in ("training", "external"):
        rows = clinical.index[clinical["split"] == split]
        surv = follow_up(clinical.loc[rows])
        best = concordance(truth.loc[rows, "log_hazard"].to_numpy(), surv).c.value
        print(f"{split}: {len(rows)} patients, {surv.n_events} events; true log-hazard C {best:.3f}")
        seen = truth.loc[rows, ["stage", "volume", "heterogeneity"]].sum(axis=1)
        print(f"  what the mask and the stage can show: C {concordance(seen.to_numpy(), surv).c.value:.3f}")
        for (model, where), evaluation in run.evaluations.items():
            if where == split:
                c = evaluation.c
                risk = run.findings.risks.loc[run.findings.risks.index.isin(rows), model].dropna()
                r = risk.corr(truth.loc[risk.index, "log_hazard"])
                ways[split, model] = way_to_truth(c.value, best)
                print(f"  {model:20} C {c}  {ways[split, model]:4.0f} % of the way; correlation with the truth {r:.2f}")
    return ways


def show_masks(run: Run) -> dict[tuple[str, str], float]:
    """Mean Dice by cohort; training patients' masks are out of fold."""
    dice = pd.Series({i: json.loads((folder / "score.json").read_text())["agreement"].get("dice")
                      for i, folder in run.scored.folders.items()}, dtype=float)
    means = {}
    for split, part in dice.groupby(run.included.table["split"]):
        means[str(split), "Dice"] = part.mean()
        print(f"Dice {split}: {part.mean():.3f} ({part.notna().sum()} patients)")
    return means


def external_predictions(run: Run, truth: pd.Series) -> pd.DataFrame:
    """Follow-up of the external patients and their predicted survival from either nomogram, and from the truth."""
    table = run.included.table.join(run.score_table, rsuffix="_score").join(truth)
    rows, training = (table[table["split"] == split] for split in ("external", "training"))
    nomograms = {name: run.model.nomograms[name] for name in NOMOGRAMS} | {
        TRUTH: Nomogram.fit(training, follow_up(training), [Continuous(TRUTH)], (MONTH,))}
    predicted = {name: nomogram_predictions(nomogram, rows)[1][MONTH] for name, nomogram in nomograms.items()}
    return rows[["time_months", "event"]].assign(**predicted).dropna()


def show_slopes(predictions: pd.DataFrame, figure: Path | None = None) -> dict[tuple[str, str], float]:
    """Calibration slope outside of the nomogram fitted on cross-fitted and on in-sample scores."""
    found = {label: calibrate(predictions[name].to_numpy(), follow_up(predictions), month=MONTH)
             for name, label in (NOMOGRAMS | {TRUTH: "the true risk"}).items()}
    for label, calibration in found.items():
        print(f"calibration slope outside at {MONTH:.0f} months, {label}: {calibration.slope} "
              f"(observed/expected {calibration.oe})")
    if figure is not None:
        drawn = {label: found[label] for label in NOMOGRAMS.values()}
        save(calibration_figure({MONTH: drawn}, endpoint="PFS", width="single"), figure)
    return {("slope", label): calibration.slope.value for label, calibration in found.items()}


def learn(folder: Path, seed: int, asked: argparse.Namespace) -> tuple[dict[tuple[str, str], float], pd.DataFrame]:
    """(every figure of one seed, its external predictions)."""
    path, workers = folder / "study.toml", Workers(asked.workers)
    began = time.perf_counter()
    if not path.exists():
        write_study(folder, n_training=asked.training, n_internal=0, n_external=asked.external, seed=seed,
                    workers=workers)
    print(f"\nseed {seed}: study written in {time.perf_counter() - began:.0f} s")
    began = time.perf_counter()
    with Run(Study.load(path, asked.overrides), folder / asked.run, workers) as run:
        figures = show_concordance(run, folder)
        print(f"run in {time.perf_counter() - began:.0f} s")
        figures |= show_masks(run)
        predictions = external_predictions(run, pd.read_csv(folder / "truth.csv").set_index("patient_id")[TRUTH])
        return figures | show_slopes(predictions), predictions


def show_means(by_seed: Mapping[int, Mapping[tuple[str, str], float]]) -> None:
    """Each figure seed by seed, with the mean."""
    print("\nseeds " + ", ".join(map(str, by_seed)))
    for key in next(iter(by_seed.values())):
        values = [figures[key] for figures in by_seed.values()]
        digits = 0 if key[0] in ("training", "external") and key[1] != "Dice" else 2
        shown = ", ".join(f"{value:.{digits}f}" for value in values)
        print(f"{' '.join(key):40} {shown}; mean {np.mean(values):.{digits}f}")


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3])
    parser.add_argument("--training", type=int, default=200)
    parser.add_argument("--external", type=int, default=100)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--run", default="run", help="folder of the run beside each study")
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--set", nargs="*", default=[], dest="overrides")
    asked = parser.parse_args()
    found = {seed: learn(asked.folder / f"s{seed}", seed, asked) for seed in asked.seeds}
    show_means({seed: figures for seed, (figures, _) in found.items()})
    print("all external patients together:")
    show_slopes(pd.concat([predictions for _, predictions in found.values()]), asked.figure)


if __name__ == "__main__":
    main()
