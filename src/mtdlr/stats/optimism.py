"""A Cox model fitted again to bootstrap resamples, and the optimism that follows.

In each resample the model is fitted again and judged twice, on the resample and on the original patients; the mean
difference is the optimism, which is taken off the apparent value (Harrell, Lee and Mark, Stat Med 1996). Resamples are
counts of the sorted patients, so nothing is sorted or copied twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mtdlr.errors import FitError, Problem
from mtdlr.stats.checks import one_of, whole
from mtdlr.stats.cox import TIES, Ties
from mtdlr.stats.cox_baseline import log_hazard_at
from mtdlr.stats.cox_likelihood import SortedRows
from mtdlr.stats.cox_rows import Cases, CoxRows, informative
from mtdlr.stats.resample_statistics import (
    fitted_discrimination,
    frozen_discrimination,
    maximum_near,
    null_loglik,
    ranking,
)
from mtdlr.survival import Survival

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
Index = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class OptimismCorrected:
    """One performance measure, or a curve of them (k,), and its optimism.

    Args:
        apparent: on the patients it was fitted to.
        training, test: means over the resamples, on the resample and on the original patients.
        resamples: how many resamples could be used.
    """

    apparent: Vector
    training: Vector
    test: Vector
    resamples: Index

    @property
    def optimism(self) -> Vector:
        """training - test."""
        return self.training - self.test

    @property
    def corrected(self) -> Vector:
        """apparent - optimism."""
        return self.apparent - self.optimism

    def part(self, where: slice) -> OptimismCorrected:
        """A part of the curve."""
        return OptimismCorrected(self.apparent[where], self.training[where], self.test[where], self.resamples[where])


@dataclass(frozen=True, eq=False)
class RefittedModel:
    """A Cox model that is fitted again and again to counts of the same sorted patients.

    Each fit starts at the coefficients of the original patients, beta, whose log likelihood at 0 is null.
    """

    rows: SortedRows
    time: Vector
    order: Index
    beta: Vector
    null: float

    @classmethod
    def checked(cls, x: ArrayLike, surv: Survival, ties: Ties) -> RefittedModel:
        """The checked model; raises the errors of `fit_cox`."""
        one_of(ties, TIES, "treatment of ties")
        data = CoxRows.checked(x, surv, None, Cases())
        rows = _at_event_times(informative(data, efron=ties == "efron")[1])
        fit = maximum_near(rows, np.zeros(rows.x.shape[1]))
        if fit is None:
            raise no_resample()
        return cls(rows, surv.time_months[data.sets.order], data.sets.order, fit[0], null_loglik(rows))

    def with_counts(self, counts: Vector, x: Matrix | None = None) -> SortedRows:
        """The rows, or rows of another x, each standing for so many patients (in sorted order)."""
        columns = self.rows.x if x is None else np.ascontiguousarray(x)
        return self.rows._replace(x=columns, weight=counts, patients=counts)

    def measures(self, counts: Vector) -> tuple[Vector, Vector] | None:
        """The measures (7,) of a resample's model on the resample and on the original patients."""
        resample = self.with_counts(counts[self.order])
        fit = maximum_near(resample, self.beta)
        if fit is None:
            return None
        eta = self.rows.x @ fit[0]
        everyone = self.with_counts(np.ones(eta.size), eta[:, None])
        refit = maximum_near(everyone, np.ones(1))
        if refit is None:
            return None
        ranks = ranking(eta)
        return (fitted_discrimination(resample, eta, self.time, ranks=ranks, null=null_loglik(resample), loglik=fit[1]),
                frozen_discrimination(everyone, eta, self.time, ranks=ranks, slope=float(refit[0][0]), null=self.null,
                                      loglik=refit[1]))

    def scale_at(self, counts: Vector, month: float) -> Vector | None:
        """(n,) log cumulative hazard at a month of all patients, sorted, under a resample's model."""
        resample = self.with_counts(counts[self.order])
        fit = maximum_near(resample, self.beta)
        if fit is None:
            return None
        eta = self.rows.x @ fit[0]
        log_hazard = log_hazard_at(resample, eta, self.time, month)
        return eta + log_hazard if log_hazard > -np.inf else None


def _at_event_times(rows: SortedRows) -> SortedRows:
    """The rows of one stratum with those who are censored between two event times in one group with the earlier one.

    They enter its risk set and no other's, so that nothing changes but the number of groups.
    """
    ends = rows.start[1:][np.logical_or.reduceat(rows.event, rows.start[:-1])]
    start = np.unique(np.concatenate([[0], ends, [rows.event.size]])).astype(np.int64)
    return rows._replace(start=start, fresh=np.arange(start.size - 1) == 0)


class Resampling(TypedDict, total=False):
    """Keywords of a function that resamples patients: those of `draws`."""

    n_resamples: int
    seed: int
    indices: ArrayLike | None


def draws(n: int, *, n_resamples: int = 1000, seed: int = 0, indices: ArrayLike | None = None) -> Iterator[Vector]:
    """How often each patient is drawn, resample by resample."""
    if indices is None:
        whole(n_resamples, "the number of resamples", 1, code="E-RESAMPLES")
        whole(seed, "seed", 0)
        random = np.random.default_rng(seed)
        return (np.bincount(random.integers(0, n, n), minlength=n).astype(np.float64) for _ in range(n_resamples))
    rows = np.asarray(indices)
    if rows.ndim != 2 or rows.shape[1] != n or rows.dtype.kind not in "iu" or rows.min() < 0 or rows.max() >= n:
        raise FitError(Problem("E-RESAMPLES", "resamples must be rows of x, counted from 0",
                               found=f"shape {rows.shape}", expected=f"(B, {n}), 0 to {n - 1}"))
    return (np.bincount(row, minlength=n).astype(np.float64) for row in rows)


def both_sides(
    draws: Iterator[Vector], measure: Callable[[Vector], tuple[Vector, Vector] | None]
) -> tuple[Matrix, Matrix, int]:
    """Each resample's measures on itself and on the original patients, and how many resamples had no fit."""
    pairs = [measure(counts) for counts in draws]
    good = [pair for pair in pairs if pair is not None]
    if not good:
        raise no_resample()
    training, test = (np.array([pair[side] for pair in good]) for side in (0, 1))
    return training, test, len(pairs) - len(good)


def left_out(failed: int, resamples: int) -> tuple[Problem, ...]:
    """W-RESAMPLES with the share of resamples that were left out."""
    return () if not failed else (Problem(
        "W-RESAMPLES", "bootstrap resamples in which no finite coefficient fits were left out; corrected values are "
        "a little too good", where="bootstrap validation",
        found=f"{failed} of {resamples} ({100 * failed / resamples:.2g} %)",
        remedy="Take fewer columns, or Firth's method (stats.firth_cox)"),)


def no_resample() -> FitError:
    return FitError(Problem("E-RESAMPLES", "no resample could be fitted", remedy="Use fewer columns or more patients"))


def corrected_for_optimism(apparent: Vector, training: Matrix, test: Matrix) -> OptimismCorrected:
    """Means over the resamples in which both sides are known."""
    count = (known := np.isfinite(training + test)).sum(axis=0)
    with np.errstate(invalid="ignore"):
        means = [np.where(known, side, 0.0).sum(axis=0) / np.where(count, count, np.nan) for side in (training, test)]
    return OptimismCorrected(apparent, means[0], means[1], count)
