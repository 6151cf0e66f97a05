"""Where in a patient's images the risk came from: integrated gradients, and their shares in and around the tumour.

As with scores, a training patient of fold k is explained by network k alone, which never saw the patient; anybody else
by all networks. Each map is divided by the SD of its network's scale before the mean, so that what is explained is the
DeepMTS-Score itself, the number that enters the nomogram: why it differs from that of the training cohort's mean image.
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

from mtdlr.infer import checked_image, held_out, score
from mtdlr.nets.deepmts import DeepmtsConfig
from mtdlr.nets.memory import cut_until_it_fits
from mtdlr.nets.weights import Checkpoint
from mtdlr.nomogram.scores import Scale
from mtdlr.volume import Volume

Image = NDArray[np.float32]
NEAR_MM, STEPS, MOST_STEPS = 10.0, 8, 64
WITHIN_SD = 0.1  # how far the sum of a map may lie from what it explains; with more steps it comes nearer
CHANNELS, PLACES = ("pet", "ct"), ("tumour", "near", "elsewhere")
TOGETHER = 1 << 18  # voxels that go through a network at once: small grids all steps together, large ones one by one


@dataclass(frozen=True, eq=False)
class Attribution:
    """Where a risk came from.

    Args:
        maps: (2, z, y, x) float32, what each voxel of PET and CT adds to the risk over that of the mean patient.
        share: part of the absolute sum by channel and place: `pet tumour`, `pet near`, `pet elsewhere`, `ct ...`;
            they add up to 1, or are all 0 where no voxel moves the risk. Without a tumour all is elsewhere.
        adds: what each channel and place adds to the risk, up or down; they sum to the patient's less the mean's.
        volume: the tumour's part of the grid, to compare its share with.
    """

    maps: Image
    share: Mapping[str, float]
    adds: Mapping[str, float]
    volume: float

    @property
    def outside(self) -> float:
        """The share from outside the tumour."""
        return sum(value for name, value in self.share.items() if not name.endswith(PLACES[0]))

    def as_dict(self) -> dict[str, Any]:
        """Shares and sums, for JSON."""
        return {"share": dict(self.share), "adds": dict(self.adds), "outside": self.outside,
                "tumour_volume": self.volume}


def explain_patient(image: Image, mask: Volume, networks: Sequence[Checkpoint], scales: Sequence[Scale],
                    mean: Image, fold: int | None = None) -> Attribution:
    """Where a patient's DeepMTS-Score came from.

    Args:
        image: (2, z, y, x), prepared.
        mask: the predicted tumour on the same grid.
        networks: DeepMTS of each fold; network k never saw fold k.
        scales: theirs.
        mean: the mean image of the training cohort, which the patient is compared with.
        fold: the patient's fold or subfold in training, as in `score_patient`; None for everybody else.
    """
    speaking = [k for k in range(len(networks)) if fold is None or k == fold % len(networks)]
    networks = held_out(networks, fold)
    maps = [_adding_up(networks[k], image, mean, scales[k].sd) / np.float32(scales[k].sd) for k in speaking]
    return attribution(np.mean(maps, axis=0, dtype=np.float32), np.asarray(mask.array) > 0, spacing_mm=mask.spacing_mm)


def gradients(checkpoint: Checkpoint, image: Image, start: Image, *, steps: int = STEPS) -> Image:
    """Integrated gradients of one network's risk, (2, z, y, x): what each voxel adds on the way from start to image.

    The gradient is that of the risk itself, also through the tumour probability where training kept that path shut
    (`detach_probability`).

    Args:
        checkpoint: the network.
        image: (2, z, y, x).
        start: (2, z, y, x), where the way begins. An image like the patient's: the risk of air is tens of SD from any
            patient's, and a map from there shows what every head has (bench/RESULTS.md, 2026-11-26).
        steps: points on the way.

    Raises:
        FitError: E-MEMORY where the memory is not enough for one point.

    Reference: Sundararajan et al., Axiomatic attribution for deep networks, ICML 2017.
    """
    network = _opened(checkpoint.scorer)
    x, origin = (torch.from_numpy(checked_image(one)).unsqueeze(0).to(checkpoint.place) for one in (image, start))
    ways = ((torch.arange(steps) + 0.5) / steps)[:, None, None, None, None].to(checkpoint.place)
    at_once = min(steps, max(1, TOGETHER // x[0, 0].numel()))

    def summed(parts: int) -> Tensor:
        pieces = ways.split(at_once // parts)
        return torch.stack([_gradient(network, origin + (x - origin) * piece) for piece in pieces]).sum(0)

    gradient = cut_until_it_fits(summed, where="explanation", most=at_once)
    return (gradient * (x - origin)[0] / steps).cpu().numpy()


def _adding_up(checkpoint: Checkpoint, image: Image, start: Image, sd: float) -> Image:
    """`gradients` with as many steps as their sum needs to come near the rise of the risk."""
    steps = STEPS
    rise = score(checkpoint, image).risk - score(checkpoint, start).risk
    maps = gradients(checkpoint, image, start, steps=steps)
    while steps < MOST_STEPS and abs(float(maps.sum(dtype=np.float64)) - rise) > WITHIN_SD * sd:
        steps *= 2
        maps = gradients(checkpoint, image, start, steps=steps)
    return maps


def attribution(maps: Image, mask: NDArray[np.bool_], *, spacing_mm: tuple[float, float, float]) -> Attribution:
    """The maps with their shares in the tumour, within 10 mm of it, and elsewhere.

    Args:
        maps: (2, z, y, x), of PET and CT.
        mask: (z, y, x), the tumour.
        spacing_mm: voxel size (z, y, x), mm.

    >>> found = attribution(np.ones((2, 1, 1, 4), np.float32), np.array([[[1, 0, 0, 0]]]) > 0, spacing_mm=(1, 1, 10))
    >>> found.share["pet tumour"], found.share["ct elsewhere"], found.outside, found.adds["ct elsewhere"]
    (0.125, 0.25, 0.75, 2.0)
    """
    distance = ndimage.distance_transform_edt(~mask, sampling=spacing_mm) if mask.any() else np.full(mask.shape, np.inf)
    places = dict(zip(PLACES, (mask, ~mask & (distance <= NEAR_MM), distance > NEAR_MM), strict=True))
    parts = {f"{channel} {name}": maps[c][where].astype(np.float64)
             for c, channel in enumerate(CHANNELS) for name, where in places.items()}
    size = {name: float(np.abs(part).sum()) for name, part in parts.items()}
    total = sum(size.values()) or 1.0
    return Attribution(maps, {name: value / total for name, value in size.items()},
                       {name: float(part.sum()) for name, part in parts.items()}, float(mask.mean()))


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
