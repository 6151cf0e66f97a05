"""Values of a cubic B-spline between the voxels, along one axis after the other.

Four neighbours an axis, always added in the same order: a matrix product would do, but BLAS rounds by how many threads
it has, and so would the features.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mtdlr.texture.compiled import entry


def spline_along(coefficients: NDArray[np.float64], axis: int, position: NDArray[np.float64]) -> NDArray[np.float64]:
    """The spline at positions along an axis, mirrored at the outermost voxels.

    Args:
        coefficients: (z, y, x), of a cubic B-spline along the axis.
        axis: along which the positions lie.
        position: (m,) in voxels.

    >>> np.allclose(spline_along(np.ones((1, 1, 5)), 2, np.array([-0.4, 1.25, 4.0])), 1.0)
    True
    """
    n, shape = coefficients.shape[axis], list(coefficients.shape)
    inner = int(np.prod(shape[axis + 1:]))
    at = np.floor(position).astype(np.int64)[:, None] + np.arange(-1, 3)
    shape[axis] = position.size
    out = np.zeros(shape)
    rows = np.ascontiguousarray(coefficients).reshape(-1, n, inner)
    _combine(rows, _mirrored(at, n), _weights(np.abs(position[:, None] - at)), out.reshape(-1, position.size, inner))
    return out


def _weights(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    """The cubic B-spline's value at a distance from its middle."""
    near = 2 / 3 - distance**2 + distance**3 / 2
    return np.where(distance < 1, near, np.maximum(2 - distance, 0) ** 3 / 6)


def _mirrored(index: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """Indices reflected at the outermost of n voxels, which are not repeated."""
    if n == 1:
        return np.zeros_like(index)
    index = np.abs(index) % (2 * n - 2)
    return np.minimum(index, 2 * n - 2 - index)


@entry("f8[:,:,::1], i8[:,::1], f8[:,::1], f8[:,:,::1]")
def _combine(rows: NDArray[np.float64], at: NDArray[np.int64], weights: NDArray[np.float64],
             out: NDArray[np.float64]) -> None:
    """Add to out[r, j] the rows[r, at[j, t]] times weights[j, t]."""
    for r in range(rows.shape[0]):
        for j in range(at.shape[0]):
            target = out[r, j]
            for t in range(4):
                source, weight = rows[r, at[j, t]], weights[j, t]
                for i in range(target.size):
                    target[i] += weight * source[i]
