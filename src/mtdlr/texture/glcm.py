"""Grey level co-occurrence matrix (Haralick 1973)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mtdlr.texture.compiled import compiled, entry
from mtdlr.texture.eigen import second_largest
from mtdlr.texture.firstorder import EPS
from mtdlr.texture.profile import GLCM

_MCC = GLCM.index("MCC")
_LN2 = float(np.log(2.0))


def glcm_features(pairs: NDArray, gray: NDArray, *, symmetric: bool = True) -> NDArray[np.float64]:
    """(n, 24): the features of each matrix, in the order of `GLCM`.

    Args:
        pairs: (n, K, K) how often level i has neighbour j; no matrix all 0.
        gray: (K,) grey levels, increasing; the last is taken as the number of levels.
        symmetric: count each pair in both orders.
    """
    p = pairs + pairs.transpose(0, 2, 1) if symmetric else pairs
    p = np.ascontiguousarray(p / p.sum(axis=(1, 2), keepdims=True))
    found = np.empty((len(p), len(GLCM)))
    _features(p, gray.astype(np.int64), found)
    found[:, _MCC] = _maximal_correlation(p, symmetric)
    return found


def _maximal_correlation(p: NDArray[np.float64], symmetric: bool) -> NDArray[np.float64]:
    """(n,) square root of the second largest eigenvalue of Q (MCC); 1 where there is one grey level.

    Q = sum_k p_ik p_jk / (p_i p_k + eps) is similar to A A' with A = p_ij / sqrt(p_i p_j + eps), to first order in eps:
    its eigenvalues are the squared singular values of A, for a symmetric A the squared eigenvalues.
    """
    if p.shape[1] < 2:
        return np.ones(len(p))
    a = p / np.sqrt(p.sum(2)[:, :, None] * p.sum(1)[:, None, :] + EPS)
    if not symmetric:
        return np.asarray(np.linalg.svd(a, compute_uv=False)[:, 1])
    return np.array([second_largest(one) for one in a])


@entry("f8[:,:,::1], i8[::1], f8[:,::1]")
def _features(p: NDArray[np.float64], gray: NDArray[np.int64], found: NDArray[np.float64]) -> None:
    """Fill `found` in the order of GLCM, but for MCC."""
    k, top = gray.size, gray[-1]
    for n in range(len(p)):
        row, column, plus, minus = np.zeros(k), np.zeros(k), np.zeros(2 * top + 1), np.zeros(top)
        _marginals(p[n], row, column)
        ux, uy, sx, sy = _spread(row, column, gray)
        autocorrelation, energy, entropy, largest, shared = _scan(p[n], row, column, gray, plus, minus)
        tendency, shade, prominence, sum_average, sum_entropy = _of_sums(plus, ux + uy)
        hx, hx_plain, occupied_x = _entropies(row)
        hy, hy_plain, occupied_y = _entropies(column)
        # The definitions add EPS inside each log2; where it matters at all, its first-order effect is exact enough.
        hxy1 = hx_plain + hy_plain - shared * EPS / _LN2
        hxy2 = hx_plain + hy_plain - occupied_x * occupied_y * EPS / _LN2
        width = np.sqrt(sx) * np.sqrt(sy)
        out = found[n]
        out[0], out[1], out[2], out[3] = autocorrelation, prominence, shade, tendency
        out[5] = (tendency - sx - sy) / 2 / (width + EPS) if width != 0 else 1.0
        out[13] = (entropy - hxy1) / max(hx, hy) if k > 1 and max(hx, hy) != 0 else 0.0
        out[14] = np.sqrt(1 - np.exp(-2 * (hxy2 - entropy))) if k > 1 and hxy2 > entropy else 0.0
        out[16], out[17], out[18] = ux, energy, entropy
        out[20], out[21], out[22], out[23] = largest, sum_average, sum_entropy, sx
        _of_differences(minus, out)


@compiled
def _marginals(p: NDArray[np.float64], row: NDArray[np.float64], column: NDArray[np.float64]) -> None:
    """Sums along both axes."""
    for i in range(row.size):
        for j in range(row.size):
            row[i] += p[i, j]
            column[j] += p[i, j]


@compiled
def _spread(row: NDArray[np.float64], column: NDArray[np.float64],
            gray: NDArray[np.int64]) -> tuple[float, float, float, float]:
    """Means and variances of both marginals."""
    ux, uy, sx, sy = 0.0, 0.0, 0.0, 0.0
    for i in range(gray.size):
        ux += gray[i] * row[i]
        uy += gray[i] * column[i]
    for i in range(gray.size):
        sx += row[i] * (gray[i] - ux)**2
        sy += column[i] * (gray[i] - uy)**2
    return ux, uy, sx, sy


@compiled
def _entropies(p: NDArray[np.float64]) -> tuple[float, float, int]:
    """(entropy with EPS inside the logarithm, entropy, occupied cells)."""
    guarded, plain, occupied = 0.0, 0.0, 0
    for i in range(p.size):
        if p[i] > 0:
            guarded -= p[i] * np.log2(p[i] + EPS)
            plain -= p[i] * np.log2(p[i])
            occupied += 1
    return guarded, plain, occupied


@compiled
def _scan(p: NDArray[np.float64], row: NDArray[np.float64], column: NDArray[np.float64], gray: NDArray[np.int64],
          plus: NDArray[np.float64], minus: NDArray[np.float64]) -> tuple[float, float, float, float, float]:
    """(autocorrelation, energy, entropy, maximum, sum of p_ij / (p_i p_j)); fills p(i + j) and p(|i - j|)."""
    autocorrelation, energy, entropy, largest, shared = 0.0, 0.0, 0.0, 0.0, 0.0
    for i in range(gray.size):
        for j in range(gray.size):
            q = p[i, j]
            if q > 0:
                plus[gray[i] + gray[j]] += q
                minus[abs(gray[i] - gray[j])] += q
                autocorrelation += q * gray[i] * gray[j]
                energy += q * q
                entropy -= q * np.log2(q + EPS)
                largest = max(largest, q)
                shared += q / (row[i] * column[j])
    return autocorrelation, energy, entropy, largest, shared


@compiled
def _of_sums(plus: NDArray[np.float64], centre: float) -> tuple[float, float, float, float, float]:
    """(cluster tendency, shade, prominence, sum average, sum entropy)."""
    tendency, shade, prominence, average, entropy = 0.0, 0.0, 0.0, 0.0, 0.0
    for s in range(plus.size):
        q = plus[s]
        if q > 0:
            d = s - centre
            tendency += q * d**2
            shade += q * d**3
            prominence += q * d**4
            average += q * s
            entropy -= q * np.log2(q + EPS)
    return tendency, shade, prominence, average, entropy


@compiled
def _of_differences(minus: NDArray[np.float64], out: NDArray[np.float64]) -> None:
    """Fill the features of |i - j|: contrast, difference average, entropy and variance, id, idm, idmn, idn, inverse."""
    top = minus.size
    contrast, average, entropy, variance = 0.0, 0.0, 0.0, 0.0
    near, near2, near2_n, near_n, inverse = 0.0, 0.0, 0.0, 0.0, 0.0
    for d in range(top):
        q = minus[d]
        if q > 0:
            contrast += q * d * d
            average += q * d
            entropy -= q * np.log2(q + EPS)
            near += q / (1 + d)
            near2 += q / (1 + d * d)
            near2_n += q / (1 + d * d / top**2)
            near_n += q / (1 + d / top)
            if d > 0:
                inverse += q / (d * d)
    for d in range(top):
        variance += minus[d] * (d - average)**2
    out[4], out[6], out[7], out[8], out[15] = contrast, average, entropy, variance, inverse
    out[9], out[10], out[11], out[12] = near, near2, near2_n, near_n
