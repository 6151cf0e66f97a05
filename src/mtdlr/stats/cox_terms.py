"""The terms of the Cox log partial likelihood at one beta, and sums over them for each row: residuals, variance."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from mtdlr.stats.cox_likelihood import Index, Matrix, RiskSets, SortedRows, Vector, add_scaled, clear, rescaled


class EventTerms(NamedTuple):
    """The terms of the log partial likelihood at one beta, latest event first; rows are in sorted order.

    One value the compiled functions take (they take no dataclass).

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
    """The terms of the log partial likelihood at a linear predictor.

    Args:
        rows: n rows in sorted order.
        eta: (n,) linear predictor in sorted order.
    """
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
            clear(s1)
        first, last = rows.start[g], rows.start[g + 1]
        shift, s0 = rescaled(eta, rows.weight, (first, last), shift, s0, s1, none)
        deaths, mass, t0 = 0, 0.0, 0.0
        clear(t1)
        for i in range(first, last):
            r = np.exp(eta[i] - shift)
            if rows.event[i] and rows.weight[i] > 0.0:
                deaths += 1
                mass += rows.weight[i]
                t0 += r
                add_scaled(t1, r, rows.x[i])
            else:
                s0 += r
                add_scaled(s1, r, rows.x[i])
        terms = deaths if rows.efron else min(deaths, 1)
        for j in range(terms):
            v = (terms - j) / terms
            group[k], share[k], out[k] = g, mass / terms, j / terms
            at_risk = s0 + v * t0
            log_at_risk[k] = shift + np.log(at_risk)
            for a in range(p):
                mean[k, a] = (s1[a] + v * t1[a]) / at_risk
            k += 1
        s0 += t0
        add_scaled(s1, 1.0, t1)
    return group[:k], share[:k], log_at_risk[:k], out[:k], mean[:k]


def accumulated(terms: EventTerms, sets: RiskSets, values: NDArray) -> NDArray:
    """For each sorted row i, the sum of w_i exp(eta_i) / at_risk * `values` over the terms whose risk set holds it.

    With `values` = share it is the expected number of events of the row. A row that dies at the time of a term is in it
    by 1 - out (Efron's average over the order of the tied deaths).

    Args:
        terms: the m terms of the likelihood.
        sets: the risk sets of the n rows.
        values: (m,) or (m, k), what is summed over the terms.

    Returns:
        (n,) or (n, k), in sorted order.
    """
    flat = values[:, None] if values.ndim == 1 else values
    rows = _accumulated(sets.start, sets.fresh, sets.event, terms, np.ascontiguousarray(flat))
    return np.asarray(rows[:, 0] if values.ndim == 1 else rows)


@njit(cache=True, error_model="numpy")
def _accumulated(start, fresh, event, terms, values):  # type: ignore[no-untyped-def]
    """The sums of `accumulated`, from the earliest time of each stratum on, scaled by the latest term."""
    group, log_at_risk, log_relative = terms.group, terms.log_at_risk, terms.log_relative
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
            tied += share * terms.out[t] * values[t]
            t -= 1
        for i in range(start[g], start[g + 1]):
            if scale > -np.inf:
                rows[i] = np.exp(log_relative[i] + scale) * (total - tied if event[i] else total)
        if fresh[g]:
            total[:] = 0.0
            scale = -np.inf
    return rows
