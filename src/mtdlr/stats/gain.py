"""Which scores a model is the better for: each enters by what it adds to those already in it, or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr

from mtdlr.stats.ridge import log_partial_likelihood, ridge_path
from mtdlr.survival import Survival

Matrix = NDArray[np.float64]

FIRST, LEVEL = 0.025, 0.10
_NEARLY_FREE = 0.01  # a penalty that only keeps separated levels finite


@dataclass(frozen=True)
class Gain:
    """What one score adds to a Cox model, beside the scores that entered before it.

    Args:
        name: the score.
        coefficient: log-hazard per SD of the score.
        chi_square: likelihood-ratio statistic, one degree of freedom.
        p: one-sided p value: how often a useless score that nobody fitted would add as much in the right direction.
        level: what p must be below.
    """

    name: str
    coefficient: float
    chi_square: float
    p: float
    level: float

    @property
    def enters(self) -> bool:
        """Whether the score is in the model."""
        return self.coefficient > 0 and self.p < self.level


def score_gains(
    base: ArrayLike, scores: Mapping[str, ArrayLike], surv: Survival, *, first: float = FIRST, level: float = LEVEL
) -> tuple[Gain, ...]:
    """Every score with what it adds: those that enter first, in the order in which they do, then the others.

    Forward: of the scores that are left, the one that adds most enters if it raises the hazard and its one-sided
    likelihood-ratio test is below a level. Higher scores are worse, so one direction is tested. The first of k scores
    is the best of k, so its level is `first` / k. Once one is in, the others need only `level`. Both were chosen on
    simulated scores (bench/RESULTS.md, 2026-11-29).

    Where no score knows anything and nobody fitted one, one enters in `first` of studies. A cross-fitted score is made
    of the other patients' outcomes. It adds nothing on the average, but varies more by chance, so a useless one enters
    more often: in 4 of 40 synthetic studies of pure noise (7 at the level .05).

    Args:
        base: (n, q) columns that are in the model whatever they add, such as the stage; q may be 0.
        scores: (n,) each, cross-fitted, higher is worse.
        surv: follow-up.
        first: how often one of several useless scores that nobody fitted may enter.
        level: of the test of each score after the first.

    Raises:
        FitError: as `ridge_path`.

    Reference: Blanchet et al., Ecology 2008 (forward selection only once all variables together pass a test).

    >>> surv = Survival(np.arange(1.0, 41.0), np.ones(40))
    >>> noise = np.tile([0.0, 1.0], 20)
    >>> [(gain.name, gain.enters) for gain in score_gains(np.zeros((40, 0)), {"a": noise, "b": -np.arange(40.0)}, surv)]
    [('b', True), ('a', False)]
    """
    inside = _standard(np.asarray(base, dtype=np.float64).reshape(len(surv), -1))
    left = {name: _standard(np.asarray(score, dtype=np.float64)[:, None]) for name, score in scores.items()}
    found: list[Gain] = []
    while left:
        already = _log_likelihood(inside, surv)[0]
        limit = level if found else first / len(scores)
        gains = [_gain(name, np.column_stack([inside, column]), surv, already, limit)
                 for name, column in left.items()]
        best = min(gains, key=lambda gain: gain.p)
        if not best.enters:
            return (*found, *gains)
        found.append(best)
        inside = np.column_stack([inside, left.pop(best.name)])
    return tuple(found)


def _gain(name: str, x: Matrix, surv: Survival, already: float, level: float) -> Gain:
    """What the last column of x adds to a model whose log likelihood without it is known."""
    if not x[:, -1].any():
        return Gain(name, 0.0, 0.0, 1.0, level)
    value, coefficient = _log_likelihood(x, surv)
    chi_square = max(0.0, 2.0 * (value - already))
    return Gain(name, coefficient, chi_square, float(ndtr(-np.copysign(np.sqrt(chi_square), coefficient))), level)


def _log_likelihood(x: Matrix, surv: Survival) -> tuple[float, float]:
    """(log partial likelihood, coefficient of the last column), nearly without penalty."""
    if not x.shape[1]:
        return log_partial_likelihood(np.zeros(len(surv)), surv), 0.0
    coef = ridge_path(x, surv, [1.0, _NEARLY_FREE])[-1]
    return log_partial_likelihood(x @ coef, surv), float(coef[-1])


def _standard(x: Matrix) -> Matrix:
    """Columns of mean 0 and SD 1; one that does not vary is 0."""
    centred = x - x.mean(axis=0) if x.size else x
    scale = centred.std(axis=0)
    return np.where(scale > 1e-9, centred / np.where(scale > 1e-9, scale, 1.0), 0.0)
