"""What a reader sees around a tumour: uptake of bone, soft tissue and fat, and how active tissue outside it is spread.

Part of the spatial embedding (`embedding.py`), whose conventions hold here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mtdlr.nets.regions import dilated, padded

BANDS = ("above", "level", "below")
CLASSES = {"bone": (0.15, 9.0, 0.03), "soft": (-0.03, 0.12, 0.02), "fat": (-0.15, -0.04, 0.02)}
"""Lower and upper limit on CT scaled from -1024 to 1024 HU, and the width of either edge."""
BAND_REACHES = 1.5  # half the height of the middle band
TISSUE = ("soft", "tumour over soft",
          *(f"{c} {what} {band}" for c in CLASSES for band in BANDS for what in ("uptake", "volume")))
ZONE = ("uptake", "SD", "hottest", "on the tumour's side", "extent z", "extent y", "extent x", "compactness")
LUMPS = ("volume", "uptake", "hottest", "amount", "mean", "highest", "depth", "extent z", "lowest",
         "on the tumour's side", "towards tumour", "asymmetry", "lowest same side", "mean same side",
         "lowest other side", "mean other side")
NODES = (*(f"near {what}" for what in ZONE), *(f"lumps {what}" for what in LUMPS))
LEAST = 1e-4
DOUBT = 2.0  # voxels of 64 mm3 of ordinary active tissue that every mean begins with, so that a speck says little
ORDINARY, ORDINARY_HOTTEST, ORDINARY_VARIANCE = 0.8, 0.5, 0.02  # uptake over the tumour's mean
POWER, HIGHEST = 6, 4.0  # of uptake as a weight in "hottest"; uptake over the tumour's mean is cut there
FAINT, FAINT_WIDTH = 0.3, 0.1  # uptake over the tumour's mean from which tissue below may be a node, and how sharply
AROUND_REACHES, EDGE_REACHES = 1.5, 0.5  # half the cube that a lump stands out from; what is left out about the tumour


@dataclass(frozen=True, eq=False)
class Around:
    """Maps (b, 1, z, y, x) about one batch's tumours.

    Args:
        reach: voxels that make about 8 mm.
        unit: voxels' volume in units of 64 mm3.
        tumour: its map.
        mean: (b, 1) its mean uptake.
        relative: uptake over that.
        active: active tissue outside it; near: the part within reach.
        away: coordinates about the tumour's middle, z, y, x.
        height: voxels above the grid's middle.
        same: share of each place on the tumour's side of the head.
    """

    reach: float
    unit: float
    tumour: Tensor
    mean: Tensor
    relative: Tensor
    active: Tensor
    near: Tensor
    away: Sequence[Tensor]
    height: Tensor
    same: Tensor


def tissue_numbers(image: Tensor, around: Around) -> Tensor:
    """(b, len(TISSUE)): log uptake of quiet soft tissue; of the tumour over it; by height, log uptake over it and log
    volume of each tissue.

    Args:
        image: (b, 2, z, y, x), PET and CT as the network reads them.
        around: the tumour and what lies about it, on the same grid.
    """
    uptake = image[:, :1] - image[:, :1].amin((2, 3, 4), keepdim=True)
    quiet = (1.0 - around.active) * (1.0 - dilated(around.tumour, 1)).clamp_min(0.0)
    kinds = [torch.sigmoid((image[:, 1:2] - low) / width) * torch.sigmoid((high - image[:, 1:2]) / width) * quiet
             for low, high, width in CLASSES.values()]
    soft = (total(uptake * kinds[1]) / (total(kinds[1]) + 1.0)).clamp_min(LEAST)
    found = [torch.log(soft), torch.log(around.mean.clamp_min(LEAST) / soft)]
    edge, width = BAND_REACHES * around.reach, around.reach
    below_top = torch.sigmoid((edge - around.height) / width)
    above_bottom = torch.sigmoid((around.height + edge) / width)
    for kind in kinds:
        for band in (1.0 - below_top, below_top * above_bottom, 1.0 - above_bottom):
            there = kind * band
            mean = (total(uptake * there) + 0.1 * soft) / (total(there) + 0.1)
            found += [torch.log(mean / soft + 0.01), torch.log1p(total(there) * around.unit)]
    return torch.cat(found, 1)


def node_numbers(around: Around) -> Tensor:
    """(b, len(NODES)): uptake, spread and side of active tissue near the tumour, and of lumps below its middle."""
    below = _below(around)
    return torch.cat([*_lesions(around, around.near, DOUBT / around.unit), *_uptake_below(around, below),
                      *_lumps(around, below)], 1)


def _below(around: Around) -> Tensor:
    """Weights of what may be a node: uptake from `FAINT` on, outside the tumour and its edge, below its middle."""
    rise = ((around.relative - FAINT) / FAINT_WIDTH + 0.5).clamp(0.0, 1.0)
    outside = 1.0 - dilated(around.tumour, max(1, int(EDGE_REACHES * around.reach)))
    return rise * outside * torch.sigmoid(-2.0 * around.away[0] / around.reach)


def _uptake_below(around: Around, below: Tensor) -> list[Tensor]:
    """Volume, mean uptake and hottest of all that lies below."""
    high = around.relative.clamp_max(HIGHEST)
    volume = total(below) * around.unit + 1.0
    hottest = (total(high ** (POWER + 1) * below) * around.unit + 1e-4) / (
        total(high**POWER * below) * around.unit + 1e-3)
    return [torch.log(volume), torch.log(total(high * below) * around.unit / volume + 0.01), torch.log(hottest)]


def _lumps(around: Around, below: Tensor) -> list[Tensor]:
    """How much uptake below stands out from the cube about it, how high, how low in the body and on which side.

    A node is small: its voxels stand out from their neighbours, those of broad quiet tissue do not.
    """
    # What is added to each sum and weight is far below one node's: without a lump the numbers rest at a fixed value.
    high = around.relative.clamp_max(HIGHEST)
    lump = (high - mean_around(high, max(1, int(AROUND_REACHES * around.reach)))).clamp_min(0.0) * below
    depth = -around.away[0] / around.reach
    amount, weight = total(lump) * around.unit + 0.1, total(lump) * around.unit + 0.3
    highest = (total(lump**4) * around.unit + 1e-6) / (total(lump**3) * around.unit + 1e-5)
    middle = total(lump * depth) * around.unit / weight
    spread = total(lump * (depth - wide(middle)).square()) * around.unit / weight
    halves = lump * around.same, lump * (1.0 - around.same)
    same, other = (torch.log1p(total(half) * around.unit) for half in halves)
    return [torch.log(amount), torch.log(total(lump**2) * around.unit / amount + 0.01), torch.log(highest), middle,
            torch.log(spread + 0.1), _lowest(lump, depth, around.unit, 0.3),
            (total(halves[0]) * around.unit + 0.15) / weight, same - other, (same - other).abs(),
            *(number for half in halves for number in (_lowest(half, depth, around.unit, 0.2), torch.log(
                (total(half**2) * around.unit + 1e-3) / (total(half) * around.unit + 0.2))))]


def _lowest(lump: Tensor, depth: Tensor, unit: float, doubt: float) -> Tensor:
    """A smooth maximum of the depth of lumps."""
    far = torch.exp(1.5 * depth.clamp(-4.0, 10.0))
    return torch.log((total(lump * far) * unit + doubt) / (total(lump) * unit + doubt))


def _lesions(around: Around, tissue: Tensor, doubt: float) -> list[Tensor]:
    """The numbers of one zone, in the order of `ZONE`."""
    weight = total(tissue) + doubt
    mean = (total(around.relative * tissue) + doubt * ORDINARY) / weight
    square = (total((around.relative - wide(mean)).square() * tissue) + doubt * ORDINARY_VARIANCE) / weight
    high = around.relative.clamp_max(HIGHEST)
    hottest = ((total(high ** (POWER + 1) * tissue) + doubt * ORDINARY_HOTTEST)
               / (total(high**POWER * tissue) + doubt * ORDINARY_HOTTEST))
    found = [torch.log(mean), torch.log(square), torch.log(hottest + 0.01),
             (total(around.same * tissue) + doubt / 2.0) / weight]
    for away in around.away:
        middle = total(tissue * away) / weight
        spread = total(tissue * (away - wide(middle)).square()) / weight
        found.append(torch.log(spread + 0.25 * around.reach**2))
    lumps = (total(mean_around(tissue, int(around.reach)) * tissue) + 0.1 * doubt) / weight
    return [*found, lumps]


def total(values: Tensor) -> Tensor:
    """(b, 1): the sum over the grid."""
    return values.sum((2, 3, 4))


def wide(values: Tensor) -> Tensor:
    """(b, 1, 1, 1, 1) of (b, 1)."""
    return values[:, :, None, None, None]


def mean_around(x: Tensor, voxels: int) -> Tensor:
    """The mean within a cube of `voxels` each way; outside the grid counts as 0.

    Args:
        x: (b, c, z, y, x).
        voxels: half the cube's edge, without its middle.
    """
    for axis in (2, 3, 4):  # one axis at a time: 3 n values a voxel in place of n^3
        size, around = x.shape[axis], padded(x, axis, voxels, 0.0)
        x = around.narrow(axis, 0, size).clone()
        for k in range(1, 2 * voxels + 1):
            x += around.narrow(axis, k, size)
        x = x / (2 * voxels + 1)
    return x
