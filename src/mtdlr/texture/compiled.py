"""How the loops over voxels are compiled: once after installing, then from a cache.

numba keeps compiled code beside the package, or in the user's cache folder where that is read-only. Where neither can
be written (a container without a home folder) the loops work all the same, compiled anew by each process.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from numba import njit

Loop = TypeVar("Loop", bound=Callable)


def compiled(function: Loop) -> Loop:
    """The function as machine code, which other threads may run beside."""
    try:
        return njit(cache=True, nogil=True)(function)  # type: ignore[return-value]
    except RuntimeError:  # numba's "cannot cache function: no locator available"
        return njit(nogil=True)(function)  # type: ignore[return-value]


def has_cache(loop: Any) -> bool:
    """Whether an earlier process kept machine code of the loop; numba itself judges it by the content of the source."""
    folder, code = loop.stats.cache_path, loop.py_func.__code__
    return bool(folder) and any(Path(folder).glob(f"*{code.co_name}-{code.co_firstlineno}.*nbi"))
