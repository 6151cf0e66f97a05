"""Time and memory of a training step and of scoring, against the same layers stated plainly in eager PyTorch.

    python bench/bench_train_step.py [--grids 48 64] [--threads 1 2] [--rounds 5] [--memory]

The plain statement is what one writes first: contiguous batches, concatenate the upsampled map, convolve. It has our
parameters under our names, so weights load from one into the other and the numbers can be compared. Plain and ours take
turns, and the least time of each counts. `--memory` measures the peak of one 128^3 step in a process of its own each,
and of scoring one patient, with its time.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mtdlr.infer import score
from mtdlr.nets.deepmts import CSN_BLOCKS, DECODER, ENCODER, DeepMTS, DeepmtsConfig
from mtdlr.nets.fusion import fused
from mtdlr.nets.losses import cox_loss, dice_loss
from mtdlr.nets.weights import Checkpoint, build


class PlainUnit(nn.Module):
    """Convolution, batch norm, ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(inputs, outputs, kernel, padding=kernel // 2)
        self.norm = nn.BatchNorm3d(outputs, eps=1e-3, momentum=0.01)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(x)))


class PlainStage(nn.Module):
    """A residual stage."""

    def __init__(self, inputs: int, outputs: int, units: int) -> None:
        super().__init__()
        self.first, self.shortcut = PlainUnit(inputs, outputs, 3), PlainUnit(inputs, outputs, 1)
        self.rest = nn.ModuleList(PlainUnit(outputs, outputs, 3) for _ in range(units - 1))

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x) + self.shortcut(x)
        for unit in self.rest:
            h = unit(h) + h
        return h


