"""What is computed in every bootstrap resample, on rows that stand for so many patients each."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from mtdlr.stats.concordance_pairs import count_pairs
from mtdlr.stats.cox_likelihood import SortedRows, at_zero, derivatives, newton

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
Index = NDArray[np.int64]

_TOLERANCE = 1e-9
_MAX_ITERATIONS = 50
_STILL_MOVING = 0.05


def maximum_near(rows: SortedRows, near: Vector) -> tuple[Vector, float] | None:
    """Coefficients and maximal log likelihood, the search begun at `near`; None without a finite maximum.

    Args:
        rows: n rows of p columns.
        near: (p,) coefficients.
    """
    offset = rows.x @ near
    move, loglik, _info, step, converged = newton(rows, offset, at_zero(rows, offset), _MAX_ITERATIONS, _TOLERANCE)
    moving = (np.abs(step) * _spread(rows.x) > _STILL_MOVING).any()
    return (near + move, float(loglik)) if converged and not moving else None


def null_loglik(rows: SortedRows) -> float:
    """The log partial likelihood at 0.

    Args:
        rows: n rows.
    """
    return float(at_zero(rows, np.zeros(rows.event.size))[0])


@njit(cache=True)
def _spread(x):  # type: ignore[no-untyped-def]
    """(p,) range of each column; compiled, since numpy takes a column at a time."""
    low, high = x[0].copy(), x[0].copy()
    for i in range(1, len(x)):
        for a in range(low.size):
            low[a], high[a] = min(low[a], x[i, a]), max(high[a], x[i, a])
    return high - low


def fitted_discrimination(rows: SortedRows, eta: Vector, time: Vector, null: float, loglik: float) -> Vector:
    """(7,) dxy, r2, slope, d, u, q, g of a model on the rows it was fitted to; its log likelihoods are known.

    Args:
        rows: the rows of the fit.
        eta: (n,) its linear predictor, in sorted order.
        time: (n,) months, in sorted order.
        null: log partial likelihood at 0.
        loglik: log partial likelihood at the coefficients.

    References:
        R: rms::validate.cph.
    """
    r2, d = _explained(null, loglik, float(rows.patients.sum()))
    u = 1.0 / null
    return np.array([somers_dxy(rows, eta, time), r2, 1.0, d, u, d - u, gini_mean_difference(eta, rows.patients)])


def frozen_discrimination(
    rows: SortedRows, eta: Vector, time: Vector, *, slope: float, null: float, loglik: float
) -> Vector:
    """(7,) dxy, r2, slope, d, u, q, g of a frozen linear predictor eta (n,) on other rows.

    Args:
        rows: whose only column is eta.
        eta: the linear predictor.
        time: (n,) months, in sorted order.
        slope: coefficient of eta in a Cox model of the rows, the calibration slope.
        null: log partial likelihood at slope 0.
        loglik: log partial likelihood at the slope.
    """
    r2, d = _explained(null, loglik, float(rows.patients.sum()))
    frozen = derivatives(rows, eta, np.zeros(1), np.zeros((1, 1)))
    u = (frozen - loglik) / null
    g = gini_mean_difference(slope * eta, rows.patients)
    return np.array([somers_dxy(rows, eta, time), r2, slope, d, u, d - u, g])


def _explained(null: float, loglik: float, n: float) -> tuple[float, float]:
    """Nagelkerke's R2 and the discrimination index D."""
    ratio = 2.0 * (loglik - null)
    return float(np.expm1(-ratio / n) / np.expm1(2.0 * null / n)), float((ratio - 1.0) / (-2.0 * null))


def somers_dxy(rows: SortedRows, eta: Vector, time: Vector) -> float:
    """Somers' Dxy = 2 C - 1 of a linear predictor, with C as in `concordance`.

    Args:
        rows: n rows of one stratum in sorted order; each stands for a whole number of patients.
        eta: (n,) linear predictor.
        time: (n,) months, in sorted order.

    Returns:
        Within [-1, 1]; nan without a comparable pair.
    """
    order = np.lexsort((eta, ~rows.event, time))
    order = np.repeat(order, rows.patients[order].astype(np.int64))
    lower, equal, pairs, _, _ = count_pairs(time[order], eta[order], rows.event[order].astype(np.float64))
    total = float(pairs.sum())
    return float((2.0 * lower.sum() + equal.sum()) / total - 1.0) if total > 0.0 else np.nan


@njit(cache=True)
def gini_mean_difference(values, patients):  # type: ignore[no-untyped-def]
    """Mean absolute difference of two patients' values (n,).

    Args:
        values: (n,) numbers.
        patients: (n,) how many patients each value stands for; more than one in all.
    """
    order = np.argsort(values)
    below, below_sum, total = 0.0, 0.0, 0.0
    for i in order:
        total += patients[i] * (values[i] * below - below_sum)
        below += patients[i]
        below_sum += patients[i] * values[i]
    return 2.0 * total / (below * (below - 1.0))


def group_survival(survival: Vector, code: Index, rows: SortedRows, time: Vector, month: float,
                   n_groups: int) -> Matrix:
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
    reached, last = (int(np.searchsorted(-time, -month, side=side)) for side in ("right", "left"))
    n, expected = (np.bincount(code, who, n_groups) for who in (rows.patients, rows.patients * survival))
    later = np.bincount(code[:reached], rows.patients[:reached], n_groups)
    curve, log_variance = _curves(code, rows, last, n)
    dead = curve <= 0.0
    known = (n >= 2.0) & (dead | (later > 0.0))
    with np.errstate(invalid="ignore"):
        return np.column_stack([np.where(n > 0, expected / n, np.nan), np.where(known, curve, np.nan),
                                np.where(known & ~dead, np.sqrt(log_variance), np.nan), n])


@njit(cache=True, error_model="numpy")
def _curves(code, rows, last, n):  # type: ignore[no-untyped-def]
    """Kaplan-Meier survival of groups of n patients at the time of the row `last`, and the variance of its log."""
    at_risk, curve, log_variance = n.copy(), np.ones(n.size), np.zeros(n.size)
    leaving, dying = np.zeros(n.size), np.zeros(n.size)
    for g in range(rows.fresh.size - 1, -1, -1):
        if rows.start[g + 1] <= last:
            break
        leaving[:], dying[:] = 0.0, 0.0
        for i in range(rows.start[g], rows.start[g + 1]):
            leaving[code[i]] += rows.patients[i]
            if rows.event[i]:
                dying[code[i]] += rows.patients[i]
        for k in range(n.size):
            if dying[k] > 0.0:
                curve[k] *= 1.0 - dying[k] / at_risk[k]
                log_variance[k] += dying[k] / (at_risk[k] * (at_risk[k] - dying[k]))
            at_risk[k] -= leaving[k]
    return curve, log_variance
