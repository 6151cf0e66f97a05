"""What features are taken from: the grid, the region on it, thresholds of the PET parameters, masks of networks."""

from __future__ import annotations

from dataclasses import replace
from math import isnan, nan, pi

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from mtdlr import texture
from mtdlr.errors import MtdlrError
from mtdlr.imaging.intensity import clip_pet, scale_ct, standardise_pet
from mtdlr.imaging.slices import filled_slices
from mtdlr.infer import mask_agreement, tumour_mask
from mtdlr.radiomics import extract as radiomics
from mtdlr.radiomics.harmonise import CenterPolicy
from mtdlr.radiomics.robustness import robust_features, robustness
from mtdlr.study import RadiomicsSettings
from mtdlr.texture.profile import Kernel, Profile, Resampling
from mtdlr.volume import Volume

SHAPE = (12, 14, 16)


def ramp(spacing: tuple[float, float, float] = (3.0, 2.0, 1.0)) -> Volume:
    """Intensity = z + 2 y + 3 x in mm: a straight function of the place."""
    z, y, x = (i * mm for i, mm in zip(np.indices(SHAPE), spacing, strict=True))
    return Volume.on_grid(z + 2 * y + 3 * x, spacing)


def block(low: tuple[int, int, int], high: tuple[int, int, int], spacing: tuple[float, float, float] = (3.0, 2.0, 1.0)
          ) -> Volume:
    mask = np.zeros(SHAPE, bool)
    mask[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = True
    return Volume.on_grid(mask, spacing)


def centred(mm: float, **changes: object) -> Profile:
    onto = Resampling((mm,) * 3, aligned="center")
    return Profile({"firstorder": ("Mean",)}, resampling=onto, **changes)  # type: ignore[arg-type]


# --- grids ------------------------------------------------------------------------------------------------------------


def test_without_resampling_the_image_keeps_its_grid() -> None:
    """Image and mask are used as they are; a mask on another grid takes the nearest voxels of the image's."""
    image, mask = ramp(), block((3, 4, 5), (6, 8, 10))
    kept, region = radiomics.gridded(image, mask, Profile({}))
    assert kept is image and np.array_equal(region.array, mask.array)
    finer = Volume.on_grid(np.repeat(np.repeat(mask.array, 2, 1), 2, 2), (3.0, 1.0, 0.5), (-0.25, -0.5, 0.0))
    assert np.array_equal(radiomics.gridded(image, finer, Profile({}))[1].array, mask.array)


@pytest.mark.parametrize("mm", [1.0, 1.5, 2.0])
def test_on_its_own_grid_a_straight_function_stays_straight(mm: float) -> None:
    """Around the region new voxels hold the function's value at their place, and the region its volume and middle."""
    image, mask = ramp(), block((4, 4, 5), (8, 10, 11))
    found, region = radiomics.gridded(image, mask, centred(mm))
    assert found.spacing_mm == pytest.approx((mm,) * 3)
    places = found.points_mm(np.argwhere(region.array))
    np.testing.assert_allclose(found.array[region.array], places @ (3.0, 2.0, 1.0), atol=0.02)
    volume_ml = np.count_nonzero(region.array) * region.voxel_ml
    assert volume_ml == pytest.approx(np.count_nonzero(mask.array) * mask.voxel_ml, rel=0.13)
    np.testing.assert_allclose(places.mean(axis=0), mask.points_mm(np.argwhere(mask.array)).mean(axis=0), atol=mm / 2)


def test_whole_numbers_are_rounded_after_resampling() -> None:
    """CT is in whole HU on the new grid too; others are not rounded."""
    image, mask = ramp().with_array(ramp().array * 0.37), block((4, 4, 5), (8, 10, 11))
    plain, whole = (radiomics.gridded(image, mask, centred(1.5, whole_numbers=w))[0].array for w in (False, True))
    assert np.array_equal(whole, np.round(plain)) and not np.array_equal(whole, plain)


def test_an_empty_mask_has_a_grid_of_one_voxel() -> None:
    """Nothing to look at: one voxel that is not inside, for either way of aligning."""
    empty = Volume.on_grid(np.zeros(SHAPE, bool), (3.0, 2.0, 1.0))
    corner = Profile({}, resampling=Resampling((2.0,) * 3, interpolation="linear"))
    for profile in (centred(2.0), corner):
        found, region = radiomics.gridded(ramp(), empty, profile)
        assert found.shape == (1, 1, 1) and not region.array.any()


def test_a_corner_grid_keeps_thin_axes_and_zeros() -> None:
    """Aligned at the corner, an axis with spacing 0, and one along which the region is one voxel thick, keep theirs."""
    mask = block((5, 3, 4), (6, 9, 12))
    found, _ = radiomics.gridded(ramp(), mask, Profile({}, resampling=Resampling((2.0, 0.0, 2.0), "linear", 2)))
    assert found.spacing_mm == pytest.approx((3.0, 2.0, 2.0))


def test_a_label_map_gives_one_label() -> None:
    """Of a label map the profile's label is the region; a bool mask is one whatever the label."""
    labels = Volume.on_grid(np.array([[[0, 1, 2, 2]]]))
    assert radiomics.labelled(labels, 2).array.tolist() == [[[False, False, True, True]]]
    mask = Volume.on_grid(np.array([[[True, False]]]))
    assert radiomics.labelled(mask, 7) is mask


def test_normalising_comes_before_the_grid() -> None:
    """The z-score is that of the image's own voxels, not of the resampled ones around the region."""
    image, mask = ramp(), block((4, 4, 5), (8, 10, 11))
    profile = centred(1.5, normalise=True, normalise_scale=100.0)
    expected = radiomics.gridded(image.with_array(texture.normalise(image.array, scale=100.0)), mask, centred(1.5))
    np.testing.assert_allclose(radiomics.gridded(image, mask, profile)[0].array, expected[0].array)


def test_maps_lie_where_their_voxels_do() -> None:
    """A map's voxel is at the place in the patient whose neighbourhood it describes."""
    image, mask = ramp(), block((4, 4, 5), (7, 8, 9))
    profile = Profile({"firstorder": ("Mean",)}, kernel=Kernel(radius=1, outside=nan))
    (found,) = radiomics.image_feature_maps(image, mask, profile).values()
    middle = found.array[2, 2, 2]
    assert found.points_mm([2, 2, 2]).tolist() == image.points_mm([5, 5, 6]).tolist()
    assert middle == pytest.approx(image.array[4:7, 4:7, 5:8].mean())


# --- profiles ---------------------------------------------------------------------------------------------------------


def test_profiles_of_the_modalities() -> None:
    """PET and CT have their own bins; `ibsi` cuts PET at 0 and CT to soft tissue, rounds CT alone, and any other image
    is binned like CT and never cut."""
    settings = RadiomicsSettings(profile="ibsi", pet_bin_width=0.3, ct_bin_width=20.0, spacing_mm=2.5)
    pet, ct, other = (radiomics.profile(settings, name) for name in ("PET", "CT", "MR"))
    assert (pet.resegment, ct.resegment, other.resegment) == ((0.0, None), (-200.0, 200.0), None)
    assert (pet.whole_numbers, ct.whole_numbers, other.whole_numbers) == (False, True, False)
    widths = [p.filters[0].grey_levels.bin_width for p in (pet, ct, other)]
    assert widths == [0.3, 20.0, 20.0] and pet.resampling == Resampling((2.5,) * 3, aligned="center")
    paper = radiomics.profile(replace_setting(settings, "paper1456"), "CT")
    assert paper.resegment is None and not paper.whole_numbers and paper.filters[0].grey_levels.bin_width == 20.0
    with pytest.raises(MtdlrError, match=r"E-PROFILE.*radiomics\.profile.*pyradiomics"):
        radiomics.profile(replace_setting(settings, "pyradiomics"), "PET")


def replace_setting(settings: RadiomicsSettings, profile: str) -> RadiomicsSettings:
    return RadiomicsSettings(**{**settings.model_dump(), "profile": profile})


def test_what_is_said_of_undefined_features() -> None:
    """Nothing of whole features; the number and the first five names of undefined ones; one line for no region."""
    assert radiomics.problems({"a": 1.0}) == () == radiomics.problems({})
    (some,) = radiomics.problems({"x": 0.0, **{f"f{k}": nan for k in range(7)}})
    assert some.code == "W-UNDEFINED" and "7 features" in some.what and some.found == "f0, f1, f2, f3, f4, ..."
    (empty,) = radiomics.problems({"a": nan, "b": nan})
    assert empty.code == "W-EMPTYREGION"


# --- PET parameters ---------------------------------------------------------------------------------------------------


def uptake(*values: float) -> tuple[Volume, Volume]:
    """Voxels of 1 ml along x, all in the mask."""
    array = np.array(values, np.float64).reshape(1, 1, -1)
    return Volume.on_grid(array, (10.0, 10.0, 10.0)), Volume.on_grid(np.ones(array.shape, bool), (10.0, 10.0, 10.0))


def test_thresholds_belong_to_their_volume() -> None:
    """A voxel at the threshold counts: SUV 2.5 and 4.0, and 41 and 50 % of the maximum of the mask."""
    found = radiomics.pet_parameters(*uptake(10.0, 5.0, 4.1, 4.0, 2.5, 2.4))
    volumes = {s: found[f"mtv_ml_{s}"] for s in ("2_5", "4_0", "41pct", "50pct")}
    assert volumes == pytest.approx({"2_5": 5.0, "4_0": 4.0, "41pct": 3.0, "50pct": 2.0})
    assert found["tlg_g_50pct"] == pytest.approx(15.0) and found["suv_mean_50pct"] == pytest.approx(7.5)
    assert found["suv_mean"] == pytest.approx(28.0 / 6)


def test_total_glycolysis_is_mean_times_volume() -> None:
    """TLG is SUVmean x MTV at each threshold, and twice as much at twice the uptake where the share decides."""
    pet, mask = uptake(9.0, 8.0, 5.0, 3.0, 1.0)
    once, twice = (radiomics.pet_parameters(pet.with_array(k * pet.array), mask) for k in (1, 2))
    for suffix in radiomics.THRESHOLDS:
        assert once[f"tlg_g_{suffix}"] == pytest.approx(once[f"suv_mean_{suffix}"] * once[f"mtv_ml_{suffix}"])
    assert twice["tlg_g_41pct"] == pytest.approx(2 * once["tlg_g_41pct"])
    assert twice["mtv_ml_41pct"] == once["mtv_ml_41pct"]


def test_the_peak_is_a_sphere_of_one_millilitre() -> None:
    """With voxels of 2.5 mm the peak of a hot voxel is its share of the voxels within 6.2 mm; it may reach outside the
    mask, and stops at the image."""
    suv, mask = np.zeros((13, 13, 13)), np.zeros((13, 13, 13), bool)
    suv[6, 6, 6], mask[6, 6, 6] = 100.0, True
    places = np.argwhere(np.ones(suv.shape, bool)) - 6
    near = int((np.linalg.norm(places * 2.5, axis=1) <= (3000 / (4 * pi))**(1 / 3)).sum())
    found = radiomics.pet_parameters(*(Volume.on_grid(a, (2.5, 2.5, 2.5)) for a in (suv, mask)))
    assert found["suv_peak"] == pytest.approx(100.0 / near) and near > 50
    corner, at = np.full((5, 5, 5), 4.0), np.zeros((5, 5, 5), bool)
    at[0, 0, 0] = True
    assert radiomics.pet_parameters(*(Volume.on_grid(a, (2.5, 2.5, 2.5)) for a in (corner, at)))["suv_peak"] == 4.0


# --- masks of networks ------------------------------------------------------------------------------------------------


def test_a_threshold_is_exceeded_and_not_met() -> None:
    """A probability of exactly the threshold is no tumour; components of exactly the least volume are kept."""
    p = np.full((4, 4, 4), 0.5, np.float32)
    p[0, 0, :3] = 0.51
    assert tumour_mask(p, voxel_ml=1.0, min_component_ml=3.0)[0].sum() == 3
    assert not tumour_mask(p, voxel_ml=1.0, min_component_ml=3.1)[0].any()
    assert tumour_mask(p, voxel_ml=1.0, threshold=0.4, min_component_ml=3.0)[0].all()


def test_components_touch_at_corners() -> None:
    """Voxels that touch at a corner are one component: together they are large enough."""
    p = np.zeros((4, 4, 4), np.float32)
    p[0, 0, 0] = p[1, 1, 1] = p[2, 2, 2] = 1.0
    assert tumour_mask(p, voxel_ml=1.0, min_component_ml=3.0)[0].sum() == 3
    p[1, 1, 1] = 0.0
    found, problems = tumour_mask(p, voxel_ml=1.0, min_component_ml=3.0)
    assert not found.any() and problems[0].code == "W-NOMASK" and problems[0].found == "highest probability 1.00"


def test_the_distance_of_masks_is_the_95th_percentile() -> None:
    """One far voxel of a hundred does not set the 95 % Hausdorff distance, and Dice counts it."""
    a = np.zeros((3, 12, 40), bool)
    a[1, 1:11, 1:11] = True
    b = a.copy()
    b[1, 5, 38] = True
    found = mask_agreement(b, a, (3.0, 1.0, 1.0))
    assert found.hausdorff95_mm == 0.0 and found.dice == pytest.approx(200 / 201)
    assert (found.volume_ml, found.reference_ml) == pytest.approx((0.303, 0.3))


# --- small pieces -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mask", [np.random.default_rng(k).random((3, 7, 8)) < 0.6 for k in range(3)])
def test_holes_are_filled_slice_by_slice(mask: NDArray[np.bool_]) -> None:
    """What no path along x and y joins to the border of its slice is filled, found here by flooding from the border."""
    expected = np.ones(mask.shape, bool)
    for k, plane in enumerate(mask):
        outside = {(y, x) for y in range(7) for x in range(8) if (y in (0, 6) or x in (0, 7)) and not plane[y, x]}
        todo = list(outside)
        while todo:
            y, x = todo.pop()
            for near in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
                if 0 <= near[0] < 7 and 0 <= near[1] < 8 and not plane[near] and near not in outside:
                    outside.add(near)
                    todo.append(near)
        for place in outside:
            expected[(k, *place)] = False
    np.testing.assert_array_equal(filled_slices(mask), expected)


def test_intensities_of_networks() -> None:
    """CT maps its window onto -1 to 1 in a line; PET is cut at 0 and its top; z-scores use the scanned voxels alone."""
    assert scale_ct(np.array([-300.0, -200.0, 0.0, 100.0, 200.0, 900.0]), (-200.0, 200.0)).tolist() == pytest.approx(
        [-1.0, -1.0, 0.0, 0.5, 1.0, 1.0])
    assert clip_pet(np.array([-1.0, 0.0, 5.0, 20.0, 21.0]), 20.0).tolist() == pytest.approx([0, 0, 0.25, 1, 1])
    values, inside = np.array([1.0, 3.0, 5.0, 1000.0]), np.array([True, True, True, False])
    found = standardise_pet(values, inside)
    assert found[:3].mean() == pytest.approx(0.0, abs=1e-6) and found[:3].std() == pytest.approx(1.0, abs=1e-5)
    assert standardise_pet(values, np.zeros(4, bool)).std() == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize(("policy", "n", "code", "found"), [
    ("stored", 9, None, ""), ("transductive", 12, "W-TRANSDUCTIVE", "12 patients"),
    ("none", 1, "W-NOTHARMONISED", "1 patient"), ("none", 3, "W-NOTHARMONISED", "3 patients")])
def test_what_is_said_of_a_centre(policy: str, n: int, code: str | None, found: str) -> None:
    """A centre of training needs no word; a new one is named with its patients and with what would be enough."""
    problem = CenterPolicy("B", policy, n, 10).problem  # type: ignore[arg-type]
    assert (problem.code if problem else None) == code
    if problem:
        assert problem.where == "centre B" and problem.found == found
        assert replace(CenterPolicy("", policy, n, 10)).problem.where == "no centre given"  # type: ignore[arg-type, union-attr]


def test_robust_features_need_their_lower_limit() -> None:
    """A feature is kept when the lower end of its ICC's interval reaches the limit, not the ICC itself."""
    random, truth = np.random.default_rng(0), np.arange(12.0)
    tables = [pd.DataFrame({"good": truth + 0.1 * random.normal(size=12), "noisy": truth + 3 * random.normal(size=12),
                            "noise": random.normal(size=12)}) for _ in range(3)]
    found = robustness(tables)
    assert found.loc["noisy", "icc"] > found.loc["noisy", "low"] > 0 > found.loc["noise", "low"]
    between = float((found.loc["noisy", "icc"] + found.loc["noisy", "low"]) / 2)
    assert robust_features(tables, between) == ["good"]
    assert robust_features(tables, float(found.loc["noisy", "low"])) == ["good", "noisy"]
    assert isnan(robustness([t.iloc[:1] for t in tables]).loc["good", "icc"])
