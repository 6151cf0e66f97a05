"""Where a network runs, and in which precision: the processor, an NVIDIA card (cuda) or an Apple one (mps)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Literal

import torch
import torch.nn.functional as F

from mtdlr.errors import FitError, Problem
from mtdlr.nets.deepmts import on_cells
from mtdlr.nets.session import device_name
from mtdlr.nets.weights import Network

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

Name = Literal["auto", "cpu", "cuda", "mps"]
TOLERANCE = 0.05  # relative error; right kernels stay under 0.02, wrong ones are off by their whole value


@dataclass(frozen=True)
class Machine:
    """What a training may use.

    Args:
        threads: threads that torch may use.
        device: where the network trains; `auto` is the first NVIDIA card if there is one.
        deterministic: whether a card must give the same bytes again, at some cost in speed; a processor always does.
    """

    threads: int = 1
    device: Name = "auto"
    deterministic: bool = False


@dataclass(frozen=True)
class Device:
    """A device and what is computed there.

    Args:
        place: the device.
        precision: of training; bfloat16 on a card that passed the self-test, else single.
        problems: W-BF16 where it did not.
    """

    place: torch.device
    precision: torch.dtype
    problems: tuple[Problem, ...] = ()

    @property
    def sums(self) -> torch.dtype:
        """What losses are added up in; Apple's cards have no double precision."""
        return torch.float32 if self.place.type == "mps" else torch.float64


def place_of(name: Name = "auto") -> torch.device:
    """The device of a name; `auto` is the first NVIDIA card if there is one, else the processor.

    Raises:
        FitError: E-DEVICE when the machine has no such device.
    """
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        name = "cuda" if there["cuda"] else "cpu"
    if not there[name]:
        raise FitError(Problem("E-DEVICE", "torch finds no such device on this machine", where="device", found=name,
                               expected=", ".join(key for key in there if there[key]),
                               remedy="Take device = \"auto\", or install torch for this device"))
    return torch.device(name)


def device_of(name: Name = "auto") -> Device:
    """The device of a name, and the precision it trains in: bfloat16 on a card whose convolutions are right.

    Raises:
        FitError: as `place_of`.
    """
    place = place_of(name)
    if place.type != "cuda":
        return Device(place, torch.float32)
    error = bf16_error(place)
    if error <= TOLERANCE:
        return Device(place, torch.bfloat16)
    return Device(place, torch.float32, (bf16_problem(error),))


def bf16_problem(error: float) -> Problem:
    """W-BF16."""
    return Problem("W-BF16", "this card's bfloat16 convolutions are wrong, so training takes single precision",
                   where=f"torch {torch.__version__}, cuDNN {torch.backends.cudnn.version()}",
                   found=f"relative error {error:.2g}", expected=f"at most {TOLERANCE:g}",
                   remedy="Install a torch whose cuDNN is not 9.8 to 9.10")


def device_facts() -> dict[str, str]:
    """The device that `auto` takes and, for a card, what the self-test of its bfloat16 convolutions found."""
    found = device_of("auto")
    if found.place.type != "cuda":
        return {"device": device_name()}
    error = bf16_error(found.place)
    return {"device": f"{device_name()}, cuDNN {torch.backends.cudnn.version()}",
            "bf16 conv3d": f"{'wrong' if found.problems else 'right'}, relative error {error:.2g}"}


@cache
def bf16_error(device: torch.device) -> float:
    """The greatest relative error of bfloat16 3D convolutions, their gradients included, against single precision.

    Channel counts, strides and layouts are those of the networks. cuDNN 9.8 to 9.10 computes some of them wrong without
    a word; a device that cannot compute them at all has error infinity.
    """
    cases = ((2, 8, 24, 1), (8, 8, 24, 1), (16, 64, 16, 1), (64, 64, 16, 1), (24, 24, 16, 1), (3, 24, 33, 2))
    try:
        return max(_error(device, *case, last=last) for case in cases for last in (False, True))
    except RuntimeError:
        return float("inf")


def _error(device: torch.device, inputs: int, outputs: int, size: int, stride: int, *, last: bool) -> float:
    """Of one convolution: values, gradient of the input, gradient of the weights."""
    generator = torch.Generator().manual_seed(inputs * outputs + stride)
    layout = torch.channels_last_3d if last else torch.contiguous_format
    found = []
    for dtype in (torch.bfloat16, torch.float32):
        x = torch.randn(2, inputs, size, size, size, generator=generator.manual_seed(1)).bfloat16()
        weight = torch.randn(outputs, inputs, 3, 3, 3, generator=generator.manual_seed(2)).bfloat16()
        x, weight = (t.to(device, dtype).to(memory_format=layout).requires_grad_() for t in (x, weight))
        with _exact():
            y = F.conv3d(x, weight, stride=stride, padding=1)
            upper = torch.randn(y.shape, generator=generator.manual_seed(3)).bfloat16().to(device, dtype)
            found.append([y.detach(), *torch.autograd.grad(y, (x, weight), upper.to(memory_format=layout))])
    return max(float((a.float() - b).abs().max() / b.abs().max()) for a, b in zip(*found, strict=True))


@contextmanager
def _exact() -> Iterator[None]:
    """Single precision without the card's shortened products."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


@contextmanager
def kernels(device: torch.device, *, deterministic: bool) -> Iterator[None]:
    """Give a training a card's random state and choice of kernels of its own; the caller's are restored afterwards.

    The card takes the fastest of the kernels it tries or, on request, those that give the same bits every time.

    Args:
        device: where the training runs; nothing happens unless it is a cuda device.
        deterministic: whether a second run must give the same bits, at a cost in speed.
    """
    if device.type != "cuda":
        yield
        return
    cudnn, strict = torch.backends.cudnn, torch.are_deterministic_algorithms_enabled()
    before = cudnn.benchmark, cudnn.deterministic
    cudnn.benchmark, cudnn.deterministic = not deterministic, deterministic
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read by cuBLAS at its first use
        torch.use_deterministic_algorithms(True)
    try:
        with torch.random.fork_rng(devices=[device]):
            yield
    finally:
        cudnn.benchmark, cudnn.deterministic = before
        torch.use_deterministic_algorithms(strict)


def prepared_for(model: Network, device: torch.device) -> Network:
    """The model on the device; on an NVIDIA card its large grids are computed on cells.

    Args:
        model: a network, changed in place.
        device: where it shall run.
    """
    if device.type == "cuda":
        on_cells(model)
    return model.to(device)


def peak_memory_mb() -> float:
    """Peak memory of this process, MB; nan where the system does not report it."""
    if resource is None:
        return float("nan")
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0, 1)
