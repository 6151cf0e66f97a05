"""Intensities: what SUV and HU become."""

from __future__ import annotations

import numpy as np
import pytest

from mtdlr.imaging.intensity import clip_pet, scale_ct, standardise_pet


@pytest.mark.parametrize(
    ("hu", "window", "expected"),
    [(-3000, (-1024, 1024), -1), (-1024, (-1024, 1024), -1), (0, (-1024, 1024), 0), (512, (-1024, 1024), 0.5),
     (4000, (-1024, 1024), 1), (-200, (-200, 200), -1), (50, (-200, 200), 0.25), (40, (0, 80), 0)],
)
def test_ct_is_clipped_and_mapped(hu, window, expected):
    """The window's ends become -1 and 1, its middle 0; beyond it values are clipped."""
    scaled = scale_ct(np.array([hu], dtype=np.int16), window)
    assert scaled.dtype == np.float32
    assert scaled[0] == pytest.approx(expected)


def test_clipped_pet_keeps_ratios_of_uptake():
    """Two tumours whose SUV differ by a factor keep that factor; above the clip they are equal."""
    low, high, top, over, negative = clip_pet(np.array([2.0, 10.0, 25.0, 60.0, -0.1]), 25.0)
    assert high / low == pytest.approx(5.0)
    assert top == over == 1.0
    assert negative == 0.0


def test_standardised_pet_has_mean_0_and_sd_1_whatever_the_scale():
    """Z-scores do not see a factor on SUV, which is why they lose absolute uptake."""
    suv = np.random.default_rng(0).gamma(2.0, 1.5, size=(8, 8, 8))
    once, thrice = standardise_pet(suv), standardise_pet(3.0 * suv)
    assert once.mean() == pytest.approx(0.0, abs=1e-6)
    assert once.std() == pytest.approx(1.0, abs=1e-5)
    np.testing.assert_allclose(once, thrice, atol=1e-6)


def test_a_flat_pet_becomes_zeros():
    """No variance, no division by zero."""
    assert (standardise_pet(np.full((3, 3, 3), 2.5)) == 0.0).all()


def test_z_score_does_not_depend_on_the_field_of_view():
    """The scanned voxels have the same z-scores however much of the grid lies outside the scan."""
    suv = np.random.default_rng(3).gamma(2.0, 1.0, (6, 6, 6))
    wide = np.zeros((10, 10, 10))
    wide[2:8, 2:8, 2:8] = suv
    np.testing.assert_allclose(standardise_pet(wide, wide > 0)[2:8, 2:8, 2:8], standardise_pet(suv), rtol=1e-6)
