"""Neighbouring grey tone difference matrix (Amadasun & King 1989)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mtdlr.texture.compiled import entry
from mtdlr.texture.profile import NGTDM


def ngtdm_features(counts: NDArray, differences: NDArray[np.float64], gray: NDArray) -> dict[str, float]:
    """The five features.

    Args:
        counts: (K,) voxels of each grey level, all > 0.
        differences: (K,) sum of absolute differences from the neighbourhood's mean.
        gray: (K,) grey levels.

    A region without differences has Coarseness 1e6 and otherwise zeros, as in PyRadiomics.
    """
    found = np.empty(5)
    _features(counts / counts.sum(), differences, gray.astype(np.float64), float(counts.sum()), found)
    return dict(zip(NGTDM, found.tolist(), strict=True))


@entry("f8[::1], f8[::1], f8[::1], f8, f8[::1]")
def _features(p: NDArray[np.float64], s: NDArray[np.float64], gray: NDArray[np.float64], n: float,
              found: NDArray[np.float64]) -> None:
    """Fill `found` in the order of NGTDM."""
    k = p.size
    contrast, busy, complexity, strength = 0.0, 0.0, 0.0, 0.0
    for i in range(k):
        for j in range(k):
            gap = gray[i] - gray[j]
            contrast += p[i] * p[j] * gap * gap
            busy += abs(gray[i] * p[i] - gray[j] * p[j])
            complexity += abs(gap) * (p[i] * s[i] + p[j] * s[j]) / (p[i] + p[j])
            strength += (p[i] + p[j]) * gap * gap
    coarse, total = 0.0, 0.0
    for i in range(k):
        coarse += p[i] * s[i]
        total += s[i]
    found[0] = coarse / busy if busy != 0 else 0.0
    found[1] = 1.0 / coarse if coarse != 0 else 1e6
    found[2] = complexity / n
    found[3] = contrast * total / n / (k * (k - 1)) if k > 1 else 0.0
    found[4] = strength / total if total != 0 else 0.0
