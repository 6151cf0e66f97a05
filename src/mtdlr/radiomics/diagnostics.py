"""Where a row of features comes from: PyRadiomics' `diagnostics_*`, under its names and with its values.

They follow the columns of a table made with a parameter file, unless that says `additionalInfo: false`.
"""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping
from dataclasses import asdict, replace
from importlib.metadata import version

import numpy as np
import scipy  # which loads ndimage at its first use: 20 MB that most calls do not need

from mtdlr import texture
from mtdlr.radiomics import extract as radiomics
from mtdlr.texture.engine import resegmented
from mtdlr.volume import Volume

Facts = dict[str, str | float]


def diagnostics(image: Volume, mask: Volume, profile: texture.Profile) -> Facts:
    """What was read and what features were computed from; a list of numbers is text, x before y before z.

    Args:
        image: as `radiomics.image_features`.
        mask: as `radiomics.image_features`.
        profile: as `radiomics.image_features`.

    `Versions_mtdlr` stands for PyRadiomics' own; SimpleITK has no part in it. Empty regions have no centre and no
    intensities: those names are left out.
    """
    region = radiomics.labelled(mask, profile.label)
    found = _settings(profile)
    found |= {"Image-original_Hash": _hash(image), "Image-original_Dimensionality": "3D"}
    found |= _of_image(image, "original")
    found["Mask-original_Hash"] = _hash(mask.with_array(mask.array.astype(np.uint32)))  # the type PyRadiomics reads
    found |= _of_mask(region, None, "original")
    gridded, inside = radiomics.gridded(image, mask, profile)
    if profile.resampling is not None:
        found |= _of_image(gridded, "interpolated") | _of_mask(inside, gridded, "interpolated")
    if profile.resegment is not None:
        kept = inside.with_array(resegmented(gridded.array, inside.array, profile))
        found |= _of_mask(kept, gridded, "resegmented")
    return {f"diagnostics_{name}": value for name, value in found.items()}


def _settings(profile: texture.Profile) -> Facts:
    """Versions, and the profile in full."""
    found: Facts = {f"Versions_{name}": version(package) for name, package in
                    (("mtdlr", "mtdlr"), ("Numpy", "numpy"), ("PyWavelet", "PyWavelets"))}
    found["Versions_Python"] = platform.python_version()
    values: Mapping[str, object] = asdict(replace(profile, features={}))
    found["Configuration_Settings"] = str({k: v for k, v in values.items() if k not in ("features", "filters")})
    found["Configuration_EnabledImageTypes"] = str([asdict(spec) for spec in profile.filters])
    return found


def _hash(volume: Volume) -> str:
    """SHA-1 of the voxels."""
    return hashlib.sha1(np.ascontiguousarray(volume.array).tobytes(), usedforsecurity=False).hexdigest()


def _of_image(image: Volume, stage: str) -> Facts:
    """Grid and intensities of a whole image."""
    values = image.array.astype(np.float64)
    return _grid(image, f"Image-{stage}") | {
        f"Image-{stage}_Mean": float(values.mean()), f"Image-{stage}_Minimum": float(values.min()),
        f"Image-{stage}_Maximum": float(values.max())}


def _of_mask(region: Volume, image: Volume | None, stage: str) -> Facts:
    """Grid, place and parts of a region, and the intensities inside it."""
    places, name = np.argwhere(region.array), f"Mask-{stage}"
    found = _grid(region, name)
    found |= {f"{name}_VoxelNum": float(len(places)),
              f"{name}_VolumeNum": float(scipy.ndimage.label(region.array, np.ones((3, 3, 3)))[1])}
    if not len(places):
        return found
    low, centre = places.min(axis=0), places.mean(axis=0)
    size = places.max(axis=0) - low + 1
    found |= {f"{name}_BoundingBox": _text(*low[::-1], *size[::-1]), f"{name}_CenterOfMassIndex": _text(*centre[::-1]),
              f"{name}_CenterOfMass": _text(*region.points_mm(centre))}
    if image is not None:
        inside = image.array[region.array].astype(np.float64)
        found |= {f"{name}_Mean": float(inside.mean()), f"{name}_Minimum": float(inside.min()),
                  f"{name}_Maximum": float(inside.max())}
    return found


def _grid(volume: Volume, name: str) -> Facts:
    """Spacing and size, x first."""
    return {f"{name}_Spacing": _text(*volume.spacing_mm[::-1]), f"{name}_Size": _text(*volume.shape[::-1])}


def _text(*values: float) -> str:
    """Numbers as PyRadiomics' tables show them."""
    return f"({', '.join(str(np.asarray(value).item()) for value in values)})"
