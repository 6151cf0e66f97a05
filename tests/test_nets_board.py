"""TensorBoard sees every epoch once, where it is installed, and changes nothing of the training."""

from __future__ import annotations

import csv
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import ClassVar

import numpy as np
import pytest

from mtdlr.nets.board import board
from mtdlr.study import SingletaskSettings
from mtdlr.train import Case, Progress, train

SETTINGS = SingletaskSettings(width=0.25, epochs=3, batch_size=4)
CASES = [Case(f"P{k}", np.random.default_rng(k).random((2, 32, 32, 32), np.float32), None, 10.0 + k, k % 2 == 0)
         for k in range(12)]


class Writer:
    """Stands in for TensorBoard's writer: remembers what it is told."""

    all: ClassVar[list[Writer]] = []

    def __init__(self, folder: str, purge_step: int) -> None:
        self.folder, self.purge_step, self.closed = Path(folder), purge_step, False
        self.scalars: list[tuple[str, float, int]] = []
        Writer.all.append(self)

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.scalars.append((name, value, step))

    def flush(self) -> None:
        """Nothing is buffered."""

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_: object) -> None:
        self.closed = True


@pytest.fixture
def writers(monkeypatch: pytest.MonkeyPatch) -> list[Writer]:
    """The writers made since TensorBoard was "installed"."""
    package, module = ModuleType("tensorboard"), ModuleType("torch.utils.tensorboard")
    package.__spec__, module.SummaryWriter = ModuleSpec("tensorboard", None), Writer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tensorboard", package)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    monkeypatch.setattr(Writer, "all", [])
    return Writer.all


@pytest.mark.slow
def test_every_number_of_the_log_is_a_scalar(writers: list[Writer], tmp_path: Path) -> None:
    """Each cell of log.csv, by name and epoch, and a writer that is closed."""
    train(CASES, "csn-only", SETTINGS, tmp_path, seed=0)
    rows = list(csv.DictReader((tmp_path / "log.csv").read_text().splitlines()))
    (writer,) = writers
    assert writer.folder == tmp_path / "tensorboard" and writer.purge_step == 0 and writer.closed
    assert set(writer.scalars) == {(name, float(row[name]), k) for k, row in enumerate(rows)
                                   for name in row if name != "epoch"}


@pytest.mark.slow
def test_a_resumed_training_shows_no_epoch_twice(writers: list[Writer], tmp_path: Path) -> None:
    """What goes on after a stop hides everything from its first epoch on, and ends in the same weights."""
    class Stop(BaseException):
        pass

    def stop(progress: Progress) -> None:
        if progress.epoch == 1 and progress.step == 1:
            raise Stop

    with pytest.raises(Stop):
        train(CASES, "csn-only", SETTINGS, tmp_path / "broken", seed=0, report=stop)
    broken = train(CASES, "csn-only", SETTINGS, tmp_path / "broken", seed=0)
    whole = train(CASES, "csn-only", SETTINGS, tmp_path / "whole", seed=0)
    first, second, _ = writers
    assert first.closed and {step for *_, step in first.scalars} == {0}
    assert second.purge_step == 1 and {step for *_, step in second.scalars} == {1, 2}
    assert broken.digest == whole.digest


def test_without_tensorboard_nothing_is_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No package: no folder, no error."""
    monkeypatch.setattr("mtdlr.nets.board.find_spec", lambda name: None)
    with board(tmp_path / "tensorboard") as record:
        record({"epoch": 0.0, "dice_loss": 1.0})
    assert not list(tmp_path.iterdir())


def test_only_the_first_process_writes(writers: list[Writer], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of two processes that train together, the second records nothing."""
    monkeypatch.setattr("mtdlr.nets.board.rank_and_world", lambda: (1, 2))
    with board(tmp_path) as record:
        record({"epoch": 0.0})
    assert writers == []
