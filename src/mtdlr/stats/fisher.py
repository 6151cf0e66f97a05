"""Fisher's exact test of an r x c table (Freeman-Halton): the whole distribution, no simulation.

The p value is the probability, given both margins, of all tables that are no more likely than the one observed. The
rows are cut into two halves. Given how many patients of each column lie in the first half (a node), the halves are
independent tables, so the values of each are listed once and combined by a sorted search instead of pair by pair. A
node none of whose tables can be more likely than the one observed is added whole. The value of a table is
-sum(log x!), its log probability up to a constant of the margins.
"""

from __future__ import annotations

from math import prod

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray
from scipy.special import gammaln

from mtdlr.errors import FitError, Problem
from mtdlr.stats.groups import GroupTest, occupied

Index = NDArray[np.int64]

_SAME = 1e-7  # tables within this relative distance count as equally likely, as in R
_MOST_NODES, _MOST_STEPS = 5e6, 2e10  # half a gigabyte; about a minute


def fisher(table: ArrayLike) -> GroupTest:
    """Fisher's exact test of an r x c table, two-sided.

    Args:
        table: (r, c) counts; empty rows and columns are left out.

    Raises:
        TableError: E-COUNTS for anything but whole numbers >= 0 in two dimensions.
        FitError: E-ONEGROUP; E-FISHERSIZE when there are too many tables to go through.

    References:
        Freeman & Halton, Biometrika 1951; Mehta & Patel, JASA 1983; fisher.test in R.

    >>> round(fisher([[3, 1], [1, 3]]).p, 6)
    0.485714
    """
    counts = occupied(table).astype(np.int64)
    if counts.shape[1] > counts.shape[0]:
        counts = counts.T
    columns = np.sort(counts.sum(axis=0))  # the longest last: it follows from the others
    top, bottom = _halves(counts.sum(axis=1))
    nodes, steps = _work(top, bottom, columns)
    if nodes > _MOST_NODES or steps > _MOST_STEPS:
        raise FitError(Problem("E-FISHERSIZE", "the table is too large for an exact test", found=f"{steps:.1g} steps",
                               expected=f"<= {_MOST_STEPS:.0g}", remedy="Use the chi-square test"))
    log_factorial = gammaln(np.arange(counts.sum() + 1) + 1.0)
    observed = -float(log_factorial[counts].sum())
    p = _tail(_nodes(columns, int(top.sum())), columns, top, bottom, log_factorial, observed + _SAME)
    return GroupTest("Fisher exact", np.nan, np.nan, min(float(p), 1.0))


def _halves(rows: Index) -> tuple[Index, Index]:
    """Two sets of rows, the longest of each first: listing the tables of a half costs only its shorter rows."""
    longest_first = np.sort(rows)[::-1]
    pick = np.arange(rows.size)
    upper = (pick == 0) | ((pick > 1) & (pick % 2 == 1)) if rows.size > 3 else pick == 0
    return longest_first[upper], longest_first[~upper]


def _work(top: Index, bottom: Index, columns: Index) -> tuple[float, float]:
    """Upper bounds: how many nodes, and nodes times the tables of both halves."""
    smaller = min(int(top.sum()), int(bottom.sum()))
    nodes = prod(min(int(c), smaller) + 1.0 for c in columns[:-1])
    tables = sum(prod(min(int(row), int(c)) + 1.0 for row in half[1:] for c in columns[:-1]) for half in (top, bottom))
    return nodes, nodes * tables


def _nodes(columns: Index, total: int) -> Index:
    """(m, c) every way to take `total` patients from the columns."""
    grid = np.meshgrid(*(np.arange(min(int(c), total) + 1) for c in columns[:-1]), indexing="ij")
    free = np.stack([axis.ravel() for axis in grid], axis=1)
    rest = total - free.sum(axis=1)
    usable = (rest >= 0) & (rest <= columns[-1])
    return np.column_stack([free, rest])[usable]


@njit(cache=True)
def _logs(log_factorial, counts):  # type: ignore[no-untyped-def]
    """The sum of log x! over counts; as a loop, since picking elements by an array takes the compiler seconds."""
    total = 0.0
    for x in counts:
        total += log_factorial[x]
    return total


@njit(cache=True)
def _tail(nodes, columns, top, bottom, log_factorial, limit):  # type: ignore[no-untyped-def]
    """Probability of all tables whose value is at most `limit`."""
    n_top, n_bottom = top.sum(), bottom.sum()
    node_scale = _logs(log_factorial, columns) - log_factorial[n_top + n_bottom]
    table_scale = node_scale + _logs(log_factorial, top) + _logs(log_factorial, bottom)
    node_scale += log_factorial[n_top] + log_factorial[n_bottom]
    upper, lower, below = np.empty(1024), np.empty(1024), np.empty_like(columns)
    p = 0.0
    for index in range(nodes.shape[0]):
        above = nodes[index]
        for j in range(columns.size):
            below[j] = columns[j] - above[j]
        if _bound(top, above, log_factorial) + _bound(bottom, below, log_factorial) <= limit:
            p += np.exp(node_scale - _logs(log_factorial, above) - _logs(log_factorial, below))
            continue
        m, n = _listed(top, above, log_factorial, upper), _listed(bottom, below, log_factorial, lower)
        if m > upper.size:
            upper = np.empty(2 * m)
            _listed(top, above, log_factorial, upper)
        if n > lower.size:
            lower = np.empty(2 * n)
            _listed(bottom, below, log_factorial, lower)
        small, large = (upper[:m], lower[:n]) if m < n else (lower[:n], upper[:m])
        _sort(small)
        p += _pairs(small, large, limit, table_scale)
    return p


