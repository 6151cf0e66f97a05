"""Convolutions on cells: 2x2x2 voxels stored side by side as channels, the same sums on an eighth of the grid.

A GPU multiplies matrices, and a convolution of 8 channels fills a small part of its units. The same convolution on
cells has 64 channels: most of the products are with zero, and it still ends sooner (bench/RESULTS.md, 2026-11-28).
Doubling a map, halving it and the strided stem of the survival network cost nothing extra on cells. Weights stay those
of the plain convolutions; they are spread over the cell's positions when they are used.

A map of cells is (b, 8c, z/2, y/2, x/2), channels-last; its channel p * c + i is channel i of the voxel at position
p = (z % 2, y % 2, x % 2) of the cell.
"""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

N = 8  # voxels of a cell


def to_cells(x: Tensor) -> Tensor:
    """Maps (b, c, z, y, x) with even axes as cells (b, 8c, z/2, y/2, x/2), channels-last."""
    b, c, z, y, w = x.shape
    split = x.reshape(b, c, z // 2, 2, y // 2, 2, w // 2, 2)
    return _voxels_first(split.permute(0, 2, 4, 6, 3, 5, 7, 1).reshape(b, z // 2, y // 2, w // 2, N * c))


def from_cells(x: Tensor) -> Tensor:
    """Cells (b, 8c, z, y, x) as maps (b, c, 2z, 2y, 2x), channels-last."""
    b, c, z, y, w = x.shape
    split = x.permute(0, 2, 3, 4, 1).reshape(b, z, y, w, 2, 2, 2, c // N)
    return _voxels_first(split.permute(0, 1, 4, 2, 5, 3, 6, 7).reshape(b, 2 * z, 2 * y, 2 * w, c // N))


def halved(x: Tensor) -> Tensor:
    """The greatest value of each cell: max-pooling by 2 of the maps, (b, c, z, y, x) of cells (b, 8c, z, y, x)."""
    b, c, z, y, w = x.shape
    return _voxels_first(x.permute(0, 2, 3, 4, 1).reshape(b, z, y, w, N, c // N).amax(4))


def voxels(x: Tensor, channels: int) -> Tensor:
    """Cells (b, 8c, z, y, x) as a list of voxels (1, c, 1, 1, n), channels-last, without a copy.

    Args:
        x: cells (b, 8c, z, y, x).
        channels: c.
    """
    return x.permute(0, 2, 3, 4, 1).reshape(1, 1, 1, -1, channels).permute(0, 4, 1, 2, 3)


def cells_like(flat: Tensor, x: Tensor) -> Tensor:
    """A list of voxels as cells again, in the shape of `x`.

    Args:
        flat: (1, c, 1, 1, n) voxels of cells.
        x: cells (b, 8c, z, y, x) whose shape is taken.
    """
    b, _, z, y, w = x.shape
    return flat.permute(0, 2, 3, 4, 1).reshape(b, z, y, w, -1).permute(0, 4, 1, 2, 3)


def cell_weight(weight: Tensor) -> Tensor:
    """The 3x3x3 or 1x1x1 `weight` (o, i, k, k, k) between cells: (8o, 8i, k, k, k)."""
    if weight.shape[-1] == 1:
        eye = torch.eye(N, dtype=weight.dtype, device=weight.device)
        return torch.kron(eye, weight.flatten(1))[:, :, None, None, None]
    return _spread(weight, "same")


def doubled_weight(weight: Tensor) -> Tensor:
    """`weight` (o, i, k, k, k) from a map, doubled by repetition, to cells: (8o, i, k, k, k)."""
    if weight.shape[-1] == 1:
        return weight.repeat(N, 1, 1, 1, 1)
    return _spread(weight, "doubled")


def strided_weight(weight: Tensor) -> Tensor:
    """The 3x3x3 `weight` (o, i, 3, 3, 3) of stride 2 without padding, from cells to a map: (o, 8i, 2, 2, 2)."""
    return _spread(weight, "strided")


def _spread(weight: Tensor, kind: str) -> Tensor:
    """Weights at their places among a cell's positions, in single precision, channels-last."""
    with torch.autocast(weight.device.type, enabled=False):
        places, (p, q, e) = _places(kind, weight.device)
        o, i = weight.shape[:2]
        spread = (weight.reshape(o * i, 27) @ places.to(weight.dtype)).reshape(o, i, p, q, e, e, e)
        return _voxels_first(spread.permute(2, 0, 4, 5, 6, 3, 1).reshape(p * o, e, e, e, q * i))


def _taps(kind: str) -> Tensor:
    """(to, from, reach, 3) along one axis: 1 where output position `to` meets tap t at position `from` of the cell
    `reach` cells on."""
    if kind == "strided":
        taps = torch.zeros(1, 2, 2, 3)
        for t in range(3):
            taps[0, t % 2, t // 2, t] = 1.0
        return taps
    taps = torch.zeros(2, 1 if kind == "doubled" else 2, 3, 3)
    for to in range(2):
        for t in range(3):
            reach, position = divmod(to + t - 1, 2)
            taps[to, 0 if kind == "doubled" else position, reach + 1, t] = 1.0
    return taps


@cache
@torch.inference_mode(False)  # whoever asks first, training can use what is kept
def _places(kind: str, device: torch.device) -> tuple[Tensor, tuple[int, int, int]]:
    """(27, to * from * reach) of all three axes together, and how many of each there are."""
    taps = _taps(kind)
    p, q, e, _ = taps.shape
    all_axes = torch.einsum("pqet,rsfu,vwgx->tuxprvqswefg", taps, taps, taps)
    return all_axes.reshape(27, -1).contiguous().to(device), (p**3, q**3, e)


def _voxels_first(x: Tensor) -> Tensor:
    """(b, z, y, x, c) as (b, c, z, y, x), channels-last."""
    return x.permute(0, 4, 1, 2, 3)


def strided_convolution(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """conv3d(x, 3x3x3 `weight`, bias, stride 2, no padding) of maps with even axes, on cells.

    Args:
        x: (b, i, z, y, x), axes even.
        weight: (o, i, 3, 3, 3).
        bias: (o,); None for none.

    Returns:
        (b, o, z/2 - 1, y/2 - 1, x/2 - 1).
    """
    return F.conv3d(to_cells(x), strided_weight(weight), bias)
