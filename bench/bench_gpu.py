"""What a GPU does with the networks: samples a second, by phase and as a whole, what bounds them, and the same losses.

    PYTHONPATH=src python bench/bench_gpu.py --seconds 240 --out gpu.json
    PYTHONPATH=src python bench/bench_gpu.py --device cpu --grids 32 --batch 2 --width 0.25 --seconds 120

It makes its own arrays and needs torch, numpy, scipy, numba, pandas and safetensors. Results are printed as they come;
what the time is not enough for is left out, the most important first. No figure is repeated in a second process.
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import shutil
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mtdlr.nets import cells
from mtdlr.nets.augment import augment, augment_paper
from mtdlr.nets.blocks import channels_last
from mtdlr.nets.cases import Case
from mtdlr.nets.deepmts import DeepMTS, DeepmtsConfig
from mtdlr.nets.device import Machine, bf16_error, device_of, prepared_for
from mtdlr.nets.feed import Feed
from mtdlr.nets.fusion import fused
from mtdlr.nets.losses import cox_loss_of_sets, dice_loss, risk_sets
from mtdlr.nets.norm import NormRelu
from mtdlr.nets.step import adamw, autocast
from mtdlr.nets.weights import build
from mtdlr.train import train


@dataclass
class Bench:
    """What was asked for, and what was found so far."""

    device: torch.device
    batch: int
    width: float
    until: float
    out: Path | None
    found: dict[str, Any] = field(default_factory=dict)

    def say(self, key: str, value: Any) -> None:
        """Print a figure and put it into the file."""
        print(f"[{time.monotonic() - BEGAN:6.1f} s] {key}: {value}", flush=True)
        self.found[key] = value
        if self.out is not None:
            self.out.write_text(json.dumps(self.found, indent=1, default=str))

    def left(self) -> float:
        """Seconds left."""
        return self.until - time.monotonic()

    def sync(self) -> None:
        """Wait for the card."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()


BEGAN = time.monotonic()


def settings(**changes: Any) -> SimpleNamespace:
    """The settings of DeepMTS under the preset `paper`, as train reads them, with some changed."""
    values = {
        "width": 1.0, "epochs": 300, "steps_per_epoch": 50, "batch_size": 8, "accumulate": 1, "learning_rate": 1e-4,
        "schedule": "paper", "weight_decay": 0.0, "head_rate": 1.0, "dropout": 0.05, "head_dropout": 0.5,
        "norm_momentum": 0.01, "pooling": "average", "head_l2": 0.0, "survival_loss": "cox-breslow", "intervals": 0,
        "sampling": "paper", "augmentation": "paper", "risk_memory": 0, "validation_fraction": 0.15, "patience": 50,
        "segmentation_epochs": 0, "survival_weight": 1.0, "detach_probability": False, "near_voxels": 4, **changes}
    return SimpleNamespace(**values, model_dump=lambda mode: values)


MODERN = {"schedule": "cosine", "weight_decay": 1e-4, "head_rate": 3.0, "pooling": "regional", "sampling": "balanced",
          "augmentation": "modern", "risk_memory": 64, "head_l2": 1e-3, "detach_probability": True,
          "norm_momentum": 0.1}


def patients(n: int, grid: int) -> list[Case]:
    """Balls in noise; the larger, the earlier the event."""
    rng, axis = np.random.default_rng(0), np.arange(grid, dtype=np.float32)
    made = []
    for k in range(n):
        radius, middle = rng.uniform(0.08, 0.2) * grid, grid * rng.uniform(0.4, 0.6, 3)
        mask = sum((axis.reshape([-1 if a == b else 1 for b in range(3)]) - middle[a]) ** 2
                   for a in range(3)) < radius**2
        noise = rng.normal(0, 0.05, (2, grid, grid, grid)).astype(np.float32)
        noise[0] += mask
        made.append(Case(f"P{k:03d}", noise, mask, float(rng.exponential(60.0) * 0.1 * grid / radius), k % 2 == 0))
    return made


@dataclass(frozen=True)
class Strategy:
    """One way to compute the same step."""

    name: str
    precision: torch.dtype = torch.bfloat16
    last: bool = True
    fused: bool = True
    cell_levels: int = 1
    graph: bool = False
    compiled: bool = False
    modern: bool = False


