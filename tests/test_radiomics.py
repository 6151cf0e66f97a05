"""Radiomics of a patient: names, counts, grids, PET parameters and what is said about missing values."""

from __future__ import annotations

from math import isnan, pi
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from mtdlr import texture
from mtdlr.errors import ScanError, StudyError
from mtdlr.radiomics import extract as radiomics
from mtdlr.study import RadiomicsSettings
from mtdlr.volume import Volume

SHAPE = (24, 30, 28)


def volumes(spacing: tuple[float, float, float] = (3.0, 2.0, 2.0)) -> tuple[Volume, Volume, Volume]:
    """(PET, CT, mask) of a warm ball in cold, noisy tissue."""
    random = np.random.default_rng(5)
    z, y, x = (np.indices(SHAPE).T - np.array([12, 15, 14])).T
    ball = (z * 1.5) ** 2 + y**2 + x**2 < 64
    pet = np.where(ball, 6.0, 1.0) + random.gamma(2.0, 0.3, SHAPE)
    ct = np.where(ball, 60.0, 30.0) + random.normal(size=SHAPE) * 20
    return (Volume.on_grid(pet.astype(np.float32), spacing), Volume.on_grid(ct.astype(np.float32), spacing),
            Volume.on_grid(ball, spacing))


def flipped(volume: Volume, axis: int) -> Volume:
    """The same voxels in the same place, stored backwards along an array axis."""
    affine = volume.affine.copy()
    affine[:3, 3] += affine[:3, axis] * (volume.shape[axis] - 1)
    affine[:3, axis] *= -1
    return Volume(np.flip(volume.array, axis), affine)


def cubes(*corners: tuple[int, int, int], edge: int = 4) -> NDArray[np.bool_]:
    mask = np.zeros(SHAPE, bool)
    for z, y, x in corners:
        mask[z:z + edge, y:y + edge, x:x + edge] = True
    return mask


def test_paper1456_names() -> None:
    """Profile paper1456 gives 720 PET, 720 CT and 16 shape features, all defined, all floats."""
    found = radiomics.extract(*volumes(), RadiomicsSettings())
    counts = [sum(name.startswith(prefix) for name in found) for prefix in ("PET_", "CT_", "shape_")]
    assert counts == [720, 720, 16] and radiomics.problems(found) == ()
    assert all(type(value) is float for value in found.values())
    assert "PET_wavelet-HHL_glszm_ZoneEntropy" in found and "CT_original_firstorder_StandardDeviation" in found


def test_ibsi_names() -> None:
    """Profile ibsi has every class once and nothing that repeats another feature."""
    found = radiomics.extract(*volumes(), RadiomicsSettings(profile="ibsi"))
    assert len(found) == 2 * 9 * 93 + 14 and not any("StandardDeviation" in name for name in found)


def test_one_modality() -> None:
    """Either modality works alone and gives the same values as together."""
    pet, ct, mask = volumes()
    both = radiomics.extract(pet, ct, mask, RadiomicsSettings())
    for alone in (radiomics.extract(pet, None, mask, RadiomicsSettings()),
                  radiomics.extract(None, ct, mask, RadiomicsSettings())):
        assert len(alone) == 736 and alone.items() <= both.items()


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_orientation(axis: int) -> None:
    """Scans and masks stored flipped along any axis give the same features to 1e-6."""
    pet, ct, mask = volumes()
    expected = radiomics.extract(pet, ct, mask, RadiomicsSettings(profile="ibsi"))
    found = radiomics.extract(flipped(pet, axis), ct, flipped(mask, axis), RadiomicsSettings(profile="ibsi"))
    assert found == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_mask_on_another_grid() -> None:
    """A mask drawn on the CT serves the PET on its own, coarser grid: the shape is the mask's, not the PET's."""
    _, ct, mask = volumes((1.5, 1.0, 1.0))
    pet = Volume.on_grid(np.random.default_rng(0).gamma(3.0, 1.0, (10, 12, 11)).astype(np.float32), (4.0, 3.0, 3.0))
    found = radiomics.extract(pet, ct, mask, RadiomicsSettings(spacing_mm=1.0))
    assert found["shape_MeshVolume"] == pytest.approx(mask.array.sum() * 1.5, rel=0.05)
    assert radiomics.problems(found) == ()


