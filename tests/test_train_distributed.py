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
import sys; sys.path[:0] = {path!r}
import torch.distributed as dist
from pathlib import Path
from test_train import CASES, TINY
from mtdlr.train import train
rank, world, port, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], Path(sys.argv[4])
if world > 1:
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{{port}}", rank=rank, world_size=world)
train(CASES, "deepmts", TINY.model_copy(update={{"accumulate": 2, "epochs": 2}}), folder, seed=0)
if world > 1:
    dist.destroy_process_group()
"""


def _train(folder: Path, world: int) -> list[dict[str, str]]:
    """The log of a training by that many processes."""
    paths = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "src")]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    script = SCRIPT.format(path=paths)
    started = [subprocess.Popen([sys.executable, "-c", script, str(rank), str(world), port, str(folder)],
                                env=os.environ | {"OMP_NUM_THREADS": "1"}) for rank in range(world)]
    assert [process.wait(timeout=300) for process in started] == [0] * world
    return list(csv.DictReader((folder / "log.csv").read_text().splitlines()))


@pytest.mark.slow
def test_two_processes_give_the_loss_curve_of_one(tmp_path: Path):
    """A batch cut into two pieces gives the same losses whether one process takes both or two take one each."""
    one, two = _train(tmp_path / "one", 1), _train(tmp_path / "two", 2)
    for a, b in zip(one, two, strict=True):
        for loss in ("dice_loss", "survival_loss"):
            assert float(a[loss]) == pytest.approx(float(b[loss]), rel=2e-3, abs=1e-4), loss
