"""Survival of patients at months, as a nomogram predicts it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mtdlr.estimate import Estimate

Vector = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Curve:
    """Survival of n patients at m months with its pointwise confidence interval; nan where there is none.

    Args:
        months: (m,).
        value: (n, m), probability of survival.
        low: (n, m), lower limit.
        high: (n, m), upper limit.
    """

    months: Vector
    value: Vector
    low: Vector
    high: Vector

    def estimate(self, row: int, month: float) -> Estimate:
        """The survival of one patient at one of the months.

        Args:
            row: the patient's row.
            month: one of `months`.
        """
        column = int(np.flatnonzero(self.months == month)[0])
        return Estimate(*(float(part[row, column]) for part in (self.value, self.low, self.high)))
