"""The loops over voxels as machine code: from the wheel where it holds them, else compiled once by numba.

A platform's wheel holds the loops that Python calls in one extension module, `_loops`, which `.ci/platform_wheel.py`
makes from these sources. Then numba is not loaded. In the pure wheel and in a folder of sources there is no `_loops`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import numpy as np

Function = TypeVar("Function", bound=Callable)
_NUMBERS = {"i8": (int, np.integer), "f8": (int, float), "b1": (bool,)}


def source_number() -> int:
    """A number of 56 bits for the content of this folder's modules. Machine code of other sources is not used."""
    digests = b"".join(sha256(path.read_bytes()).digest() for path in sorted(Path(__file__).parent.glob("*.py")))
    return int.from_bytes(sha256(digests).digest()[:7])


def made_of_these_sources(extension: ModuleType | None) -> ModuleType | None:
    """The extension, or None where it was made of other sources."""
    number = getattr(extension, "source_number", None)
    return extension if number is not None and number() == source_number() else None


def _found() -> ModuleType | None:
    """The extension module, where it was installed for this Python and platform."""
    try:
        return import_module("mtdlr.texture._loops")
    except ImportError:
        return None


_BUILT = made_of_these_sources(_found())


@dataclass(frozen=True, eq=False)
class Loop:
    """A loop whose machine code came with the wheel; what that was not made for, numba compiles.

    Args:
        function: the loop in Python.
        built: its machine code; None for a loop that only other loops call.
        kinds: (dtype, dimensions) of each argument of `built`; 0 dimensions for a number.
    """

    function: Callable
    built: Callable | None = None
    kinds: tuple[tuple[str, int], ...] = ()

    def __call__(self, *args: Any) -> Any:
        """The loop's result."""
        if self.built is not None and all(map(_is_of, args, self.kinds)):
            return self.built(*args)
        return self.by_numba(*args)

    @cached_property
    def by_numba(self) -> Any:
        """The loop compiled by numba."""
        return import_module("mtdlr.texture.jit").jit(self.function)

    @property
    def _numba_type_(self) -> Any:
        """What numba takes this for where another loop calls it."""
        return self.by_numba._numba_type_


def _is_of(value: Any, kind: tuple[str, int]) -> bool:
    """Whether an argument is what the extension takes: it does not look at the layout of an array itself."""
    dtype, dimensions = kind
    if dimensions == 0:
        return isinstance(value, _NUMBERS[dtype])
    return (isinstance(value, np.ndarray) and value.ndim == dimensions and value.dtype == dtype
            and value.flags.c_contiguous and value.flags.aligned)


def compiled(function: Function) -> Function:
    """A loop that only other loops call, as machine code."""
    return Loop(function) if _BUILT else import_module("mtdlr.texture.jit").jit(function)  # type: ignore[return-value]


def entry(arguments: str) -> Callable[[Function], Function]:
    """A loop that Python calls, as machine code which other threads may run beside.

    Args:
        arguments: their types as numba writes them, "f8[:,::1], i8": arrays are contiguous, numbers i8, f8 or b1.
    """
    def decorate(function: Function) -> Function:
        function.arguments = arguments  # type: ignore[attr-defined] # read where the extension is made
        if _BUILT is None:
            return compiled(function)
        return Loop(function, getattr(_BUILT, export_name(function)), _kinds(arguments))  # type: ignore[return-value]
    return decorate


def export_name(function: Callable) -> str:
    """The name of a loop in the extension: its module's and its own."""
    return f"{function.__module__.rpartition('.')[2]}_{function.__name__}"


def _kinds(arguments: str) -> tuple[tuple[str, int], ...]:
    """(dtype, dimensions) of each argument of "f8[:,::1], i8": ("f8", 2) and ("i8", 0)."""
    return tuple((dtype, array.count(",") + 1 if array else 0)
                 for dtype, array in re.findall(r"(\w\d)(\[[:,1]+\])?", arguments))


def has_cache(loop: Any) -> bool:
    """Whether the loop starts at once: it came with the wheel, or an earlier process kept its machine code.

    numba itself judges what was kept by the content of the source.
    """
    if isinstance(loop, Loop):
        return True
    folder, code = loop.stats.cache_path, loop.py_func.__code__
    return bool(folder) and any(Path(folder).glob(f"*{code.co_name}-{code.co_firstlineno}.*nbi"))
