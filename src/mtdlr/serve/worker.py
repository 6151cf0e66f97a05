"""The process that predicts: it loads a model once, and each prediction is made by a copy of it.

A copy (`fork`) has the model and the libraries at once, and its memory goes back to the system when it ends: between
predictions the process is as small as after its start. A copy lacks the threads of its original, so the original starts
none of torch's. Where the networks lie on a card, which a copy cannot use, and on systems other than Linux, whose
libraries do not bear being copied, the process predicts by itself, as large as it then becomes.
"""

from __future__ import annotations

import ctypes
import errno
import gc
import multiprocessing
import os
import re
import secrets
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from mtdlr.errors import MtdlrError, Problem
from mtdlr.serve.jobs import PARTS, Job, load_job
from mtdlr.serve.refusal import our_bug
from mtdlr.store import disk_full

_COPIES = sys.platform == "linux"
_DIE_WITH_PARENT = 1  # prctl's PR_SET_PDEATHSIG
_DONTNEED = 4  # madvise's MADV_DONTNEED
_MAPPING = re.compile(r"([0-9a-f]+)-([0-9a-f]+) r-[x-]p \S+ \S+ \S+ +/")  # of a file, not to be written to


@dataclass(frozen=True)
class Predictor:
    """What a worker works with.

    Args:
        facts: what the pages say of the model, plain values.
        predict: (scan, job, empty folder) -> nothing; fills `result` and `view` of the folder, and
            `dicom` where the job asks for it.
        copies: whether a copy of the process can predict; False where the networks lie on a card.
    """

    facts: Mapping[str, Any]
    predict: Callable[[Path, Job, Path], None]
    copies: bool = True


@dataclass(frozen=True)
class Ready:
    """What a worker says when it has loaded its model.

    Args:
        facts: of the model.
        stops: whether None through the pipe stops the prediction that runs; else the worker must be killed.
    """

    facts: Mapping[str, Any]
    stops: bool


def work(load: Callable[[], Predictor], folder: Path, pipe: Connection) -> None:
    """Say the model's facts, then do each job whose id comes through the pipe and say which problems it had.

    It says None where the copy that predicts died, or was stopped by None through the pipe.

    Args:
        load: makes the predictor, in this process.
        folder: of the jobs.
        pipe: to the server. When the server ends in any way, this process ends too.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the server ends us
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        predictor = load()
    except MtdlrError as error:
        pipe.send(error.problems)
        return
    copies = predictor.copies and _COPIES
    if copies:
        gc.collect()
        gc.freeze()  # a copy's collector would write to, and so double, every page of what is loaded
        with suppress(OSError):  # a system that does not tell what is mapped
            _let_go_of_libraries()
    else:
        threading.Thread(target=_end_with_parent, daemon=True).start()
    with suppress(EOFError, OSError):  # the server has ended
        pipe.send(Ready(dict(predictor.facts), copies))
        while True:
            if (job_id := pipe.recv()) is None:
                continue  # the prediction to stop has just ended
            pipe.send(_by_a_copy(predictor, folder, job_id, pipe) if copies else
                      _problems_of(predictor, folder, job_id))


def scan_of(upload: Path) -> Path:
    """What `predict` is given: the zip where one zip was sent, else the folder."""
    entries = list(upload.iterdir())
    return entries[0] if len(entries) == 1 and entries[0].suffix.lower() == ".zip" else upload


def _let_go_of_libraries() -> None:
    """Unmap the pages of libraries, most of which loading alone needed: 150 MB for torch and LLVM.

    They are the files' own bytes: the system's cache has them, and a page that is touched again is mapped again. A copy
    maps its own in any case. Mappings that can be written to, or hold a page that was, are left alone.
    """
    start = size = 0
    madvise = ctypes.CDLL(None).madvise
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.partition(" ")[0]:
            found = _MAPPING.match(line)
            start, end = (int(edge, 16) for edge in found.groups()) if found else (0, 0)
            size = end - start
        elif size and line.split() == ["Anonymous:", "0", "kB"]:
            madvise(ctypes.c_void_p(start), ctypes.c_size_t(size), _DONTNEED)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _by_a_copy(predictor: Predictor, folder: Path, job_id: str, pipe: Connection) -> tuple[Problem, ...] | None:
    """Do one job in a copy of this process; None where the copy died or was stopped.

    Raises:
        EOFError: where the server has ended; the copy has too.
    """
    ours, theirs = multiprocessing.Pipe(duplex=False)
    me = os.getpid()
    pid = os.fork()
    if not pid:
        try:
            ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
            if os.getppid() == me:
                theirs.send(_problems_of(predictor, folder, job_id))
        finally:
            os._exit(0)
    theirs.close()
    try:
        if ours not in wait([ours, pipe]):
            pipe.recv()  # None: stop it
        else:
            with suppress(EOFError):  # it died
                return tuple(ours.recv())
        return None
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        ours.close()


def _problems_of(predictor: Predictor, folder: Path, job_id: str) -> tuple[Problem, ...]:
    """Do one job; nothing where its result lies in place, else why there is none."""
    home = folder / job_id
    scratch = home / f".making-{secrets.token_hex(4)}"
    try:
        scratch.mkdir()
        predictor.predict(scan_of(home / "upload"), load_job(folder, job_id), scratch)
        for part in PARTS:
            shutil.rmtree(home / part, ignore_errors=True)
            if (scratch / part).is_dir():
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
