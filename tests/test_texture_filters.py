"""Derived images against PyWavelets' own transform, against kernels written out, and on images with a known answer."""

from __future__ import annotations

from math import log, pi, sqrt

import numpy as np
import pytest
import pywt
from numpy.typing import NDArray
from scipy import ndimage

from mtdlr.texture import Filter, GreyLevels
from mtdlr.texture.filters import Box, filtered
from mtdlr.texture.laplacian import recursive_laplacian, sampled_laplacian

SPACING = (3.0, 1.0, 2.0)
IMAGE = np.random.default_rng(5).normal(10, 40, size=(8, 10, 12))


def everything(image: NDArray) -> Box:
    z, y, x = (slice(0, n) for n in image.shape)
    return z, y, x


def bands(image: NDArray, spec: Filter, box: Box | None = None) -> dict[str, NDArray]:
    return dict(filtered(image, everything(image) if box is None else box, SPACING, spec))


def pywt_bands(image: NDArray, wavelet: str, level: int) -> dict[str, NDArray]:
    """PyWavelets' stationary transform, its letters a and d along z, y, x turned into L and H along x, y, z."""
    found = {}
    for k, step in enumerate(pywt.swtn(image, wavelet, level=level, axes=(2, 1, 0))[::-1], start=1):
        for name, values in step.items():
            found[f"wavelet{k if k > 1 else ''}-{name.replace('a', 'L').replace('d', 'H')}"] = values
    return found


@pytest.mark.parametrize("wavelet", ["coif1", "haar", "db3"])
def test_one_level_of_wavelets(wavelet: str) -> None:
    """The eight bands of an image with even axes are PyWavelets' own, letters in the order x, y, z."""
    found, expected = bands(IMAGE, Filter("wavelet", wavelet=wavelet)), pywt_bands(IMAGE, wavelet, 1)
    assert list(found) == [f"wavelet-{name}" for name in ("LLH", "LHL", "LHH", "HLL", "HLH", "HHL", "HHH", "LLL")]
    for name, values in found.items():
        np.testing.assert_allclose(values, expected[name], atol=1e-9, err_msg=name)


def test_two_dilated_levels() -> None:
    """Dilated, a second decomposition is PyWavelets' level 2: filters spread by two."""
    image = np.random.default_rng(0).normal(size=(8, 8, 12))
    found, expected = bands(image, Filter("wavelet", levels=2, dilated=True)), pywt_bands(image, "coif1", 2)
    assert len(found) == 15 and {name for name in expected if name != "wavelet-LLL"} == set(found)
    for name, values in found.items():
        np.testing.assert_allclose(values, expected[name], atol=1e-9, err_msg=name)


def test_a_second_level_as_pyradiomics_makes_it() -> None:
    """Undilated, the second decomposition is the first one of the first one's LLL band; a first level can be left."""
    low = pywt_bands(IMAGE, "coif1", 1)["wavelet-LLL"]
    expected = {name.removeprefix("wavelet-"): values for name, values in pywt_bands(low, "coif1", 1).items()}
    found = bands(IMAGE, Filter("wavelet", levels=2))
    for name, values in expected.items():
        np.testing.assert_allclose(found[f"wavelet2-{name}"], values, atol=1e-9, err_msg=name)
    late = bands(IMAGE, Filter("wavelet", start_level=1))
    assert set(late) == {f"wavelet-{name}" for name in expected}
    for name, values in expected.items():
        np.testing.assert_allclose(late[f"wavelet-{name}"], values, atol=1e-9, err_msg=name)


def test_odd_axes_are_completed_by_their_first_voxel() -> None:
    """An axis of odd length is continued by a copy of its first voxel, as PyRadiomics pads it."""
    image = IMAGE[:7, :9, :]
    padded = np.pad(image, ((0, 1), (0, 1), (0, 0)), mode="wrap")
    for name, values in bands(image, Filter("wavelet")).items():
        np.testing.assert_allclose(values, pywt_bands(padded, "coif1", 1)[name][:7, :9], atol=1e-9, err_msg=name)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_an_axis_without_neighbours_is_not_filtered(axis: int) -> None:
    """In planes there are four bands of two letters, and each plane's is that of the plane alone."""
    found = bands(IMAGE, Filter("wavelet", GreyLevels(plane_axis=axis)))
    assert set(found) == {f"wavelet-{name}" for name in ("LL", "LH", "HL", "HH")}
    inner = tuple(a for a in (2, 1, 0) if a != axis)
    expected = pywt.swtn(IMAGE, "coif1", level=1, axes=inner)[0]
    np.testing.assert_allclose(found["wavelet-LH"], expected["ad"], atol=1e-9)
    np.testing.assert_allclose(found["wavelet-HL"], expected["da"], atol=1e-9)


