"""Work that does not fit into the memory of a card or of the machine: smaller parts, and then an error in words."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

from mtdlr.errors import FitError, Problem

Result = TypeVar("Result")
LACKING = ("out of memory", "ALLOC_FAILED", "allocate memory")  # CUDA, MPS and HIP; cuDNN and cuBLAS; the processor


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether torch raised this because memory ran out; not every part of it has the class for that."""
    return isinstance(error, torch.OutOfMemoryError) or any(word in str(error) for word in LACKING)


def cut_until_it_fits(
    work: Callable[[int], Result], *, where: str, parts: int = 1, most: int = 1,
    make_room: Callable[[], bool] = lambda: False, told: Callable[[int], None] = lambda parts: None
) -> Result:
    """What `work(parts)` returns, for the first number of parts that the memory is enough for.

    Args:
        work: computes the whole thing in so many parts; it leaves nothing behind when memory runs out.
        where: what is computed, for the error.
        parts: to begin with; each try doubles it.
        most: parts that the work can be cut into.
        make_room: called before anything is cut; returns whether it freed something, and then the same is tried again.
        told: called with the new number before each try with more parts.

    Raises:
        FitError: E-MEMORY where the smallest parts do not fit.
    """
    while True:
        try:
            return work(parts)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        # Only here, where the error and with it the tensors of the failed try are gone, is there room again.
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()
        if make_room():
            continue
        if parts >= most:
            raise FitError(Problem(
                "E-MEMORY", "there was not enough memory, however small the parts", where=where,
                remedy="Close what else uses the card, take fewer run.workers or a smaller grid (prepare.size), or "
                "compute on the processor (run.device = \"cpu\")"))
        parts = min(2 * parts, most)
        told(parts)
