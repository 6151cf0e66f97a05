"""Each patient's part in a Cox fit, and the variance that survives a wrong model.

Lin and Wei, JASA 1989; Therneau and Grambsch, Modeling Survival Data (2000), sections 4.6, 7.1 and 8.2; ties as in the
fit. All rows are in the order of the risk sets.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mtdlr.stats.cox_likelihood import EventTerms, RiskSets, accumulated

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]


def event_means(terms: EventTerms, sets: RiskSets) -> Matrix:
    """(groups, p) the mean of x in the risk set at each time with an event, averaged over the tied terms."""
    sums = np.zeros((sets.time.size, terms.mean.shape[1]))
    np.add.at(sums, terms.group, terms.mean)
    count = np.bincount(terms.group, minlength=sets.time.size)
    result: Matrix = sums / np.maximum(count, 1)[:, None]
    return result


def score_rows(x: Matrix, weight: Vector, terms: EventTerms, sets: RiskSets) -> Matrix:
    """(n, p) each row's part of the score, times its weight."""
    expected = accumulated(terms, sets, terms.share)
    drift = accumulated(terms, sets, terms.share[:, None] * terms.mean)
    rows: Matrix = drift - x * expected[:, None]
    died = sets.event
    rows[died] += weight[died, None] * (x - event_means(terms, sets)[sets.group])[died]
    return rows


def sandwich(influence: Matrix, clusters: NDArray[np.int64]) -> Matrix:
    """The variance (p, p) from the influence of each row (n, p) on the coefficients, summed over codes (n,)."""
    sums = np.zeros((int(clusters.max()) + 1, influence.shape[1]))
    np.add.at(sums, clusters, influence)
    result: Matrix = sums.T @ sums
    return result
