"""The maximum of the Cox partial likelihood by Newton's method."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from mtdlr.stats.cox_likelihood import SortedRows, Start, add_scaled, clear, derivatives

Vector = NDArray[np.float64]


@njit(cache=True, error_model="numpy")
def solve_lower(info, right, factor):  # type: ignore[no-untyped-def]
    """Solve info @ step = right by Cholesky's factorisation.

    Args:
        info: (p, p) symmetric matrix; only its lower half is read.
        right: (p,) right-hand side.
        factor: (p, p) room for the lower Cholesky factor, changed in place.

    Returns:
        (good, step): step (p,); good is False, and step without meaning, when info is not positive definite.
    """
    p = right.size
    step = np.zeros(p)
    for a in range(p):
        for b in range(a + 1):
            value = info[a, b]
            for k in range(b):
                value -= factor[a, k] * factor[b, k]
            if a == b:
                if not value > 1e-14 * info[a, a] or not value > 0.0:
                    return False, step
                factor[a, a] = np.sqrt(value)
            else:
                factor[a, b] = value / factor[b, b]
    for a in range(p):
        value = right[a]
        for k in range(a):
            value -= factor[a, k] * step[k]
        step[a] = value / factor[a, a]
    for a in range(p - 1, -1, -1):
        value = step[a]
        for k in range(a + 1, p):
            value -= factor[k, a] * step[k]
        step[a] = value / factor[a, a]
    return True, step


@njit(cache=True, error_model="numpy")
def newton(rows, offset, start, max_iter, tol, settle):  # type: ignore[no-untyped-def]
    """Maximise the partial likelihood from beta = 0, where its value, score and information are `start`.

    Stops once the Newton decrement (twice the gain still promised by the quadratic) is below `tol`, having taken that
    last step; under a monotone likelihood the last step stays long, which is how the caller knows.

    Args:
        rows: SortedRows of n rows and p columns.
        offset: (n,) known part of the linear predictor.
        start: what `at_zero` returns.
        max_iter: most Newton steps; each is halved up to 30 times until it gains.
        tol: largest Newton decrement at the end.
        settle: whether value and information are computed after the last step too; without, the value is the
            quadratic's, right to tol^1.5, and the information is that before the step.

    Returns:
        (beta (p,), loglik, info (p, p; lower half), last step (p,), converged).
    """
    p = rows.x.shape[1]
    beta, trial = np.zeros(p), np.zeros(p)
    loglik, score, info = start.loglik, start.score.copy(), start.info.copy()
    trial_score, trial_info, factor = np.zeros(p), np.zeros((p, p)), np.zeros((p, p))
    step = np.zeros(p)
    converged = False
    for _ in range(max_iter):
        good, step = solve_lower(info, score, factor)
        if not good:
            break
        decrement = 0.0
        for a in range(p):
            decrement += step[a] * score[a]
        converged = decrement < tol
        gained = False
        for _half in range(30):
            clear(trial)
            add_scaled(trial, 1.0, beta)
            add_scaled(trial, 1.0, step)
            if converged and not settle:
                return trial, loglik + 0.5 * decrement, info, step, True
            eta = np.dot(rows.x, trial)
            add_scaled(eta, 1.0, offset)
            value = derivatives(rows, eta, trial_score, trial_info)
            if value >= loglik - 1e-12 * (abs(loglik) + 1.0):
                gained = True
                break
            add_scaled(step, -0.5, step)
        if not gained:
            converged = False
            break
        beta, trial, loglik = trial, beta, value
        score, trial_score = trial_score, score
        info, trial_info = trial_info, info
        if converged:
            break
    return beta, loglik, info, step, converged


def at_zero(rows: SortedRows, offset: Vector) -> Start:
    """The `start` of `newton`.

    Args:
        rows: SortedRows of n rows and p columns.
        offset: (n,) known part of the linear predictor.
    """
    p = rows.x.shape[1]
    score, info = np.zeros(p), np.zeros((p, p))
    return Start(float(derivatives(rows, offset, score, info)), score, info)
