"""The process that predicts: copies of it do the jobs, and what becomes of them when something is stopped or killed."""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("python_multipart")

import serve_fake

from mtdlr.serve.jobs import Job
from mtdlr.serve.queue import Queue

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the process is copied on Linux alone")


@pytest.fixture
def queue(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Queue]:
    """A queue with a worker, which copies itself unless the test says otherwise."""
    made = Queue(tmp_path, getattr(request, "param", serve_fake.load))
    made.start()
    yield made
    made.close(keep=False)


def _sent(queue: Queue, stage: str) -> Job:
    """A job that waits for its turn."""
    job = queue.open_job()
    queue.accept(Job(job.id, created=job.created, clinical={"stage": stage}))
    return queue.job(job.id)


def _done_by(queue: Queue, stage: str) -> int:
    """The process that did a job."""
    job = queue.wait(_sent(queue, stage).id, 60.0)
    return int(json.loads((queue.folder / job.id / "result" / "prediction.json").read_text())["process"])


def _worker(queue: Queue) -> int:
    """The process that has the model."""
    assert queue._worker is not None
    return int(queue._worker.process.pid or 0)


def _copy_at_work(queue: Queue) -> int:
    """The process that does the job that runs."""
    while not (found := Path(f"/proc/{_worker(queue)}/task/{_worker(queue)}/children").read_text().split()):
        threading.Event().wait(0.01)
    return int(found[0])


def _private_mb(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith("Anonymous"))


def test_the_memory_of_a_prediction_goes_back_to_the_system(queue: Queue) -> None:
    """Two predictions that fill 64 MB each leave the process with the model as small as before."""
    before = _private_mb(_worker(queue))
    first, second = _done_by(queue, "fill"), _done_by(queue, "fill")
    assert len({first, second, _worker(queue)}) == 3
    assert _private_mb(_worker(queue)) < before + 16


@pytest.mark.parametrize("queue", [serve_fake.load_libraries], indirect=True)
def test_a_worker_that_waits_holds_no_page_of_a_library(queue: Queue) -> None:
    """Pages that only loading needed are let go; they are read again on demand, and what was written to them stays."""
    _, *maps = Path(f"/proc/{_worker(queue)}/smaps").read_text().split("serve_fake.py\n")
    resident = sorted(int(one.partition("Rss:")[2].split()[0]) for one in maps)
    assert len(resident) == 2 and resident[0] == 0 < resident[1]
    job = queue.wait(_sent(queue, "III").id, 60.0)
    found = json.loads((queue.folder / job.id / "result" / "prediction.json").read_text())
    assert found["mapped"] == [Path(serve_fake.__file__).read_text()[:7], "written"]


def test_a_cancelled_prediction_does_not_cost_the_model(queue: Queue) -> None:
    """After a cancel its copy has ended, and the same worker does the next job: no network is loaded again."""
    worker, job = _worker(queue), _sent(queue, "hold")
    copy = os.pidfd_open(_copy_at_work(queue))
    queue.cancel(job.id)
    assert select.select([copy], [], [], 0.0)[0], "the copy still works"
    assert not list((queue.folder / job.id).glob("[!j]*")), "the scan, or half a result, is left"
    _done_by(queue, "III")
    assert _worker(queue) == worker
    os.close(copy)


@pytest.mark.slow
def test_a_copy_does_not_outlive_the_process_with_the_model(queue: Queue) -> None:
    """The worker is killed, as a system without memory does: its copy ends with it, and another worker does the job."""
    job = _sent(queue, "hold")
    copy, worker = os.pidfd_open(_copy_at_work(queue)), _worker(queue)
    os.kill(worker, signal.SIGKILL)
    assert select.select([copy], [], [], 60.0)[0]
    os.close(copy)
    (queue.folder / "go").touch()
    assert queue.wait(job.id, 60.0).state == "done" and queue.job(job.id).attempts == 2
    assert _worker(queue) != worker


@pytest.mark.slow
@pytest.mark.parametrize("queue", [serve_fake.load_whole], indirect=True)
def test_a_worker_that_cannot_be_copied_does_the_same(queue: Queue) -> None:
    """Where a card holds the networks the worker predicts by itself: cancel, death and the next job end alike."""
    worker, job = _worker(queue), _sent(queue, "hold")
    while queue.job(job.id).state != "running":
        threading.Event().wait(0.01)
    assert queue.cancel(job.id).state == "cancelled"
    died = queue.wait(_sent(queue, "die").id, 60.0)
    assert died.problems[0].code == "E-WORKERDIED" and died.attempts == 2
    assert _done_by(queue, "III") == _worker(queue) != worker