def test_margin_does_not_matter() -> None:
    """A scan cropped around the lesion gives the same features: nothing far away is looked at."""
    pet, ct, mask = volumes((4.0, 4.0, 4.0))
    wide = [Volume.on_grid(np.pad(v.array, 20, mode="edge"), v.spacing_mm, (-80.0, -80.0, -80.0)) for v in (pet, ct)]
    mask_wide = Volume.on_grid(np.pad(mask.array, 20), mask.spacing_mm, (-80.0, -80.0, -80.0))
    found = radiomics.extract(pet, ct, mask, RadiomicsSettings(spacing_mm=4.0))
    assert found == pytest.approx(radiomics.extract(*wide, mask_wide, RadiomicsSettings(spacing_mm=4.0)), rel=1e-6)  # type: ignore[call-arg]


def test_empty_mask() -> None:
    """An empty mask gives all 1456 names without a value, and one warning that says so."""
    pet, ct, mask = volumes()
    found = radiomics.extract(pet, ct, mask.with_array(np.zeros(SHAPE, bool)), RadiomicsSettings())
    assert len(found) == 1456 and all(map(isnan, found.values()))
    (problem,) = radiomics.problems(found)
    assert problem.code == "W-EMPTYREGION" and not problem.is_error


def test_one_voxel() -> None:
    """A mask of one voxel on its own grid has undefined features, and they are named."""
    pet, ct, mask = volumes((2.0, 2.0, 2.0))
    one = np.zeros(SHAPE, bool)
    one[12, 15, 14] = True
    found = radiomics.extract(pet, ct, mask.with_array(one), RadiomicsSettings())
    (problem,) = radiomics.problems(found)
    assert problem.code == "W-UNDEFINED" and "glcm" in problem.found
    assert found["shape_MeshVolume"] > 0 and not isnan(found["PET_original_firstorder_Mean"])


def test_not_a_number_near_the_lesion() -> None:
    """A nan where features would see it is refused."""
    pet, ct, mask = volumes()
    broken = pet.array.copy()
    broken[12, 15, 14] = np.nan
    with pytest.raises(ScanError, match="E-NONFINITE"):
        radiomics.extract(pet.with_array(broken), ct, mask, RadiomicsSettings())


def test_unknown_profile() -> None:
    """A profile we do not have, a missing and a wrong parameter file are each refused in one line."""
    pet, ct, mask = volumes()
    for profile, code in (("paper1457", "E-PROFILE"), ("nowhere.yaml", "E-NOPARAMETERS")):
        with pytest.raises(StudyError) as error:
            radiomics.extract(pet, ct, mask, RadiomicsSettings(profile=profile))
        assert error.value.code == code


def test_parameter_file(tmp_path: Path) -> None:
    """A PyRadiomics parameter file is applied to both modalities as it is."""
    path = tmp_path / "own.yaml"
    path.write_text("setting: {binWidth: 5, resampledPixelSpacing: [4, 4, 4]}\n"
                    "imageType: {Original: {}, LoG: {sigma: [4.0]}}\n"
                    "featureClass: {firstorder: [Mean], shape: [Sphericity]}\n")
    found = radiomics.extract(*volumes(), RadiomicsSettings(profile=str(path)))
    assert list(found) == ["PET_original_firstorder_Mean", "PET_log-sigma-4-0-mm-3D_firstorder_Mean",
                           "CT_original_firstorder_Mean", "CT_log-sigma-4-0-mm-3D_firstorder_Mean", "shape_Sphericity"]


