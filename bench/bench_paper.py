"""The paper's study at its own size, on synthetic patients: the chain through shards, and what of its claims holds.

    python bench/bench_paper.py FOLDER [--seeds 0 1 2] [--modes quick paper] [--sizes 522 130 234] [--grid 48]
                                [--shards 4] [--page bench/PAPER.md]

Each seed is a study of its own: patients, images, networks. A mode is a preset on a grid of `--grid` voxels of 3 mm.
Every stage runs as a cluster would run it, in shards and folds, one process at a time. What is done is kept in FOLDER,
so a killed call goes on where it was. The page has the paper's Table 4 beside ours, the claims with P over the seeds
(one-sided paired t-test of the difference; with one seed the study's own P), and the cost in CPU time.

The patients are made by our own generator: what holds here shows what the method can find, not what nature holds.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from mtdlr.study import Study
from mtdlr.synthetic import write_study
from mtdlr.workers import Workers

SIZES, GRID, SPACING_MM = (522, 130, 234), 48, 3.0
COHORTS = ("training", "internal", "external")
# The paper's Table 4: C-index by cohort.
PAPER_C = {
    "stage": (0.538, 0.526, 0.554), "manual_radio": (0.720, 0.680, 0.642), "manual_radio_stage": (0.725, 0.693, 0.655),
    "single_task": (0.767, 0.705, 0.655), "single_task_stage": (0.770, 0.708, 0.662), "deepmts": (0.780, 0.731, 0.695),
    "auto_radio": (0.728, 0.702, 0.669), "mtdlr": (0.818, 0.752, 0.717),
}
PAPER_DICE = (0.826, 0.775, 0.765)
PAPER_HR = {"stage": (1.541, 1.457, 1.839), "mtdlr": (10.25, 7.519, 4.812)}
CLAIMS = (("MTDLR ranks better than the stage", "mtdlr", "stage"),
          ("MTDLR ranks better than DeepMTS alone", "mtdlr", "deepmts"),
          ("MTDLR ranks better than AutoRadio alone", "mtdlr", "auto_radio"),
          ("DeepMTS ranks better than SingleTask", "deepmts", "single_task"),
          ("AutoRadio ranks better than ManualRadio", "auto_radio", "manual_radio"),
          ("ManualRadio ranks better than the stage", "manual_radio", "stage"),
          ("The stage adds to ManualRadio", "manual_radio_stage", "manual_radio"),
          ("The stage adds to SingleTask", "single_task_stage", "single_task"))


@dataclass(frozen=True)
class Plan:
    """What is run: folder, cohort sizes, voxels along an axis, shards a stage, processes at once."""

    folder: Path
    sizes: tuple[int, int, int]
    grid: int
    shards: int
    at_once: int

    def options(self, seeds: Iterable[int], modes: Iterable[str]) -> str:
        """The command line's options that stand for it."""
        words = {"seeds": seeds, "modes": modes, "sizes": self.sizes, "grid": [self.grid], "shards": [self.shards]}
        return " ".join(f"--{name} {' '.join(map(str, values))}" for name, values in words.items())

    def run_folder(self, mode: str, seed: int) -> Path:
        """Where one study's results lie."""
        return self.folder / f"seed{seed}" / "runs" / mode


def make_patients(plan: Plan, seed: int) -> Path:
    """The study file of one seed; the patients are made once."""
    folder = plan.folder / f"seed{seed}"
    study = folder / "study.toml"
    if not study.exists():
        training, internal, external = plan.sizes
        write_study(folder, n_training=training, n_internal=internal, n_external=external, seed=seed,
                    workers=Workers(plan.at_once, 1))
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
            with (plan.folder / "cost.csv").open("a", encoding="utf-8") as file:
                file.write(f"{mode},{seed},{what},{cpu:.1f}\n")


def call(command: list[str]) -> float:
    """CPU seconds of one call of the command line, with the processes that it started."""
    child = subprocess.Popen([sys.executable, "-m", "mtdlr", *command], stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"mtdlr {' '.join(command)}: exit status {child.returncode}")
    print(f"{' '.join(command[1:])}: {used.ru_utime + used.ru_stime:.0f} CPU s", flush=True)
    return used.ru_utime + used.ru_stime


def numbers(plan: Plan, mode: str, seed: int) -> pd.DataFrame:
    """C-index, group hazard ratio and slope of every model and cohort of one study, and the Dice of a cohort."""
    folder = plan.run_folder(mode, seed)
    evaluation = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))
    dice = pd.read_csv(folder / "masks.csv").groupby("cohort")["dice"].mean()
    rows = []
    for one in evaluation["performance"]:
        hazard_ratio = (one["groups"] or {}).get("hazard_ratio") or {}
        rows.append({"mode": mode, "seed": seed, "model": one["model"], "cohort": one["cohort"], "n": one["n"],
                     "events": one["events"], "c": one["c"]["value"], "hr": hazard_ratio.get("value"),
                     "dice": dice.get(one["cohort"])})
    table = pd.DataFrame(rows)
    slopes = {(one["cohort"], one["months"]): one for one in evaluation["calibration"]
              if one["scores"] == "out-of-fold scores"}
    month = max(months for _, months in slopes)
    for column in ("slope", "oe"):
        table[column] = [(slopes[cohort, month][column] or {}).get("value") for cohort in table["cohort"]]
    return table