class PlainBackbone(nn.Module):
    """The residual U-Net with its adapters."""

    def __init__(self) -> None:
        super().__init__()
        widths = [c for c, _ in ENCODER]
        self.encoder = nn.ModuleList(PlainStage(i, c, n) for i, (c, n) in zip([2, *widths], ENCODER, strict=False))
        below = [128, 64, 32, 16]
        self.decoder = nn.ModuleList(PlainStage(b + c, c, n) for b, (c, n) in zip(below, DECODER, strict=True))
        self.segment = nn.Conv3d(8, 2, 1)
        self.adapters = nn.ModuleList(PlainUnit(c, c // 2, 1) for c in widths)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        maps = []
        for level, stage in enumerate(self.encoder):
            x = stage(F.max_pool3d(x, 2) if level else x)
            maps.append(x)
        for stage, skip in zip(self.decoder, reversed(maps[:-1]), strict=True):
            x = stage(torch.cat([F.interpolate(x, scale_factor=2), skip], 1))
        features = [a(m).mean((2, 3, 4)) for a, m in zip(self.adapters, maps, strict=True)]
        return torch.softmax(self.segment(x), 1)[:, 0], torch.cat(features, 1)


class PlainLayer(nn.Module):
    """A dense layer."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm3d(inputs, eps=1e-3, momentum=0.01), nn.Conv3d(inputs, 64, 1)
        self.norm2, self.conv2 = nn.BatchNorm3d(64, eps=1e-3, momentum=0.01), nn.Conv3d(64, 16, 3, padding=1)
        self.dropout = nn.Dropout(0.05)

    def forward(self, x: Tensor) -> Tensor:
        h = self.dropout(self.conv1(F.relu(self.norm1(x))))
        return torch.cat([x, self.dropout(self.conv2(F.relu(self.norm2(h))))], 1)


class PlainBlock(nn.Module):
    """A dense block."""

    def __init__(self, inputs: int, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(PlainLayer(inputs + 16 * i) for i in range(layers))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


class PlainSurvival(nn.Module):
    """The cascaded survival network."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.dropout, channels = nn.Conv3d(3, 24, 3, stride=2), nn.Dropout(0.05), 24
        self.blocks, self.norms, self.reduce, self.feature_norms = (nn.ModuleList() for _ in range(4))
        for layers, c in CSN_BLOCKS:
            self.blocks.append(PlainBlock(channels, layers))
            channels += 16 * layers
            self.norms.append(nn.BatchNorm3d(channels, eps=1e-3, momentum=0.01))
            self.reduce.append(nn.Conv3d(channels, c, 1))
            self.feature_norms.append(nn.BatchNorm3d(c, eps=1e-3, momentum=0.01))
            channels = c

    def forward(self, x: Tensor) -> Tensor:
        x, features = F.max_pool3d(self.dropout(self.stem(x)), 3, 2), []
        for k in range(3):
            x = self.blocks[k](F.avg_pool3d(x, 2) if k else x)
            x = self.dropout(self.reduce[k](F.relu(self.norms[k](x))))
            features.append(F.relu(self.feature_norms[k](x)).mean((2, 3, 4)))
        return torch.cat(features, 1)


class PlainHead(nn.Module):
    """The risk head."""

    def __init__(self) -> None:
        super().__init__()
        self.branches, self.last = nn.ModuleList([nn.Linear(124, 64), nn.Linear(112, 64)]), nn.Linear(128, 1)
        self.dropout = nn.Dropout(0.5)

    def forward(self, features: list[Tensor]) -> Tensor:
        hidden = [F.relu(b(self.dropout(v))) for b, v in zip(self.branches, features, strict=True)]
        return self.last(self.dropout(torch.cat(hidden, 1)))[:, 0]


class PlainDeepMTS(nn.Module):
    """DeepMTS as one writes it first."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone, self.survival, self.head = PlainBackbone(), PlainSurvival(), PlainHead()

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        probability, features = self.backbone(image)
        return self.head([features, self.survival(torch.cat([image, probability[:, None]], 1))]), probability


def pair() -> tuple[PlainDeepMTS, DeepMTS]:
    """The plain and our statement of one network, with the same weights."""
    torch.manual_seed(0)
    ours = build(DeepmtsConfig())
    assert isinstance(ours, DeepMTS)
    plain = PlainDeepMTS()
    plain.load_state_dict(ours.state_dict())
    return plain, ours


def batch_of(grid: int, n: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Random images, masks, times and events."""
    generator = torch.Generator().manual_seed(1)
    return (torch.randn(n, 2, grid, grid, grid, generator=generator),
            (torch.rand(n, grid, grid, grid, generator=generator) > 0.9).float(),
            torch.rand(n, generator=generator) + 0.5, torch.arange(n) % 2 == 0)


def step(model: nn.Module, batch: tuple[Tensor, Tensor, Tensor, Tensor], optimiser: torch.optim.Optimizer) -> float:
    """One step of training; its loss."""
    image, mask, time_months, event = batch
    optimiser.zero_grad()
    output = model(image)
    risk, probability = (output[0], output[1]) if isinstance(output, tuple) and len(output) == 2 else (
        output.risk, output.probability)
    loss = dice_loss(probability, mask) + cox_loss(risk, time_months, event)
    loss.backward()
    optimiser.step()
    return loss.item()


def in_turns(first: Callable[[], object], second: Callable[[], object], rounds: int) -> list[tuple[float, float]]:
    """The least (seconds on the clock, seconds of processor) of each, measured in turns after one warm-up."""
    least = [(float("inf"), float("inf"))] * 2
    for k in range(rounds + 1):
        for i, work in enumerate((first, second)):
            began, busy = time.perf_counter(), time.process_time()
            work()
            took = time.perf_counter() - began, time.process_time() - busy
            if k:
                least[i] = min(least[i][0], took[0]), min(least[i][1], took[1])
    return least


def show(what: str, grid: int, threads: int, least: list[tuple[float, float]], n: int) -> None:
    """One line of the table: seconds a sample on the clock, and how often ours fits into the plain, clock and CPU."""
    (plain, plain_cpu), (ours, ours_cpu) = least
    print(f"{what} {grid:4}^3  {threads} thread(s)  plain {plain / n:6.3f} s  ours {ours / n:6.3f} s  "
          f"{plain / ours:.2f}x  (processor time {plain_cpu / n:6.3f} s, {ours_cpu / n:6.3f} s, "
          f"{plain_cpu / ours_cpu:.2f}x)", flush=True)


def compare(grid: int, threads: int, rounds: int, n: int = 2) -> None:
    """Print one line each for training and scoring."""
    torch.set_num_threads(threads)
    plain, ours = pair()
    batch = batch_of(grid, n)
    optimisers = [torch.optim.AdamW(m.parameters(), lr=1e-4) for m in (plain, ours)]
    least = in_turns(lambda: step(plain, batch, optimisers[0]), lambda: step(ours, batch, optimisers[1]), rounds)
    show("train", grid, threads, least, n)
    plain, ours = (m.eval() for m in pair())
    ready = fused(ours)
    with torch.inference_mode():
        one = batch[0][:1]
        show("score", grid, threads, in_turns(lambda: plain(one), lambda: ready(one), rounds), 1)


def peak_mb(kind: str, grid: int) -> float:
    """Peak memory of this process after one training step of one patient."""
    model = dict(zip(("plain", "ours"), pair(), strict=True))[kind]
    step(model, batch_of(grid, 1), torch.optim.AdamW(model.parameters(), lr=1e-4))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0


def scoring(grid: int) -> str:
    """Time of scoring one patient with two threads, the network loaded, and the peak memory of this process."""
    torch.set_num_threads(2)
    checkpoint = Checkpoint(pair()[1].eval(), {}, "")
    image = batch_of(grid, 1)[0][0].numpy()
    score(checkpoint, image)
    began = time.perf_counter()
    score(checkpoint, image)
    seconds = time.perf_counter() - began
    return f"{seconds:.2f} s, {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0:.0f}"


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--grids", type=int, nargs="*", default=[48, 64])
    parser.add_argument("--threads", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory", type=int, nargs="?", const=128)
    parser.add_argument("--peak", choices=["plain", "ours", "score"], help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.peak:
        print(scoring(asked.memory) if asked.peak == "score" else f"{peak_mb(asked.peak, asked.memory):.0f}")
        return
    for threads in asked.threads:
        for grid in asked.grids:
            compare(grid, threads, asked.rounds)
    if asked.memory:
        for kind in ("plain", "ours", "score"):
            command = [sys.executable, __file__, "--peak", kind, "--memory", str(asked.memory)]
            what = "ours, scoring" if kind == "score" else f"{kind}, peak memory of a training step"
            print(f"{what}, {asked.memory}^3, one patient: "
                  f"{subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()} MB")


if __name__ == "__main__":
    main()
