"""What the report of a large study costs: time to write it, its size, and how long Chromium takes to open it.

    python bench/bench_report.py STUDY.toml [--run FOLDER] [--patients 886]

STUDY.toml is a finished run's, such as the demo's. Its patients are drawn again with other ids, follow-up and scores
a little moved, until there are as many as wanted; each keeps the folder of the patient it was drawn from, so that
pictures and pages have their real size. Models are fitted anew to the larger cohort. Networks and features are not.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from chromium import chromium

from mtdlr.associate import study_associations
from mtdlr.cohort import Cohort, impute
from mtdlr.cohort.characteristics import characteristics
from mtdlr.evaluate import judge
from mtdlr.evaluate.rivals import Rivals
from mtdlr.model import fit_model
from mtdlr.pipeline import Run
from mtdlr.radiomics import PET_LABELS
from mtdlr.report.results import Results
from mtdlr.report.write import write_report
from mtdlr.study import Study
from mtdlr.workers import Workers


def enlarged(run: Run, n: int) -> Results:
    """The results of a study of n patients, drawn from a finished run's."""
    small, rng = run.results, np.random.default_rng(0)
    drawn = np.concatenate([np.arange(len(small.cohort)), rng.integers(0, len(small.cohort), n)])[:n]
    old, ids = small.cohort.table.index[drawn], [f"Q{k:05d}" for k in range(n)]

    def more(table: pd.DataFrame, spread: float = 0.0) -> pd.DataFrame:
        found = table.loc[old].set_axis(ids)
        return found + rng.normal(0, spread, found.shape) if spread else found

    table = more(small.cohort.table)
    table["time_months"] *= rng.uniform(0.9, 1.1, n)
    scores, features = more(run.score_table, 0.3), {s: more(t) for s, t in small.features.items()}
    pet = {source: more(values) for source, values in small.pet_parameters.items()}
    signatures = {source: signature for source, (signature, _) in run.signatures.items()}
    model = fit_model(table, scores, run.scores, signatures, run.study, networks=run.networks,
                      mean_image=run.mean_image)
    known = run.study.evaluate.model_copy(update={"known_risk": None})
    findings = judge(model, table, scores, known, rivals=Rivals(more(run.rivals.risks, 0.3)))
    rows = impute(table, model.imputed)[0].join(scores).join(pet["manual"])
    folders = {name: {i: getattr(small, name)[str(one)] for i, one in zip(ids, old, strict=True)
                      if str(one) in getattr(small, name)} for name in ("prepared", "scored", "pictures", "explained")}
    shown = Cohort(table, {}).some_of_each(run.study.report.thumbnails)
    folders["explained"] = {i: folder for i, folder in folders["explained"].items() if i in shown}
    return replace(small, cohort=Cohort(table, {}), model=model, scores=scores, findings=findings, features=features,
                   characteristics=characteristics(table, run.study.cohort, pet["manual"], PET_LABELS),
                   associations=study_associations(rows, run.study, pet["manual"].columns), pet_parameters=pet,
                   **folders)


def opened(page: Path, folder: Path) -> tuple[float, float]:
    """Seconds from the address to everything loaded and painted, at 1280 pixels: of the wall clock, of the CPU."""
    with chromium(folder) as tab:
        tab.size(1280, 900)
        tab._ask("Performance.enable", timeDomain="threadTicks")
        tab.open(page.resolve().as_uri())
        tab.run("new Promise(r => requestAnimationFrame(() => requestAnimationFrame(r)))")
        wall = tab.run("performance.timing.loadEventEnd / 1e3 - performance.timing.navigationStart / 1e3")
        metrics = tab._ask("Performance.getMetrics")["metrics"]
        return float(wall), next(one["value"] for one in metrics if one["name"] == "TaskDuration")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path)
    parser.add_argument("--run", type=Path)
    parser.add_argument("--patients", type=int, default=886)
    parser.add_argument("--keep", type=Path, help="where the report stays; by default nowhere")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place, Run(Study.load(options.study), options.run, Workers(1)) as run:
        results = enlarged(run, options.patients)
        folder = options.keep or Path(place) / "report"
        folder.mkdir(parents=True)
        wall, cpu = time.monotonic(), time.process_time()
        write_report(results, folder)
        wall, cpu = time.monotonic() - wall, time.process_time() - cpu
        loaded, busy = opened(folder / "report.html", Path(place) / "profile")
        events = int(results.cohort.table["event"].sum())
        print("| patients | events | CPU s | wall s | peak MB | report.html MB | loaded s | of it CPU s |")
        print("|---|---|---|---|---|---|---|---|")
        print(f"| {options.patients} | {events} | {cpu:.1f} | {wall:.1f} | "
              f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} | "
              f"{(folder / 'report.html').stat().st_size / 1e6:.1f} | {loaded:.2f} | {busy:.2f} |")


if __name__ == "__main__":
    main()
