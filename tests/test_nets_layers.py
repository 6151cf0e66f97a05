"""Each layer against torch's own functional form on a few voxels, written out by hand where torch has none."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mtdlr.nets import blocks
from mtdlr.nets.blocks import (
    Conv3d,
    ConvNormRelu,
    Dense,
    DenseBlock,
    DenseLayer,
    HeadInputs,
    Pointwise,
    ResidualStage,
    RiskHead,
    Standardise,
    average_pool,
    channels_last,
    conv3d,
    convolve,
    global_average,
    max_pool,
    scaled,
)
from mtdlr.nets.cells import cells_like, from_cells, to_cells, voxels
from mtdlr.nets.deepmts import DeepmtsConfig, output_of, padded_to_multiple
from mtdlr.nets.embedding import READING
from mtdlr.nets.norm import NormRelu
from mtdlr.nets.weights import config_of, network_name
from mtdlr.study import DeepmtsSettings, SingletaskSettings


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def lively(module: nn.Module) -> nn.Module:
    """The module in evaluation mode with norms that do something: random weights, biases and running figures."""
    for k, (name, value) in enumerate(sorted(module.state_dict().items())):
        if value.is_floating_point():
            value.copy_(noise(*value.shape, seed=k).abs() + 0.1 if "var" in name else 0.5 * noise(*value.shape, seed=k))
    return module.eval()


def norm_relu(x: Tensor, norm: nn.BatchNorm3d) -> Tensor:
    """torch's batch norm by running figures, then ReLU."""
    return F.relu(F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, False, 0.0, norm.eps))


