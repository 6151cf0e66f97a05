"""The greatest value and the mean of a cube around each voxel: PyTorch's pooling against ours, and what a score costs.

    OMP_NUM_THREADS=1 python bench/bench_windows.py [--run RUN] [--patients 6]

Milliseconds of CPU of one thread, in turns. With the folder of a finished run, such as demo/runs/study, its patients
are scored by all networks of its model with either way, patient by patient in turns.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from mtdlr.infer import score_patient
from mtdlr.nets.regions import dilated
from mtdlr.nets.surroundings import mean_around
from mtdlr.predict import Bundle
from mtdlr.prepared import Prepared

CALLS = 20
GRIDS = ((32, 2), (32, 4), (48, 4), (128, 4), (128, 12))  # voxels along an axis, reach of the cube


def pooled(pool: Callable[..., Tensor]) -> Callable[[Tensor, int], Tensor]:
    """A window by PyTorch's pooling, one axis at a time."""
    def window(x: Tensor, voxels: int) -> Tensor:
        for axis in range(3):
            reach = [voxels if axis == k else 0 for k in range(3)]
            x = pool(x, [2 * r + 1 for r in reach], 1, reach)
        return x
    return window


GREATEST, MEAN = pooled(functional.max_pool3d), pooled(functional.avg_pool3d)


def cpu_ms(function: Callable[[], object], calls: int = CALLS) -> float:
    """CPU milliseconds of one call."""
    function()
    began = time.process_time()
    for _ in range(calls):
        function()
    return (time.process_time() - began) / calls * 1000.0


def windows() -> None:
    """The table of grids."""
    print("| grid, reach | greatest: pooling, ours | mean: pooling, ours | same bits |\n|---|---|---|---|")
    for size, reach in GRIDS:
        x = torch.rand(1, 1, size, size, size)
        times = [cpu_ms(lambda f=f, x=x, r=reach: f(x, r)) for f in (GREATEST, dilated, MEAN, mean_around)]
        same = torch.equal(GREATEST(x, reach), dilated(x, reach)) and torch.equal(MEAN(x, reach), mean_around(x, reach))
        print(f"| {size}^3, {reach} | {times[0]:.2f}, {times[1]:.2f} ms | {times[2]:.2f}, {times[3]:.2f} ms | {same} |")


def scores(run: Path, patients: int) -> None:
    """CPU seconds of scoring a patient by all networks, with pooling and with ours."""
    model, found = Bundle.load(run / "bundle"), []
    settings = model.frozen.study.score
    for folder in sorted((run / "objects" / "prepare").iterdir())[: patients + 1]:
        patient = Prepared.load(folder)
        def once(patient: Prepared = patient) -> object:
            return score_patient(patient, model.networks, None, settings)
        with ExitStack() as stack:
            for module in ("embedding", "surroundings"):
                stack.enter_context(patch(f"mtdlr.nets.{module}.dilated", GREATEST))
                stack.enter_context(patch(f"mtdlr.nets.{module}.mean_around", MEAN))
            before = cpu_ms(once, 1)
        found.append((before, cpu_ms(once, 1)))
    times = np.array(found[1:]) / 1000.0  # the first patient also loads
    print(f"scoring, CPU s, median of {len(times)} patients: pooling {np.median(times[:, 0]):.2f}, ours "
          f"{np.median(times[:, 1]):.2f}; ratio {np.median(times[:, 0] / times[:, 1]):.2f}")


def main() -> None:
    """Print what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path)
    parser.add_argument("--patients", type=int, default=6)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with torch.inference_mode():
        windows()
    if options.run:
        scores(options.run, options.patients)


if __name__ == "__main__":
    main()
