"""DeepMTS: a segmentation backbone and a cascaded survival network that share one risk head.

Reference: Meng et al., DeepMTS: deep multi-task learning for survival prediction in patients with advanced
nasopharyngeal carcinoma using pretreatment PET/CT, IEEE J Biomed Health Inform 2022.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mtdlr.nets.blocks import (
    Conv3d,
    ConvNormRelu,
    Dense,
    DenseBlock,
    HeadInputs,
    ResidualStage,
    RiskHead,
    average_pool,
    channels_last,
    conv3d,
    global_average,
    max_pool,
    pointwise,
    scaled,
)
from mtdlr.nets.cells import N, cell_weight, from_cells, halved, strided_convolution, to_cells
from mtdlr.nets.embedding import NAMES, LinearHead, spatial_embedding
from mtdlr.nets.norm import NormRelu
from mtdlr.nets.regions import n_region_statistics, region_statistics

ENCODER = ((8, 2), (16, 2), (32, 3), (64, 3), (128, 4))
DECODER = ((64, 3), (32, 3), (16, 2), (8, 2))
CSN_BLOCKS = ((4, 16), (8, 32), (16, 64))


@dataclass(frozen=True)
class DeepmtsConfig:
    """What DeepMTS is built from; the defaults are the published network.

    Args:
        in_channels: images of one patient, PET then CT.
        width: factor on every channel count.
        clinical: length of the clinical vector of the last layer.
        intervals: 0 for one log-hazard, else logits of a discrete-time likelihood.
        dropout: share dropped inside the cascaded survival network.
        head_dropout: share dropped before each dense layer.
        detach_probability: whether the survival network sees the tumour probability without gradient.
        norm_momentum: share of a batch's statistics that enters the running ones.
        pooling: `average` is the published head on grid averages; `regional` standardises those and adds statistics
            of the images in the tumour, around it and elsewhere; `spatial` has no survival network and no hidden
            units: the risk is linear in `spatial_embedding`, and its weights are solved when the training ends.
        near_voxels: how far around the tumour its surroundings reach, voxels.
        reading: how a `spatial` risk reads the embedding.
    """

    in_channels: int = 2
    width: float = 1.0
    clinical: int = 0
    intervals: int = 0
    dropout: float = 0.05
    head_dropout: float = 0.5
    detach_probability: bool = False
    norm_momentum: float = 0.01
    pooling: Literal["average", "regional", "spatial"] = "average"
    near_voxels: int = 4
    reading: int = 1


class Output(NamedTuple):
    """What a network returns for a batch.

    Args:
        risk: (b,) log-hazard up to a constant; higher is worse.
        hazard_logits: (b, k) of the k intervals of the discrete-time likelihood; None for a log-hazard.
        probability: (b, z, y, x) tumour probability; None for a network without masks.
        plain: (b,) risk of the fit without the block `measures`; None where there is no such fit.
        bottleneck: (b, c) means over the grid of the encoder's last level; None for a network without that encoder.
    """

    risk: Tensor
    hazard_logits: Tensor | None
    probability: Tensor | None
    plain: Tensor | None = None
    bottleneck: Tensor | None = None


def output_of(head: Tensor, intervals: int, probability: Tensor | None, bottleneck: Tensor | None = None) -> Output:
    """The head's numbers as a risk: the log-hazard itself, or the log cumulative hazard of all intervals.

    Args:
        head: (b, 1) log-hazards, or (b, k) logits of the k intervals.
        intervals: k; 0 for a log-hazard.
        probability: (b, z, y, x) tumour probability to hand on; None for a network without masks.
        bottleneck: (b, c) to hand on.
    """
    if not intervals:
        return Output(head[:, 0], None, probability, None, bottleneck)
    return Output(F.softplus(head).sum(1).log(), head, probability, None, bottleneck)


class Backbone(nn.Module):
    """The residual encoder-decoder: tumour probability and the encoder's deep features (METHOD 3a).

    The first `cell_levels` of its five levels are computed on cells, which is what a GPU is fast at: the same sums.
    """

    cell_levels = 0

    def __init__(self, config: DeepmtsConfig) -> None:
        super().__init__()
        momentum, width = config.norm_momentum, config.width
        widths = [scaled(c, width) for c, _ in ENCODER]
        self.encoder, self.decoder = nn.ModuleList(), nn.ModuleList()
        channels = config.in_channels
        for c, (_, units) in zip(widths, ENCODER, strict=True):
            self.encoder.append(ResidualStage(channels, c, units, momentum=momentum))
            channels = c
        for (c, units), skip in zip(DECODER, reversed(widths[:-1]), strict=True):
            self.decoder.append(ResidualStage(channels + skip, scaled(c, width), units, momentum=momentum))
            channels = scaled(c, width)
        self.segment = conv3d(channels, 2, 1)
        self.adapters = nn.ModuleList(ConvNormRelu(c, max(1, c // 2), 1, momentum=momentum) for c in widths)
        self.n_features = sum(max(1, c // 2) for c in widths)

    def forward(self, image: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Probability (b, z, y, x) and the five encoder maps of images (b, c, z, y, x) of any size from 16 up."""
        x = padded_to_multiple(image, 16)
        maps: list[Tensor] = []
        for level, stage in enumerate(self.encoder):
            if level:
                x = halved(x) if level <= self.cell_levels else max_pool(x, 2, 2)
            x = stage(to_cells(x), cells=True) if level < self.cell_levels else stage(x)
            maps.append(x)
        for level, stage in zip((3, 2, 1, 0), self.decoder, strict=True):
            low = from_cells(x) if level + 1 < self.cell_levels else x
            x = stage(maps[level], low, cells=level < self.cell_levels)
        z, y, x_ = image.shape[2:]
        return self._probability(x)[:, :z, :y, :x_], maps

    def _probability(self, x: Tensor) -> Tensor:
        """(b, z, y, x) of the last map."""
        if not self.cell_levels:
            return torch.softmax(self.segment(x), 1)[:, 0]
        assert self.segment.bias is not None
        logits = pointwise(x, cell_weight(self.segment.weight), self.segment.bias.repeat(N))
        logits = logits.permute(0, 2, 3, 4, 1).unflatten(-1, (N, 2))
        return from_cells(torch.softmax(logits, -1)[..., 0].permute(0, 4, 1, 2, 3))[:, 0]

    def features(self, maps: list[Tensor]) -> Tensor:
        """(b, 124 at width 1): the adapted encoder maps, averaged over the grid."""
        means = [global_average(adapt(m, doubled=0)).unflatten(1, (N, -1)).mean(1) if level < self.cell_levels
                 else global_average(adapt(m))
                 for level, (adapt, m) in enumerate(zip(self.adapters, maps, strict=True))]
        return torch.cat(means, 1)


