"""How far a lasso depends on chance: the penalty over repeated cross-validations, the features over subsamples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mtdlr.stats.checks import follow_up, one_of, whole
from mtdlr.stats.cox_rows import matrix_of
from mtdlr.stats.lasso import LassoCV, Penalties, cross_validate_lasso, lasso_path, stratified_folds
from mtdlr.survival import Survival

Vector = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class RepeatedLassoCV:
    """Cross-validations of one lasso with different folds.

    Args:
        runs: the cross-validations; they share their path.
        lambdas: (R,) the penalty each chose.
        index: where on the path the median choice lies.
    """

    runs: tuple[LassoCV, ...]
    lambdas: Vector
    index: int

    @property
    def lambda_median(self) -> float:
        """The penalty of the path nearest above the median choice."""
        return float(self.runs[0].lambdas[self.index])

    @property
    def coef(self) -> Vector:
        """(p,) the coefficients there."""
        coef: Vector = self.runs[0].coef[self.index]
        return coef


def repeat_cross_validation(
    x: ArrayLike,
    surv: Survival,
    *,
    n_repeats: int = 20,
    n_folds: int = 10,
    seed: int = 0,
    rule: Literal["min", "1se"] = "min",
    penalties: Penalties | None = None,
) -> RepeatedLassoCV:
    """The median penalty of several cross-validations, which does not hang on one draw of the folds.

    Args:
        x: as in `cross_validate_lasso`.
        surv: as in `cross_validate_lasso`.
        n_repeats: cross-validations, with seeds drawn from `seed`.
        n_folds: as in `cross_validate_lasso`.
        seed: of all draws.
        rule: what each chooses: the smallest deviance, or the largest penalty within a standard error of it.
        penalties: as in `cross_validate_lasso`.

    Raises:
        FitError: as `cross_validate_lasso`; E-REPEATS for fewer than one.
    """
    one_of(rule, ("min", "1se"), "rule")
    whole(n_repeats, "the number of repeats", 1, code="E-REPEATS")
    whole(seed, "seed", 0)
    follow_up(surv)
    seeds = np.random.default_rng(seed).integers(0, 2**31, n_repeats).tolist()
    runs = tuple(
        cross_validate_lasso(x, surv, folds=stratified_folds(surv.event, n_folds, s), penalties=penalties)
        for s in seeds
    )
    at = np.array([run.index_min if rule == "min" else run.index_1se for run in runs])
    return RepeatedLassoCV(runs, runs[0].lambdas[at], int(np.floor(np.median(at))))


def selection_frequency(
    x: ArrayLike,
    surv: Survival,
    lambda_: float,
    *,
    n_resamples: int = 100,
    seed: int = 0,
    alpha: float = 1.0,
) -> Vector:
    """(p,) share of random halves of the patients, stratified by event, in which the lasso keeps each feature.

    Args:
        x: (n, p) features.
        surv: follow-up.
        lambda_: the penalty.
        n_resamples: number of halves, >= 1.
        seed: of the draw of the halves.
        alpha: as in `lasso_path`.

    Raises:
        FitError: as `lasso_path`; E-REPEATS for fewer than one.

    References: Meinshausen and Buhlmann, JRSS B 2010.
    """
    whole(n_resamples, "the number of resamples", 1, code="E-REPEATS")
    whole(seed, "seed", 0)
    matrix = matrix_of(x, surv)[0]
    seeds = np.random.default_rng(seed).integers(0, 2**31, n_resamples).tolist()
    kept = np.zeros(matrix.shape[1])
    for one in seeds:
        half = stratified_folds(surv.event, 2, one) == 0
        path = lasso_path(matrix[half], surv.take(half), penalties=Penalties(alpha=alpha, values=[lambda_]))
        kept += path.coef[0] != 0
    return kept / n_resamples
