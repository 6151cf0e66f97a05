"""The jobs of a server: one at a time goes to the worker, in the order they came."""

from __future__ import annotations

import multiprocessing
import shutil
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from mtdlr.errors import BundleError, Problem
from mtdlr.serve.jobs import MAX_ATTEMPTS, Job, new_job, recovered_jobs, remove_upload, save_job, worker_died
from mtdlr.serve.refusal import Refusal
from mtdlr.serve.worker import Predictor, Ready, work

MAX_OPEN = 10
_KILL_S = 10.0


@dataclass(frozen=True, eq=False)
class _Worker:
    """A process that has its model loaded."""

    process: BaseProcess
    pipe: Connection
    ready: Ready


class Queue:
    """Jobs in a folder, and the one worker that does them.

    Args:
        folder: of the jobs; those of an earlier server are found again.
        load: makes the predictor in the worker; importable by name.
    """

    def __init__(self, folder: Path, load: Callable[[], Predictor]) -> None:
        self.folder = folder
        self._load = load
        self._changed = threading.Condition()
        self._jobs: dict[str, Job] = {}
        self._running: str | None = None
        self._closing = False
        self._worker: _Worker | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> Mapping[str, Any]:
        """Find the jobs of an earlier server, load the model, begin to work; returns the facts of the model.

        Raises:
            BundleError: what loading the model raises.
        """
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._worker = self._started()
        self._jobs = recovered_jobs(self.folder)
        self._thread.start()
        return self._worker.ready.facts

    def jobs(self) -> list[Job]:
        """Every job, newest first."""
        with self._changed:
            return sorted(self._jobs.values(), key=lambda job: -job.created)

    def job(self, job_id: str) -> Job:
        """One job.

        Raises:
            Refusal: 404 E-NOJOB.
        """
        with self._changed:
            if job_id not in self._jobs:
                raise Refusal(404, Problem("E-NOJOB", "there is no such job", remedy="It may have been deleted"))
            return self._jobs[job_id]

    def wait(self, job_id: str, seconds: float) -> Job:
        """The job when nothing is left to be done for it, or as it is after so many seconds.

        Raises:
            Refusal: 404 E-NOJOB.
        """
        with self._changed:
            self._changed.wait_for(lambda: not self.job(job_id).is_open, seconds)
            return self.job(job_id)

    def ahead_of(self, job: Job) -> int:
        """How many jobs are done before this one."""
        with self._changed:
            return sum(other.state in ("waiting", "running") and other.created < job.created
                       for other in self._jobs.values())

    def open_job(self) -> Job:
        """A job whose upload begins.

        Raises:
            Refusal: 429 E-BUSY where too many jobs are open.
        """
        with self._changed:
            if self._closing or sum(job.is_open for job in self._jobs.values()) >= MAX_OPEN:
                raise Refusal(429, Problem("E-BUSY", "too many jobs wait", found=f"{MAX_OPEN} open jobs",
                                           remedy="Try again when one is done"))
            job = new_job()
            self._put(job)
            (self.folder / job.id / "upload").mkdir()
            return job

    def accept(self, job: Job) -> None:
        """Let a job wait for its turn; from here on it survives a stop of the server."""
        with self._changed:
            self._put(replace(job, state="waiting"))

    def drop(self, job_id: str) -> None:
        """Forget a job whose upload was refused, with its files."""
        with self._changed:
            self._jobs.pop(job_id, None)
            shutil.rmtree(self.folder / job_id, ignore_errors=True)

    def cancel(self, job_id: str) -> Job:
        """Stop a job that is not finished.

        Raises:
            Refusal: 404 E-NOJOB; 409 E-JOBSTATE for a job that is finished, or whose upload runs.
        """
        with self._changed:
            job = self.job(job_id)
            if job.state not in ("waiting", "running"):
                raise Refusal(409, Problem("E-JOBSTATE", "the job cannot be cancelled", found=job.state,
                                           expected="waiting or running"))
            job = self._put(replace(job, state="cancelled"))
            self._stop(job_id)
            remove_upload(self.folder, job_id)
            return job

    def delete(self, job_id: str) -> None:
        """Remove a job with all its files; a running one is stopped first.

        Raises:
            Refusal: 404 E-NOJOB.
        """
        with self._changed:
            self.job(job_id)
            del self._jobs[job_id]
            self._stop(job_id)
            shutil.rmtree(self.folder / job_id, ignore_errors=True)

    def close(self, *, keep: bool) -> None:
        """Stop the worker; delete every file unless they are kept."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
            if self._running is not None:
                self._stop(self._running)
            self._kill()
        if self._thread.is_alive():
            self._thread.join(_KILL_S)
        if not keep:
            for job_id in self._jobs:
                shutil.rmtree(self.folder / job_id, ignore_errors=True)

    def _put(self, job: Job) -> Job:
        """Keep a job's new state, on disk first."""
        save_job(self.folder, job)
        self._jobs[job.id] = job
        self._changed.notify_all()
        return job

    def _note(self, job: Job) -> Job:
        """Keep a job's new state; on a full disk in memory alone, so that the work goes on."""
        try:
            return self._put(job)
        except OSError:
            self._jobs[job.id] = job
            self._changed.notify_all()
            return job

    def _run(self) -> None:
        """Do the jobs one after another until the queue is closed."""
        while (job := self._next()) is not None:
            problems = self._asked(job.id)
            with self._changed:
                self._running = None
                self._changed.notify_all()
                now = self._jobs.get(job.id)
                if now is None:  # deleted meanwhile, perhaps while the worker still wrote
                    shutil.rmtree(self.folder / job.id, ignore_errors=True)
                if now is None or now.state != "running" or self._closing:
                    continue
                if problems is None and now.attempts < MAX_ATTEMPTS:
                    self._note(replace(now, state="waiting"))
                    continue
                found = (worker_died(),) if problems is None else problems
                remove_upload(self.folder, job.id)
                self._note(replace(now, state="failed" if found else "done", problems=found))

    def _next(self) -> Job | None:
        """Wait for the next job and mark it as running; None when the queue is closed."""
        with self._changed:
            while not self._closing:
                waiting = [job for job in self._jobs.values() if job.state == "waiting"]
                if waiting:
                    job = min(waiting, key=lambda job: job.created)
                    self._running = job.id
                    return self._note(replace(job, state="running", attempts=job.attempts + 1))
                self._changed.wait()
            return None

    def _asked(self, job_id: str) -> tuple[Problem, ...] | None:
        """What the worker says of a job; None where it was stopped, or the worker died over it."""
        try:
            worker = self._worker
            if worker is None or not worker.process.is_alive():
                worker = self._worker = self._started()
            with self._changed:
                job = self._jobs.get(job_id)
                if job is None or job.state != "running" or self._closing:
                    return None
                worker.pipe.send(job_id)
            said: tuple[Problem, ...] | None = worker.pipe.recv()
            return said
        except (EOFError, OSError):
            return None
        except BundleError as error:
            return error.problems

    def _started(self) -> _Worker:
        """A worker that has loaded its model.

        Raises:
            BundleError: what loading raises; E-WORKERDIED where the process ended without a word.
        """
        context = multiprocessing.get_context("spawn")
        here, there = context.Pipe()
        process = context.Process(target=work, args=(self._load, self.folder, there), daemon=True)
        process.start()
        there.close()
        try:
            said = here.recv()
        except (EOFError, OSError):
            raise BundleError(Problem("E-WORKERDIED", "the process that predicts ended before it was ready",
                                      remedy="Look at its memory")) from None
        if not isinstance(said, Ready):
            raise BundleError(said)
        return _Worker(process, here, said)

    def _stop(self, job_id: str) -> None:
        """End the prediction of a job that is no longer wanted, and wait until nothing writes to its folder."""
        if self._running != job_id or self._worker is None:
            return
        if self._worker.ready.stops:
            with suppress(OSError):  # it died just now
                self._worker.pipe.send(None)
        else:
            self._kill()
        if not self._changed.wait_for(lambda: self._running != job_id, _KILL_S):
            self._kill()

    def _kill(self) -> None:
        """End the worker at once; the next job starts another."""
        if self._worker is not None:
            self._worker.process.kill()
            self._worker.process.join(_KILL_S)
