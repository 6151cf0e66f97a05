"""The elastic-net Cox path by proximal Newton steps: compiled, for lasso.py.

A working set of features holds those that are, or by the strong rule may become, non-zero. On it the log partial
likelihood (Breslow ties) is replaced by a quadratic whose curvature is computed once and kept until the linear
predictor has moved; the quadratic with its penalty is minimised by coordinate descent, which finds the signs, and a
Cholesky solve, which finds the values. The gradient is always exact, so a kept curvature costs steps, never accuracy:
a penalty is done when the optimality conditions hold. Features outside the working set are checked then; by
Cauchy-Schwarz a gradient cannot have moved further than the residuals have, so most need no product.
References: Simon, Friedman, Hastie and Tibshirani, J Stat Softw 2011 (the path); Tibshirani et al., JRSS B 2012
(strong rules); Lee, Sun and Saunders, SIAM J Optim 2014 (proximal Newton).

Features are rows of `z` (p, n), standardised, patients in the order of falling time. The curvature is
kept in single precision: it sets the speed, the gradient sets the answer.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from mtdlr.stats.lasso_likelihood import working

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

_MAX_STEPS = 500
_MAX_PASSES = 1000
_PASSES_BEFORE_SOLVE = 6
_MOVED = 2.0  # change of the linear predictor after which the curvature is computed again
_SMALLEST = 1e-6  # penalty; below it the optimality conditions hold to `tol` of this
_SINGLE = 1e-5  # more than the relative error of a dot product in single precision
_FEW_STEPS = 5  # glmnet: the path stops when five steps gain less than 1e-5 of the deviance explained,
_SMALL_GAIN = 1e-5
_ENOUGH = 0.999  # or when this share of the null deviance is explained


class Penalty(NamedTuple):
    """Of each feature (p,), at one point of the path: l1 |b| + l2 b^2 / 2."""

    l1: Vector
    l2: Vector


@njit(cache=True, fastmath=True)
def _dot(a, b):  # type: ignore[no-untyped-def]
    total = 0.0
    for i in range(a.size):
        total += a[i] * b[i]
    return total


@njit(cache=True, fastmath=True)
def _dot_single(a, b):  # type: ignore[no-untyped-def]
    total = np.float32(0.0)
    for i in range(a.size):
        total += a[i] * b[i]
    return total


@njit(cache=True, fastmath=True)
def _subtract(u, d, v):  # type: ignore[no-untyped-def]
    for i in range(u.size):
        u[i] -= d * v[i]


@njit(cache=True)
def _cholesky(work, members, first, l2):  # type: ignore[no-untyped-def]
    """Fill the lower factor of curvature[members, members] + l2 from row `first`; False when it is not positive
    definite."""
    factor = work.factor
    for a in range(first, members.size):
        i = members[a]
        for b in range(a):
            product = _dot_single(factor[a, :b], factor[b, :b])
            factor[a, b] = (work.curvature[i, members[b]] - product) / factor[b, b]
        bend = work.curvature[i, i] + l2[i]
        value = bend - _dot_single(factor[a, :a], factor[a, :a])
        if not value > _SINGLE * bend:
            return False
        factor[a, a] = np.sqrt(value)
    return True


@njit(cache=True)
def _factorise(work, beta, penalty):  # type: ignore[no-untyped-def]
    """Bring the factor up to date with the features that are not 0, keeping its first rows; whether it is usable."""
    held, sizes = work.factored, work.sizes
    first = 0
    while first < sizes[1] and beta[held[first]] != 0.0:
        first += 1
    is_held = np.zeros(beta.size, np.bool_)
    count = first
    for k in range(sizes[1]):
        if beta[held[k]] != 0.0:
            is_held[held[k]] = True
            if k > first:
                held[count] = held[k]
                count += 1
    if count == sizes[1] and np.count_nonzero(beta) == count:
        return True
    for j in range(beta.size):
        if beta[j] != 0.0 and not is_held[j]:
            held[count] = j
            count += 1
    good = _cholesky(work, held[:count], first, penalty.l2)
    sizes[1] = count if good else 0
    return good


@njit(cache=True)
def _solve(factor, right):  # type: ignore[no-untyped-def]
    """Solve factor factor' out = right, in place."""
    a = right.size
    for i in range(a):
        right[i] = (right[i] - _dot(factor[i, :i], right[:i])) / factor[i, i]
    for i in range(a - 1, -1, -1):
        right[i] /= factor[i, i]
        _subtract(right[:i], right[i], factor[i, :i])


