"""The extractor against PyRadiomics itself: its example parameter files, outlines of planes and voxel maps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from numpy.typing import NDArray
from test_texture_pyradiomics import ORIGIN, SPACING, featureextractor, lesion

from mtdlr.radiomics import RadiomicsFeatureExtractor
from mtdlr.texture.profile import SHAPE2D

pytestmark = pytest.mark.filterwarnings("ignore")
Conforms = Callable[[str, int, int], None]
_GLCM = ["Autocorrelation", "JointAverage", "ClusterProminence", "ClusterShade", "ClusterTendency", "Contrast",
         "Correlation", "DifferenceAverage", "DifferenceEntropy", "DifferenceVariance", "JointEnergy", "JointEntropy",
         "Imc1", "Imc2", "Idm", "Idmn", "Id", "Idn", "InverseVariance", "MaximumProbability", "SumEntropy",
         "SumSquares"]
_CLASSES = {"shape": None, "firstorder": None, "glcm": _GLCM, "glrlm": None, "glszm": None, "gldm": None}
_PLANE = {"shape2D" if name == "shape" else name: own for name, own in _CLASSES.items()} | {"ngtdm": None}
_MR = {"normalize": True, "normalizeScale": 100, "binWidth": 5, "voxelArrayShift": 300, "label": 1}
_SHAPE = ["VoxelVolume", "MeshVolume", "SurfaceArea", "SurfaceVolumeRatio", "Compactness1", "Compactness2",
          "Sphericity", "SphericalDisproportion", "Maximum3DDiameter", "Maximum2DDiameterSlice",
          "Maximum2DDiameterColumn", "Maximum2DDiameterRow", "MajorAxisLength", "MinorAxisLength", "LeastAxisLength",
          "Elongation", "Flatness"]


def _images(*sigma: float) -> dict[str, Any]:
    return {"Original": {}, "LoG": {"sigma": list(sigma)}, "Wavelet": {}}


EXAMPLES: Mapping[str, dict[str, Any]] = {
    "Params": {"setting": {"binWidth": 25, "label": 1, "interpolator": "sitkBSpline", "resampledPixelSpacing": None,
                           "weightingNorm": None},
               "imageType": {"Original": {}}, "featureClass": _CLASSES | {"firstorder": []}},
    "exampleCT": {"setting": {"interpolator": "sitkBSpline", "resampledPixelSpacing": [1, 1, 1], "padDistance": 10,
                              "binWidth": 25, "voxelArrayShift": 1000, "label": 1},
                  "imageType": _images(1.0, 2.0, 3.0, 4.0, 5.0), "featureClass": _CLASSES},
    "exampleMR_3mm": {"setting": _MR | {"interpolator": "sitkBSpline", "resampledPixelSpacing": [2, 2, 2]},
                      "imageType": _images(2.0, 3.0, 4.0, 5.0), "featureClass": _CLASSES},
    "exampleMR_5mm": {"setting": _MR | {"interpolator": "sitkBSpline", "resampledPixelSpacing": [3, 3, 3]},
                      "imageType": _images(3.0, 5.0), "featureClass": _CLASSES},
    "exampleMR_NoResampling": {"setting": _MR | {"preCrop": True, "force2D": True, "force2Ddimension": 0},
                               "imageType": _images(1.0, 3.0, 5.0), "featureClass": _CLASSES},
    "MR_2D_extraction": {"setting": _MR | {"interpolator": "sitkBSpline", "resampledPixelSpacing": [2, 2, 0],
                                           "padDistance": 10, "preCrop": True, "force2D": True, "force2Ddimension": 0},
                         "imageType": _images(2.0, 3.0, 4.0, 5.0), "featureClass": _PLANE},
    "example_allShape": {"setting": {"label": 1, "interpolator": "sitkBSpline", "resampledPixelSpacing": None},
                         "featureClass": {"shape": _SHAPE}},
    "exampleVoxel": {"setting": {"binWidth": 25, "force2D": True, "label": 1}, "imageType": {"Original": {}},
                     "featureClass": {"glcm": ["JointEntropy"]},
                     "voxelSetting": {"kernelRadius": 2, "maskedKernel": True, "initValue": float("nan"),
                                      "voxelBatch": 10000}},
}
"""What the parameter files in PyRadiomics' folder examples/exampleSettings (June 2025) say."""


