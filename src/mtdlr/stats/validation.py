"""How much of a Cox model's discrimination is optimism, by the bootstrap (R: rms validate)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from mtdlr.errors import Problem
from mtdlr.estimate import Estimate
from mtdlr.stats.cox import Ties
from mtdlr.stats.optimism import (
    OptimismCorrected,
    RefittedModel,
    both_sides,
    corrected_for_optimism,
    draws,
    left_out,
    no_resample,
)
from mtdlr.survival import Survival

_STATISTICS = ("dxy", "r2", "slope", "d", "u", "q", "g")


@dataclass(frozen=True, eq=False)
class Validation:
    """Optimism-corrected discrimination of a Cox model (R: rms::validate.cph).

    Args:
        names: dxy (2 C - 1), r2 (Nagelkerke), slope (calibration slope, shrinkage), d (discrimination), u
            (unreliability), q (d - u), g (Gini's mean difference of the log hazard).
        table: the measures, in the order of names.
        c: corrected C-index; its interval is the percentile interval of the resamples' C, shifted by the optimism
            (Noma et al., Stat Med 2021).
        resamples, failed: how many were asked for, and how many could not be fitted.
    """

    names: tuple[str, ...]
    table: OptimismCorrected
    c: Estimate
    resamples: int
    failed: int

    @property
    def problems(self) -> tuple[Problem, ...]:
        """W-RESAMPLES where resamples could not be fitted."""
        return left_out(self.failed, self.resamples)

    def row(self, name: str) -> dict[str, float]:
        """apparent, training, test, optimism and corrected value of one measure; "c" is there too."""
        at = self.names.index("dxy" if name == "c" else name)
        keys = ("apparent", "training", "test", "optimism", "corrected")
        values = {key: float(getattr(self.table, key)[at]) for key in keys}
        if name != "c":
            return values
        return {key: value / 2.0 + (0.0 if key == "optimism" else 0.5) for key, value in values.items()}


def validate_bootstrap(
    x: ArrayLike,
    surv: Survival,
    *,
    n_resamples: int = 1000,
    seed: int = 0,
    indices: ArrayLike | None = None,
    ties: Ties = "efron",
    level: float = 0.95,
) -> Validation:
    """The optimism-corrected discrimination of the Cox model of `surv` on x.

    Args:
        x: (n, p) design matrix.
        surv: follow-up.
        n_resamples: number of bootstrap resamples.
        seed: of the resamples.
        indices: (B, n) the resamples themselves, as rows of x from 0, instead.
        ties: as in `fit_cox`.
        level: of the interval of c.

    Raises:
        FitError: as `fit_cox`; E-RESAMPLES when no resample can be fitted or the indices are not rows of x.
    """
    model = RefittedModel.checked(x, surv, ties)
    whole = model.measures(np.ones(len(surv)))
    if whole is None:
        raise no_resample()
    resamples = draws(len(surv), n_resamples=n_resamples, seed=seed, indices=indices)
    training, test, failed = both_sides(resamples, model.measures)
    table = corrected_for_optimism(whole[0], training, test)
    optimism = float(table.optimism[0]) / 2.0
    low, high = np.quantile(training[:, 0] / 2.0 + 0.5, (0.5 - level / 2.0, 0.5 + level / 2.0)) - optimism
    c = Estimate(float(table.corrected[0]) / 2.0 + 0.5, float(low), float(high))
    return Validation(_STATISTICS, table, c, len(training) + failed, failed)
