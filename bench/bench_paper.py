"""The paper's study at its own size, on synthetic patients: the chain through shards, and what of its claims holds.

    python bench/bench_paper.py FOLDER [--seeds 0 1 2] [--modes quick] [--truth burden] [--sizes 522 130 234]
                                [--grid 48] [--shards 4] [--at-once 2]

Each seed is a study of its own: patients, images, networks. A mode is a preset on a grid of `--grid` voxels of 3 mm.
Every stage runs as a cluster would run it, in shards and folds, `--at-once` processes side by side. What is done is
kept in FOLDER, so a killed call goes on where it was. The numbers of a finished study go to bench/paper/, and all that
are kept there make docs/evidence.md, by `paper_page.py`. A study that is kept is not run again.

The patients are made by our own generator: what holds here shows what the method can find, not what nature holds.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from paper_page import page
from PIL import Image

import mtdlr
from mtdlr.nomogram.model import Nomogram
from mtdlr.stats.calibration import calibrate
from mtdlr.study import Study
from mtdlr.survival import Survival
from mtdlr.synthetic import write_study
from mtdlr.synthetic.truth import BURDEN
from mtdlr.workers import Workers

SIZES, GRID, SPACING_MM = (522, 130, 234), 48, 3.0
COHORTS = ("training", "internal", "external")
ROOT = Path(__file__).parents[1]
KEPT, PAGE, PICTURES = ROOT / "bench" / "paper", ROOT / "docs" / "evidence.md", ROOT / "docs" / "evidence"
SHOWN = {"2a": "Figure 2a. The MTDLR nomogram.", "2b": "Figure 2b. Calibration, training cohort.",
         "2c": "Figure 2c. Calibration, internal validation.", "2d": "Figure 2d. Calibration, external validation.",
         "3a": "Figure 3. ROC curves.", "4": "Figure 4. Risk groups."}


@dataclass(frozen=True)
class Plan:
    """What is run: folder, what drives the hazard, cohort sizes, voxels along an axis, shards, processes at once."""

    folder: Path
    truth: str
    sizes: tuple[int, int, int]
    grid: int
    shards: int
    at_once: int

    def study_folder(self, seed: int) -> Path:
        """Where the patients of one seed lie."""
        return self.folder / (f"seed{seed}" if self.truth == BURDEN else f"{self.truth}{seed}")

    def run_folder(self, mode: str, seed: int) -> Path:
        """Where one study's results lie."""
        return self.study_folder(seed) / "runs" / mode

    def cost_file(self, seed: int) -> Path:
        """CPU seconds of every call of one seed."""
        return self.study_folder(seed) / "cost.csv"


def make_patients(plan: Plan, seed: int) -> Path:
    """The study file of one seed; the patients are made once."""
    folder = plan.study_folder(seed)
    study = folder / "study.toml"
    if not study.exists():
        training, internal, external = plan.sizes
        before = os.times()
        write_study(folder, n_training=training, n_internal=internal, n_external=external, seed=seed,
                    truth=plan.truth, workers=Workers(plan.at_once, 1))
        spent = sum(after - past for after, past in zip(os.times()[:4], before[:4], strict=True))
        plan.cost_file(seed).write_text(f"patients,patients,{spent:.1f}\n", encoding="utf-8")
    return study


def phases(plan: Plan, study: Path, mode: str, seed: int) -> Iterator[list[list[str]]]:
    """The calls of `mtdlr run` of one study; those of a phase may run beside one another, in random order."""
    text = study.read_text(encoding="utf-8").replace('preset = "quick"', f'preset = "{mode}"')
    text = text.replace("[report]\n", "[report]\npages = false\n")
    own = study.with_name(f"{mode}.toml")  # its results go to runs/<mode>
    spacing = f"spacing_mm = {SPACING_MM}\n"
    own.write_text(f"{text}\n[prepare]\nsize = {plan.grid}\n{spacing}\n[radiomics]\n{spacing}\n[run]\nworkers = 1\n",
                   encoding="utf-8")
    order = random.Random(seed)
    shards = [f"{part}/{plan.shards}" for part in range(1, plan.shards + 1)]
    for stage in ("prepare", "train", "radiomics"):
        if stage == "train":
            yield [["run", str(own), "--until", "prepare"]]
            yield [["run", str(own), "--until", "train", "--fold", str(fold)] for fold in range(folds(own))]
        else:
            order.shuffle(shards)
            yield [["run", str(own), "--until", stage, "--shard", shard] for shard in shards]
    yield [["run", str(own), "--set", f"run.workers={plan.at_once}"]]


