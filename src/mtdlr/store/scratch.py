"""Work under way: each build has a scratch folder of its own, also when several machines share the store.

A folder is called `stage-key@host.pid.random`. Its owner touches it every half minute. It is abandoned when its owner
is a dead process of this machine, gave it back, or did not touch it for ten minutes by the clock of the file system
(the clocks of the machines do not matter). An abandoned training is taken over by renaming it: only one can do that.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mtdlr.store.recipe import Recipe

BEAT_S, STALE_S, FORGOTTEN_S = 30.0, 600.0, 14 * 86400.0
RESUMABLE = "train-"
FREE = "free.0"


def owner() -> str:
    """`host.pid.random`: another one at each call."""
    return f"{this_host()}.{os.getpid()}.{secrets.token_hex(3)}"


def this_host() -> str:
    """The machine (or container) whose process ids can be looked up here."""
    name = re.sub(r"[^A-Za-z0-9_-]+", "_", socket.gethostname()) or "host"
    with suppress(OSError):
        return f"{name}_{os.stat('/proc/self/ns/pid').st_ino}"
    return name


def scratch_folder(scratch: Path, recipe: Recipe) -> Path:
    """A folder to build in; for a resumable recipe, the latest abandoned one with its content.

    Args:
        scratch: the store's scratch folder; it is made if need be.
        recipe: what is to be built.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    mine = scratch / f"{recipe.stage}-{recipe.key}@{owner()}"
    if recipe.resumable:
        now = clock(scratch)
        left = [p for p in scratch.glob(f"{recipe.stage}-{recipe.key}*") if is_abandoned(p, now)]
        for old in sorted(left, key=_touched, reverse=True):
            with suppress(OSError):  # somebody else was first
                old.rename(mine)
                return mine
    mine.mkdir()
    return mine


def give_back(folder: Path) -> None:
    """Let others go on with an unfinished training."""
    with suppress(OSError):
        folder.rename(folder.with_name(f"{folder.name.partition('@')[0]}@{FREE}.{secrets.token_hex(3)}"))


def release(root: Path, pids: set[int]) -> None:
    """Give back every training of some processes of this machine, which are about to end.

    Args:
        root: folder of the store.
        pids: the processes.
    """
    for folder in (root / "scratch").glob(f"{RESUMABLE}*@{this_host()}.*"):
        if _pid_of(folder) in pids:
            give_back(folder)


def drop_others(scratch: Path, recipe: Recipe) -> None:
    """Remove the abandoned folders that interrupted builds of a finished recipe left.

    Args:
        scratch: the store's scratch folder.
        recipe: what was built.
    """
    now = clock(scratch)
    for folder in scratch.glob(f"{recipe.stage}-{recipe.key}*"):
        if is_abandoned(folder, now):
            shutil.rmtree(folder, ignore_errors=True)


def clear(scratch: Path) -> None:
    """Remove abandoned builds; of trainings, which resume, those that nobody touched for two weeks."""
    now = clock(scratch)
    for folder in [p for p in scratch.iterdir() if p.is_dir()]:
        resumes = folder.name.startswith(RESUMABLE)
        if is_abandoned(folder, now) and (not resumes or now - _touched(folder) > FORGOTTEN_S):
            shutil.rmtree(folder, ignore_errors=True)


def is_abandoned(path: Path, now: float) -> bool:
    """Whether nobody works in a folder (or behind a file) that is named after its owner.

    Args:
        path: a folder or file named `...@host.pid.random`.
        now: seconds, by the clock of its file system.
    """
    parts = path.name.partition("@")[2].rsplit(".", 2)
    if len(parts) != 3 or parts[0] + "." + parts[1] == FREE:
        return True
    if parts[0] == this_host() and not _lives(_pid_of(path)):
        return True
    return now - _touched(path) > STALE_S


@contextmanager
def alive(path: Path) -> Iterator[None]:
    """Touch a path every half minute, so that other machines see that its owner lives."""
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(BEAT_S):
            with suppress(OSError):
                os.utime(path)

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def clock(folder: Path) -> float:
    """The time now by the clock of the file system, seconds."""
    probe = folder / f".clock-{secrets.token_hex(4)}"
    try:
        probe.touch()
        return probe.stat().st_mtime
    finally:
        probe.unlink(missing_ok=True)


def _touched(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return float("inf")


def _pid_of(path: Path) -> int:
    parts = path.name.partition("@")[2].rsplit(".", 2)
    return int(parts[1]) if len(parts) == 3 and parts[1].isdigit() else 0


def _lives(pid: int) -> bool:
    """Whether a process of this machine exists."""
    if os.name == "nt":  # a signal there would end the process; its files grow old instead
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return pid > 0