class Pair(nn.Module):
    """A network that returns tensors only, as graphs need."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        output = self.model(image)
        return output.risk, output.probability


def network(bench: Bench, way: Strategy) -> DeepMTS:
    """DeepMTS as one strategy has it."""
    torch.manual_seed(0)
    changes: dict[str, Any] = {"pooling": "regional", "detach_probability": True} if way.modern else {}
    model = prepared_for(build(DeepmtsConfig(width=bench.width, **changes)), bench.device)
    assert isinstance(model, DeepMTS)
    model.backbone.cell_levels, model.survival.stem_on_cells = way.cell_levels, way.cell_levels > 0
    for module in model.modules():
        if isinstance(module, NormRelu):
            module.fused = way.fused
    return model if way.last else model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]


def timed(bench: Bench, work: Callable[[], object], rounds: int = 5, warm: int = 2) -> float:
    """Milliseconds of one call, the mean of some."""
    for _ in range(warm):
        work()
    bench.sync()
    began = time.perf_counter()
    for _ in range(rounds):
        work()
    bench.sync()
    return (time.perf_counter() - began) / rounds * 1000.0


def gigabytes(bench: Bench) -> float:
    """Peak memory of the card since the last time this was asked."""
    if bench.device.type != "cuda":
        return 0.0
    peak = torch.cuda.max_memory_allocated() / 1e9
    torch.cuda.reset_peak_memory_stats()
    return round(peak, 2)


def steps(bench: Bench, way: Strategy, grid: int, feed: Feed, cases: list[Case],
          profile: bool = False) -> dict[str, Any]:
    """Milliseconds by phase and samples a second of whole steps, nobody waiting in between."""
    model, n = network(bench, way), bench.batch
    optimiser = adamw(model, 1e-4, head_rate=1.0, weight_decay=0.0)
    pair: Callable[[Tensor], tuple[Tensor, Tensor]] = Pair(model)
    rows = np.arange(n) % len(cases)
    months = torch.tensor([cases[i].time_months for i in rows])
    sets = tuple(t.to(bench.device) for t in risk_sets(months, torch.tensor([cases[i].event for i in rows]), "breslow"))
    batch, move = feed.batch(rows), augment if way.modern else augment_paper
    image, mask = batch.image, batch.mask
    model.train()
    if way.graph:
        with torch.autocast(bench.device.type, way.precision, enabled=way.precision != torch.float32,
                            cache_enabled=False):
            pair = torch.cuda.make_graphed_callables(pair, (image.clone(),), allow_unused_input=True)  # type: ignore[arg-type]
    elif way.compiled:
        pair = torch.compile(pair)

    def load() -> None:
        nonlocal batch
        batch = feed.batch(rows)

    def moved() -> None:
        nonlocal image, mask
        image, mask = move(batch.image, batch.mask, torch.Generator().manual_seed(0))

    loss = torch.zeros(())

    def forward() -> None:
        nonlocal loss
        with autocast(bench.device, way.precision) if not way.graph else nullcontext():
            risk, probability = pair(channels_last(image) if way.last and not way.graph else image)
        loss = dice_loss(probability.float(), mask, batch.known) + cox_loss_of_sets(risk.float(), *sets)

    def whole() -> None:
        load()
        moved()
        optimiser.zero_grad(set_to_none=True)
        forward()
        loss.backward()
        optimiser.step()

    gigabytes(bench)
    began = time.perf_counter()
    whole()
    bench.sync()
    result: dict[str, Any] = {"first_step_s": round(time.perf_counter() - began, 1)}
    once = timed(bench, whole, 1, 2)
    rounds = int(np.clip(2500.0 / once, 2, 40))
    result["step_ms"] = round(timed(bench, whole, rounds, 0), 2)
    result["samples_s"] = round(1000.0 * n / result["step_ms"], 1)
    result["gb"] = gigabytes(bench)
    phases = {"load": load, "augment": moved, "forward": forward, "backward": None, "optimiser": optimiser.step}
    for name, work in phases.items():
        spent = 0.0
        for _ in range(3):
            if name == "backward":
                forward()
            bench.sync()
            began = time.perf_counter()
            work() if work is not None else loss.backward()
            bench.sync()
            spent += (time.perf_counter() - began) / 3 * 1000.0
        result[f"{name}_ms"] = round(spent, 2)
    result["queue_ms"] = round(_queueing(bench, whole), 2)
    if profile:
        result["busy"], result["kernels"] = kernels_of(bench, whole)
    return result


def _queueing(bench: Bench, work: Callable[[], object]) -> float:
    """Milliseconds the processor needs to hand a step over: above the step's, the card waits for it."""
    bench.sync()
    began = time.perf_counter()
    work()
    took = time.perf_counter() - began
    bench.sync()
    return took * 1000.0


