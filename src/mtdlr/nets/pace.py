"""How fast this machine is: one training step and one scoring of a network, timed on random images."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import torch

from mtdlr.nets.blocks import channels_last
from mtdlr.nets.deepmts import DeepmtsConfig
from mtdlr.nets.device import Name, device_of, prepared_for
from mtdlr.nets.session import torch_session
from mtdlr.nets.singletask import NoMask, SingletaskConfig
from mtdlr.nets.step import MicroBatch, RiskSet, backward
from mtdlr.nets.weights import Config, build

if TYPE_CHECKING:
    from mtdlr.study import DeepmtsSettings, SingletaskSettings

GRID, BATCH, TIMES = 32, 2, 2
"""Voxels along an axis of the images that are timed, patients of a step, and how often; the shortest counts."""


@dataclass(frozen=True)
class Pace:
    """Seconds that one patient takes.

    Args:
        step_s: of a training step.
        score_s: of a scoring.
        on_card: whether a card does it, which processes side by side share.
    """

    step_s: float
    score_s: float
    on_card: bool = False


def pace_of(settings: DeepmtsSettings | SingletaskSettings, *, size: int, threads: int = 1,
            device: Name = "auto") -> Pace:
    """The seconds that one patient takes in a network with these settings.

    A small network grid is timed; the time grows with the number of voxels. A network that is not trained by steps
    (no-mask) has a step of 0 s.

    Args:
        settings: its section of the study.
        size: voxels along each axis of the network grid.
        threads: threads that torch may use.
        device: where the network will run.

    Raises:
        FitError: E-DEVICE for a device that the machine does not have.
    """
    shared: dict[str, Any] = {"width": settings.width, "pooling": settings.pooling}  # what the time depends on
    config: Config = (SingletaskConfig(settings.network, **shared) if hasattr(settings, "network")
                      else DeepmtsConfig(**shared))
    timed, factor = _timed(config, threads, device), (size / GRID) ** 3
    return Pace(timed.step_s * factor, timed.score_s * factor, timed.on_card)


@cache
def _timed(config: Config, threads: int, device: Name) -> Pace:
    """The pace on the small grid."""
    found = device_of(device)
    place = found.place
    with torch_session(threads):
        torch.manual_seed(0)
        model = prepared_for(build(config), place)
        image = torch.rand(BATCH, 2, GRID, GRID, GRID, device=place)
        where = torch.arange(BATCH, device=place)
        batch = MicroBatch(where, channels_last(image), (image[:, 0] > 0.9).float(), where >= 0, 1.0, 0)
        followed = RiskSet(BATCH, torch.tensor([1.0, 2.0]), torch.tensor([True, False]), torch.zeros(0, device=place),
                           "cox-breslow", torch.zeros(0)).on(place)
        masks_alone = isinstance(config, DeepmtsConfig) and config.pooling == "spatial"

        def learn() -> None:
            backward(model, [batch], None if masks_alone else followed, precision=found.precision)[0].tolist()

        def score() -> None:
            with torch.inference_mode():
                model(image[:1]).risk.tolist()

        clock = (lambda: time.process_time() / threads) if place.type == "cpu" else time.perf_counter
        step = 0.0 if isinstance(model, NoMask) else _shortest(learn, clock) / BATCH
        model.eval()
        return Pace(step, _shortest(score, clock), place.type != "cpu")


def _shortest(work: Callable[[], None], clock: Callable[[], float]) -> float:
    """Seconds of the fastest of some turns, after one that warms up; on a processor those that it worked, so that
    other programs of the moment do not count."""
    times = []
    for _ in range(TIMES + 1):
        began = clock()
        work()
        times.append(clock() - began)
    return min(times[1:])
