"""The course of a training: as CSV, and for TensorBoard where that is installed."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mtdlr.nets.step import rank_and_world

Row = Mapping[str, float]


@contextmanager
def board(folder: Path) -> Iterator[Callable[[Row], None]]:
    """What writes an epoch's row of the log as scalars into `folder`; without TensorBoard, and in every process but the
    first, it does nothing.

    A training that goes on adds a file there, which hides what an interrupted one wrote of the same epochs.
    """
    if rank_and_world()[0] > 0 or find_spec("tensorboard") is None:
        yield lambda row: None
        return
    writers: list[Any] = []

    def record(row: Row) -> None:
        if not writers:
            module = import_module("torch.utils.tensorboard")
            writers.append(held.enter_context(module.SummaryWriter(str(folder), purge_step=int(row["epoch"]))))
        for name in row.keys() - {"epoch"}:
            writers[0].add_scalar(name, row[name], int(row["epoch"]))
        writers[0].flush()

    with ExitStack() as held:
        yield record


def log_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """The course of a training as CSV: one row an epoch; a header alone where no epoch was trained."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else ["epoch"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
