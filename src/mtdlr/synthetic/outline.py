"""The outline of a mask as closed polygons along pixel edges: what every contouring workstation would draw."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

# Steps along an edge with the inside on the right hand (rows grow downwards): right, down, left, up.
STEPS = ((0, 1), (1, 0), (0, -1), (-1, 0))


def outlines(mask: ArrayLike) -> list[NDArray[np.float64]]:
    """Closed polygons (n, 2) of (row, column) corner points, half-integers; holes are polygons of their own.

    Filling them by the even-odd rule at pixel centres gives the mask back exactly.

    >>> outlines([[0, 0, 0], [0, 1, 0], [0, 0, 0]])[0].tolist()
    [[0.5, 0.5], [0.5, 1.5], [1.5, 1.5], [1.5, 0.5]]
    """
    inside = np.pad(np.asarray(mask, dtype=bool), 1)
    edges = _edges(inside)
    loops = []
    while edges:
        loops.append(np.array(_follow(edges), dtype=float) - 1.5)
    return loops


def _edges(inside: NDArray[np.bool_]) -> set[tuple[int, int, int]]:
    """Directed edges (row, column of the start corner, direction) around all pixels, in scan order."""
    found: set[tuple[int, int, int]] = set()
    start_corner = ((0, 0), (0, 1), (1, 1), (1, 0))  # of a pixel's top, right, bottom and left edge
    neighbour = ((-1, 0), (0, 1), (1, 0), (0, -1))
    for direction, ((dr, dc), (nr, nc)) in enumerate(zip(start_corner, neighbour, strict=True)):
        rim = np.argwhere(inside & ~np.roll(inside, (-nr, -nc), axis=(0, 1)))
        found.update((r + dr, c + dc, direction) for r, c in rim.tolist())
    return found


def _follow(edges: set[tuple[int, int, int]]) -> list[tuple[int, int]]:
    """Take one loop out of the edges and return its turning points, turning right first where two loops touch."""
    row, column, direction = first = min(edges)
    corners = []
    while True:
        edges.discard((row, column, direction))
        row, column = row + STEPS[direction][0], column + STEPS[direction][1]
        if (row, column) == first[:2] and not _next(edges, row, column, direction):
            break
        turned = _next(edges, row, column, direction)
        assert turned is not None
        if turned != direction:
            corners.append((row, column))
        direction = turned
    return [first[:2], *corners]


def _next(edges: set[tuple[int, int, int]], row: int, column: int, direction: int) -> int | None:
    """The direction in which the outline goes on."""
    for turn in (1, 0, 3):
        if (row, column, (direction + turn) % 4) in edges:
            return (direction + turn) % 4
    return None
