"""The one training loop: patients in, a checkpoint out. Read `train` first, then what it calls, top to bottom.

Every random choice follows from (seed, epoch, step), so a training that was killed and is called again goes on from
its last saved step and ends in the same bytes as one that never stopped.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from mtdlr.errors import BundleError, FitError, Problem
from mtdlr.nets.augment import augment, augment_paper, rescanned
from mtdlr.nets.blocks import channels_last
from mtdlr.nets.board import board, log_text
from mtdlr.nets.cases import Case, Rows, check_cases, digest_of, epoch_batches, folds, follow_up, inner_split
from mtdlr.nets.device import Device, Machine, device_of, kernels, peak_memory_mb, prepared_for
from mtdlr.nets.embedding import LinearHead
from mtdlr.nets.feed import Feed, scored
from mtdlr.nets.losses import cox_loss
from mtdlr.nets.memory import cut_until_it_fits
from mtdlr.nets.refit import solve_direct, solve_linear
from mtdlr.nets.resume import load_state, require_recipe, save_state
from mtdlr.nets.schedule import is_joint, learning_rate, masks_alone
from mtdlr.nets.session import torch_session
from mtdlr.nets.singletask import NoMask
from mtdlr.nets.step import MicroBatch, RiskSet, adamw, average_statistics, backward, mix, rank_and_world
from mtdlr.nets.weights import (
    MODEL,
    Checkpoint,
    Config,
    Network,
    build,
    config_of,
    replace_file,
    save_heads,
    save_network,
    weights_of,
)
from mtdlr.stats.concordance import concordance
from mtdlr.stats.ridge import blockwise_ridge
from mtdlr.survival import Survival
from mtdlr.workers.planning import CUT, cut_problem

if TYPE_CHECKING:
    from mtdlr.study import DeepmtsSettings, NetworkName, SingletaskSettings

    Settings = DeepmtsSettings | SingletaskSettings

log = logging.getLogger(__name__)
__all__ = ["Case", "Checkpoint", "Progress", "folds", "train"]

STATE, LOG, BOARD = "resume.safetensors", "log.csv", "tensorboard"
SAVE_EVERY_S, SMOOTHING = 60.0, 0.3


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
    """What stays the same while a network trains: patients (`cases`: to learn from), settings, folder."""

    everybody: list[Case]
    cases: list[Case]
    fit: Rows
    held: Rows
    settings: Settings
    config: Config
    cuts_months: Tensor
    recipe: dict[str, Any]
    folder: Path
    seed: int
    device: Device
    feed: Feed


@dataclass
class _Run:
    """What changes while a network trains; all of it goes into the resume file."""

    model: Network
    optimiser: torch.optim.Optimizer
    parts: int = 1  # micro-batches of a batch: settings.accumulate, or more where memory ran out
    best: dict[str, Tensor] = field(default_factory=dict)
    epoch: int = 0
    step: int = 0
    without_improvement: int = 0
    best_epoch: int = -1
    best_score: float | None = None
    smoothed: float | None = None
    tally: Tensor = field(default_factory=lambda: torch.zeros(2))
    bank: list[int] = field(default_factory=list)
    bank_risks: Tensor = field(default_factory=lambda: torch.zeros(0))
    log: list[dict[str, float]] = field(default_factory=list)


HERE, KEPT = Machine(), ("epoch", "step", "best_epoch", "best_score", "smoothed", "log")


def train(cases: Sequence[Case], network: NetworkName, settings: Settings, folder: Path, *, seed: int,
          machine: Machine = HERE, report: Callable[[Progress], None] | None = None) -> Checkpoint:
    """A network trained on the cases, also written to `folder` as weights.safetensors, log.csv and model.json.

    Which epoch's weights are kept is decided on an inner split of the same cases; no other patient is ever looked at.
    A call that finds an unfinished training of the same recipe in `folder` goes on with it; one that finds a finished
    one loads it. Where memory runs out, it goes on from its last saved step with twice the micro-batches (W-MEMORY).
    What `report` raises passes through, with the state saved. Where torch.distributed is initialised, every process
    calls this with the same arguments; they share each batch and the first one writes.

    Args:
        cases: the patients; their order does not matter. Those that are `held_out` enter a solved risk alone.
        network: which network.
        settings: its section of the study.
        folder: where the files go; made if missing.
        seed: of the weights, the inner split, sampling, augmentation and dropout.
        machine: threads that torch may use, where the network trains, whether a card must give the same bytes again.
        report: called after every step and every epoch.

    Raises:
        FitError: E-NOEVENT without two events and two censored patients, E-NOMASK when DeepMTS gets no mask,
            E-DIVERGED when the loss stops being a number, E-DEVICE for a device the machine does not have, E-MEMORY
            where not even two patients fit into memory at a time.
        ScanError: E-IMAGE for images that differ in shape, are too small or not finite.
        StoreError: E-RESUME when the folder holds an unfinished training of another recipe.
    """
    plan = _plan(cases, network, settings, Path(folder), seed, device_of(machine.device))
    if (done := _finished(plan)) is not None:
        return done
    for problem in plan.device.problems:
        log.warning(problem)
    with (torch_session(machine.threads), kernels(plan.device.place, deterministic=machine.deterministic),
          board(plan.folder / BOARD) as record):
        return cut_until_it_fits(
            lambda parts: _finish(_learned(plan, parts, record, report), plan), where=f"network {network}",
            parts=settings.accumulate, make_room=plan.feed.make_room,
            most=settings.batch_size // 2 if rank_and_world()[1] == 1 else 1,  # several must cut a batch together
            told=lambda parts: log.warning(cut_problem(f"network {network}", parts)))


def _learned(plan: _Plan, parts: int, record: Callable[[dict[str, float]], None],
             report: Callable[[Progress], None] | None) -> _Run:
    """The training, from its last saved step to its last epoch, each batch in at least so many parts."""
    settings, events, saved_at = plan.settings, [plan.cases[i].event for i in plan.fit], time.monotonic()
    run = _start_or_resume(plan, parts)
    epochs = 0 if isinstance(run.model, NoMask) else settings.epochs
    while run.epoch < epochs and run.without_improvement < settings.patience:
        began = time.monotonic()
        batches = epoch_batches(events, size=settings.batch_size, steps=settings.steps_per_epoch,
                                sampling="uniform" if masks_alone(settings) else settings.sampling,
                                seed=plan.seed, epoch=run.epoch)
        while run.step < len(batches):
            rate = learning_rate(settings, epoch=run.epoch, step=run.step, steps=len(batches))
            rows, then = (plan.fit[batch] for batch in (*batches[run.step:run.step + 2], batches[run.step])[:2])
            _learn(run, plan, rows, rate, then)
            run.step += 1
            _tell(report, run, plan, len(batches))
            if time.monotonic() - saved_at > SAVE_EVERY_S:
                saved_at = _save(run, plan)
        row = {"epoch": float(run.epoch), "joint": float(is_joint(run.epoch, settings)),
               "learning_rate": learning_rate(settings, epoch=run.epoch, step=run.step - 1, steps=len(batches)),
               **dict(zip(("dice_loss", "survival_loss"), _losses(run, len(batches)), strict=True))}
        row |= _validate(run, plan)
        _judge(run, row, joint=is_joint(run.epoch, settings) or settings.pooling == "spatial")
        run.log.append(row | {"seconds": round(time.monotonic() - began, 3), "memory_mb": peak_memory_mb()})
        record(run.log[-1])  # before the state is saved: what a kill between them repeats, `board` hides
        run.epoch, run.step, run.tally = run.epoch + 1, 0, torch.zeros_like(run.tally)
        saved_at = _save(run, plan)
        _tell(report, run, plan, len(batches))
    return run


def _learn(run: _Run, plan: _Plan, rows: Rows, rate: float, then: Rows) -> None:
    """One step of AdamW on one batch; the patients of the next one, `then`, are fetched meanwhile."""
    settings, joint = plan.settings, is_joint(run.epoch, plan.settings)
    rank, world = rank_and_world()
    cut = np.array_split(np.arange(len(rows)), max(1, min(run.parts, len(rows) // 2)))
    mine = [(k, places) for k, places in enumerate(cut) if k % world == rank]
    ahead = [rows[places] for _, places in mine[1:]] + [then]
    micro_batches = [_micro_batch(plan, rows, places, mix(plan.seed, run.epoch, run.step, k), after)
                     for (k, places), after in zip(mine, ahead, strict=True)]
    others = [k for k, i in enumerate(run.bank) if i not in set(rows.tolist())]
    where = torch.tensor(others, dtype=torch.long).to(run.bank_risks.device, non_blocking=True)
    bank, bank_risks = [run.bank[k] for k in others], run.bank_risks.index_select(0, where)
    run.model.train()
    run.optimiser.zero_grad(set_to_none=True)
    values, risks = backward(run.model, micro_batches, _risk_set(plan, rows, bank, bank_risks) if joint else None,
                             survival_weight=getattr(settings, "survival_weight", 1.0), several=len(cut) > 1,
                             precision=plan.device.precision)
    if joint and settings.head_l2:
        (settings.head_l2 * run.model.l2()).backward()
    for group in run.optimiser.param_groups:
        group["lr"] = rate * group["factor"]
    run.optimiser.step()
    run.tally += values
    if joint and settings.risk_memory:
        run.bank = [*bank, *rows.tolist()][-settings.risk_memory:]
        run.bank_risks = torch.cat([bank_risks, risks])[-settings.risk_memory:]


def _losses(run: _Run, steps: int) -> list[float]:
    """(Dice, survival) losses of the epoch so far, a step.

    Raises:
        FitError: E-DIVERGED when one of them is no number.
    """
    values = run.tally.tolist()
    if not np.isfinite(values).all():
        raise FitError(Problem("E-DIVERGED", "the training loss is no longer a number", where=f"epoch {run.epoch}",
                               remedy="Lower learning_rate"))
    return [value / steps for value in values]


def _micro_batch(plan: _Plan, rows: Rows, places: NDArray[np.int64], seed: int, then: Rows) -> MicroBatch:
    """The patients at some places of a batch, moved at random."""
    image, mask, known = plan.feed.batch(rows[places], then)
    move = {"modern": augment, "paper": augment_paper, "none": None}[plan.settings.augmentation]
    if move is not None:
        generator = torch.Generator().manual_seed(seed)
        image, mask = move(image, mask, generator)
        if move is augment and masks_alone(plan.settings):  # what scales and blurs uptake may move a risk, but no mask
            image = rescanned(image, generator, plan.settings.near_voxels)
    cases = plan.cases
    share = sum(cases[i].mask is not None for i in rows[places]) / max(1, sum(cases[i].mask is not None for i in rows))
    here = torch.from_numpy(places).to(image.device, non_blocking=True)
    return MicroBatch(here, channels_last(image), mask, known, share, seed)


def _risk_set(plan: _Plan, rows: Rows, bank: Sequence[int], bank_risks: Tensor) -> RiskSet:
    """The batch's patients and those of the memory bank."""
    time_months, event = follow_up([plan.cases[i] for i in [*rows.tolist(), *bank]])
    whole = RiskSet(len(rows), time_months, event, bank_risks, plan.settings.survival_loss, plan.cuts_months)
    return whole.on(plan.device.place)


