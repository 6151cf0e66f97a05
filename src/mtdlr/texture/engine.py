"""From an image and a mask to named features."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from math import nan

import numpy as np
from numpy.typing import NDArray

from mtdlr.errors import Problem, ScanError
from mtdlr.texture.compiled import has_cache
from mtdlr.texture.discretise import Discretised, _assign, discretise
from mtdlr.texture.filters import Box, filtered
from mtdlr.texture.firstorder import firstorder
from mtdlr.texture.glcm import glcm_features
from mtdlr.texture.matrices import (
    LevelMap,
    Step,
    dependences,
    differences,
    half_steps,
    level_map,
    pairs_and_runs,
    zones,
)
from mtdlr.texture.morphology import shape
from mtdlr.texture.ngtdm import ngtdm_features
from mtdlr.texture.outline import outline
from mtdlr.texture.profile import GLCM, GreyLevels, Profile, Weighting
from mtdlr.texture.sizes import DEPENDENCE, RUN, ZONE, size_features

Spacing = tuple[float, float, float]
_CELLS = 2**18  # cells of co-occurrence matrices held at a time


def extract(image: NDArray, mask: NDArray, spacing_mm: Spacing, *, profile: Profile) -> dict[str, float]:
    """The profile's features of one image inside one mask, by PyRadiomics' names.

    Args:
        image: (z, y, x) intensities, any real dtype. float32 images are filtered in single precision, as PyRadiomics
            does; integers in double.
        mask: (z, y, x), True inside the region.
        spacing_mm: (z, y, x).
        profile: which features of which images.

    Features that are not defined for the region are nan: all of them for an empty mask, texture for a region that
    extends along fewer than `profile.min_dimensions` axes.

    Raises:
        ScanError: E-SHAPE when image and mask differ in shape, E-NONFINITE for a nan or infinite intensity,
            E-GREYLEVELS for bins that are too narrow.

    >>> from mtdlr.texture import paper1456
    >>> ramp = np.arange(216.0).reshape(6, 6, 6)
    >>> found = extract(ramp, ramp > 40, (1.0, 1.0, 1.0), profile=paper1456(25.0))
    >>> len(found), found["original_firstorder_Minimum"]
    (736, 41.0)
    """
    mask = np.asarray(mask).astype(bool)
    _check(image, mask)
    if profile.normalise:
        image = normalise(image, scale=profile.normalise_scale, outliers=profile.outliers)
    if profile.crop is not None:
        window = _grown(bounding_box(mask), profile.crop, mask.shape)
        image, mask = image[window], mask[window]
    region = resegmented(image, mask, profile)
    form = region if profile.resegment_shape else mask
    found = _shape_features(form, spacing_mm, profile) | _outline_features(form, spacing_mm, profile)
    if np.count_nonzero(region) <= profile.min_voxels:
        region = np.zeros_like(region)
    box = bounding_box(region)
    inside = region[box]
    for spec in profile.filters:
        for name, values in filtered(image, box, spacing_mm, spec):
            for key, value in _image_features(values, inside, spacing_mm, spec.grey_levels, profile).items():
                found[f"{name}_{key}"] = value
    return found


def is_compiled() -> bool:
    """Whether the engine can start at once; otherwise its first call compiles it, once after installing.

    >>> image = np.arange(64.0).reshape(4, 4, 4)
    >>> _ = extract(image, image > 9, (1.0, 1.0, 1.0), profile=Profile({"firstorder": ("Mean",)}))
    >>> is_compiled()
    True
    """
    return has_cache(_assign)


def bounding_box(mask: NDArray[np.bool_]) -> Box:
    """The smallest box that holds the region; the first voxel where there is none."""
    parts = []
    for axis in range(3):
        across = np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))
        parts.append(slice(int(across[0]), int(across[-1]) + 1) if across.size else slice(0, 1))
    return parts[0], parts[1], parts[2]


def _grown(box: Box, margin: int, extent: tuple[int, ...]) -> Box:
    """The box and a margin, as far as the image goes."""
    z, y, x = (slice(max(b.start - margin, 0), min(b.stop + margin, n)) for b, n in zip(box, extent, strict=True))
    return z, y, x


def normalise(image: NDArray, *, scale: float = 1.0, outliers: float | None = None) -> NDArray:
    """The image z-scored over all its voxels (sample SD), clipped and scaled.

    Args:
        image: of any shape; one that is the same everywhere becomes 0.
        scale: factor after the z-score.
        outliers: SDs at which it is clipped; None clips nothing.

    Returns:
        float64 for a float64 image, else float32.

    References:
        PyRadiomics: normalize, normalizeScale, removeOutliers.
    """
    single = image.dtype != np.float64
    x = image.astype(np.float64)
    z = ((x - x.mean()) / (x.std(ddof=1) or 1.0)).astype(np.float32 if single else np.float64)
    if outliers is not None:
        z = np.clip(z, -outliers, outliers)
    return z * z.dtype.type(scale)


def resegmented(image: NDArray, mask: NDArray[np.bool_], profile: Profile) -> NDArray[np.bool_]:
    """The region without voxels outside the profile's intensity limits.

    Args:
        image: (z, y, x), in its own unit.
        mask: (z, y, x), the region.
        profile: its `resegment` (low, high) counts in the image's unit, in shares of the region's maximum ("relative")
            or in SDs about its mean ("sigma").

    Returns:
        (z, y, x).
    """
    if profile.resegment is None or not mask.any():
        return mask
    low, high = profile.resegment
    values = image[mask].astype(np.float64)
    unit, zero = 1.0, 0.0
    if profile.resegment_mode == "relative":
        unit = float(values.max())
    elif profile.resegment_mode == "sigma":
        unit, zero = float(values.std()), float(values.mean())
    kept = values >= zero + unit * low
    if high is not None:
        kept &= values <= zero + unit * high
    region = mask.copy()
    region[mask] = kept
    return region


def _check(image: NDArray, mask: NDArray[np.bool_]) -> None:
    """Raise where image and mask cannot be used together."""
    if image.shape != mask.shape or image.ndim != 3:
        raise ScanError(Problem("E-SHAPE", "image and mask must share one 3-D grid",
                                found=f"image {image.shape}, mask {mask.shape}"))
    if image.dtype.kind == "f" and not np.isfinite(image).all():
        bad = np.argwhere(~np.isfinite(image))
        raise ScanError(Problem("E-NONFINITE", "the image has intensities that are not numbers",
                                found=f"{len(bad)} voxels, the first at (z, y, x) = {tuple(bad[0].tolist())}",
                                remedy="Replace them, or crop the image"))


def _shape_features(mask: NDArray[np.bool_], spacing_mm: Spacing, profile: Profile) -> dict[str, float]:
    """`original_shape_*` of the profile."""
    names = profile.features.get("shape", ())
    if not names:
        return {}
    if np.count_nonzero(mask) <= profile.min_voxels:
        return {f"original_shape_{name}": nan for name in names}
    values = shape(mask[bounding_box(mask)], spacing_mm)
    return {f"original_shape_{name}": values[name] for name in names}


def _outline_features(mask: NDArray[np.bool_], spacing_mm: Spacing, profile: Profile) -> dict[str, float]:
    """`original_shape2D_*` of the profile; nan for a region that does not lie in one plane."""
    names = profile.features.get("shape2D", ())
    if not names:
        return {}
    axis = next((spec.grey_levels.plane_axis or 0 for spec in profile.filters), 0)
    inside = mask[bounding_box(mask)]
    values: dict[str, float] = {}
    if np.count_nonzero(inside) > profile.min_voxels and inside.shape[axis] == 1:
        y, x = (step for place, step in enumerate(spacing_mm) if place != axis)
        values = outline(inside.squeeze(axis), (y, x))
    return {f"original_shape2D_{name}": values.get(name, nan) for name in names}


def _image_features(values: NDArray, inside: NDArray[np.bool_], spacing_mm: Spacing, grey: GreyLevels,
                    profile: Profile) -> dict[str, float]:
    """`<class>_<Feature>` of one image."""
    wanted = {k: v for k, v in profile.features.items() if not k.startswith("shape")}
    computed: dict[str, Mapping[str, float]] = {}
    if inside.any() and not np.isnan(values.flat[0]):
        intensities = values[inside]
        found = discretise(intensities, grey)
        computed["firstorder"] = firstorder(intensities, found.counts[1:], voxel_mm3=float(np.prod(spacing_mm)),
                                            shift=grey.shift)
        if sum(n > 1 for n in inside.shape) >= max(profile.min_dimensions, 1):
            computed |= texture(found, inside, spacing_mm, grey=grey, classes=wanted)
    return {f"{group}_{name}": computed.get(group, {}).get(name, nan)
            for group, names in wanted.items() for name in names}


def texture(found: Discretised, inside: NDArray[np.bool_], spacing_mm: Spacing, *, grey: GreyLevels,
            classes: Collection[str], top: int = 0) -> dict[str, dict[str, float]]:
    """The matrix features of one discretised region, by class; a class without any pair or run is left out.

    Args:
        found: grey levels of the region's voxels, in the mask's order.
        inside: (z, y, x), the region in its bounding box.
        spacing_mm: (z, y, x), for distance weights.
        grey: how levels are counted.
        classes: which of glcm, glrlm, glszm, gldm, ngtdm.
        top: highest grey level of the whole of which this is a part; 0 where it is the whole.
    """
    levels = level_map(found, inside, max(grey.distances), grey.plane_axis)
    gray = levels.gray[1:]
    around = half_steps(levels.extent, grey.distances, planar=levels.planar)
    out: dict[str, dict[str, float]] = {}
    if "glszm" in classes:
        matrix, sizes = zones(levels)
        out["glszm"] = _named(ZONE, size_features(matrix[None], gray, sizes))
    if "gldm" in classes:
        matrix = dependences(levels, around, grey.dependence)
        out["gldm"] = _named(DEPENDENCE, size_features(matrix[None], gray, np.arange(1, matrix.shape[1] + 1)))
    if "ngtdm" in classes:
        out["ngtdm"] = ngtdm_features(levels.counts[1:], differences(levels, around), gray)
    if "glcm" in classes or "glrlm" in classes:
        out |= directional(levels, around, spacing_mm, grey=grey, top=top)
    return out


def directional(levels: LevelMap, around: list[Step], spacing_mm: Spacing, *,
                grey: GreyLevels, top: int = 0) -> dict[str, dict[str, float]]:
    """GLCM and GLRLM features: the mean over directions, or those of the weighted sum of the matrices.

    Args:
        levels: the region in grey levels.
        around: steps of the GLCM, one of each opposite pair; runs go along the nearest neighbours alone.
        spacing_mm: (z, y, x) voxel size in mm, for the weights.
        grey: grey-level settings: symmetric pairs, weighting by distance.
        top: as `texture`.

    Returns:
        Values by group ("glcm", "glrlm") and feature name; a group that cannot be counted is absent.
    """
    near = half_steps(levels.extent, (1,), planar=levels.planar)
    steps = list(dict.fromkeys(near + around))
    gray, longest = levels.gray[1:], max(levels.extent)
    glcm, glrlm = [], []
    merged_pairs, merged_runs = np.zeros((1, gray.size, gray.size)), np.zeros((1, gray.size, longest))
    chunk = max(1, _CELLS // gray.size**2)
    for part in (steps[i:i + chunk] for i in range(0, len(steps), chunk)):
        pairs, runs = pairs_and_runs(levels, part)
        paired = np.asarray(pairs.any(axis=(1, 2)))
        for_glcm = paired & np.array([step in around for step in part])
        for_glrlm = [step in near and bool(some or _aligned(levels, step))
                     for step, some in zip(part, paired, strict=True)]
        if grey.weighting is None:
            glcm.append(glcm_features(*_topped(pairs[for_glcm], gray, top), symmetric=grey.symmetric))
            glrlm.append(size_features(runs[for_glrlm], gray, np.arange(1, longest + 1)))
        else:
            distance = np.abs(part) * np.array(spacing_mm)[list(levels.axes)]
            for k in range(len(part)):  # not as a product: BLAS may round by its number of threads
                merged_pairs[0] += _pair_weight(distance, grey.weighting)[k] * for_glcm[k] * pairs[k]
                merged_runs[0] += _run_weight(distance, grey.weighting)[k] * for_glrlm[k] * runs[k]
    if merged_pairs.any():
        glcm.append(glcm_features(*_topped(merged_pairs, gray, top), symmetric=grey.symmetric))
    if merged_runs.any():
        glrlm.append(size_features(merged_runs, gray, np.arange(1, longest + 1)))
    named = (("glcm", GLCM, glcm), ("glrlm", RUN, glrlm))
    return {group: _named(names, np.concatenate(rows)) for group, names, rows in named if any(map(len, rows))}


def _topped(pairs: NDArray, gray: NDArray[np.int64], top: int) -> tuple[NDArray, NDArray[np.int64]]:
    """(pairs, grey levels) with the level `top` that does not occur among them: GLCM's Idn counts levels by it."""
    if top <= gray[-1]:
        return pairs, gray
    return np.pad(pairs, ((0, 0), (0, 1), (0, 1))), np.append(gray, top)


