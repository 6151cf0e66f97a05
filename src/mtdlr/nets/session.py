"""torch's global state, given to one job of a process at a time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_IN_USE = threading.RLock()


@contextmanager
def torch_session(threads: int) -> Iterator[None]:
    """Give the caller torch's random generator and thread count; both are restored afterwards.

    The generator that dropout and initial weights draw from, and the thread count that sums are split by, belong to
    the whole process. Jobs that run in threads of one process (a `ThreadPoolExecutor`, a Dask worker) therefore wait
    for one another here: with interleaved draws, the same key would stand for other networks.

    Args:
        threads: threads torch may use inside.
    """
    with _IN_USE:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            with torch.random.fork_rng(devices=[]):
                yield
        finally:
            torch.set_num_threads(before)


def device_name() -> str:
    """What networks run on, in words."""
    if torch.cuda.is_available():
        found = torch.cuda.get_device_properties(0)
        return f"{found.name}, {found.total_memory / 1e9:.0f} GB, CUDA {torch.version.cuda}"
    return f"cpu, {torch.backends.cpu.get_cpu_capability()}"
