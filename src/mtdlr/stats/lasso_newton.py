"""The elastic-net Cox path by proximal Newton steps: compiled, for lasso.py.

A working set of features holds those that are, or by the strong rule may become, non-zero. On it the log partial
likelihood (Breslow ties) is replaced by a quadratic whose curvature is computed once and kept until the linear
predictor has moved. Each penalty starts where the last two, drawn on in a straight line, point to. The gradient is
always exact, so a kept curvature or a poor start costs steps, never accuracy: a penalty is done when the optimality
conditions hold. Features outside the working set are checked then; by Cauchy-Schwarz a gradient cannot have moved
further than the residuals have travelled since it was computed, so many need no product.
References: Simon, Friedman, Hastie and Tibshirani, J Stat Softw 2011 (the path); Tibshirani et al., JRSS B 2012
(strong rules); Lee, Sun and Saunders, SIAM J Optim 2014 (proximal Newton).

Features are rows of `z` (p, n), standardised, patients in the order of falling time.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from mtdlr.stats.lasso_likelihood import TINY, working
from mtdlr.stats.lasso_quadratic import Penalty, WorkingSet, dot, fill, minimise, subtract, violation

Vector = NDArray[np.float64]

_MAX_STEPS = 500
_MOVED = 3.0  # change of the linear predictor after which the curvature is computed again
_SMALLEST = 1e-6  # penalty; below it the optimality conditions hold to `tol` of this
_ROUNDING = 6e-8  # of single precision
_BLOCK = 64  # rows of the curvature computed at a time by BLAS,
_FEW = 16  # which does not pay for so few new ones
_FEW_STEPS = 5  # glmnet: the path stops when five steps gain less than 1e-5 of the deviance explained,
_SMALL_GAIN = 1e-5
_ENOUGH = 0.999  # or when this share of the null deviance is explained
_UNSOLVED = 1e3  # times the goal, and
_ROUGH = 1e-7  # a violation above both: there is no finite solution, or none that double precision can hold


@njit(cache=True)
def _risk_sets(outcome):  # type: ignore[no-untyped-def]
    """How many times have an event."""
    count = 0
    for g in range(outcome.start.size - 1):
        for i in range(outcome.start[g], outcome.start[g + 1]):
            if outcome.event[i] and outcome.weight[i] != 0.0:
                count += 1
                break
    return count


@njit(cache=True)
def _halves(raw, eta, outcome, spread, drift):  # type: ignore[no-untyped-def]
    """Fill spread (a, n) and drift (a, m) of rows (a, n) at eta."""
    n, groups = eta.size, outcome.start.size - 1
    relative, at_risk, mass = outcome.weight * np.exp(eta - eta.max()), np.zeros(groups), np.zeros(groups)
    s0 = 0.0
    for g in range(groups):
        for i in range(outcome.start[g], outcome.start[g + 1]):
            s0 += relative[i]
            mass[g] += outcome.weight[i] if outcome.event[i] else 0.0
        at_risk[g] = max(s0, TINY)  # where all at risk are far below the highest risk they count for nothing
    ends = np.flatnonzero(mass)
    root, hazard = np.empty(n), 0.0
    for g in range(groups - 1, -1, -1):
        hazard += mass[g] / at_risk[g]
        for i in range(outcome.start[g], outcome.start[g + 1]):
            root[i] = np.sqrt(relative[i] * hazard / n)
    for k in range(raw.shape[0]):
        total, i = 0.0, 0
        for e in range(ends.size):
            g = ends[e]
            while i < outcome.start[g + 1]:
                total += relative[i] * raw[k, i]
                i += 1
            drift[k, e] = total / at_risk[g] * np.sqrt(mass[g] / n)
        for i in range(n):
            spread[k, i] = raw[k, i] * root[i]


@njit(cache=True)
def _room(room, n, m):  # type: ignore[no-untyped-def]
    """An empty working set with room for so many features."""
    return WorkingSet(np.zeros(2, np.int64), np.empty(room, np.int64), np.empty((room, n)), np.empty(n),
                      np.empty((room, n), np.float32), np.empty((room, m), np.float32),
                      np.empty((room, room), np.float32), np.empty(room, np.int64),
                      np.empty((room, room), np.float32))


@njit(cache=True)
def _curve(work, first, last):  # type: ignore[no-untyped-def]
    """Fill rows and columns first .. last - 1 of the curvature, block by block below the diagonal."""
    for lo in range(first, last, _BLOCK):
        hi = min(lo + _BLOCK, last)
        block = np.dot(work.spread[lo:hi], work.spread[:hi].T) - np.dot(work.drift[lo:hi], work.drift[:hi].T)
        for i in range(lo, hi):
            for j in range(hi):
                work.curvature[i, j] = work.curvature[j, i] = block[i - lo, j]


@njit(cache=True, fastmath=True)
def _four(a, b, c, d, row):  # type: ignore[no-untyped-def]
    """The products of four vectors with one."""
    p = q = r = s = np.float32(0.0)
    for i in range(row.size):
        p += a[i] * row[i]
        q += b[i] * row[i]
        r += c[i] * row[i]
        s += d[i] * row[i]
    return p, q, r, s


@njit(cache=True)
def _curve_few(work, first, last):  # type: ignore[no-untyped-def]
    """The same as `_curve`, four rows at a time."""
    spread, drift = work.spread, work.drift
    for lo in range(first, last, 4):
        a, b, c, d = lo, min(lo + 1, last - 1), min(lo + 2, last - 1), min(lo + 3, last - 1)
        for j in range(last):
            whole = _four(spread[a], spread[b], spread[c], spread[d], spread[j])
            part = _four(drift[a], drift[b], drift[c], drift[d], drift[j])
            for i, k in enumerate((a, b, c, d)):
                work.curvature[k, j] = work.curvature[j, k] = whole[i] - part[i]


@njit(cache=True)
def _append(z, work, new, outcome):  # type: ignore[no-untyped-def]
    """Take in more features, curvature where it was; returns the working set, moved when there was no room."""
    a, b = work.sizes[0], work.sizes[0] + new.size
    if b > work.members.size:
        larger = _room(2 * b + 24, z.shape[1], work.drift.shape[1])
        fill(larger.eta, work.eta)
        for k in range(a):
            larger.members[k] = work.members[k]
            fill(larger.raw[k], work.raw[k])
            fill(larger.spread[k], work.spread[k])
            fill(larger.drift[k], work.drift[k])
            fill(larger.curvature[k, :a], work.curvature[k, :a])
        work = larger
    for k in range(new.size):
        work.members[a + k] = new[k]
        fill(work.raw[a + k], z[new[k]])
    _halves(work.raw[a:b], work.eta, outcome, work.spread[a:b], work.drift[a:b])
    if new.size <= _FEW:
        _curve_few(work, a, b)
    else:
        _curve(work, a, b)
    work.sizes[0] = b
    return work


@njit(cache=True)
def _renew(work, eta, outcome):  # type: ignore[no-untyped-def]
    """Compute the curvature again, at eta."""
    a = work.sizes[0]
    work.sizes[1] = 0
    fill(work.eta, eta)
    _halves(work.raw[:a], eta, outcome, work.spread[:a], work.drift[:a])
    _curve(work, 0, a)


@njit(cache=True)
def _apart(a, b):  # type: ignore[no-untyped-def]
    """The largest difference of two vectors."""
    most = 0.0
    for i in range(a.size):
        most = max(most, abs(a[i] - b[i]))
    return most


@njit(cache=True)
def _size(beta, penalty):  # type: ignore[no-untyped-def]
    """The penalty of coefficients (a,)."""
    total = 0.0
    for j in range(beta.size):
        total += penalty.l1[j] * abs(beta[j]) + 0.5 * penalty.l2[j] * beta[j] ** 2
    return total


@njit(cache=True)
def _move(eta, raw, new, old):  # type: ignore[no-untyped-def]
    """eta (n,) moved in place as the coefficients (a,) move from old to new."""
    for j in range(new.size):
        if new[j] != old[j]:
            subtract(eta, old[j] - new[j], raw[j])


@njit(cache=True)
def _slopes(raw, residual):  # type: ignore[no-untyped-def]
    """(a,) gradients of rows (a, n)."""
    out = np.empty(raw.shape[0])
    for j in range(out.size):
        out[j] = dot(raw[j], residual)
    return out


@njit(cache=True)
def _optimum(outcome, work, beta, eta, penalty, goal, residual):  # type: ignore[no-untyped-def]
    """Minimise over the working set at one penalty; beta (a,), eta and residual are changed in place.

    Returns the log likelihood over n, and by how much the optimality conditions are broken.
    """
    raw = work.raw[: beta.size]
    loglik = working(eta, outcome, residual)
    slope = _slopes(raw, residual)
    before = max(violation(beta, slope, penalty))
    stale = _apart(eta, work.eta) > _MOVED
    for _ in range(_MAX_STEPS):
        if before <= goal or not np.isfinite(before):
            break
        if stale:
            _renew(work, eta, outcome)
        old, start, objective = beta.copy(), eta.copy(), -loglik + _size(beta, penalty)
        minimise(beta, slope, work, penalty, max(0.03 * before, 0.3 * goal))
        for _half in range(30):
            fill(eta, start)
            _move(eta, raw, beta, old)
            loglik = working(eta, outcome, residual)
            if -loglik + _size(beta, penalty) <= objective + 1e-13:
                break
            for j in range(beta.size):
                beta[j] = 0.5 * (old[j] + beta[j])
        slope = _slopes(raw, residual)
        after = max(violation(beta, slope, penalty))
        stale = after > 0.5 * before or _apart(eta, work.eta) > _MOVED
        before = after
    return loglik, before


class _Seen(NamedTuple):
    """What is known of the gradients of all p features without a product.

    single (p, n): z in single precision; norm (p,) lengths of its rows; gradient (p,) as last computed, `at` (p,) how
    far the residuals had travelled then; residual (n,) the last; travelled (1,).
    """

    single: NDArray[np.float32]
    norm: Vector
    gradient: Vector
    at: Vector
    residual: Vector
    travelled: Vector


@njit(cache=True)
def _look(z, residual):  # type: ignore[no-untyped-def]
    """All gradients, exactly."""
    p = z.shape[0]
    norm, gradient = np.empty(p), np.empty(p)
    for j in range(p):
        norm[j] = np.sqrt(dot(z[j], z[j]))
        gradient[j] = dot(z[j], residual)
    return _Seen(z.astype(np.float32), norm, gradient, np.zeros(p), residual.copy(), np.zeros(1))


@njit(cache=True)
def _missed(z, seen, residual, floor, bound, inside):  # type: ignore[no-untyped-def]
    """(p,) whether a feature outside the working set breaks the optimality conditions, `bound` (p,); brings the
    gradients that could reach `floor` (p,) up to date.

    The products are in single precision; where their error, at most `slack` norms, could decide, in double.
    """
    n = residual.size
    gone = residual - seen.residual
    seen.travelled[0] += np.sqrt(dot(gone, gone))
    fill(seen.residual, residual)
    rough = residual.astype(np.float32)
    slack = _ROUNDING * (16 + n / 16) * np.sqrt(dot(residual, residual))
    out = np.zeros(floor.size, np.bool_)
    member = np.zeros(floor.size, np.bool_)
    for j in inside:
        member[j] = True
    for j in range(floor.size):
        reach = (seen.travelled[0] - seen.at[j] + slack) * seen.norm[j]
        if abs(seen.gradient[j]) + reach < floor[j]:
            continue
        seen.gradient[j], seen.at[j] = dot(seen.single[j], rough), seen.travelled[0]
        if not member[j] and abs(seen.gradient[j]) + slack * seen.norm[j] > bound[j]:
            seen.gradient[j] = dot(z[j], residual)
            out[j] = abs(seen.gradient[j]) > bound[j]
    return out


@njit(cache=True)
def _draw_on(beta, before, share, eta, work):  # type: ignore[no-untyped-def]
    """Move beta (p,) and eta (n,) on by `share` of the last step, in place; a coefficient stops at 0."""
    inside = work.members[: work.sizes[0]]
    start = _taken(beta, inside)
    for j in inside:
        old, last = beta[j], before[j]
        if old * last > 0.0:
            beta[j] = old + max(share * (old - last) * np.sign(old), -abs(old)) * np.sign(old)
    _move(eta, work.raw, _taken(beta, inside), start)


@njit(cache=True)
def _taken(values, places):  # type: ignore[no-untyped-def]
    """The values at some places."""
    out = np.empty(places.size)
    for i in range(places.size):
        out[i] = values[places[i]]
    return out


@njit(cache=True)
def _put(values, places, new):  # type: ignore[no-untyped-def]
    """Set the values at some places."""
    for i in range(places.size):
        values[places[i]] = new[i]


@njit(cache=True)
def _is_solved(loglik, broken, goal):  # type: ignore[no-untyped-def]
    """Whether a minimum was reached, to rounding."""
    return np.isfinite(loglik) and broken <= max(_UNSOLVED * goal, _ROUGH)


@njit(cache=True)
def _gains_little(logliks, k, null, saturated):  # type: ignore[no-untyped-def]
    """Whether the path may end at step k, as glmnet's does."""
    explained, before = logliks[k] - null, logliks[k + 1 - _FEW_STEPS] - null
    return explained > _ENOUGH * (saturated - null) or explained - before < _SMALL_GAIN * explained