@njit(cache=True)
def _sort(values):  # type: ignore[no-untyped-def]
    """Values sorted in place (Shell); numba's own sort takes the compiler three seconds."""
    gap = 1
    while gap < values.size // 3:
        gap = 3 * gap + 1
    while gap > 0:
        for i in range(gap, values.size):
            value, j = values[i], i
            while j >= gap and values[j - gap] > value:
                values[j] = values[j - gap]
                j -= gap
            values[j] = value
        gap //= 3


@njit(cache=True)
def _pairs(small, large, limit, scale):  # type: ignore[no-untyped-def]
    """Probability of all pairs of values, one from each list, whose sum is at most `limit`; `small` is sorted."""
    lowest, highest = small[0], small[small.size - 1]
    summed = np.empty(small.size)  # probability of the values up to each
    running = 0.0
    for i in range(small.size):
        running += np.exp(small[i] - highest)
        summed[i] = running
    total = 0.0
    for value in large:
        if value + lowest > limit:
            continue
        last, above = 0, small.size  # the last one that is small enough lies between them
        if value + highest <= limit:
            last = small.size - 1
        else:
            while above - last > 1:
                middle = (last + above) // 2
                if small[middle] <= limit - value:
                    last = middle
                else:
                    above = middle
        total += np.exp(value + highest + scale) * summed[last]
    return total


@njit(cache=True)
def _listed(rows, columns, log_factorial, values):  # type: ignore[no-untyped-def]
    """List the value of every table with these margins into `values` as far as it is long; how many there are.

    The free cells, all but those of the first row and of the last column, turn like the wheels of a counter.
    """
    k, c = rows.size, columns.size
    cells = (k - 1) * (c - 1)
    x, top = np.zeros(cells + 1, np.int64), np.zeros(cells + 1, np.int64)
    room = np.zeros(cells + 1, np.int64)  # patients of the row not yet placed before the cell
    left = np.zeros((k, c), np.int64)  # patients of the columns not yet placed before row k - 1 - i
    for j in range(c):
        left[0, j] = columns[j]
    total = np.zeros(cells + 1)
    found, cell, fresh = 0, 0, True
    while cell >= 0:
        if cell == cells:
            if found < values.size:
                values[found] = total[cells] - _logs(log_factorial, left[k - 1])
            found, cell, fresh = found + 1, cell - 1, False
            continue
        i, j = cell // (c - 1), cell % (c - 1)
        if fresh:
            room[cell] = rows[k - 1 - i] if j == 0 else room[cell - 1] - x[cell - 1]
            later = 0
            for column in range(j + 1, c):
                later += left[i, column]
            x[cell] = max(0, room[cell] - later)
            top[cell] = min(left[i, j], room[cell])
        else:
            x[cell] += 1
        if x[cell] > top[cell]:
            cell, fresh = cell - 1, False
            continue
        rest = room[cell] - x[cell]
        total[cell + 1] = total[cell] - log_factorial[x[cell]]
        left[i + 1, j] = left[i, j] - x[cell]
        if j == c - 2:
            left[i + 1, c - 1] = left[i, c - 1] - rest
            total[cell + 1] -= log_factorial[rest]
        cell, fresh = cell + 1, True
    return found


@njit(cache=True)
def _bound(rows, columns, log_factorial):  # type: ignore[no-untyped-def]
    """An upper bound on the value of a table with these margins, exact for one and two rows.

    The last row against the others taken together is a concave function of its cells, largest where no single
    patient can be moved with profit. Splitting the others among their rows multiplies the number of arrangements by
    at most the multinomial coefficient of those rows.
    """
    c = columns.size
    if rows.size == 1:
        return -_logs(log_factorial, columns)
    x = _most_even(rows[-1], columns)
    others = rows[:-1]
    value = log_factorial[others.sum()] - _logs(log_factorial, others)
    for j in range(c):
        value -= log_factorial[x[j]] + log_factorial[columns[j] - x[j]]
    return value


@njit(cache=True)
def _most_even(row, columns):  # type: ignore[no-untyped-def]
    """The most likely way to take `row` patients from the columns at random."""
    c, whole = columns.size, max(columns.sum(), 1)
    x, given, j = np.empty_like(columns), 0, 0
    for k in range(c):
        x[k] = row * columns[k] // whole
        given += x[k]
    while given < row:
        if x[j] < columns[j]:
            x[j] += 1
            given += 1
        j = (j + 1) % c
    moved = True
    while moved:
        moved = False
        for a in range(c):
            for b in range(c):
                while x[a] > 0 and (columns[b] - x[b]) * x[a] > (x[b] + 1) * (columns[a] - x[a] + 1):
                    x[a] -= 1
                    x[b] += 1
                    moved = True
    return x
