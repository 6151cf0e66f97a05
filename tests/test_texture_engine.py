"""From a region to its matrices and numbers: every direction, weight and distance counted by a loop over voxels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from math import exp, isnan, nan, sqrt

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from mtdlr.errors import ScanError
from mtdlr.texture import GreyLevels, Profile, extract
from mtdlr.texture.discretise import bin_edges, discretise
from mtdlr.texture.engine import bounding_box, normalise, resegmented, texture
from mtdlr.texture.glcm import glcm_features
from mtdlr.texture.maps import feature_maps
from mtdlr.texture.profile import GLCM, Filter, Kernel
from mtdlr.texture.robustness import intraclass_correlation, noise_level, perturbed_mask
from mtdlr.texture.sizes import DEPENDENCE, RUN, size_features

SPACING = (3.0, 2.0, 0.5)
Step = tuple[int, int, int]


def region() -> NDArray[np.int64]:
    """(4, 5, 4) grey levels 1, 2, 3 and 6, 0 outside: holes, separate parts and a level that is far away."""
    random = np.random.default_rng(4)
    levels = random.choice(np.array([0, 1, 2, 3, 6]), size=(4, 5, 4), p=[0.25, 0.25, 0.25, 0.15, 0.1])
    levels[0, 0, 0], levels[3, 4, 3] = 1, 6
    return levels


def found_in(levels: NDArray[np.int64], grey: GreyLevels, *classes: str) -> dict[str, dict[str, float]]:
    inside = levels > 0
    bins = discretise(levels[inside].astype(float), replace(grey, bin_width=1.0, origin=1.0))
    assert bins.gray[1:].tolist() == np.unique(levels[inside]).tolist()
    return texture(bins, inside, SPACING, grey=grey, classes=classes)


def all_steps(distances: tuple[int, ...], plane_axis: int | None = None) -> list[Step]:
    """One of each pair of opposite steps, found by keeping a step unless its opposite is there already."""
    kept: list[Step] = []
    reach = range(-max(distances), max(distances) + 1)
    for step in product(reach, reach, reach):
        flat = plane_axis is None or step[plane_axis] == 0
        if max(map(abs, step)) in distances and flat and tuple(-s for s in step) not in kept:
            kept.append(step)
    return kept


def moved(levels: NDArray[np.int64], place: tuple[int, ...], step: Step, times: int = 1) -> int:
    """The grey level so many steps away; 0 outside the region and the array."""
    there = tuple(p + times * s for p, s in zip(place, step, strict=True))
    return int(levels[there]) if all(0 <= t < n for t, n in zip(there, levels.shape, strict=True)) else 0


def places(levels: NDArray[np.int64]) -> Iterator[tuple[int, ...]]:
    return (tuple(place) for place in np.argwhere(levels > 0).tolist())


def pairs(levels: NDArray[np.int64], step: Step) -> NDArray[np.float64]:
    """(4, 4): how often each level has each other one at a step, counted in both orders."""
    gray = np.unique(levels[levels > 0]).tolist()
    counts = np.zeros((len(gray), len(gray)))
    for place in places(levels):
        other = moved(levels, place, step)
        if other:
            i, j = gray.index(int(levels[place])), gray.index(other)
            counts[i, j] += 1
            counts[j, i] += 1
    return counts


def runs(levels: NDArray[np.int64], step: Step) -> NDArray[np.float64]:
    """(4, 5): runs of each level and length along a step."""
    gray = np.unique(levels[levels > 0]).tolist()
    counts = np.zeros((len(gray), 5))
    for place in places(levels):
        if moved(levels, place, step, -1) != levels[place]:
            length = next(n for n in range(1, 9) if moved(levels, place, step, n) != levels[place])
            counts[gray.index(int(levels[place])), length - 1] += 1
    return counts


def weight(step: Step, norm: str) -> tuple[float, float]:
    """(of pairs, of runs) by PyRadiomics' weightingNorm: exp(-d^2) and d, in mm."""
    away = [abs(s) * mm for s, mm in zip(step, SPACING, strict=True)]
    d = {"infinity": max(away), "euclidean": sqrt(sum(a * a for a in away)), "manhattan": sum(away)}[norm]
    return exp(-d * d), d


