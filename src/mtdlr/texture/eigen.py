"""The second largest eigenvalue of a symmetric matrix, in size.

LAPACK would do, but its threads fight those of other workers over matrices this small, and its last digits depend on
their number. Householder's tridiagonalisation and Sturm's bisection are short, exact and the same everywhere.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mtdlr.texture.compiled import compiled, entry


@entry("f8[:,::1]")
def second_largest(matrix: NDArray[np.float64]) -> float:
    """The second largest absolute eigenvalue of a symmetric (n, n) matrix, n > 1, whose largest one is positive.

    References:
        Golub & Van Loan, Matrix Computations, 4th ed., algorithms 8.3.1 (tridiagonal form) and 8.4.1 (bisection).
    """
    n = len(matrix)
    diagonal, squares = _tridiagonal(matrix.copy())
    radius = 0.0
    for i in range(n):
        left = np.sqrt(squares[i - 1]) if i > 0 else 0.0
        right = np.sqrt(squares[i]) if i < n - 1 else 0.0
        radius = max(radius, abs(diagonal[i]) + left + right)
    positive = _bisected(diagonal, squares, n - 2, radius)
    if _count_below(diagonal, squares, -abs(positive)) == 0:
        return abs(positive)
    lowest = 0 * n  # of a type like n: numba would compile a second kernel for a literal
    return max(abs(positive), abs(_bisected(diagonal, squares, lowest, radius)))


@compiled
def _tridiagonal(a: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(diagonal (n,), squared off-diagonal (n - 1,)) of a similar tridiagonal matrix; `a` is used up."""
    n = len(a)
    diagonal, squares = np.empty(n), np.zeros(n - 1)
    p = np.empty(n)
    for k in range(n - 2):
        diagonal[k] = a[k, k]
        v, below = a[k, k + 1:], a[k + 1:, k + 1:]
        norm2 = 0.0
        for i in range(v.size):
            norm2 += v[i] * v[i]
        squares[k] = norm2
        head = v[0]
        rest = norm2 - head * head
        if rest <= 1e-30 * norm2:
            continue
        v[0] = head + np.sqrt(norm2) if head >= 0 else head - np.sqrt(norm2)
        _reflect(below, v, 2.0 / (rest + v[0] * v[0]), p[:v.size])
    if n > 1:
        diagonal[n - 2] = a[n - 2, n - 2]
        squares[n - 2] = a[n - 2, n - 1]**2
    diagonal[n - 1] = a[n - 1, n - 1]
    return diagonal, squares


@compiled
def _reflect(a: NDArray[np.float64], v: NDArray[np.float64], beta: float, p: NDArray[np.float64]) -> None:
    """Replace a by H a H with H = I - beta v v'; every inner loop runs along a row, so that it vectorises."""
    n = v.size
    p[:] = 0.0
    for i in range(n):
        row, factor = a[i], beta * v[i]
        for j in range(n):
            p[j] += factor * row[j]
    overlap = 0.0
    for i in range(n):
        overlap += v[i] * p[i]
    for i in range(n):
        p[i] -= 0.5 * beta * overlap * v[i]
    for i in range(n):
        row, vi, pi = a[i], v[i], p[i]
        for j in range(n):
            row[j] -= vi * p[j] + pi * v[j]


@compiled
def _count_below(diagonal: NDArray[np.float64], squares: NDArray[np.float64], x: float) -> int:
    """How many eigenvalues are less than x (Sturm)."""
    count, q = 0, 1.0
    for i in range(diagonal.size):
        q = diagonal[i] - x - (squares[i - 1] / q if i > 0 else 0.0)
        if q == 0.0:
            q = 1e-300
        count += q < 0
    return count


@compiled
def _bisected(diagonal: NDArray[np.float64], squares: NDArray[np.float64], k: int, radius: float) -> float:
    """The k-th smallest eigenvalue, k from 0, known to lie within +-radius."""
    low, high = -radius, radius
    while high - low > 4e-16 * radius:
        middle = 0.5 * (low + high)
        if middle <= low or middle >= high:
            break
        if _count_below(diagonal, squares, middle) > k:
            high = middle
        else:
            low = middle
    return 0.5 * (low + high)
