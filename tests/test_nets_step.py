"""The losses and gradients of one batch."""

from __future__ import annotations

import pytest
import torch

from mtdlr.nets.deepmts import DeepmtsConfig
from mtdlr.nets.singletask import SingletaskConfig
from mtdlr.nets.step import MicroBatch, RiskSet, SurvivalLoss, backward
from mtdlr.nets.weights import Config, build

CONFIGS: list[Config] = [DeepmtsConfig(width=0.25), DeepmtsConfig(width=0.25, pooling="regional"),
                         SingletaskConfig(network="csn-only", width=0.25)]


@pytest.mark.slow
@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: f"{type(config).__name__}-{config.pooling}")
@pytest.mark.parametrize("loss", ["cox-breslow", "cox-efron"])
def test_a_step_on_risks_reaches_every_weight_of_the_risk_head(config: Config, loss: SurvivalLoss) -> None:
    """A network that learns survival by steps gets finite losses and a gradient in its risk head, mask or no mask."""
    torch.manual_seed(0)
    model = build(config).train()
    image = torch.rand(4, 2, 32, 32, 32)
    known = torch.ones(4, dtype=torch.bool)
    micro_batch = MicroBatch(torch.arange(4), image, (image[:, 0] > 0.9).float(), known, 1.0, 7)
    risk_set = RiskSet(4, torch.tensor([3.0, 5.0, 8.0, 9.0]), torch.tensor([True, False, True, False]),
                       torch.zeros(0), loss, torch.zeros(0))
    values, risks = backward(model, [micro_batch], risk_set)
    assert torch.isfinite(values).all() and values[1] > 0
    assert risks.shape == (4,) and torch.isfinite(risks).all()
    for name, weight in model.head.named_parameters():
        assert weight.grad is not None and torch.isfinite(weight.grad).all(), name
