"""A job on disk: one folder with its state, its upload while it is needed, and its result. A restart reads it again."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from mtdlr.errors import Problem

State = Literal["uploading", "waiting", "running", "done", "failed", "cancelled"]
OPEN: tuple[State, ...] = ("uploading", "waiting", "running")
PARTS = ("dicom", "view", "result")
"""Folders of a job that is done: for the archive, for the page, and what `mtdlr predict` writes."""
DICOM_ZIP = "dicom.zip"
MAX_ATTEMPTS = 2
_STATE = "job.json"
_ID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class Job:
    """One patient's prediction, requested or finished.

    Args:
        id: 32 hex digits that cannot be guessed.
        state: where it stands.
        created: seconds since 1970.
        clinical: values by covariate, as they were typed.
        series: DICOM series to take.
        uptake_min: minutes from injection to scan, where the headers lack them.
        accept_shift: predict a scan unlike the training scans too.
        center: the patient's centre where it is one of training; "" for another one.
        dicom: make DICOM results too, which name the patient.
        attempts: how often the prediction was begun.
        problems: why it failed.
    """

    id: str
    state: State = "uploading"
    created: float = 0.0
    clinical: Mapping[str, str] = field(default_factory=dict)
    series: tuple[str, ...] = ()
    uptake_min: float | None = None
    accept_shift: bool = False
    center: str = ""
    dicom: bool = False
    attempts: int = 0
    problems: tuple[Problem, ...] = ()

    @property
    def is_open(self) -> bool:
        """Whether something is still to be done for it."""
        return self.state in OPEN

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON, as `job_of` reads them."""
        return asdict(self) | {"problems": [asdict(problem) for problem in self.problems]}


def new_job() -> Job:
    """A job whose upload begins."""
    return Job(secrets.token_hex(16), created=time.time())


def job_of(values: Mapping[str, Any]) -> Job:
    """The job that `as_dict` wrote."""
    fields = dict(values) | {"problems": tuple(Problem(**problem) for problem in values["problems"]),
                             "series": tuple(values["series"])}
    return Job(**fields)


def save_job(folder: Path, job: Job) -> None:
    """Write the state of a job whole or not at all, and wait until the disk has it."""
    target = folder / job.id / _STATE
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    scratch = target.with_name(f".{_STATE}.{secrets.token_hex(4)}")
    try:
        with scratch.open("w", encoding="utf-8") as handle:
            json.dump(job.as_dict(), handle)
            handle.flush()
            os.fsync(handle.fileno())
        scratch.replace(target)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise


def load_job(folder: Path, job_id: str) -> Job:
    """The state of a job as it was last written."""
    return job_of(json.loads((folder / job_id / _STATE).read_text(encoding="utf-8")))


def recovered_jobs(folder: Path) -> dict[str, Job]:
    """The jobs that an earlier server left, oldest first; what it did not finish is begun again or marked failed.

    An accepted job waits again. A job whose prediction was stopped twice fails, and so does one whose upload was cut.
    Folders without a readable state are removed: nothing was acknowledged for them.
    """
    found = []
    for entry in sorted(folder.iterdir()) if folder.is_dir() else ():
        if not _ID.fullmatch(entry.name):
            continue
        try:
            job = _after_a_stop(load_job(folder, entry.name))
        except (OSError, ValueError, KeyError, TypeError, AssertionError):
            shutil.rmtree(entry, ignore_errors=True)
            continue
        if not job.is_open:
            remove_upload(folder, job.id)
        save_job(folder, job)
        found.append(job)
    return {job.id: job for job in sorted(found, key=lambda job: job.created)}


def remove_upload(folder: Path, job_id: str) -> None:
    """Delete the scan of a job and what a stopped prediction left."""
    shutil.rmtree(folder / job_id / "upload", ignore_errors=True)
    for scratch in (folder / job_id).glob(".making-*"):
        shutil.rmtree(scratch, ignore_errors=True)


def _after_a_stop(job: Job) -> Job:
    """What a job is for the server that comes after."""
    if job.state == "uploading":
        return replace(job, state="failed", problems=(Problem(
            "E-UPLOAD", "the upload was cut when the server stopped", remedy="Send the scan again"),))
    if job.state == "running":
        if job.attempts >= MAX_ATTEMPTS:
            return replace(job, state="failed", problems=(worker_died(),))
        return replace(job, state="waiting")
    return job


def worker_died() -> Problem:
    """What to say of a prediction that was stopped each time it was begun."""
    return Problem("E-WORKERDIED", "the prediction was stopped twice, most often for want of memory",
                   remedy="Send the scan again, on a machine with more memory")