@pytest.mark.parametrize("distances", [(1,), (2,), (1, 2)])
def test_features_are_the_mean_over_directions(distances: tuple[int, ...]) -> None:
    """Without weights a GLCM feature is its mean over the directions at the asked distances that hold a pair."""
    levels = region()
    rows = [glcm_features(p[None] / 2, np.array([1, 2, 3, 6]))[0] for step in all_steps(distances)
            if (p := pairs(levels, step)).any()]
    assert len(rows) > 10
    assert found_in(levels, GreyLevels(distances=distances), "glcm")["glcm"] == pytest.approx(
        dict(zip(GLCM, np.mean(rows, axis=0), strict=True)), rel=1e-9)


def test_runs_go_along_the_thirteen_nearest_directions() -> None:
    """Run features are means over 13 directions, whatever the distances of the GLCM."""
    levels = region()
    rows = size_features(np.stack([runs(levels, step) for step in all_steps((1,))]), np.array([1, 2, 3, 6]),
                         np.arange(1, 6))
    expected = pytest.approx(dict(zip(RUN, rows.mean(axis=0), strict=True)), rel=1e-9)
    for distances in ((1,), (1, 2)):
        assert found_in(levels, GreyLevels(distances=distances), "glrlm")["glrlm"] == expected


@pytest.mark.parametrize("norm", ["infinity", "euclidean", "manhattan"])
def test_weighted_matrices_are_merged(norm: str) -> None:
    """With a norm the features are those of the sum of the matrices, each weighed by its step's length in mm."""
    levels, gray = region(), np.array([1, 2, 3, 6])
    merged_pairs = sum(weight(step, norm)[0] * pairs(levels, step) for step in all_steps((1,)))
    merged_runs = sum(weight(step, norm)[1] * runs(levels, step) for step in all_steps((1,)))
    found = found_in(levels, GreyLevels(weighting=norm), "glcm", "glrlm")  # type: ignore[arg-type]
    assert found["glcm"] == pytest.approx(
        dict(zip(GLCM, glcm_features(merged_pairs[None], gray)[0], strict=True)), rel=1e-9)
    assert found["glrlm"] == pytest.approx(
        dict(zip(RUN, size_features(merged_runs[None], gray, np.arange(1, 6))[0], strict=True)), rel=1e-9)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_plane_has_no_neighbours_across(axis: int) -> None:
    """In two dimensions only the four directions within a plane count, across whichever axis the planes lie."""
    levels, gray = region(), np.array([1, 2, 3, 6])
    steps = all_steps((1,), axis)
    assert len(steps) == 4
    found = found_in(levels, GreyLevels(plane_axis=axis), "glcm", "glrlm", "ngtdm")
    rows = [glcm_features(pairs(levels, step)[None], gray)[0] for step in steps]
    assert found["glcm"] == pytest.approx(dict(zip(GLCM, np.mean(rows, axis=0), strict=True)), rel=1e-9)
    rows = size_features(np.stack([runs(levels, step) for step in steps]), gray, np.arange(1, 6)).tolist()
    assert found["glrlm"] == pytest.approx(dict(zip(RUN, np.mean(rows, axis=0), strict=True)), rel=1e-9)


@pytest.mark.parametrize("alpha", [0, 1, 3])
def test_dependence(alpha: int) -> None:
    """A neighbour depends on a voxel when their levels differ by at most alpha; the voxel itself is one of them."""
    levels, gray = region(), [1, 2, 3, 6]
    counts = np.zeros((4, 27))
    around = [step for step in product((-1, 0, 1), repeat=3) if any(step)]
    for place in places(levels):
        near = sum(1 for step in around if (h := moved(levels, place, step)) and abs(h - levels[place]) <= alpha)
        counts[gray.index(int(levels[place])), near] += 1
    expected = dict(zip(DEPENDENCE, size_features(counts[None], np.array(gray), np.arange(1, 28))[0], strict=True))
    found = found_in(levels, GreyLevels(dependence=alpha), "gldm")["gldm"]
    assert {k: v for k, v in found.items() if k} == pytest.approx({k: v for k, v in expected.items() if k}, rel=1e-9)


