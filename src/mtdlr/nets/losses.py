"""Losses of segmentation and survival (METHOD 3d). Each is a scalar, zero where there is nothing to learn."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor


def dice_loss(probability: Tensor, mask: Tensor, known: Tensor | None = None) -> Tensor:
    """Minus the mean soft Dice of the patients that have a mask, in [-1, 0].

    Args:
        probability: (b, z, y, x) in [0, 1].
        mask: (b, z, y, x), 1 inside the tumour.
        known: (b,) bool, False for a patient without a mask; by default all have one.

    >>> dice_loss(torch.ones(1, 1, 1, 2), torch.ones(1, 1, 1, 2)).item()
    -1.0
    """
    mask = mask.to(probability.dtype)
    overlap = 2.0 * (probability * mask).sum((1, 2, 3))
    dice = overlap / (probability.sum((1, 2, 3)) + mask.sum((1, 2, 3))).clamp_min(1e-5)
    if known is None:
        return -dice.mean()
    return -(dice * known).sum() / known.sum().clamp_min(1)


def cox_loss(risk: Tensor, time_months: Tensor, event: Tensor,
             ties: Literal["breslow", "efron"] = "breslow") -> Tensor:
    """Minus the log partial likelihood per event; zero, without gradient, when no event is among them.

    Without ties it is the published loss: -(1/N_ev) sum over events i of [r_i - log sum_{t_j >= t_i} exp(r_j)].

    Args:
        risk: (n,), log-hazards; higher is worse.
        time_months: (n,), months.
        event: (n,), bool.
        ties: what tied event times share: Breslow's or Efron's approximation.

    >>> risk = torch.tensor([0.0, 0.0]); event = torch.tensor([True, True])
    >>> cox_loss(risk, torch.tensor([1.0, 2.0]), event).item() == 0.5 * torch.tensor(2.0).log().item()
    True
    """
    if not bool(event.any()):
        return risk.sum() * 0.0
    order = torch.argsort(time_months, descending=True, stable=True)
    risk, time, event = risk[order], time_months[order], event[order].bool()
    # The risk set of a time ends at the last of those tied with it, once times descend.
    last = torch.searchsorted(-time, -time, right=True) - 1
    log_sum = torch.logcumsumexp(risk, 0)[last][event]
    if ties == "efron":
        log_sum = log_sum + _efron_correction(risk, time, event, log_sum)
    return (log_sum - risk[event]).mean()


def risk_sets(time_months: Tensor, event: Tensor, ties: Literal["breslow", "efron"]) -> tuple[Tensor, Tensor]:
    """The risk set of each event as log-weights (k, n) of all patients, -inf outside; who had the events (k,).

    Known before any risk is, so a GPU needs no answer from the processor: see `cox_loss_of_sets`. Of d tied events
    Efron's l-th, l = 0 .. d-1, sees those tied with it at the weight 1 - l/d.

    Args:
        time_months: (n,), months.
        event: (n,), bool.
        ties: as in `cox_loss`.
    """
    who = event.bool().nonzero()[:, 0]
    at_risk = time_months[None] >= time_months[who, None]
    weights = at_risk.to(torch.float32)
    if ties == "efron":
        tied = (time_months[who, None] == time_months[None, who])
        rank = tied.tril(-1).sum(1)
        among = event.bool()[None] & (time_months[None] == time_months[who, None])
        weights = weights - among * (rank / tied.sum(1))[:, None]
    return weights.log(), who


def cox_loss_of_sets(risk: Tensor, log_weights: Tensor, who: Tensor) -> Tensor:
    """`cox_loss` with the risk sets of `risk_sets`: the same value, without a sort.

    Args:
        risk: (n,) log-hazards.
        log_weights: (k, n) log-weights of the patients in each event's risk set.
        who: (k,) positions of the patients with the event.

    Returns:
        Mean negative log partial likelihood per event; 0 without an event.

    >>> sets = risk_sets(torch.tensor([1.0, 2.0]), torch.tensor([True, True]), "breslow")
    >>> cox_loss_of_sets(torch.zeros(2), *sets).item() == 0.5 * torch.tensor(2.0).log().item()
    True
    """
    if not len(who):
        return risk.sum() * 0.0
    return (torch.logsumexp(risk[None] + log_weights, 1) - risk.index_select(0, who)).mean()


def _efron_correction(risk: Tensor, time: Tensor, event: Tensor, log_sum: Tensor) -> Tensor:
    """log(1 - l/d * share of the tied events in the risk set), l = 0 .. d-1 within d tied events."""
    _, group, d = torch.unique_consecutive(time[event], return_inverse=True, return_counts=True)
    starts = d.cumsum(0) - d
    rank = torch.arange(len(group), device=risk.device) - starts[group]
    share = torch.exp(risk[event] - log_sum)
    tied = torch.zeros(len(d), dtype=risk.dtype, device=risk.device).index_add(0, group, share)
    return torch.log1p(-(rank / d[group]) * tied[group].clamp_max(1.0))


def discrete_time_loss(logits: Tensor, time_months: Tensor, event: Tensor, cuts_months: Tensor) -> Tensor:
    """Minus the mean log-likelihood of a discrete-time hazard model, which needs no risk sets.

    An event counts in its interval; a censored patient survived an interval when followed past its middle.

    Args:
        logits: (b, k), log-odds of the hazard in each interval.
        time_months: (b,), months.
        event: (b,), bool.
        cuts_months: (k,), right ends of the intervals, increasing.

    Reference: Gensheimer & Narasimhan, A scalable discrete-time survival model for neural networks, PeerJ 2019.
    """
    k = len(cuts_months)
    left = torch.cat([cuts_months.new_zeros(1), cuts_months[:-1]])
    event = event.bool()
    interval = torch.searchsorted(cuts_months, time_months).clamp_max(k - 1)
    columns = torch.arange(k, device=logits.device)[None]
    until_event = columns < interval[:, None]
    past_middle = time_months[:, None] >= 0.5 * (left + cuts_months)[None]
    survived = torch.where(event[:, None], until_event, past_middle)
    failed = event[:, None] & (columns == interval[:, None]) & (time_months <= cuts_months[-1])[:, None]
    survived = survived | (event & (time_months > cuts_months[-1]))[:, None]
    loss = F.softplus(logits) * survived + F.softplus(-logits) * failed
    return loss.sum(1).mean()
