"""One batch's losses and gradients, in micro-batches that share one risk set; processes may take them in turn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from mtdlr.nets.blocks import Standardise
from mtdlr.nets.deepmts import DeepMTS
from mtdlr.nets.losses import cox_loss, cox_loss_of_sets, dice_loss, discrete_time_loss, risk_sets
from mtdlr.nets.weights import Network

MASK_RATE = 10.0  # learning-rate multiplier of the layer that makes the mask
SurvivalLoss = Literal["cox-breslow", "cox-efron", "discrete"]


@dataclass(frozen=True, eq=False)
class MicroBatch:
    """Some places of a batch, computed at once.

    Args:
        places: (b,) positions in the batch.
        image: (b, 2, z, y, x); mask: (b, z, y, x); known: (b,) whether there is a mask.
        mask_share: part of the batch's masks that is here.
        seed: of the dropout.
    """

    places: Tensor
    image: Tensor
    mask: Tensor
    known: Tensor
    mask_share: float
    seed: int


@dataclass(frozen=True, eq=False)
class RiskSet:
    """Follow-up of a batch of n patients and of the m of the memory bank behind them.

    Args:
        n: patients of the batch.
        time_months, event: (n + m,).
        bank_risks: (m,) earlier risks of the memory bank, without gradient.
        loss: which survival loss.
        cuts_months: ends of the intervals of the discrete loss.
        sets: what `losses.risk_sets` gives, on a device that should not wait for the processor.
    """

    n: int
    time_months: Tensor
    event: Tensor
    bank_risks: Tensor
    loss: SurvivalLoss
    cuts_months: Tensor
    sets: tuple[Tensor, Tensor] | None = None

    def on(self, device: torch.device) -> RiskSet:
        """The same risk set on a device."""
        if device.type == "cpu":
            return self
        log_weights, who = risk_sets(self.time_months, self.event, ties_of(self.loss))
        moved = {name: getattr(self, name).to(device, non_blocking=True)
                 for name in ("time_months", "event", "bank_risks", "cuts_months")}
        return replace(self, **moved, sets=(log_weights.to(device, non_blocking=True),
                                            who.to(device, non_blocking=True)))


def backward(model: Network, micro_batches: Sequence[MicroBatch], risk_set: RiskSet | None, *,
             survival_weight: float = 1.0, several: bool = False,
             precision: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Add the gradients of Dice and survival loss to the model's.

    Args:
        model: in training mode, gradients cleared.
        micro_batches: this process's share of the batch.
        risk_set: None while segmentation is learned alone.
        survival_weight: weight of the survival loss beside Dice.
        several: whether the batch has more than one micro-batch; then all risks are computed once beforehand, without
            gradient, so that each micro-batch's loss is that of the whole batch.
        precision: what the network computes in; bfloat16 by autocast.

    Returns:
        The batch's (Dice, survival) losses (2,) and risks (n,), on the model's device; reading them waits for it.
    """
    device = next(model.parameters()).device
    n = risk_set.n if risk_set is not None else 0
    risks = (_risks_beforehand(model, micro_batches, n, precision) if risk_set is not None and several
             else torch.zeros(n, device=device))
    values = torch.zeros(2, device=device)
    for micro_batch in micro_batches:
        torch.manual_seed(micro_batch.seed)
        dice, survival, risk = _losses(model, micro_batch, risk_set, risks, precision)
        share = len(micro_batch.places) / n if n else 0.0
        weight = survival_weight * (share if risk_set is None or risk_set.loss == "discrete"
                                    else len(risk_set.time_months) / n)
        # A Cox loss is a mean over all events of its risk set, but only the batch's risks carry gradient; without the
        # factor above a larger memory bank would weaken it.
        (dice * micro_batch.mask_share + survival * weight).backward()
        values += torch.stack([dice.detach() * micro_batch.mask_share, survival.detach() * share])
        if risk is not None:
            risks[micro_batch.places] = risk
    sum_over_processes([p.grad for p in model.parameters() if p.grad is not None] + [values])
    for standard in (m for m in model.modules() if isinstance(m, Standardise)):
        sum_over_processes([standard.pending])
        standard.settle()
    return values, risks