def test_label_map() -> None:
    """In a label map the profile's label is the region."""
    pet, _, _ = volumes()
    labels = cubes((4, 4, 4)).astype(np.uint8) + 2 * cubes((14, 14, 14))
    profile = texture.profile_of({"setting": {"label": 2}, "featureClass": {"firstorder": ["Mean"]}})
    found = radiomics.image_features(pet, Volume.on_grid(labels, pet.spacing_mm), profile)
    assert found["original_firstorder_Mean"] == pytest.approx(pet.array[cubes((14, 14, 14))].mean(), rel=1e-6)


def test_pet_parameters_by_hand() -> None:
    """Thresholds, volumes, TLG and the mean are those counted by hand on a made-up lesion."""
    suv = np.ones(SHAPE, np.float32)
    lesion = cubes((8, 8, 8))
    suv[lesion] = 3.0
    suv[8:10, 8:12, 8:12] = 10.0
    suv[20, 20, 20] = 50.0
    found = radiomics.pet_parameters(Volume.on_grid(suv, (5.0, 5.0, 5.0)), Volume.on_grid(lesion, (5.0, 5.0, 5.0)))
    assert (found["suv_max"], found["suv_mean"]) == (10.0, 6.5)
    assert (found["mtv_ml_2_5"], found["suv_mean_2_5"], found["tlg_g_2_5"]) == pytest.approx((8.0, 6.5, 52.0))
    assert (found["mtv_ml_4_0"], found["tlg_g_4_0"]) == pytest.approx((4.0, 40.0))
    assert found["mtv_ml_41pct"] == found["mtv_ml_50pct"] == pytest.approx(4.0)
    assert (found["lesions"], found["spread_cm"]) == (1.0, 0.0)


def test_pet_parameters_of_two_lesions() -> None:
    """Two lesions are counted, and their spread is the distance of their centres."""
    mask = cubes((2, 2, 2), (12, 2, 2))
    found = radiomics.pet_parameters(Volume.on_grid(np.full(SHAPE, 5.0), (5.0, 5.0, 5.0)),
                                     Volume.on_grid(mask, (5.0, 5.0, 5.0)))
    assert (found["lesions"], found["spread_cm"]) == (2.0, pytest.approx(5.0))


def test_pet_parameters_of_a_cold_lesion() -> None:
    """Below SUV 2.5 the volume is truly 0 and the mean of nothing is nan; an empty mask is nan throughout."""
    pet, mask = Volume.on_grid(np.full(SHAPE, 1.0)), Volume.on_grid(cubes((2, 2, 2)))
    found = radiomics.pet_parameters(pet, mask)
    assert (found["mtv_ml_2_5"], found["tlg_g_2_5"]) == (0.0, 0.0) and isnan(found["suv_mean_2_5"])
    empty = radiomics.pet_parameters(pet, Volume.on_grid(np.zeros(SHAPE, bool)))
    assert set(empty) == set(found) and all(map(isnan, empty.values()))


def test_peak() -> None:
    """SUVpeak is the mean of the voxels within the radius of a 1 ml sphere, at its highest inside the mask."""
    suv = np.random.default_rng(1).gamma(2.0, 2.0, SHAPE)
    mask = cubes((10, 10, 10))
    places = np.argwhere(np.ones(SHAPE, bool)) * 2.0
    radius = (3000 / (4 * pi)) ** (1 / 3)
    expected = max(suv.ravel()[np.linalg.norm(places - centre * 2.0, axis=1) <= radius].mean()
                   for centre in np.argwhere(mask))
    found = radiomics.pet_parameters(Volume.on_grid(suv, (2.0, 2.0, 2.0)), Volume.on_grid(mask, (2.0, 2.0, 2.0)))
    assert found["suv_peak"] == pytest.approx(expected)


def test_diameter() -> None:
    """The maximum diameter is in centimetres."""
    found = radiomics.pet_parameters(Volume.on_grid(np.ones(SHAPE), (10.0, 10.0, 10.0)),
                                     Volume.on_grid(cubes((4, 4, 4), edge=10), (10.0, 10.0, 10.0)))
    assert found["max_diameter_cm"] == pytest.approx(np.linalg.norm([10, 9, 9]))


