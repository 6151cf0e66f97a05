"""The Cox log partial likelihood (Breslow ties) of many features or many models at once: compiled, for lasso.py.

Patients are in the order of falling time, features are rows.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

Vector = NDArray[np.float64]


class Outcome(NamedTuple):
    """Follow-up in the order of falling time, as one value the compiled functions take (they take no dataclass).

    weight (n,) summing to n; event (n,); start (groups + 1,) of the groups of equal time.
    """

    weight: Vector
    event: NDArray[np.bool_]
    start: NDArray[np.int64]
TINY = 1e-300  # what a sum of relative hazards is at least



@njit(cache=True, fastmath={"reassoc", "contract"})
def standardised(x, rows, weight):  # type: ignore[no-untyped-def]
    """Features centred and divided by the 1/n standard deviation; a feature that does not vary is 0 and has scale 0.

    Args:
        x: (p, N) features of all patients.
        rows: (n,) the patients taken, in the order of falling time.
        weight: (n,) their weights.

    Returns:
        (z (p, n), scale (p,)).
    """
    p, n = x.shape[0], rows.size
    z, scale = np.empty((p, n)), np.zeros(p)
    total = weight.sum()
    for j in range(p):
        mean, biggest = 0.0, 0.0
        for i in range(n):
            z[j, i] = x[j, rows[i]]
            mean += weight[i] * z[j, i]
            biggest = max(biggest, abs(z[j, i]))
        mean /= total
        spread = 0.0
        for i in range(n):
            z[j, i] -= mean
            spread += weight[i] * z[j, i] ** 2
        spread = np.sqrt(spread / total)
        if spread <= 1e-12 * biggest:
            z[j] = 0.0
            continue
        scale[j] = spread
        for i in range(n):
            z[j, i] /= spread
    return z, scale


@njit(cache=True)
def working(eta, outcome, residual):  # type: ignore[no-untyped-def]
    """The log partial likelihood over n at a linear predictor, and its gradient.

    Args:
        eta: (n,) linear predictor.
        outcome: follow-up in the order of falling time.
        residual: (n,) filled with the gradient by eta, over n.

    Returns:
        The log partial likelihood (Breslow ties) divided by n.
    """
    n, groups = eta.size, outcome.start.size - 1
    shift = eta.max()
    s0, loglik = 0.0, 0.0
    step = np.zeros(groups)
    for g in range(groups):
        mass = 0.0
        for i in range(outcome.start[g], outcome.start[g + 1]):
            residual[i] = outcome.weight[i] * np.exp(eta[i] - shift)
            s0 += residual[i]
            if outcome.event[i]:
                mass += outcome.weight[i]
                loglik += outcome.weight[i] * (eta[i] - shift)
        if mass > 0.0:
            at_risk = max(s0, TINY)  # where all at risk are far below the highest risk, exp(eta - shift) is 0
            loglik -= mass * np.log(at_risk)
            step[g] = mass / at_risk
    hazard = 0.0
    for g in range(groups - 1, -1, -1):
        hazard += step[g]
        for i in range(outcome.start[g], outcome.start[g + 1]):
            seen = outcome.weight[i] if outcome.event[i] else 0.0
            residual[i] = (seen - residual[i] * hazard) / n
    return loglik / n


@njit(cache=True)
def log_likelihoods(eta, outcome):  # type: ignore[no-untyped-def]
    """Log partial likelihoods of several linear predictors, however far apart.

    They hold also for patients whom no fit has seen, some a thousand SD out.

    Args:
        eta: (L, n) linear predictors, one a row.
        outcome: follow-up of the n patients in the order of falling time.

    Returns:
        (L,) log partial likelihoods (Breslow ties), not divided by n.
    """
    values = np.zeros(eta.shape[0])
    for k in range(eta.shape[0]):
        shift = eta[k, 0]  # the largest so far; one for all would round earlier risk sets to nothing
        s0 = 0.0
        for g in range(outcome.start.size - 1):
            mass, events = 0.0, 0.0
            for i in range(outcome.start[g], outcome.start[g + 1]):
                if eta[k, i] > shift:
                    s0 *= np.exp(shift - eta[k, i])
                    shift = eta[k, i]
                s0 += outcome.weight[i] * np.exp(eta[k, i] - shift)
                if outcome.event[i]:
                    mass += outcome.weight[i]
                    events += outcome.weight[i] * eta[k, i]
            if mass > 0.0:
                values[k] += events - mass * (shift + np.log(s0))
    return values