def kernels_of(bench: Bench, work: Callable[[], object]) -> tuple[float, list[str]]:
    """(share of the time in which the card works, the kernels that take most of it) over three calls."""
    if bench.device.type != "cuda":
        return 1.0, []
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as seen:
        bench.sync()
        for _ in range(3):
            work()
        bench.sync()
    spans = sorted((e.time_range.start, e.time_range.end) for e in seen.events()
                   if e.device_type == torch.autograd.DeviceType.CUDA)
    busy, end = 0.0, spans[0][0]
    for start, stop in spans:
        busy += max(0.0, stop - max(start, end))
        end = max(end, stop)
    top = sorted(seen.key_averages(), key=lambda e: -e.self_device_time_total)[:30]
    return round(busy / (spans[-1][1] - spans[0][0]), 3), [
        f"{e.self_device_time_total / 3000.0:8.3f} ms x{e.count / 3:5.0f}  {e.key[:110]}" for e in top]


WAYS = (
    Strategy("bf16, fused norm, cells on level 0"),
    Strategy("the same, modern preset", modern=True),
    Strategy("bf16, fused norm, cells on levels 0 and 1", cell_levels=2),
    Strategy("bf16, fused norm, no cells", cell_levels=0),
    Strategy("bf16, torch's norm, cells on level 0", fused=False),
    Strategy("bf16, fused norm, cells on level 0, CUDA graphs", graph=True),
    Strategy("bf16, torch's norm, no cells: as before", fused=False, cell_levels=0),
    Strategy("bf16, torch's norm, no cells, contiguous", fused=False, cell_levels=0, last=False),
    Strategy("fp32 (TF32), fused norm, cells on level 0", precision=torch.float32),
    Strategy("fp32 (TF32), torch's norm, no cells", precision=torch.float32, fused=False, cell_levels=0),
)
COMPILED = (Strategy("bf16, torch's norm, cells on level 0, compiled", fused=False, compiled=True),
            Strategy("bf16, torch's norm, no cells, compiled", fused=False, cell_levels=0, compiled=True))


def facts(bench: Bench) -> None:
    """Card, versions, and the bfloat16 self-test."""
    cuda = bench.device.type == "cuda"
    bench.say("machine", {
        "card": torch.cuda.get_device_name() if cuda else platform.processor(), "torch": torch.__version__,
        "cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version(), "python": platform.python_version(),
        "gb": torch.cuda.mem_get_info()[1] / 1e9 if cuda else 0, "gcc": shutil.which("gcc"),
        "threads": torch.get_num_threads()})
    if cuda:
        bench.say("bf16 self-test, relative error", bf16_error(bench.device))
    bench.say("device_of", device_of("auto"))


def norm_kernels(bench: Bench) -> None:
    """The fused norm against torch's three operations: the same numbers, and the time of both."""
    grid = 128 if bench.device.type == "cuda" else 16
    x = channels_last(torch.randn(bench.batch, 8, grid, grid, grid, device=bench.device).to(torch.bfloat16))
    upper, results = torch.randn_like(x), {}
    for kernels in (True, False):
        norm = NormRelu(8, eps=1e-3, momentum=0.1).to(bench.device)
        norm.fused = kernels
        leaf = x.clone().requires_grad_()

        def both(norm: NormRelu = norm, leaf: Tensor = leaf) -> Tensor:
            y = norm(leaf, leaf)
            y.backward(upper)
            return y

        y = both().detach().float()
        results[kernels] = [y, leaf.grad.float(), norm.weight.grad, norm.bias.grad, norm.running_var]  # type: ignore[union-attr]
        bench.say(f"norm + ReLU + sum, there and back, 8 channels, {grid}^3, ms, {'fused' if kernels else 'torch'}",
                  round(timed(bench, both, 5), 3))
    bench.say("fused norm against torch's, relative difference",
              [f"{float((a - b).abs().max() / b.abs().max()):.1e}" for a, b in zip(results[True], results[False],
                                                                                   strict=True)])


