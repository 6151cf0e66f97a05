"""What planning costs as a study grows: a second run that has nothing to do, `status`, memory, files a patient.

    python bench/bench_growth.py [--patients 100 886 10000]

Scans are text files of a few bytes and the jobs write small results of the real form, so that what is measured is what
the run itself adds: reading the cohort, knowing the scans again, planning every stage, reading warnings and features.
Each step is a process of its own; times are CPU seconds, for the machine may have other work.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

FEATURES = 1456


def write_inputs(folder: Path, n: int) -> None:
    """Clinical table, manifest and three files a patient."""
    rows, scans = ["patient_id,time_months,event,tnm_stage,center"], ["patient_id,pet,ct,mask"]
    for k in range(n):
        place = folder / "scans" / f"P{k:05d}"
        place.mkdir(parents=True)
        for name in ("pet", "ct", "mask"):
            (place / f"{name}.nii").write_text(f"{name} {k}")
        rows.append(f"P{k:05d},{5 + k % 60},{int(k % 3 == 0)},{'III' if k % 2 else 'IVa'},A")
        scans.append(f"P{k:05d},scans/P{k:05d}/pet.nii,scans/P{k:05d}/ct.nii,scans/P{k:05d}/mask.nii")
    (folder / "clinical.csv").write_text("\n".join(rows) + "\n")
    (folder / "manifest.csv").write_text("\n".join(scans) + "\n")
    (folder / "study.toml").write_text(
        '[cohort]\nimages = "manifest.csv"\ntable = "clinical.csv"\ncenter = "center"\n'
        '[cohort.factors]\ntnm_stage = ["III", "IVa"]\n'
        '[radiomics]\nperturbations = 0\n')


def small_jobs() -> None:
    """Put jobs that write small results in the place of the real ones."""
    from mtdlr import jobs
    from mtdlr.radiomics.stored import save_features

    values = {f"feature{k}": k / 7 for k in range(FEATURES)}

    def extract(job: jobs.Extract) -> Path:
        def build(folder: Path) -> None:
            save_features(folder, values, [], {})
            (folder / "problems.json").write_text('{"problems": []}')

        return job.store.make(job.recipe, build)

    def write(name: str, text: str):
        return lambda job: job.store.make(job.recipe, lambda folder: (folder / name).write_text(text) and None)

    jobs.prepare = write("facts.json", json.dumps({"problems": [], "facts": {}}))
    jobs.train = write("weights", "w")
    jobs.score = write("score.json", json.dumps({"risks": {}, "problems": [], "agreement": {}}))
    jobs.extract = extract


def step(folder: Path, what: str) -> None:
    """Do one step in this process and print its CPU seconds, wall seconds and peak memory."""
    from mtdlr.pipeline import Run
    from mtdlr.store import run_status
    from mtdlr.study import Study
    from mtdlr.workers import Workers

    small_jobs()
    wall, cpu = time.monotonic(), time.process_time()
    if what == "status":
        run_status(folder / "run")
    else:
        with Run(Study.load(folder / "study.toml"), folder / "run", Workers(1)) as run:
            run.until("radiomics")
            assert not run.failed and len(run.feature_tables["auto"]) == len(run.cohort)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps([time.process_time() - cpu, time.monotonic() - wall, peak]))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patients", type=int, nargs="+", default=[100, 886, 10000])
    parser.add_argument("--step", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        step(Path(options.step[0]), options.step[1])
        return
    print("| patients | step | CPU s | wall s | peak MB |\n|---|---|---|---|---|")
    for n in options.patients:
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            write_inputs(folder, n)
            for what in ("first", "again", "status"):
                done = subprocess.run([sys.executable, __file__, "--step", place, what], capture_output=True, text=True,
                                      check=True, env=os.environ)
                cpu, wall, peak = json.loads(done.stdout.splitlines()[-1])
                print(f"| {n} | {what} | {cpu:.1f} | {wall:.1f} | {peak:.0f} |", flush=True)
            files = [p for p in (folder / "run").rglob("*") if p.is_file()]
            size = sum(p.stat().st_size for p in files)
            print(f"| {n} | files and kB a patient | {len(files) / n:.1f} | {size / n / 1e3:.0f} | |")


if __name__ == "__main__":
    main()
