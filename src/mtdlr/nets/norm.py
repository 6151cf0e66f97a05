"""Batch norm, ReLU and the sum behind it as one operation, for training on a CPU.

torch's batch norm is slow on channels-last batches of few channels, and these networks have few where grids are large.
Here a batch is rows of at least 64 numbers, several voxels side by side; two passes over it make the forward, two the
backward pass. Sums are taken in fixed blocks and added in double precision, so the numbers do not depend on how many
threads share the blocks.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numba import njit
from numpy.typing import NDArray
from torch import Tensor, nn

from mtdlr.nets.cells import cells_like, voxels

Rows = NDArray[np.float32]
LANES = 64  # numbers in a row, at least
BLOCK = 1 << 18  # numbers that one thread takes at a time
WORTH = 1 << 18  # numbers in a batch; below this torch is as fast
RUN = 256  # rows summed in single precision


class Running(NamedTuple):
    """The running statistics of a norm, mean and variance (c,), which training updates in place.

    momentum is the share of a batch that enters them, eps what is added to a variance.
    """

    mean: Tensor
    variance: Tensor
    momentum: float
    eps: float


class NormRelu(nn.BatchNorm3d):
    """ReLU of the batch norm of maps (b, c, z, y, x), plus `added` where it is given; weights as of BatchNorm3d.

    Cells (b, 8c, z, y, x) of these maps may be given instead.
    """

    fused: bool = True  # whether the GPU's kernels may be used, so that they can be measured against torch's

    def forward(self, x: Tensor, added: Tensor | None = None) -> Tensor:
        """Of the shape of x.

        Args:
            x: (b, c, z, y, x), or cells (b, 8c, z, y, x) of such a map.
            added: of the shape of x.
        """
        if x.shape[1] != self.num_features:
            more = None if added is None else voxels(added, self.num_features)
            return cells_like(self.forward(voxels(x, self.num_features), more), x)
        if self.training and x.numel() >= WORTH:
            if x.device.type == "cpu" and x.dtype == torch.float32:
                assert self.num_batches_tracked is not None
                self.num_batches_tracked += 1
                return _NormRelu.apply(x, self.weight, self.bias, self._running(), added)
            if x.device.type == "cuda" and self.fused and (gpu := _gpu_kernels()) and gpu.fits(x, self.num_features):
                return gpu.NormRelu.apply(x, self.weight, self.bias, self._running(), added)
        return Relu()(super().forward(x), added)

    def _running(self) -> Running:
        assert self.running_mean is not None and self.running_var is not None and self.momentum is not None
        return Running(self.running_mean, self.running_var, self.momentum, self.eps)


@cache
def _gpu_kernels() -> Any:
    """`norm_gpu` where Triton is installed, as it is with torch for CUDA on Linux."""
    return import_module("mtdlr.nets.norm_gpu") if find_spec("triton") is not None else None


class Relu(nn.Module):
    """ReLU of maps, plus `added` where it is given: what is left once a norm is fused into its convolution."""

    def forward(self, x: Tensor, added: Tensor | None = None) -> Tensor:
        """ReLU of x, which is changed in place, plus `added`; (b, c, z, y, x).

        Args:
            x: (b, c, z, y, x).
            added: of the shape of x; None for nothing.
        """
        y = F.relu(x, inplace=True)
        return y if added is None else y + added


class _NormRelu(torch.autograd.Function):
    """y = relu(gain * (x - mean) / sd + bias) + added, the mean and SD being those of the batch."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, running: Running, added: Tensor | None) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last_3d)
        rows, channels = _rows(x), x.shape[1]
        n = x.numel() // channels
        shift = _lanes(rows, x[0, :, 0, 0, 0].numpy())  # near the mean, so that no digits cancel
        total, square = _summed(channels, _moments, rows, shift)
        variance = np.maximum(square - total * total / n, 0.0) / n
        sd, mean = np.sqrt(variance + running.eps), total / n + shift[0, :channels]
        running.mean.lerp_(torch.from_numpy(mean.astype(np.float32)), running.momentum)
        unbiased = variance * (n / max(1, n - 1))
        running.variance.lerp_(torch.from_numpy(unbiased.astype(np.float32)), running.momentum)
        lanes = _lanes(rows, mean, weight.detach().numpy() / sd, bias.detach().numpy())
        y = torch.empty_like(x)
        more = rows[:0] if added is None else _rows(added.contiguous(memory_format=torch.channels_last_3d))
        _each_block(_apply, rows, lanes, more, _rows(y))
        ctx.save_for_backward(x)
        ctx.lanes, ctx.sd, ctx.has_added = lanes, sd, added is not None
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, = ctx.saved_tensors
        grad = grads[0].contiguous(memory_format=torch.channels_last_3d)
        rows, upper, channels = _rows(x), _rows(grad), x.shape[1]
        n, scale = x.numel() // channels, ctx.lanes[1, :channels]
        total, product = _summed(channels, _slopes, rows, ctx.lanes, upper)
        along = _lanes(rows, -scale * product / ctx.sd**2 / n, -scale * total / n)
        below = torch.empty_like(x)
        _each_block(_pull, rows, np.concatenate([ctx.lanes, along]), upper, _rows(below))
        slopes = (torch.from_numpy(part.astype(np.float32)) for part in (product / ctx.sd, total))
        return below, *slopes, None, grad if ctx.has_added else None