@njit(cache=True)
def _sweep(beta, slope, curvature, penalty):  # type: ignore[no-untyped-def]
    """One pass of coordinate descent; whether any sign changed."""
    changed = False
    for j in range(beta.size):
        bend = curvature[j, j]
        value = slope[j] + bend * beta[j]
        size = abs(value) - penalty.l1[j]
        new = np.sign(value) * size / (bend + penalty.l2[j]) if size > 0.0 and bend > 0.0 else 0.0
        if new != beta[j]:
            changed |= np.sign(new) != np.sign(beta[j])
            _subtract(slope, new - beta[j], curvature[j, : beta.size])
            beta[j] = new
    return changed


@njit(cache=True)
def _jump(beta, slope, work, penalty):  # type: ignore[no-untyped-def]
    """Move the members to where the quadratic is flat, or as far as the first sign change; whether it got there."""
    members = work.factored[: work.sizes[1]]
    right = np.empty(members.size)
    for k in range(members.size):
        j = members[k]
        right[k] = slope[j] - np.sign(beta[j]) * penalty.l1[j] - penalty.l2[j] * beta[j]
    _solve(work.factor, right)
    share, hit = 1.0, -1
    for k in range(members.size):
        j = members[k]
        if penalty.l1[j] > 0.0 and beta[j] * (beta[j] + share * right[k]) < 0.0:
            share, hit = -beta[j] / right[k], k
    for k in range(members.size):
        j = members[k]
        move = -beta[j] if k == hit else share * right[k]
        _subtract(slope, move, work.curvature[j, : beta.size])
        beta[j] = 0.0 if k == hit else beta[j] + move
    return hit < 0


@njit(cache=True)
def _violation(beta, slope, penalty):  # type: ignore[no-untyped-def]
    """The largest departure from the optimality conditions."""
    worst = 0.0
    for j in range(beta.size):
        if beta[j] != 0.0:
            gap = abs(slope[j] - np.sign(beta[j]) * penalty.l1[j] - penalty.l2[j] * beta[j])
        else:
            gap = abs(slope[j]) - penalty.l1[j]
        worst = max(worst, gap)
    return worst


@njit(cache=True)
def _minimise(beta, slope, work, penalty, goal):  # type: ignore[no-untyped-def]
    """Minimise the quadratic with slope (a,) at beta (a,), both changed in place."""
    for turn in range(_MAX_PASSES):
        changed = _sweep(beta, slope, work.curvature, penalty)
        if _violation(beta, slope, penalty) <= goal:
            return
        if changed and turn % _PASSES_BEFORE_SOLVE != _PASSES_BEFORE_SOLVE - 1:
            continue
        if _factorise(work, beta, penalty) and _jump(beta, slope, work, penalty):
            if _violation(beta, slope, penalty) <= goal:
                return


class WorkingSet(NamedTuple):
    """Features that may be non-zero, and the curvature of the log partial likelihood over n on them; room for more.

    sizes: [features in use, rows of the factor in use]; members (room,) the features; raw (room, n) their rows of z;
    eta (n,) where the curvature was computed. The curvature (room, room) is spread spread' - drift drift': spread
    (room, n) are the rows times the root of the expected events, drift (room, m) their means in the m risk sets with
    events times the root of the events. factored (room,): places whose curvature `factor` (room, room) is the lower
    Cholesky factor of.
    """

    sizes: NDArray[np.int64]
    members: NDArray[np.int64]
    raw: Matrix
    eta: Vector
    spread: NDArray[np.float32]
    drift: NDArray[np.float32]
    curvature: NDArray[np.float32]
    factored: NDArray[np.int64]
    factor: NDArray[np.float32]


