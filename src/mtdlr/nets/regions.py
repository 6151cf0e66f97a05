"""What a reader would measure in and around the tumour, each voxel weighted by how probably it is tumour."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

ACTIVE, ACTIVE_WIDTH = 0.5, 0.1  # of the tumour's mean uptake: where tissue counts as active, and how sharply


def n_region_statistics(channels: int) -> int:
    """How many numbers `region_statistics` gives."""
    return 1 + 3 * channels + 3


def region_statistics(image: Tensor, probability: Tensor, near_voxels: int) -> Tensor:
    """(b, 4 + 3c): what a reader would measure, each voxel weighted by how probably it is tumour.

    Log tumour volume; log mean, log SD and skewness of each channel inside it; and the log volume of active tissue, of
    at least half the tumour's mean uptake, within reach of it, and of the rest above and below the tumour's middle.
    Channels count from their least value, air, and activity from the tumour's own, so a centre's scale of uptake
    moves nothing but an additive constant.

    Args:
        image: (b, c, z, y, x), PET first; z runs towards the head.
        probability: (b, z, y, x), the tumour.
        near_voxels: how far within reach is.
    """
    above_air = image - image.amin((2, 3, 4), keepdim=True)
    tumour = probability[:, None]
    volume = tumour.sum((2, 3, 4))
    inside = tumour / (volume[:, :, None, None, None] + 1e-3)
    mean = (above_air * inside).sum((2, 3, 4))
    deviation = above_air - mean[:, :, None, None, None]
    sd = ((deviation.square() * inside).sum((2, 3, 4)) + 1e-8).sqrt()
    skewness = (deviation.pow(3) * inside).sum((2, 3, 4)) / (sd + 1e-3).pow(3)
    uptake = above_air[:, :1] / mean[:, :1, None, None, None].clamp_min(1e-3)
    active = torch.sigmoid((uptake - ACTIVE) / ACTIVE_WIDTH)
    volumes = [torch.log1p((active * region).sum((2, 3, 4))) for region in surroundings(tumour, inside, near_voxels)]
    return torch.cat([torch.log1p(volume), torch.log(mean + 1e-3), torch.log(sd + 1e-3), skewness, *volumes], 1)


def surroundings(tumour: Tensor, inside: Tensor, near_voxels: int) -> tuple[Tensor, Tensor, Tensor]:
    """Weights (b, 1, z, y, x) of what is near the tumour, and of the rest above and below its middle.

    Args:
        tumour: (b, 1, z, y, x), probability.
        inside: the same, scaled to sum 1.
        near_voxels: how far near reaches.
    """
    heights = torch.arange(tumour.shape[2], dtype=tumour.dtype, device=tumour.device)[:, None, None]
    above = torch.sigmoid(2.0 * (heights - (inside * heights).sum((2, 3, 4), keepdim=True)))
    near = dilated(tumour, near_voxels) - tumour
    rest = (1.0 - near - tumour).clamp_min(0.0)
    return near, rest * above, rest * (1.0 - above)


def dilated(x: Tensor, voxels: int) -> Tensor:
    """The greatest value within a cube of `voxels` each way, of the shape of x.

    Args:
        x: (b, c, z, y, x).
        voxels: reach of the cube from its middle, >= 0.
    """
    width = 2 * voxels + 1
    for axis in (2, 3, 4):  # one axis at a time, by maxima over 2, 4, 8 ... neighbours: pooling reads each window anew
        size, x = x.shape[axis], padded(x, axis, voxels, -torch.inf)
        covered = 1
        while 2 * covered <= width:
            length = x.shape[axis] - covered
            x = torch.maximum(x.narrow(axis, 0, length), x.narrow(axis, covered, length))
            covered *= 2
        x = torch.maximum(x.narrow(axis, 0, size), x.narrow(axis, width - covered, size))
    return x


def padded(x: Tensor, axis: int, voxels: int, value: float) -> Tensor:
    """x with `voxels` more of one value at both ends of an axis.

    Args:
        x: (b, c, z, y, x).
        axis: 2, 3 or 4.
        voxels: added at each end, >= 0.
        value: what is added.
    """
    ends = [voxels if axis == k else 0 for k in (4, 4, 3, 3, 2, 2)]
    return F.pad(x, ends, value=value)
