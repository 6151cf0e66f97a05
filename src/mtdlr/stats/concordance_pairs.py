"""Pairs of patients counted by merge sort: in order of time, sorted by risk, O(n log n).

When two neighbouring runs are merged, whatever lies in the left run came first in time, so all pairs between the two
runs are settled in one pass over both.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

Vector = NDArray[np.float64]


@njit(cache=True)
def count_pairs(time: Vector, risk: Vector, weight: Vector) -> tuple[Vector, Vector, Vector, int, int]:
    """For each patient the weight of concordant, tied-risk and comparable pairs it is in; time-tied event pairs.

    Patients come sorted by time, then events first, then risk. `weight` is 0 for the censored. The merge sort orders
    by risk; when two runs are merged, whatever lies in the left run came first in time, so the pairs between the runs
    are counted in one pass. Risk, weight and count travel with the patient so that memory is read in order.

    Args:
        time: (n,) months, ascending.
        risk: (n,), higher is worse.
        weight: (n,) weight of the pairs that a patient's event decides; 0 for the censored.

    Returns:
        (concordant, tied_risk, comparable), each (n,) weight of pairs; then the number of event pairs at one time with
        different risks and with equal risks.
    """
    n = time.size
    here, there = np.zeros((n, 3)), np.empty((n, 3))
    who, who_there = np.arange(n).astype(np.int32), np.empty(n, np.int32)
    for i in range(n):
        here[i, 0], here[i, 1] = risk[i], weight[i]
    width = 1
    while width < n:
        for start in range(0, n, 2 * width):
            _merge(here, there, who, who_there, start, min(start + width, n), min(start + 2 * width, n))
        here, there, who, who_there = there, here, who_there, who
        width *= 2
    lower, equal, pairs = np.empty(n), np.zeros(n), np.empty(n)
    for i in range(n):
        lower[who[i]] = here[i, 2]
    _tied_risks(who, risk, weight, equal)
    before = 0.0
    for i in range(n):
        pairs[i] = before + weight[i] * (n - 1 - i)
        before += weight[i]
    tied_time, tied_both = _tied_events(time, risk, weight, equal, pairs)
    return lower, equal, pairs, tied_time, tied_both


@njit(cache=True)
def _merge(here, there, who, who_there, start, middle, end):  # type: ignore[no-untyped-def]
    """Merge two runs sorted by risk (column 0), adding the concordant pairs between them to column 2."""
    above = 0.0  # weight of the left run not yet passed
    for i in range(start, middle):
        above += here[i, 1]
    i, j = start, middle
    for out in range(start, end):
        if j >= end or (i < middle and here[i, 0] <= here[j, 0]):
            weight = here[i, 1]
            there[out, 0], there[out, 1], there[out, 2] = here[i, 0], weight, here[i, 2] + weight * (j - middle)
            who_there[out] = who[i]
            above -= weight
            i += 1
        else:
            there[out, 0], there[out, 1], there[out, 2] = here[j, 0], here[j, 1], here[j, 2] + above
            who_there[out] = who[j]
            j += 1


@njit(cache=True)
def _tied_risks(by_risk, risk, weight, equal):  # type: ignore[no-untyped-def]
    """Add the pairs of equal risk to `equal`; `by_risk` lists patients by risk and, within one risk, by time."""
    start = 0
    while start < by_risk.size:
        end = start + 1
        while end < by_risk.size and risk[by_risk[end]] == risk[by_risk[start]]:
            end += 1
        before = 0.0
        for k in range(start, end if end > start + 1 else start):
            i = by_risk[k]
            equal[i] = before + weight[i] * (end - 1 - k)
            before += weight[i]
        start = end


@njit(cache=True)
def _tied_events(time, risk, weight, equal, pairs):  # type: ignore[no-untyped-def]
    """Take the pairs of events at one time out of `equal` and `pairs`; how many had different and equal risks.

    Within such a group patients come in order of risk, so none of these pairs was counted as concordant.
    """
    n, different, both = time.size, 0, 0
    start = 0
    while start < n:
        end = start + 1
        if weight[start] > 0.0:
            while end < n and time[end] == time[start] and weight[end] > 0.0:
                end += 1
            size = end - start
            run = start
            while run < end:
                stop = run
                while stop < end and risk[stop] == risk[run]:
                    stop += 1
                for k in range(run, stop):
                    equal[k] -= weight[k] * (stop - run - 1)
                    pairs[k] -= weight[k] * (size - 1)
                both += (stop - run) * (stop - run - 1) // 2
                run = stop
            different += size * (size - 1) // 2
        start = end
    return different - both, both


@njit(cache=True)
def sign_product(a, ranks, time, event):  # type: ignore[no-untyped-def]
    """Sum over comparable pairs of sign(a_i - a_j) sign(b_i - b_j), in O(n log^2 n).

    Patients come sorted by time, then events first; `ranks` are the dense ranks of b from 0. Runs are sorted by a; for
    each patient of a right run two binary indexed trees hold the ranks of the left run's events below and above in a.

    Args:
        a: (n,) first risk.
        ranks: (n,) int64, dense ranks from 0 of the second risk b.
        time: (n,) months, ascending.
        event: (n,) event indicator.

    Returns:
        The sum, an integer within plus or minus the number of comparable pairs.
    """
    n, size = time.size, ranks.max() + 1
    below, above = np.zeros(size + 1, np.int64), np.zeros(size + 1, np.int64)
    here, there = np.arange(n), np.empty(n, np.int64)
    total, width = 0, 1
    while width < n:
        for start in range(0, n, 2 * width):
            middle, end = min(start + width, n), min(start + 2 * width, n)
            total += _between(here[start:middle], here[middle:end], a, ranks, event, below, above)
            _merge_by(a, here, there, start, middle, end)
        here, there = there, here
        width *= 2
    start = 0
    while start < n:  # pairs of events at one time are not comparable
        end = start + 1
        while end < n and event[start] and event[end] and time[end] == time[start]:
            end += 1
        for i in range(start, end):
            for j in range(i + 1, end):
                total -= np.sign(a[i] - a[j]) * np.sign(ranks[i] - ranks[j])
        start = end
    return total


@njit(cache=True)
def _between(left, right, a, ranks, event, below, above):  # type: ignore[no-untyped-def]
    """The sum over the events of the left run and all of the right run, both sorted by a; leaves the trees empty."""
    total, n_below, n_above = 0, 0, _add_events(above, left, ranks, event, 1)
    first, i = 0, 0  # left patients before `first` are below the present value of a, those from `i` on above it
    for j in right:
        while i < left.size and a[left[i]] <= a[j]:
            if event[left[i]]:
                _add(above, ranks[left[i]], -1)
                n_above -= 1
            i += 1
        while first < i and a[left[first]] < a[j]:
            if event[left[first]]:
                _add(below, ranks[left[first]], 1)
                n_below += 1
            first += 1
        less, upto = _sum(below, ranks[j]), _sum(below, ranks[j] + 1)
        total += less - (n_below - upto)
        less, upto = _sum(above, ranks[j]), _sum(above, ranks[j] + 1)
        total += (n_above - upto) - less
    _add_events(below, left[:first], ranks, event, -1)
    _add_events(above, left[i:], ranks, event, -1)
    return total


@njit(cache=True)
def _add_events(tree, who, ranks, event, count):  # type: ignore[no-untyped-def]
    """Add `count` to the tree at the rank of each patient with an event; the sum of what was added."""
    total = 0
    for i in who:
        if event[i]:
            _add(tree, ranks[i], count)
            total += count
    return total


@njit(cache=True)
def _merge_by(a, here, there, start, middle, end):  # type: ignore[no-untyped-def]
    """Merge two runs of positions sorted by a."""
    i, j = start, middle
    for out in range(start, end):
        if j >= end or (i < middle and a[here[i]] <= a[here[j]]):
            there[out] = here[i]
            i += 1
        else:
            there[out] = here[j]
            j += 1


@njit(cache=True)
def _add(tree, rank, count):  # type: ignore[no-untyped-def]
    """Add to a binary indexed tree."""
    k = rank + 1
    while k < tree.size:
        tree[k] += count
        k += k & -k


@njit(cache=True)
def _sum(tree, rank):  # type: ignore[no-untyped-def]
    """How many ranks below `rank` the tree holds."""
    total = 0
    while rank > 0:
        total += tree[rank]
        rank -= rank & -rank
    return total
