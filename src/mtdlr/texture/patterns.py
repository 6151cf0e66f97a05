"""Local binary patterns: how the points of a circle about a voxel compare with it (Ojala 2002)."""

from __future__ import annotations

from math import ceil, cos, floor, pi, sin

import numpy as np
from numpy.typing import NDArray

from mtdlr.texture.profile import LocalPattern

Box = tuple[slice, slice, slice]


def local_patterns(image: NDArray, box: Box, pattern: LocalPattern) -> NDArray:
    """The pattern of each voxel of a box, plane by plane, in the image's dtype as PyRadiomics keeps it.

    Args:
        image: (z, y, x).
        box: the part that is wanted.
        pattern: the circle, and how its bits become a number.

    Points between voxels are interpolated linearly; beyond the image lie zeros.

    >>> ramp = np.arange(25.0).reshape(1, 5, 5)
    >>> local_patterns(ramp, (slice(0, 1), slice(1, 4), slice(1, 4)), LocalPattern())[0, 1]
    array([4., 4., 4.])
    """
    planes = image.swapaxes(0, pattern.axis)
    across, rows, columns = [box[axis] for axis in ((0, 1, 2), (1, 0, 2), (2, 1, 0))[pattern.axis]]
    margin = ceil(pattern.radius) + 1
    part = np.zeros((across.stop - across.start, rows.stop - rows.start + 2 * margin,
                     columns.stop - columns.start + 2 * margin))
    low = [max(s.start - margin, 0) for s in (rows, columns)]
    high = [min(s.stop + margin, n) for s, n in zip((rows, columns), planes.shape[1:], strict=True)]
    at = [first - (s.start - margin) for first, s in zip(low, (rows, columns), strict=True)]
    part[:, at[0]:at[0] + high[0] - low[0], at[1]:at[1] + high[1] - low[1]] = (
        planes[across, low[0]:high[0], low[1]:high[1]])
    centre = part[:, margin:-margin, margin:-margin]
    samples = np.array([_shifted(part, place, (rows, columns), margin) for place in _circle(pattern)])
    return _number(samples, centre, pattern).swapaxes(0, pattern.axis).astype(image.dtype)


def _circle(pattern: LocalPattern) -> list[tuple[float, float]]:
    """(row, column) of the points, counter-clockwise from the right, to five digits."""
    turns = [2 * pi * k / pattern.samples for k in range(pattern.samples)]
    return [(round(-pattern.radius * sin(turn), 5), round(pattern.radius * cos(turn), 5)) for turn in turns]


def _shifted(part: NDArray, place: tuple[float, float], box: tuple[slice, slice], margin: int) -> NDArray:
    """The values at one point of every circle, interpolated linearly.

    Shares are taken from places in the whole image, as scikit-image does: among whole numbers, ties are common, and
    the last bit decides them.
    """
    row, column = place
    down, right = [_share(shift, part) for shift, part in zip(place, box, strict=True)]
    first, below, left, beside = floor(row), ceil(row), floor(column), ceil(column)

    def at(i: int, j: int) -> NDArray:
        stop = part.shape[1] - margin + i, part.shape[2] - margin + j
        return part[:, margin + i:stop[0], margin + j:stop[1]]

    top = (1 - right) * at(first, left) + right * at(first, beside)
    bottom = (1 - right) * at(below, left) + right * at(below, beside)
    return np.asarray((1 - down[:, None]) * top + down[:, None] * bottom)


def _share(shift: float, part: slice) -> NDArray[np.float64]:
    """How far behind the voxel before it each shifted place lies."""
    places = np.arange(part.start, part.stop) + shift
    return np.asarray(places - np.floor(places))


def _number(samples: NDArray, centre: NDArray, pattern: LocalPattern) -> NDArray:
    """The pattern of each voxel; `samples` (points, planes, rows, columns)."""
    if pattern.method == "var":
        return samples.var(axis=0)
    bits = (samples >= centre).astype(np.int64)
    if pattern.method == "uniform":
        changes = (bits[1:] != bits[:-1]).sum(axis=0)
        return np.where(changes <= 2, bits.sum(axis=0), pattern.samples + 1)
    weights = 2 ** np.arange(pattern.samples, dtype=np.int64)
    turns = range(pattern.samples) if pattern.method == "ror" else range(1)
    return np.min([np.tensordot(weights, np.roll(bits, k, axis=0), 1) for k in turns], axis=0)
