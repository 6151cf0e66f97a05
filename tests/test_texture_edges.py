"""Regions and images at the edge of what has features: values or nan by name, never a crash or a false 0."""

from __future__ import annotations

from dataclasses import replace
from math import isfinite, isnan

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mtdlr.errors import ScanError
from mtdlr.texture import Filter, GreyLevels, Profile, extract, ibsi, paper1456

SPACING = (2.0, 1.5, 1.5)
PROFILE = ibsi(10.0)


def image(shape: tuple[int, int, int] = (9, 10, 11)) -> NDArray[np.float64]:
    return np.random.default_rng(3).normal(size=shape) * 40


def box(shape: tuple[int, int, int], *corners: tuple[int, int]) -> NDArray[np.bool_]:
    mask = np.zeros(shape, bool)
    mask[tuple(slice(low, high) for low, high in corners)] = True
    return mask


def undefined(found: dict[str, float]) -> set[str]:
    """class_Feature of what is nan."""
    return {name.split("_", 1)[1] for name, value in found.items() if isnan(value)}


@pytest.mark.slow
def test_empty_mask() -> None:
    """An empty mask has every name and no value."""
    found = extract(image(), np.zeros((9, 10, 11), bool), SPACING, profile=paper1456(10.0))
    assert len(found) == 736 and all(map(isnan, found.values()))


def test_one_voxel() -> None:
    """One voxel has intensities and a volume, but no texture and no axes: those are nan, nothing is a false 0."""
    mask = box((9, 10, 11), (4, 5), (5, 6), (6, 7))
    found = extract(image(), mask, SPACING, profile=PROFILE)
    assert {name.split("_")[0] for name in undefined(found)} == {"glcm", "glrlm", "glszm", "gldm", "ngtdm", "shape"}
    assert {n for n in undefined(found) if n.startswith("shape")} == {"shape_Elongation", "shape_Flatness"}
    assert found["original_firstorder_Mean"] == image()[4, 5, 6] and found["original_shape_VoxelVolume"] == 4.5


@pytest.mark.parametrize("corners", [((0, 3), (0, 4), (0, 5)), ((6, 9), (6, 10), (5, 11)), ((0, 9), (0, 10), (0, 11))])
def test_mask_at_the_border(corners: tuple[tuple[int, int], ...]) -> None:
    """A region that touches the image's border has every feature."""
    found = extract(image(), box((9, 10, 11), *corners), SPACING, profile=PROFILE)
    assert all(map(isfinite, found.values()))


def test_line_and_plane() -> None:
    """A plane has texture; a line has not under PyRadiomics' two dimensions, and has with one."""
    line, plane = box((9, 10, 11), (4, 5), (5, 6), (1, 9)), box((9, 10, 11), (4, 5), (2, 8), (1, 9))
    assert undefined(extract(image(), plane, SPACING, profile=PROFILE)) == set()
    assert {n.split("_")[0] for n in undefined(extract(image(), line, SPACING, profile=PROFILE))} == {
        "glcm", "glrlm", "glszm", "gldm", "ngtdm"}
    assert undefined(extract(image(), line, SPACING, profile=replace(PROFILE, min_dimensions=1))) == set()


def test_flat_region() -> None:
    """A region of one intensity has values everywhere: no spread, entropy 0, perfect correlation."""
    found = extract(np.full((9, 10, 11), 7.0), box((9, 10, 11), (2, 6), (2, 6), (2, 6)), SPACING, profile=PROFILE)
    assert all(map(isfinite, found.values()))
    assert found["original_firstorder_Variance"] == 0 and found["original_glcm_Correlation"] == 1.0
    assert found["original_firstorder_Entropy"] == pytest.approx(0, abs=1e-12)


def test_separate_voxels() -> None:
    """Voxels without any neighbour have zones but no pairs: GLCM and GLRLM are nan."""
    mask = np.zeros((9, 10, 11), bool)
    mask[::4, ::3, ::5] = True
    mask[8, 9, 10] = False
    found = extract(image(), mask, SPACING, profile=PROFILE)
    assert {name.split("_")[0] for name in undefined(found)} <= {"glcm", "glrlm"}
    assert isnan(found["original_glcm_Contrast"]) and found["original_glszm_ZonePercentage"] == 1.0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_not_a_number(bad: float) -> None:
    """A nan or infinite intensity is refused with its count and place."""
    broken = image()
    broken[1, 2, 3], broken[8, 8, 8] = bad, np.inf
    with pytest.raises(ScanError, match=r"E-NONFINITE.*2 voxels.*\(1, 2, 3\)"):
        extract(broken, box((9, 10, 11), (4, 8), (4, 8), (4, 8)), SPACING, profile=PROFILE)


