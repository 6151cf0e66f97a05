"""Every feature, setting and filter against PyRadiomics on made-up images."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from mtdlr import texture
from mtdlr.radiomics import extract as radiomics
from mtdlr.volume import Volume

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    featureextractor = pytest.importorskip("radiomics.featureextractor", reason="the extra [oracles] is not installed")
    logging.getLogger("radiomics").setLevel(logging.CRITICAL)

pytestmark = pytest.mark.filterwarnings("ignore")
Conforms = Callable[[str, int, int], None]
SPACING, ORIGIN = (3.0, 1.5, 2.0), (3.0, -7.0, 11.0)
CLASSES: dict[str, Any] = dict.fromkeys(("firstorder", "glcm", "gldm", "glrlm", "glszm", "ngtdm", "shape"))


def lesion(shape: tuple[int, int, int] = (20, 24, 22), seed: int = 0) -> tuple[NDArray, NDArray[np.bool_]]:
    """(textured image about 0, ragged mask with holes and splinters)."""
    random = np.random.default_rng(seed)
    image = gaussian_filter(random.normal(size=shape), 1.0) * 100 + random.normal(size=shape) * 10
    places = np.indices(shape) - (np.array(shape)[:, None, None, None] - 1) / 2
    ball = ((places / (0.37 * np.array(shape)[:, None, None, None])) ** 2).sum(axis=0) < 1
    return image, ball ^ (gaussian_filter(random.normal(size=shape), 1.0) > 0.5)


def oracle(image: NDArray, mask: NDArray, parameters: dict[str, Any]) -> dict[str, float]:
    """PyRadiomics' features."""
    images = [sitk.GetImageFromArray(array) for array in (image, mask.astype(np.uint8))]
    for one in images:
        one.SetSpacing(SPACING[::-1])
        one.SetOrigin(ORIGIN)
    found = featureextractor.RadiomicsFeatureExtractor(copy.deepcopy(parameters)).execute(*images)
    return {name: float(value) for name, value in found.items() if not name.startswith("diagnostics")}


def ours(image: NDArray, mask: NDArray, parameters: dict[str, Any]) -> dict[str, float]:
    """Our features of the same parameters."""
    volumes = [Volume.on_grid(array, SPACING, ORIGIN) for array in (image, mask.astype(np.uint8))]
    return radiomics.image_features(*volumes, texture.profile_of(parameters))  # type: ignore[call-arg]


def worst(found: dict[str, float], expected: dict[str, float]) -> tuple[float, str]:
    """(largest relative difference, its feature); names and their order must agree."""
    assert list(found) == list(expected)
    return max((abs(found[name] - value) / max(abs(value), 1e-9), name) for name, value in expected.items())


def test_all_of_837_and_17(conforms: Conforms) -> None:
    """Every feature of every class, of original and wavelet images, equals PyRadiomics' to 1e-6 relative."""
    image, mask = lesion()
    features = {name: list(texture.FEATURES[name]) for name in CLASSES}
    parameters = {"setting": {"binWidth": 10.0}, "featureClass": features, "imageType": {"Original": {}, "Wavelet": {}}}
    found = ours(image, mask, parameters)
    assert len(found) == 9 * (19 + 24 + 14 + 16 + 16 + 5) + 17
    difference, name = worst(found, oracle(image, mask, parameters))
    assert difference < 1e-6, name
    conforms("PyRadiomics 3.1.4, all 846 of original and wavelet and 17 of shape, deprecated ones too", len(found),
             len(found))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16])
@pytest.mark.parametrize("bin_width", [pytest.param(2.0, marks=pytest.mark.slow), 25.0])
def test_paper1456(dtype: type, bin_width: float, conforms: Conforms) -> None:
    """The 720 + 16 features of profile paper1456 equal PyRadiomics' to 1e-6 relative, whatever the image's dtype."""
    image, mask = lesion((17, 21, 19), seed=1)
    image = image.astype(dtype)
    profile = texture.paper1456(bin_width)
    features = {name: list(names) for name, names in profile.features.items()}
    parameters = {"setting": {"binWidth": bin_width}, "featureClass": features,
                  "imageType": {"Original": {}, "Wavelet": {}}}
    found = texture.extract(image, mask, SPACING, profile=profile)
    expected = oracle(image, mask, parameters)
    assert len(found) == 720 + 16 and set(found) == set(expected)
    difference, name = worst({key: found[key] for key in expected}, expected)
    assert difference < 1e-6, name
    conforms("PyRadiomics 3.1.4, 720 + 16 of `paper1456`, three dtypes, two bin widths", len(found), len(found))