def test_pairs_in_one_order() -> None:
    """Without symmetry the first of each pair counts alone: a ramp's mean is 2, 2.5, 2 and 3 along its four steps."""
    ramp = np.zeros((2, 1, 4), np.int64)
    ramp[:] = [1, 2, 3, 4]
    both = found_in(ramp, GreyLevels(), "glcm")["glcm"]["JointAverage"]
    one = found_in(ramp, GreyLevels(symmetric=False), "glcm")["glcm"]["JointAverage"]
    assert (both, one) == (2.5, (2 + 2.5 + 2 + 3) / 4)


def test_a_class_that_was_not_asked_for_is_not_counted() -> None:
    """Only the wanted classes come back."""
    assert set(found_in(region(), GreyLevels(), "glszm", "ngtdm")) == {"glszm", "ngtdm"}


def test_a_quarter_turn_with_its_spacing_changes_nothing() -> None:
    """A region turned by 90 degrees about z, its spacing with it, keeps every texture feature, weighted or not."""
    levels = region()
    turned, spacing = np.ascontiguousarray(np.rot90(levels, axes=(1, 2))), (3.0, 0.5, 2.0)
    for grey in (GreyLevels(), GreyLevels(weighting="euclidean")):
        results = []
        for array, mm in ((levels, SPACING), (turned, spacing)):
            bins = discretise(array[array > 0].astype(float), GreyLevels(bin_width=1.0, origin=1.0))
            results.append(texture(bins, array > 0, mm, grey=grey, classes=("glcm", "glrlm", "glszm", "gldm", "ngtdm")))
        for group, values in results[0].items():
            assert results[1][group] == pytest.approx(values, rel=1e-9), group


def test_bins_of_a_count_are_of_equal_width() -> None:
    """A bin count cuts from the least to the greatest intensity, and the greatest lies in the last bin."""
    values = np.array([0.0, 0.9, 2.0, 3.9, 7.9, 8.0])
    found = discretise(values, GreyLevels(bin_count=4))
    assert found.gray[found.level].tolist() == [1, 1, 2, 2, 4, 4] and found.gray.tolist() == [0, 1, 2, 4]
    assert np.diff(bin_edges(values, GreyLevels(bin_count=4)))[:-1].tolist() == [2.0, 2.0, 2.0]


def test_intensities_below_the_origin_are_in_the_first_bin() -> None:
    """With an origin above some intensities, those count as bin 1, and none is lost."""
    found = discretise(np.array([-7.0, 10.0, 34.0, 35.0]), GreyLevels(bin_width=25.0, origin=10.0))
    assert found.gray[found.level].tolist() == [1, 1, 1, 2] and found.counts.tolist() == [0, 3, 1]


def test_bins_of_a_width_lie_at_its_multiples() -> None:
    """Moving all intensities by a multiple of the width changes no level; by half of it, the edges do not follow."""
    values = np.array([-26.0, -1.0, 3.0, 24.0, 26.0, 99.0])
    levels = [discretise(values + shift, GreyLevels(bin_width=25.0)).level.tolist() for shift in (0.0, 75.0, 12.5)]
    assert levels[0] == levels[1] != levels[2]


def test_bins_that_are_too_narrow_name_what_to_do() -> None:
    """E-GREYLEVELS says how many levels there would be, how many may be, and to choose a wider bin."""
    with pytest.raises(ScanError) as error:
        discretise(np.array([0.0, 1e9]), GreyLevels(bin_width=0.5))
    problem = error.value.problems[0]
    assert (problem.code, problem.expected) == ("E-GREYLEVELS", "at most 8192")
    assert problem.found == "2000000000 grey levels at a bin width of 0.5" and "wider bin" in problem.remedy


def test_normalised() -> None:
    """Normalising takes the mean and the sample SD of all voxels, clips, then scales; a flat image becomes 0."""
    image = np.array([[[1.0, 2.0], [3.0, 10.0]]])
    z = (image - 4.0) / sqrt((9 + 4 + 1 + 36) / 3)
    np.testing.assert_allclose(normalise(image), z)
    np.testing.assert_allclose(normalise(image, scale=100, outliers=1.0), 100 * np.minimum(z, 1.0))
    assert not normalise(np.full((2, 2, 2), 5.0)).any()
    assert normalise(image.astype(np.int16)).dtype == normalise(image.astype(np.float32)).dtype == np.float32