def folds(study: Path) -> int:
    """How many folds a study trains in."""
    return Study.load(study).score.n_folds(1)


def run(plan: Plan, mode: str, seed: int) -> None:
    """One study, from patients to its report; CPU seconds of each call are appended to cost.csv."""
    study = make_patients(plan, seed)
    for phase in phases(plan, study, mode, seed):
        with ThreadPoolExecutor(plan.at_once) as pool:
            costs = list(pool.map(call, phase))
        for command, cpu in zip(phase, costs, strict=True):
            what = command[command.index("--until") + 1] if "--until" in command else "finish"
            with plan.cost_file(seed).open("a", encoding="utf-8") as file:
                file.write(f"{mode},{what},{cpu:.1f}\n")


def call(command: list[str]) -> float:
    """CPU seconds of one call of the command line, with the processes that it started."""
    child = subprocess.Popen([sys.executable, "-m", "mtdlr", *command], stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"mtdlr {' '.join(command)}: exit status {child.returncode}")
    print(f"{' '.join(command[1:])}: {used.ru_utime + used.ru_stime:.0f} CPU s", flush=True)
    return used.ru_utime + used.ru_stime


def keep(plan: Plan, mode: str, seed: int) -> dict[str, Any]:
    """The numbers of one study that the page prints."""
    folder = plan.run_folder(mode, seed)
    told = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))
    cost = pd.read_csv(plan.cost_file(seed), names=["mode", "stage", "cpu"])
    own = cost[cost["mode"].isin([mode, "patients"])].groupby("stage", sort=False)["cpu"].sum()
    masks = pd.read_csv(folder / "masks.csv")
    return {
        "mode": mode, "driven_by": plan.truth, "seed": seed, "sizes": plan.sizes, "grid": plan.grid,
        "spacing_mm": SPACING_MM, "date": f"{date.today()}", "mtdlr": mtdlr.__version__,
        "cpu_s": own.round(1).to_dict(),
        "dice": masks.groupby("cohort")["dice"].mean().round(4).to_dict(),
        "characteristics": {cohort: characteristics(told, masks, cohort) for cohort in COHORTS},
        "labels": {one["model"]: one["label"] for one in told["performance"]},
        "univariate": hazard_ratios(told["univariate"]), "multivariate": hazard_ratios(told["multivariate"]),
        "performance": performance(told["performance"]), "calibration": calibration(told["calibration"]),
        "of_truth": of_truth(folder, list({one["model"] for one in told["performance"]}))}


def of_truth(folder: Path, models: list[str]) -> dict[str, Any]:
    """By cohort, how each model's risk correlates with the one that made the events, and how a Cox model of that risk
    alone, fitted to the training patients, is calibrated at 60 months."""
    table = pd.read_csv(folder / "scores.csv").merge(pd.read_csv(folder / "cohort.csv"), on="patient_id",
                                                     suffixes=("", "_clinical"))
    surv = Survival(table["time_months"].to_numpy(float), table["event"].to_numpy(bool))
    training = (table["split"] == "training").to_numpy()
    known = Nomogram.fit(table[training], surv.take(training), ["truth"], [60.0])
    found: dict[str, Any] = {"correlation": {}, "calibration": {}}
    for cohort in COHORTS:
        mine = (table["split"] == cohort).to_numpy()
        fit = calibrate(known.survival(table[mine], [60.0]).value[:, 0], surv.take(mine), 60.0)
        found["calibration"][cohort] = {"slope": round(fit.slope.value, 4), "oe": round(fit.oe.value, 4)}
        for name in sorted(models):
            column = f"{name}_risk" if f"{name}_risk" in table else name
            value = np.corrcoef(table.loc[mine, column], table.loc[mine, "truth"])[0, 1]
            found["correlation"].setdefault(name, {})[cohort] = round(float(value), 4)
    return found


