"""What is computed in every bootstrap resample, on rows that stand for so many patients each."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from mtdlr.stats.cox_likelihood import SortedRows, derivatives
from mtdlr.stats.cox_newton import at_zero, newton

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
Index = NDArray[np.int64]

_TOLERANCE = 1e-9
_MAX_ITERATIONS = 50
_STILL_MOVING = 0.05  # change of the log hazard over a column's range in the last step; shorter than
_STILL_STEP = 1e-6  # this a step moves nobody


def maximum_near(rows: SortedRows, near: Vector) -> tuple[Vector, float] | None:
    """Coefficients and maximal log likelihood, the search begun at `near`; None without a finite maximum.

    Args:
        rows: n rows of p columns.
        near: (p,) coefficients.
    """
    offset = rows.x @ near
    move, loglik, _info, step, converged = newton(rows, offset, at_zero(rows, offset), _MAX_ITERATIONS, _TOLERANCE,
                                                  False)
    far = np.abs(step) > _STILL_STEP
    moving = far.any() and (np.abs(step[far]) * np.ptp(rows.x[:, far], axis=0) > _STILL_MOVING).any()
    return (near + move, float(loglik)) if converged and not moving else None


def null_loglik(rows: SortedRows) -> float:
    """The log partial likelihood at 0.

    Args:
        rows: n rows.
    """
    return at_zero(rows, np.zeros(rows.event.size)).loglik


def ranking(eta: Vector) -> tuple[Index, Index]:
    """(order (n,) of rising linear predictors, dense rank (n,) of each row from 0).

    Args:
        eta: (n,) linear predictor.
    """
    order = np.argsort(eta)
    ranked = eta[order]
    rank = np.zeros(eta.size, dtype=np.int64)
    rank[order[1:]] = np.cumsum(ranked[1:] != ranked[:-1])
    return order, rank


def fitted_discrimination(
    rows: SortedRows, eta: Vector, time: Vector, *, ranks: tuple[Index, Index], null: float, loglik: float
) -> Vector:
    """(7,) dxy, r2, slope, d, u, q, g of a model on the rows it was fitted to; its log likelihoods are known.

    Args:
        rows: the rows of the fit.
        eta: (n,) its linear predictor, in sorted order.
        time: (n,) months, in sorted order.
        ranks: `ranking(eta)`.
        null: log partial likelihood at 0.
        loglik: log partial likelihood at the coefficients.

    References:
        R: rms::validate.cph.
    """
    r2, d = _explained(null, loglik, float(rows.patients.sum()))
    u = 1.0 / null
    dxy, g = somers_dxy(rows, time, ranks[1]), gini_mean_difference(eta, ranks[0], rows.patients)
    return np.array([dxy, r2, 1.0, d, u, d - u, g])


def frozen_discrimination(
    rows: SortedRows, eta: Vector, time: Vector, *, ranks: tuple[Index, Index], slope: float, null: float,
    loglik: float
) -> Vector:
    """(7,) dxy, r2, slope, d, u, q, g of a frozen linear predictor eta (n,) on other rows.

    Args:
        rows: whose only column is eta.
        eta: the linear predictor.
        time: (n,) months, in sorted order.
        ranks: `ranking(eta)`.
        slope: coefficient of eta in a Cox model of the rows, the calibration slope.
        null: log partial likelihood at slope 0.
        loglik: log partial likelihood at the slope.
    """
    r2, d = _explained(null, loglik, float(rows.patients.sum()))
    frozen = derivatives(rows, eta, np.zeros(1), np.zeros((1, 1)))
    u = (frozen - loglik) / null
    dxy, g = somers_dxy(rows, time, ranks[1]), abs(slope) * gini_mean_difference(eta, ranks[0], rows.patients)
    return np.array([dxy, r2, slope, d, u, d - u, g])


def _explained(null: float, loglik: float, n: float) -> tuple[float, float]:
    """Nagelkerke's R2 and the discrimination index D."""
    ratio = 2.0 * (loglik - null)
    return float(np.expm1(-ratio / n) / np.expm1(2.0 * null / n)), float((ratio - 1.0) / (-2.0 * null))


def somers_dxy(rows: SortedRows, time: Vector, rank: Index) -> float:
    """Somers' Dxy = 2 C - 1 of a linear predictor, with C as in `concordance`.

    Args:
        rows: n rows of one stratum in sorted order; each stands for a whole number of patients.
        time: (n,) months, in sorted order.
        rank: (n,) dense ranks of the linear predictor, from 0.

    Returns:
        Within [-1, 1]; nan without a comparable pair.
    """
    score, pairs = _weighted_pairs(time, rows.event, rows.patients.astype(np.int64), rank)
    return score / pairs - 1.0 if pairs > 0 else np.nan


