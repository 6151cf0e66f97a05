"""A number with its interval and its p value: what every reported statistic is."""

from __future__ import annotations

from dataclasses import dataclass
from math import nan


@dataclass(frozen=True)
class Estimate:
    """A point estimate, its confidence interval and a two-sided p value; nan where there is none.

    >>> str(Estimate(0.818, 0.785, 0.851, 1e-9))
    '0.818 (0.785-0.851)'
    """

    value: float
    low: float = nan
    high: float = nan
    p: float = nan

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f}-{self.high:.3f})"