@pytest.mark.parametrize("spec", [
    Filter("wavelet"), Filter("wavelet", levels=2, dilated=True), Filter("gradient"), Filter("square"),
    Filter("logarithm"), Filter("log", sigmas_mm=(2.0,), cutoff=2.0)], ids=lambda s: f"{s.kind}{s.levels}")
def test_a_box_is_a_part_of_the_whole(spec: Filter) -> None:
    """Values inside a box are those of the whole filtered image, at its border and away from it."""
    whole = bands(IMAGE, spec)
    for box in ((slice(2, 6), slice(0, 3), slice(5, 12)), (slice(0, 1), slice(4, 5), slice(11, 12))):
        for name, values in bands(IMAGE, spec, box).items():
            np.testing.assert_allclose(values, whole[name][box], rtol=1e-6, atol=1e-6, err_msg=name)


def test_a_wavelet_sees_its_own_axis() -> None:
    """An image that varies along x alone has energy in bands whose first letter is H and in LLL, nowhere else."""
    wave = np.broadcast_to(np.sin(np.arange(12.0)), IMAGE.shape)
    strong = {name for name, values in bands(np.array(wave), Filter("wavelet")).items() if np.abs(values).max() > 1e-9}
    assert strong == {"wavelet-HLL", "wavelet-LLL"}


def test_the_precision_follows_the_image() -> None:
    """float32 images are filtered in single precision, whole numbers in double."""
    dtypes = {np.float32: np.float32, np.float64: np.float64, np.int16: np.float64}
    for given, expected in dtypes.items():
        assert {values.dtype for values in bands(IMAGE.astype(given), Filter("wavelet")).values()} == {
            np.dtype(expected)}


def test_a_gradient_is_central_differences() -> None:
    """The gradient's magnitude is numpy's of the image with its edge repeated, per mm or per voxel."""
    wide = np.pad(IMAGE, 1, mode="edge")
    for spacing, spec in ((SPACING, Filter("gradient")), ((1, 1, 1), Filter("gradient", gradient_spacing=False))):
        parts = np.gradient(wide, *spacing)
        expected = np.sqrt(sum(part**2 for part in parts))[1:-1, 1:-1, 1:-1]
        np.testing.assert_allclose(bands(IMAGE, spec)["gradient"], expected, rtol=1e-9)


def test_a_ramp_has_its_slope() -> None:
    """A ramp of 5, 2 and 1 per mm along z, y, x has the gradient sqrt(30) everywhere inside."""
    z, y, x = (n * mm for n, mm in zip(np.indices((5, 5, 5)), SPACING, strict=True))
    found = bands(5 * z + 2 * y + x, Filter("gradient"))["gradient"]
    np.testing.assert_allclose(found[1:-1, 1:-1, 1:-1], sqrt(30))


def test_transforms_of_single_intensities() -> None:
    """Square, square root, logarithm and exponential are PyRadiomics' equations, the sign kept by the middle two."""
    image = np.array([[[-9.0, -4.0, 0.0, 1.0, 16.0]]])
    box: Box = (slice(0, 1), slice(0, 1), slice(0, 4))  # the largest intensity lies outside the box and counts

    def value(kind: str) -> NDArray:
        return bands(image, Filter(kind), box)[kind][0, 0]  # type: ignore[arg-type]

    np.testing.assert_allclose(value("square"), [81 / 16, 1, 0, 1 / 16])
    np.testing.assert_allclose(value("squareroot"), [-12, -8, 0, 4])
    np.testing.assert_allclose(value("logarithm"), [s * log(1 + a) * 16 / log(17) for s, a in
                                                    ((-1, 9), (-1, 4), (1, 0), (1, 1))])
    np.testing.assert_allclose(value("exponential"), [16 ** (v / 16) for v in (-9, -4, 0, 1)])


