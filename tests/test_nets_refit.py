"""The head's direct weights are the least of the penalised loss, and nothing else of the network moves."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from mtdlr.nets.blocks import RiskHead
from mtdlr.nets.cases import Case, batch_tensors
from mtdlr.nets.deepmts import DeepMTS, DeepmtsConfig
from mtdlr.nets.refit import solve_direct
from mtdlr.nets.step import SurvivalLoss
from mtdlr.nets.weights import weights_of

LAST = "head.last.weight"


def _cases(n: int = 12) -> list[Case]:
    """Bright balls of random size; tied months."""
    rng = np.random.default_rng(0)
    away = np.sqrt(((np.stack(np.mgrid[:32, :32, :32]) - 15.5) ** 2).sum(0))
    return [Case(f"P{k}", np.stack([0.5 * (away < r) + rng.normal(0, 0.01, away.shape), np.zeros_like(away)])
                 .astype(np.float32), away < r, float(np.ceil(rng.exponential(20.0))), bool(rng.random() < 0.6))
            for k, r in enumerate(rng.uniform(3, 10, n))]


def _model(pooling: str = "regional", intervals: int = 0) -> DeepMTS:
    torch.manual_seed(0)
    model = DeepMTS(DeepmtsConfig(width=0.25, pooling=pooling, intervals=intervals, near_voxels=1))  # type: ignore[arg-type]
    torch.nn.init.normal_(model.head.last.weight, std=0.1)
    return model.eval()


def _minimum(model: DeepMTS, cases: list[Case], l2: float) -> np.ndarray:
    """The Breslow partial likelihood with a ridge penalty, written out for numpy and given to scipy."""
    image = batch_tensors(cases)[0]
    seen: list[torch.Tensor] = []
    with torch.no_grad():
        watch = model.head.last.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
        model(image)
        watch.remove()
    x, n = seen[0].double().numpy(), model.head.n_direct
    rest = x[:, :-n] @ model.head.last.weight[0, :-n].detach().double().numpy()
    time, event = (np.array([getattr(c, name) for c in cases]) for name in ("time_months", "event"))

    def loss(w: np.ndarray) -> float:
        risk = rest + x[:, -n:] @ w
        terms = [risk[i] - np.log(np.exp(risk[time >= time[i]]).sum()) for i in np.flatnonzero(event)]
        return -float(np.mean(terms)) + l2 * float(w @ w)

    return minimize(loss, np.zeros(n), method="BFGS", options={"gtol": 1e-8}).x


@pytest.mark.slow
def test_the_direct_weights_are_scipys_minimum() -> None:
    """Solved weights equal those that scipy finds for the written-out likelihood, to 1e-4."""
    model, cases = _model(), _cases()
    expected = _minimum(model, cases, 0.1)
    solve_direct(model, cases, "cox-breslow", torch.zeros(0), l2=0.1, batch_size=5)
    assert np.abs(expected).max() > 0.02
    np.testing.assert_allclose(model.head.last.weight[0, -model.head.n_direct:].detach(), expected, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("loss", get_args(SurvivalLoss))
def test_nothing_else_moves_and_solving_again_changes_nothing(loss: SurvivalLoss) -> None:
    """Only the direct columns of the last layer change, whatever the loss, and a second time none does."""
    model, cases = _model(intervals=3 if loss == "discrete" else 0), _cases()
    before, cuts = weights_of(model), torch.tensor([5.0, 15.0, 60.0])
    before = {name: value.clone() for name, value in before.items()}
    solve_direct(model, cases, loss, cuts, l2=0.1, batch_size=12)
    once = {name: value.clone() for name, value in weights_of(model).items()}
    n = model.head.n_direct
    assert [name for name in before if not torch.equal(before[name], once[name])] == [LAST]
    assert torch.equal(before[LAST][:, :-n], once[LAST][:, :-n])
    solve_direct(model, cases, loss, cuts, l2=0.1, batch_size=12)
    torch.testing.assert_close(once[LAST], weights_of(model)[LAST], atol=1e-5, rtol=0)


def test_a_head_without_direct_numbers_is_left_alone() -> None:
    """The published head keeps every weight."""
    model = _model("average")
    assert isinstance(model.head, RiskHead)
    before = {name: value.clone() for name, value in weights_of(model).items()}
    solve_direct(model, _cases(4), "cox-breslow", torch.zeros(0), l2=0.1, batch_size=2)
    assert all(torch.equal(before[name], value) for name, value in weights_of(model).items())
