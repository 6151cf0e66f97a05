"""`diagnostics_*`: what a row of features was computed from, as PyRadiomics says it."""

from __future__ import annotations

import ast
import logging
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import radiomics_conformance
import SimpleITK as sitk

from mtdlr import texture
from mtdlr.radiomics.diagnostics import diagnostics
from mtdlr.volume import Volume

SPACING, ORIGIN = (3.0, 1.5, 2.0), (3.0, -7.0, 11.0)


def scan() -> tuple[np.ndarray, np.ndarray]:
    """(whole-numbered image, mask of two parts)."""
    image = np.random.default_rng(2).integers(-100, 200, (14, 18, 16)).astype(np.int16)
    mask = np.zeros(image.shape, np.uint8)
    mask[3:9, 4:11, 5:12] = mask[11:13, 14:16, 2:4] = 1
    return image, mask


def facts(parameters: dict[str, Any]) -> dict[str, str | float]:
    image, mask = (Volume.on_grid(array, SPACING, ORIGIN) for array in scan())
    return diagnostics(image, mask, texture.profile_of(parameters))


def numbers(value: Any) -> Any:
    """Text as the numbers it shows."""
    return ast.literal_eval(value) if isinstance(value, str) and value.startswith("(") else value


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("setting", [{}, {"resampledPixelSpacing": [2, 2, 2]}, {"resegmentRange": [-50, 80]},
                                     {"resampledPixelSpacing": [3, 2, 1], "resegmentRange": [0]}], ids=str)
def test_as_in_pyradiomics(setting: dict[str, Any], conforms: Callable[[str, int, int], None]) -> None:
    """Every name that describes image and mask is PyRadiomics', in its order, with its value (hashes included)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        extractor = pytest.importorskip("radiomics.featureextractor", reason="the extra [oracles] is not installed")
    logging.getLogger("radiomics").setLevel(logging.CRITICAL)
    images = [sitk.GetImageFromArray(array) for array in scan()]
    for one in images:
        one.SetSpacing(SPACING[::-1])
        one.SetOrigin(ORIGIN)
    parameters = {"setting": setting, "featureClass": {"firstorder": ["Mean"]}}
    expected = {name: value for name, value in extractor.RadiomicsFeatureExtractor(parameters).execute(*images).items()
                if name.startswith(("diagnostics_Image", "diagnostics_Mask"))}
    found = {name: value for name, value in facts(parameters).items() if name in expected}
    assert set(found) == set(expected)
    for name, value in expected.items():
        same = numbers(found[name])
        assert same == (value if isinstance(value, str) else pytest.approx(value, rel=1e-6, abs=1e-9)), name
    conforms("PyRadiomics 3.1.4, `diagnostics_Image-*` and `diagnostics_Mask-*`, 4 settings", len(found), len(expected))


def test_no_row_by_hand() -> None:
    """The conformance table of docs/radiomics.md has exactly the rows that tests make."""
    assert radiomics_conformance.labels() == list(radiomics_conformance.ROWS)


def test_versions_and_settings() -> None:
    """The versions and the whole configuration are there, under PyRadiomics' names but for its own version."""
    found = facts({"setting": {"binWidth": 7}})
    assert {"diagnostics_Versions_mtdlr", "diagnostics_Versions_Numpy", "diagnostics_Versions_PyWavelet",
            "diagnostics_Versions_Python", "diagnostics_Configuration_Settings"} <= set(found)
    assert "'bin_width': 7.0" in str(found["diagnostics_Configuration_EnabledImageTypes"])


def test_empty_region() -> None:
    """An empty mask is described as such, without a centre."""
    image, mask = scan()
    volumes = [Volume.on_grid(array, SPACING, ORIGIN) for array in (image, mask * 0)]
    found = diagnostics(*volumes, texture.profile_of({"setting": {"resampledPixelSpacing": [2, 2, 2]}}))  # type: ignore[call-arg]
    assert found["diagnostics_Mask-original_VoxelNum"] == 0.0
    assert "diagnostics_Mask-original_CenterOfMass" not in found
