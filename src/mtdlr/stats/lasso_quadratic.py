"""A quadratic with elastic-net penalty, minimised over a working set: compiled, for lasso_newton.py.

When nothing outside the support wants in, the support's equations are solved at once with a Cholesky factor that is
kept from one problem to the next: a feature that enters is a row more, one that leaves is a row turned out by plane
rotations. Otherwise coordinate descent finds the signs first. Factor and curvature are in single precision: they set
the speed, the caller's exact gradient sets the answer.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

_MAX_PASSES = 1000
_PASSES_BEFORE_SOLVE = 6
_SINGULAR = 1e-5  # share of a feature's curvature that is left given the others; below it there is no factor


class Penalty(NamedTuple):
    """Of each feature (p,), at one point of the path: l1 |b| + l2 b^2 / 2."""

    l1: Vector
    l2: Vector


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


@njit(cache=True, fastmath=True)
def dot(a, b):  # type: ignore[no-untyped-def]
    """The product of two vectors, of the first one's precision.

    Args:
        a: (n,) floats; they set the precision of the sum.
        b: (n,) floats.
    """
    total = a[:1].sum() * 0
    for i in range(a.size):
        total += a[i] * b[i]
    return total


@njit(cache=True, fastmath=True)
def subtract(u, d, v):  # type: ignore[no-untyped-def]
    """u -= d v, in place.

    Args:
        u: (n,), changed.
        d: factor.
        v: (n,).
    """
    for i in range(u.size):
        u[i] -= d * v[i]


@njit(cache=True)
def fill(into, values):  # type: ignore[no-untyped-def]
    """into[:] = values; as a loop, since an assignment to a slice takes the compiler seconds.

    Args:
        into: (n,), changed.
        values: (n,).
    """
    for i in range(into.size):
        into[i] = values[i]


@njit(cache=True)
def _turn_out(factor, first, count):  # type: ignore[no-untyped-def]
    """Take row `first` out of the lower factor of `count` rows: rotations make what is below it triangular again."""
    cosine, sine = np.empty(count, np.float32), np.empty(count, np.float32)
    for i in range(first, count - 1):
        old, new = factor[i + 1], factor[i]
        fill(new[:first], old[:first])
        carried = old[first]
        for j in range(first, i):
            new[j] = cosine[j] * carried + sine[j] * old[j + 1]
            carried = cosine[j] * old[j + 1] - sine[j] * carried
        length = np.sqrt(carried * carried + old[i + 1] * old[i + 1])
        cosine[i], sine[i], new[i] = carried / length, old[i + 1] / length, length


@njit(cache=True)
def _extend(work, count, l2):  # type: ignore[no-untyped-def]
    """Bring the factor of curvature[factored, factored] + l2 to `count` rows; False if it is not positive definite."""
    factor, held = work.factor, work.factored
    for a in range(work.sizes[1], count):
        i, row = held[a], factor[a]
        for b in range(a):
            row[b] = (work.curvature[i, held[b]] - dot(row[:b], factor[b, :b])) / factor[b, b]
        bend = work.curvature[i, i] + l2[i]
        value = bend - dot(row[:a], row[:a])
        if not value > _SINGULAR * bend:
            return False
        row[a] = np.sqrt(value)
        work.sizes[1] = a + 1
    return True


@njit(cache=True)
def _factorise(work, beta, penalty):  # type: ignore[no-untyped-def]
    """Bring the factor up to date with the features that are not 0; whether it is usable."""
    held, sizes = work.factored, work.sizes
    for k in range(sizes[1] - 1, -1, -1):
        if beta[held[k]] == 0.0:
            _turn_out(work.factor, k, sizes[1])
            sizes[1] -= 1
            for i in range(k, sizes[1]):
                held[i] = held[i + 1]
    count = sizes[1]
    is_held = np.zeros(beta.size, np.bool_)
    for k in range(count):
        is_held[held[k]] = True
    for j in range(beta.size):
        if beta[j] != 0.0 and not is_held[j]:
            held[count] = j
            count += 1
    return _extend(work, count, penalty.l2)


@njit(cache=True)
def _solve(factor, right):  # type: ignore[no-untyped-def]
    """Solve factor factor' out = right, in place."""
    a = right.size
    for i in range(a):
        right[i] = (right[i] - dot(right[:i], factor[i, :i])) / factor[i, i]
    for i in range(a - 1, -1, -1):
        right[i] /= factor[i, i]
        subtract(right[:i], right[i], factor[i, :i])


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
            subtract(slope, new - beta[j], curvature[j, : beta.size])
            beta[j] = new
    return changed


@njit(cache=True)
def _jump(beta, slope, work, penalty):  # type: ignore[no-untyped-def]
    """Move the members to where the quadratic is flat, or as far as the first sign change; whether it got there."""
    members = work.factored[: work.sizes[1]]
    right = np.empty(members.size, np.float32)
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
        subtract(slope, move, work.curvature[j, : beta.size])
        beta[j] = 0.0 if k == hit else beta[j] + move
    return hit < 0


@njit(cache=True)
def violation(beta, slope, penalty):  # type: ignore[no-untyped-def]
    """The largest departures from optimality, of coefficients that are not 0 (inside) and that are (outside).

    Args:
        beta: (a,) coefficients.
        slope: (a,) gradient of the smooth part at beta.
        penalty: l1 and l2 of the same a features.

    Returns:
        (inside, outside), both >= 0; 0 and 0 at the optimum.
    """
    inside = outside = 0.0
    for j in range(beta.size):
        if beta[j] != 0.0:
            inside = max(inside, abs(slope[j] - np.sign(beta[j]) * penalty.l1[j] - penalty.l2[j] * beta[j]))
        else:
            outside = max(outside, abs(slope[j]) - penalty.l1[j])
    return inside, outside


@njit(cache=True)
def minimise(beta, slope, work, penalty, goal):  # type: ignore[no-untyped-def]
    """Minimise the quadratic with its penalty until no optimality condition is broken by more than `goal`.

    Args:
        beta: (a,) coefficients, changed in place.
        slope: (a,) gradient of the quadratic at beta, changed in place.
        work: the working set of a features; its Cholesky factor is kept up to date in place.
        penalty: l1 and l2 of the same a features.
        goal: largest departure allowed.
    """
    inside, outside = violation(beta, slope, penalty)
    signs_known = outside <= goal
    for turn in range(_MAX_PASSES):
        if not signs_known:
            changed = _sweep(beta, slope, work.curvature, penalty)
            inside, outside = violation(beta, slope, penalty)
            if max(inside, outside) <= goal:
                return
            if changed and turn % _PASSES_BEFORE_SOLVE != _PASSES_BEFORE_SOLVE - 1:
                continue
        signs_known = False
        if _factorise(work, beta, penalty):
            arrived = _jump(beta, slope, work, penalty)
            inside, outside = violation(beta, slope, penalty)
            if max(inside, outside) <= goal:
                return
            signs_known = outside <= goal and not arrived
