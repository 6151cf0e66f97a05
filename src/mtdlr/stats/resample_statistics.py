"""What is computed in every bootstrap resample: compiled, on rows that stand for so many patients each."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from mtdlr.stats.cox_likelihood import SortedRows, derivatives

Vector = NDArray[np.float64]


def fitted_discrimination(rows: SortedRows, eta: Vector, null: float, loglik: float) -> Vector:
    """(7,) dxy, r2, slope, d, u, q, g of a model on the rows it was fitted to; its log likelihoods are known.

    Args:
        rows: the rows of the fit.
        eta: (n,) its linear predictor, in sorted order.
        null: log partial likelihood at 0.
        loglik: log partial likelihood at the coefficients.

    References:
        R: rms::validate.cph.
    """
    r2, d = _explained(null, loglik, float(rows.patients.sum()))
    u = 1.0 / null
    return np.array([somers_dxy(rows, eta), r2, 1.0, d, u, d - u, gini_mean_difference(eta, rows.patients)])


def frozen_discrimination(rows: SortedRows, eta: Vector, slope: float, null: float, loglik: float) -> Vector:
    """(7,) dxy, r2, slope, d, u, q, g of a frozen linear predictor eta (n,) on other rows.

    Args:
        rows: whose only column is eta.
        eta: the linear predictor.
        slope: coefficient of eta in a Cox model of the rows, the calibration slope.
        null: log partial likelihood at slope 0.
        loglik: log partial likelihood at the slope.
    """
    r2, d = _explained(null, loglik, float(rows.patients.sum()))
    frozen = derivatives(rows, eta, np.zeros(1), np.zeros((1, 1)))
    u = (frozen - loglik) / null
    g = gini_mean_difference(slope * eta, rows.patients)
    return np.array([somers_dxy(rows, eta), r2, slope, d, u, d - u, g])


def _explained(null: float, loglik: float, n: float) -> tuple[float, float]:
    """Nagelkerke's R2 and the discrimination index D."""
    ratio = 2.0 * (loglik - null)
    return float(np.expm1(-ratio / n) / np.expm1(2.0 * null / n)), float((ratio - 1.0) / (-2.0 * null))


@njit(cache=True)
def _add(tree, at, value):  # type: ignore[no-untyped-def]
    while at < tree.size:
        tree[at] += value
        at += at & -at


@njit(cache=True)
def _sum_to(tree, at):  # type: ignore[no-untyped-def]
    total = 0.0
    while at > 0:
        total += tree[at]
        at -= at & -at
    return total


@njit(cache=True)
def _ranks(values):  # type: ignore[no-untyped-def]
    """(n,) dense ranks from 1."""
    order = np.argsort(values)
    rank = np.empty(values.size, np.int64)
    current = 0
    for k in range(values.size):
        if k == 0 or values[order[k]] != values[order[k - 1]]:
            current += 1
        rank[order[k]] = current
    return rank


@njit(cache=True)
def somers_dxy(rows, eta):  # type: ignore[no-untyped-def]
    """Somers' Dxy = 2 C - 1 of a linear predictor, with C as in survival::concordance.

    Equal eta counts half; patients who die at one time are no pair. A binary indexed tree over the ranks of eta holds
    those who lived longer.

    Args:
        rows: n rows in sorted order; each stands for `patients` patients.
        eta: (n,) linear predictor.

    Returns:
        Within [-1, 1]; nan without a comparable pair.
    """
    rank = _ranks(eta)
    tree = np.zeros(rank.max() + 1)
    total, pairs, balance = 0.0, 0.0, 0.0
    for g in range(rows.fresh.size):
        for i in range(rows.start[g], rows.start[g + 1]):
            if not rows.event[i]:
                _add(tree, rank[i], rows.patients[i])
                total += rows.patients[i]
        for i in range(rows.start[g], rows.start[g + 1]):
            if rows.event[i] and rows.patients[i] > 0.0:
                pairs += rows.patients[i] * total
                above = total - _sum_to(tree, rank[i])
                balance += rows.patients[i] * (_sum_to(tree, rank[i] - 1) - above)
        for i in range(rows.start[g], rows.start[g + 1]):
            if rows.event[i]:
                _add(tree, rank[i], rows.patients[i])
                total += rows.patients[i]
    return balance / pairs if pairs > 0.0 else np.nan


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


@njit(cache=True)
def cumulative_hazard(rows, eta, time, month):  # type: ignore[no-untyped-def]
    """The cumulative baseline hazard at a month, at eta = 0; ties as in the rows.

    Args:
        rows: n rows of one stratum, in sorted order.
        eta: (n,) linear predictor.
        time: (n,) months, in sorted order.
        month: horizon in months.
    """
    s0, hazard = 0.0, 0.0
    for g in range(rows.fresh.size):
        deaths, t0 = 0.0, 0.0
        for i in range(rows.start[g], rows.start[g + 1]):
            r = rows.weight[i] * np.exp(eta[i])
            s0 += r
            if rows.event[i]:
                deaths += rows.patients[i]
                t0 += r
        if deaths > 0.0 and time[rows.start[g]] <= month:
            terms = int(deaths) if rows.efron else 1
            for j in range(terms):
                hazard += deaths / terms / (s0 - j / terms * t0)
    return hazard


@njit(cache=True)
def group_survival(survival, code, rows, time, month, n_groups):  # type: ignore[no-untyped-def]
    """Mean predicted and Kaplan-Meier survival of groups of patients at a month.

    Args:
        survival: (n,) predicted survival at the month, in sorted order.
        code: (n,) group code of each row, 0 to n_groups - 1.
        rows: n rows of one stratum, in sorted order.
        time: (n,) months, in sorted order.
        month: horizon in months.
        n_groups: number of groups.

    Returns:
        (n_groups, 4): mean predicted survival, Kaplan-Meier survival, standard error of its log, and patients; nan in
        the second and third where a group has fewer than two patients or ends before the month.
    """
    out = np.full((n_groups, 4), np.nan)
    for k in range(n_groups):
        at_risk, predicted, log_survival, variance, last, dead = 0.0, 0.0, 0.0, 0.0, 0.0, False
        for g in range(rows.fresh.size):
            deaths = 0.0
            now = time[rows.start[g]]
            for i in range(rows.start[g], rows.start[g + 1]):
                if code[i] == k and rows.patients[i] > 0.0:
                    at_risk += rows.patients[i]
                    predicted += rows.patients[i] * survival[i]
                    last = max(last, now)
                    if rows.event[i]:
                        deaths += rows.patients[i]
            if deaths > 0.0 and now <= month:
                if deaths == at_risk:
                    dead = True
                else:
                    log_survival += np.log1p(-deaths / at_risk)
                    variance += deaths / (at_risk * (at_risk - deaths))
        out[k, 3] = at_risk
        if at_risk > 0.0:
            out[k, 0] = predicted / at_risk
        if at_risk >= 2.0 and (dead or month <= last):
            out[k, 1] = 0.0 if dead else np.exp(log_survival)
            out[k, 2] = np.nan if dead else np.sqrt(variance)
    return out
