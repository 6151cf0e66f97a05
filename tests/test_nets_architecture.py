"""The networks are the published ones, number by number, however they are computed."""

from __future__ import annotations

import importlib.util
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from mtdlr.nets import blocks, cells
from mtdlr.nets.blocks import Standardise, conv_of_doubled, pointwise
from mtdlr.nets.deepmts import DeepMTS, DeepmtsConfig
from mtdlr.nets.fusion import fused
from mtdlr.nets.regions import dilated, n_region_statistics, region_statistics
from mtdlr.nets.singletask import CsnOnly, DenseNet121, SingletaskConfig
from mtdlr.nets.weights import build


def _count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_deepmts_has_the_published_parameter_counts():
    """3,709,671 parameters: backbone 2,675,350, survival network 1,018,960, head 15,361; 14,600 running statistics."""
    model = DeepMTS(DeepmtsConfig())
    assert _count(model) == 3_709_671
    assert [_count(m) for m in (model.backbone, model.survival, model.head)] == [2_675_350, 1_018_960, 15_361]
    assert sum(b.numel() for name, b in model.named_buffers() if "running" in name) == 14_600
    assert _count(model.backbone.encoder) == 1_920_600
    assert _count(model.backbone.adapters) == 11_284


def test_one_clinical_variable_adds_one_parameter():
    """The clinical vector enters only the last layer."""
    assert _count(DeepMTS(DeepmtsConfig(clinical=1))) == 3_709_672


def test_densenet_has_monais_parameter_count():
    """DenseNet-121 in 3D with two channels and one output has 11,265,601 parameters."""
    assert _count(DenseNet121(SingletaskConfig("densenet121-3d"))) == 11_265_601


def test_feature_vectors_have_124_and_112_numbers():
    """The encoder gives 124 features, the survival network 112."""
    model = build(DeepmtsConfig()).eval()
    assert isinstance(model, DeepMTS)
    with torch.no_grad():
        _, maps = model.backbone(torch.zeros(1, 2, 32, 32, 32))
        assert model.backbone.features(maps).shape == (1, 124)
        assert model.survival.features(torch.zeros(1, 3, 32, 32, 32)).shape == (1, 112)


def test_encoder_maps_halve_and_double():
    """The encoder's maps have 8 to 128 channels on grids from the whole to a sixteenth."""
    model = build(DeepmtsConfig()).eval()
    assert isinstance(model, DeepMTS)
    with torch.no_grad():
        probability, maps = model.backbone(torch.zeros(1, 2, 32, 48, 64))
    assert [tuple(m.shape[1:]) for m in maps] == [
        (8, 32, 48, 64), (16, 16, 24, 32), (32, 8, 12, 16), (64, 4, 6, 8), (128, 2, 3, 4)]
    assert probability.shape == (1, 32, 48, 64)


@pytest.mark.slow
def test_survival_network_works_on_31_15_and_7():
    """An input of 128 gives the survival network grids of 31, 15 and 7."""
    model = build(DeepmtsConfig()).eval()
    assert isinstance(model, DeepMTS)
    with torch.inference_mode():
        grids = [tuple(m.shape[1:]) for m in model.survival(torch.zeros(1, 3, 128, 128, 128))]
    assert grids == [(16, 31, 31, 31), (32, 15, 15, 15), (64, 7, 7, 7)]


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(32, 32, 32), (33, 40, 47), (48, 32, 64)])
def test_any_size_from_32_up_is_accepted(shape: tuple[int, int, int]):
    """Sizes that are no multiple of 16 give a probability map of their own size."""
    model = build(DeepmtsConfig(width=0.25, pooling="regional")).eval()
    with torch.inference_mode():
        output = model(torch.rand(2, 2, *shape))
    assert output.probability is not None and output.probability.shape == (2, *shape)
    assert output.risk.shape == (2,) and 0.0 <= output.probability.min() and output.probability.max() <= 1.0


@pytest.mark.parametrize("config", [DeepmtsConfig(width=0.25, intervals=7, clinical=2),
                                    SingletaskConfig(width=0.25, intervals=7, clinical=2)])
def test_a_discrete_head_gives_one_logit_an_interval_and_a_risk_that_rises_with_each(config):
    """The risk of a discrete-time head is the log cumulative hazard, which grows with every interval's logit."""
    model = build(config).train()
    output = model(torch.rand(2, 2, 32, 32, 32), torch.rand(2, 2))
    assert output.hazard_logits is not None and output.hazard_logits.shape == (2, 7)
    rises = torch.autograd.grad(output.risk.sum(), output.hazard_logits)[0]
    assert (rises > 0).all()


def test_clinical_vector_moves_the_risk_linearly_and_nothing_else():
    """Doubling the step of a clinical variable doubles the step of the risk; the probability stays."""
    model = build(DeepmtsConfig(width=0.25, clinical=1)).eval()
    image = torch.rand(1, 2, 32, 32, 32)
    with torch.inference_mode():
        at = [model(image, torch.full((1, 1), v)) for v in (0.0, 1.0, 2.0)]
    steps = [(b.risk - a.risk).item() for a, b in pairwise(at)]
    assert steps[0] == pytest.approx(steps[1], rel=1e-3) and abs(steps[0]) > 1e-6
    torch.testing.assert_close(at[0].probability, at[2].probability)


