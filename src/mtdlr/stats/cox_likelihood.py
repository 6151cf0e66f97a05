"""The Cox partial likelihood: risk sets, its value and derivatives.

Rows are sorted once, by stratum and then from the longest follow-up to the shortest, so that each risk set is a running
sum. With Efron's correction the d tied events of one time make d terms, term j with the share j/d of the tied rows
taken out of the risk set; with Breslow's they make one. `patients` says how many patients a row stands for (bootstrap
resamples are counts of the sorted rows, never new rows); `weight` how much each row counts in the likelihood.
Reference: Therneau and Grambsch, Modeling Survival Data (2000), chapter 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
Index = NDArray[np.int64]

_SLACK = 100.0  # a row this far above the scale of its risk set gives the set a new scale
_MANY = 32  # rows at one time from which BLAS adds them faster than a loop,
_BLOCK = 512  # which stay in the processor's cache


@dataclass(frozen=True, eq=False)
class RiskSets:
    """The order of the rows and the tie groups in it.

    Args:
        order: (n,), sorted position -> row: stratum rising, time falling, at one time the censored first.
        start: (groups + 1,), where the rows of each stratum and time begin in that order.
        fresh: (groups,), whether the group is the first of its stratum.
        time: (groups,), the time of the group.
        stratum: (groups,), the stratum code of the group.
        event: (n,), event indicator in sorted order.
    """

    order: Index
    start: Index
    fresh: NDArray[np.bool_]
    time: Vector
    stratum: Index
    event: NDArray[np.bool_]

    @property
    def group(self) -> Index:
        """(n,), the group of each sorted row."""
        return np.repeat(np.arange(self.time.size), np.diff(self.start))


def risk_sets(time: Vector, event: NDArray[np.bool_], strata: Index | None = None) -> RiskSets:
    """The risk sets of n rows.

    Args:
        time: (n,) follow-up in months.
        event: (n,) event indicator.
        strata: (n,) stratum codes; None for one stratum.
    """
    codes = np.zeros(time.size, dtype=np.int64) if strata is None else strata
    censored_first = np.append(np.flatnonzero(~event), np.flatnonzero(event))
    late = np.argsort(-time[censored_first], kind="stable")
    order = censored_first[late if strata is None else late[np.argsort(codes[censored_first][late], kind="stable")]]
    t, s = time[order], codes[order]
    new_stratum = np.append(True, s[1:] != s[:-1])
    begins = np.flatnonzero(new_stratum | np.append(True, t[1:] != t[:-1]))
    start = np.append(begins, time.size).astype(np.int64)
    return RiskSets(order, start, new_stratum[begins], t[begins], s[begins], event[order])


class SortedRows(NamedTuple):
    """The rows in the order of their risk sets, as one value the compiled functions take (they take no dataclass).

    x (n, p); weight (n,) in the likelihood; patients (n,) a row stands for; event (n,); start and fresh as in
    RiskSets; efron: how ties are treated.
    """

    x: Matrix
    weight: Vector
    patients: Vector
    event: NDArray[np.bool_]
    start: Index
    fresh: NDArray[np.bool_]
    efron: bool


class Start(NamedTuple):
    """Value, gradient (p,) and information (p, p; lower half) of the log partial likelihood at coefficients of 0."""

    loglik: float
    score: Vector
    info: Matrix


def sorted_rows(x: Matrix, weight: Vector, sets: RiskSets, *, efron: bool) -> SortedRows:
    """Rows that each stand for one patient.

    Args:
        x: (n, p) in sorted order.
        weight: (n,) weights >= 0 in the likelihood, in sorted order.
        sets: the risk sets of the rows.
        efron: True for Efron's treatment of ties, False for Breslow's.
    """
    return SortedRows(np.ascontiguousarray(x), weight, np.ones(weight.size), sets.event, sets.start, sets.fresh, efron)


@njit(cache=True, error_model="numpy", inline="always")
def rescaled(eta, weight, span, shift, s0, s1, s2):  # type: ignore[no-untyped-def]
    """A new shift, and s0 brought to it (s1 and s2 in place), where a row stands far above the shift or is the first:
    each risk set is summed on its own scale, so that none overflows or vanishes beside another.

    Args:
        eta: (n,) log relative hazards in sorted order.
        weight: (n,) weights of the rows; a row of weight 0 sets no scale.
        span: first row of the group that enters, and the row after its last.
        shift: present scale: sums hold exp(eta - shift).
        s0: present sum of relative hazards; 0 when no row has entered.
        s1: (p,) present sum of x times relative hazard, changed in place.
        s2: (p, p) present sum of x x' times relative hazard, changed in place; (0, 0) where it is not needed.

    Returns:
        (shift, s0) on the scale that holds from here.
    """
    highest = -np.inf
    for i in range(span[0], span[1]):
        if weight[i] > 0.0:
            highest = max(highest, eta[i])
    if s0 == 0.0:
        return max(highest, -1e300), 0.0
    if highest <= shift + _SLACK:
        return shift, s0
    factor = np.exp(shift - highest)
    for a in range(s1.size):
        s1[a] *= factor
    for a in range(s2.shape[0]):
        for b in range(s2.shape[1]):
            s2[a, b] *= factor
    return highest, s0 * factor


@njit(cache=True, error_model="numpy")
def _add_block(x, weight, eta, shift, span, s1, s2):  # type: ignore[no-untyped-def]
    """Add many rows to s1 and s2 by BLAS; returns the sum of their relative risks."""
    (first, last), s0, p = span, 0.0, s1.size
    scaled, r = np.empty((min(_BLOCK, last - first), p)), np.empty(min(_BLOCK, last - first))
    for lo in range(first, last, _BLOCK):
        n = min(_BLOCK, last - lo)
        total = 0.0
        for k in range(n):
            r[k] = weight[lo + k] * np.exp(eta[lo + k] - shift) if weight[lo + k] > 0.0 else 0.0
            total += r[k]
            for a in range(p):
                scaled[k, a] = x[lo + k, a] * r[k]
        s0 += total
        part, squares = np.dot(r[:n], x[lo:lo + n]), np.dot(scaled[:n].T, x[lo:lo + n])
        for a in range(p):
            s1[a] += part[a]
            for b in range(a + 1):
                s2[a, b] += squares[a, b]
    return s0


@njit(cache=True, error_model="numpy", inline="always")
def _add_rows(rows, eta, shift, first, last, s1, s2):  # type: ignore[no-untyped-def]
    """Add some rows to s1 and s2; returns the sum of their relative risks. Called in one place: each is compiled."""
    s0, p = 0.0, s1.size
    if last - first >= _MANY:
        s0 = _add_block(rows.x, rows.weight, eta, shift, (first, last), s1, s2)
    else:
        for i in range(first, last):
            if rows.weight[i] > 0.0:
                r = rows.weight[i] * np.exp(eta[i] - shift)
                s0 += r
                for a in range(p):
                    rx = r * rows.x[i, a]
                    s1[a] += rx
                    for b in range(a + 1):
                        s2[a, b] += rx * rows.x[i, b]
    return s0


@njit(cache=True, error_model="numpy")
def _add_event(score, info, step, s0, s1, s2):  # type: ignore[no-untyped-def]
    """Add a term without ties to the gradient and to the negative Hessian, lower half."""
    for a in range(score.size):
        score[a] -= step * s1[a]
        for b in range(a + 1):
            info[a, b] += step * (s2[a, b] - s1[a] * s1[b] / s0)


@njit(cache=True, error_model="numpy")
def _tied_terms(share, terms, s0, t0):  # type: ignore[no-untyped-def]
    """Sums over the terms of one time, each of weight `share`: of their log risk sets, and of the powers of v in their
    derivatives."""
    logs, c0, c1, d0, d1, d2 = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    for j in range(terms):
        v = (terms - j) / terms
        at_risk = s0 + v * t0
        logs += share * np.log(at_risk)
        step = share / at_risk
        c0 += step
        c1 += step * v
        d0 += step / at_risk
        d1 += step * v / at_risk
        d2 += step * v * v / at_risk
    return logs, (c0, c1, d0, d1, d2)


@njit(cache=True, error_model="numpy")
def _add_tied(score, info, powers, s1, s2, t1, t2):  # type: ignore[no-untyped-def]
    """As `_add_event` for the terms of one time, whose `powers` are of `_tied_terms`."""
    c0, c1, d0, d1, d2 = powers
    for a in range(score.size):
        score[a] -= c0 * s1[a] + c1 * t1[a]
        for b in range(a + 1):
            info[a, b] += (c0 * s2[a, b] + c1 * t2[a, b] - d0 * s1[a] * s1[b] - d2 * t1[a] * t1[b]
                           - d1 * (s1[a] * t1[b] + t1[a] * s1[b]))


@njit(cache=True, error_model="numpy", inline="always")
def clear(vector):  # type: ignore[no-untyped-def]
    """Set a vector to 0; a loop, since an assignment to a slice takes the compiler seconds.

    Args:
        vector: (n,), changed.
    """
    for a in range(vector.size):
        vector[a] = 0.0


@njit(cache=True, error_model="numpy", inline="always")
def add_scaled(total, factor, values):  # type: ignore[no-untyped-def]
    """total += factor * values, in place and without room for the product.

    Args:
        total: (n,), changed.
        factor: a number.
        values: (n,).
    """
    for a in range(total.size):
        total[a] += factor * values[a]


@njit(cache=True, error_model="numpy", inline="always")
def _clear_lower(square):  # type: ignore[no-untyped-def]
    """Set the lower half of a matrix to 0."""
    for a in range(len(square)):
        for b in range(a + 1):
            square[a, b] = 0.0


@njit(cache=True, error_model="numpy", inline="always")
def _add_lower(total, square):  # type: ignore[no-untyped-def]
    """Add the lower half of a matrix to another's."""
    for a in range(len(total)):
        for b in range(a + 1):
            total[a, b] += square[a, b]


