"""Opening a run folder: one whole run at a time, or any number of shards."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import IO

from mtdlr.errors import Problem, StoreError
from mtdlr.store.files import FULL, disk_full, room_on
from mtdlr.store.index import Index
from mtdlr.store.objects import Store
from mtdlr.store.scratch import alive, clear, owner

fcntl: ModuleType | None
msvcrt: ModuleType | None
try:
    import fcntl
except ImportError:  # Windows
    fcntl = None
try:
    import msvcrt
except ImportError:  # everywhere else
    msvcrt = None
RUNNING = "running"


@contextmanager
def open_store(root: Path, *, shared: bool = False) -> Iterator[Store]:
    """The store at `root`; what a dead process left half-made is cleared away.

    Args:
        root: made if missing.
        shared: held beside others that share it too (shards of a cluster run), instead of alone. The lock is a
            courtesy: results are safe without it, where a file system knows no locks.

    Raises:
        StoreError: E-LOCKED while another process runs there, E-READONLY where nothing can be written, E-DISKFULL.
    """
    try:
        for name in ("objects", "scratch", RUNNING):
            (root / name).mkdir(parents=True, exist_ok=True)
        handle = open(root / "lock", "a+")
    except OSError as error:
        if error.errno in FULL:
            raise StoreError(disk_full(next(p for p in (root, *root.absolute().parents) if p.exists()))) from None
        raise StoreError(Problem("E-READONLY", "the run folder cannot be written", where=str(root),
                                 found=error.strerror or "", remedy="Choose another with run.folder")) from None
    with handle:
        if not take_lock(handle, shared=shared):
            raise StoreError(Problem("E-LOCKED", "another process is working in this run folder", where=str(root),
                                     remedy="Wait for it, or set run.folder to another one")) from None
        mark = root / RUNNING / f"run@{owner()}"
        with room_on(root):
            clear(root / "scratch")
            mark.touch()
            index = Index(root / "index", join=not shared)
        try:
            with alive(mark):
                yield Store(root, index)
        finally:
            with suppress(OSError):  # of a disk that is full, or gone: what ended the run is what must be told
                index.close()
                mark.unlink(missing_ok=True)


def take_lock(handle: IO[str], *, shared: bool = False) -> bool:
    """Whether a file's lock was got; the system drops it when the process ends, however it ends. Some file systems and
    systems have none: then yes.

    Args:
        handle: the open file.
        shared: held beside others that share it too.
    """
    try:
        if fcntl is not None:
            fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        elif msvcrt is not None and not shared:
            handle.seek(0)
            msvcrt.locking(handle.fileno(), msvcrt.LK_NBLCK, 1)
    except BlockingIOError:
        return False
    except OSError as error:
        return error.errno not in (errno.EACCES, errno.EAGAIN, errno.EDEADLK)
    return True
