"""The one training loop: patients in, a checkpoint out. Read `train` first, then what it calls, top to bottom.

Every random choice follows from (seed, epoch, step), so a training that was killed and is called again goes on from
its last saved step and ends in the same bytes as one that never stopped.
"""

from __future__ import annotations

import csv
import io
import math
import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from mtdlr.errors import BundleError, FitError, Problem, StoreError
from mtdlr.nets.augment import augment, augment_paper
from mtdlr.nets.blocks import channels_last
from mtdlr.nets.board import board
from mtdlr.nets.cases import (
    Case,
    Rows,
    batch_tensors,
    check_cases,
    digest_of,
    epoch_batches,
    folds,
    follow_up,
    inner_split,
)
from mtdlr.nets.deepmts import DeepmtsConfig
from mtdlr.nets.losses import cox_loss
from mtdlr.nets.refit import solve_direct
from mtdlr.nets.resume import load_state, save_state
from mtdlr.nets.session import torch_session
from mtdlr.nets.singletask import SingletaskConfig
from mtdlr.nets.step import Piece, RiskSet, average_statistics, backward, rank_and_world
from mtdlr.nets.weights import MODEL, Checkpoint, Config, Network, build, replace_file, save_network, weights_of
from mtdlr.stats.concordance import concordance
from mtdlr.study import DeepmtsSettings, SingletaskSettings
from mtdlr.survival import Survival

__all__ = ["Case", "Checkpoint", "Progress", "folds", "train"]

STATE, LOG, BOARD = "resume.safetensors", "log.csv", "tensorboard"
SAVE_EVERY_S = 60.0
SMOOTHING = 0.3
PAPER_RATES = ((50, 1.0), (100, 0.5), (200, 0.1), (math.inf, 0.01))
Settings = DeepmtsSettings | SingletaskSettings
NetworkName = Literal["deepmts", "csn-only", "densenet121-3d"]


@dataclass(frozen=True)
class Progress:
    """Where a training is: epoch and step done, how many there are, and the last finished epoch's row of the log."""

    epoch: int
    epochs: int
    step: int
    steps: int
    row: dict[str, float] | None


@dataclass(frozen=True, eq=False)
class _Plan:
    """What stays the same while a network trains: patients, the inner split, settings, and where it is written."""

    cases: list[Case]
    fit: Rows
    held: Rows
    settings: Settings
    config: Config
    cuts_months: Tensor
    recipe: dict[str, Any]
    folder: Path
    seed: int


@dataclass
class _Run:
    """What changes while a network trains; all of it goes into the resume file."""

    model: Network
    optimiser: torch.optim.Optimizer
    best: dict[str, Tensor] = field(default_factory=dict)
    epoch: int = 0
    step: int = 0
    stale: int = 0
    best_epoch: int = -1
    best_score: float | None = None
    smoothed: float | None = None
    tally: list[float] = field(default_factory=lambda: [0.0, 0.0])
    memory: list[tuple[int, float]] = field(default_factory=list)
    log: list[dict[str, float]] = field(default_factory=list)


KEPT = ("epoch", "step", "stale", "best_epoch", "best_score", "smoothed", "tally", "memory", "log")


