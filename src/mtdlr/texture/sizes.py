"""Features of matrices that count grey level against a size: runs (GLRLM), zones (GLSZM), dependences (GLDM)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mtdlr.texture.compiled import entry
from mtdlr.texture.firstorder import EPS

RUN = ("ShortRunEmphasis", "LongRunEmphasis", "GrayLevelNonUniformity", "GrayLevelNonUniformityNormalized",
       "RunLengthNonUniformity", "RunLengthNonUniformityNormalized", "RunPercentage", "GrayLevelVariance",
       "RunVariance", "RunEntropy", "LowGrayLevelRunEmphasis", "HighGrayLevelRunEmphasis",
       "ShortRunLowGrayLevelEmphasis", "ShortRunHighGrayLevelEmphasis", "LongRunLowGrayLevelEmphasis",
       "LongRunHighGrayLevelEmphasis")
ZONE = ("SmallAreaEmphasis", "LargeAreaEmphasis", "GrayLevelNonUniformity", "GrayLevelNonUniformityNormalized",
        "SizeZoneNonUniformity", "SizeZoneNonUniformityNormalized", "ZonePercentage", "GrayLevelVariance",
        "ZoneVariance", "ZoneEntropy", "LowGrayLevelZoneEmphasis", "HighGrayLevelZoneEmphasis",
        "SmallAreaLowGrayLevelEmphasis", "SmallAreaHighGrayLevelEmphasis", "LargeAreaLowGrayLevelEmphasis",
        "LargeAreaHighGrayLevelEmphasis")
DEPENDENCE = ("SmallDependenceEmphasis", "LargeDependenceEmphasis", "GrayLevelNonUniformity", "",
              "DependenceNonUniformity", "DependenceNonUniformityNormalized", "", "GrayLevelVariance",
              "DependenceVariance", "DependenceEntropy", "LowGrayLevelEmphasis", "HighGrayLevelEmphasis",
              "SmallDependenceLowGrayLevelEmphasis", "SmallDependenceHighGrayLevelEmphasis",
              "LargeDependenceLowGrayLevelEmphasis", "LargeDependenceHighGrayLevelEmphasis")


def size_features(matrices: NDArray, gray: NDArray, size: NDArray) -> NDArray[np.float64]:
    """(n, 16): the emphases of each matrix, in the order of `RUN`, `ZONE` and `DEPENDENCE`.

    Args:
        matrices: (n, K, J) how often grey level k has size j; no matrix all 0.
        gray: (K,) grey levels.
        size: (J,) sizes in voxels.
    """
    found = np.empty((len(matrices), 16))
    counts = np.ascontiguousarray(matrices, dtype=np.float64)
    for n in range(len(counts)):
        _emphases(counts[n], gray.astype(np.float64), size.astype(np.float64), found[n])
    return found


@entry("f8[:,::1], f8[::1], f8[::1], f8[::1]")
def _emphases(matrix: NDArray[np.float64], gray: NDArray[np.float64], size: NDArray[np.float64],
              found: NDArray[np.float64]) -> None:
    """Fill `found`; the letters are IBSI's: n for the total, r_i for a level's share, r_j for a size's."""
    by_gray, by_size = np.zeros(gray.size), np.zeros(size.size)
    n, entropy, small_low, small_high, large_low, large_high = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    for i in range(gray.size):
        for j in range(size.size):
            by_gray[i] += matrix[i, j]
            by_size[j] += matrix[i, j]
        n += by_gray[i]
    for i in range(gray.size):
        i2 = gray[i] * gray[i]
        for j in range(size.size):
            count = matrix[i, j]
            if count > 0:
                j2 = size[j] * size[j]
                entropy -= count / n * np.log2(count / n + EPS)
                small_low += count / (i2 * j2)
                small_high += count * i2 / j2
                large_low += count * j2 / i2
                large_high += count * i2 * j2
    low, high, gray_mean, gray_squares = 0.0, 0.0, 0.0, 0.0
    for i in range(gray.size):
        low += by_gray[i] / gray[i]**2
        high += by_gray[i] * gray[i]**2
        gray_mean += by_gray[i] * gray[i] / n
        gray_squares += by_gray[i]**2
    small, large, voxels, size_squares = 0.0, 0.0, 0.0, 0.0
    for j in range(size.size):
        small += by_size[j] / size[j]**2
        large += by_size[j] * size[j]**2
        voxels += by_size[j] * size[j]
        size_squares += by_size[j]**2
    gray_variance, size_variance = 0.0, 0.0
    for i in range(gray.size):
        gray_variance += by_gray[i] / n * (gray[i] - gray_mean)**2
    for j in range(size.size):
        size_variance += by_size[j] / n * (size[j] - voxels / n)**2
    found[0], found[1] = small / n, large / n
    found[2], found[3] = gray_squares / n, gray_squares / n**2
    found[4], found[5] = size_squares / n, size_squares / n**2
    found[6], found[7], found[8], found[9] = n / voxels, gray_variance, size_variance, entropy
    found[10], found[11] = low / n, high / n
    found[12], found[13], found[14], found[15] = small_low / n, small_high / n, large_low / n, large_high / n
