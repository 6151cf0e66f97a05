"""The weights of a risk, solved exactly once everything below them is trained: a linear head's, or the direct ones.

Steps on a few patients leave these weights far from the minimum of the loss (bench/RESULTS.md, 2026-11-26). With all
other weights fixed, the penalised partial likelihood is convex in them, and all patients can share one risk set.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from mtdlr.nets.blocks import RiskHead
from mtdlr.nets.cases import Case, batch_tensors, follow_up
from mtdlr.nets.deepmts import DeepMTS, output_of
from mtdlr.nets.embedding import NAMES, LinearHead, limited
from mtdlr.nets.losses import cox_loss, discrete_time_loss
from mtdlr.nets.singletask import NoMask
from mtdlr.nets.step import SurvivalLoss, ties_of
from mtdlr.nets.weights import Network
from mtdlr.survival import Survival


class Ridge(Protocol):
    """A penalised Cox model of features (n, p) in blocks: `blockwise_ridge`."""

    def __call__(self, x: NDArray[np.float64], surv: Survival, blocks: Sequence[NDArray[np.intp]], *, left_out: bool
                 ) -> tuple[NDArray[np.float64], dict[str, Any]]:
        """(p,) coefficients, and what to say of the fit; `left_out`: also how it does on patients left out."""


def solve_direct(
    model: Network, cases: Sequence[Case], loss: SurvivalLoss, cuts_months: Tensor, *, l2: float, batch_size: int
) -> None:
    """Refit the direct weights of the last layer by minimising the survival loss plus an L2 penalty.

    Nothing else of the model changes, and a head without direct weights stays as it is.

    Args:
        model: left in evaluation mode.
        cases: the patients, all in one risk set.
        loss: the survival loss.
        cuts_months: ends of the intervals of the discrete loss.
        l2: weight of the penalty.
        batch_size: patients that go through the network at a time.
    """
    model.eval()
    if not isinstance(model.head, RiskHead) or not model.head.n_direct:
        return
    last, n = model.head.last, model.head.n_direct
    inputs = _inputs_of(last, model, cases, batch_size)
    with torch.no_grad():
        rest = F.linear(inputs[:, :-n], last.weight[:, :-n].double().cpu(), last.bias.double().cpu())
    time_months, event = follow_up(cases)
    weights = last.weight[:, -n:].detach().double().cpu().requires_grad_()
    solver = torch.optim.LBFGS([weights], max_iter=500, tolerance_grad=1e-9, tolerance_change=1e-14,
                               line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        solver.zero_grad()
        risk, logits = output_of(rest + F.linear(inputs[:, -n:], weights), model.config.intervals, None)[:2]
        value = (cox_loss(risk, time_months, event, ties_of(loss)) if logits is None
                 else discrete_time_loss(logits, time_months, event, cuts_months))
        value = value + l2 * weights.square().sum()
        value.backward()
        return value

    solver.step(closure)
    with torch.no_grad():
        last.weight[:, -n:] = weights.to(last.weight)


def solve_linear(model: Network, cases: Sequence[Case], ridge: Ridge, *, batch_size: int
                 ) -> tuple[dict[str, Any], dict[int, LinearHead]]:
    """Give a linear head the weights of a ridge Cox model of the embedding; say what they are, and who was held out.

    All patients are in the risk set: no outcome made the embedding, so it is held out for those that the network never
    saw, and their outcomes make the risk of new patients better. For their own scores one more head is solved for each
    subfold, without its patients. Heads shrink unalike, so these are put on one scale: the spread of the risks in the
    patients that made a head is that of a head of the patients whom the network learned from.

    Args:
        model: left in evaluation mode; its head is a `LinearHead`.
        cases: the patients; the penalty is chosen within them.
        ridge: what fits the weights.
        batch_size: patients that go through the network at a time.

    Returns:
        What `ridge` says of either fit, with the weights by name, log-hazard per SD; and the head of each subfold.
    """
    model.eval()
    assert isinstance(model.head, LinearHead)
    vectors = embedded(model, cases, batch_size)
    facts = _solve(model.head, vectors, cases, ridge, left_out=True)
    part = np.array([-1 if case.held_out is None else case.held_out for case in cases])
    heads: dict[int, LinearHead] = {}
    for subfold in np.unique(part[part >= 0]).tolist():
        heads[subfold] = _solved(model.head.reading, vectors, cases, part != subfold, ridge)
    if heads:
        scale = _spreads(_solved(model.head.reading, vectors, cases, part < 0, ridge), vectors[part < 0])
        for subfold, head in heads.items():
            _rescale(head, vectors[part != subfold], scale)
    return facts, heads


def _solved(reading: int, vectors: Tensor, cases: Sequence[Case], seen: NDArray[np.bool_], ridge: Ridge) -> LinearHead:
    """A head of some of the patients."""
    head = LinearHead(len(NAMES), reading)
    _solve(head, vectors[seen], [cases[k] for k in np.flatnonzero(seen).tolist()], ridge, left_out=False)
    return head


def _spreads(head: LinearHead, vectors: Tensor) -> list[float]:
    """SD of the risks of patients by either fit."""
    z = head.standardised(vectors)
    return [float((z @ weights.detach().double()).std()) for weights in (head.weight, head.plain)]


def _rescale(head: LinearHead, vectors: Tensor, spreads: Sequence[float]) -> None:
    """Multiply the weights of either fit so that the risks of these patients have such SD."""
    with torch.no_grad():
        for weights, own, wanted in zip((head.weight, head.plain), _spreads(head, vectors), spreads, strict=True):
            weights.mul_(wanted / own if own > 0 and wanted > 0 else 1.0)


def _solve(head: LinearHead, vectors: Tensor, cases: Sequence[Case], ridge: Ridge, *, left_out: bool) -> dict[str, Any]:
    """Fill a head with both fits to these patients; the second, `plain`, does without the block `measures`.

    What limits take from a number's SD is given back, so that before the data speak each number may say as much.
    """
    spread = vectors.std(0, correction=0)
    varies = spread > 1e-6 * vectors.abs().amax(0).clamp_min(1.0)
    scale = torch.where(varies, spread, torch.ones_like(spread))
    z = limited((vectors - vectors.mean(0)) / scale, head.reading).numpy()
    size = np.where(varies.numpy(), z.std(axis=0), 1.0)
    z /= size
    surv = Survival(*(np.asarray(part, dtype=float) for part in follow_up(cases)))
    of_block = np.array([name.partition(":")[0] for name in NAMES])
    facts: dict[str, Any] = {}
    with torch.no_grad():
        head.center.copy_(vectors.mean(0))
        head.scale.copy_(scale)
        for label, target, columns in (("with_measures", head.weight, varies.numpy()),
                                       ("without_measures", head.plain, varies.numpy() & (of_block != "measures"))):
            names = list(dict.fromkeys(of_block[columns].tolist()))
            coef, said = ridge(z[:, columns], surv, [np.flatnonzero(of_block[columns] == name) for name in names],
                               left_out=left_out)
            facts[label] = said | {"variances": dict(zip(names, said["variances"], strict=True))}
            weights = np.zeros(len(NAMES))
            weights[columns] = coef / size[columns]
            target.copy_(torch.from_numpy(weights))
    return facts | {"weights": dict(zip(NAMES, head.weight.tolist(), strict=True))}


def embedded(model: Network, cases: Sequence[Case], batch_size: int) -> Tensor:
    """The embedding of each patient, (n, m) float64, on the processor.

    Args:
        model: a network whose risk is a linear head on an embedding.
        cases: the n patients.
        batch_size: patients computed at a time.
    """
    assert isinstance(model, DeepMTS | NoMask)
    device = next(model.parameters()).device
    with torch.no_grad():
        return torch.cat([model.embed(batch_tensors(cases[k:k + batch_size])[0].to(device))[0].double().cpu()
                          for k in range(0, len(cases), batch_size)])


def _inputs_of(layer: torch.nn.Module, model: Network, cases: Sequence[Case], size: int) -> Tensor:
    """(n, m) float64: what the layer sees of every patient."""
    seen: list[Tensor] = []
    device = next(model.parameters()).device
    watch = layer.register_forward_pre_hook(lambda _, given: seen.append(given[0].double().cpu()))
    try:
        with torch.no_grad():
            for k in range(0, len(cases), size):
                model(batch_tensors(cases[k:k + size])[0].to(device))
    finally:
        watch.remove()
    return torch.cat(seen)
