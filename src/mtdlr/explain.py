"""Where in a patient's images the risk came from: integrated gradients, and their shares in and around the tumour.

As with scores, a training patient of fold k is explained by network k alone, which never saw the patient; anybody else
by all networks. Each map is divided by the SD of its network's scale before the mean, so that what is explained is the
DeepMTS-Score itself, the number that enters the nomogram.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor, nn

from mtdlr.infer import checked_image
from mtdlr.models import Scale
from mtdlr.nets.deepmts import DeepmtsConfig
from mtdlr.nets.weights import Checkpoint
from mtdlr.volume import Volume

Image = NDArray[np.float32]
NEAR_MM, STEPS = 10.0, 8
CHANNELS, PLACES = ("pet", "ct"), ("tumour", "near", "elsewhere")
TOGETHER = 1 << 18  # voxels that go through a network at once: small grids all steps together, large ones one by one


@dataclass(frozen=True, eq=False)
class Attribution:
    """Where a risk came from.

    Args:
        maps: (2, z, y, x) float32, what each voxel of PET and CT adds to the risk over an image of air.
        share: part of the absolute sum by channel and place: `pet tumour`, `pet near`, `pet elsewhere`, `ct ...`;
            they add up to 1, or are all 0 where no voxel moves the risk. Without a tumour all is elsewhere.
        volume: the tumour's part of the grid, to compare its share with.
    """

    maps: Image
    share: Mapping[str, float]
    volume: float

    @property
    def outside(self) -> float:
        """The share from outside the tumour."""
        return sum(value for name, value in self.share.items() if not name.endswith(PLACES[0]))

    def as_dict(self) -> dict[str, Any]:
        """The shares, for JSON."""
        return {"share": dict(self.share), "outside": self.outside, "tumour_volume": self.volume}


def explain_patient(image: Image, mask: Volume, networks: Sequence[Checkpoint], scales: Sequence[Scale],
                    fold: int | None = None) -> Attribution:
    """Where a patient's DeepMTS-Score came from.

    Args:
        image: (2, z, y, x), prepared.
        mask: the predicted tumour on the same grid.
        networks: DeepMTS of each fold; network k never saw fold k.
        scales: theirs.
        fold: the patient's fold in training; None for everybody else.
    """
    speaking = [k for k in range(len(networks)) if fold is None or k == fold]
    steps = STEPS if len(speaking) == 1 else STEPS // 2  # the mean of several needs fewer of each
    maps = [gradients(networks[k], image, steps=steps) / np.float32(scales[k].sd) for k in speaking]
    return attribution(np.mean(maps, axis=0, dtype=np.float32), np.asarray(mask.array) > 0, spacing_mm=mask.spacing_mm)


def gradients(checkpoint: Checkpoint, image: Image, *, steps: int = STEPS) -> Image:
    """Integrated gradients of one network's risk, (2, z, y, x): what each voxel adds between air and the patient.

    Air is each channel's least value. The gradient is that of the risk itself, also through the tumour probability
    where training kept that path shut (`detach_probability`).

    Args:
        checkpoint: the network.
        image: (2, z, y, x).
        steps: points on the way.

    Reference: Sundararajan et al., Axiomatic attribution for deep networks, ICML 2017.
    """
    network, x = _opened(checkpoint.scorer), torch.from_numpy(checked_image(image)).unsqueeze(0)
    air = x.amin((2, 3, 4), keepdim=True)
    ways = ((torch.arange(steps) + 0.5) / steps)[:, None, None, None, None]
    pieces = ways.split(max(1, TOGETHER // x[0, 0].numel()))
    gradient = torch.stack([_gradient(network, air + (x - air) * piece) for piece in pieces]).sum(0)
    return (gradient * (x - air)[0] / steps).numpy()


def attribution(maps: Image, mask: NDArray[np.bool_], *, spacing_mm: tuple[float, float, float]) -> Attribution:
    """The maps with their shares in the tumour, within 10 mm of it, and elsewhere.

    Args:
        maps: (2, z, y, x), of PET and CT.
        mask: (z, y, x), the tumour.
        spacing_mm: voxel size (z, y, x), mm.

    >>> found = attribution(np.ones((2, 1, 1, 4), np.float32), np.array([[[1, 0, 0, 0]]]) > 0, spacing_mm=(1, 1, 10))
    >>> found.share["pet tumour"], found.share["pet near"], found.share["ct elsewhere"], found.outside
    (0.125, 0.125, 0.25, 0.75)
    """
    distance = ndimage.distance_transform_edt(~mask, sampling=spacing_mm) if mask.any() else np.full(mask.shape, np.inf)
    places = dict(zip(PLACES, (mask, ~mask & (distance <= NEAR_MM), distance > NEAR_MM), strict=True))
    size = np.abs(maps, dtype=np.float64)
    total = float(size.sum()) or 1.0
    share = {f"{channel} {name}": float(size[c][where].sum()) / total
             for c, channel in enumerate(CHANNELS) for name, where in places.items()}
    return Attribution(maps, share, float(mask.mean()))


def _opened(network: nn.Module) -> nn.Module:
    """The network with the path through the tumour probability open, sharing its weights."""
    config = network.config
    if not isinstance(config, DeepmtsConfig):
        return network
    opened = copy.copy(network)
    opened.config = replace(config, detach_probability=False)
    return opened


def _gradient(network: nn.Module, points: Tensor) -> Tensor:
    """(2, z, y, x): the gradients of the risk at images (b, 2, z, y, x), added up."""
    points.requires_grad_()
    with torch.enable_grad():
        return torch.autograd.grad(network(points).risk.sum(), points)[0].sum(0)
