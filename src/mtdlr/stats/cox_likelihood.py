"""The Cox partial likelihood: risk sets, its value and derivatives, and its maximum by Newton's method.

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
    """The risk sets of n rows: time (n,), event (n,) and stratum codes (n,) or None for one stratum."""
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


def sorted_rows(x: Matrix, weight: Vector, sets: RiskSets, *, efron: bool) -> SortedRows:
    """Rows that each stand for one patient; x (n, p) and weight (n,) in sorted order."""
    return SortedRows(np.ascontiguousarray(x), weight, np.ones(weight.size), sets.event, sets.start, sets.fresh, efron)


@njit(cache=True, error_model="numpy")
def _add(r, x, s1, s2):  # type: ignore[no-untyped-def]
    """Add one row of relative risk r to the sums of x and of its products (lower half)."""
    for a in range(x.size):
        rx = r * x[a]
        s1[a] += rx
        for b in range(a + 1):
            s2[a, b] += rx * x[b]


@njit(cache=True, error_model="numpy")
def rescaled(eta, weight, first, last, shift, s0, s1, s2):  # type: ignore[no-untyped-def]
    """A new shift, and s0 brought to it (s1 and s2 in place), where a row stands far above the shift or is the first:
    each risk set is summed on its own scale, so that none overflows or vanishes beside another."""
    highest = -np.inf
    for i in range(first, last):
        if weight[i] > 0.0:
            highest = max(highest, eta[i])
    if s0 == 0.0:
        return max(highest, -1e300), 0.0
    if highest <= shift + _SLACK:
        return shift, s0
    factor = np.exp(shift - highest)
    s1 *= factor
    s2 *= factor
    return highest, s0 * factor


@njit(cache=True, error_model="numpy")
def _add_rows(rows, eta, shift, first, last, s1, s2):  # type: ignore[no-untyped-def]
    """Add some rows to s1 and s2; returns the sum of their relative risks."""
    s0 = 0.0
    if last - first < _MANY:
        for i in range(first, last):
            if rows.weight[i] > 0.0:
                r = rows.weight[i] * np.exp(eta[i] - shift)
                s0 += r
                _add(r, rows.x[i], s1, s2)
        return s0
    for lo in range(first, last, _BLOCK):
        x = rows.x[lo : min(lo + _BLOCK, last)]
        r = np.zeros(len(x))
        for k in range(len(x)):
            if rows.weight[lo + k] > 0.0:
                r[k] = rows.weight[lo + k] * np.exp(eta[lo + k] - shift)
        s0 += r.sum()
        s1 += np.dot(r, x)
        s2 += np.dot((x * r.reshape(-1, 1)).T, x)
    return s0


@njit(cache=True, error_model="numpy")
def derivatives(rows, eta, score, info):  # type: ignore[no-untyped-def]
    """The log partial likelihood at eta (n,); fills its gradient (p,) and its negative Hessian (p, p), lower half.

    With d tied events term j has the risk set s + v t, v = (d - j) / d: t is the sum over the tied rows, s over those
    who live longer. The sums over the terms are taken of the powers of v alone, so a tie costs what one event costs.
    """
    p = rows.x.shape[1]
    score[:] = 0.0
    info[:, :] = 0.0
    s0, s1, s2 = 0.0, np.zeros(p), np.zeros((p, p))
    t1, t2 = np.zeros(p), np.zeros((p, p))
    loglik, shift = 0.0, 0.0
    for g in range(rows.fresh.size):
        first, last = rows.start[g], rows.start[g + 1]
        if rows.fresh[g]:
            s0 = 0.0
            s1[:] = 0.0
            s2[:, :] = 0.0
        shift, s0 = rescaled(eta, rows.weight, first, last, shift, s0, s1, s2)
        deaths, mass, dead = 0.0, 0.0, last  # where the events of the group begin
        while dead > first and rows.event[dead - 1]:
            dead -= 1
            if rows.weight[dead] > 0.0:
                deaths += rows.patients[dead]
                mass += rows.weight[dead]
                loglik += rows.weight[dead] * (eta[dead] - shift)
                score += rows.weight[dead] * rows.x[dead]
        s0 += _add_rows(rows, eta, shift, first, dead, s1, s2)
        if deaths == 0.0:
            continue
        terms = int(deaths) if rows.efron else 1
        if terms == 1:
            s0 += _add_rows(rows, eta, shift, dead, last, s1, s2)
            loglik -= mass * np.log(s0)
            step = mass / s0
            for a in range(p):
                score[a] -= step * s1[a]
                for b in range(a + 1):
                    info[a, b] += step * (s2[a, b] - s1[a] * s1[b] / s0)
            continue
        t1[:] = 0.0
        t2[:, :] = 0.0
        t0 = _add_rows(rows, eta, shift, dead, last, t1, t2)
        share, c0, c1, d0, d1, d2 = mass / terms, 0.0, 0.0, 0.0, 0.0, 0.0
        for j in range(terms):
            v = (terms - j) / terms
            at_risk = s0 + v * t0
            loglik -= share * np.log(at_risk)
            step = share / at_risk
            c0 += step
            c1 += step * v
            d0 += step / at_risk
            d1 += step * v / at_risk
            d2 += step * v * v / at_risk
        for a in range(p):
            score[a] -= c0 * s1[a] + c1 * t1[a]
            for b in range(a + 1):
                info[a, b] += (c0 * s2[a, b] + c1 * t2[a, b] - d0 * s1[a] * s1[b] - d2 * t1[a] * t1[b]
                               - d1 * (s1[a] * t1[b] + t1[a] * s1[b]))
        s0 += t0
        s1 += t1
        s2 += t2
    return loglik


@njit(cache=True, error_model="numpy")
def solve_lower(info, right, factor):  # type: ignore[no-untyped-def]
    """Solve info @ step = right from the lower half of info by Cholesky; False when it is not positive definite."""
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
def newton(rows, offset, start, max_iter, tol):  # type: ignore[no-untyped-def]
    """Maximise the partial likelihood from beta = 0, where its value, score and information are `start`.

    Stops once the Newton decrement (twice the gain still promised by the quadratic) is below `tol`, having taken that
    last step; under a monotone likelihood the last step stays long, which is how the caller knows.
    Returns (beta, loglik, info, last step, converged).
    """
    p = rows.x.shape[1]
    beta, step = np.zeros(p), np.zeros(p)
    loglik, score, info = start[0], start[1].copy(), start[2].copy()
    trial_score, trial_info, factor = np.zeros(p), np.zeros((p, p)), np.zeros((p, p))
    converged = False
    for _ in range(max_iter):
        good, step = solve_lower(info, score, factor)
        if not good:
            break
        converged = np.sum(step * score) < tol
        gained = False
        for _half in range(30):
            trial = beta + step
            value = derivatives(rows, offset + np.dot(rows.x, trial), trial_score, trial_info)
            if value >= loglik - 1e-12 * (abs(loglik) + 1.0):
                gained = True
                break
            step = step * 0.5
        if not gained:
            converged = False
            break
        beta, loglik = trial, value
        score[:] = trial_score
        info[:, :] = trial_info
        if converged:
            break
    return beta, loglik, info, step, converged


@njit(cache=True, error_model="numpy")
def at_zero(rows, offset):  # type: ignore[no-untyped-def]
    """The `start` of `newton`: value, score and information at beta = 0."""
    p = rows.x.shape[1]
    score, info = np.zeros(p), np.zeros((p, p))
    loglik = derivatives(rows, offset, score, info)
    return loglik, score, info


@dataclass(frozen=True, eq=False)
class EventTerms:
    """The terms of the log partial likelihood at one beta, latest event first; rows are in sorted order.

    Args:
        group: (m,), the tie group of the term.
        share: (m,), its weight in the likelihood.
        log_at_risk: (m,), log of the sum of weight * exp(eta) over its risk set.
        out: (m,), the share of the tied rows taken out of it (Efron; 0 in Breslow's terms).
        mean: (m, p), the weighted mean of x in its risk set.
        log_relative: (n,), log(weight) + eta of the rows; -inf for a row of weight 0.
    """

    group: Index
    share: Vector
    log_at_risk: Vector
    out: Vector
    mean: Matrix
    log_relative: Vector


def event_terms(rows: SortedRows, eta: Vector) -> EventTerms:
    """The terms of the likelihood at eta (n,), in sorted order."""
    with np.errstate(divide="ignore"):
        log_relative = np.log(rows.weight) + eta
    group, share, log_at_risk, out, mean = _event_terms(rows, log_relative)
    return EventTerms(group, share, log_at_risk, out, mean, log_relative)


@njit(cache=True, error_model="numpy")
def _event_terms(rows, eta):  # type: ignore[no-untyped-def]
    """The arrays of EventTerms; eta (n,) holds the weights."""
    p, m = rows.x.shape[1], int(rows.event.sum())
    group, share, log_at_risk, out = np.zeros(m, np.int64), np.zeros(m), np.zeros(m), np.zeros(m)
    mean = np.zeros((m, p))
    s0, s1, t1, none = 0.0, np.zeros(p), np.zeros(p), np.zeros((0, 0))
    k, shift = 0, 0.0
    for g in range(rows.fresh.size):
        if rows.fresh[g]:
            s0 = 0.0
            s1[:] = 0.0
        first, last = rows.start[g], rows.start[g + 1]
        shift, s0 = rescaled(eta, rows.weight, first, last, shift, s0, s1, none)
        deaths, mass, t0 = 0, 0.0, 0.0
        t1[:] = 0.0
        for i in range(first, last):
            r = np.exp(eta[i] - shift)
            if rows.event[i] and rows.weight[i] > 0.0:
                deaths += 1
                mass += rows.weight[i]
                t0 += r
                t1 += r * rows.x[i]
            else:
                s0 += r
                s1 += r * rows.x[i]
        terms = deaths if rows.efron else min(deaths, 1)
        for j in range(terms):
            v = (terms - j) / terms
            group[k], share[k], out[k] = g, mass / terms, j / terms
            at_risk = s0 + v * t0
            log_at_risk[k] = shift + np.log(at_risk)
            mean[k] = (s1 + v * t1) / at_risk
            k += 1
        s0 += t0
        s1 += t1
    return group[:k], share[:k], log_at_risk[:k], out[:k], mean[:k]


def accumulated(terms: EventTerms, sets: RiskSets, values: NDArray) -> NDArray:
    """For each sorted row i, the sum of w_i exp(eta_i) / at_risk * `values` (m,) or (m, k) over the terms whose risk
    set holds it; with `values` = share it is the expected number of events of the row.

    A row that dies at the time of a term is in it by 1 - out (Efron's average over the order of the tied deaths).
    """
    flat = values[:, None] if values.ndim == 1 else values
    rows = _accumulated(sets.start, sets.fresh, sets.event, terms.log_relative, terms.group, terms.log_at_risk,
                        terms.out, np.ascontiguousarray(flat))
    return np.asarray(rows[:, 0] if values.ndim == 1 else rows)


@njit(cache=True, error_model="numpy")
def _accumulated(start, fresh, event, log_relative, group, log_at_risk, out, values):  # type: ignore[no-untyped-def]
    """The sums of `accumulated`, from the earliest time of each stratum on, scaled by the latest term."""
    rows, total = np.zeros((log_relative.size, values.shape[1])), np.zeros(values.shape[1])
    tied, scale, t = np.zeros(values.shape[1]), -np.inf, group.size - 1
    for g in range(fresh.size - 1, -1, -1):
        tied[:] = 0.0
        while t >= 0 and group[t] == g:
            if -log_at_risk[t] > scale:
                factor = np.exp(scale + log_at_risk[t])
                total *= factor
                tied *= factor
                scale = -log_at_risk[t]
            share = np.exp(-log_at_risk[t] - scale)
            total += share * values[t]
            tied += share * out[t] * values[t]
            t -= 1
        for i in range(start[g], start[g + 1]):
            if scale > -np.inf:
                rows[i] = np.exp(log_relative[i] + scale) * (total - tied if event[i] else total)
        if fresh[g]:
            total[:] = 0.0
            scale = -np.inf
    return rows