def train(cases: Sequence[Case], network: NetworkName, settings: Settings, folder: Path, *, seed: int,
          threads: int = 1, report: Callable[[Progress], None] | None = None) -> Checkpoint:
    """A network trained on the cases, also written to `folder` as weights.safetensors, log.csv and model.json.

    Which epoch's weights are kept is decided on an inner split of the same cases; no other patient is ever looked at.
    A call that finds an unfinished training of the same recipe in `folder` goes on with it; one that finds a finished
    one loads it. What `report` raises passes through, with the state saved. Where torch.distributed is initialised,
    every process calls this with the same arguments; they share each batch and the first one writes.

    Args:
        cases: the patients; their order does not matter.
        network: which network.
        settings: its section of the study.
        folder: where the files go; made if missing.
        seed: of the weights, the inner split, sampling, augmentation and dropout.
        threads: threads torch may use.
        report: called after every step and every epoch.

    Raises:
        FitError: E-NOEVENT without two events and two censored patients, E-NOMASK when DeepMTS gets no mask,
            E-DIVERGED when the loss stops being a number.
        ScanError: E-IMAGE for images that differ in shape, are too small or not finite.
        StoreError: E-RESUME when the folder holds an unfinished training of another recipe.
    """
    plan = _plan(cases, network, settings, Path(folder), seed)
    if (done := _finished(plan)) is not None:
        return done
    events = [plan.cases[i].event for i in plan.fit]
    with torch_session(threads), board(plan.folder / BOARD) as record:
        run = _start_or_resume(plan)
        saved_at = time.monotonic()
        while run.epoch < settings.epochs and run.stale < settings.patience:
            began = time.monotonic()
            batches = epoch_batches(events, size=settings.batch_size, steps=settings.steps_per_epoch,
                                    sampling=settings.sampling, seed=seed, epoch=run.epoch)
            while run.step < len(batches):
                rate = learning_rate(settings, epoch=run.epoch, step=run.step, steps=len(batches))
                _learn(run, plan, plan.fit[batches[run.step]], rate)
                run.step += 1
                _tell(report, run, plan, len(batches))
                if time.monotonic() - saved_at > SAVE_EVERY_S:
                    saved_at = _save(run, plan)
            row = {"epoch": float(run.epoch), "joint": float(_is_joint(run.epoch, settings)),
                   "learning_rate": learning_rate(settings, epoch=run.epoch, step=run.step - 1, steps=len(batches)),
                   "dice_loss": run.tally[0] / len(batches), "survival_loss": run.tally[1] / len(batches)}
            row |= _validate(run, plan)
            _judge(run, row, joint=_is_joint(run.epoch, settings))
            run.log.append(row | {"seconds": round(time.monotonic() - began, 3), "memory_mb": _memory_mb()})
            record(run.log[-1])  # before the state is saved: what a kill between them repeats, `board` hides
            run.epoch, run.step, run.tally = run.epoch + 1, 0, [0.0, 0.0]
            saved_at = _save(run, plan)
            _tell(report, run, plan, len(batches))
        return _finish(run, plan)


def learning_rate(settings: Settings, *, epoch: int, step: int, steps: int) -> float:
    """The rate of a step: a tenth of all steps up, then down a cosine to 1 %; or the paper's steps."""
    if settings.schedule == "paper":
        return settings.learning_rate * next(factor for until, factor in PAPER_RATES if epoch < until)
    done = (epoch * steps + step + 1) / (settings.epochs * steps)
    if done < 0.1:
        return settings.learning_rate * done / 0.1
    return settings.learning_rate * (0.01 + 0.99 * 0.5 * (1.0 + math.cos(math.pi * (done - 0.1) / 0.9)))