@pytest.mark.parametrize("detach", [True, False])
def test_survival_gradient_reaches_the_decoder_only_when_the_probability_is_not_detached(detach: bool):
    """The published network sends survival gradients into the decoder through the probability; ours need not."""
    model = build(DeepmtsConfig(width=0.25, detach_probability=detach)).train()
    assert isinstance(model, DeepMTS)
    model(torch.rand(2, 2, 32, 32, 32)).risk.sum().backward()
    grads = [p.grad for p in model.backbone.decoder.parameters()]
    assert all(g is None for g in grads) == detach
    assert all(p.grad is not None for p in model.backbone.encoder.parameters())


def test_transposed_convolution_is_convolution_of_the_doubled_map():
    """The decoder's shortcut gives the same numbers and gradients as upsampling and convolving."""
    torch.manual_seed(0)
    low, weight = torch.randn(2, 3, 3, 4, 5, dtype=torch.double), torch.randn(4, 3, 3, 3, 3, dtype=torch.double)
    outputs, grads = [], []
    for way in (lambda x, w: conv_of_doubled(x, w),
                lambda x, w: F.conv3d(F.interpolate(x, scale_factor=2), w, padding=1)):
        x, w = low.clone().requires_grad_(), weight.clone().requires_grad_()
        y = way(x, w)
        outputs.append(y)
        grads.append(torch.autograd.grad(y.square().sum(), (x, w)))
    torch.testing.assert_close(outputs[0], outputs[1])
    torch.testing.assert_close(grads[0], grads[1])


def test_pointwise_product_is_a_1x1x1_convolution():
    """The matrix product over voxels equals conv3d with a kernel of one."""
    torch.manual_seed(0)
    x, w, b = torch.randn(2, 3, 2, 4, 5), torch.randn(4, 3, 1, 1, 1), torch.randn(4)
    torch.testing.assert_close(pointwise(x, w, b), F.conv3d(x, w, b))


