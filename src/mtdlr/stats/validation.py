"""How much of a Cox model's performance is optimism: bootstrap validation and calibration (R: rms validate, calibrate).

In each resample the model is fitted again and judged twice, on the resample and on the original patients; the mean
difference is the optimism, which is taken off the apparent value (Harrell, Lee and Mark, Stat Med 1996). Resamples are
counts of the sorted patients, so nothing is sorted or copied twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mtdlr.errors import FitError, Problem
from mtdlr.estimate import Estimate
from mtdlr.stats.checks import one_of, whole
from mtdlr.stats.cox import TIES, Ties
from mtdlr.stats.cox_baseline import log_hazard_at, survival_of
from mtdlr.stats.cox_likelihood import SortedRows
from mtdlr.stats.cox_rows import Cases, CoxRows, informative
from mtdlr.stats.resample_statistics import (
    fitted_discrimination,
    frozen_discrimination,
    group_survival,
    maximum_near,
    null_loglik,
)
from mtdlr.stats.terms import harrell_knots, spline_basis
from mtdlr.survival import Survival

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
Index = NDArray[np.int64]

_STATISTICS = ("dxy", "r2", "slope", "d", "u", "q", "g")
_CURVE_POINTS = 101
_CURVE_KNOTS = 3
_CURVE_TRIM = 4  # patients beyond either end of the curve


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
        return _left_out(self.failed, self.resamples)

    def row(self, name: str) -> dict[str, float]:
        """apparent, training, test, optimism and corrected value of one measure; "c" is there too."""
        at = self.names.index("dxy" if name == "c" else name)
        keys = ("apparent", "training", "test", "optimism", "corrected")
        values = {key: float(getattr(self.table, key)[at]) for key in keys}
        if name != "c":
            return values
        return {key: value / 2.0 + (0.0 if key == "optimism" else 0.5) for key, value in values.items()}


@dataclass(frozen=True, eq=False)
class BootstrapCalibration:
    """Optimism-corrected calibration of a Cox model at a month (R: rms::calibrate.cph).

    All curves are of survival. Differences are observed minus predicted.

    Args:
        month: horizon.
        group_predicted, group_observed, group_se, group_n: (g,) mean predicted survival, Kaplan-Meier survival,
            standard error of its log, and patients, by group of predicted survival.
        groups: the differences of the groups.
        predicted: (k,) survival at which the smooth curve is read.
        curve: its differences; the observed survival is a hazard regression on a spline of log(-log(predicted)).
        mean_absolute_error: of the corrected curve, over the patients.
        resamples, failed: how many were asked for, and how many could not be fitted.
    """

    month: float
    group_predicted: Vector
    group_observed: Vector
    group_se: Vector
    group_n: Index
    groups: OptimismCorrected
    predicted: Vector
    curve: OptimismCorrected
    mean_absolute_error: float
    resamples: int
    failed: int

    @property
    def problems(self) -> tuple[Problem, ...]:
        """W-RESAMPLES where resamples could not be fitted."""
        return _left_out(self.failed, self.resamples)

    @property
    def group_corrected(self) -> Vector:
        """(g,) observed survival less the optimism."""
        return self.group_observed - self.groups.optimism

    @property
    def observed(self) -> Vector:
        """(k,) the apparent smooth curve."""
        return self.predicted + self.curve.apparent

    @property
    def corrected(self) -> Vector:
        """(k,) the smooth curve less the optimism."""
        return self.predicted + self.curve.corrected


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
    model = _Model.checked(x, surv, ties)
    whole = model.measures(np.ones(len(surv)))
    if whole is None:
        raise _no_resample()
    training, test, failed = _both_sides(_draws(len(surv), n_resamples, seed, indices), model.measures)
    table = _corrected(whole[0], training, test)
    optimism = float(table.optimism[0]) / 2.0
    low, high = np.quantile(training[:, 0] / 2.0 + 0.5, (0.5 - level / 2.0, 0.5 + level / 2.0)) - optimism
    c = Estimate(float(table.corrected[0]) / 2.0 + 0.5, float(low), float(high))
    return Validation(_STATISTICS, table, c, len(training) + failed, failed)


def calibrate_bootstrap(  # noqa: PLR0913
    x: ArrayLike,
    surv: Survival,
    month: float,
    *,
    n_groups: int = 5,
    n_resamples: int = 1000,
    seed: int = 0,
    indices: ArrayLike | None = None,
    ties: Ties = "efron",
) -> BootstrapCalibration:
    """The optimism-corrected calibration, at a month, of the Cox model of `surv` on x.

    Args:
        x: (n, p) design matrix.
        surv: follow-up.
        month: horizon in months, within the follow-up.
        n_groups: groups of predicted survival, cut at its quantiles.
        n_resamples: as in `validate_bootstrap`.
        seed: as in `validate_bootstrap`.
        indices: as in `validate_bootstrap`.
        ties: as in `fit_cox`.

    Raises:
        FitError: as `validate_bootstrap`; E-FOLLOWUP when the month is before the first event or beyond the follow-up.
    """
    model = _Model.checked(x, surv, ties)
    times = surv.time_months
    if not times[surv.event].min() <= month <= times.max():
        raise FitError(Problem("E-FOLLOWUP", "no calibration at a month before the first event or after the follow-up",
                               found=f"{month:g} months",
                               expected=f"{times[surv.event].min():g} to {times.max():g}"))
    ones = np.ones(len(surv))
    scale = model.scale_at(ones, month)
    if scale is None:
        raise _no_resample()
    judge = _Judge.of(model, float(month), scale, n_groups)
    apparent = judge.difference(scale, ones)
    if apparent is None:
        raise _no_resample()
    training, test, failed = _both_sides(_draws(len(surv), n_resamples, seed, indices), judge.differences)
    both, table = _corrected(apparent, training, test), judge.groups(scale, ones)
    groups, curve = both.part(slice(len(table))), both.part(slice(len(table), None))
    return BootstrapCalibration(
        month=float(month), group_predicted=table[:, 0], group_observed=table[:, 1], group_se=table[:, 2],
        group_n=table[:, 3].astype(np.int64), groups=groups, predicted=np.exp(-np.exp(judge.grid)), curve=curve,
        mean_absolute_error=float(np.interp(scale, judge.grid, np.abs(curve.corrected)).mean()),
        resamples=len(training) + failed, failed=failed,
    )


@dataclass(frozen=True, eq=False)
class _Model:
    """A Cox model that is fitted again and again to counts of the same sorted patients.

    Each fit starts at the coefficients of the original patients, beta, whose log likelihood at 0 is null.
    """

    rows: SortedRows
    time: Vector
    order: Index
    beta: Vector
    null: float

    @classmethod
    def checked(cls, x: ArrayLike, surv: Survival, ties: Ties) -> _Model:
        """The checked model; raises the errors of `fit_cox`."""
        one_of(ties, TIES, "treatment of ties")
        data = CoxRows.checked(x, surv, None, Cases())
        rows = informative(data, efron=ties == "efron")[1]
        fit = maximum_near(rows, np.zeros(rows.x.shape[1]))
        if fit is None:
            raise _no_resample()
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
        return (fitted_discrimination(resample, eta, self.time, null_loglik(resample), fit[1]),
                frozen_discrimination(everyone, eta, self.time, slope=float(refit[0][0]), null=self.null,
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


@dataclass(frozen=True, eq=False)
class _Judge:
    """How predictions at a month differ from what happened: by group, and along a smooth curve."""

    model: _Model
    month: float
    cuts: Vector
    knots: tuple[float, ...]
    grid: Vector
    grid_basis: Matrix

    @classmethod
    def of(cls, model: _Model, month: float, scale: Vector, n_groups: int) -> _Judge:
        """Groups, knots and grid from the predictions of the model of the original patients."""
        survival, ranked = np.exp(-np.exp(scale)), np.sort(scale)
        cuts = np.unique(np.quantile(np.append(survival, (0.0, 1.0)), np.linspace(0.0, 1.0, n_groups + 1)))
        inner = min(_CURVE_TRIM, scale.size // 4)
        grid = np.linspace(float(ranked[inner]), float(ranked[-1 - inner]), _CURVE_POINTS)
        knots = harrell_knots(scale, _CURVE_KNOTS)
        return cls(model, month, cuts, knots, grid, spline_basis(grid, knots))

    def groups(self, scale: Vector, counts: Vector) -> Matrix:
        """(g, 4): mean predicted, Kaplan-Meier, se of its log, patients, of predictions on the cloglog scale."""
        survival = np.exp(-np.exp(scale))
        code = np.clip(np.searchsorted(self.cuts, survival, side="right") - 1, 0, self.cuts.size - 2)
        rows = self.model.with_counts(counts)
        return group_survival(survival, code, rows, self.model.time, self.month, self.cuts.size - 1)

    def smooth(self, scale: Vector, counts: Vector) -> Vector | None:
        """(k,) smoothed observed survival on the grid."""
        basis = spline_basis(scale, self.knots)
        center = basis.mean(axis=0)
        rows = self.model.with_counts(counts, basis - center)
        fit = maximum_near(rows, np.eye(1, basis.shape[1])[0])  # a calibrated model has slope 1 and no bend
        if fit is None:
            return None
        log_hazard = log_hazard_at(rows, rows.x @ fit[0], self.model.time, self.month)
        return survival_of(log_hazard + (self.grid_basis - center) @ fit[0])

    def difference(self, scale: Vector, counts: Vector) -> Vector | None:
        """(g + k,) observed minus predicted survival, by group and along the curve."""
        curve = self.smooth(scale, counts)
        if curve is None:
            return None
        table = self.groups(scale, counts)
        return np.concatenate([table[:, 1] - table[:, 0], curve - np.exp(-np.exp(self.grid))])

    def differences(self, counts: Vector) -> tuple[Vector, Vector] | None:
        """The differences of a resample's model on the resample and on the original patients."""
        scale = self.model.scale_at(counts, self.month)
        if scale is None:
            return None
        training = self.difference(scale, counts[self.model.order])
        test = self.difference(scale, np.ones(scale.size))
        return None if training is None or test is None else (training, test)