def _validate(run: _Run, plan: _Plan) -> dict[str, float]:
    """Figures of the inner validation set, all of it."""
    average_statistics(run.model)
    risk, dices = scored(run.model, plan.feed, plan.held, size=_at_once(run, plan), device=plan.device)
    if isinstance(run.model.head, LinearHead):  # the risk is solved when the training ends
        error = float(np.std(dices) / max(1, len(dices)) ** 0.5) if dices else 0.0  # of the mean Dice, which is judged
        return {"val_dice": float(np.mean(dices)), "val_c_se": error} if dices else {}
    time_months, event = follow_up([plan.cases[i] for i in plan.held])
    c_index = error = 0.5  # where no pair can be compared
    with suppress(FitError):
        found = concordance(risk.numpy(), Survival(time_months.numpy(), event.numpy()))
        c_index, error = found.c.value, found.se
    figures = {"val_c_index": c_index, "val_c_se": error,
               "val_survival_loss": cox_loss(risk, time_months, event).item()}
    return figures | ({"val_dice": float(np.mean(dices))} if dices else {})


def _at_once(run: _Run, plan: _Plan) -> int:
    """Patients that go through the network at a time."""
    return -(-plan.settings.batch_size // run.parts)


def _judge(run: _Run, row: dict[str, float], *, joint: bool) -> None:
    """Keep the weights unless the smoothed C-index plus Dice of the inner validation set fell by a standard error.

    The best epoch of a few patients is mostly luck, and of equals the latest has trained most. The error is the largest
    of any epoch: where a few patients stand in perfect order it is 0.
    """
    if not joint:
        return
    score = row.get("val_c_index", 0.0) + row.get("val_dice", 0.0)
    run.smoothed = score if run.smoothed is None else SMOOTHING * score + (1.0 - SMOOTHING) * run.smoothed
    run.without_improvement += 1
    if run.best_score is None or run.smoothed >= run.best_score:
        run.best_score, run.without_improvement = run.smoothed, 0
    if run.smoothed >= run.best_score - max(past.get("val_c_se", 0.0) for past in (*run.log, row)):
        run.best_epoch = run.epoch
        run.best = {name: value.clone() for name, value in weights_of(run.model).items()}


def _plan(cases: Sequence[Case], network: NetworkName, settings: Settings, folder: Path, seed: int,
          device: Device) -> _Plan:
    """The checked patients in the order of their ids, their inner split, and the network they will train."""
    everybody = sorted(cases, key=lambda case: case.id)
    check_cases(everybody, needs_masks=network == "deepmts")
    cases = [case for case in everybody if case.held_out is None]
    fit, held = inner_split(cases, settings.validation_fraction, seed, by_event=not masks_alone(settings))
    discrete, config = settings.survival_loss == "discrete", config_of(network, settings)
    times = [cases[i].time_months for i in fit if cases[i].event]
    cuts = np.quantile(times, np.linspace(0, 1, settings.intervals + 1)[1:]) if discrete else np.zeros(0)
    recipe = {"network": network, "seed": seed, "cases": digest_of(everybody), **settings.model_dump(mode="json")}
    return _Plan(everybody, cases, fit, held, settings, config, torch.tensor(cuts, dtype=torch.float32), recipe, folder,
                 seed, device, Feed(cases, device.place))


def _start_or_resume(plan: _Plan, parts: int) -> _Run:
    """A fresh network, or the one a killed training of the same recipe left behind."""
    torch.manual_seed(mix(plan.seed))
    model = prepared_for(build(plan.config), plan.device.place)
    optimiser = adamw(model, plan.settings.learning_rate, head_rate=plan.settings.head_rate,
                      weight_decay=plan.settings.weight_decay)
    run, path = _Run(model, optimiser, parts), plan.folder / STATE
    run.tally = torch.zeros(2, dtype=plan.device.sums, device=plan.device.place)
    run.bank_risks = torch.zeros(0, device=plan.device.place)
    plan.folder.mkdir(parents=True, exist_ok=True)
    for scratch in plan.folder.glob(".*.part"):
        scratch.unlink()
    if not path.exists():
        return run
    try:
        run.best, facts = load_state(path, model, optimiser)
    except BundleError:
        log.warning(str(Problem("W-RESUME", "a training's saved state was damaged")))
        path.unlink()
        return run
    require_recipe(plan.recipe, facts["recipe"], where=plan.folder.name)
    for key in KEPT:
        setattr(run, key, facts[key])
    run.parts = max(parts, facts.get("parts", 1))
    run.without_improvement = facts["stale"]  # the file's older word
    run.tally = run.tally.new_tensor(facts["tally"])
    run.bank = [int(i) for i, _ in facts["memory"]]
    run.bank_risks = run.bank_risks.new_tensor([risk for _, risk in facts["memory"]])
    return run


def _save(run: _Run, plan: _Plan) -> float:
    """Write the resume file (first process only); the time it was done."""
    _losses(run, 1)  # nothing is kept of a training that diverged
    if rank_and_world()[0] == 0:
        save_state(plan.folder / STATE, run.model, run.optimiser, run.best, {
            "recipe": plan.recipe, **{key: getattr(run, key) for key in KEPT}, "tally": run.tally.tolist(),
            "parts": run.parts, "stale": run.without_improvement,
            "memory": list(zip(run.bank, run.bank_risks.tolist(), strict=True))})
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
    solved, size, heads = {}, _at_once(run, plan), dict[int, LinearHead]()
    if isinstance(run.model.head, LinearHead):
        solved["risk"], heads = solve_linear(run.model, plan.everybody, blockwise_ridge, batch_size=size)
    else:
        solve_direct(run.model, plan.cases, plan.settings.survival_loss, plan.cuts_months, l2=plan.settings.head_l2,
                     batch_size=size)
    chosen = next((row for row in run.log if row["epoch"] == run.best_epoch), {})
    facts = {"epoch": run.best_epoch, "epochs_run": run.epoch,
             "validation": {key: chosen[key] for key in sorted(chosen) if key.startswith("val_")},
             "n_patients": len(plan.fit), "n_validation": len(plan.held),
             "cuts_months": plan.cuts_months.tolist(), "recipe": plan.recipe} | solved | (
                 {"held_out": sorted(heads)} if heads else {}) | (
                     {CUT: run.parts} if run.parts > plan.settings.accumulate else {})
    rank, world = rank_and_world()
    if rank == 0:
        replace_file(plan.folder / LOG, log_text(run.log).encode())
        if heads:
            save_heads(heads, plan.folder)
        save_network(weights_of(run.model), plan.config, plan.folder, facts)
        (plan.folder / STATE).unlink(missing_ok=True)
    if world > 1:
        dist.barrier()
    return Checkpoint.load(plan.folder)