class SurvivalNetwork(nn.Module):
    """The cascaded survival network: a stem and three dense blocks (METHOD 3b)."""

    stem_on_cells = False

    def __init__(self, in_channels: int, *, width: float, dropout: float, momentum: float) -> None:
        super().__init__()
        dense = Dense(scaled(16, width), dropout=dropout, bias=True, eps=1e-3, momentum=momentum)
        channels = scaled(24, width)
        self.stem = Conv3d(in_channels, channels, 3, stride=2)
        nn.init.kaiming_uniform_(self.stem.weight, nonlinearity="relu")
        nn.init.zeros_(self.stem.bias)  # type: ignore[arg-type]
        self.blocks, self.norms, self.reduce, self.feature_norms = (nn.ModuleList() for _ in range(4))
        for layers, c in CSN_BLOCKS:
            block = DenseBlock(channels, layers, dense)
            channels = scaled(c, width)
            self.blocks.append(block)
            self.norms.append(NormRelu(block.out_channels, eps=1e-3, momentum=momentum))
            self.reduce.append(conv3d(block.out_channels, channels, 1))
            self.feature_norms.append(NormRelu(channels, eps=1e-3, momentum=momentum))
        self.dropout = nn.Dropout(dropout)
        self.n_features = sum(scaled(c, width) for _, c in CSN_BLOCKS)

    def forward(self, x: Tensor) -> list[Tensor]:
        """The three feature maps, on grids 31, 15 and 7 for an input of 128."""
        even = self.stem_on_cells and not any(n % 2 for n in x.shape[2:])
        x = strided_convolution(x, self.stem.weight, self.stem.bias) if even else self.stem(x)
        x = max_pool(self.dropout(x), 3, 2)
        maps: list[Tensor] = []
        for block, norm, reduce, feature_norm in zip(self.blocks, self.norms, self.reduce, self.feature_norms,
                                                     strict=True):
            x = average_pool(x) if maps else x
            x = self.dropout(reduce(norm(block(x))))
            maps.append(feature_norm(x))
        return maps

    def features(self, x: Tensor) -> Tensor:
        """(b, 112 at width 1)."""
        return torch.cat([global_average(m) for m in self(x)], 1)


