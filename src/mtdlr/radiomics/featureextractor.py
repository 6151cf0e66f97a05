"""PyRadiomics' feature extractor by its own names: an old script runs after one import line is changed.

The names and the call are PyRadiomics'; docs/from-pyradiomics.md has every difference.
"""

from __future__ import annotations

import ast
import json
import logging
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtdlr import texture
from mtdlr.errors import Problem, ScanError
from mtdlr.imaging import itk
from mtdlr.radiomics import extract as radiomics
from mtdlr.radiomics.diagnostics import diagnostics
from mtdlr.volume import Volume

IMAGE_TYPES = ("Exponential", "Gradient", "LBP2D", "LoG", "Logarithm", "Original", "Square", "SquareRoot", "Wavelet")
"""PyRadiomics' image types, without LBP3D."""
_SETTINGS: Mapping[str, Any] = {
    "minimumROIDimensions": 2, "minimumROISize": None, "normalize": False, "normalizeScale": 1, "removeOutliers": None,
    "resampledPixelSpacing": None, "interpolator": "sitkBSpline", "preCrop": False, "padDistance": 5, "distances": [1],
    "force2D": False, "force2Ddimension": 0, "resegmentRange": None, "label": 1, "additionalInfo": True}
log = logging.getLogger(__name__)


class RadiomicsFeatureExtractor:
    """Features of an image inside a mask, as PyRadiomics' class of this name gives them.

    >>> extractor = RadiomicsFeatureExtractor(binWidth=5, additionalInfo=False)
    >>> extractor.disableAllFeatures()
    >>> extractor.enableFeaturesByName(firstorder=["Mean"], shape=["VoxelVolume"])
    >>> image = np.arange(64.0).reshape(4, 4, 4)
    >>> found = extractor.execute(image, image > 31, spacing_mm=(2.0, 1.0, 1.0))
    >>> {name: float(value) for name, value in found.items()}
    {'original_shape_VoxelVolume': 64.0, 'original_firstorder_Mean': 47.5}
    """

    def __init__(self, parameters: str | Path | Mapping[str, Any] | None = None, **settings: Any) -> None:
        """An extractor with default settings, or those of a parameter file.

        Args:
            parameters: a parameter file (YAML or JSON) or its content.
            settings: single settings, such as binWidth=25, that go before the file's.

        Raises:
            StudyError: E-NOPARAMETERS, E-PARAMETERS.
        """
        self.settings: dict[str, Any] = dict(_SETTINGS)
        self.enabledImagetypes: dict[str, Any] = {"Original": {}}
        self.enabledFeatures: dict[str, Any] = {name: [] for name in sorted(texture.FEATURES)}
        if isinstance(parameters, Mapping):
            self._apply(parameters, "parameters")
        elif parameters is not None:
            self.loadParams(parameters)
        self.settings |= settings
        self._profile()

    @property
    def featureClassNames(self) -> list[str]:
        """Every feature class, shape2D among them."""
        return sorted(texture.CLASSES)

    def loadParams(self, paramsFile: str | Path) -> None:
        """Take settings, image types and features from a parameter file.

        Args:
            paramsFile: YAML or JSON.

        Raises:
            StudyError: E-NOPARAMETERS, E-PARAMETERS.
        """
        self._apply(texture.read_content(paramsFile), Path(paramsFile).name)

    def loadJSONParams(self, JSON_configuration: str) -> None:
        """Take settings, image types and features from JSON text.

        Args:
            JSON_configuration: the content of a parameter file.

        Raises:
            StudyError: E-PARAMETERS.
        """
        self._apply(json.loads(JSON_configuration), "JSON")

    def _apply(self, content: Mapping[str, Any], where: str) -> None:
        """Check a parameter file's content and take it over."""
        texture.profile_of(content, where=where)
        self.enabledImagetypes = dict(content.get("imageType") or {"Original": {}})
        self.enabledFeatures = dict(content.get("featureClass") or {name: [] for name in sorted(texture.FEATURES)})
        self.settings = {**_SETTINGS, **(content.get("setting") or {}), **(content.get("voxelSetting") or {})}

    def addProvenance(self, provenance_on: bool = True) -> None:
        """Return `diagnostics_*` too, or leave them out.

        Args:
            provenance_on: whether they are returned.
        """
        self.settings["additionalInfo"] = provenance_on

    def enableAllFeatures(self) -> None:
        """Enable every class and its features, but for the deprecated ones."""
        self.enabledFeatures = {name: [] for name in self.featureClassNames}

    def disableAllFeatures(self) -> None:
        """Disable every class."""
        self.enabledFeatures = {}

    def enableFeatureClassByName(self, featureClass: str, enabled: bool = True) -> None:
        """Enable or disable one class.

        Args:
            featureClass: such as glcm; a name that is not known is refused by `execute`.
            enabled: False disables it.
        """
        _switch(self.enabledFeatures, featureClass, [] if enabled else None)

    def enableFeaturesByName(self, **enabledFeatures: Any) -> None:
        """Enable features of classes: `enableFeaturesByName(glcm=["Contrast"], shape=[])`.

        Args:
            enabledFeatures: class -> feature names; none or an empty list is every feature of the class.
        """
        self.enabledFeatures |= enabledFeatures

    def enableAllImageTypes(self) -> None:
        """Enable every image type, but for LBP3D, which is not made here."""
        self.enabledImagetypes = {name: {} for name in IMAGE_TYPES}

    def disableAllImageTypes(self) -> None:
        """Disable every image type."""
        self.enabledImagetypes = {}

    def enableImageTypeByName(self, imageType: str, enabled: bool = True,
                              customArgs: Mapping[str, Any] | None = None) -> None:
        """Enable or disable one image type.

        Args:
            imageType: such as Wavelet; a name that is not known is refused by `execute`.
            enabled: False disables it.
            customArgs: settings of this image type alone.
        """
        _switch(self.enabledImagetypes, imageType, dict(customArgs or {}) if enabled else None)

    def enableImageTypes(self, **enabledImagetypes: Any) -> None:
        """Enable image types with their own settings: `enableImageTypes(Original={}, LoG={"sigma": [2.0]})`.

        Args:
            enabledImagetypes: image type -> settings.
        """
        self.enabledImagetypes |= enabledImagetypes

    def execute(self, imageFilepath: Any, maskFilepath: Any, label: int | None = None,
                label_channel: int | None = None, voxelBased: bool = False, *,
                spacing_mm: tuple[float, float, float] | None = None) -> OrderedDict[str, Any]:
        """The enabled features of an image inside one label of a mask.

        Args:
            imageFilepath: a path, a SimpleITK image, a `Volume`, or an array (z, y, x).
            maskFilepath: the same for the mask; voxels that equal the label are the region.
            label: in place of the setting `label`.
            label_channel: of a mask with several values a voxel; 0 by default.
            voxelBased: maps in place of numbers.
            spacing_mm: (z, y, x) of arrays.

        Returns:
            `diagnostics_*`, then features by name. A map is a SimpleITK image, or a `Volume` where the input was
            arrays or volumes or SimpleITK is not installed.

        Raises:
            ScanError: E-NOLABEL where no voxel has the label; what reading and `texture.extract` raise.
            StudyError: E-PARAMETERS for a setting, image type or feature that is wrong.
        """
        channel = int(self.settings.get("label_channel", 0) if label_channel is None else label_channel)
        image, mask = _volume(imageFilepath, spacing_mm, 0), _volume(maskFilepath, spacing_mm, channel)
        profile = self._profile(label=label, plane=_is_plane(imageFilepath))
        if not radiomics.labelled(mask, profile.label).array.any():
            raise _no_label(mask, profile.label)
        found: OrderedDict[str, Any] = OrderedDict()
        if profile.diagnostics:
            found.update(self._diagnostics(image, mask, profile))
        if voxelBased:
            as_volume = isinstance(imageFilepath, np.ndarray | Volume) or not itk.is_installed()
            found.update((name, one if as_volume else itk.image(one))
                         for name, one in radiomics.image_feature_maps(image, mask, profile).items())
        else:
            found.update((name, np.float64(value))
                         for name, value in radiomics.image_features(image, mask, profile).items())
        return found

    def _profile(self, *, label: int | None = None, plane: bool = False) -> texture.Profile:
        """What is enabled now, as a profile."""
        settings = {name: _plain(value) for name, value in self.settings.items()}
        if label is not None:
            settings["label"] = int(label)
        if plane:
            settings |= {"force2D": True, "force2Ddimension": 0}
        images = {name: {key: _plain(value) for key, value in (own or {}).items()}
                  for name, own in self.enabledImagetypes.items()}
        profile = texture.profile_of({"setting": settings, "imageType": images, "featureClass": self.enabledFeatures},
                                     where="settings")
        return replace(profile, features=profile.features if self.enabledFeatures else {},
                       filters=profile.filters if self.enabledImagetypes else ())

    def _diagnostics(self, image: Volume, mask: Volume, profile: texture.Profile) -> dict[str, Any]:
        """`diagnostics_*` with PyRadiomics' types: tuples of numbers, mappings of settings."""
        found: dict[str, Any] = {
            name: ast.literal_eval(value) if isinstance(value, str) and value.startswith("(") else value
            for name, value in diagnostics(image, mask, profile).items()}
        return found | {"diagnostics_Configuration_Settings": {**self.settings, "label": profile.label},
                        "diagnostics_Configuration_EnabledImageTypes": dict(self.enabledImagetypes)}