class FallingPenalties(NamedTuple):
    """The penalties of a path: lambdas (L,), falling; alpha, 1 lasso, towards 0 ridge, > 0; factor (p,) of each
    feature's penalty, 0 leaves it free."""

    lambdas: Vector
    alpha: float
    factor: Vector


@njit(cache=True)
def path(z, outcome, penalties, tol, may_stop, saturated):  # type: ignore[no-untyped-def]
    """Coefficients and log partial likelihoods along falling penalties.

    Args:
        z: (p, n) standardised features, patients in the order of falling time.
        outcome: their follow-up.
        penalties: FallingPenalties of p features.
        tol: no optimality condition is broken by more than this share of the penalty.
        may_stop: whether the path may end early, as in glmnet: when five steps gain next to nothing, or 99.9 % of the
            null deviance is explained.
        saturated: log partial likelihood of the saturated model; read only when `may_stop`.

    Returns:
        (coefs (k, p), logliks (k,)); k < L when the path stopped early, or before a penalty without a finite solution.
    """
    lambdas, alpha, factor = penalties
    p, n = z.shape
    beta, eta = np.zeros(p), np.zeros(n)
    residual = np.empty(n)
    coefs, logliks = np.zeros((lambdas.size, p)), np.zeros(lambdas.size)
    null = n * working(eta, outcome, residual)
    seen = _look(z, residual)
    work = _room(64, n, _risk_sets(outcome))
    fill(work.eta, eta)
    previous = lambdas[0]
    for k in range(lambdas.size):
        full = Penalty(lambdas[k] * alpha * factor, lambdas[k] * (1.0 - alpha) * factor)
        strong = alpha * factor * (2.0 * lambdas[k] - previous)
        wanted = (seen.norm > 0.0) & ((beta != 0.0) | (np.abs(seen.gradient) >= strong))
        following = lambdas[min(k + 1, lambdas.size - 1)]
        floor = alpha * factor * min(2.0 * following - lambdas[k], lambdas[k])
        if _apart(eta, work.eta) > _MOVED or work.sizes[0] > 2 * wanted.sum() + 20:
            work.sizes[0] = work.sizes[1] = 0
            fill(work.eta, eta)
        elif k > 1 and lambdas[k - 2] > lambdas[k - 1]:
            share = (lambdas[k - 1] - lambdas[k]) / (lambdas[k - 2] - lambdas[k - 1])
            _draw_on(beta, coefs[k - 2], min(share, 1.0), eta, work)
        while True:
            for j in work.members[: work.sizes[0]]:
                wanted[j] = False
            new = np.flatnonzero(wanted)
            if new.size > 0:
                work = _append(z, work, new, outcome)
            inside = work.members[: work.sizes[0]]
            mine, values = Penalty(_taken(full.l1, inside), _taken(full.l2, inside)), _taken(beta, inside)
            goal = tol * max(lambdas[k], _SMALLEST)
            loglik, broken = _optimum(outcome, work, values, eta, mine, goal, residual)
            if not _is_solved(loglik, broken, goal):
                return coefs[:k], logliks[:k]
            _put(beta, inside, values)
            wanted = _missed(z, seen, residual, floor, full.l1 + goal, inside)
            if not wanted.any():
                break
        fill(coefs[k], beta)
        logliks[k], previous = n * loglik, lambdas[k]
        if may_stop and k + 1 >= _FEW_STEPS and _gains_little(logliks, k, null, saturated):
            return coefs[: k + 1], logliks[: k + 1]
    return coefs, logliks