@pytest.mark.parametrize(("mode", "limits", "kept"), [
    ("absolute", (2.0, 8.0), [2.0, 4.0, 8.0]), ("absolute", (2.0, None), [2.0, 4.0, 8.0, 16.0]),
    ("relative", (0.25, 0.5), [4.0, 8.0]), ("relative", (0.41, None), [8.0, 16.0]),
    ("sigma", (-1.0, 1.0), [1.0, 2.0, 4.0, 8.0]), ("sigma", (0.3, None), [8.0, 16.0])])
def test_resegmented(mode: str, limits: tuple[float, float | None], kept: list[float]) -> None:
    """Limits are intensities, shares of the region's maximum or SDs about its mean; both ends belong to them."""
    image = np.array([[[1.0, 2.0, 4.0, 8.0, 16.0, 99.0]]])
    mask = image < 50
    profile = Profile({}, resegment=limits, resegment_mode=mode)  # type: ignore[arg-type]
    assert image[resegmented(image, mask, profile)].tolist() == kept
    assert mask.sum() == 5, "the mask that was given is untouched"


def test_a_region_as_small_as_the_limit_has_no_features() -> None:
    """`min_voxels` voxels are too few, one more is enough, for shape and for intensities."""
    image, mask = np.arange(27.0).reshape(3, 3, 3), np.zeros((3, 3, 3), bool)
    mask[1, 1, :] = True
    for limit, defined in ((3, False), (2, True)):
        profile = Profile({"shape": ("VoxelVolume",), "firstorder": ("Mean",)}, min_voxels=limit)
        found = extract(image, mask, SPACING, profile=profile)
        assert [not isnan(value) for value in found.values()] == [defined, defined], limit


def test_the_shape_follows_the_resegmented_region_only_when_asked() -> None:
    """`resegment_shape` counts the voxels that are left; without it the volume is the mask's."""
    image, mask = np.arange(27.0).reshape(3, 3, 3), np.ones((3, 3, 3), bool)
    for asked, voxels in ((False, 27), (True, 7)):
        profile = Profile({"shape": ("VoxelVolume",)}, resegment=(20.0, None), resegment_shape=asked)
        assert extract(image, mask, SPACING, profile=profile)["original_shape_VoxelVolume"] == 3.0 * voxels


def test_normalising_sees_more_than_the_crop() -> None:
    """Normalising sees the whole image and a crop only what the filters see: the mean stays that of all voxels."""
    image, mask = np.arange(125.0).reshape(5, 5, 5), np.zeros((5, 5, 5), bool)
    mask[2, 2, 2:4] = True
    features = {"firstorder": ("Mean",)}
    whole, cropped = (extract(image, mask, SPACING, profile=Profile(features, crop=crop, normalise=True))
                      for crop in (None, 1))
    assert whole == cropped and whole["original_firstorder_Mean"] == pytest.approx((62.5 - 62) / image.std(ddof=1))


def test_shapes_that_differ_are_named() -> None:
    """E-SHAPE says both shapes; a flat array is refused even when the shapes agree."""
    for image, mask in ((np.zeros((2, 3, 4)), np.ones((2, 3, 5), bool)), (np.zeros((3, 4)), np.ones((3, 4), bool))):
        with pytest.raises(ScanError) as error:
            extract(image, mask, SPACING, profile=Profile({}))
        assert error.value.code == "E-SHAPE"
        assert error.value.problems[0].found == f"image {image.shape}, mask {mask.shape}"


def test_the_box_of_a_region() -> None:
    """The box ends behind the last voxel along each axis; of nothing it is the first voxel."""
    mask = np.zeros((6, 7, 8), bool)
    mask[2, 3, 1] = mask[4, 3, 7] = True
    assert bounding_box(mask) == (slice(2, 5), slice(3, 4), slice(1, 8))
    assert bounding_box(np.zeros((2, 2, 2), bool)) == (slice(0, 1),) * 3


