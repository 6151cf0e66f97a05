"""Workers: every job gets its outcome, in order, whatever happens to the others."""

import errno
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from mtdlr.errors import MtdlrError, Problem, ScanError
from mtdlr.workers import Workers, run_jobs, values_of


def _square(x: int) -> int:
    if x == 3:
        raise ScanError(Problem("E-EMPTY", "no scan", where="patient 3"))
    if x == 4:
        raise ZeroDivisionError("a bug")
    return x * x


def _die_on_two(x: int) -> int:
    if x == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return x


def test_here_and_in_processes_agree() -> None:
    """One worker and two give the same outcomes, in the order of the jobs, and failures do not stop the others."""
    told: list[tuple[str, int, int]] = []
    here = run_jobs(_square, range(6), Workers(progress=lambda *t: told.append(t)), label="squares")
    there = run_jobs(_square, range(6), Workers(2), label="squares")
    assert here == there
    assert [o.value for o in here] == [0, 1, 4, None, None, 25]
    assert [o.problems[0].code for o in here if not o.ok] == ["E-EMPTY", "E-INTERNAL"]
    assert told[-1] == ("squares", 6, 6)


@pytest.mark.slow  # processes that start and die
def test_a_killed_worker_costs_its_own_job(tmp_path: Path) -> None:
    """FAULTS 13: the job that kills its worker is reported; every other job is done, and progress goes on."""
    told: list[tuple[str, float, int]] = []
    outcomes = run_jobs(_die_on_two, range(8), Workers(2, progress=lambda *t: told.append(t)), label="jobs")
    assert [o.value for o in outcomes] == [0, 1, None, 3, 4, 5, 6, 7]
    assert outcomes[2].problems[0].code == "E-WORKERDIED" and outcomes[2].machine_failed
    assert [done for _, done, _ in told] == list(range(9))


def _die_once(folder: str) -> int:
    """Kills its process the first time; leaves the id of each process that it ran in."""
    first = not list(Path(folder).iterdir())
    (Path(folder) / str(os.getpid())).touch()
    if first:
        os.kill(os.getpid(), signal.SIGKILL)
    return 1


def _count(folder: str) -> int:
    (Path(folder) / f"{os.getpid()}-{time.monotonic_ns()}").touch()
    return 1


def _one_dies(job: tuple[str, bool]) -> int:
    return (_die_once if job[1] else _count)(job[0])


@pytest.mark.slow  # processes that start and die
def test_after_a_death_the_rest_shares_new_processes(tmp_path: Path) -> None:
    """A worker that dies once costs a new pool, not a process for every job left: what ran runs again alone."""
    (tmp_path / "dies").mkdir()
    (tmp_path / "rest").mkdir()
    rest = (str(tmp_path / "rest"), False)
    jobs = [rest] * 5 + [(str(tmp_path / "dies"), True)] + [rest] * 14
    assert [o.value for o in run_jobs(_one_dies, jobs, Workers(2), label="jobs")] == [1] * 20
    assert len(list((tmp_path / "dies").iterdir())) == 2, "it ran once more, elsewhere"
    processes = {name.name.partition("-")[0] for name in (tmp_path / "rest").iterdir()}
    assert len(processes) <= 5, "two pools of two, and one alone"


def _fails(job: tuple[str, str]) -> int:
    """Fails as the machine does the first time, or always."""
    marks = list(Path(job[0]).iterdir())
    (Path(job[0]) / str(len(marks))).touch()
    if job[1] == "memory":
        raise MemoryError
    if not marks:
        raise OSError(errno.EIO, "Input/output error")
    return len(marks)