class DeepMTS(nn.Module):
    """Risk and tumour probability of PET/CT, 3,709,671 trainable parameters by default.

    >>> sum(p.numel() for p in DeepMTS(DeepmtsConfig()).parameters())
    3709671
    """

    def __init__(self, config: DeepmtsConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = Backbone(config)
        self.survival: SurvivalNetwork | None = None
        self.head: RiskHead | LinearHead
        if config.pooling == "spatial":
            self.head = LinearHead(len(NAMES), config.reading)
            return
        self.survival = SurvivalNetwork(config.in_channels + 1, width=config.width, dropout=config.dropout,
                                        momentum=config.norm_momentum)
        self.head = self._published_head(config, self.survival.n_features)

    def _published_head(self, config: DeepmtsConfig, n_features: int) -> RiskHead:
        regional = config.pooling == "regional"
        inputs = HeadInputs((self.backbone.n_features, n_features), config.clinical,
                            n_region_statistics(config.in_channels) if regional else 0)
        return RiskHead(inputs, hidden=scaled(64, config.width), outputs=max(1, config.intervals),
                        dropout=config.head_dropout, standardised=regional)

    def segment(self, image: Tensor) -> Tensor:
        """Tumour probability (b, z, y, x) alone."""
        return self.backbone(channels_last(image))[0]

    def embed(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """(embedding (b, n), probability (b, z, y, x)) of images; what a `spatial` head is linear in."""
        probability = self.segment(image)
        return spatial_embedding(image, probability, self.config.near_voxels), probability

    def forward(self, image: Tensor, clinical: Tensor | None = None) -> Output:
        """Risk and probability of images (b, 2, z, y, x), every axis >= 32.

        Args:
            image: (b, 2, z, y, x), PET and CT in [0, 1] as networks see them.
            clinical: (b, m) covariates, for a network that was built for them.

        Returns:
            Risk (b,), higher is worse, and tumour probability (b, z, y, x).
        """
        image = channels_last(image)
        if self.survival is None:
            assert isinstance(self.head, LinearHead)
            probability, maps = self.backbone(image)
            vectors = spatial_embedding(image, probability, self.config.near_voxels)
            return Output(self.head(vectors), None, probability, self.head.without_measures(vectors),
                          global_average(maps[-1]))
        assert isinstance(self.head, RiskHead)
        probability, maps = self.backbone(image)
        seen = probability.detach() if self.config.detach_probability else probability
        joined = channels_last(torch.cat([image, seen[:, None]], 1))
        features = [self.backbone.features(maps), self.survival.features(joined)]
        direct = region_statistics(image, seen, self.config.near_voxels) if self.config.pooling == "regional" else None
        return output_of(self.head(features, clinical, direct), self.config.intervals, probability,
                         global_average(maps[-1]))

    def l2(self) -> Tensor:
        """Sum of squares of the risk head's kernels."""
        return self.head.l2()


def on_cells(model: nn.Module, levels: int = 1) -> None:
    """Let the first levels of the backbone, and the survival network's stem, be computed on cells.

    Args:
        model: a network, changed in place; its weights stay as they are.
        levels: number of levels; 0 computes nothing on cells.
    """
    for module in model.modules():
        if isinstance(module, Backbone):
            module.cell_levels = levels
        elif isinstance(module, SurvivalNetwork):
            module.stem_on_cells = levels > 0


def padded_to_multiple(image: Tensor, step: int) -> Tensor:
    """The image with its last planes repeated until every axis is a multiple of `step`.

    Args:
        image: (b, c, z, y, x).
        step: voxels.
    """
    missing = [-n % step for n in image.shape[2:]]
    if not any(missing):
        return image
    z, y, x = missing
    return channels_last(F.pad(image, (0, x, 0, y, 0, z), mode="replicate"))
