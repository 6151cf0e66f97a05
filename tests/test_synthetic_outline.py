"""Outlines of masks are closed polygons that fill back to the mask."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mtdlr.synthetic.outline import outlines


def _filled(loops: list[NDArray[np.float64]], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Even-odd filling at pixel centres: count vertical edges to the left of each centre."""
    crossings = np.zeros(shape, dtype=int)
    rows, columns = np.indices(shape)
    for loop in loops:
        for (r0, c0), (r1, c1) in zip(loop, np.roll(loop, -1, axis=0), strict=True):
            if c0 == c1:
                crossings += (min(r0, r1) < rows) & (rows < max(r0, r1)) & (c0 < columns)
    return crossings % 2 == 1


@settings(deadline=None, derandomize=True, max_examples=100)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**31), st.sampled_from([0.3, 0.5, 0.7, 1.0]))
def test_outlines_fill_back_to_the_mask(rows: int, columns: int, seed: int, density: float) -> None:
    """Any mask, holes and touching corners included, is got back by even-odd filling."""
    mask = np.random.default_rng(seed).random((rows, columns)) < density
    assert (_filled(outlines(mask), mask.shape) == mask).all()


@pytest.mark.parametrize(("mask", "loops", "corners"), [
    ([[1]], 1, 4), ([[1, 1], [1, 1]], 1, 4), ([[1, 0], [1, 1]], 1, 6), ([[1, 0], [0, 1]], 2, 4),
    ([[1, 1, 1], [1, 0, 1], [1, 1, 1]], 2, 4), ([[0]], 0, 0),
])
def test_number_of_loops_and_corners(mask: list[list[int]], loops: int, corners: int) -> None:
    """Separate pieces and holes are loops of their own, and straight runs keep their ends only."""
    found = outlines(mask)
    assert len(found) == loops
    assert not loops or len(found[0]) == corners


def test_neighbouring_corners_share_an_axis() -> None:
    """Every side of an outline runs along a row or a column."""
    mask = np.random.default_rng(0).random((12, 12)) < 0.5
    for loop in outlines(mask):
        step = np.roll(loop, -1, axis=0) - loop
        assert ((step == 0).sum(axis=1) == 1).all()
