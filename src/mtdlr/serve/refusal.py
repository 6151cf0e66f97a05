"""A request that is not done, and the HTTP status that says so."""

from __future__ import annotations

from mtdlr.errors import Problem


class Refusal(Exception):
    """A request that the server refuses.

    Args:
        status: HTTP status, 400 to 599.
        problem: what to say.
    """

    def __init__(self, status: int, problem: Problem) -> None:
        super().__init__(str(problem))
        self.status, self.problem = status, problem