def convolutions(bench: Bench) -> None:
    """One convolution of the finest level in several layouts, there and back."""
    cuda = bench.device.type == "cuda"
    grid, n = (128, bench.batch) if cuda else (16, 1)
    dtype = torch.bfloat16 if cuda else torch.float32
    for inputs, outputs, low in ((8, 8, 0), (24, 8, 16)):
        weight = torch.randn(outputs, inputs, 3, 3, 3, device=bench.device, requires_grad=True)
        x = torch.randn(n, inputs, grid, grid, grid, device=bench.device, dtype=dtype)
        packed = cells.to_cells(x[:, low:]).contiguous(memory_format=torch.channels_last_3d)
        if low:
            packed = torch.cat([channels_last(x[:, :low, ::2, ::2, ::2]), packed], 1)

        def spread(weight: Tensor = weight, low: int = low) -> Tensor:
            own = cells.cell_weight(weight[:, low:])
            return (torch.cat([cells.doubled_weight(weight[:, :low]), own], 1) if low else own).to(dtype)

        ways: dict[str, tuple[Tensor, Callable[[], Tensor]]] = {
            "contiguous": (x, lambda weight=weight: weight.to(dtype)),
            "channels-last": (channels_last(x), lambda weight=weight: channels_last(weight.to(dtype))),
            "cells": (packed, spread)}
        for name, (source, kernel) in ways.items():
            leaf = source.detach().requires_grad_()
            forward = timed(bench, lambda leaf=leaf, kernel=kernel: F.conv3d(leaf, kernel(), padding=1), 3)
            both = timed(bench, lambda leaf=leaf, kernel=kernel: F.conv3d(
                leaf, kernel(), padding=1).sum().backward(), 3)
            bench.say(f"conv {inputs}->{outputs}, {grid}^3, {name}: forward, both, ms",
                      [round(forward, 2), round(both, 2)])


def train_steps(bench: Bench, grid: int, ways: tuple[Strategy, ...], feed: Feed, cases: list[Case]) -> None:
    """A row a strategy."""
    for k, way in enumerate(ways):
        if bench.left() < 20:
            return
        if bench.device.type == "cpu":  # to see that the script runs
            way = replace(way, precision=torch.float32, graph=False)
        guarded(bench, f"train {grid}^3, {way.name}", lambda way=way, k=k: bench.say(
            f"train {grid}^3, {way.name}", steps(bench, way, grid, feed, cases, profile=k == 0)))


def scoring(bench: Bench, grid: int) -> None:
    """Samples a second of the network with its norms fused."""
    model = network(bench, Strategy("")).eval()
    image = torch.randn(bench.batch, 2, grid, grid, grid, device=bench.device)
    kinds = [(torch.float16, 1), (torch.float16, 0), (torch.bfloat16, 1), (torch.float32, 1), (torch.float32, 0)]
    expected: Tensor | None = None
    for dtype, levels in reversed(kinds) if bench.device.type == "cuda" else kinds[3:]:
        model.backbone.cell_levels, model.survival.stem_on_cells = levels, levels > 0
        ready = fused(model)
        for n in (bench.batch, 1):
            with torch.inference_mode(), autocast(bench.device, dtype):
                ms = timed(bench, lambda ready=ready, n=n: ready(image[:n]), 10, 3)
                risk = ready(image).risk.float()
            expected = risk if expected is None else expected
            bench.say(f"score {grid}^3, {str(dtype)[6:]}, cells {levels}, batch {n}",
                      {"samples_s": round(1000.0 * n / ms, 1), "gb": gigabytes(bench),
                       "risk off, relative": f"{float((risk - expected).abs().max() / expected.abs().max()):.1e}"})


def parity(bench: Bench, n_steps: int = 8) -> None:
    """Losses of the same steps on the processor, on the card in single precision, and in bfloat16."""
    cases = patients(8, 48)
    losses: dict[str, list[float]] = {}
    ways = [("cpu fp32", torch.device("cpu"), torch.float32, 0), ("fp32", bench.device, torch.float32, 1),
            ("bf16", bench.device, torch.bfloat16, 1)][:None if bench.device.type == "cuda" else 2]
    for name, device, precision, levels in ways:
        one = copy.copy(bench)
        one.device, one.width = device, min(bench.width, 0.5)
        model = network(one, Strategy("", cell_levels=levels))
        model.train()
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        optimiser = adamw(model, 1e-4, head_rate=1.0, weight_decay=0.0)
        feed = Feed(cases, device)
        months, events = torch.tensor([c.time_months for c in cases]), torch.tensor([c.event for c in cases])
        sets = [t.to(device) for t in risk_sets(months, events, "breslow")]
        losses[name] = []
        for k in range(n_steps):
            batch = feed.batch(np.arange(8))
            image, mask = augment(batch.image, batch.mask, torch.Generator().manual_seed(k))
            optimiser.zero_grad()
            with autocast(device, precision):
                output = model(image)
            loss = dice_loss(output.probability.float(), mask) + cox_loss_of_sets(output.risk.float(), *sets)
            loss.backward()
            optimiser.step()
            losses[name].append(round(loss.item(), 5))
        bench.say(f"losses of {n_steps} steps, 48^3, {name}", losses[name])