@njit(cache=True, error_model="numpy", inline="always")
def _events(rows, eta, shift, first, last, score):  # type: ignore[no-untyped-def]
    """Where the events of a group begin, how many patients and what weight they are, and the sum of their log relative
    hazards; their rows are added to the gradient."""
    deaths, mass, total, dead = 0.0, 0.0, 0.0, last
    while dead > first and rows.event[dead - 1]:
        dead -= 1
        if rows.weight[dead] > 0.0:
            deaths += rows.patients[dead]
            mass += rows.weight[dead]
            total += rows.weight[dead] * (eta[dead] - shift)
            add_scaled(score, rows.weight[dead], rows.x[dead])
    return dead, deaths, mass, total


@njit(cache=True, error_model="numpy")
def derivatives(rows, eta, score, info):  # type: ignore[no-untyped-def]
    """The log partial likelihood at eta (n,); fills its gradient (p,) and its negative Hessian (p, p), lower half.

    With d tied events term j has the risk set s + v t, v = (d - j) / d: t is the sum over the tied rows, s over those
    who live longer. The sums over the terms are taken of the powers of v alone, so a tie costs what one event costs.

    Args:
        rows: SortedRows of n rows and p columns.
        eta: (n,) linear predictor, offset included.
        score: (p,) filled with the gradient.
        info: (p, p) filled with the negative Hessian, lower half.

    Returns:
        The log partial likelihood.
    """
    p = rows.x.shape[1]
    s0, s1, s2 = 0.0, np.zeros(p), np.zeros((p, p))
    t1, t2 = np.zeros(p), np.zeros((p, p))
    loglik, shift = 0.0, 0.0
    clear(score)
    _clear_lower(info)
    for g in range(rows.fresh.size):
        first, last = rows.start[g], rows.start[g + 1]
        if rows.fresh[g]:
            s0 = 0.0
            clear(s1)
            _clear_lower(s2)
        shift, s0 = rescaled(eta, rows.weight, (first, last), shift, s0, s1, s2)
        dead, deaths, mass, total = _events(rows, eta, shift, first, last, score)
        loglik += total
        terms = int(deaths) if rows.efron else 1
        t0 = 0.0
        for dying in range(2 if deaths > 0.0 else 1):
            lo, hi = (dead, last) if dying else (first, dead)
            apart = dying == 1 and terms > 1
            u1, u2 = (t1, t2) if apart else (s1, s2)
            if apart:
                clear(t1)
                _clear_lower(t2)
            u0 = _add_rows(rows, eta, shift, lo, hi, u1, u2)
            if apart:
                t0 = u0
            else:
                s0 += u0
        if deaths == 0.0:
            continue
        if terms == 1:
            loglik -= mass * np.log(s0)
            _add_event(score, info, mass / s0, s0, s1, s2)
        else:
            logs, powers = _tied_terms(mass / terms, terms, s0, t0)
            loglik -= logs
            _add_tied(score, info, powers, s1, s2, t1, t2)
            s0 += t0
            add_scaled(s1, 1.0, t1)
            _add_lower(s2, t2)
    return loglik
