"""Which scores a model is the better for: each enters by what it adds to those already in it, or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import chi2

from mtdlr.stats.ridge import cross_validate_ridge, log_partial_likelihood, ridge_path
from mtdlr.survival import Survival

Matrix = NDArray[np.float64]

LEVEL = 0.05
_NEARLY_FREE = 0.01  # a penalty that only keeps separated levels finite
_FOLDS = 10


@dataclass(frozen=True)
class Gain:
    """What one score adds to a Cox model, beside the scores that entered before it.

    Args:
        name: the score.
        coefficient: log-hazard per SD of the score.
        chi_square: likelihood-ratio statistic, one degree of freedom.
        p: its two-sided p value.
        left_out: fall of the left-out partial-likelihood deviance per event; above 0 the score helps patients whom the
            model has not seen.
        enters: whether the score is in the model: it helps, in the right direction, and not by chance at the level.
    """

    name: str
    coefficient: float
    chi_square: float
    p: float
    left_out: float
    enters: bool


def score_gains(
    base: ArrayLike, scores: Mapping[str, ArrayLike], surv: Survival, *, level: float = LEVEL, seed: int = 0
) -> tuple[Gain, ...]:
    """Every score's gain: those that enter, in the order in which they do, then the others.

    Forward: of the scores left, the one that lowers the left-out deviance most enters, as long as it does lower it, its
    coefficient is above 0 and the likelihood-ratio test is below `level`. A score that is out of fold itself pays for
    its own fitting, so the test is that of a variable nobody tuned.

    Args:
        base: (n, q) columns that are in the model whatever they add, such as the stage; q may be 0.
        scores: (n,) each, cross-fitted, higher is worse.
        surv: follow-up.
        level: of the test.
        seed: of the folds.

    Raises:
        FitError: as `cross_validate_ridge`.

    >>> surv = Survival(np.arange(1.0, 41.0), np.ones(40))
    >>> noise = np.tile([0.0, 1.0], 20)
    >>> [(gain.name, gain.enters) for gain in score_gains(np.zeros((40, 0)), {"a": noise, "b": -np.arange(40.0)}, surv)]
    [('b', True), ('a', False)]
    """
    inside = _standard(np.asarray(base, dtype=np.float64).reshape(len(surv), -1))
    left = {name: _standard(np.asarray(score, dtype=np.float64)[:, None]) for name, score in scores.items()}
    found: list[Gain] = []
    while left:
        already = (_log_likelihood(inside, surv)[0], _left_out(inside, surv, seed))
        gains = [_gain(name, np.column_stack([inside, column]), surv, already, level=level, seed=seed)
                 for name, column in left.items()]
        best = max(gains, key=lambda gain: (gain.enters, gain.left_out))
        if not best.enters:
            return (*found, *gains)
        found.append(best)
        inside = np.column_stack([inside, left.pop(best.name)])
    return tuple(found)


def _gain(name: str, x: Matrix, surv: Survival, already: tuple[float, float], *, level: float, seed: int) -> Gain:
    """What the last column of x adds to a model whose (log likelihood, left-out deviance) without it are known."""
    if not x[:, -1].any():
        return Gain(name, 0.0, 0.0, 1.0, 0.0, enters=False)
    value, coefficient = _log_likelihood(x, surv)
    chi_square = max(0.0, 2.0 * (value - already[0]))
    p, helps = float(chi2.sf(chi_square, 1)), already[1] - _left_out(x, surv, seed)
    return Gain(name, coefficient, chi_square, p, helps, bool(coefficient > 0 and p < level and helps > 0))


def _log_likelihood(x: Matrix, surv: Survival) -> tuple[float, float]:
    """(log partial likelihood, coefficient of the last column), nearly without penalty."""
    if not x.shape[1]:
        return log_partial_likelihood(np.zeros(len(surv)), surv), 0.0
    coef = ridge_path(x, surv, [1.0, _NEARLY_FREE])[-1]
    return log_partial_likelihood(x @ coef, surv), float(coef[-1])


def _left_out(x: Matrix, surv: Survival, seed: int) -> float:
    """The left-out deviance per event."""
    held = x if x.shape[1] else np.zeros((len(surv), 1))
    found = cross_validate_ridge(held, surv, penalties=[1.0, _NEARLY_FREE], n_folds=_FOLDS, seed=seed)
    return float(found.deviance[-1] if x.shape[1] else found.null_deviance)


def _standard(x: Matrix) -> Matrix:
    """Columns of mean 0 and SD 1; one that does not vary is 0."""
    centred = x - x.mean(axis=0) if x.size else x
    scale = centred.std(axis=0)
    return np.where(scale > 1e-9, centred / np.where(scale > 1e-9, scale, 1.0), 0.0)