def test_maps_are_the_features_of_each_neighbourhood() -> None:
    """A map's voxel is the feature of the 3 x 3 x 3 voxels about it that are inside, in bins of the whole region."""
    random = np.random.default_rng(1)
    image, mask = random.normal(0, 40, (5, 6, 6)), random.random((5, 6, 6)) < 0.8
    profile = Profile({"firstorder": ("Mean", "Entropy"), "glcm": ("Contrast",)},
                      (Filter("original", GreyLevels(bin_width=30.0)),))
    box, maps = feature_maps(image, mask, SPACING, profile=profile)
    bins = np.zeros(mask.shape)
    found = discretise(image[mask], GreyLevels(bin_width=30.0))
    bins[mask] = found.gray[found.level]
    for place in np.argwhere(mask)[[20, 50, 80]].tolist():
        near = tuple(slice(max(p - 1, 0), p + 2) for p in place)
        at = tuple(p - b.start for p, b in zip(place, box, strict=True))
        inside = mask[near]
        assert maps["original_firstorder_Mean"][at] == pytest.approx(image[near][inside].mean())
        assert maps["original_firstorder_Entropy"][at] == pytest.approx(
            stats.entropy(np.unique(bins[near][inside], return_counts=True)[1], base=2))
        own = discretise(bins[near][inside], GreyLevels(bin_width=1.0, origin=1.0))
        assert maps["original_glcm_Contrast"][at] == pytest.approx(
            texture(own, inside, SPACING, grey=GreyLevels(), classes=("glcm",))["glcm"]["Contrast"])


def test_maps_may_look_outside_the_region() -> None:
    """Unmasked, a neighbourhood is the whole cube; outside the region a map has the asked value."""
    image, mask = np.arange(64.0).reshape(4, 4, 4)**2, np.zeros((4, 4, 4), bool)
    mask[1, 1, 1] = True
    kernel = Kernel(radius=1, masked=False, outside=nan)
    box, maps = feature_maps(image, mask, SPACING, profile=Profile({"firstorder": ("Mean",)}, kernel=kernel))
    assert box == (slice(0, 3),) * 3
    found = maps["original_firstorder_Mean"]
    assert found[1, 1, 1] == image[0:3, 0:3, 0:3].mean() and np.isnan(found).sum() == 26


def test_the_intraclass_correlation_is_the_analysis_of_variance() -> None:
    """ICC(1) and its limits are functions of scipy's one-way F (McGraw & Wong, ICC(1), table 7)."""
    values = np.random.default_rng(2).normal(size=(9, 3)) + np.arange(9.0)[:, None] / 3
    f = float(stats.f_oneway(*values).statistic)
    low, high = f / stats.f.ppf(0.975, 8, 18), f * stats.f.ppf(0.975, 18, 8)
    assert intraclass_correlation(values) == pytest.approx([(r - 1) / (r + 2) for r in (f, low, high)])
    assert intraclass_correlation(100 - 7 * values) == pytest.approx(intraclass_correlation(values))


def test_structure_is_not_noise() -> None:
    """A plane ramp has no noise at all, and noise on one is found at its level; an axis of one voxel is left alone."""
    z, y, x = np.indices((12, 13, 14)).astype(float)
    ramp = 5 * z - 3 * y + x
    noise = np.random.default_rng(0).normal(0, 2.0, ramp.shape)
    assert noise_level(ramp) < 1e-9 and noise_level(ramp + noise) == pytest.approx(2.0, rel=0.1)
    assert noise_level(noise[:1]) == pytest.approx(2.0, rel=0.25)


def test_a_contour_that_does_not_move() -> None:
    """A displacement of 0 mm, and an empty mask, leave the mask as it is."""
    mask = np.random.default_rng(0).random((6, 6, 6)) < 0.5
    assert np.array_equal(perturbed_mask(mask, SPACING, contour_mm=0.0, seed=1), mask)
    assert not perturbed_mask(np.zeros((4, 4, 4), bool), SPACING, contour_mm=5.0, seed=1).any()