def scan(*, plane: bool = False) -> tuple[sitk.Image, sitk.Image]:
    """A made-up lesion in a wide surrounding; in one slice only where it is for plane features."""
    image, mask = lesion((20, 30, 28), seed=4)
    inner = np.zeros_like(mask)
    inner[7:13, 10:20, 9:18] = mask[7:13, 10:20, 9:18]
    if plane:
        inner[[k for k in range(20) if k != 9]] = False
    images = [sitk.GetImageFromArray(array) for array in (image.astype(np.float32), inner.astype(np.uint8))]
    for one in images:
        one.SetSpacing(SPACING[::-1])
        one.SetOrigin(ORIGIN)
    return images[0], images[1]


def values(found: Mapping[str, Any]) -> dict[str, NDArray]:
    """The features, numbers and maps alike, as arrays."""
    return {name: sitk.GetArrayFromImage(value) if isinstance(value, sitk.Image) else np.array(float(value))
            for name, value in found.items() if not name.startswith("diagnostics")}


def worst(parameters: dict[str, Any], pair: tuple[sitk.Image, sitk.Image], *, maps: bool = False) -> tuple[int, float]:
    """(features compared, largest relative difference in units of what is allowed: 1e-6, for LoG 1e-5)."""
    ours = values(RadiomicsFeatureExtractor(parameters).execute(*pair, voxelBased=maps))
    theirs = values(featureextractor.RadiomicsFeatureExtractor(parameters).execute(*pair, voxelBased=maps))
    assert list(ours) == list(theirs)
    apart = 0.0
    for name, expected in theirs.items():
        assert np.array_equal(np.isnan(ours[name]), np.isnan(expected)), name
        allowed = 1e-5 if name.startswith("log-") else 1e-6
        scale = np.maximum(abs(expected), _least_scale(name, theirs))
        apart = max(apart, float(np.nanmax(abs(ours[name] - expected) / scale)) / allowed)
    return len(theirs), apart


def _least_scale(name: str, found: Mapping[str, NDArray]) -> float:
    """What a difference is taken relative to, at least: means near 0 of single-precision images hold no more digits."""
    image, _, feature = name.rpartition("_")
    if feature in ("Mean", "Median") and f"{image}_Range" in found:
        return float(found[f"{image}_Range"].max()) / 10
    return 1.0 if feature == "Skewness" else 1e-9


@pytest.mark.slow
@pytest.mark.parametrize("name", EXAMPLES)
def test_example_parameter_files(name: str, conforms: Conforms) -> None:
    """Every parameter file of PyRadiomics' examples is accepted and gives PyRadiomics' names and values."""
    compared, apart = worst(EXAMPLES[name], scan(plane=name == "MR_2D_extraction"), maps=name == "exampleVoxel")
    assert apart < 1
    conforms("PyRadiomics 3.1.4, its 8 example parameter files", compared, compared)


@pytest.mark.parametrize("axis", [0, 2])  # PyRadiomics refuses every coronal plane
def test_outline_of_a_plane(axis: int) -> None:
    """The ten features of shape2D equal PyRadiomics' across every axis, corners and holes included."""
    array, mask = lesion((20, 24, 22))
    plane = np.zeros_like(mask)
    place = (slice(None),) * axis + (9,)
    plane[place] = mask[place]
    pair = [sitk.GetImageFromArray(one) for one in (array, plane.astype(np.uint8))]
    for one in pair:
        one.SetSpacing(SPACING[::-1])
    _, apart = worst({"setting": {"force2D": True, "force2Ddimension": axis},
                      "featureClass": {"shape2D": list(SHAPE2D)}}, (pair[0], pair[1]))
    assert apart < 1


@pytest.mark.slow
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("flat", [True, False])
def test_voxel_maps(masked: bool, flat: bool, conforms: Conforms) -> None:
    """Maps of all 93 features equal PyRadiomics' at every voxel, in planes and in space, masked or not."""
    image, mask = lesion((12, 14, 13))
    part = np.zeros_like(mask)
    part[4:8, 5:9, 5:8] = mask[4:8, 5:9, 5:8]
    classes = dict.fromkeys(("firstorder", "glcm", "gldm", "glrlm", "glszm", "ngtdm"))
    pair = (sitk.GetImageFromArray(image), sitk.GetImageFromArray(part.astype(np.uint8)))
    compared, apart = worst({"setting": {"binWidth": 40, "force2D": flat}, "featureClass": classes,
                             "voxelSetting": {"kernelRadius": 2 if flat else 1, "maskedKernel": masked,
                                              "initValue": -1.0}}, pair, maps=True)
    assert apart < 1
    conforms("PyRadiomics 3.1.4, maps voxel by voxel, 4 settings", compared, compared)