class Stop(BaseException):
    """A user's Ctrl-C."""


def resume(bench: Bench) -> None:
    """A training with deterministic kernels, stopped and called again, against one that was not; and a second one."""
    cases = patients(16, 32)
    for name, changes in (("paper", {}), ("modern", MODERN)):
        chosen = settings(**{"epochs": 2, "steps_per_epoch": 4, "width": min(0.5, bench.width),
                             "validation_fraction": 0.25, **changes})
        digests = []
        with tempfile.TemporaryDirectory() as folder:
            for k in range(3):
                seen = [0]

                def stop(_: object, seen: list[int] = seen, k: int = k) -> None:
                    seen[0] += 1
                    if k == 2 and seen[0] == 3:
                        raise Stop

                for _ in range(3):
                    try:
                        digests.append(train(cases, "deepmts", chosen, Path(folder) / str(k), seed=0,
                                             machine=Machine(device=bench.device.type, deterministic=True),
                                             report=stop).digest)
                        break
                    except Stop:
                        continue
        bench.say(f"same bytes twice, and stopped and resumed, {name}",
                  [digests[0] == digests[1], digests[0] == digests[2]])


def loop(bench: Bench, grid: int, cases: list[Case]) -> None:
    """Samples a second of `train` itself, the way a study runs it, and the share of time the card works."""
    for name, changes in (("paper", {}), ("modern", MODERN)):
        n = 30 if bench.device.type == "cuda" else 2
        chosen = settings(epochs=2, steps_per_epoch=n, width=bench.width, batch_size=bench.batch, **changes)
        with tempfile.TemporaryDirectory() as folder:
            train(cases, "deepmts", chosen, Path(folder), seed=0, device=bench.device.type)
            rows = (Path(folder) / "log.csv").read_text().splitlines()
        at = rows[0].split(",").index("seconds")
        bench.say(f"train() {grid}^3, {name}: s of epochs, samples/s of the second with its validation",
                  [[float(row.split(",")[at]) for row in rows[1:]],
                   round(n * bench.batch / float(rows[2].split(",")[at]), 1)])


def guarded(bench: Bench, name: str, work: Callable[[], object]) -> None:
    """Do the work if there is time; what goes wrong is printed, and the rest goes on."""
    if bench.left() < 8:
        return
    try:
        work()
    except Exception as error:
        traceback.print_exc()
        bench.say(f"{name}: failed", f"{type(error).__name__}: {str(error)[:300]}")
    if bench.device.type == "cuda":
        torch.cuda.empty_cache()


def main() -> None:
    """Everything, the most important first."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=240.0)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--grids", type=int, nargs="*", default=[128, 64, 96, 48])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--only", nargs="*", help="of norm, convolutions, train, scoring, parity, resume, loop")
    parser.add_argument("--compile", action="store_true", help="also torch.compile, which takes minutes")
    asked = parser.parse_args()
    bench = Bench(torch.device(asked.device), asked.batch, asked.width, BEGAN + asked.seconds, asked.out)
    torch.backends.cudnn.benchmark = True
    guarded(bench, "machine", lambda: facts(bench))
    first = asked.grids[0]
    cases = patients(2 * asked.batch, first)
    feed = Feed(cases, bench.device)
    ways = 1 if bench.device.type == "cpu" else len(WAYS)
    plan: list[tuple[str, Callable[[], object]]] = [
        ("norm", lambda: norm_kernels(bench)), ("convolutions", lambda: convolutions(bench)),
        ("train", lambda: train_steps(bench, first, WAYS[:min(2, ways)], feed, cases)),
        ("scoring", lambda: scoring(bench, first)),
        ("train", lambda: train_steps(bench, first, WAYS[2:min(6, ways)], feed, cases)),
        ("parity", lambda: parity(bench)), ("resume", lambda: resume(bench)),
        ("loop", lambda: loop(bench, first, cases)),
        ("train", lambda: train_steps(bench, first, WAYS[6:ways], feed, cases))]
    for name, work in plan:
        if asked.only is None or name in asked.only:
            guarded(bench, name, work)
    for grid in asked.grids[1:]:
        smaller = patients(2 * asked.batch, grid)
        train_steps(bench, grid, (WAYS[0], WAYS[5], WAYS[3]), Feed(smaller, bench.device), smaller)
        guarded(bench, "scoring", lambda grid=grid: scoring(bench, grid))
    if asked.compile:
        train_steps(bench, first, COMPILED, feed, cases)
    bench.say("seconds in all", round(time.monotonic() - BEGAN, 1))


if __name__ == "__main__":
    main()