def _learn(run: _Run, plan: _Plan, rows: Rows, rate: float) -> None:
    """One step of AdamW on one batch."""
    settings, joint = plan.settings, _is_joint(run.epoch, plan.settings)
    rank, world = rank_and_world()
    cut = np.array_split(np.arange(len(rows)), max(1, min(settings.accumulate, len(rows) // 2)))
    pieces = [_piece(plan, rows, places, _mix(plan.seed, run.epoch, run.step, k)) for k, places in enumerate(cut)
              if k % world == rank]
    memory = [(i, risk) for i, risk in run.memory if i not in set(rows.tolist())]
    run.model.train()
    run.optimiser.zero_grad(set_to_none=True)
    values, risks = backward(run.model, pieces, _risk_set(plan, rows, memory) if joint else None,
                             survival_weight=getattr(settings, "survival_weight", 1.0), several=len(cut) > 1)
    if not bool(torch.isfinite(values).all()):
        raise FitError(Problem("E-DIVERGED", "the training loss is no longer a number", where=f"epoch {run.epoch}",
                               remedy="Lower learning_rate"))
    if joint and settings.head_l2:
        (settings.head_l2 * run.model.l2()).backward()
    for group in run.optimiser.param_groups:
        group["lr"] = rate * group["factor"]
    run.optimiser.step()
    run.tally = [sum(pair) for pair in zip(run.tally, values.tolist(), strict=True)]
    if joint and settings.risk_memory:
        run.memory = (memory + list(zip(rows.tolist(), risks.tolist(), strict=True)))[-settings.risk_memory:]


def _piece(plan: _Plan, rows: Rows, places: NDArray[np.int64], seed: int) -> Piece:
    """The patients at some places of a batch, moved at random."""
    image, mask, known = batch_tensors([plan.cases[i] for i in rows[places]])
    move = {"modern": augment, "paper": augment_paper, "none": None}[plan.settings.augmentation]
    if move is not None:
        image, mask = move(image, mask, torch.Generator().manual_seed(seed))
    share = int(known.sum()) / max(1, sum(plan.cases[i].mask is not None for i in rows))
    return Piece(torch.from_numpy(places), channels_last(image.to(_device())), mask.to(_device()), known.to(_device()),
                 share, seed)


def _risk_set(plan: _Plan, rows: Rows, memory: Sequence[tuple[int, float]]) -> RiskSet:
    """The batch's patients and the remembered ones."""
    time_months, event = follow_up([plan.cases[i] for i in [*rows.tolist(), *(i for i, _ in memory)]])
    return RiskSet(len(rows), time_months, event, torch.tensor([risk for _, risk in memory]),
                   plan.settings.survival_loss, plan.cuts_months)


def _validate(run: _Run, plan: _Plan) -> dict[str, float]:
    """Figures of the inner validation set, all of it."""
    held, size = [plan.cases[i] for i in plan.held], plan.settings.batch_size
    average_statistics(run.model)
    run.model.eval()
    risks, dices = [], []
    with torch.inference_mode():
        for k in range(0, len(held), size):
            image, mask, known = batch_tensors(held[k:k + size])
            output = run.model(image.to(_device()))
            risks.append(output.risk.float().cpu())
            if output.probability is not None:
                hard = (output.probability.cpu() > 0.5).float()
                dices += (2 * (hard * mask).sum((1, 2, 3)) / (hard + mask).sum((1, 2, 3)))[known].tolist()
    risk = torch.cat(risks)
    time_months, event = follow_up(held)
    c_index, error = _concordance(risk, Survival(time_months.numpy(), event.numpy()))
    figures = {"val_c_index": c_index, "val_c_se": error,
               "val_survival_loss": cox_loss(risk, time_months, event).item()}
    return figures | ({"val_dice": float(np.mean(dices))} if dices else {})


def _judge(run: _Run, row: dict[str, float], *, joint: bool) -> None:
    """Keep the weights unless the smoothed C-index plus Dice of the inner validation set fell by a standard error.

    The best epoch of a few patients is mostly luck, and of equals the latest has trained most. The error is the largest
    of any epoch: where a few patients stand in perfect order it is 0.
    """
    if not joint:
        return
    score = row["val_c_index"] + row.get("val_dice", 0.0)
    run.smoothed = score if run.smoothed is None else SMOOTHING * score + (1.0 - SMOOTHING) * run.smoothed
    run.stale += 1
    if run.best_score is None or run.smoothed >= run.best_score:
        run.best_score, run.stale = run.smoothed, 0
    if run.smoothed >= run.best_score - max(past["val_c_se"] for past in (*run.log, row)):
        run.best_epoch = run.epoch
        run.best = {name: value.clone() for name, value in weights_of(run.model).items()}


def _plan(cases: Sequence[Case], network: NetworkName, settings: Settings, folder: Path, seed: int) -> _Plan:
    """The checked patients in the order of their ids, their inner split, and the network they will train."""
    cases = sorted(cases, key=lambda case: case.id)
    check_cases(cases, needs_masks=network == "deepmts")
    fit, held = inner_split(cases, settings.validation_fraction, seed)
    discrete = settings.survival_loss == "discrete"
    shared: dict[str, Any] = {
        "width": settings.width, "intervals": settings.intervals if discrete else 0, "dropout": settings.dropout,
        "head_dropout": settings.head_dropout, "norm_momentum": settings.norm_momentum, "pooling": settings.pooling}
    config: Config
    if network == "deepmts":
        assert isinstance(settings, DeepmtsSettings)
        config = DeepmtsConfig(**shared, detach_probability=settings.detach_probability,
                               near_voxels=settings.near_voxels)
    else:
        config = SingletaskConfig(network=network, **shared)
    times = [cases[i].time_months for i in fit if cases[i].event]
    cuts = np.quantile(times, np.linspace(0, 1, settings.intervals + 1)[1:]) if discrete else np.zeros(0)
    recipe = {"network": network, "seed": seed, "cases": digest_of(cases), **settings.model_dump(mode="json")}
    return _Plan(cases, fit, held, settings, config, torch.tensor(cuts, dtype=torch.float32), recipe, folder, seed)


def _is_joint(epoch: int, settings: Settings) -> bool:
    """Whether survival is learned in this epoch; in the last one it always is."""
    alone = settings.segmentation_epochs if isinstance(settings, DeepmtsSettings) else 0
    return epoch >= min(alone, settings.epochs - 1)


def _concordance(risk: Tensor, surv: Survival) -> tuple[float, float]:
    """(Harrell's C-index, its standard error); both one half when no pair can be compared."""
    try:
        found = concordance(risk.numpy(), surv)
    except FitError:
        return 0.5, 0.5
    return found.c.value, found.se


def _start_or_resume(plan: _Plan) -> _Run:
    """A fresh network, or the one a killed training of the same recipe left behind."""
    torch.manual_seed(_mix(plan.seed))
    model = build(plan.config).to(_device())
    head = {id(parameter) for parameter in model.head.parameters()}
    groups = [{"params": [p for p in model.parameters() if id(p) not in head], "factor": 1.0},
              {"params": [p for p in model.parameters() if id(p) in head], "factor": plan.settings.head_rate}]
    optimiser = torch.optim.AdamW(groups, lr=plan.settings.learning_rate, eps=1e-7,
                                  weight_decay=plan.settings.weight_decay, fused=True)
    run, path = _Run(model, optimiser), plan.folder / STATE
    plan.folder.mkdir(parents=True, exist_ok=True)
    for scratch in plan.folder.glob(".*.part"):
        scratch.unlink()
    if not path.exists():
        return run
    run.best, facts = load_state(path, model, optimiser)
    differ = sorted(k for k in plan.recipe.keys() | facts["recipe"].keys()
                    if plan.recipe.get(k) != facts["recipe"].get(k))
    if differ:
        raise StoreError(Problem("E-RESUME", "an unfinished training in this folder has other settings",
                                 where=plan.folder.name, found=f"other {', '.join(differ)}",
                                 remedy="Delete the folder to start over, or go back to its settings"))
    for key in KEPT:
        setattr(run, key, facts[key])
    run.memory = [(int(i), float(risk)) for i, risk in run.memory]
    return run


def _save(run: _Run, plan: _Plan) -> float:
    """Write the resume file (first process only); the time it was done."""
    if rank_and_world()[0] == 0:
        save_state(plan.folder / STATE, run.model, run.optimiser, run.best,
                   {"recipe": plan.recipe, **{key: getattr(run, key) for key in KEPT}})
    return time.monotonic()


def _tell(report: Callable[[Progress], None] | None, run: _Run, plan: _Plan, steps: int) -> None:
    """Report progress; whatever that raises leaves a saved state behind."""
    if report is None:
        return
    try:
        report(Progress(run.epoch, plan.settings.epochs, run.step, steps, run.log[-1] if run.log else None))
    except BaseException:
        _save(run, plan)
        raise


def _finished(plan: _Plan) -> Checkpoint | None:
    """The checkpoint in the folder, if it is a finished training of this recipe."""
    if not (plan.folder / MODEL).exists() or (plan.folder / STATE).exists():
        return None
    try:
        checkpoint = Checkpoint.load(plan.folder)
    except BundleError:
        return None
    return checkpoint if checkpoint.facts.get("recipe") == plan.recipe else None


def _finish(run: _Run, plan: _Plan) -> Checkpoint:
    """Solve the head, write the log, the weights and, last, the model's description; then drop the resume file."""
    run.model.load_state_dict(run.best, strict=False)
    solve_direct(run.model, plan.cases, plan.settings.survival_loss, plan.cuts_months, l2=plan.settings.head_l2,
                 batch_size=plan.settings.batch_size)
    chosen = next(row for row in run.log if row["epoch"] == run.best_epoch)
    facts = {"epoch": run.best_epoch, "epochs_run": run.epoch,
             "validation": {key: chosen[key] for key in sorted(chosen) if key.startswith("val_")},
             "n_patients": len(plan.fit), "n_validation": len(plan.held),
             "cuts_months": plan.cuts_months.tolist(), "recipe": plan.recipe}
    rank, world = rank_and_world()
    if rank == 0:
        text = io.StringIO()
        writer = csv.DictWriter(text, list(run.log[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(run.log)
        replace_file(plan.folder / LOG, text.getvalue().encode())
        save_network(weights_of(run.model), plan.config, plan.folder, facts)
        (plan.folder / STATE).unlink(missing_ok=True)
    if world > 1:
        dist.barrier()
    return Checkpoint.load(plan.folder)


def _mix(*parts: int) -> int:
    """A 63-bit seed of several numbers."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _device() -> torch.device:
    """The first GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _memory_mb() -> float:
    """Peak memory of this process in MB."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0, 1)