def unit(x: Tensor, cbr: ConvNormRelu) -> Tensor:
    """Convolution, norm and ReLU in torch's functions."""
    return norm_relu(F.conv3d(x, cbr.conv.weight, cbr.conv.bias, padding=cbr.conv.weight.shape[-1] // 2), cbr.norm)


@pytest.mark.parametrize(("channels", "width", "expected"), [
    (24, 1.0, 24), (24, 0.25, 6), (8, 0.25, 2), (8, 0.1, 2), (64, 2.0, 128), (16, 0.6, 10)])
def test_widths_are_rounded_and_never_below_two(channels: int, width: float, expected: int) -> None:
    """A channel count times the width is rounded, and two channels are the fewest."""
    assert scaled(channels, width) == expected


@pytest.mark.parametrize("kernel", [1, 3, 7])
def test_a_fresh_convolution(kernel: int) -> None:
    """Same padding, He-uniform weights within sqrt(6 / fan-in), and a bias of zero."""
    torch.manual_seed(0)
    conv = conv3d(5, 8, kernel)
    bound = math.sqrt(6 / (5 * kernel**3))
    assert 0.9 * bound < float(conv.weight.detach().abs().max()) <= bound
    assert conv.bias is not None and not conv.bias.any()
    assert isinstance(conv, Pointwise if kernel == 1 else Conv3d)
    assert conv(noise(2, 5, 4, 3, 6)).shape == (2, 8, 4, 3, 6)
    assert conv3d(5, 8, kernel, bias=False).bias is None


@pytest.mark.parametrize(("patients", "stride", "padding"), [(1, 1, 1), (1, 2, 0), (1, 2, 1), (3, 2, 1)])
def test_one_patient_and_several_have_one_convolution(patients: int, stride: int, padding: int) -> None:
    """The path for one patient is torch's convolution, stride, padding and bias in their places."""
    x, weight, bias = noise(patients, 2, 6, 5, 7), noise(3, 2, 3, 3, 3, seed=1), noise(3, seed=2)
    for b in (bias, None):
        torch.testing.assert_close(convolve(x, weight, b, stride, padding), F.conv3d(x, weight, b, stride, padding),
                                   rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("repeat", [False, True])
def test_pooling_is_torchs_in_either_form(repeat: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The form of a GPU whose bits repeat gives the values and gradients of torch's pooling."""
    monkeypatch.setattr(blocks, "_must_repeat", lambda x: repeat)
    x = noise(2, 3, 7, 8, 9).abs().double()
    for ours, plain in ((lambda v: max_pool(v, 3, 2, 1), lambda v: F.max_pool3d(v, 3, 2, 1)),
                        (lambda v: max_pool(v, 2, 2), lambda v: F.max_pool3d(v, 2, 2)),
                        (average_pool, lambda v: F.avg_pool3d(v, 2))):
        leaves = [x.clone().requires_grad_() for _ in range(2)]
        found, expected = ours(leaves[0]), plain(leaves[1])
        torch.testing.assert_close(found, expected)
        found.square().sum().backward()
        expected.square().sum().backward()
        torch.testing.assert_close(leaves[0].grad, leaves[1].grad)


def test_a_unit_is_convolution_norm_and_relu() -> None:
    """CBR adds what is added after its ReLU."""
    cbr = lively(ConvNormRelu(3, 4, 3, momentum=0.1))
    assert isinstance(cbr, ConvNormRelu)
    x, more = noise(2, 3, 4, 5, 4), noise(2, 4, 4, 5, 4, seed=3)
    torch.testing.assert_close(cbr(x), unit(x, cbr), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(cbr(x, added=more), unit(x, cbr) + more, rtol=1e-5, atol=1e-5)


def test_a_residual_stage_adds_its_shortcut_and_then_itself() -> None:
    """The first unit sums a 3x3x3 and a 1x1x1 CBR; each later one adds its input to itself."""
    stage = lively(ResidualStage(2, 3, 3, momentum=0.1))
    x = noise(2, 2, 4, 4, 6)
    h = unit(x, stage.first) + unit(x, stage.shortcut)  # type: ignore[arg-type]
    assert len(stage.rest) == 2  # type: ignore[arg-type]
    for later in stage.rest:  # type: ignore[union-attr]
        h = unit(h, later) + h
    torch.testing.assert_close(stage(x), h, rtol=1e-4, atol=1e-5)


def test_a_decoder_stage_joins_the_doubled_map_in_front() -> None:
    """With a map of half the grid the stage sees that map doubled by repetition, then the skip's channels."""
    stage = lively(ResidualStage(3 + 2, 4, 2, momentum=0.1))
    low, skip = noise(2, 3, 2, 3, 2), noise(2, 2, 4, 6, 4, seed=1)
    joined = torch.cat([F.interpolate(low, scale_factor=2), skip], 1)
    torch.testing.assert_close(stage(skip, low), stage(joined), rtol=1e-4, atol=1e-5)


def test_a_dense_layer() -> None:
    """Norm, ReLU, 1x1x1 to four times the growth, norm, ReLU, 3x3x3 to the growth: the new maps alone."""
    layer = lively(DenseLayer(3, Dense(2, dropout=0.4, bias=True, eps=1e-3, momentum=0.1)))
    x = noise(2, 3, 4, 5, 4)
    h = F.conv3d(norm_relu(x, layer.norm1), layer.conv1.weight, layer.conv1.bias)  # type: ignore[arg-type]
    assert h.shape[1] == 8
    h = F.conv3d(norm_relu(h, layer.norm2), layer.conv2.weight, layer.conv2.bias, padding=1)  # type: ignore[arg-type]
    torch.testing.assert_close(layer(x), h, rtol=1e-4, atol=1e-5)


def test_a_dense_block_keeps_its_input_in_front() -> None:
    """Each layer's maps are appended behind all earlier ones, which stay as they are."""
    block = lively(DenseBlock(3, 2, Dense(4, dropout=0.0, bias=False, eps=1e-5, momentum=0.1)))
    x = noise(1, 3, 4, 4, 4)
    first = torch.cat([x, block.layers[0](x)], 1)  # type: ignore[index, operator]
    found = block(x)
    assert found.shape[1] == block.out_channels == 11
    torch.testing.assert_close(found, torch.cat([first, block.layers[1](first)], 1))  # type: ignore[index, operator]


def test_dropout_falls_inside_a_dense_layer_in_training_only() -> None:
    """In training a layer's maps change with the seed and hold zeros; in evaluation they do not."""
    layer = DenseLayer(3, Dense(4, dropout=0.5, bias=True, eps=1e-3, momentum=0.1))
    x, found = noise(2, 3, 6, 6, 6), []
    for seed in (1, 2):
        torch.manual_seed(seed)
        found.append(layer(x))
    assert not torch.equal(*found) and 0.3 < float((found[0] == 0).float().mean()) < 0.7
    layer.eval()
    assert torch.equal(layer(x), layer(x)) and not (layer(x) == 0).any()


def test_the_grid_average() -> None:
    """The mean over the three axes of the grid, patient by patient and channel by channel."""
    x = torch.arange(48.0).reshape(2, 3, 2, 2, 2)
    assert global_average(x).tolist() == [[3.5, 11.5, 19.5], [27.5, 35.5, 43.5]]


def test_a_norm_of_few_numbers_is_torchs() -> None:
    """A batch too small for our own loops goes through torch's norm: values, gradients and running figures."""
    ours, plain = NormRelu(3, eps=1e-3, momentum=0.2), nn.BatchNorm3d(3, eps=1e-3, momentum=0.2)
    x, more = noise(2, 3, 2, 3, 4), noise(2, 3, 2, 3, 4, seed=1)
    leaves = [x.clone().requires_grad_() for _ in range(2)]
    found, expected = ours(leaves[0], more), F.relu(plain(leaves[1])) + more
    torch.testing.assert_close(found, expected)
    found.square().sum().backward()
    expected.square().sum().backward()
    torch.testing.assert_close(leaves[0].grad, leaves[1].grad, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours.running_var, plain.running_var)
    torch.testing.assert_close(ours.running_mean, plain.running_mean)


def test_a_norm_of_cells_is_that_of_the_maps() -> None:
    """On cells a channel's figures are those of all its voxels, as on the plain map."""
    x, more = noise(2, 3, 4, 4, 6), noise(2, 3, 4, 4, 6, seed=1)
    plain, packed = NormRelu(3, momentum=0.1), NormRelu(3, momentum=0.1)
    expected = plain(x, more)
    torch.testing.assert_close(from_cells(packed(to_cells(x), to_cells(more))), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(packed.running_var, plain.running_var)


def test_the_order_of_a_cell() -> None:
    """Channel p * c + i is channel i of the voxel at p = 4 (z % 2) + 2 (y % 2) + x % 2 of the cell, and back."""
    x = noise(1, 3, 4, 2, 4)
    packed = to_cells(x)
    assert packed.shape == (1, 24, 2, 1, 2)
    for z, y, w in ((0, 0, 0), (3, 1, 2), (2, 0, 3), (1, 1, 1)):
        p = 4 * (z % 2) + 2 * (y % 2) + w % 2
        torch.testing.assert_close(packed[0, 3 * p:3 * p + 3, z // 2, y // 2, w // 2], x[0, :, z, y, w])
    assert torch.equal(from_cells(packed), x)


def test_cells_as_a_list_of_voxels() -> None:
    """The list holds every voxel once with its channels, and becomes the same cells again."""
    packed = to_cells(noise(2, 3, 4, 2, 4))
    flat = voxels(packed, 3)
    assert flat.shape == (1, 3, 1, 1, 2 * 4 * 2 * 4)
    torch.testing.assert_close(flat.sum((2, 3, 4))[0], from_cells(packed).sum((0, 2, 3, 4)), rtol=1e-4, atol=1e-5)
    assert torch.equal(cells_like(flat, packed), packed)


def test_the_published_head() -> None:
    """Each vector through its own ReLU units, joined in order with the clinical vector, into one linear layer."""
    torch.manual_seed(0)
    head = RiskHead(HeadInputs((3, 2), clinical=2), hidden=4, outputs=1, dropout=0.5, standardised=False).eval()
    a, b, clinical = noise(5, 3), noise(5, 2, seed=1), noise(5, 2, seed=2)
    hidden = [F.relu(v @ branch.weight.T + branch.bias) for v, branch in zip((a, b), head.branches, strict=True)]
    expected = torch.cat([*hidden, clinical], 1) @ head.last.weight.T + head.last.bias
    torch.testing.assert_close(head([a, b], clinical), expected)
    kernels = [head.branches[0].weight, head.branches[1].weight, head.last.weight]
    torch.testing.assert_close(head.l2(), torch.stack([(k**2).sum() for k in kernels]).sum())
    with torch.no_grad():
        head.last.bias.add_(100.0)
    torch.testing.assert_close(head.l2(), torch.stack([(k**2).sum() for k in kernels]).sum())


def test_a_standardised_head() -> None:
    """Vectors are standardised and divided by the root of their length, direct ones are only standardised; it starts
    at zero."""
    head = RiskHead(HeadInputs((4, 9), direct=2), hidden=3, outputs=2, dropout=0.5, standardised=True).eval()
    vectors, direct = [noise(5, 4), noise(5, 9, seed=1)], noise(5, 2, seed=2)
    assert not head(vectors, None, direct).any() and len(head.norms) == 3
    for k, norm in enumerate(head.norms):
        norm.running_mean.copy_(noise(norm.num_features, seed=k))
        norm.running_var.copy_(noise(norm.num_features, seed=k).abs() + 1)
    with torch.no_grad():
        head.last.weight.normal_(generator=torch.Generator().manual_seed(0))

    def standard(v: Tensor, norm: nn.BatchNorm1d) -> Tensor:
        return F.batch_norm(v, norm.running_mean, norm.running_var, eps=norm.eps)

    scaled_ = [standard(v, norm) / math.sqrt(v.shape[1]) for v, norm in zip(vectors, head.norms, strict=False)]
    hidden = [F.relu(branch(v)) for branch, v in zip(head.branches, scaled_, strict=True)]
    expected = torch.cat([*hidden, standard(direct, head.norms[2])], 1) @ head.last.weight.T + head.last.bias
    torch.testing.assert_close(head(vectors, None, direct), expected)


def test_running_figures_are_the_mean_of_the_first_steps() -> None:
    """Until 1 / momentum steps have come, each counts alike; afterwards the newest counts its momentum."""
    norm = Standardise(2)
    norm.momentum = 0.25
    means = []
    for step in range(3):
        x = noise(50, 2, seed=step) + step
        norm(x)
        norm.settle()
        means.append(x.mean(0))
        torch.testing.assert_close(norm.running_mean, torch.stack(means).mean(0), rtol=1e-4, atol=1e-5)
    for step in range(3, 6):
        before, x = norm.running_mean.clone(), noise(50, 2, seed=step)
        norm(x)
        norm.settle()
        share = max(0.25, 1 / (step + 1))
        torch.testing.assert_close(norm.running_mean, before + share * (x.mean(0) - before), rtol=1e-4, atol=1e-5)


def test_the_first_spread_is_about_its_own_mean() -> None:
    """After the first step the running variance is the batch's own, also far from zero."""
    norm = Standardise(3)
    x = 0.5 * noise(400, 3) + 7
    norm(x)
    norm.settle()
    torch.testing.assert_close(norm.running_var, x.var(0, correction=0), rtol=1e-3, atol=1e-4)


def test_a_discrete_risk_is_the_log_cumulative_hazard() -> None:
    """-log of the survival past all intervals, prod (1 - h), on the log scale; a log-hazard is handed on."""
    logits = noise(4, 3).double()
    output = output_of(logits, 3, None)
    expected = torch.log(-torch.log((1 - torch.sigmoid(logits)).prod(1)))
    torch.testing.assert_close(output.risk, expected)
    assert output.hazard_logits is logits
    plain = output_of(logits[:, :1], 0, None)
    assert torch.equal(plain.risk, logits[:, 0]) and plain.hazard_logits is None


def test_images_grow_by_their_last_plane() -> None:
    """Up to the next multiple the last plane of each axis is repeated; an image that fits is the same object."""
    x = noise(1, 2, 3, 4, 5)
    found = padded_to_multiple(x, 4)
    assert found.shape == (1, 2, 4, 4, 8)
    torch.testing.assert_close(found, F.pad(x, (0, 3, 0, 0, 0, 1), mode="replicate"))
    assert torch.equal(found[:, :, :3, :, :5], x) and padded_to_multiple(found, 4) is found


def test_voxel_by_voxel_is_the_same_image() -> None:
    """Channels-last is another order in memory and no other number."""
    x = noise(2, 3, 2, 3, 4)
    assert torch.equal(channels_last(x), x) and channels_last(x).stride()[1] == 1


def test_an_architecture_is_what_the_study_asks_for() -> None:
    """Intervals count for the discrete loss alone; every other setting of the architecture is handed on by name."""
    settings = DeepmtsSettings(width=0.5, dropout=0.1, head_dropout=0.2, norm_momentum=0.3, pooling="regional",
                               near_voxels=3, intervals=7, survival_loss="cox-efron", detach_probability=True)
    assert config_of("deepmts", settings) == DeepmtsConfig(
        width=0.5, dropout=0.1, head_dropout=0.2, norm_momentum=0.3, pooling="regional", near_voxels=3,
        detach_probability=True, reading=READING)
    discrete = config_of("csn-only", SingletaskSettings(network="csn-only", survival_loss="discrete", intervals=7))
    assert discrete.intervals == 7 and network_name(discrete) == "csn-only"
    assert network_name(DeepmtsConfig()) == "deepmts"
