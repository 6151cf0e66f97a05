"""Each patient's part in a Cox fit, and the variance that survives a wrong model.

Lin and Wei, JASA 1989; Therneau and Grambsch, Modeling Survival Data (2000), sections 4.6, 7.1 and 8.2; ties as in the
fit. All rows are in the order of the risk sets.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mtdlr.stats.cox_likelihood import RiskSets
from mtdlr.stats.cox_terms import EventTerms, accumulated

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]


def event_means(terms: EventTerms, sets: RiskSets) -> Matrix:
    """The mean of x in the risk set at each time with an event, averaged over the tied terms.

    Args:
        terms: the terms of the likelihood, with the means of their risk sets.
        sets: the risk sets of the rows.

    Returns:
        (groups, p); 0 for a group without an event.
    """
    sums = np.zeros((sets.time.size, terms.mean.shape[1]))
    np.add.at(sums, terms.group, terms.mean)
    count = np.bincount(terms.group, minlength=sets.time.size)
    result: Matrix = sums / np.maximum(count, 1)[:, None]
    return result


def score_rows(x: Matrix, weight: Vector, terms: EventTerms, sets: RiskSets) -> Matrix:
    """Each row's part of the score, times its weight, (n, p) in sorted order.

    Args:
        x: (n, p) in sorted order.
        weight: (n,) weights of the rows.
        terms: the terms of the likelihood at the fitted coefficients.
        sets: the risk sets of the rows.
    """
    expected = accumulated(terms, sets, terms.share)
    drift = accumulated(terms, sets, terms.share[:, None] * terms.mean)
    rows: Matrix = drift - x * expected[:, None]
    died = sets.event
    rows[died] += weight[died, None] * (x - event_means(terms, sets)[sets.group])[died]
    return rows


def sandwich(influence: Matrix, clusters: NDArray[np.int64]) -> Matrix:
    """The robust variance (p, p) of the coefficients: the cross-product of the clusters' summed influences.

    Args:
        influence: (n, p), influence of each row on the coefficients.
        clusters: (n,) codes from 0; rows with one code are summed first.
    """
    sums = np.zeros((int(clusters.max()) + 1, influence.shape[1]))
    np.add.at(sums, clusters, influence)
    result: Matrix = sums.T @ sums
    return result
