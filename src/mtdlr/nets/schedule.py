"""What is learned when: the learning rate of each step, and the epochs in which survival is learned."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mtdlr.study import DeepmtsSettings, SingletaskSettings

    Settings = DeepmtsSettings | SingletaskSettings

PAPER_RATES = ((50, 1.0), (100, 0.5), (200, 0.1), (math.inf, 0.01))


def learning_rate(settings: Settings, *, epoch: int, step: int, steps: int) -> float:
    """The rate of a step: a tenth of all steps up, then down a cosine to 1 %; or the paper's steps.

    Args:
        settings: of the training.
        epoch: number of the epoch, from 0.
        step: number of the step in it, from 0.
        steps: steps of an epoch.
    """
    if settings.schedule == "paper":
        return settings.learning_rate * next(factor for until, factor in PAPER_RATES if epoch < until)
    done = (epoch * steps + step + 1) / (settings.epochs * steps)
    if done < 0.1:
        return settings.learning_rate * done / 0.1
    return settings.learning_rate * (0.01 + 0.99 * 0.5 * (1.0 + math.cos(math.pi * (done - 0.1) / 0.9)))


def is_joint(epoch: int, settings: Settings) -> bool:
    """Whether survival is learned by steps in this epoch; in the last one it always is, unless it is solved.

    Args:
        epoch: number of the epoch, from 0.
        settings: of the training.
    """
    if masks_alone(settings):
        return False
    return epoch >= min(getattr(settings, "segmentation_epochs", 0), settings.epochs - 1)


def masks_alone(settings: Settings) -> bool:
    """Whether all that steps learn is the tumour mask, so that no event may decide anything before the risk is solved.

    Args:
        settings: of the training.
    """
    return hasattr(settings, "segmentation_epochs") and settings.solved
