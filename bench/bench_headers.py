"""What it costs to know a cohort of DICOM folders again: read by one process, by two workers, and remembered.

    python bench/bench_headers.py FOLDER [--files 350000]

FOLDER is a copy of a cohort with one DICOM folder a patient, such as centerB of the demo. The large cohort is its
patients linked as often as it takes; its memory is filled by reading each patient once, so that only the second look
at it is measured. Every step is a process of its own: CPU seconds with those of its workers, wall seconds and peak
memory (of the first process).
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


def link(patients: Path, folder: Path, files: int) -> int:
    """Patients linked into `folder` under new names until there are so many files; how many there are."""
    listed = {one: [p for p in one.rglob("*") if p.is_file()] for one in patients.iterdir() if one.is_dir()}
    made = times = 0
    while made < files:
        for k, (one, paths) in enumerate(listed.items()):
            for path in paths if made < files else ():
                target = folder / f"Q{times:03d}{k:04d}" / path.relative_to(one)
                target.parent.mkdir(parents=True, exist_ok=True)
                os.link(path, target)
            made += len(paths) if made < files else 0
        times += 1
    return made


def step(folder: Path, run: Path, what: str) -> None:
    """Do one step in this process and print its CPU seconds, wall seconds and peak memory in MB."""
    from mtdlr.cohort import HeaderReader, headers
    from mtdlr.imaging.layout import discover
    from mtdlr.workers import Workers

    if what == "fill":  # linked files say the same: each is read once
        known, reads = {}, headers.read_folder

        def once(files: tuple[Path, ...]) -> object:
            key = files[0].stat().st_ino, len(files)
            if key not in known:
                known[key] = reads(files)
            return known[key]

        headers.read_folder, headers.MANY = once, 10**9
    wall = time.monotonic()
    discover(folder, read=HeaderReader(Workers(2 if what == "two" else 1), None if what == "none" else run))
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    cpu = sum(one.ru_utime + one.ru_stime for one in used)
    print(json.dumps([cpu, time.monotonic() - wall, used[0].ru_maxrss / 1024]))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--files", type=int, default=350_000)
    parser.add_argument("--step", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        step(options.folder, Path(options.step[0]), options.step[1])
        return
    print("| files | headers | CPU s | wall s | peak MB | memory kB |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(dir=options.folder.parent) as place:  # links need one file system
        large = Path(place) / "large"
        here = sum(path.is_file() for path in options.folder.rglob("*"))
        row(options.folder, Path(place) / "a", "none", here, "read, one process")
        row(options.folder, Path(place) / "b", "two", here, "read, two workers")
        row(options.folder, Path(place) / "b", "again", here, "remembered")
        there = link(options.folder, large, options.files)
        row(large, Path(place) / "c", "fill", there, "(memory filled, each patient read once)")
        row(large, Path(place) / "c", "again", there, "remembered")


def row(folder: Path, run: Path, what: str, files: int, words: str) -> None:
    """Print one row of the table."""
    done = subprocess.run([sys.executable, __file__, str(folder), "--step", str(run), what], capture_output=True,
                          text=True, check=True)
    cpu, wall, peak = json.loads(done.stdout.splitlines()[-1])
    size = sum(path.stat().st_size for path in run.rglob("*.jsonl")) / 1e3
    print(f"| {files} | {words} | {cpu:.1f} | {wall:.1f} | {peak:.0f} | {size:.0f} |", flush=True)


if __name__ == "__main__":
    main()
