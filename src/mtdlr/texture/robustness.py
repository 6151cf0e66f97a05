"""Which features survive a slightly different contour and a little more noise: perturbed copies and their ICC.

References:
    Zwanenburg et al., "Assessing robustness of radiomic features by image perturbation" (Sci Rep 2019;9:614).
    McGraw & Wong, "Forming inferences about some intraclass correlation coefficients" (Psychol Methods 1996;1:30):
    ICC(1).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, special

from mtdlr.texture.filters import Box, Spacing

_SMOOTH_MM = 10.0  # contours err over stretches of about this length, not voxel by voxel


def perturbed_mask(mask: NDArray[np.bool_], spacing_mm: Spacing, *, contour_mm: float, seed: int) -> NDArray[np.bool_]:
    """The mask with its contour displaced by a smooth random field.

    Never empty: where the displacement would leave nothing, the mask is returned unchanged.

    Args:
        mask: (z, y, x).
        spacing_mm: (z, y, x) voxel size in mm.
        contour_mm: SD of the displacement in mm.
        seed: of the random field.
    """
    if not mask.any():
        return mask
    depth = ndimage.distance_transform_edt(mask, spacing_mm) - ndimage.distance_transform_edt(~mask, spacing_mm)
    white = np.random.default_rng(seed).normal(size=mask.shape)
    field = ndimage.gaussian_filter(white, _SMOOTH_MM / np.array(spacing_mm))
    moved = depth + contour_mm * field / max(float(field.std()), 1e-12) > 0
    return np.asarray(moved if moved.any() else mask)


def noisy(image: NDArray, box: Box, *, seed: int) -> NDArray[np.float32]:
    """The image with Gaussian noise added, of the level found in a box.

    Args:
        image: (z, y, x).
        box: slices of the part whose noise is measured.
        seed: of the noise.
    """
    level = noise_level(image[box].astype(np.float64))
    noise = np.random.default_rng(seed).normal(scale=level, size=image.shape) if level > 0 else 0.0
    return (image + noise).astype(np.float32)


def noise_level(values: NDArray[np.float64]) -> float:
    """Standard deviation of white noise in an image, robust to its structure.

    The median absolute finest diagonal Haar coefficient over 0.6745 (Donoho & Johnstone 1994).
    """
    detail = values
    for axis in range(values.ndim):
        if detail.shape[axis] > 1:
            detail = np.diff(detail, axis=axis) / np.sqrt(2.0)
    return float(np.median(np.abs(detail))) / 0.6745


def intraclass_correlation(values: NDArray[np.float64]) -> tuple[float, float, float]:
    """(ICC(1), lower, upper 95 % limit) of repeated values; nan where patients do not differ at all or one is missing.

    Args:
        values: (patients, repeats), both at least 2.

    >>> icc, low, high = intraclass_correlation(np.array([[1.0, 1.1], [2.0, 2.1], [5.0, 4.9], [8.0, 8.2]]))
    >>> round(icc, 3), low < icc < high
    (0.999, True)
    """
    n, k = values.shape
    if not np.isfinite(values).all():
        return np.nan, np.nan, np.nan
    means = values.mean(axis=1)
    between = k * float(((means - means.mean()) ** 2).sum()) / (n - 1)
    within = float(((values - means[:, None]) ** 2).sum()) / (n * (k - 1))
    if between == 0:
        return np.nan, np.nan, np.nan
    if within == 0:
        return 1.0, 1.0, 1.0
    ratio = between / within
    low = ratio / special.fdtri(n - 1, n * (k - 1), 0.975)
    high = ratio * special.fdtri(n * (k - 1), n - 1, 0.975)
    icc, lower, upper = ((f - 1) / (f + k - 1) for f in (ratio, low, high))
    return float(icc), float(lower), float(upper)
