"""The single-task survival networks: images in, one risk out, no mask (METHOD 4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from mtdlr.nets.blocks import (
    Dense,
    DenseBlock,
    HeadInputs,
    RiskHead,
    average_pool,
    channels_last,
    conv3d,
    global_average,
    max_pool,
    scaled,
)
from mtdlr.nets.deepmts import Output, SurvivalNetwork, output_of
from mtdlr.nets.embedding import NAMES, LinearHead, central_uptake, spatial_embedding
from mtdlr.nets.norm import NormRelu
from mtdlr.study import SingletaskNetwork

DENSENET121 = (6, 12, 24, 16)


@dataclass(frozen=True)
class SingletaskConfig:
    """What a single-task network is built from.

    Args:
        network: the embedding of DeepMTS about the hottest central uptake, the cascaded survival network without a
            mask, or a 3D DenseNet-121 (Qiang et al., JNCI 2021).
        in_channels: images of one patient, PET then CT.
        width: factor on every channel count.
        clinical: length of the clinical vector of the last layer (csn-only).
        intervals: 0 for one log-hazard, else logits of a discrete-time likelihood.
        dropout: share dropped inside the csn-only network.
        head_dropout: share dropped before each dense layer.
        norm_momentum: share of a batch's statistics that enters the running ones.
        pooling: `regional` standardises the pooled features, as in DeepMTS; there are no regions without a mask.
        near_voxels: voxels that make about 8 mm (no-mask).
        reading: how the risk reads the embedding (no-mask).
    """

    network: SingletaskNetwork = "csn-only"
    in_channels: int = 2
    width: float = 1.0
    clinical: int = 0
    intervals: int = 0
    dropout: float = 0.05
    head_dropout: float = 0.5
    norm_momentum: float = 0.01
    pooling: Literal["average", "regional", "spatial"] = "average"
    near_voxels: int = 4
    reading: int = 1


class NoMask(nn.Module):
    """What DeepMTS with a `spatial` head is compared with: the same numbers and the same exact fit, without a mask.

    Nothing of it is trained by steps.
    """

    def __init__(self, config: SingletaskConfig) -> None:
        super().__init__()
        self.config = config
        self.head = LinearHead(len(NAMES), config.reading)

    def embed(self, image: Tensor) -> tuple[Tensor, None]:
        """(embedding (b, n), None) of images."""
        reach = self.config.near_voxels
        return spatial_embedding(image, central_uptake(image, reach, self.config.reading), reach), None

    def forward(self, image: Tensor, clinical: Tensor | None = None) -> Output:
        """Risk of images, (b,), higher is worse.

        Args:
            image: (b, 2, z, y, x), PET and CT in [0, 1].
            clinical: not used.
        """
        return Output(self.head(self.embed(image)[0]), None, None)

    def l2(self) -> Tensor:
        """Sum of squares of the weights."""
        return self.head.l2()


class CsnOnly(nn.Module):
    """The survival network of DeepMTS on the images alone, with a head of 64 units: what multi-task learning adds to.

    >>> CsnOnly(SingletaskConfig()).survival.n_features
    112
    """

    def __init__(self, config: SingletaskConfig) -> None:
        super().__init__()
        self.config = config
        self.survival = SurvivalNetwork(config.in_channels, width=config.width, dropout=config.dropout,
                                        momentum=config.norm_momentum)
        self.head = RiskHead(HeadInputs((self.survival.n_features,), config.clinical), hidden=scaled(64, config.width),
                             outputs=max(1, config.intervals), dropout=config.head_dropout,
                             standardised=config.pooling != "average")

    def forward(self, image: Tensor, clinical: Tensor | None = None) -> Output:
        """Risk of images, (b,), higher is worse.

        Args:
            image: (b, 2, z, y, x), every axis >= 32, PET and CT in [0, 1].
            clinical: (b, m) covariates, for a network that was built for them.
        """
        features = self.survival.features(channels_last(image))
        return output_of(self.head([features], clinical), self.config.intervals, None)

    def l2(self) -> Tensor:
        """Sum of squares of the risk head's kernels."""
        return self.head.l2()


class DenseNet121(nn.Module):
    """A 3D DenseNet-121 (Huang et al., CVPR 2017) with one linear output.

    >>> sum(p.numel() for p in DenseNet121(SingletaskConfig("densenet121-3d")).parameters())
    11265601
    """

    def __init__(self, config: SingletaskConfig) -> None:
        super().__init__()
        self.config = config
        dense = Dense(scaled(32, config.width), dropout=0.0, bias=False, eps=1e-5, momentum=config.norm_momentum)
        channels = scaled(64, config.width)
        self.stem = conv3d(config.in_channels, channels, 7, stride=2, bias=False)
        self.stem_norm = NormRelu(channels, momentum=config.norm_momentum)
        self.blocks, self.norms, self.reduce = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for i, layers in enumerate(DENSENET121):
            block = DenseBlock(channels, layers, dense)
            channels = block.out_channels
            self.blocks.append(block)
            self.norms.append(NormRelu(channels, momentum=config.norm_momentum))
            if i < len(DENSENET121) - 1:
                self.reduce.append(conv3d(channels, channels // 2, 1, bias=False))
                channels //= 2
        self.head = nn.Linear(channels, max(1, config.intervals))

    def forward(self, image: Tensor, clinical: Tensor | None = None) -> Output:
        """Risk of images, (b,), higher is worse.

        Args:
            image: (b, 2, z, y, x), every axis >= 32, PET and CT in [0, 1].
            clinical: not used.
        """
        x = self.stem_norm(self.stem(channels_last(image)))
        x = max_pool(x, 3, 2, 1)
        for i, (block, norm) in enumerate(zip(self.blocks, self.norms, strict=True)):
            x = norm(block(x))
            if i < len(self.reduce):
                x = average_pool(self.reduce[i](x))
        return output_of(self.head(global_average(x)), self.config.intervals, None)

    def l2(self) -> Tensor:
        """Sum of squares of the last layer's kernel."""
        return self.head.weight.square().sum()