@pytest.mark.parametrize("count", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_machines_failure_is_tried_once_more(tmp_path: Path, count: int) -> None:
    """No memory, or a disk error, under a job: it runs once more; a second time it is reported as the machine's."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    work = [(str(tmp_path / "a"), "disk"), (str(tmp_path / "b"), "memory")]
    outcomes = run_jobs(_fails, work, Workers(count), label="")
    assert outcomes[0].value == 1
    assert outcomes[1].problems[0].code == "E-MEMORY" and outcomes[1].machine_failed
    assert len(list((tmp_path / "b").iterdir())) == 2


FAULTS = {
    "torch": RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory"),
    "card": RuntimeError("CUDA error: out of memory"), "full": OSError(errno.ENOSPC, "No space left on device"),
    "array": OSError("4096 requested and 0 written"), "read-only": OSError(errno.EROFS, "Read-only file system"),
    "python": SystemError("AST constructor recursion depth mismatch (before=72, after=105)")}
TRIED: list[str] = []


def _faulty(fault: str) -> None:
    TRIED.append(fault)
    raise FAULTS[fault]


@pytest.mark.parametrize(("fault", "code"), [
    ("torch", "E-MEMORY"), ("card", "E-MEMORY"), ("full", "E-DISKFULL"), ("array", "E-DISKFULL"),
    ("read-only", "E-READONLY"), ("python", "E-WORKERDIED")])
def test_what_a_library_says_of_memory_and_disk_is_the_machines(fault: str, code: str) -> None:
    """Memory that a library of C++ did not get, a disk that is full or read-only, and an interpreter that lost count
    are no bug of ours and no fault of the patient: the job is tried once more."""
    TRIED.clear()
    outcome = run_jobs(_faulty, [fault], Workers(), label="")[0]
    assert [problem.code for problem in outcome.problems] == [code] and outcome.machine_failed and len(TRIED) == 2


def test_a_bug_is_reported_without_its_text() -> None:
    """E-INTERNAL names the error's kind and place; its text, which may hold a patient's name, is not told."""
    problem = run_jobs(_square, [4], Workers(), label="")[0].problems[0]
    assert "ZeroDivisionError in test_workers.py" in problem.what and "a bug" not in str(problem)


class _Loses(ThreadPoolExecutor):
    """Loses the worker of the jobs given, so often, as a cluster does."""

    def __init__(self, losses: int) -> None:
        super().__init__(2)
        self.left, self.handed_in = losses, 0

    def submit(self, function, /, *arguments, **more):  # type: ignore[no-untyped-def]
        self.handed_in += 1
        if arguments[1] == 2 and self.left:
            self.left -= 1
            future: Future = Future()
            future.set_exception(RuntimeError("KilledWorker"))
            return future
        return super().submit(function, *arguments, **more)


@pytest.mark.parametrize(("losses", "value"), [(1, 4), (2, None)])
def test_a_worker_that_an_executor_lost(losses: int, value: int | None) -> None:
    """On any executor a lost worker's job is handed in once more; lost again, it is reported, the others are done."""
    with _Loses(losses) as executor:
        outcomes = run_jobs(_square, [0, 1, 2], Workers(executor=executor), label="squares")
    assert [o.value for o in outcomes] == [0, 1, value] and executor.handed_in == 4
    assert value or outcomes[2].problems[0].code == "E-WORKERDIED"


class _Interrupted(ThreadPoolExecutor):
    """Is stopped by SIGTERM while it takes its first job."""

    def __init__(self, events: list[str]) -> None:
        super().__init__(1)
        self.events = events

    def submit(self, *arguments: Any, **named: Any) -> Future[Any]:
        """Take a job."""
        if not self.events:
            self.events.append("starts")
            signal.raise_signal(signal.SIGTERM)
            self.events.append("started")
        return super().submit(*arguments, **named)


def test_a_stop_waits_until_a_starting_process_is_known(request: pytest.FixtureRequest) -> None:
    """SIGTERM while a worker starts is answered when it has started, so that the stop ends it too and no traceback of
    an orphan follows."""
    events: list[str] = []
    before = signal.signal(signal.SIGTERM, lambda *_: events.append("stopped"))
    request.addfinalizer(lambda: signal.signal(signal.SIGTERM, before))
    with _Interrupted(events) as executor:
        run_jobs(_square, [1], Workers(executor=executor), label="squares")
    assert events == ["starts", "started", "stopped"]


def test_an_executor_that_is_shut_down_is_one_line() -> None:
    """An executor that takes no jobs is E-EXECUTOR, not a traceback."""
    with ThreadPoolExecutor(1) as executor:
        pass
    with pytest.raises(MtdlrError, match="E-EXECUTOR"):
        run_jobs(_square, [1], Workers(executor=executor), label="")


def test_values_of_raises_the_first_failure() -> None:
    """Where every job must succeed, the first failure is raised with its problems."""
    assert values_of(run_jobs(_square, [1, 2], Workers(), label="")) == [1, 4]
    with pytest.raises(MtdlrError, match="E-EMPTY patient 3"):
        values_of(run_jobs(_square, [1, 3], Workers(), label=""))


@pytest.mark.slow
def test_a_script_without_a_main_guard_runs_once(tmp_path: Path) -> None:
    """Workers start from a plain script, and its lines are not run again in them."""
    script = tmp_path / "script.py"
    script.write_text("import math\nfrom mtdlr.workers import Workers, run_jobs\nprint('began')\n"
                      "found = run_jobs(math.sqrt, [4.0, 9.0, 16.0], Workers(2), label='roots')\n"
                      "print([one.value for one in found], __file__ == __import__('sys').argv[0])\n")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("began\n[2.0, 3.0, 4.0] True\n", "")
