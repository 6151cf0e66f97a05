"""What a second Dask worker brings to preparation and radiomics, side by side on one study.

    python bench/bench_dask.py [--patients 24] [--repeats 2]

Workers of one thread each on this machine, on a fresh store each time, in turns. Networks are trained for one epoch in
between, which is not timed: their masks only say where features are computed. Workers are warm: one patient of each
stage is done before, as numba's loops and imports would otherwise be timed.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
from distributed import LocalCluster

from mtdlr.pipeline import Run
from mtdlr.study import Study
from mtdlr.synthetic import write_study
from mtdlr.workers import Workers
from mtdlr.workers.cluster import executor

SETTINGS = ("deepmts.epochs=1", "deepmts.segmentation_epochs=0", "singletask.epochs=1", "deepmts.width=0.25",
            "singletask.width=0.25", "score.folds=2", "preset=quick")


def study_of(folder: Path, n: int) -> Path:
    """A study of n patients, half of them with the event."""
    path = write_study(folder, n_training=n - 1, n_internal=1, n_external=0)
    table = pd.read_csv(path.parent / "clinical.csv")
    table.assign(event=[(k + 1) % 2 for k in range(len(table))]).to_csv(path.parent / "clinical.csv", index=False)
    return path


def seconds(study: Path, warm: Path, store: Path, n: int) -> dict[str, float]:
    """Wall seconds of two stages on n Dask workers."""
    found = {}
    with LocalCluster(n_workers=n, threads_per_worker=1, dashboard_address=None) as cluster, \
            executor(f"dask:{cluster.scheduler_address}") as pool:
        for path, folder in ((warm, store / "warm"), (study, store / "run")):
            with Run(Study.load(path, SETTINGS), folder, Workers(executor=pool)) as run:
                for before, stage in (("", "prepare"), ("score", "radiomics")):
                    if before:
                        run.until(before)
                    start = time.perf_counter()
                    run.until(stage)
                    found[stage] = time.perf_counter() - start
    return found


def main() -> None:
    """One and two workers in turns."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patients", type=int, default=24)
    parser.add_argument("--repeats", type=int, default=2)
    asked = parser.parse_args()
    rows = []
    with TemporaryDirectory() as place:
        study, warm = (study_of(Path(place) / name, n) for name, n in (("study", asked.patients), ("warm", 20)))
        for k in range(asked.repeats):
            rows += [{"workers": n} | seconds(study, warm, Path(place) / f"store{k}{n}", n) for n in (1, 2)]
            print(rows[-2:], flush=True)
    means = pd.DataFrame(rows).groupby("workers").mean()
    print(means.round(2).to_string())
    print((means.loc[1] / means.loc[2]).round(2).to_string())


if __name__ == "__main__":
    main()