def _draws(n: int, n_resamples: int, seed: int, indices: ArrayLike | None) -> Iterator[Vector]:
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


def _both_sides(
    draws: Iterator[Vector], measure: Callable[[Vector], tuple[Vector, Vector] | None]
) -> tuple[Matrix, Matrix, int]:
    """Each resample's measures on itself and on the original patients, and how many resamples had no fit."""
    pairs = [measure(counts) for counts in draws]
    good = [pair for pair in pairs if pair is not None]
    if not good:
        raise _no_resample()
    training, test = (np.array([pair[side] for pair in good]) for side in (0, 1))
    return training, test, len(pairs) - len(good)


def _left_out(failed: int, resamples: int) -> tuple[Problem, ...]:
    """W-RESAMPLES with the share of resamples that were left out."""
    return () if not failed else (Problem(
        "W-RESAMPLES", "bootstrap resamples in which no finite coefficient fits were left out; corrected values are "
        "a little too good", where="bootstrap validation",
        found=f"{failed} of {resamples} ({100 * failed / resamples:.2g} %)",
        remedy="Take fewer columns, or Firth's method (stats.firth_cox)"),)


def _no_resample() -> FitError:
    return FitError(Problem("E-RESAMPLES", "no resample could be fitted", remedy="Use fewer columns or more patients"))


def _corrected(apparent: Vector, training: Matrix, test: Matrix) -> OptimismCorrected:
    """Means over the resamples in which both sides are known."""
    count = (known := np.isfinite(training + test)).sum(axis=0)
    with np.errstate(invalid="ignore"):
        means = [np.where(known, side, 0.0).sum(axis=0) / np.where(count, count, np.nan) for side in (training, test)]
    return OptimismCorrected(apparent, means[0], means[1], count)
