"""Batch norm, ReLU and the sum behind it as one operation, for training on a GPU: `norm.py` said in Triton.

A batch is rows of 128 numbers, several voxels side by side, so the channels must divide 128. Forward: one pass over x
for the moments, one that writes y. Backward: one pass over x and the gradient for two sums, one that writes the
gradient of x. Every program adds its own rows up and one program adds the programs up in order, so a batch gives the
same bits every time.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from mtdlr.nets.norm import Running

LANES, ROWS, PROGRAMS = tl.constexpr(128), tl.constexpr(16), 1024  # kernels see no plain number of a module


class NormRelu(torch.autograd.Function):
    """y = relu(gain * (x - mean) / sd + bias) + added, the mean and SD being those of the batch."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, running: Running, added: Tensor | None) -> Tensor:
        """y = relu(weight * (x - mean) / SD + bias) + added, with the batch's own mean and SD.

        Args:
            ctx: autograd's context.
            x: (b, c, z, y, x) on the card.
            weight: (c,).
            bias: (c,).
            running: statistics (c,), updated in place.
            added: of the shape of x; None for nothing.
        """
        x = _rows_of(x)
        channels, (rows, programs, parts) = len(weight), _shared_out(x)
        facts = x.new_empty(4, channels, dtype=torch.float32)  # mean, scale, bias, 1 / SD
        _moments[(programs,)](x, parts, rows, channels)
        _settle[(1,)](x, parts, weight, bias, running.mean, running.variance, facts, programs, x.numel() // channels,
                      running.momentum, running.eps, channels)
        y = torch.empty_like(x)
        more = x if added is None else _rows_of(added.to(x.dtype))
        _apply[(programs,)](x, facts, more, y, rows, channels, added is not None)
        ctx.save_for_backward(x, facts, weight)
        ctx.has_added = added is not None
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of x, weight, bias and added; None for the other arguments.

        Args:
            ctx: autograd's context.
            *grads: the gradient of y, of the shape of x.
        """
        x, facts, weight = ctx.saved_tensors
        grad = _rows_of(grads[0].to(x.dtype))
        channels, (rows, programs, parts) = len(weight), _shared_out(x)
        along = x.new_empty(4, channels, dtype=torch.float32)  # what x - mean and 1 add; slopes of gain and bias
        below = torch.empty_like(x)
        _slopes[(programs,)](x, facts, grad, parts, rows, channels)
        _settle_slopes[(1,)](parts, facts, along, programs, x.numel() // channels, channels)
        _pull[(programs,)](x, facts, grad, along, below, rows, channels)
        return below, along[2], along[3], None, grads[0] if ctx.has_added else None


def fits(x: Tensor, channels: int) -> bool:
    """Whether a batch is whole rows of whole voxels.

    Args:
        x: the batch.
        channels: its channels, or those of the map whose cells it holds.
    """
    return LANES.value % channels == 0 and x.numel() % LANES.value == 0


def _rows_of(x: Tensor) -> Tensor:
    """The same batch, channels-last."""
    return x.contiguous(memory_format=torch.channels_last_3d)


def _shared_out(x: Tensor) -> tuple[int, int, Tensor]:
    """The rows of a batch, the programs that share them, and room for two sums of each program."""
    rows = x.numel() // LANES.value
    programs = min(PROGRAMS, triton.cdiv(rows, ROWS.value))
    return rows, programs, x.new_empty(programs, 2, LANES.value, dtype=torch.float32)


@triton.jit
def _moments(x, parts, rows, channels):  # type: ignore[no-untyped-def]
    """Sums of x - shift and of its square over this program's rows; the shift is the first voxel."""
    lane, row = tl.arange(0, LANES), tl.arange(0, ROWS)
    shift = tl.load(x + lane % channels).to(tl.float32)
    total = tl.zeros([ROWS, LANES], tl.float32)
    square = tl.zeros([ROWS, LANES], tl.float32)
    for start in range(tl.program_id(0) * ROWS, rows, tl.num_programs(0) * ROWS):
        at = start + row
        there = (at < rows)[:, None]
        value = tl.load(x + at[:, None].to(tl.int64) * LANES + lane[None, :], mask=there, other=0.0).to(tl.float32)
        value = tl.where(there, value - shift[None, :], 0.0)
        total += value
        square += value * value
    here = parts + tl.program_id(0) * 2 * LANES + lane
    tl.store(here, tl.sum(total, 0))
    tl.store(here + LANES, tl.sum(square, 0))


