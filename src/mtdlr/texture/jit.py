"""numba's part in the loops over voxels. It is loaded where the wheel does not hold the loops, and not otherwise.

numba keeps compiled code beside the package, or in the user's cache folder where that is read-only. Where neither can
be written (a container without a home folder) the loops work all the same, compiled anew by each process.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from numba import njit

Function = TypeVar("Function", bound=Callable)


def jit(function: Function) -> Function:
    """The function compiled at its first call, then from a cache; other threads may run beside it."""
    try:
        return njit(cache=True, nogil=True)(function)  # type: ignore[return-value]
    except RuntimeError:  # numba's "cannot cache function: no locator available"
        return njit(nogil=True)(function)  # type: ignore[return-value]