def _switch(enabled: dict[str, Any], name: str, value: Any) -> None:
    """Put a name in, or take it out where the value is None."""
    if value is None:
        enabled.pop(name, None)
    else:
        enabled[name] = value


def _plain(value: Any) -> Any:
    """A setting as a parameter file would have it: lists and Python's own numbers."""
    if isinstance(value, np.ndarray | tuple):
        return [_plain(one) for one in value]
    return value.item() if isinstance(value, np.generic) else value


def _is_plane(thing: Any) -> bool:
    """Whether an image was given in two dimensions."""
    return (isinstance(thing, np.ndarray) and thing.ndim == 2) or (itk.is_image(thing) and thing.GetDimension() == 2)


def _volume(thing: Any, spacing_mm: tuple[float, float, float] | None, channel: int) -> Volume:
    """What was given, as a volume."""
    if isinstance(thing, Volume):
        return thing
    if isinstance(thing, str | Path):
        return itk.read(thing, channel=channel)[0]
    if itk.is_image(thing):
        return itk.volume(thing, channel=channel)
    array: NDArray = np.asarray(thing)
    if array.ndim == 4:
        array = array[..., channel]
    if spacing_mm is None:
        raise ScanError(Problem("E-GEOMETRY", "an array has no voxel size", remedy="Give spacing_mm=(z, y, x)"))
    return Volume.on_grid(array[None] if array.ndim == 2 else array, spacing_mm)


def _no_label(mask: Volume, label: int) -> ScanError:
    """No voxel of the mask has the label."""
    there = [str(value) for value in np.unique(mask.array)[:8] if value]
    return ScanError(Problem("E-NOLABEL", "no voxel of the mask has this label", where="mask", expected=str(label),
                             found=f"labels {', '.join(there)}" if there else "zeros alone",
                             remedy="Give label=, or another mask"))