@triton.jit
def _added_up(parts, programs, CHANNELS: tl.constexpr):  # type: ignore[no-untyped-def]
    """Both sums by channel over all programs."""
    lane, row = tl.arange(0, LANES), tl.arange(0, ROWS)
    first = tl.zeros([ROWS, LANES], tl.float32)
    second = tl.zeros([ROWS, LANES], tl.float32)
    for start in range(0, programs, ROWS):
        at = start + row
        there = (at < programs)[:, None]
        here = parts + at[:, None] * 2 * LANES + lane[None, :]
        first += tl.load(here, mask=there, other=0.0)
        second += tl.load(here + LANES, mask=there, other=0.0)
    first = tl.sum(tl.reshape(tl.sum(first, 0), (LANES // CHANNELS, CHANNELS)), 0)
    second = tl.sum(tl.reshape(tl.sum(second, 0), (LANES // CHANNELS, CHANNELS)), 0)
    return first, second


@triton.jit
def _settle(  # type: ignore[no-untyped-def]  # noqa: PLR0913
        x, parts, weight, bias, running_mean, running_var, facts, programs, n, momentum, eps, CHANNELS: tl.constexpr):
    """Mean, scale, bias and 1 / SD by channel, and the running figures."""
    total, square = _added_up(parts, programs, CHANNELS)
    channel = tl.arange(0, CHANNELS)
    off = total / n
    mean = off + tl.load(x + channel).to(tl.float32)
    variance = tl.maximum(square / n - off * off, 0.0)
    inverse = 1.0 / tl.sqrt(variance + eps)
    tl.store(facts + channel, mean)
    tl.store(facts + CHANNELS + channel, tl.load(weight + channel) * inverse)
    tl.store(facts + 2 * CHANNELS + channel, tl.load(bias + channel))
    tl.store(facts + 3 * CHANNELS + channel, inverse)
    before = tl.load(running_mean + channel)
    tl.store(running_mean + channel, before + momentum * (mean - before))
    before = tl.load(running_var + channel)
    tl.store(running_var + channel, before + momentum * (variance * (n / (n - 1.0)) - before))


@triton.jit
def _apply(x, facts, added, y, rows, channels, HAS_ADDED: tl.constexpr):  # type: ignore[no-untyped-def]
    """Fill y; a value that is not a number stays so."""
    lane, row = tl.arange(0, LANES), tl.arange(0, ROWS)
    mean = tl.load(facts + lane % channels)[None, :]
    scale = tl.load(facts + channels + lane % channels)[None, :]
    bias = tl.load(facts + 2 * channels + lane % channels)[None, :]
    for start in range(tl.program_id(0) * ROWS, rows, tl.num_programs(0) * ROWS):
        at = start + row
        there = (at < rows)[:, None]
        here = at[:, None].to(tl.int64) * LANES + lane[None, :]
        value = (tl.load(x + here, mask=there, other=0.0).to(tl.float32) - mean) * scale + bias
        value = tl.where(value <= 0.0, 0.0, value)
        if HAS_ADDED:
            value += tl.load(added + here, mask=there, other=0.0).to(tl.float32)
        tl.store(y + here, value.to(y.dtype.element_ty), mask=there)


@triton.jit
def _slopes(x, facts, grad, parts, rows, channels):  # type: ignore[no-untyped-def]
    """Sums of the gradient below the ReLU, and of that times x - mean, over this program's rows."""
    lane, row = tl.arange(0, LANES), tl.arange(0, ROWS)
    mean = tl.load(facts + lane % channels)[None, :]
    scale = tl.load(facts + channels + lane % channels)[None, :]
    bias = tl.load(facts + 2 * channels + lane % channels)[None, :]
    total = tl.zeros([ROWS, LANES], tl.float32)
    product = tl.zeros([ROWS, LANES], tl.float32)
    for start in range(tl.program_id(0) * ROWS, rows, tl.num_programs(0) * ROWS):
        at = start + row
        there = (at < rows)[:, None]
        here = at[:, None].to(tl.int64) * LANES + lane[None, :]
        off = tl.load(x + here, mask=there, other=0.0).to(tl.float32) - mean
        slope = tl.load(grad + here, mask=there, other=0.0).to(tl.float32)
        slope = tl.where(off * scale + bias <= 0.0, 0.0, slope)
        total += slope
        product += tl.where(there, slope * off, 0.0)
    here = parts + tl.program_id(0) * 2 * LANES + lane
    tl.store(here, tl.sum(total, 0))
    tl.store(here + LANES, tl.sum(product, 0))


@triton.jit
def _settle_slopes(parts, facts, along, programs, n, CHANNELS: tl.constexpr):  # type: ignore[no-untyped-def]
    """By channel: what x - mean and 1 add to the gradient of x, and the gradients of gain and bias."""
    total, product = _added_up(parts, programs, CHANNELS)
    channel = tl.arange(0, CHANNELS)
    scale, inverse = tl.load(facts + CHANNELS + channel), tl.load(facts + 3 * CHANNELS + channel)
    tl.store(along + channel, -scale * product * inverse * inverse / n)
    tl.store(along + CHANNELS + channel, -scale * total / n)
    tl.store(along + 2 * CHANNELS + channel, product * inverse)
    tl.store(along + 3 * CHANNELS + channel, total)


@triton.jit
def _pull(x, facts, grad, along, below, rows, channels):  # type: ignore[no-untyped-def]
    """Fill the gradient of x."""
    lane, row = tl.arange(0, LANES), tl.arange(0, ROWS)
    mean = tl.load(facts + lane % channels)[None, :]
    scale = tl.load(facts + channels + lane % channels)[None, :]
    bias = tl.load(facts + 2 * channels + lane % channels)[None, :]
    of_off = tl.load(along + lane % channels)[None, :]
    of_one = tl.load(along + channels + lane % channels)[None, :]
    for start in range(tl.program_id(0) * ROWS, rows, tl.num_programs(0) * ROWS):
        at = start + row
        there = (at < rows)[:, None]
        here = at[:, None].to(tl.int64) * LANES + lane[None, :]
        off = tl.load(x + here, mask=there, other=0.0).to(tl.float32) - mean
        slope = tl.load(grad + here, mask=there, other=0.0).to(tl.float32)
        slope = tl.where(off * scale + bias <= 0.0, 0.0, slope)
        tl.store(below + here, (slope * scale + off * of_off + of_one).to(below.dtype.element_ty), mask=there)