def characteristics(told: dict[str, Any], masks: pd.DataFrame, cohort: str) -> dict[str, float]:
    """Rows of Table 1 that the paper prints too; PET parameters inside the manual masks."""
    table = {one["name"]: one for one in told["characteristics"]}
    own = masks[masks["cohort"] == cohort]

    def percent(name: str, level: str) -> float:
        return round(100 * table[name]["counts"][level][cohort] / len(own), 1)

    return {"patients": len(own), "events": table["event"]["counts"]["Event"][cohort],
            "age, median": table["age"]["ranges"][cohort]["median"], "stage IVa, %": percent("tnm_stage", "IVa"),
            "N3, %": percent("n_stage", "N3"), "SUVmax, mean, g/ml": round(own["manual_suv_max"].mean(), 2),
            "MTV, mean, ml": round(own["manual_mtv_ml_2_5"].mean(), 2)}


def hazard_ratios(associations: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """By variable and cohort: of the last level, or of one unit."""
    found: dict[str, dict[str, float]] = {}
    for one in associations:
        ratio = list(one["hazard_ratios"].values())[-1]["value"]
        name = {"tnm_stage": "stage"}.get(one["variable"], one["variable"])
        if ratio is not None:
            found.setdefault(name, {})[one["cohort"]] = round(ratio, 4)
    return found


def performance(evaluations: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """By model and cohort: n, events, C-index, and the risk groups' hazard ratio with its interval."""
    found: dict[str, dict[str, Any]] = {}
    for one in evaluations:
        ratio = (one["groups"] or {}).get("hazard_ratio") or {}
        whole = [ratio.get(key) for key in ("value", "low", "high")]
        found.setdefault(one["model"], {})[one["cohort"]] = {
            "n": one["n"], "events": one["events"], "c": one["c"]["value"] and round(one["c"]["value"], 4),
            "groups": None if None in whole else [round(number, 3) for number in whole]}
    return found


def calibration(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The nomogram's, by cohort and month, of out-of-fold scores."""
    found: dict[str, dict[str, Any]] = {}
    for one in rows:
        if one["scores"] == "out-of-fold scores":
            found.setdefault(one["cohort"], {})[f"{one['months']:g}"] = {
                "slope": one["slope"]["value"], "oe": one["oe"]["value"], "gnd_p": one["gnd_p"]}
    return found


def keep_figures(folder: Path) -> None:
    """The report's figures, small enough for a page."""
    PICTURES.mkdir(exist_ok=True)
    for name in SHOWN:
        with Image.open(folder / "figures" / f"figure{name}.png") as picture:
            picture.thumbnail((1400, 1400))
            picture.convert("RGB").quantize(64).save(PICTURES / f"figure{name}.png", optimize=True)


def kept() -> list[dict[str, Any]]:
    """Every study that is kept, by what drives it, mode and seed."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(KEPT.glob("*.json"))]
    return sorted(found, key=lambda one: (one["driven_by"] != BURDEN, one["driven_by"], one["mode"], one["seed"]))


def main() -> None:
    """Run what is not kept and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--modes", nargs="+", default=["quick"])
    parser.add_argument("--truth", default=BURDEN, help="what drives the hazard")
    parser.add_argument("--sizes", type=int, nargs=3, default=SIZES)
    parser.add_argument("--grid", type=int, default=GRID)
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--at-once", type=int, default=2, help="processes side by side")
    asked = parser.parse_args()
    plan = Plan(asked.folder.resolve(), asked.truth, tuple(asked.sizes), asked.grid, asked.shards, asked.at_once)
    KEPT.mkdir(exist_ok=True)
    for mode, seed in product(asked.modes, asked.seeds):
        file = KEPT / f"{plan.truth}-{mode}-{plan.grid}-seed{seed}.json"
        if not file.exists():
            if not (plan.run_folder(mode, seed) / "evaluation.json").exists():
                run(plan, mode, seed)
            file.write_text(json.dumps(keep(plan, mode, seed), indent=1) + "\n", encoding="utf-8")
            if (plan.truth, mode, seed) == (BURDEN, "quick", 0):
                keep_figures(plan.run_folder(mode, seed))
    PAGE.write_text(page(kept(), SHOWN), encoding="utf-8")


if __name__ == "__main__":
    main()