@njit(cache=True)
def _halves(raw, eta, outcome):  # type: ignore[no-untyped-def]
    """(spread, drift) of rows (a, n) at eta."""
    n, groups = eta.size, outcome.start.size - 1
    relative, at_risk, mass = outcome.weight * np.exp(eta - eta.max()), np.zeros(groups), np.zeros(groups)
    s0 = 0.0
    for g in range(groups):
        for i in range(outcome.start[g], outcome.start[g + 1]):
            s0 += relative[i]
            mass[g] += outcome.weight[i] if outcome.event[i] else 0.0
        at_risk[g] = s0
    ends = np.flatnonzero(mass)
    root, hazard = np.empty(n), 0.0
    for g in range(groups - 1, -1, -1):
        hazard += mass[g] / at_risk[g]
        for i in range(outcome.start[g], outcome.start[g + 1]):
            root[i] = np.sqrt(relative[i] * hazard / n)
    spread = np.empty(raw.shape, np.float32)
    drift = np.empty((raw.shape[0], ends.size), np.float32)
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
    return spread, drift


@njit(cache=True)
def _room(room, n, m):  # type: ignore[no-untyped-def]
    """An empty working set with room for so many features."""
    return WorkingSet(np.zeros(2, np.int64), np.empty(room, np.int64), np.empty((room, n)), np.empty(n),
                      np.empty((room, n), np.float32), np.empty((room, m), np.float32),
                      np.empty((room, room), np.float32), np.empty(room, np.int64),
                      np.empty((room, room), np.float32))


@njit(cache=True)
def _append(z, work, new, outcome):  # type: ignore[no-untyped-def]
    """Take in more features, curvature where it was; returns the working set, moved when there was no room."""
    a, b = work.sizes[0], work.sizes[0] + new.size
    if b > work.members.size:
        larger = _room(2 * b, z.shape[1], work.drift.shape[1])
        larger.members[:a], larger.raw[:a], larger.eta[:] = work.members[:a], work.raw[:a], work.eta
        larger.spread[:a], larger.drift[:a] = work.spread[:a], work.drift[:a]
        larger.curvature[:a, :a] = work.curvature[:a, :a]
        work = larger
    for k in range(new.size):
        work.raw[a + k] = z[new[k]]
    work.members[a:b] = new
    work.spread[a:b], work.drift[a:b] = _halves(work.raw[a:b], work.eta, outcome)
    block = np.dot(work.spread[:b], work.spread[a:b].T) - np.dot(work.drift[:b], work.drift[a:b].T)
    work.curvature[:b, a:b] = block
    work.curvature[a:b, :b] = block.T
    work.sizes[0] = b
    return work


@njit(cache=True)
def _renew(work, eta, outcome):  # type: ignore[no-untyped-def]
    """Compute the curvature again, at eta."""
    a = work.sizes[0]
    work.sizes[1] = 0
    work.eta[:] = eta
    work.spread[:a], work.drift[:a] = _halves(work.raw[:a], eta, outcome)
    work.curvature[:a, :a] = np.dot(work.spread[:a], work.spread[:a].T) - np.dot(work.drift[:a], work.drift[:a].T)


@njit(cache=True)
def _size(beta, penalty):  # type: ignore[no-untyped-def]
    """The penalty of coefficients (a,)."""
    return np.sum(penalty.l1 * np.abs(beta) + 0.5 * penalty.l2 * beta**2)


@njit(cache=True)
def _optimum(outcome, work, beta, eta, penalty, goal, residual):  # type: ignore[no-untyped-def]
    """Minimise over the working set at one penalty; beta (a,), eta and residual are changed in place.

    Returns the log likelihood over n.
    """
    raw = work.raw[: beta.size]
    loglik = working(eta, outcome, residual)
    slope = np.dot(raw, residual)
    before = _violation(beta, slope, penalty)
    stale = np.abs(eta - work.eta).max() > _MOVED
    for _ in range(_MAX_STEPS):
        if before <= goal:
            break
        if stale:
            _renew(work, eta, outcome)
        old, start, objective = beta.copy(), eta.copy(), -loglik + _size(beta, penalty)
        _minimise(beta, slope, work, penalty, max(0.03 * before, 0.3 * goal))
        for _half in range(30):
            eta[:] = start + np.dot(beta - old, raw)
            loglik = working(eta, outcome, residual)
            if -loglik + _size(beta, penalty) <= objective + 1e-13:
                break
            beta[:] = 0.5 * (old + beta)
        slope = np.dot(raw, residual)
        after = _violation(beta, slope, penalty)
        stale = after > 0.5 * before or np.abs(eta - work.eta).max() > _MOVED
        before = after
    return loglik


