"""Where a patient stands among the training patients' risks, from means of at least five of them: no patient's risk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from mtdlr.shift.distance import BEHIND_A_NUMBER, LEAST_PATIENTS


@dataclass(frozen=True)
class TrainingRisks:
    """The cross-fitted risks of the training patients in groups of neighbours.

    Args:
        counts: patients of each group, five or more.
        means: their mean log hazard, ascending.
    """

    counts: tuple[int, ...]
    means: tuple[float, ...]

    @classmethod
    def fit(cls, risks: ArrayLike) -> TrainingRisks | None:
        """The groups of n risks (log hazards; nan takes no part); None below 20 patients.

        >>> TrainingRisks.fit(range(21)).means
        (2.5, 8.0, 13.0, 18.0)
        """
        known = np.asarray(risks, dtype=np.float64)
        known = np.sort(known[np.isfinite(known)])
        if known.size < LEAST_PATIENTS:
            return None
        groups = np.array_split(known, known.size // BEHIND_A_NUMBER)
        return cls(tuple(len(group) for group in groups), tuple(float(group.mean()) for group in groups))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainingRisks:
        """What `as_dict` wrote.

        Raises:
            ValueError: for values that are no such groups.
        """
        counts, means = tuple(map(int, values["counts"])), tuple(map(float, values["means"]))
        if not counts or len(counts) != len(means) or min(counts) < BEHIND_A_NUMBER or not np.isfinite(means).all() \
                or list(means) != sorted(means):
            raise ValueError("no groups of training risks")
        return cls(counts, means)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"counts": list(self.counts), "means": list(self.means)}

    def share_below(self, risk: float) -> float:
        """The share of training patients at a lower risk, 0 to 1, interpolated between the groups' middles.

        Beyond the outer groups nothing is known: it stays at half of their share.

        >>> TrainingRisks((5, 5, 10), (0.0, 1.0, 2.0)).share_below(1.0)
        0.375
        """
        means, at = np.unique(np.array(self.means), return_inverse=True)  # equal means are one group
        counts = np.bincount(at, weights=self.counts)
        middles = (np.cumsum(counts) - counts / 2.0) / counts.sum()
        return float(np.interp(risk, means, middles))
