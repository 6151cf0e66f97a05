"""Two processes that share each batch learn what one process learns."""

from __future__ import annotations

import csv
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import os, sys; sys.path[:0] = {path!r}
import torch.distributed as dist
from pathlib import Path
from test_train import CASES, TINY
from mtdlr.train import train
port, folder = sys.argv[1], Path(sys.argv[2])
def training(rank, world):
    if world > 1:
        dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{{port}}", rank=rank, world_size=world)
    settings = TINY.model_copy(update={{"accumulate": 2, "epochs": 2}})
    train(CASES[:8], "deepmts", settings, folder / str(world), seed=0)
    if world > 1:
        dist.destroy_process_group()
started = []
for rank, world in ((0, 1), (0, 2), (1, 2)):  # processes of their own; what all import is imported once
    started.append(os.fork())
    if not started[-1]:
        try:
            training(rank, world)
            os._exit(0)
        finally:
            os._exit(1)
assert [os.waitpid(pid, 0)[1] for pid in started] == [0] * len(started)
"""


@pytest.mark.slow
def test_two_processes_give_the_loss_curve_of_one(tmp_path: Path):
    """A batch cut into two pieces gives the same losses whether one process takes both or two take one each."""
    paths = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "src")]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    subprocess.run([sys.executable, "-c", SCRIPT.format(path=paths), port, str(tmp_path)],
                   env=os.environ | {"OMP_NUM_THREADS": "1"}, check=True, timeout=300)
    one, two = (list(csv.DictReader((tmp_path / world / "log.csv").read_text().splitlines())) for world in "12")
    assert len(one) == 2
    for a, b in zip(one, two, strict=True):
        for loss in ("dice_loss", "survival_loss"):
            assert float(a[loss]) == pytest.approx(float(b[loss]), rel=2e-3, abs=1e-4), loss
