"""Telling how far the work is: a bar with the time left on a terminal, a line a minute elsewhere, a log file always."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn
from rich.progress import Progress as Bars

from mtdlr.store import duration

EVERY_S = 60.0


@dataclass
class Teller:
    """Told of every finished job; call `close` at the end.

    Args:
        bar: whether to draw a bar instead of printing lines.
        log: the log file, or None.
        stream: where lines and bars go.
        clock: seconds, for tests.
    """

    bar: bool
    log: Path | None = None
    stream: TextIO = field(default_factory=lambda: sys.stderr)
    clock: Callable[[], float] = time.monotonic
    _began: dict[str, tuple[float, float]] = field(default_factory=dict)
    _ended: set[str] = field(default_factory=set)
    _said: float = float("-inf")
    _bars: Bars | None = None
    _tasks: dict[str, TaskID] = field(default_factory=dict)

    def __call__(self, label: str, done: float, total: int) -> None:
        """Take note: `done` of `total` jobs of a stage are finished (a fraction where a job tells how far it is)."""
        now = self.clock()
        began, before = self._began.setdefault(label, (now, done))
        left = seconds_left(now - began, done - before, total - done)
        line = f"{label}: {done:.1f}/{total}" if done % 1 else f"{label}: {done:.0f}/{total}"
        line += f", about {duration(left)} left" if left is not None and done < total else ""
        first, ends = began == now and before == done, done >= total and label not in self._ended
        if self.bar:
            self._draw(label, done, total, "" if left is None else f"about {duration(left)} left")
        if first or ends or now - self._said > EVERY_S:
            self._said = now
            self.note(line)
            if not self.bar:
                print(line, file=self.stream, flush=True)
        if ends:
            self._ended.add(label)

    def note(self, line: str) -> None:
        """Write a line to the log file; a full or read-only disk does not end the work."""
        if self.log is None:
            return
        try:
            self.log.parent.mkdir(parents=True, exist_ok=True)
            with self.log.open("a", encoding="utf-8") as file:
                file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}\n")
        except OSError:
            self.log = None

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._bars is not None:
            self._bars.stop()
            self._bars = None

    def _draw(self, label: str, done: float, total: int, left: str) -> None:
        if self._bars is None:
            self._bars = Bars(TextColumn("{task.description:<16}"), BarColumn(), MofNCompleteColumn(),
                              TextColumn("{task.fields[left]}"), console=Console(file=self.stream),
                              redirect_stdout=False, redirect_stderr=False)
            self._bars.start()
        if label not in self._tasks:
            self._tasks[label] = self._bars.add_task(label, total=total, left=left)
        self._bars.update(self._tasks[label], completed=done, total=total, left="" if done >= total else left)


def seconds_left(seconds: float, done: float, left: float) -> float | None:
    """Seconds until the rest is done at the speed so far; None before anything is, never negative.

    Args:
        seconds: spent so far.
        done: work done so far.
        left: work that remains, in the same unit.

    >>> seconds_left(10.0, 2, 6), seconds_left(10.0, 0, 6), seconds_left(10.0, 3, -1)
    (30.0, None, 0.0)
    """
    return None if done <= 0 else max(seconds / done * left, 0.0)


def teller_of(as_json: bool, folder: Path | None = None) -> Teller:
    """Progress as a bar on a terminal, as lines elsewhere and with --json, and in a log file.

    Args:
        as_json: whether the verb prints JSON.
        folder: run folder in whose `logs` this process writes; None writes no log.
    """
    log = None if folder is None else folder / "logs" / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.log"
    return Teller(sys.stderr.isatty() and not as_json, log)


def summary(work: Any) -> tuple[dict[str, Any], list[str]]:
    """What a run came to, for JSON and in lines: errors, who failed in which stage, and the numbers that matter.

    Args:
        work: a `pipeline.Run`, done so far as was asked.
    """
    failed, problems, report = work.failed, work.problems, work.output / "report.html"
    lines = [str(problem) for problem in problems if problem.is_error]
    lines.append(f"{len(problems) - len(lines)} warnings, {len(failed)} patients left out"
                 + "".join(f"; {i} in {stage}" for i, stage in list(failed.items())[:20]))
    if "report" in vars(work):
        lines += [f"report: {report}", *headline(work.evaluations)]
    return {"folder": str(work.output), "report": str(report), "excluded": sorted(failed), "failed": failed,
            "problems": [p.as_dict() for p in problems]}, lines


def headline(evaluations: Mapping[tuple[str, str], Any]) -> list[str]:
    """The numbers that matter, a line for each cohort: C, calibration slope and observed/expected of MTDLR.

    Args:
        evaluations: by (model, cohort), as `Run.evaluations`.
    """
    lines = []
    for (model, split), found in evaluations.items():
        if model != "mtdlr":
            continue
        line = f"MTDLR, {split}: C {_interval(found.c)}"
        if found.calibration:
            last = found.calibration[max(found.calibration)]
            line += f"; at {last.month:g} months slope {_interval(last.slope)}, O/E {_interval(last.oe)}"
        lines.append(line)
    return lines


def _interval(estimate: Any) -> str:
    """`0.71 (0.65-0.77)`."""
    return f"{estimate.value:.2f} ({estimate.low:.2f}-{estimate.high:.2f})"
