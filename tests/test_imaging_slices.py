"""Holes of slices, against scipy's own filling of one slice."""

import numpy as np
import pytest
from scipy import ndimage

from mtdlr.imaging.slices import closed_slices, eroded, filled_slices, opened


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


@pytest.mark.parametrize("shape", [(5, 6, 7), (1, 4, 4), (12, 20, 21), (2, 1, 9), (30, 31)])
def test_shrinking_and_opening_by_shifts_give_the_voxels_of_scipy(shape):
    """Erosion and opening by six neighbours agree with scipy's on noise and on blobs, however often they are done."""
    rng = np.random.default_rng(0)
    noise = rng.random(shape)
    for mask in (noise < 0.8, noise < 0.97, ndimage.gaussian_filter(noise, 1.0) > 0.45):
        for times in (1, 2, 3):
            assert np.array_equal(eroded(mask, times), ndimage.binary_erosion(mask, iterations=times))
            assert np.array_equal(opened(mask, times), ndimage.binary_opening(mask, iterations=times))


@pytest.mark.parametrize("reach", [1, 2, 3, 5])
def test_gaps_of_a_slice_are_closed_as_by_scipy_in_a_wide_frame(reach):
    """Closing by a disk agrees with scipy's where the frame is wide enough, at the border of the slice too."""
    steps = np.arange(-reach, reach + 1)
    disk = (steps[:, None] ** 2 + steps**2 <= reach**2)[None]
    for share in (0.02, 0.3, 0.9):
        mask = np.random.default_rng(1).random((3, 17, 23)) < share
        wide = np.pad(mask, ((0, 0), (reach + 1,) * 2, (reach + 1,) * 2))
        expected = ndimage.binary_closing(wide, structure=disk)[:, reach + 1:-reach - 1, reach + 1:-reach - 1]
        assert np.array_equal(closed_slices(mask, reach), expected)


def test_a_mask_is_not_changed_by_what_is_made_of_it():
    """Shrinking, opening and closing return new masks."""
    mask = np.random.default_rng(2).random((4, 9, 9)) < 0.7
    before = mask.copy()
    for _ in (eroded(mask), opened(mask), closed_slices(mask, 2)):
        assert np.array_equal(mask, before)