# --- a mask at the edge of its grid -----------------------------------------------------------------------------------


def phantom(corner: tuple[int, int, int]) -> tuple[Volume, Volume]:
    """20^3 voxels of 3 mm, SUV 5 everywhere; a block of 6 x 10 x 10 voxels at a corner."""
    mask = np.zeros((20, 20, 20), bool)
    mask[tuple(slice(c, c + n) for c, n in zip(corner, (6, 10, 10), strict=True))] = True
    return Volume.on_grid(np.full((20, 20, 20), 5.0, np.float32), (3.0,) * 3), Volume.on_grid(mask, (3.0,) * 3)


@pytest.mark.parametrize("corner", [(0, 5, 5), (14, 5, 5), (0, 0, 0), (14, 10, 10), (7, 5, 5)])
@pytest.mark.parametrize("profile", ["paper1456", "ibsi"])
def test_mask_at_the_edge_of_its_grid(corner: tuple[int, int, int], profile: str) -> None:
    """A mask that touches the edge of its grid ends there: 18 x 30 x 30 voxels of 1 mm wherever it lies.

    Where two faces inside the grid meet, linear interpolation at one half rounds off the outermost row of voxels:
    there the mask is 2/3 x 2/3 < 1/2. A face at the grid's edge is not rounded.
    """
    image, mask = phantom(corner)
    settings = RadiomicsSettings(profile=profile, spacing_mm=1.0)
    values, region = radiomics.gridded(image, mask, radiomics.profile(settings, "PET"))
    ramps = [np.ones(n) for n in (18, 30, 30)]
    for ramp, low, n in zip(ramps, corner, (6, 10, 10), strict=True):
        ramp[[0] * (low > 0) + [-1] * (low + n < 20)] = 2 / 3
    by_hand = np.count_nonzero(np.einsum("i,j,k->ijk", *ramps) >= 0.5)
    assert np.count_nonzero(region.array) == by_hand
    assert corner != (0, 5, 5) or by_hand == 18 * 30 * 30 - (4 * 18 + 4 * 28)
    assert values.array[region.array].min() == pytest.approx(5.0)
    features = radiomics.extract(image, None, mask, settings)
    assert features["shape_MeshVolume"] == pytest.approx(18 * 30 * 30, rel=0.03)
    assert features["PET_original_firstorder_Minimum"] == pytest.approx(5.0)


@pytest.mark.parametrize("corner", [(0, 5, 5), (14, 5, 5), (0, 0, 0)])
def test_voxels_at_the_edge_equal_pyradiomics(corner: tuple[int, int, int], tmp_path: Path) -> None:
    """At the edge of the scan a parameter file's region has PyRadiomics' voxel count; `paper1456` differs by 1.2 %.

    PyRadiomics takes the nearest mask voxel, `paper1456` interpolates the mask linearly, as the IBSI asks.
    """
    sitk = pytest.importorskip("SimpleITK")
    operations = pytest.importorskip("radiomics.imageoperations")
    image, mask = phantom(corner)
    theirs = []
    for array in (image.array, mask.array.astype(np.uint8)):
        theirs.append(sitk.GetImageFromArray(array))
        theirs[-1].SetSpacing((3.0, 3.0, 3.0))
    _, resampled = operations.resampleImage(*theirs, resampledPixelSpacing=[1, 1, 1], interpolator="sitkBSpline",
                                            padDistance=5, label=1)
    count = int((sitk.GetArrayFromImage(resampled) == 1).sum())
    file = tmp_path / "params.yaml"
    file.write_text("setting:\n  resampledPixelSpacing: [1, 1, 1]\n  binWidth: 0.25\nimageType:\n  Original: {}\n")
    for profile, allowed in ((str(file), 0.0), ("paper1456", 0.012)):
        settings = RadiomicsSettings(profile=profile, spacing_mm=1.0)
        _, region = radiomics.gridded(image, mask, radiomics.profile(settings, "PET"))
        assert np.count_nonzero(region.array) == pytest.approx(count, rel=allowed, abs=0)
