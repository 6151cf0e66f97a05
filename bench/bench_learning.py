"""What the whole chain learns from a synthetic study whose truth is known.

    python bench/bench_learning.py FOLDER [--training 200] [--external 100] [--seed 0] [--set key=value]

Writes the study into FOLDER (a second run goes on from what is there), runs it, and prints Dice out of fold and
outside, the C-index of every model beside that of the true log-hazard and of its partial sums, and the MTDLR nomogram's
calibration slope with cross-fitted and with in-sample scores.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import pandas as pd

from mtdlr.models import nomogram_predictions
from mtdlr.pipeline import Run
from mtdlr.stats.calibration import calibrate
from mtdlr.stats.concordance import concordance
from mtdlr.study import Study
from mtdlr.survival import Survival
from mtdlr.synthetic import write_study
from mtdlr.workers import Workers

SHOWN = ("tnm_stage", "manual_radio", "auto_radio", "single_task", "deepmts", "mtdlr")


def follow_up(table: pd.DataFrame) -> Survival:
    """The follow-up of a clinical table."""
    return Survival(table["time_months"].to_numpy(), table["event"].to_numpy())


def way_to_truth(c: float, truth: float) -> float:
    """How far from 0.5 to the truth's C-index, in percent."""
    return 100.0 * (c - 0.5) / (truth - 0.5)


def show_concordance(run: Run, folder: Path) -> None:
    """One line a model and cohort."""
    clinical, truth = (pd.read_csv(folder / name).set_index("patient_id") for name in ("clinical.csv", "truth.csv"))
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
                risk = run.models.risks.loc[run.models.risks.index.isin(rows), model].dropna()
                r = risk.corr(truth.loc[risk.index, "log_hazard"])
                print(f"  {model:20} C {c}  {way_to_truth(c.value, best):4.0f} % of the way; "
                      f"correlation with the truth {r:.2f}")


def show_masks(run: Run) -> None:
    """Mean Dice by cohort; training patients' masks are out of fold."""
    dice = pd.Series({i: json.loads((folder / "score.json").read_text())["agreement"].get("dice")
                      for i, folder in run.scored.folders.items()}, dtype=float)
    for split, part in dice.groupby(run.included.table["split"]):
        print(f"Dice {split}: {part.mean():.3f} ({part.notna().sum()} patients)")


def show_slopes(run: Run, month: float = 60.0) -> None:
    """Calibration slope outside of the nomogram fitted on cross-fitted and on in-sample scores."""
    table = run.included.table
    rows = table[table["split"] == "external"].join(run.models.scores, rsuffix="_score")
    for name in ("mtdlr", "mtdlr_in_sample"):
        _, predicted = nomogram_predictions(run.models.nomograms[name], rows)
        known = predicted[month].notna()
        slope = calibrate(predicted.loc[known, month].to_numpy(), follow_up(rows[known]), month=month).slope
        print(f"calibration slope outside at {month:.0f} months, {name}: {slope}")


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--training", type=int, default=200)
    parser.add_argument("--external", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--set", nargs="*", default=[], dest="overrides")
    asked = parser.parse_args()
    path, workers = asked.folder / "study.toml", Workers(asked.workers)
    began = time.perf_counter()
    if not path.exists():
        write_study(asked.folder, n_training=asked.training, n_internal=0, n_external=asked.external, seed=asked.seed,
                    workers=workers)
    print(f"study written in {time.perf_counter() - began:.0f} s")
    began = time.perf_counter()
    with Run(Study.load(path, asked.overrides), asked.folder / "run", workers) as run:
        show_concordance(run, asked.folder)
        print(f"run in {time.perf_counter() - began:.0f} s")
        show_masks(run)
        show_slopes(run)


if __name__ == "__main__":
    main()