def _named(names: tuple[str, ...], rows: NDArray[np.float64]) -> dict[str, float]:
    """The mean of the rows by feature name."""
    return dict(zip(names, rows.mean(axis=0).tolist(), strict=True))


def _aligned(levels: LevelMap, step: Step) -> bool:
    """Whether any two voxels of the region lie on one line along `step`, neighbours or not."""
    flat = np.flatnonzero(levels.flat)
    plane, row, _ = levels.strides.tolist()
    places = np.stack((flat // plane, flat % plane // row, flat % row), axis=1)
    lead = next(axis for axis in range(3) if step[axis])
    lines = places - places[:, lead:lead + 1] * np.array(step) * step[lead]
    return len(np.unique(lines, axis=0)) < len(lines)


def _pair_weight(distance: NDArray[np.float64], weighting: Weighting) -> NDArray[np.float64]:
    """(n,) weights of directions' co-occurrences; `distance` (n, 3) by axis in mm."""
    if weighting == "infinity":
        return np.exp(-distance.max(axis=1) ** 2)
    if weighting == "euclidean":
        return np.exp(-(distance**2).sum(axis=1))
    if weighting == "manhattan":
        return np.exp(-distance.sum(axis=1) ** 2)
    return np.ones(len(distance))


def _run_weight(distance: NDArray[np.float64], weighting: Weighting) -> NDArray[np.float64]:
    """(n,) weights of directions' runs; `distance` (n, 3) by axis in mm."""
    if weighting == "infinity":
        return np.asarray(distance.max(axis=1))
    if weighting == "euclidean":
        return np.sqrt((distance**2).sum(axis=1))
    if weighting == "manhattan":
        return distance.sum(axis=1)
    return np.ones(len(distance))
