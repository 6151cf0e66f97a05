"""Random small movements of PET, CT and mask together (METHOD 3e), as published and mended; PET of other scanners."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

MAX_DEGREES = 5.0
SHIFT_OF_128 = 10.0
SUV_SCALE, BLUR_REACHES, SHARPEN = 0.25, (0.15, 0.45), 0.7  # of `rescanned`


def augment(image: Tensor, mask: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Images and masks under one rotation, shift and left-right flip a patient.

    Rotations are uniform within 5 degrees about each axis, shifts uniform within 10 of 128 voxels, flips along x at
    one half. What enters from outside is the patient's own air (the lowest CT number and uptake), and masks stay binary
    at one half.

    Args:
        image: (b, c, z, y, x).
        mask: (b, z, y, x), 0 or 1.
        generator: the source of randomness, the processor's: the movements of a seed are the same on every device.
    """
    b, size = image.shape[0], image.shape[2:]
    angles = _uniform(b, 3, generator) * math.radians(MAX_DEGREES)
    shifts = _uniform(b, 3, generator) * (2.0 * SHIFT_OF_128 / 128.0)
    flips = (torch.rand(b, generator=generator) < 0.5).float() * -2.0 + 1.0
    rotation = _rotation(angles[:, 0], 0) @ _rotation(angles[:, 1], 1) @ _rotation(angles[:, 2], 2)
    rotation = rotation * torch.stack([flips, torch.ones(b), torch.ones(b)], 1)[:, None, :]
    grid = _grid(rotation, shifts, size, image.device)
    air = image.amin((2, 3, 4), keepdim=True)
    moved = _sample(torch.cat([image - air, mask[:, None].to(image.dtype)], 1), grid)
    return moved[:, :-1] + air, (moved[:, -1] > 0.5).to(mask.dtype)


def augment_paper(image: Tensor, mask: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The published augmentation with its flaws.

    Every axis is shifted by exactly 10 of 128 voxels one way or the other; zeros come in from outside, whatever they
    mean; three interpolations follow each other; masks grow by a threshold of 0.2.

    Args:
        image: (b, c, z, y, x).
        mask: (b, z, y, x), 0 or 1.
        generator: the source of randomness, the processor's.

    Returns:
        (image, mask), moved together, of the same shapes.
    """
    b, size = image.shape[0], image.shape[2:]
    angles = _uniform(b, 3, generator) * math.radians(MAX_DEGREES)
    signs = (torch.rand(b, 3, generator=generator) < 0.5).float() * 2.0 - 1.0
    voxels = torch.tensor([round(n * SHIFT_OF_128 / 128.0) for n in reversed(size)], dtype=torch.float32)
    shifts = signs * voxels * 2.0 / torch.tensor(list(reversed(size)), dtype=torch.float32)
    flips = (torch.rand(b, generator=generator) < 0.5).float() * -2.0 + 1.0
    both = torch.cat([image, mask[:, None].to(image.dtype)], 1)
    for axis, moved in ((2, (0, 1)), (1, (2,)), (0, ())):
        rotation = _rotation(angles[:, axis], axis)
        if axis == 2:
            rotation = rotation * torch.stack([flips, torch.ones(b), torch.ones(b)], 1)[:, None, :]
        shift = torch.zeros(b, 3)
        shift[:, list(moved)] = shifts[:, list(moved)]
        both = _sample(both, _grid(rotation, shift, size, image.device))
    return both[:, :-1], (both[:, -1] > 0.2).to(mask.dtype)


def rescanned(image: Tensor, generator: torch.Generator, reach: int) -> Tensor:
    """The same patients on other scanners: PET of another scale, and blurred or sharpened by less than its resolution.

    A patient's scale is uniform within a factor of e^0.25 either way; one half are blurred by a Gaussian whose SD is
    uniform within 0.15 and 0.45 reaches, from the others up to 0.7 of what that takes off is added. CT stays.

    Args:
        image: (b, 2, z, y, x), PET first; uptake counts from the patient's air.
        generator: the source of randomness, the processor's.
        reach: voxels that make about 8 mm.
    """
    b, pet = image.shape[0], image[:, :1]
    scale = torch.exp(SUV_SCALE * _uniform(b, 1, generator))
    low, high = BLUR_REACHES
    sd = reach * (low + (high - low) * torch.rand(b, generator=generator))
    added = SHARPEN * torch.rand(b, generator=generator)
    share = torch.where(torch.rand(b, generator=generator) < 0.5, added, torch.full((b,), -1.0))  # -1 is the blur alone
    scale, share = (each.reshape(-1, 1, 1, 1, 1).to(image.device, non_blocking=True) for each in (scale, share))
    air = pet.amin((2, 3, 4), keepdim=True)
    uptake = (pet - air) * scale
    detail = uptake - _blurred(uptake, sd, reach)
    return torch.cat([air + (uptake + share * detail).clamp_min(0.0), image[:, 1:]], 1)


def _blurred(x: Tensor, sd: Tensor, voxels: int) -> Tensor:
    """Maps (b, 1, z, y, x) under Gaussians of SD (b,) voxels, cut at `voxels`; the edges go on outside."""
    steps = torch.arange(-voxels, voxels + 1.0)
    weights = torch.exp(-steps.square() / (2.0 * sd[:, None].square()))
    weights = (weights / weights.sum(1, keepdim=True)).to(x.device, non_blocking=True)
    for axis, ends in ((2, (0, 0, 0, 0, voxels, voxels)), (3, (0, 0, voxels, voxels)), (4, (voxels, voxels))):
        size, wide = x.shape[axis], F.pad(x, [*ends, *[0] * (6 - len(ends))], mode="replicate")
        x = sum((weights[:, k].reshape(-1, 1, 1, 1, 1) * wide.narrow(axis, k, size) for k in range(len(steps))),
                torch.zeros_like(x))
    return x


def _uniform(b: int, n: int, generator: torch.Generator) -> Tensor:
    """(b, n) in [-1, 1)."""
    return torch.rand(b, n, generator=generator) * 2.0 - 1.0


def _rotation(angle: Tensor, axis: int) -> Tensor:
    """(b, 3, 3) rotations about one of (x, y, z)."""
    cos, sin, matrix = angle.cos(), angle.sin(), torch.eye(3).repeat(len(angle), 1, 1)
    i, j = [(1, 2), (0, 2), (0, 1)][axis]
    matrix[:, i, i], matrix[:, j, j], matrix[:, i, j], matrix[:, j, i] = cos, cos, -sin, sin
    return matrix


def _grid(rotation: Tensor, shift: Tensor, size: torch.Size, device: torch.device) -> Tensor:
    """Sampling positions (b, z, y, x, 3) of a movement in (x, y, z) order, isotropic in voxels, on the device."""
    half = torch.tensor(list(reversed(size)), dtype=torch.float32) / 2.0
    linear = rotation * half[None, None, :] / half[None, :, None]
    movement = torch.cat([linear, shift[:, :, None]], 2).to(device, non_blocking=True)
    return F.affine_grid(movement, [len(shift), 1, *size], align_corners=False)


def _sample(x: Tensor, grid: Tensor) -> Tensor:
    """Linear interpolation, zero outside."""
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