def _rows(x: Tensor) -> Rows:
    """A channels-last batch as rows of whole voxels, at least `LANES` numbers where the count divides."""
    flat, length = x.detach().permute(0, 2, 3, 4, 1).reshape(-1).numpy(), x.shape[1]
    while length < LANES and flat.size % (2 * length) == 0:
        length *= 2
    return flat.reshape(-1, length)


def _lanes(rows: Rows, *values: NDArray) -> NDArray[np.float32]:
    """(k, lanes): k numbers per channel, repeated along a row."""
    return np.tile(np.stack(values).astype(np.float32), rows.shape[1] // len(values[0]))


def _each_block(kernel: Callable[..., Any], rows: Rows, *more: NDArray) -> list[Any]:
    """What a kernel gives for every block of rows, in order, on as many threads as torch may use."""
    step = max(1, BLOCK // rows.shape[1])
    blocks = [(start, min(start + step, len(rows))) for start in range(0, len(rows), step)]
    threads = torch.get_num_threads()
    if threads == 1 or len(blocks) == 1:
        return [kernel(rows, *more, *block) for block in blocks]
    return list(_threads(threads).map(lambda block: kernel(rows, *more, *block), blocks))


def _summed(channels: int, kernel: Callable[..., NDArray[np.float64]], rows: Rows,
            *more: NDArray) -> NDArray[np.float64]:
    """(2, channels): the two sums of a kernel over all rows."""
    sums = np.sum(_each_block(kernel, rows, *more), axis=0)
    return sums.reshape(2, -1, channels).sum(1)


@cache
def _threads(n: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(n, "norm")


# Numbers per lane come as one array: with an array each, LLVM gives up proving that they do not overlap and the loops
# run number by number.


@njit(cache=True, nogil=True)
def _moments(x: Rows, lanes: NDArray, start: int, end: int) -> NDArray[np.float64]:  # pragma: no cover
    """(2, lanes): sum and sum of squares of x - shift over some rows; lanes: shift."""
    sums, run = np.zeros((2, x.shape[1])), np.zeros((2, x.shape[1]), np.float32)
    for first in range(start, end, RUN):
        for i in range(first, min(first + RUN, end)):
            for j in range(x.shape[1]):
                value = x[i, j] - lanes[0, j]
                run[0, j] += value
                run[1, j] += value * value
        _carry(sums, run)
    return sums


@njit(cache=True, nogil=True)
def _apply(x: Rows, lanes: NDArray, added: Rows, y: Rows, start: int, end: int) -> None:  # pragma: no cover
    """Fill rows of y; a value that is not a number stays so. Lanes: mean, scale, bias."""
    for i in range(start, end):
        for j in range(x.shape[1]):
            value = (x[i, j] - lanes[0, j]) * lanes[1, j] + lanes[2, j]
            y[i, j] = np.float32(0.0) if value <= 0 else value
        if len(added):
            for j in range(x.shape[1]):
                y[i, j] += added[i, j]


@njit(cache=True, nogil=True)
def _slopes(x: Rows, lanes: NDArray, grad: Rows, start: int, end: int) -> NDArray[np.float64]:  # pragma: no cover
    """(2, lanes): sums of the gradient below the ReLU, and of that times x - mean; lanes: mean, scale, bias."""
    sums, run = np.zeros((2, x.shape[1])), np.zeros((2, x.shape[1]), np.float32)
    for first in range(start, end, RUN):
        for i in range(first, min(first + RUN, end)):
            for j in range(x.shape[1]):
                off = x[i, j] - lanes[0, j]
                slope = np.float32(0.0) if off * lanes[1, j] + lanes[2, j] <= 0 else grad[i, j]
                run[0, j] += slope
                run[1, j] += slope * off
        _carry(sums, run)
    return sums


@njit(cache=True, nogil=True)
def _pull(x: Rows, lanes: NDArray, grad: Rows, below: Rows, start: int, end: int) -> None:  # pragma: no cover
    """Fill rows of the gradient of x; lanes: mean, scale, bias, and what each x - mean and each 1 adds."""
    for i in range(start, end):
        for j in range(x.shape[1]):
            off = x[i, j] - lanes[0, j]
            slope = np.float32(0.0) if off * lanes[1, j] + lanes[2, j] <= 0 else grad[i, j]
            below[i, j] = slope * lanes[1, j] + off * lanes[3, j] + lanes[4, j]


@njit(cache=True, nogil=True)
def _carry(sums: NDArray[np.float64], run: NDArray[np.float32]) -> None:  # pragma: no cover
    """Move single-precision sums into the double-precision ones."""
    sums += run
    run[:] = 0.0
