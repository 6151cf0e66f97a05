"""Features voxel by voxel: each voxel of the region has those of its neighbourhood (PyRadiomics' voxelBased)."""

from __future__ import annotations

from collections.abc import Mapping
from math import nan

import numpy as np
from numpy.typing import NDArray

from mtdlr.texture.discretise import Discretised, discretise
from mtdlr.texture.engine import _check, _grown, bounding_box, normalise, resegmented, texture
from mtdlr.texture.filters import Box, filtered
from mtdlr.texture.firstorder import firstorder
from mtdlr.texture.profile import GreyLevels, Profile

Spacing = tuple[float, float, float]


def feature_maps(image: NDArray, mask: NDArray, spacing_mm: Spacing, *, profile: Profile
                 ) -> tuple[Box, dict[str, NDArray[np.float64]]]:
    """The profile's features of each voxel's neighbourhood; shape has no map.

    Args:
        image: (z, y, x) intensities.
        mask: (z, y, x), True inside the region.
        spacing_mm: (z, y, x).
        profile: which features of which images; its `kernel` says what a neighbourhood is. Grey levels are binned
            once for the whole region. With force2D, a neighbourhood lies in one plane.

    Returns:
        (the region's box grown by the kernel's radius, name -> map of that box). Outside the region a map has
        `profile.kernel.outside`; a feature that a neighbourhood does not define is nan.

    Raises:
        ScanError: as `extract`.

    >>> ramp = np.arange(125.0).reshape(5, 5, 5)
    >>> box, maps = feature_maps(ramp, ramp > 40, (1.0, 1.0, 1.0), profile=Profile({"firstorder": ("Mean",)}))
    >>> float(maps["original_firstorder_Mean"][3, 2, 2])
    87.0
    """
    mask = np.asarray(mask).astype(bool)
    _check(image, mask)
    if profile.normalise:
        image = normalise(image, scale=profile.normalise_scale, outliers=profile.outliers)
    region = resegmented(image, mask, profile)
    box = _grown(bounding_box(region), profile.kernel.radius, region.shape)
    wanted = {k: v for k, v in profile.features.items() if not k.startswith("shape")}
    maps: dict[str, NDArray[np.float64]] = {}
    for spec in profile.filters:
        for name, values in filtered(image, box, spacing_mm, spec):
            found = _maps(values, region[box], spacing_mm, spec.grey_levels, profile)
            maps |= {f"{name}_{group}_{key}": found[group, key] for group, keys in wanted.items() for key in keys}
    return box, maps


def _maps(values: NDArray, region: NDArray[np.bool_], spacing_mm: Spacing, grey: GreyLevels,
          profile: Profile) -> dict[tuple[str, str], NDArray[np.float64]]:
    """The maps of one image by (class, feature)."""
    wanted = [(k, name) for k, names in profile.features.items() if not k.startswith("shape") for name in names]
    maps = {key: np.full(region.shape, profile.kernel.outside) for key in wanted}
    inside = region if profile.kernel.masked else np.ones_like(region)
    if not region.any() or np.isnan(values.flat[0]):
        return maps
    whole = discretise(values[inside], grey)
    level = np.zeros(region.shape, np.int64)
    level[inside] = whole.level
    for place in np.argwhere(region):
        window = _window(place.tolist(), region.shape, profile.kernel.radius, grey.plane_axis)
        local = _neighbourhood(values[window], inside[window], level[window], whole, spacing_mm, grey,
                               classes={group for group, _ in wanted})
        for group, name in wanted:
            maps[group, name][tuple(place)] = local.get(group, {}).get(name, nan)
    return maps


def _window(place: list[int], extent: tuple[int, ...], radius: int, plane_axis: int | None) -> Box:
    """The box of a voxel's neighbourhood, as far as the image goes."""
    reach = [0 if axis == plane_axis else radius for axis in range(3)]
    z, y, x = (slice(max(at - r, 0), min(at + r + 1, n)) for at, r, n in zip(place, reach, extent, strict=True))
    return z, y, x


def _neighbourhood(values: NDArray, inside: NDArray[np.bool_], level: NDArray[np.int64], whole: Discretised,
                   spacing_mm: Spacing, grey: GreyLevels, *, classes: set[str]) -> dict[str, Mapping[str, float]]:
    """The features of one neighbourhood by class."""
    present, compact, counts = np.unique(level[inside], return_inverse=True, return_counts=True)
    found = Discretised((compact + 1).astype(np.uint16), np.concatenate(([0], whole.gray[present])),
                        np.concatenate(([0], counts)))
    out: dict[str, Mapping[str, float]] = {}
    if "firstorder" in classes:
        out["firstorder"] = firstorder(values[inside], counts, voxel_mm3=float(np.prod(spacing_mm)), shift=grey.shift)
    if classes - {"firstorder"} and compact.size > 1:
        box = bounding_box(inside)
        out |= texture(found, inside[box], spacing_mm, grey=grey, classes=classes, top=int(whole.gray[-1]))
    return out
