"""B-splines between voxels, and the grids they are asked on."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from mtdlr.imaging import grid
from mtdlr.radiomics import extract as radiomics
from mtdlr.texture import spline_along
from mtdlr.volume import Volume


@pytest.mark.parametrize("seed", range(8))
def test_as_scipy(seed: int) -> None:
    """Along all three axes the values are scipy's, mirrored at the border, for any positions."""
    random = np.random.default_rng(seed)
    values = random.normal(size=tuple(random.integers(1, 9, 3)))
    positions = [random.uniform(-0.5, n - 0.5, size=5) for n in values.shape]
    curve = found = ndimage.spline_filter(values, 3, mode="mirror")
    for axis, position in enumerate(positions):
        found = spline_along(found, axis, position)
    index = np.stack(np.meshgrid(*positions, indexing="ij"))
    expected = ndimage.map_coordinates(curve, index, order=3, mode="mirror", prefilter=False)
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_voxels_are_met() -> None:
    """At the voxels' centres the spline is the image."""
    values = np.random.default_rng(0).normal(size=(5, 6, 7))
    curve = ndimage.spline_filter(values, 3, mode="mirror")
    for axis, n in enumerate(values.shape):
        curve = spline_along(curve, axis, np.arange(float(n)))
    np.testing.assert_allclose(curve, values, atol=1e-12)


@pytest.mark.parametrize("turned", [False, True])
def test_any_grid(turned: bool) -> None:
    """Grids whose axes are swapped, flipped or turned against the image's give what imaging's own resampling gives."""
    random = np.random.default_rng(3)
    image = Volume.on_grid(random.normal(size=(9, 14, 12)), (3.0, 1.5, 2.0), (4.0, -3.0, 1.0))
    affine = np.zeros((4, 4))
    affine[[1, 0, 2, 3], [0, 1, 2, 3]] = (-1.1, 1.3, 0.9, 1.0)
    if turned:
        affine[:2, 2] = 0.2
    affine[:3, 3] = np.array(image.center_mm) - affine[:3, :3] @ (8.0, 7.0, 9.0)
    target = grid.grid((17, 15, 19), affine)
    values, inside = radiomics._spline_values(image, target)
    expected = grid.resample(image, target, interpolation="bspline").array
    assert inside.any() and (radiomics._lines(image, target) is None) == turned
    np.testing.assert_allclose(values[inside], expected[inside], atol=1e-7)