def _bench():
    path = Path(__file__).parents[1] / "bench" / "bench_train_step.py"
    spec = importlib.util.spec_from_file_location("bench_train_step", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_fast_network_gives_the_plain_statements_numbers_and_gradients():
    """Risk, probability and every gradient equal those of the layers written plainly (in double precision, where
    batch norms of two voxels do not blow rounding up)."""
    bench = _bench()
    plain, ours = (model.double() for model in bench.pair())
    image, mask, time_months, event = (v.double() if v.is_floating_point() else v for v in bench.batch_of(32, 2))
    for model in (plain, ours):
        model.train()
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
    risk, probability = plain(image)
    output = ours(image)
    torch.testing.assert_close(output.risk, risk, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(output.probability, probability, atol=1e-6, rtol=1e-6)
    for r, p in ((risk, probability), (output.risk, output.probability)):
        (bench.dice_loss(p, mask) + bench.cox_loss(r, time_months, event)).backward()
    theirs = dict(plain.named_parameters())
    for name, parameter in ours.named_parameters():
        reference = theirs[name].grad
        assert (parameter.grad - reference).abs().max() <= 1e-6 * max(1.0, float(reference.abs().max())), name


@pytest.mark.slow
@pytest.mark.parametrize("config", [DeepmtsConfig(width=0.5, pooling="regional"), SingletaskConfig(width=0.5),
                                    SingletaskConfig("densenet121-3d", width=0.25)])
def test_folding_the_norms_changes_no_number(config):
    """A network whose norms are fused into its convolutions scores as before, one patient or several."""
    torch.manual_seed(0)
    model = build(config)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm3d | torch.nn.BatchNorm1d):
            module.momentum = 0.5
    for _ in range(4):
        model.train()(torch.randn(4, 2, 32, 32, 32))
    model.eval()
    ready = fused(model)
    image = torch.randn(2, 2, 32, 32, 32)
    with torch.inference_mode():
        one, both, before = ready(image[:1]), ready(image), model(image)
    torch.testing.assert_close(both.risk, before.risk, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(one.risk, before.risk[:1], atol=1e-4, rtol=1e-4)
    if before.probability is not None:
        torch.testing.assert_close(both.probability, before.probability, atol=1e-4, rtol=1e-4)
    assert all(m.training is False for m in ready.modules())
    assert any(isinstance(m, torch.nn.BatchNorm3d) for m in model.modules()), "the original keeps its norms"


@pytest.mark.slow
def test_csn_only_is_the_survival_network_with_one_head():
    """The single-task network differs from DeepMTS's survival part only in its third input channel."""
    model, full = CsnOnly(SingletaskConfig()), DeepMTS(DeepmtsConfig())
    assert _count(full.survival) - _count(model.survival) == 24 * 27
    assert _count(model.head) == 112 * 64 + 64 + 64 + 1


def test_region_statistics_are_those_of_the_regions():
    """Log volume, log mean, log SD and skewness of a channel inside a mask are what numpy says."""
    torch.manual_seed(0)
    image, mask = torch.rand(1, 2, 8, 8, 8), torch.zeros(1, 8, 8, 8)
    mask[:, 2:5, 3:6, 3:6] = 1.0
    found = region_statistics(image, mask, 1)
    assert found.shape == (1, n_region_statistics(2))
    inside = (image[0, 0] - image[0, 0].min())[mask[0].bool()]
    skewness = ((inside - inside.mean()) ** 3).mean() / (inside.std(correction=0) + 1e-3) ** 3
    assert found[0, 0].item() == pytest.approx(float(torch.log1p(mask.sum())), rel=1e-5)
    assert found[0, 1].item() == pytest.approx(float(torch.log(inside.mean() + 1e-3)), rel=1e-3)
    assert found[0, 3].item() == pytest.approx(float(torch.log(inside.std(correction=0) + 1e-3)), rel=1e-3)
    assert found[0, 5].item() == pytest.approx(float(skewness), rel=1e-2)


def test_another_scale_of_uptake_only_shifts_the_logarithms():
    """A centre that reads every SUV 20 % higher moves log mean and log SD by log 1.2 and leaves everything else."""
    torch.manual_seed(0)
    image, mask = torch.rand(1, 1, 8, 8, 8) * 50, torch.zeros(1, 8, 8, 8)
    mask[:, 2:6, 2:6, 2:6] = 1.0
    change = region_statistics(image * 1.2, mask, 1) - region_statistics(image, mask, 1)
    log = torch.log(torch.tensor(1.2)).item()
    assert change[0].tolist() == pytest.approx([0.0, log, log, 0.0, 0.0, 0.0, 0.0], abs=2e-3)


@pytest.mark.parametrize(("place", "column"), [((4, 4, 8), 4), ((10, 10, 10), 5), ((0, 10, 10), 6)])
def test_active_tissue_is_counted_where_it_lies(place: tuple[int, int, int], column: int):
    """A voxel as hot as the tumour adds to the active volume near it, above it or below it, and to no other."""
    image, mask = torch.zeros(1, 1, 12, 12, 12), torch.zeros(1, 12, 12, 12)
    mask[:, 4:7, 4:7, 4:7] = 1.0
    image[0, 0][mask[0].bool()] = 10.0
    before = region_statistics(image, mask, 2)
    image[(0, 0, *place)] = 10.0
    change = (region_statistics(image, mask, 2) - before)[0]
    assert change.argmax().item() == column and change[column].item() > 0.1
    assert change.abs().sum().item() == pytest.approx(change[column].item(), abs=1e-3)


def test_standardising_follows_the_running_figures():
    """After one step its batch has mean 0 and SD 1, however it was cut; a later one is measured by what was seen."""
    torch.manual_seed(0)
    whole, cut, first = Standardise(3), Standardise(3), torch.randn(64, 3) * 4 + 7
    whole(first)
    for piece in first.split((40, 24)):
        cut(piece)
    for norm in (whole, cut):
        norm.settle()
        out = norm.eval()(first)
        assert out.mean(0).abs().max() < 1e-5 and (out.std(0, correction=0) - 1).abs().max() < 1e-4
    assert (whole.train()(first + 4.0).mean(0) > 0.2).all(), "a batch is not its own measure"


def test_scoring_moves_no_running_figure():
    """A network that scores keeps its figures."""
    norm = Standardise(3).eval()
    kept = {name: value.clone() for name, value in norm.state_dict().items()}
    norm(torch.randn(8, 3) + 5.0)
    norm.settle()
    assert all(torch.equal(value, kept[name]) for name, value in norm.state_dict().items())


def test_dilation_reaches_a_cube():
    """One voxel dilated by 2 becomes a cube of 5."""
    x = torch.zeros(1, 1, 9, 9, 9)
    x[0, 0, 4, 4, 4] = 1.0
    assert dilated(x, 2).sum().item() == 125.0


def test_statistics_of_an_empty_probability_are_finite():
    """Where no tumour is found the statistics, and their gradients, stay finite."""
    image = torch.rand(1, 2, 8, 8, 8)
    probability = torch.zeros(1, 8, 8, 8, requires_grad=True)
    found = region_statistics(image, probability, 1)
    found.sum().backward()
    assert torch.isfinite(found).all() and torch.isfinite(probability.grad).all()


@pytest.mark.parametrize("on_cells", [False, True])
def test_a_process_that_scored_can_train(on_cells: bool) -> None:
    """What a process keeps from scoring a patient, without gradients, serves a training in the same process."""
    blocks._doubled_taps.cache_clear()
    cells._places.cache_clear()
    low, weight = torch.rand(1, 2, 4, 4, 4), torch.rand(3, 2, 3, 3, 3, requires_grad=True)

    def doubled() -> torch.Tensor:
        return cells.doubled_weight(weight) if on_cells else conv_of_doubled(low, weight)

    with torch.inference_mode():
        doubled()
    doubled().sum().backward()
    assert weight.grad is not None and bool(weight.grad.any())