@pytest.mark.slow
@pytest.mark.parametrize("setting", [
    {}, {"binCount": 16}, {"symmetricalGLCM": False}, {"weightingNorm": "infinity"}, {"weightingNorm": "euclidean"},
    {"weightingNorm": "manhattan"}, {"weightingNorm": "no_weighting"}, {"distances": [1, 2]}, {"distances": [2]},
    {"gldm_a": 2}, {"force2D": True}, {"force2D": True, "force2Ddimension": 1, "distances": [1, 2]},
    {"force2D": True, "force2Ddimension": 2, "weightingNorm": "euclidean"}, {"resegmentRange": [-50, 80]},
    {"resegmentRange": [-60], "resegmentShape": True}, {"resegmentRange": [0.1, 0.9], "resegmentMode": "relative",
                                                        "resegmentShape": True},
    {"resegmentRange": [-1, 2], "resegmentMode": "sigma", "resegmentShape": True}, {"voxelArrayShift": 100},
    {"normalize": True, "normalizeScale": 100, "removeOutliers": 2}, {"preCrop": True, "padDistance": 3},
    {"resampledPixelSpacing": [1, 2, 2], "interpolator": "sitkLinear"}, {"resampledPixelSpacing": [2, 2, 2]},
    {"resampledPixelSpacing": [2.5, 0, 2], "padDistance": 2}, {"resampledPixelSpacing": [2, 1.5, 3]},
], ids=str)
def test_setting(setting: dict[str, Any], conforms: Conforms) -> None:
    """Every setting of a parameter file does what it does in PyRadiomics, to 1e-6 relative."""
    image, mask = lesion()
    parameters = {"setting": {"binWidth": 10.0, **setting}, "featureClass": CLASSES}
    found = ours(image, mask, parameters)
    difference, name = worst(found, oracle(image, mask, parameters))
    assert difference < 1e-6, name
    conforms("PyRadiomics 3.1.4, 24 settings of parameter files", len(found), len(found))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [np.float32, pytest.param(np.float64, marks=pytest.mark.slow),
                                   pytest.param(np.int16, marks=pytest.mark.slow)])
@pytest.mark.parametrize("image_type", [
    {"Square": {}}, {"SquareRoot": {}}, {"Logarithm": {}}, {"Exponential": {}}, {"Gradient": {}},
    {"Gradient": {"gradientUseSpacing": False}}, {"LoG": {"sigma": [2.0, 3]}},
    {"Wavelet": {"wavelet": "db2", "level": 2, "start_level": 1, "binWidth": 60}}, {"Wavelet": {"wavelet": "haar"}},
], ids=str)
def test_filter(image_type: dict[str, Any], dtype: type, conforms: Conforms) -> None:
    """Every filter gives PyRadiomics' features to 1e-6 relative; ITK's LoG works in single precision, to 1e-5."""
    image, mask = lesion()
    image = image.astype(dtype)
    parameters = {"setting": {"binWidth": 10.0}, "imageType": image_type,
                  "featureClass": {"firstorder": ["Energy", "Variance", "10Percentile", "Entropy"], "glcm": None}}
    found = ours(image, mask, parameters)
    difference, name = worst(found, oracle(image, mask, parameters))
    assert difference < (1e-5 if "LoG" in image_type else 1e-6), name
    conforms("PyRadiomics 3.1.4, 9 filters, three dtypes", len(found), len(found))


def one_slice() -> NDArray[np.bool_]:
    mask = np.zeros((20, 24, 22), bool)
    mask[10, 5:15, 6:18] = True
    return mask


def diagonals() -> NDArray[np.bool_]:
    mask = np.zeros((20, 24, 22), bool)
    for k in range(5):
        mask[8 + k, 9 + k, 7] = mask[3 + 2 * k, 20, 20] = True
    return mask


def whole() -> NDArray[np.bool_]:
    return np.ones((20, 24, 22), bool)


@pytest.mark.slow
@pytest.mark.parametrize("mask", [one_slice(), diagonals(), whole()], ids=["slice", "diagonals", "whole image"])
def test_odd_region(mask: NDArray[np.bool_], conforms: Conforms) -> None:
    """Regions one slice thick, without neighbours in most directions, or that fill the image are as in PyRadiomics."""
    image, _ = lesion()
    parameters = {"setting": {"binWidth": 10.0}, "featureClass": CLASSES, "imageType": {"Original": {}, "Wavelet": {}}}
    found = ours(image, mask, parameters)
    assert len(found) == 837 + 14
    difference, name = worst(found, oracle(image, mask, parameters))
    assert difference < 1e-6, name
    conforms("PyRadiomics 3.1.4, its default set (837 + 14), three odd regions", len(found), len(found))


def test_flat_region() -> None:
    """A region of one grey level has PyRadiomics' values: Correlation and MCC 1, Coarseness 1e6, no nan."""
    image, mask = np.full((20, 24, 22), 5.0), lesion()[1]
    found = ours(image, mask, {"featureClass": CLASSES})
    assert found == pytest.approx(oracle(image, mask, {"featureClass": CLASSES}), rel=1e-6, abs=1e-12)
    assert (found["original_glcm_MCC"], found["original_ngtdm_Coarseness"]) == (1.0, 1e6)
