"""The pieces both networks are made of (METHOD 3a-3c, 4), on batches (b, c, z, y, x).

Weights are those of plain convolutions, so files do not depend on how a layer is computed. Batches run channels-last,
where oneDNN's small-channel 3D kernels are two to four times faster, and a convolution of an upsampled map runs as one
transposed convolution of the small map, which is the same sum with 8 products in place of 27.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mtdlr.nets.cells import N, cell_weight, doubled_weight
from mtdlr.nets.norm import NormRelu

# Rows of the kernel that nearest-neighbour doubling followed by three taps amounts to, along one axis.
DOUBLED_TAPS = ((0.0, 0.0, 1.0), (0.0, 1.0, 1.0), (1.0, 1.0, 0.0), (1.0, 0.0, 0.0))


def scaled(channels: int, width: float) -> int:
    """A channel count times the width factor, at least 2.

    Args:
        channels: channels of the published network.
        width: factor on all channel counts, > 0; 1 is the published network.
    """
    return max(2, round(channels * width))


def channels_last(x: Tensor) -> Tensor:
    """The same values stored voxel by voxel."""
    return x.contiguous(memory_format=torch.channels_last_3d)


def conv3d(in_channels: int, out_channels: int, kernel: int, *, stride: int = 1, bias: bool = True) -> nn.Conv3d:
    """A same-padded He-uniform 3D convolution with zero bias.

    Args:
        in_channels: channels of its input.
        out_channels: channels of its output.
        kernel: voxels along each axis, odd.
        stride: voxels from one place to the next.
        bias: whether it adds a bias.
    """
    kind = Pointwise if kernel == 1 else Conv3d
    conv = kind(in_channels, out_channels, kernel, stride=stride, padding=kernel // 2, bias=bias)
    nn.init.kaiming_uniform_(conv.weight, nonlinearity="relu")
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return conv


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int) -> Tensor:
    """conv3d through oneDNN also for one patient, where torch itself takes a path five times slower.

    Args:
        x: (b, i, z, y, x).
        weight: (o, i, k, k, k).
        bias: (o,); None for none.
        stride: voxels from one place to the next, along each axis.
        padding: zeros added on each side of each axis.
    """
    if x.shape[0] == 1 and x.device.type == "cpu" and x.dtype == torch.float32 and torch.backends.mkldnn.is_available():
        return torch.ops.aten.mkldnn_convolution(x, weight, bias, [padding] * 3, [stride] * 3, [1] * 3, 1)
    return F.conv3d(x, weight, bias, stride, padding)


class Conv3d(nn.Conv3d):
    """A 3D convolution."""

    def forward(self, x: Tensor) -> Tensor:
        """(b, out, z, y, x)."""
        return convolve(x, self.weight, self.bias, int(self.stride[0]), int(self.padding[0]))


def conv_of_doubled(low: Tensor, weight: Tensor) -> Tensor:
    """conv3d(nearest x2 upsampling of `low`, 3x3x3 `weight`, same padding), computed on the small map.

    Args:
        low: (b, i, z, y, x).
        weight: (o, i, 3, 3, 3).

    Returns:
        (b, o, 2z, 2y, 2x).
    """
    taps = _doubled_taps(weight.device, weight.dtype)
    kernel = torch.einsum("oizyx,az,by,cx->ioabc", weight, taps, taps, taps)
    return F.conv_transpose3d(low, channels_last(kernel), stride=2, padding=1)


@cache
@torch.inference_mode(False)  # whoever asks first, training can use what is kept
def _doubled_taps(device: torch.device, dtype: torch.dtype) -> Tensor:
    """The taps, brought to a device once: a copy a step would make the processor wait."""
    return torch.tensor(DOUBLED_TAPS, dtype=dtype, device=device)


def max_pool(x: Tensor, size: int, stride: int, padding: int = 0) -> Tensor:
    """max_pool3d of maps without negative values.

    Where bits must repeat on a GPU, a form is used whose gradient is added up in one order.

    Args:
        x: (b, c, z, y, x), >= 0.
        size: voxels along each axis of the window.
        stride: voxels from one window to the next.
        padding: zeros added on each side of each axis.
    """
    if not _must_repeat(x):
        return F.max_pool3d(x, size, stride, padding)
    x = F.pad(x, (padding,) * 6)
    for axis in (2, 3, 4):
        x = x.unfold(axis, size, stride).amax(-1)
    return channels_last(x)


def average_pool(x: Tensor) -> Tensor:
    """avg_pool3d by 2; where bits must repeat on a GPU, in a form whose gradient is added up in one order."""
    if not _must_repeat(x):
        return F.avg_pool3d(x, 2)
    for axis in (2, 3, 4):
        x = x.unfold(axis, 2, 2).mean(-1)
    return channels_last(x)


def _must_repeat(x: Tensor) -> bool:
    return x.device.type != "cpu" and torch.are_deterministic_algorithms_enabled()


def pointwise(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """conv3d(x, 1x1x1 `weight`, bias) as one matrix product over the voxels of a channels-last batch.

    Args:
        x: (b, i, z, y, x).
        weight: (o, i, 1, 1, 1).
        bias: (o,); None for none.

    Returns:
        (b, o, z, y, x), channels-last.
    """
    return F.linear(x.permute(0, 2, 3, 4, 1), weight.flatten(1), bias).permute(0, 4, 1, 2, 3)


class Pointwise(nn.Conv3d):
    """A 1x1x1 convolution."""

    def forward(self, x: Tensor) -> Tensor:
        """(b, out, z, y, x)."""
        return pointwise(x, self.weight, self.bias)


class ConvNormRelu(nn.Module):
    """Convolution, batch norm, ReLU: the unit CBR(kernel, channels)."""

    def __init__(self, in_channels: int, channels: int, kernel: int, *, momentum: float) -> None:
        super().__init__()
        self.conv = conv3d(in_channels, channels, kernel)
        self.norm = NormRelu(channels, eps=1e-3, momentum=momentum)

    def forward(self, x: Tensor, low: Tensor | None = None, *, added: Tensor | None = None,
                doubled: int | None = None) -> Tensor:
        """The unit on `x`, or on the concatenation of doubled `low` and `x` when `low` is given; then `added` more.

        With `doubled`, `x` and the result are cells, and the first `doubled` channels of x are a map to double.

        Args:
            x: (b, c, z, y, x), or cells of such a map.
            low: (b, c', z/2, y/2, x/2), a map of half the grid.
            added: of the shape of the result.
            doubled: number of channels to double; None for maps that are no cells.
        """
        return self.norm(self._convolved(x, low) if doubled is None else self._on_cells(x, doubled), added)

    def _on_cells(self, x: Tensor, doubled: int) -> Tensor:
        weight, bias = self.conv.weight, self.conv.bias
        spread = cell_weight(weight[:, doubled:])
        if doubled:
            spread = torch.cat([doubled_weight(weight[:, :doubled]), spread], 1)
        repeated = None if bias is None else bias.repeat(N)
        return pointwise(x, spread, repeated) if weight.shape[-1] == 1 else F.conv3d(x, spread, repeated, 1, 1)

    def _convolved(self, x: Tensor, low: Tensor | None) -> Tensor:
        if low is None:
            return self.conv(x)
        weight, split = self.conv.weight, low.shape[1]
        if weight.shape[-1] == 1:
            y = pointwise(x, weight[:, split:], self.conv.bias)
            return y + F.interpolate(pointwise(low, weight[:, :split]), scale_factor=2)
        y = convolve(x, channels_last(weight[:, split:]), self.conv.bias, 1, 1)
        return y + conv_of_doubled(low, weight[:, :split])


class ResidualStage(nn.Module):
    """RS(channels, units): the first unit sums a 3x3x3 and a 1x1x1 CBR, the others add themselves to their input."""

    def __init__(self, in_channels: int, channels: int, units: int, *, momentum: float) -> None:
        super().__init__()
        self.first = ConvNormRelu(in_channels, channels, 3, momentum=momentum)
        self.shortcut = ConvNormRelu(in_channels, channels, 1, momentum=momentum)
        self.rest = nn.ModuleList(ConvNormRelu(channels, channels, 3, momentum=momentum) for _ in range(units - 1))

    def forward(self, x: Tensor, low: Tensor | None = None, *, cells: bool = False) -> Tensor:
        """The stage on maps, or from cells to cells.

        Args:
            x: (b, c, z, y, x), or cells of such a map.
            low: for a decoder stage, the map (b, c', z/2, y/2, x/2) of half the grid.
            cells: whether x and the result are cells.

        Returns:
            (b, channels, z, y, x), or its cells.
        """
        if not cells:
            h = self.first(x, low, added=self.shortcut(x, low))
        else:
            joined, doubled = (x, 0) if low is None else (torch.cat([low, x], 1), low.shape[1])
            h = self.first(joined, doubled=doubled, added=self.shortcut(joined, doubled=doubled))
        for unit in self.rest:
            h = unit(h, added=h, doubled=0 if cells else None)
        return h


@dataclass(frozen=True)
class Dense:
    """What the layers of a dense block have in common.

    Args:
        growth: maps that each layer appends.
        dropout: share dropped after each convolution.
        bias: whether the convolutions add a bias.
        eps: added to the variance by the norms.
        momentum: share of a batch's statistics that enters the running ones.
    """

    growth: int
    dropout: float
    bias: bool
    eps: float
    momentum: float


class DenseLayer(nn.Module):
    """BN-ReLU-C(1, 4 growth)-dropout-BN-ReLU-C(3, growth)-dropout: the maps to append."""

    def __init__(self, in_channels: int, dense: Dense) -> None:
        super().__init__()
        bottleneck = 4 * dense.growth
        self.norm1 = NormRelu(in_channels, eps=dense.eps, momentum=dense.momentum)
        self.conv1 = conv3d(in_channels, bottleneck, 1, bias=dense.bias)
        self.norm2 = NormRelu(bottleneck, eps=dense.eps, momentum=dense.momentum)
        self.conv2 = conv3d(bottleneck, dense.growth, 3, bias=dense.bias)
        self.dropout = nn.Dropout(dense.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(b, growth, z, y, x)."""
        h = self.dropout(self.conv1(self.norm1(x)))
        return self.dropout(self.conv2(self.norm2(h)))


class DenseBlock(nn.Module):
    """Layers that each append `growth` maps to their input."""

    def __init__(self, in_channels: int, layers: int, dense: Dense) -> None:
        super().__init__()
        self.layers = nn.ModuleList(DenseLayer(in_channels + i * dense.growth, dense) for i in range(layers))
        self.out_channels = in_channels + layers * dense.growth

    def forward(self, x: Tensor) -> Tensor:
        """(b, in_channels + layers * growth, z, y, x)."""
        for layer in self.layers:
            x = torch.cat([x, layer(x)], 1)
        return x


class Standardise(nn.BatchNorm1d):
    """Vectors (b, n) to mean 0 and SD 1 by running figures, in training too.

    Eight patients, half of them with an event, say too little about a feature's mean and SD: standardised by each batch
    alone, what a linear layer learns from it is half noise. The figures are updated once a step, after all
    its micro-batches and processes (`settle`), so that the division of a batch changes nothing.
    """

    seen: Tensor
    pending: Tensor

    def __init__(self, n: int) -> None:
        super().__init__(n, affine=False)
        self.register_buffer("seen", torch.zeros(1))  # steps; torch's own counter is not kept in files
        self.register_buffer("pending", torch.zeros(3, n), persistent=False)  # count, sums of x - mean and its square

    def forward(self, x: Tensor) -> Tensor:
        """(b, n)."""
        assert self.running_mean is not None and self.running_var is not None
        off = x - self.running_mean
        if self.training and self.momentum:
            with torch.no_grad():
                self.pending += torch.stack([torch.ones_like(off), off, off.square()]).sum(1)
        return off / torch.sqrt(self.running_var + self.eps)

    @torch.no_grad()
    def settle(self) -> None:
        """Let the running figures follow what came in since the last time; the first time they are just that."""
        assert self.running_mean is not None and self.running_var is not None and self.momentum is not None
        count, total, square = self.pending.clone()
        self.pending.zero_()
        came = (count >= 1).float()  # in numbers and not in branches: a GPU is not waited for
        count = count.clamp_min(1.0)
        shift = total / count
        spread = square / count - shift.square() * (self.seen == 0)
        self.seen += came[:1]
        share = (1.0 / self.seen.clamp_min(1.0)).clamp_min(self.momentum) * came
        self.running_var.lerp_(spread, share)
        self.running_mean += share * shift


@dataclass(frozen=True)
class HeadInputs:
    """Lengths of the vectors that enter a head.

    Args:
        features: of each feature vector.
        clinical: of the clinical vector, which enters only the last layer.
        direct: of the direct vector of a standardised head.
    """

    features: tuple[int, ...]
    clinical: int = 0
    direct: int = 0


class RiskHead(nn.Module):
    """Feature vectors, each through dropout and 64 ReLU units, joined with the clinical vector into one linear layer.

    That is the published head. Grid averages vary so little between patients that it learns from them slowly, and they
    are more than a cohort has events; so a head may be `standardised`: each vector is brought to mean 0 and SD 1 and
    scaled to length one, which lets a ridge penalty weigh vectors alike however long they are, `direct` vectors go
    standardised and undropped to the last layer, and that layer starts at zero.

    Args:
        inputs: the vectors that enter it.
        hidden: units of each branch.
        outputs: 1 for a log-hazard, or one logit an interval of the discrete-time likelihood.
        dropout: share dropped before each dense layer.
        standardised: see above.
    """

    def __init__(self, inputs: HeadInputs, *, hidden: int, outputs: int, dropout: float, standardised: bool) -> None:
        super().__init__()
        branches = [nn.Linear(n, hidden) for n in inputs.features]
        self.branches = nn.ModuleList(branches)
        self.n_direct = inputs.direct
        self.last = nn.Linear(hidden * len(branches) + inputs.clinical + inputs.direct, outputs)
        self.dropout = nn.Dropout(dropout)
        self.norms = nn.ModuleList(Standardise(n) for n in (*inputs.features, inputs.direct) if standardised and n)
        for branch in branches:
            nn.init.kaiming_uniform_(branch.weight, nonlinearity="relu")
            nn.init.zeros_(branch.bias)
        (nn.init.zeros_ if standardised else nn.init.xavier_uniform_)(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, features: list[Tensor], clinical: Tensor | None = None, direct: Tensor | None = None) -> Tensor:
        """The head's numbers, (b, outputs).

        Args:
            features: one (b, n) vector for each branch.
            clinical: (b, m) covariates, for a head that was built for them.
            direct: (b, k) vectors of a standardised head that was built for them.
        """
        if self.norms:
            features = [norm(v) / v.shape[1] ** 0.5 for norm, v in zip(self.norms, features, strict=False)]
        hidden = [F.relu(branch(self.dropout(v))) for branch, v in zip(self.branches, features, strict=True)]
        joined = self.dropout(torch.cat(hidden if clinical is None else [*hidden, clinical], 1))
        return self.last(joined if direct is None else torch.cat([joined, self.norms[-1](direct)], 1))

    def l2(self) -> Tensor:
        """Sum of squares of the dense kernels, biases left out."""
        kernels = [value for name, value in self.named_parameters() if name.endswith("weight")]
        return torch.stack([kernel.square().sum() for kernel in kernels]).sum()


def global_average(x: Tensor) -> Tensor:
    """(b, c): the mean over the grid."""
    return x.mean((2, 3, 4))
