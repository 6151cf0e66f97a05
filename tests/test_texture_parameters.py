"""PyRadiomics parameter files: what is accepted, and everything that is wrong with one at once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mtdlr.errors import StudyError
from mtdlr.texture import default_features, profile_of, read_parameters
from mtdlr.texture.engine import normalise


def test_defaults() -> None:
    """An empty file is PyRadiomics' default: original image, every class without its deprecated features."""
    profile = profile_of({})
    assert sum(len(names) for names in profile.features.values()) == 107 and profile.resampling is None
    assert [f.kind for f in profile.filters] == ["original"] and profile.filters[0].grey_levels.bin_width == 25.0


def test_everything_is_taken_over() -> None:
    """Every setting lands where it belongs; an image type's own settings override the general ones."""
    profile = profile_of({
        "setting": {"binWidth": 5, "resampledPixelSpacing": [1, 2, 3], "interpolator": "sitkLinear", "padDistance": 7,
                    "resegmentRange": [80, -50], "resegmentMode": "sigma", "resegmentShape": True, "label": 3,
                    "normalize": True, "normalizeScale": 100, "removeOutliers": 3, "minimumROISize": 9,
                    "minimumROIDimensions": 3, "voxelArrayShift": 300, "distances": [1, 3], "force2D": True,
                    "force2Ddimension": 2, "weightingNorm": "euclidean", "symmetricalGLCM": False, "gldm_a": 1,
                    "geometryTolerance": 1e-3, "additionalInfo": False, "correctMask": True},
        "imageType": {"Original": {}, "LoG": {"sigma": [2.0, 3], "binWidth": 1}, "Wavelet": {"level": 2}},
        "featureClass": {"glcm": ["Contrast", "Dissimilarity"], "shape": None, "ngtdm": []},
        "voxelSetting": {"kernelRadius": 2},
    })
    assert profile.features == {"glcm": ("Contrast",), "shape": default_features("shape"),
                                "ngtdm": default_features("ngtdm")}
    assert profile.resampling is not None and profile.resampling.spacing_mm == (3.0, 2.0, 1.0)
    assert (profile.resampling.interpolation, profile.resampling.pad_voxels) == ("linear", 7)
    assert (profile.resegment, profile.resegment_mode, profile.resegment_shape) == ((-50.0, 80.0), "sigma", True)
    assert (profile.normalise_scale, profile.outliers, profile.label) == (100, 3, 3)
    assert (profile.min_voxels, profile.min_dimensions, profile.diagnostics) == (9, 3, False)
    original, log, wavelet = profile.filters
    grey = original.grey_levels
    assert (grey.shift, grey.distances, grey.plane_axis, grey.weighting) == (300.0, (1, 3), 2, "euclidean")
    assert (grey.symmetric, grey.dependence) == (False, 1)
    assert (log.sigmas_mm, log.grey_levels.bin_width, wavelet.levels) == ((2.0, 3), 1.0, 2)


def test_all_mistakes_at_once() -> None:
    """Every mistake of a file comes back together, each with its place and the nearest name."""
    with pytest.raises(StudyError) as error:
        profile_of({"settings": {}, "setting": {"binWith": 5, "binCount": -1, "force2D": "yes", "distances": 1,
                                                "resampledPixelSpacing": [1, 2], "weightingNorm": "minkowski"},
                    "imageType": {"LBP3D": {}, "Wavelett": {}}, "featureClass": {"glcm": ["Contrasts"], "shap": None}},
                   where="own.yaml")
    lines = str(error.value).splitlines()
    assert len(lines) == 11 and all(line.startswith("E-PARAMETERS own.yaml: ") for line in lines)
    assert any("setting.binWith" in line and "binWidth" in line for line in lines)
    assert any("featureClass.glcm.Contrasts" in line and "Contrast?" in line for line in lines)


@pytest.mark.parametrize("text", ["setting: [", "a: b: c", "- 1\n- 2", "\x00"])
def test_not_yaml(tmp_path: Path, text: str) -> None:
    """A file that is not a YAML mapping is refused in one line."""
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(StudyError, match="E-PARAMETERS bad.yaml"):
        read_parameters(path)


def test_json(tmp_path: Path) -> None:
    """A JSON parameter file is read like a YAML one."""
    path = tmp_path / "own.json"
    path.write_text('{"setting": {"binCount": 32}}')
    assert read_parameters(path).filters[0].grey_levels.bin_count == 32


def test_an_image_that_is_the_same_everywhere_is_normalised_to_0() -> None:
    """No division by a standard deviation of 0: the image becomes 0, without a warning."""
    assert not normalise(np.full((3, 4, 5), 7.0, np.float32), scale=100.0, outliers=3.0).any()
