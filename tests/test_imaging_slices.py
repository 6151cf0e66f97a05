"""Holes of slices, against scipy's own filling of one slice."""

import numpy as np
import pytest
from scipy import ndimage

from mtdlr.imaging.slices import filled_slices


@pytest.mark.parametrize("share", [0.35, 0.5, 0.6, 0.75])
def test_each_slice_is_filled_as_scipy_fills_it(share):
    """Holes are filled slice by slice, whatever lies above and below, also at the border."""
    mask = np.random.default_rng(int(share * 100)).random((12, 30, 25)) < share
    assert np.array_equal(filled_slices(mask), [ndimage.binary_fill_holes(plane) for plane in mask])


def test_a_tunnel_is_filled_though_it_opens_above():
    """An airway that is open at the first slice is no outside of the slices it is enclosed in."""
    body = np.zeros((4, 9, 9), dtype=bool)
    body[:, 2:7, 2:7] = True
    body[:, 4, 4] = False
    assert filled_slices(body)[:, 4, 4].all()
    assert not filled_slices(body)[:, 0, 0].any()


@pytest.mark.parametrize("value", [False, True])
def test_empty_and_full_slices_stay(value):
    """A mask without a voxel stays empty, and a full one full."""
    assert (filled_slices(np.full((2, 3, 4), value)) == value).all()
