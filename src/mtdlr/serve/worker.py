"""The process that predicts: it loads a model once and does one job after another."""

from __future__ import annotations

import errno
import multiprocessing
import os
import secrets
import shutil
import signal
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from mtdlr.errors import MtdlrError, Problem
from mtdlr.serve.jobs import Job, load_job
from mtdlr.serve.refusal import our_bug
from mtdlr.store import disk_full


@dataclass(frozen=True)
class Predictor:
    """What a worker works with.

    Args:
        facts: what the pages say of the model, plain values.
        predict: (scan, job, empty folder) -> nothing; fills `result` and `view` of the folder.
    """

    facts: Mapping[str, Any]
    predict: Callable[[Path, Job, Path], None]


def work(load: Callable[[], Predictor], folder: Path, pipe: Connection) -> None:
    """Say the model's facts, then do each job whose id comes through the pipe and say which problems it had.

    Args:
        load: makes the predictor, in this process.
        folder: of the jobs.
        pipe: to the server. When the server ends in any way, this process ends too.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the server ends us
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        predictor = load()
    except MtdlrError as error:
        pipe.send(error.problems)
        return
    pipe.send(dict(predictor.facts))
    with suppress(EOFError, OSError):  # the server has ended
        while True:
            pipe.send(_problems_of(predictor, folder, pipe.recv()))


def scan_of(upload: Path) -> Path:
    """What `predict` is given: the zip where one zip was sent, else the folder."""
    entries = list(upload.iterdir())
    return entries[0] if len(entries) == 1 and entries[0].suffix.lower() == ".zip" else upload


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _problems_of(predictor: Predictor, folder: Path, job_id: str) -> tuple[Problem, ...]:
    """Do one job; nothing where its result lies in place, else why there is none."""
    home = folder / job_id
    scratch = home / f".making-{secrets.token_hex(4)}"
    try:
        scratch.mkdir()
        predictor.predict(scan_of(home / "upload"), load_job(folder, job_id), scratch)
        for part in ("view", "result"):
            shutil.rmtree(home / part, ignore_errors=True)
            (scratch / part).replace(home / part)
    except MtdlrError as error:
        return error.problems
    except MemoryError:
        return (Problem("E-MEMORY", "there was not enough memory for the prediction"),)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return (disk_full(folder.absolute()),)
        return (our_bug(error),)
    except Exception as error:
        return (our_bug(error),)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return ()
