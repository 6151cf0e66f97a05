"""Where work runs: in this process, in local processes, or on any `concurrent.futures.Executor` (a Dask cluster's too).

A job is a module-level function and one argument. One that fails is reported and the others go on. A job whose worker
dies, or whose machine fails under it (no memory, a disk error), runs once more, alone; after that it is reported.
"""

from __future__ import annotations

import errno
import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from mtdlr.errors import MtdlrError, Problem
from mtdlr.store import disk_problem

log = logging.getLogger(__name__)
Job = TypeVar("Job")
Result = TypeVar("Result")
Progress = Callable[[str, float, int], None]
"""Told (what, done, of how many) as jobs finish; done may be a fraction where a job tells how far it is."""
MACHINE = ("E-WORKERDIED", "E-MEMORY", "E-IO", "E-DISKFULL", "E-READONLY", "E-CORRUPT")
"""Codes of failures that are the machine's, not the job's own."""
LOOK_S = 1.0


@dataclass(frozen=True)
class Outcome(Generic[Result]):
    """What became of one job: its value, or the problems that stopped it."""

    value: Result | None
    problems: tuple[Problem, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether there is a value."""
        return not self.problems

    @property
    def machine_failed(self) -> bool:
        """Whether it was stopped by the machine: a killed worker, no memory, a disk error."""
        return any(problem.code in MACHINE for problem in self.problems)


@dataclass(frozen=True)
class Workers:
    """Where jobs run and who is told.

    Args:
        count: processes side by side.
        threads: threads of each process.
        progress: told as jobs finish.
        executor: takes the processes' place.
        look: called about once a second while jobs run elsewhere, to see how far they are; returns the jobs that the
            parts done so far add up to.
    """

    count: int = 1
    threads: int = 1
    progress: Progress | None = None
    executor: Executor | None = None
    look: Callable[[], float] | None = None


def run_jobs(
    function: Callable[[Job], Result], jobs: Sequence[Job], workers: Workers, *, label: str
) -> list[Outcome[Result]]:
    """The outcome of `function(job)` for every job, in the order of the jobs, wherever they ran.

    Args:
        function: module-level function of one argument.
        jobs: its arguments, each sendable to another process.
        workers: how many processes, or which executor.
        label: name of the work in the progress bar.

    Returns:
        A value or problems for each job; nothing is raised for a job that fails.
    """
    if not jobs:
        return []
    board = _Board(function, jobs, workers, label)
    if workers.executor:
        _run_on(workers.executor, board, list(range(len(jobs))), len(jobs))
        again = [place for place in range(len(jobs)) if board.machine_failed(place)]
        if again:
            _run_on(workers.executor, board, again, len(again))
    elif workers.count == 1 or len(jobs) < 2:
        board.run_here()
    else:
        _run_in_processes(board, min(workers.count, len(jobs)))
    return [outcome or _DIED for outcome in board.outcomes]


class _Board:
    """Which jobs there are and what became of each: None where its worker died under it."""

    def __init__(self, function: Callable[[Any], Any], jobs: Sequence[Any], workers: Workers, label: str) -> None:
        self.function, self.jobs, self.workers, self.label = function, jobs, workers, label
        self.outcomes: list[Outcome[Any] | None] = [None] * len(jobs)
        self.finished: set[int] = set()
        self.tell(0.0)

    def run_here(self) -> None:
        """Every job, one after the other, in this process; a machine's failure once more."""
        with _looking(self):
            for place, job in enumerate(self.jobs):
                outcome = _attempt(self.function, job)
                self.settle(place, _attempt(self.function, job) if outcome.machine_failed else outcome)

    def settle(self, place: int, outcome: Outcome[Any] | None) -> None:
        """Keep an outcome and tell of it."""
        self.outcomes[place] = outcome
        if outcome is not None:
            self.finished.add(place)
            self.tell(0.0)

    def tell(self, parts: float) -> None:
        """Tell how much is done, with the parts of the jobs under way."""
        if self.workers.progress:
            self.workers.progress(self.label, min(len(self.finished) + parts, len(self.jobs)) if parts else
                                  len(self.finished), len(self.jobs))

    def look(self) -> None:
        """See how far the jobs under way are."""
        if self.workers.look and self.workers.progress:
            self.tell(self.workers.look())

    def machine_failed(self, place: int) -> bool:
        """Whether a job ended because its worker died or its machine failed."""
        outcome = self.outcomes[place]
        return outcome is None or outcome.machine_failed


@contextmanager
def _looking(board: _Board) -> Iterator[None]:
    """While this process itself works, look from a thread how far the job is."""
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(LOOK_S):
            board.look()

    thread = threading.Thread(target=look, daemon=True)
    if board.workers.look:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        if board.workers.look:
            thread.join()


def _run_in_processes(board: _Board, count: int) -> None:
    """Every job in local processes, which an interrupt ends at once: what they store is whole or absent.

    A dead worker breaks its whole pool. What ran then runs again alone, each in a process of its own; the others go on
    in a new pool.
    """
    todo = list(range(len(board.jobs)))
    while todo:
        with _pool(min(count, len(todo)), board.workers.threads) as pool:
            try:
                lost = _run_on(pool, board, todo, count)
            except BaseException:
                for process in multiprocessing.active_children():
                    process.kill()
                raise
        for place in dict.fromkeys([*lost, *(k for k in todo if k in board.finished and board.machine_failed(k))]):
            with _pool(1, board.workers.threads) as alone:
                _run_on(alone, board, [place], 1)
                if board.outcomes[place] is None:
                    board.settle(place, _DIED)
        todo = [k for k in todo if k not in board.finished]


def _run_on(executor: Executor, board: _Board, places: Sequence[int], at_once: int) -> list[int]:
    """Settle the given jobs, so many handed in at a time; the places of those that ran when the pool broke."""
    waiting, running = list(reversed(places)), dict[Future[Outcome[Any]], int]()
    while waiting or running:
        try:
            with _stops_deferred(), _without_main_script():
                while waiting and len(running) < at_once:
                    future = executor.submit(_attempt, board.function, board.jobs[waiting[-1]])
                    running[future] = waiting.pop()
        except BrokenProcessPool:
            return _collect(running, board)
        except Exception as error:
            raise MtdlrError(Problem("E-EXECUTOR", "the executor takes no jobs", found=type(error).__name__,
                                     remedy="Is the cluster still there? Run again: what is done is kept")) from error
        done, _ = wait(running, timeout=LOOK_S, return_when=FIRST_COMPLETED)
        board.look()
        if any(isinstance(future.exception(), BrokenProcessPool) for future in done if not future.cancelled()):
            return _collect(running, board)
        for future in done:
            board.settle(running.pop(future), _outcome_of(future))
    return []


@contextmanager
def _stops_deferred() -> Iterator[None]:
    """Ctrl-C and SIGTERM wait until a process that starts is among those that a stop ends.

    A stop in between would leave it alone, and it would print a traceback when its parent is gone.
    """
    caught: list[int] = []
    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():  # others cannot set handlers, nor do signals stop them
        before = {number: signal.signal(number, lambda got, _: caught.append(got))
                  for number in (signal.SIGINT, signal.SIGTERM) if callable(signal.getsignal(number))}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if caught:
            signal.raise_signal(caught[0])


def _collect(running: dict[Future[Outcome[Any]], int], board: _Board) -> list[int]:
    """Settle what ended before a pool broke; the places of the rest."""
    lost = []
    for future, place in running.items():
        if future.done() and not future.cancelled() and future.exception() is None:
            board.settle(place, future.result())
        else:
            lost.append(place)
    return lost


def _outcome_of(future: Future[Outcome[Any]]) -> Outcome[Any] | None:
    """What a finished future holds; None when the executor lost the job's worker."""
    if future.cancelled() or future.exception() is not None:
        log.debug("a worker was lost", exc_info=None if future.cancelled() else future.exception())
        return None
    return future.result()


def _attempt(function: Callable[[Job], Result], job: Job) -> Outcome[Result]:
    """The outcome of one job. An error's text may hold file names, so only its kind and place in our code are kept."""
    try:
        return Outcome(function(job))
    except MtdlrError as error:
        return Outcome(None, error.problems)
    except MemoryError:
        return _NO_MEMORY
    except SystemError:  # the interpreter's own: Python 3.11 loses count where two threads read source code at a time
        log.debug("the interpreter failed", exc_info=True)
        return _NO_PYTHON
    except OSError as error:
        if (lacking := disk_problem(error)) is not None:
            return Outcome(None, (lacking,))
        if error.errno in (errno.EIO, errno.ESTALE if hasattr(errno, "ESTALE") else errno.EIO, errno.ETIMEDOUT):
            return Outcome(None, (Problem("E-IO", "a disk failed under this job", found=error.strerror or "",
                                          remedy="Look at the disk, then run again"),))
        return Outcome(None, (_bug(error),))
    except RuntimeError as error:  # torch and ITK have no class of their own for it
        return _NO_MEMORY if "allocate memory" in str(error) or "out of memory" in str(error) else Outcome(
            None, (_bug(error),))
    except Exception as error:
        return Outcome(None, (_bug(error),))


def _bug(error: Exception) -> Problem:
    log.debug("job failed", exc_info=True)
    last = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{os.path.basename(last.filename)}:{last.lineno}"
    return Problem("E-INTERNAL", f"{type(error).__name__} in {place}",
                   remedy="This is our bug: please report it with `mtdlr doctor`")


_LESS_MEMORY = "Take fewer run.workers, or a smaller grid"
_NO_MEMORY: Outcome[Any] = Outcome(None, (Problem("E-MEMORY", "there was not enough memory for this job",
                                                  remedy=_LESS_MEMORY),))
_NO_PYTHON: Outcome[Any] = Outcome(None, (Problem("E-WORKERDIED", "Python itself failed twice under this job",
                                                  remedy="Run again: what is done is kept"),))
_DIED: Outcome[Any] = Outcome(None, (Problem(
    "E-WORKERDIED", "the worker process was killed twice while doing this job",
    remedy=f"Most often memory ran out. {_LESS_MEMORY}"),))


def _pool(count: int, threads: int) -> ProcessPoolExecutor:
    # Spawned, not forked: a fork would copy the locks of torch's and numba's thread pools.
    return ProcessPoolExecutor(count, multiprocessing.get_context("spawn"), _start_worker, (threads, os.getpid()))


@contextmanager
def _without_main_script() -> Iterator[None]:
    """While submitting, hide `__main__`, so that spawned workers do not import the user's script again: jobs live in
    modules, and a script without a main guard would run twice."""
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


@contextmanager
def beside(work: Callable[[], None]) -> Iterator[None]:
    """A process of its own does `work` while the block runs. It ends with the block, whether it is done or not.

    Args:
        work: module-level function whose result nobody waits for; an error in it stops nothing.
    """
    process = multiprocessing.get_context("spawn").Process(target=_do_beside, args=(work, os.getpid()), daemon=True)
    with _stops_deferred(), _without_main_script():
        process.start()
    try:
        yield
    finally:
        process.kill()
        process.join()


def _do_beside(work: Callable[[], None], parent: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, which ends this process
    _start_worker(1, parent)
    with suppress(Exception):
        work()


@contextmanager
def aside(count: int) -> Iterator[Callable[..., object]]:
    """What the block hands over is done in a process of its own, in order; the block ends when all of it is done.

    Args:
        count: workers of the run; with one, or where that process dies, it is done here and at once.

    Returns:
        A function of a module-level function and its arguments, all sendable to another process.
    """
    if count < 2:
        yield lambda function, *arguments: function(*arguments)
        return
    handed: list[tuple[Future[object], Callable[..., object], tuple[object, ...]]] = []
    with _pool(1, 1) as pool:
        def hand_over(function: Callable[..., object], *arguments: object) -> None:
            try:
                with _stops_deferred(), _without_main_script():
                    handed.append((pool.submit(function, *arguments), function, arguments))
            except BrokenProcessPool:  # it died over what it was given before
                function(*arguments)

        try:
            yield hand_over
            for future, function, arguments in handed:
                try:
                    future.result()
                except BrokenProcessPool:
                    function(*arguments)
        except BaseException:
            for process in multiprocessing.active_children():
                process.kill()
            raise


def values_of(outcomes: Sequence[Outcome[Any]]) -> list[Any]:
    """Every value; raises what stopped the first job that failed, for stages where all must succeed."""
    for outcome in outcomes:
        if not outcome.ok:
            raise MtdlrError(outcome.problems)
    return [outcome.value for outcome in outcomes]
