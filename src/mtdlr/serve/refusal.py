"""A request that is not done, and the HTTP status that says so; and what is said of our own bugs."""

from __future__ import annotations

import logging
import traceback
from pathlib import Path

from mtdlr.errors import Problem

_LOG = logging.getLogger(__name__)


class Refusal(Exception):
    """A request that the server refuses.

    Args:
        status: HTTP status, 400 to 599.
        problem: what to say.
    """

    def __init__(self, status: int, problem: Problem) -> None:
        super().__init__(str(problem))
        self.status, self.problem = status, problem


def our_bug(error: Exception) -> Problem:
    """E-INTERNAL; the places in the code are logged, the error's text is not: it may hold a patient's file name.

    Args:
        error: that nobody expected.
    """
    for frame in traceback.extract_tb(error.__traceback__):
        _LOG.error("  %s:%d %s", Path(frame.filename).name, frame.lineno or 0, frame.name)
    return Problem("E-INTERNAL", f"{type(error).__name__}: this is our bug",
                   remedy="Please report the lines that the server printed with `mtdlr doctor`")
