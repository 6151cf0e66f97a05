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


@dataclass(frozen=True, eq=False)
class RiskSets:
    """The order of the rows and the tie groups in it.

    Args:
        order: (n,), sorted position -> row: stratum rising, time falling.
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
    order = np.lexsort((-time, codes)) if strata is not None else np.argsort(-time, kind="stable")
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
def _tied(rows, eta, shift, first, last, t1, t2):  # type: ignore[no-untyped-def]
    """The sums over the events of one tie group; returns that of the relative risk."""
    t0 = 0.0
    t1[:] = 0.0
    t2[:, :] = 0.0
    for i in range(first, last):
        if rows.event[i] and rows.weight[i] > 0.0:
            r = rows.weight[i] * np.exp(eta[i] - shift)
            t0 += r
            _add(r, rows.x[i], t1, t2)
    return t0


@njit(cache=True, error_model="numpy")
def derivatives(rows, eta, score, info):  # type: ignore[no-untyped-def]
    """The log partial likelihood at eta (n,); fills its gradient (p,) and its negative Hessian (p, p), lower half."""
    p = rows.x.shape[1]
    score[:] = 0.0
    info[:, :] = 0.0
    s0, s1, s2 = 0.0, np.zeros(p), np.zeros((p, p))
    t0, t1, t2 = 0.0, np.zeros(p), np.zeros((p, p))
    mean = np.zeros(p)
    loglik = 0.0
    shift = eta.max()
    for g in range(rows.fresh.size):
        first, last = rows.start[g], rows.start[g + 1]
        if rows.fresh[g]:
            s0 = 0.0
            s1[:] = 0.0
            s2[:, :] = 0.0
        deaths, mass = 0.0, 0.0
        for i in range(first, last):
            weight = rows.weight[i]
            if weight == 0.0:
                continue
            r = weight * np.exp(eta[i] - shift)
            s0 += r
            _add(r, rows.x[i], s1, s2)
            if rows.event[i]:
                deaths += rows.patients[i]
                mass += weight
                loglik += weight * (eta[i] - shift)
                score += weight * rows.x[i]
        if deaths == 0.0:
            continue
        terms = int(deaths) if rows.efron else 1
        if terms > 1:
            t0 = _tied(rows, eta, shift, first, last, t1, t2)
        share = mass / terms
        for j in range(terms):
            out = j / terms
            at_risk = s0 - out * t0
            loglik -= share * np.log(at_risk)
            for a in range(p):
                mean[a] = (s1[a] - out * t1[a]) / at_risk
                score[a] -= share * mean[a]
                for b in range(a + 1):
                    info[a, b] += share * ((s2[a, b] - out * t2[a, b]) / at_risk - mean[a] * mean[b])
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
def newton(rows, offset, max_iter, tol):  # type: ignore[no-untyped-def]
    """Maximise the partial likelihood from beta = 0.

    Stops once the Newton decrement (twice the gain still promised by the quadratic) is below `tol`, having taken that
    last step; under a monotone likelihood the last step stays long, which is how the caller knows.
    Returns (beta, loglik at 0, score at 0, info at 0, loglik, info, last step, converged).
    """
    p = rows.x.shape[1]
    beta, step = np.zeros(p), np.zeros(p)
    score, trial_score = np.zeros(p), np.zeros(p)
    info, trial_info, factor = np.zeros((p, p)), np.zeros((p, p)), np.zeros((p, p))
    loglik = derivatives(rows, offset, score, info)
    null, null_score, null_info = loglik, score.copy(), info.copy()
    converged = False
    for _ in range(max_iter):
        good, step = solve_lower(info, score, factor)
        if not good:
            break
        converged = np.sum(step * score) < tol
        gained = False
        for _half in range(30):
            trial = beta + step
            eta = offset.copy()
            for a in range(p):
                eta += trial[a] * rows.x[:, a]
            value = derivatives(rows, eta, trial_score, trial_info)
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
    return beta, null, null_score, null_info, loglik, info, step, converged


@dataclass(frozen=True, eq=False)
class EventTerms:
    """The terms of the log partial likelihood at one beta, latest event first; rows are in sorted order.

    Args:
        group: (m,), the tie group of the term.
        share: (m,), its weight in the likelihood.
        at_risk: (m,), the sum of `relative` over its risk set.
        out: (m,), the share of the tied rows taken out of it (Efron; 0 in Breslow's terms).
        mean: (m, p), the weighted mean of x in its risk set.
        relative: (n,), weight * exp(eta - shift) of the rows.
        shift: the eta that has relative risk 1.
    """

    group: Index
    share: Vector
    at_risk: Vector
    out: Vector
    mean: Matrix
    relative: Vector
    shift: float

    @property
    def log_at_risk(self) -> Vector:
        """(m,) log of at_risk."""
        result: Vector = np.log(self.at_risk)
        return result


def event_terms(rows: SortedRows, eta: Vector, sets: RiskSets) -> EventTerms:
    """The terms of the likelihood at eta (n,), in sorted order."""
    shift = float(eta.max())
    relative = rows.weight * np.exp(eta - shift)
    group, share, at_risk, out, mean = _event_terms(rows, relative)
    return EventTerms(group, share, at_risk, out, mean, relative, shift)


@njit(cache=True, error_model="numpy")
def _event_terms(rows, relative):  # type: ignore[no-untyped-def]
    """The arrays of EventTerms."""
    p, m = rows.x.shape[1], int(rows.event.sum())
    group, share, at_risk, out = np.zeros(m, np.int64), np.zeros(m), np.zeros(m), np.zeros(m)
    mean = np.zeros((m, p))
    s0, s1, t1 = 0.0, np.zeros(p), np.zeros(p)
    k = 0
    for g in range(rows.fresh.size):
        if rows.fresh[g]:
            s0 = 0.0
            s1[:] = 0.0
        deaths, mass, t0 = 0, 0.0, 0.0
        t1[:] = 0.0
        for i in range(rows.start[g], rows.start[g + 1]):
            r = relative[i]
            s0 += r
            s1 += r * rows.x[i]
            if rows.event[i] and rows.weight[i] > 0.0:
                deaths += 1
                mass += rows.weight[i]
                t0 += r
                t1 += r * rows.x[i]
        terms = deaths if rows.efron else min(deaths, 1)
        for j in range(terms):
            group[k], share[k], out[k] = g, mass / terms, j / terms
            at_risk[k] = s0 - out[k] * t0
            mean[k] = (s1 - out[k] * t1) / at_risk[k]
            k += 1
    return group[:k], share[:k], at_risk[:k], out[:k], mean[:k]


def accumulated(terms: EventTerms, sets: RiskSets, values: NDArray) -> NDArray:
    """For each sorted row, the sum of `values` (m,) or (m, k) over the terms whose risk set holds it.

    A row that dies at the time of a term is in it by 1 - out (Efron's average over the order of the tied deaths).
    """
    flat = values[:, None] if values.ndim == 1 else values
    by_group = _by_group(terms, sets, flat)
    upto = _running(by_group, sets)[sets.group]
    tied = _by_group(terms, sets, flat * terms.out[:, None])[sets.group]
    rows = upto - np.where(sets.event[:, None], tied, 0.0)
    return rows[:, 0] if values.ndim == 1 else rows


def baseline_steps(terms: EventTerms, sets: RiskSets, values: NDArray) -> NDArray:
    """(groups, k): for each group, the sum of `values` (m, k) over the terms of its stratum up to its time."""
    return _running(_by_group(terms, sets, values), sets)


def _by_group(terms: EventTerms, sets: RiskSets, values: NDArray) -> NDArray:
    """(groups, k): the sum of `values` (m, k) over the terms of each group."""
    out = np.zeros((sets.time.size, values.shape[1]))
    np.add.at(out, terms.group, values)
    return out


def _running(by_group: NDArray, sets: RiskSets) -> NDArray:
    """Sums from the earliest time of each stratum to each group; groups run from late to early."""
    sums = np.cumsum(by_group[::-1], axis=0)[::-1]
    last = np.flatnonzero(np.append(sets.fresh[1:], True))
    stratum = np.cumsum(sets.fresh) - 1
    after = np.vstack([sums, np.zeros((1, sums.shape[1]))])[last + 1]
    result: NDArray = sums - after[stratum]
    return result