def test_other_shape() -> None:
    """A mask of another shape is refused."""
    with pytest.raises(ScanError, match="E-SHAPE"):
        extract(image(), np.ones((9, 10, 10), bool), SPACING, profile=PROFILE)


def test_image_too_small_for_its_filter() -> None:
    """A LoG wider than the image is nan by name, not left out."""
    profile = replace(PROFILE, filters=(Filter("log", GreyLevels(bin_width=10.0), sigmas_mm=(1.0, 50.0)),))
    found = extract(image(), box((9, 10, 11), (2, 6), (2, 6), (2, 6)), SPACING, profile=profile)
    names = {name.split("_")[0] for name, value in found.items() if isnan(value)}
    assert names == {"log-sigma-50-0-mm-3D"} and isfinite(found["log-sigma-1-0-mm-3D_glcm_Contrast"])


@pytest.mark.parametrize("kind", ["square", "squareroot", "logarithm", "exponential"])
def test_image_of_zeros(kind: str) -> None:
    """Transforms that scale by the largest intensity have no value on an image of zeros, and say so with nan."""
    profile = replace(PROFILE, filters=(Filter(kind),))  # type: ignore[arg-type]
    found = extract(np.zeros((9, 10, 11)), box((9, 10, 11), (2, 6), (2, 6), (2, 6)), SPACING, profile=profile)
    assert all(isnan(v) == ("shape" not in k) for k, v in found.items())


def test_resegmentation_to_nothing() -> None:
    """Limits that leave no voxel make intensities and texture nan; the shape is that of the mask."""
    profile = ibsi(10.0, resegment=(1e6, None))
    found = extract(image(), box((9, 10, 11), (2, 6), (2, 6), (2, 6)), SPACING, profile=profile)
    assert all(isnan(v) == ("shape" not in k) for k, v in found.items())


@pytest.mark.slow
@settings(deadline=None, derandomize=True, max_examples=25)
@given(st.integers(0, 2**30), st.floats(0.02, 0.9), st.integers(1, 6), st.integers(1, 6), st.integers(1, 6))
def test_any_region(seed: int, share: float, z: int, y: int, x: int) -> None:
    """Whatever the mask, every name is there, the same on a second call, and bounded features keep their bounds."""
    random = np.random.default_rng(seed)
    values, mask = random.normal(size=(z, y, x)) * 30, random.random((z, y, x)) < share
    found, again = (extract(values, mask, SPACING, profile=PROFILE) for _ in range(2))
    assert repr(found) == repr(again) and len(found) == 14 + 9 * 93
    for name in ("glcm_Idm", "glcm_MCC", "glcm_JointEnergy", "glrlm_RunPercentage", "glszm_ZonePercentage",
                 "firstorder_Uniformity"):
        assert isnan(found[f"original_{name}"]) or 0 <= found[f"original_{name}"] <= 1 + 1e-9


def test_invariance() -> None:
    """Turning image, mask and spacing together changes nothing but the diameters' planes and rounding."""
    values, mask = image(), np.abs(image()) > 12
    features = {k: v for k, v in PROFILE.features.items() if k != "shape"}
    profile = Profile(features, (Filter("original", GreyLevels(10.0)),))
    found = extract(values, mask, SPACING, profile=profile)
    for turn in (lambda a: a[::-1], lambda a: a.transpose(2, 0, 1), lambda a: a[:, ::-1, ::-1]):
        turned = extract(turn(values), turn(mask), SPACING, profile=profile)
        assert turned == pytest.approx(found, rel=1e-9, abs=1e-12)


def test_a_far_voxel_changes_nothing() -> None:
    """Image and mask grown by a margin give the same features: only the region and its filters' reach count."""
    values, mask = image((20, 21, 22)), box((20, 21, 22), (8, 13), (8, 14), (8, 13))
    found = extract(values, mask, SPACING, profile=PROFILE)
    part = (slice(1, 20), slice(0, 20), slice(2, 22))
    assert extract(values[part], mask[part], SPACING, profile=PROFILE) == found
