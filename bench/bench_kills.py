"""How often kill -9 tears a file or changes the result of a training.

    python bench/bench_kills.py [--kills 200] [--trainings 20]

Small trainings that write their state after every step are killed at random moments, many of them while the state is
being written, and started again until they end. After each kill every file in the folder is read back; at the end the
weights are compared, byte for byte, with those of a training that was left alone.
"""

from __future__ import annotations

import argparse
import os
import signal
import tempfile
import time
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

import mtdlr.train
from mtdlr.study import SingletaskSettings
from mtdlr.train import Case, train

SETTINGS = SingletaskSettings(width=0.25, epochs=6, batch_size=4, learning_rate=3e-3)


def cases() -> list[Case]:
    """Sixteen patients of noise."""
    rng = np.random.default_rng(0)
    return [Case(f"P{k:02d}", rng.random((2, 32, 32, 32), dtype=np.float32), None, float(rng.integers(5, 60)),
                 k % 3 == 0) for k in range(16)]


def work(folder: str) -> None:
    """Train, writing the state after every step."""
    mtdlr.train.SAVE_EVERY_S = -1.0
    train(cases(), "csn-only", SETTINGS, Path(folder), seed=0)


def torn_files(folder: Path) -> int:
    """How many finished files cannot be read whole."""
    torn = 0
    for path in folder.glob("[!.]*.safetensors"):
        try:
            with safe_open(path, framework="np") as file:
                for name in file.keys():
                    file.get_tensor(name)
        except SafetensorError:
            torn += 1
    return torn


def wait_for_moment(process: BaseProcess, folder: Path, rng: np.random.Generator) -> None:
    """Return at a random moment or, half of the time, as soon as a file is being written."""
    process.join(0.15 + rng.exponential(0.25))
    until = time.monotonic() + (5.0 if rng.random() < 0.5 else 0.0)
    while time.monotonic() < until and process.is_alive() and not any(folder.glob(".*.part")):
        time.sleep(0.0003)


def main() -> None:
    """Kill, count, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--trainings", type=int, default=20)
    asked = parser.parse_args()
    rng, context = np.random.default_rng(1), get_context("fork")
    kills = torn = same = half_written = 0
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as place:
        whole = Path(place) / "whole"
        process = context.Process(target=work, args=(str(whole),))
        process.start()
        process.join()
        expected = (whole / "weights.safetensors").read_bytes()
        for number in range(asked.trainings):
            folder, mine = Path(place) / str(number), 0
            while not (folder / "model.json").exists() or (folder / "resume.safetensors").exists():
                process = context.Process(target=work, args=(str(folder),))
                process.start()
                if mine < asked.kills // asked.trainings:
                    wait_for_moment(process, folder, rng)
                    if process.is_alive() and process.pid:
                        os.kill(process.pid, signal.SIGKILL)
                        kills, mine = kills + 1, mine + 1
                        process.join()
                        half_written += any(folder.glob(".*.part"))
                        torn += torn_files(folder)
                process.join()
            same += (folder / "weights.safetensors").read_bytes() == expected
            print(f"training {number}: {kills} kills so far, {torn} torn, {same} the same", flush=True)
    print(f"{kills} kills ({half_written} in mid-write), {torn} torn files; {same} of {asked.trainings} trainings "
          f"end in the same bytes ({time.perf_counter() - began:.0f} s)")


if __name__ == "__main__":
    main()
