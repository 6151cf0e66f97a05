"""Batch norm, ReLU and sum as one operation, against torch's own three in double precision."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mtdlr.nets import norm
from mtdlr.nets.blocks import channels_last
from mtdlr.nets.norm import NormRelu

SHAPES = ((4, 4, 32, 32, 32), (3, 8, 24, 20, 30), (2, 24, 23, 23, 23), (7, 3, 25, 25, 25), (4, 88, 9, 10, 11))


def pair(channels: int) -> tuple[NormRelu, nn.BatchNorm3d]:
    """Ours, and torch's in double precision, with the same random weights."""
    torch.manual_seed(channels)
    ours, plain = NormRelu(channels, eps=1e-3, momentum=0.1), nn.BatchNorm3d(channels, eps=1e-3, momentum=0.1)
    for name in ("weight", "bias"):
        nn.init.normal_(getattr(ours, name))
    plain.load_state_dict(ours.state_dict())
    return ours, plain.double()


def far(a: Tensor | None, b: Tensor | None) -> float:
    """The largest difference over the largest value."""
    assert a is not None and b is not None
    return float(((a.double() - b).abs().max() / b.abs().max()).detach())


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("with_sum", [False, True])
def test_equals_torch(shape: tuple[int, ...], with_sum: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Values, gradients and running statistics are torch's to 1e-5, far from zero too, with and without a sum."""
    monkeypatch.setattr(norm, "WORTH", 0)
    ours, plain = pair(shape[1])
    x, added, upper = channels_last(torch.randn(shape) * 2 + 30), torch.randn(shape), torch.randn(shape)
    leaves = [x.clone().requires_grad_(), added.clone().requires_grad_()]
    doubles = [x.double().requires_grad_(), added.double().requires_grad_()]
    y = ours(leaves[0], leaves[1] if with_sum else None)
    normalised = plain(doubles[0])
    expected = F.relu(normalised) + (doubles[1] if with_sum else 0.0)
    upper[normalised.abs() < 1e-4] = 0.0  # at the kink, rounding decides whether a gradient passes
    y.backward(upper)
    expected.backward(upper.double())
    assert far(y, expected) < 1e-5
    assert far(leaves[0].grad, doubles[0].grad) < 1e-5
    assert not with_sum or torch.equal(leaves[1].grad, upper)  # type: ignore[arg-type]
    for name in ("weight", "bias"):
        assert far(getattr(ours, name).grad, getattr(plain, name).grad) < 1e-5
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        assert far(getattr(ours, name), getattr(plain, name)) < 1e-5


def test_threads_change_no_bit() -> None:
    """One thread and two give the same bytes."""
    found = []
    before = torch.get_num_threads()
    for threads in (1, 2):
        torch.set_num_threads(threads)
        ours, _ = pair(8)
        x = channels_last(torch.randn(4, 8, 32, 32, 32, generator=torch.Generator().manual_seed(0))).requires_grad_()
        y = ours(x)
        y.square().sum().backward()
        found.append((y.detach(), x.grad, ours.weight.grad))
    torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_what_is_not_a_number_stays_so() -> None:
    """A diverged network is not hidden by the ReLU."""
    ours, _ = pair(4)
    x = channels_last(torch.randn(4, 4, 32, 32, 32))
    x[0, 1, 3, 3, 3] = torch.nan
    y = ours(x)
    assert torch.isnan(y[:, 1]).all() and not torch.isnan(y[:, 0]).any()