def test_the_largest_intensity_stays() -> None:
    """Every transform of single intensities maps the largest intensity onto itself."""
    image = np.array([[[1.0, 16.0]]])
    for kind in ("square", "squareroot", "logarithm", "exponential"):
        assert bands(image, Filter(kind))[kind][0, 0, 1] == pytest.approx(16.0), kind  # type: ignore[arg-type]


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_recursive_laplacian_of_a_parabola(axis: int) -> None:
    """The Laplacian of (place in mm)^2 is 2, times sigma^2, wherever the border is far, along each axis."""
    shape = [1, 1, 1]
    shape[axis] = 61
    line = ((np.arange(61) - 30.0) * SPACING[axis])**2
    image = np.broadcast_to(line.reshape(shape), [61 if a == axis else 6 for a in range(3)])
    sigma = 1.5 * SPACING[axis]
    found = recursive_laplacian(np.array(image), sigma, SPACING)
    middle = tuple(slice(25, 36) if a == axis else slice(None) for a in range(3))
    np.testing.assert_allclose(found[middle], 2 * sigma**2, rtol=1e-6)


def test_the_recursive_laplacian_is_near_scipys() -> None:
    """ITK's recursive approximation stays within 2 % of the range of scipy's Laplacian of Gaussian."""
    smooth = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(24, 24, 24)), 1.0)
    found = recursive_laplacian(smooth, 2.0, (1.0, 1.0, 1.0))
    expected = 4.0 * ndimage.gaussian_laplace(smooth, 2.0, mode="nearest")
    assert np.abs(found - expected).max() < 0.02 * np.ptp(expected)


def test_a_flat_image_has_no_laplacian() -> None:
    """A constant, however large, gives 0 up to rounding; a bright spot gives a negative middle."""
    assert np.abs(recursive_laplacian(np.full((6, 7, 8), 1000.0), 2.0, SPACING)).max() < 1e-6
    spot = np.zeros((9, 9, 9))
    spot[4, 4, 4] = 1.0
    assert recursive_laplacian(spot, 2.0, (1.0, 1.0, 1.0))[4, 4, 4] < 0


def test_the_sampled_laplacian_of_a_spot() -> None:
    """The answer to one bright voxel is the kernel: exp(-r2/2s2) / (2 pi s2)^1.5 (r2/s4 - 3/s2), cut at its reach."""
    spot = np.zeros((15, 15, 15))
    spot[7, 7, 7] = 1.0
    found = sampled_laplacian(spot, 1.5, (1.0, 1.0, 1.0), 3.0)
    z, y, x = np.indices(spot.shape) - 7
    square = z**2 + y**2 + x**2
    expected = np.exp(-square / 4.5) / (2 * pi * 2.25)**1.5 * (square / 1.5**4 - 3 / 2.25)
    reach = np.abs(np.stack([z, y, x])).max(0) <= 5  # 3 sigma are 4.5 voxels, rounded up to 5
    np.testing.assert_allclose(found, np.where(reach, expected, 0.0), atol=1e-12)


def test_the_sampled_laplacian_counts_mm() -> None:
    """Voxels of 2 mm with a sigma of 3 mm are voxels of 1 with 1.5; the border is mirrored with its own voxel."""
    image = np.random.default_rng(3).normal(size=(6, 6, 6))
    np.testing.assert_allclose(sampled_laplacian(image, 3.0, (2.0, 2.0, 2.0), 2.0),
                               sampled_laplacian(image, 1.5, (1.0, 1.0, 1.0), 2.0))
    doubled = np.concatenate([image[::-1], image, image[::-1]])
    np.testing.assert_allclose(sampled_laplacian(doubled, 1.5, (1.0, 1.0, 1.0), 2.0)[6:12],
                               sampled_laplacian(image, 1.5, (1.0, 1.0, 1.0), 2.0), atol=1e-12)


def test_laplacians_are_named_by_their_width() -> None:
    """Each sigma has an image of its own in single precision; one wider than the image has nan."""
    found = bands(IMAGE, Filter("log", sigmas_mm=(1.5, 2.0, 40.0)))
    assert list(found) == ["log-sigma-1-5-mm-3D", "log-sigma-2-0-mm-3D", "log-sigma-40-0-mm-3D"]
    assert {values.dtype for name, values in found.items() if "40" not in name} == {np.dtype(np.float32)}
    assert np.isnan(found["log-sigma-40-0-mm-3D"]).all() and np.isfinite(found["log-sigma-2-0-mm-3D"]).all()