def _losses(model: Network, micro_batch: MicroBatch, risk_set: RiskSet | None, risks: Tensor,
            precision: torch.dtype) -> tuple[Tensor, Tensor, Tensor | None]:
    """(Dice loss, survival loss, risks without gradient) of a micro-batch."""
    risk, dice, survival = None, risks.new_zeros(()), risks.new_zeros(())
    with autocast(risks.device, precision):
        if risk_set is None:
            assert isinstance(model, DeepMTS)
            probability: Tensor | None = model.segment(micro_batch.image)
        else:
            risk, logits, probability = model(micro_batch.image)[:3]
    if probability is not None and micro_batch.mask_share:
        dice = dice_loss(probability.float(), micro_batch.mask, micro_batch.known)
    if risk is None or risk_set is None:
        return dice, survival, None
    risk = risk.float()
    if logits is not None:
        survival = discrete_time_loss(logits.float(), risk_set.time_months[micro_batch.places],
                                      risk_set.event[micro_batch.places], risk_set.cuts_months)
        return dice, survival, risk.detach()
    everyone = torch.cat([risks.index_put((micro_batch.places,), risk), risk_set.bank_risks])
    survival = (cox_loss_of_sets(everyone, *risk_set.sets) if risk_set.sets is not None
                else cox_loss(everyone, risk_set.time_months, risk_set.event, ties_of(risk_set.loss)))
    return dice, survival, risk.detach()


def _risks_beforehand(model: nn.Module, micro_batches: Sequence[MicroBatch], n: int, precision: torch.dtype) -> Tensor:
    """Risks (n,) of the whole batch, of every process, without gradient; the running statistics stay as they are."""
    device = next(model.parameters()).device
    risks, norms = torch.zeros(n, device=device), [m for m in model.modules()
                                                   if isinstance(m, nn.BatchNorm1d | nn.BatchNorm3d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    with torch.no_grad(), autocast(device, precision):
        for micro_batch in micro_batches:
            torch.manual_seed(micro_batch.seed)
            risks[micro_batch.places] = model(micro_batch.image).risk.float()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    sum_over_processes([risks])
    return risks


def autocast(device: torch.device, precision: torch.dtype) -> torch.autocast:
    """A context in which convolutions and matrix products are computed in `precision`.

    Args:
        device: where they run.
        precision: torch.float32 changes nothing; torch.bfloat16 halves their width.
    """
    return torch.autocast(device.type, precision, enabled=precision != torch.float32)


def adamw(model: Network, rate: float, *, head_rate: float, weight_decay: float) -> torch.optim.AdamW:
    """AdamW for a network, with learning-rate multipliers, the `factor` of a group, for the last layers.

    A step moves a weight by the rate, whatever its gradient. Where masks alone are learned, the two weights a channel
    that make the tumour probability would hold all others up: of a short training they took a third to leave one half.

    Args:
        model: the network.
        rate: learning rate, > 0.
        head_rate: multiplier of the risk head.
        weight_decay: of AdamW, >= 0.
    """
    factors = {id(parameter): head_rate for parameter in model.head.parameters()}
    if isinstance(model, DeepMTS) and model.config.pooling == "spatial":
        factors |= {id(parameter): MASK_RATE for parameter in model.backbone.segment.parameters()}
    groups: dict[float, list[nn.Parameter]] = {1.0: []}
    for parameter in model.parameters():
        groups.setdefault(factors.get(id(parameter), 1.0), []).append(parameter)
    return torch.optim.AdamW([{"params": some, "factor": factor} for factor, some in groups.items()], lr=rate, eps=1e-7,
                             weight_decay=weight_decay, fused=True)


def mix(*parts: int) -> int:
    """A 63-bit seed of several numbers."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> np.uint64(1))


def ties_of(loss: SurvivalLoss) -> Literal["breslow", "efron"]:
    """How a Cox loss treats ties."""
    return "efron" if loss == "cox-efron" else "breslow"


def rank_and_world() -> tuple[int, int]:
    """This process among those that train one network together, and how many they are."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def sum_over_processes(tensors: Sequence[Tensor]) -> None:
    """Add each tensor up over the processes, in place."""
    if rank_and_world()[1] > 1:
        for tensor in tensors:
            dist.all_reduce(tensor)


def average_statistics(model: nn.Module) -> None:
    """Give every process the mean of their running statistics."""
    world = rank_and_world()[1]
    if world > 1:
        buffers = [b for b in model.buffers() if b.is_floating_point()]
        sum_over_processes(buffers)
        for buffer in buffers:
            buffer /= world