@njit(cache=True)
def _weighted_pairs(time, event, patients, rank):  # type: ignore[no-untyped-def]
    """Twice the concordant pairs plus those of tied risk, and all comparable pairs, of rows of so many patients.

    From the last time to the first, a binary indexed tree holds the ranks of those who outlive the time; the censored
    come first at one time, and pairs of events at one time are not comparable.
    """
    n = time.size
    tree, same = np.zeros(n + 1, np.int64), np.zeros(n, np.int64)
    entered, score, pairs, first = 0, 0, 0, 0  # rows before `first` are in the tree
    for i in range(n):
        if event[i]:
            if i == 0 or time[i - 1] != time[i] or not event[i - 1]:
                first = _enter(tree, same, rank, patients, first, i)
                entered = _below(tree, n - 1)
            score += patients[i] * (2 * _below(tree, rank[i] - 1) + same[rank[i]])
            pairs += patients[i] * entered
    return score, pairs


@njit(cache=True)
def _enter(tree, same, rank, patients, first, last):  # type: ignore[no-untyped-def]
    """Add the patients of some rows to the tree and to the counts of their rank; returns `last`."""
    for i in range(first, last):
        if patients[i] > 0:
            same[rank[i]] += patients[i]
            k = rank[i] + 1
            while k < tree.size:
                tree[k] += patients[i]
                k += k & -k
    return last


@njit(cache=True)
def _below(tree, rank):  # type: ignore[no-untyped-def]
    """How many patients the tree holds up to a rank."""
    total, k = 0, rank + 1
    while k > 0:
        total += tree[k]
        k -= k & -k
    return total


@njit(cache=True)
def gini_mean_difference(values, order, patients):  # type: ignore[no-untyped-def]
    """Mean absolute difference of two patients' values (n,).

    Args:
        values: (n,) numbers.
        order: (n,) rows of rising values.
        patients: (n,) how many patients each value stands for; more than one in all.
    """
    below, below_sum, total = 0.0, 0.0, 0.0
    for i in order:
        total += patients[i] * (values[i] * below - below_sum)
        below += patients[i]
        below_sum += patients[i] * values[i]
    return 2.0 * total / (below * (below - 1.0))


@njit(cache=True, error_model="numpy")
def group_survival(survival, code, rows, time, month, n_groups):  # type: ignore[no-untyped-def]
    """Mean predicted and Kaplan-Meier survival of groups of patients at a month.

    Args:
        survival: (n,) predicted survival at the month, in sorted order.
        code: (n,) group code of each row, 0 to n_groups - 1.
        rows: n rows of one stratum, in sorted order, their groups as in `log_hazard_at`.
        time: (n,) months, in sorted order.
        month: horizon in months.
        n_groups: number of groups.

    Returns:
        (n_groups, 4): mean predicted survival, Kaplan-Meier survival, standard error of its log, and patients; nan in
        the second and third where a group has fewer than two patients or ends before the month.
    """
    table, later, last = np.zeros((n_groups, 4)), np.zeros(n_groups), 0
    for i in range(time.size):
        k = code[i]
        table[k, 0] += rows.patients[i] * survival[i]
        table[k, 3] += rows.patients[i]
        later[k] += rows.patients[i] if time[i] >= month else 0.0
        last += time[i] > month
    at_risk, curve, log_variance = table[:, 3].copy(), np.ones(n_groups), np.zeros(n_groups)
    leaving, dying = np.zeros(n_groups), np.zeros(n_groups)
    g = rows.start.size - 2
    while g >= 0 and rows.start[g + 1] > last:
        for k in range(n_groups):
            leaving[k] = dying[k] = 0.0
        for i in range(rows.start[g], rows.start[g + 1]):
            leaving[code[i]] += rows.patients[i]
            dying[code[i]] += rows.patients[i] if rows.event[i] else 0.0
        for k in range(n_groups):
            if dying[k] > 0.0:
                curve[k] *= 1.0 - dying[k] / at_risk[k]
                log_variance[k] += dying[k] / (at_risk[k] * (at_risk[k] - dying[k]))
            at_risk[k] -= leaving[k]
        g -= 1
    for k in range(n_groups):
        known = table[k, 3] >= 2.0 and (curve[k] <= 0.0 or later[k] > 0.0)
        table[k, 0] = table[k, 0] / table[k, 3] if table[k, 3] > 0.0 else np.nan
        table[k, 1] = curve[k] if known else np.nan
        table[k, 2] = np.sqrt(log_variance[k]) if known and curve[k] > 0.0 else np.nan
    return table
