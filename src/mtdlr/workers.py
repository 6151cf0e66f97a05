"""Where work runs: in this process, in local processes, or on any `concurrent.futures.Executor` (a Dask cluster's too).

A job is a module-level function and one argument. One that fails is reported and the others go on; a worker process
that dies (out of memory, say) costs its own job only.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from mtdlr.errors import MtdlrError, Problem

log = logging.getLogger(__name__)
Job = TypeVar("Job")
Result = TypeVar("Result")
Progress = Callable[[str, int, int], None]
"""Told (what, done, of how many) as jobs finish."""


@dataclass(frozen=True)
class Outcome(Generic[Result]):
    """What became of one job: its value, or the problems that stopped it."""

    value: Result | None
    problems: tuple[Problem, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether there is a value."""
        return not self.problems


@dataclass(frozen=True)
class Workers:
    """How many processes, how many threads each, who is told of progress; an executor takes the processes' place."""

    count: int = 1
    threads: int = 1
    progress: Progress | None = None
    executor: Executor | None = None


def run_jobs(
    function: Callable[[Job], Result], jobs: Sequence[Job], workers: Workers, *, label: str
) -> list[Outcome[Result]]:
    """The outcome of `function(job)` for every job, in the order of the jobs, however they ran."""
    if workers.executor:
        outcomes = _run_on(workers.executor, function, jobs, workers, label)
    elif workers.count == 1 or len(jobs) < 2:
        return _run_here(function, jobs, workers, label)
    else:
        outcomes = _run_in_processes(function, jobs, workers, label)
    # A dead worker breaks the whole pool: what it took along runs again, each job in a process of its own.
    return [_run_alone(function, job, workers) if outcome is None else outcome
            for job, outcome in zip(jobs, outcomes, strict=True)]


def _run_in_processes(
    function: Callable[[Job], Result], jobs: Sequence[Job], workers: Workers, label: str
) -> list[Outcome[Result] | None]:
    """As `_run_on`, in local processes, which an interrupt ends at once: what they store is whole or absent."""
    with _pool(min(workers.count, len(jobs)), workers.threads) as pool:
        try:
            return _run_on(pool, function, jobs, workers, label)
        except BaseException:
            for process in multiprocessing.active_children():
                process.kill()
            raise


def _run_here(
    function: Callable[[Job], Result], jobs: Sequence[Job], workers: Workers, label: str
) -> list[Outcome[Result]]:
    outcomes = []
    for job in jobs:
        outcomes.append(_attempt(function, job))
        _tell(workers, label, len(outcomes), len(jobs))
    return outcomes


def _run_on(
    executor: Executor, function: Callable[[Job], Result], jobs: Sequence[Job], workers: Workers, label: str
) -> list[Outcome[Result] | None]:
    """Outcomes in order; None where the worker died under the job."""
    outcomes: list[Outcome[Result] | None] = [None] * len(jobs)
    places: dict[Future[Outcome[Result]], int] = {}
    try:
        with _script_left_out():
            for place, job in enumerate(jobs):
                places[executor.submit(_attempt, function, job)] = place
        for done, future in enumerate(as_completed(places), start=1):
            outcomes[places[future]] = future.result()
            _tell(workers, label, done, len(jobs))
    except BrokenProcessPool:
        for future, place in places.items():
            if future.done() and future.exception() is None:
                outcomes[place] = future.result()
    return outcomes


def _run_alone(function: Callable[[Job], Result], job: Job, workers: Workers) -> Outcome[Result]:
    """One job in a process of its own; if that dies too, the job is what kills it."""
    with _pool(1, workers.threads) as pool:
        try:
            with _script_left_out():
                future = pool.submit(_attempt, function, job)
            return future.result()
        except BrokenProcessPool:
            return Outcome(None, (Problem("E-WORKERDIED", "the worker process was killed while doing this job",
                                          remedy="Most often memory ran out: fewer run.workers, or a smaller grid"),))


def _attempt(function: Callable[[Job], Result], job: Job) -> Outcome[Result]:
    """The outcome of one job; an error of ours is reported as such and does not stop the others."""
    try:
        return Outcome(function(job))
    except MtdlrError as error:
        return Outcome(None, error.problems)
    except Exception as error:
        log.debug("job failed", exc_info=True)
        last = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{os.path.basename(last.filename)}:{last.lineno}"
        return Outcome(None, (Problem("E-INTERNAL", f"{type(error).__name__} in {place}", found=str(error)[:200],
                                      remedy="This is our bug: please report it with `mtdlr doctor`"),))


def _pool(count: int, threads: int) -> ProcessPoolExecutor:
    # Spawned, not forked: a fork would copy the locks of torch's and numba's thread pools.
    return ProcessPoolExecutor(count, multiprocessing.get_context("spawn"), _start_worker, (threads, os.getpid()))


@contextmanager
def _script_left_out() -> Iterator[None]:
    """Processes started here (a job that is handed in starts one) do not run the user's script again, which a script
    without a main guard would not survive; jobs live in modules."""
    main = vars(sys.modules["__main__"])
    kept: dict[str, object] = {name: main[name] for name in ("__spec__", "__file__") if name in main}
    try:
        main.update(dict.fromkeys(kept))
        yield
    finally:
        main.update(kept)


def _start_worker(threads: int, parent: int) -> None:
    """Tell every numerical library how many threads it may start, and end when the parent does, however it ends."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS",
                 "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"):
        os.environ[name] = str(threads)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    """An orphan must not go on writing where the next run resumes."""
    while os.getppid() == parent:
        time.sleep(0.2)
    os._exit(1)


def _tell(workers: Workers, label: str, done: int, total: int) -> None:
    if workers.progress:
        workers.progress(label, done, total)


def values_of(outcomes: Sequence[Outcome[Any]]) -> list[Any]:
    """Every value; raises what stopped the first job that failed, for stages where all must succeed."""
    for outcome in outcomes:
        if not outcome.ok:
            raise MtdlrError(outcome.problems)
    return [outcome.value for outcome in outcomes]