def p_over_seeds(differences: pd.Series[float]) -> str:
    """One-sided P that the mean difference is above 0; "-" with fewer than two seeds."""
    if len(differences) < 2 or np.ptp(differences) == 0:
        return "-"
    return f"{stats.ttest_1samp(differences, 0.0, alternative='greater').pvalue:.3f}"


def page(table: pd.DataFrame, cost: pd.DataFrame, plan: Plan) -> str:
    """The page in Markdown."""
    seeds, out = sorted(table["seed"].unique()), ["# The paper at its own size, on synthetic patients", ""]
    sizes = f"{sum(plan.sizes)} patients ({' + '.join(map(str, plan.sizes))})"
    out += [f"{sizes}, {plan.grid}^3 voxels of {SPACING_MM:g} mm, seeds {', '.join(map(str, seeds))}. One command:",
            "", f"    python bench/bench_paper.py FOLDER {plan.options(seeds, table['mode'].unique())}", "",
            "The patients come from the project's own generator. What holds here shows what the method can find in such"
            " images.", "It says nothing about patients.", ""]
    for mode, part in table.groupby("mode", sort=False):
        hours = cost.loc[cost["mode"] == mode, "cpu"].sum() / 3600 / part["seed"].nunique()
        out += [f"## `{mode}`", f"{hours:.1f} CPU hours a seed.", "", *_table_4(part), "", *_claims(part), ""]
    return "\n".join(out)


def _table_4(part: pd.DataFrame) -> list[str]:
    """Mean C-index over seeds beside the paper's, and Dice, group HR and calibration of the nomogram."""
    lines = ["| C-index | " + " | ".join(f"{cohort} | paper" for cohort in COHORTS) + " |", "|---|" + "---|" * 6]
    mean = part.pivot_table(index="model", columns="cohort", values="c", aggfunc="mean")
    for model in [*PAPER_C, *(name for name in mean.index if name not in PAPER_C)]:
        paper = PAPER_C.get(model, (None,) * 3)
        cells = [f"{mean.loc[model, cohort]:.3f} | {'-' if known is None else f'{known:.3f}'}"
                 for cohort, known in zip(COHORTS, paper, strict=True)]
        lines.append(f"| {model} | {' | '.join(cells)} |")
    nomogram = part[part["model"] == "mtdlr"].groupby("cohort")[["dice", "hr", "slope", "oe"]].mean()
    names = {"dice": "Dice", "hr": "group HR of MTDLR", "slope": "calibration slope", "oe": "O/E"}
    known = {"dice": PAPER_DICE, "hr": PAPER_HR["mtdlr"]}
    for column, name in names.items():
        cells = [f"{nomogram.loc[cohort, column]:.2f} | {known[column][k] if column in known else '-'}"
                 for k, cohort in enumerate(COHORTS)]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def _claims(part: pd.DataFrame) -> list[str]:
    """The paper's claims: difference in C-index by cohort, and P over the seeds."""
    lines = ["| claim | " + " | ".join(f"{cohort} | P" for cohort in COHORTS) + " |", "|---|" + "---|" * 6]
    c = part.pivot_table(index=["cohort", "seed"], columns="model", values="c")
    for claim, better, worse in CLAIMS:
        difference = c[better] - c[worse]
        cells = [f"{difference[cohort].mean():+.3f} | {p_over_seeds(difference[cohort])}" for cohort in COHORTS]
        lines.append(f"| {claim} | {' | '.join(cells)} |")
    return lines


def main() -> None:
    """Run what is missing and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--modes", nargs="+", default=["quick", "paper"])
    parser.add_argument("--sizes", type=int, nargs=3, default=SIZES)
    parser.add_argument("--grid", type=int, default=GRID)
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--at-once", type=int, default=2, help="processes side by side")
    parser.add_argument("--page", type=Path)
    options = parser.parse_args()
    plan = Plan(options.folder.resolve(), tuple(options.sizes), options.grid, options.shards, options.at_once)
    plan.folder.mkdir(parents=True, exist_ok=True)
    tables = []
    for mode in options.modes:
        for seed in options.seeds:
            if not (plan.run_folder(mode, seed) / "evaluation.json").exists():
                run(plan, mode, seed)
            tables.append(numbers(plan, mode, seed))
    cost = pd.read_csv(plan.folder / "cost.csv", names=["mode", "seed", "stage", "cpu"])
    text = page(pd.concat(tables, ignore_index=True), cost, plan)
    (options.page or plan.folder / "PAPER.md").write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
