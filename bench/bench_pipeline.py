"""How long a whole study takes and how much memory: cold, again, after a changed nomogram setting; and `--help`.

    python bench/bench_pipeline.py examples/sts.toml        a study of your own
    python bench/bench_pipeline.py --demo                   the synthetic study of `mtdlr demo`

Every run is a process of its own; memory is the sum over the process and its workers (proportional set size),
sampled twice a second.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def children(pid: int) -> list[int]:
    """A process and all its descendants."""
    found = [pid]
    for parent in found:
        for task in Path(f"/proc/{parent}/task").glob("*/children"):
            try:
                found += [int(child) for child in task.read_text().split()]
            except OSError:
                continue
    return found


def memory_mb(pid: int) -> float:
    """Proportional set size of the whole process tree."""
    total = 0
    for one in children(pid):
        try:
            lines = Path(f"/proc/{one}/smaps_rollup").read_text().splitlines()
            total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
        except (OSError, StopIteration):
            continue
    return total / 1024


def measure(label: str, *arguments: str) -> None:
    """Run `mtdlr ...` and print wall seconds, CPU seconds and peak memory."""
    before, start, peak = os.times(), time.monotonic(), 0.0
    command = [sys.executable, "-m", "mtdlr", *arguments]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None:
            peak = max(peak, memory_mb(process.pid))
            time.sleep(0.5 if time.monotonic() - start > 2 else 0.01)
    wall, after = time.monotonic() - start, os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    print(f"| {label} | {wall:.1f} | {cpu:.1f} | {peak:.0f} | {process.returncode} |", flush=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", nargs="?")
    parser.add_argument("--demo", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        print("| what | wall s | CPU s | peak MB | exit |\n|---|---|---|---|---|")
        measure("--help", "--help")
        folder = f"run.folder={scratch}/run"
        if options.demo:
            measure("demo, cold", "demo", f"{scratch}/demo")
            options.study, folder = f"{scratch}/demo/study.toml", f"run.folder={scratch}/demo/runs/study"
        else:
            measure("run, cold", "run", options.study, "--set", folder)
        measure("run again", "run", options.study, "--set", folder)
        measure("other horizons", "run", options.study, "--set", folder, "--set", "nomogram.months=[10, 20]")


if __name__ == "__main__":
    main()
