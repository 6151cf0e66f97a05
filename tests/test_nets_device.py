"""What a GPU computes is what the processor computes, shown on the processor; a GPU that is not there is an error."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mtdlr.errors import FitError
from mtdlr.nets import cells, device
from mtdlr.nets.blocks import Standardise
from mtdlr.nets.cases import Case, batch_tensors
from mtdlr.nets.deepmts import DeepMTS, DeepmtsConfig, on_cells
from mtdlr.nets.feed import Feed
from mtdlr.nets.losses import cox_loss, cox_loss_of_sets, risk_sets
from mtdlr.nets.weights import build


@pytest.mark.slow
def test_a_convolution_on_cells_is_the_convolution():
    """Same-padded, pointwise, of a doubled map, strided, and max-pooling: equal on cells to rounding."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 8, 6, 10, generator=generator, dtype=torch.float64)
    weight = torch.randn(5, 3, 3, 3, 3, generator=generator, dtype=torch.float64)
    packed, single = cells.to_cells(x), weight[:, :, 1:2, 1:2, 1:2]
    pairs = [
        (cells.from_cells(packed), x),
        (cells.from_cells(F.conv3d(packed, cells.cell_weight(weight), padding=1)), F.conv3d(x, weight, padding=1)),
        (cells.from_cells(F.conv3d(packed, cells.cell_weight(single))), F.conv3d(x, single)),
        (cells.from_cells(F.conv3d(x, cells.doubled_weight(weight), padding=1)),
         F.conv3d(F.interpolate(x, scale_factor=2), weight, padding=1)),
        (cells.from_cells(F.conv3d(x, cells.doubled_weight(single))),
         F.conv3d(F.interpolate(x, scale_factor=2), single)),
        (cells.strided_convolution(x, weight, None), F.conv3d(x, weight, stride=2)),
        (cells.halved(packed), F.max_pool3d(x, 2))]
    for ours, plain in pairs:
        torch.testing.assert_close(ours, plain)


@pytest.mark.slow
def test_deepmts_on_cells_is_deepmts():
    """Risk, probability and gradients of a training step are those of the plain network in double precision."""
    torch.manual_seed(0)
    model = build(DeepmtsConfig(width=0.25, pooling="regional", dropout=0.0, head_dropout=0.0)).double()
    assert isinstance(model, DeepMTS)
    torch.nn.init.normal_(model.head.last.weight)
    image, found = torch.randn(2, 2, 32, 32, 32, dtype=torch.float64), []
    for levels in (0, 1):
        one = copy.deepcopy(model)
        on_cells(one, levels)
        output = one(image)
        assert output.probability is not None
        (output.risk.sum() + output.probability.square().mean()).backward()
        found.append([output.risk, output.probability, one.backbone.encoder[0].rest[0].conv.weight.grad,
                      one.survival.stem.weight.grad])
    for plain, packed in zip(*found, strict=True):
        torch.testing.assert_close(packed, plain, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("ties", ["breslow", "efron"])
@pytest.mark.parametrize("seed", range(5))
def test_risk_sets_known_beforehand_give_the_cox_loss(ties: str, seed: int):
    """Value and gradient are those of the sorted form, with ties and without events."""
    rng = np.random.default_rng(seed)
    months = torch.from_numpy(rng.integers(1, 6, 12)).float()
    event = torch.from_numpy(rng.random(12) < (0.0 if seed == 0 else 0.6))
    risk = torch.from_numpy(rng.normal(size=12))
    one, two = (risk.clone().requires_grad_() for _ in range(2))
    sorted_form = cox_loss(one, months, event, ties)  # type: ignore[arg-type]
    sets_form = cox_loss_of_sets(two, *risk_sets(months, event, ties))  # type: ignore[arg-type]
    sorted_form.backward()
    sets_form.backward()
    torch.testing.assert_close(sets_form, sorted_form, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(two.grad, one.grad, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("room", [0, 1 << 30])
def test_patients_on_the_device_are_the_patients(room: int):
    """A resident cohort and a fetched one give the batches of the patients' own arrays, to half precision."""
    rng = np.random.default_rng(0)
    cases = [Case(f"P{k}", rng.normal(size=(2, 32, 32, 32)).astype(np.float32),
                  None if k == 1 else rng.random((32, 32, 32)) > 0.5, 1.0, True) for k in range(4)]
    feed = Feed(cases, torch.device("cpu"), room=room)
    assert feed.is_resident == (room > 0)
    order = [np.array([2, 1]), np.array([0, 3])]
    for rows, then in ((order[0], order[1]), (order[1], order[0]), (order[1], order[1])):
        image, mask, known = feed.batch(rows, then)
        expected = batch_tensors([cases[i] for i in rows])
        torch.testing.assert_close(image, expected[0], rtol=1e-3, atol=1e-4)
        assert torch.equal(mask, expected[1]) and torch.equal(known, expected[2])


def test_running_figures_wait_for_patients():
    """Without a patient since the last step nothing moves, at the first step neither."""
    standard = Standardise(3)
    standard.settle()
    assert torch.equal(standard.running_mean, torch.zeros(3)) and torch.equal(standard.running_var, torch.ones(3))
    assert float(standard.seen) == 0.0


def test_a_device_that_is_not_there_is_an_error():
    """E-DEVICE names what there is; auto takes the processor."""
    if not torch.cuda.is_available():
        with pytest.raises(FitError, match="E-DEVICE.*cuda.*cpu"):
            device.device_of("cuda")
        assert device.device_of("auto").place.type == "cpu"
    assert device.device_of("cpu").precision == torch.float32


@pytest.mark.parametrize(("error", "precision", "codes"), [
    (0.004, torch.bfloat16, []), (0.9, torch.float32, ["W-BF16"])])
def test_wrong_bfloat16_convolutions_are_not_trained_with(error, precision, codes, monkeypatch: pytest.MonkeyPatch):
    """A card that fails the self-test trains in single precision, and W-BF16 says so."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(device, "bf16_error", lambda place: error)
    found = device.device_of("auto")
    assert (found.place.type, found.precision, [p.code for p in found.problems]) == ("cuda", precision, codes)