@njit(cache=True)
def _gradients(z, single, norm, residual, seen, floor):  # type: ignore[no-untyped-def]
    """(looked, slack): the gradients (p,) whose size could reach `floor` (p,), nan for the others, and how far off
    they may be (p,).

    `seen` is (residual, gradient) of the last time all were computed, from `single`, a copy of z in single precision;
    when a good part could reach the floor all are computed again.
    """
    slack = _SINGLE * np.sqrt(_dot(residual, residual)) * norm
    apart = np.sqrt(_dot(residual - seen[0], residual - seen[0]))
    near = np.abs(seen[1]) + apart * norm + slack >= floor
    if near.sum() > norm.size // 5:
        seen[0][:] = residual
        seen[1][:] = np.dot(single, residual.astype(np.float32))
        return np.where(np.abs(seen[1]) + slack >= floor, seen[1], np.nan), slack
    looked = np.full(norm.size, np.nan)
    for j in range(norm.size):
        if near[j]:
            looked[j] = _dot(z[j], residual)
    return looked, slack


@njit(cache=True)
def _missed(z, residual, looked, slack, bound, inside):  # type: ignore[no-untyped-def]
    """(p,) whether a feature outside the working set breaks the optimality conditions."""
    out = np.abs(looked) + slack > bound
    out[inside] = False
    for j in np.flatnonzero(out):
        looked[j] = _dot(z[j], residual)
        out[j] = abs(looked[j]) > bound[j]
    return out


@njit(cache=True)
def path(z, outcome, lambdas, alpha, factor, tol, may_stop, saturated):  # type: ignore[no-untyped-def]
    """Coefficients (L, p) and log partial likelihoods (L,) along falling penalties; fewer rows when it stops early."""
    p, n = z.shape
    beta, eta = np.zeros(p), np.zeros(n)
    residual = np.empty(n)
    coefs, logliks = np.zeros((lambdas.size, p)), np.zeros(lambdas.size)
    null = n * working(eta, outcome, residual)
    single, norm = z.astype(np.float32), np.empty(p)
    for j in range(p):
        norm[j] = np.sqrt(_dot(z[j], z[j]))
    looked = np.dot(z, residual)
    seen = (residual.copy(), looked.copy())
    work = _room(64, n, _halves(z[:1], eta, outcome)[1].shape[1])
    work.eta[:] = eta
    previous = lambdas[0]
    for k in range(lambdas.size):
        full = Penalty(lambdas[k] * alpha * factor, lambdas[k] * (1.0 - alpha) * factor)
        wanted = (norm > 0.0) & ((beta != 0.0) | (np.abs(looked) >= alpha * factor * (2.0 * lambdas[k] - previous)))
        following = lambdas[min(k + 1, lambdas.size - 1)]
        floor = alpha * factor * min(2.0 * following - lambdas[k], lambdas[k])
        if np.abs(eta - work.eta).max() > _MOVED or work.sizes[0] > 2 * wanted.sum() + 20:
            work.sizes[:] = 0
            work.eta[:] = eta
        while True:
            wanted[work.members[: work.sizes[0]]] = False
            new = np.flatnonzero(wanted)
            if new.size > 0:
                work = _append(z, work, new, outcome)
            inside = work.members[: work.sizes[0]]
            mine, values = Penalty(full.l1[inside], full.l2[inside]), beta[inside]
            goal = tol * max(lambdas[k], _SMALLEST)
            loglik = _optimum(outcome, work, values, eta, mine, goal, residual)
            beta[inside] = values
            looked, slack = _gradients(z, single, norm, residual, seen, floor)
            wanted = _missed(z, residual, looked, slack, full.l1 + goal, inside)
            if not wanted.any():
                break
        coefs[k], logliks[k], previous = beta, n * loglik, lambdas[k]
        if may_stop and k + 1 >= _FEW_STEPS:
            explained, before = logliks[k] - null, logliks[k + 1 - _FEW_STEPS] - null
            if explained > _ENOUGH * (saturated - null) or explained - before < _SMALL_GAIN * explained:
                return coefs[: k + 1], logliks[: k + 1]
    return coefs, logliks
