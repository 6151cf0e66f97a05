"""How much of a Cox model's calibration is optimism, by the bootstrap (R: rms calibrate)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Unpack

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mtdlr.errors import FitError, Problem
from mtdlr.stats.cox import Ties
from mtdlr.stats.cox_baseline import log_hazard_at, survival_of
from mtdlr.stats.optimism import (
    OptimismCorrected,
    RefittedModel,
    Resampling,
    both_sides,
    corrected_for_optimism,
    draws,
    left_out,
    no_resample,
)
from mtdlr.stats.resample_statistics import group_survival, maximum_near
from mtdlr.stats.terms import harrell_knots, spline_basis
from mtdlr.survival import Survival

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
Index = NDArray[np.int64]

_CURVE_POINTS = 101
_CURVE_KNOTS = 3
_CURVE_TRIM = 4  # patients beyond either end of the curve


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
        return left_out(self.failed, self.resamples)

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


def calibrate_bootstrap(
    x: ArrayLike,
    surv: Survival,
    month: float,
    *,
    n_groups: int = 5,
    ties: Ties = "efron",
    **resampling: Unpack[Resampling],
) -> BootstrapCalibration:
    """The optimism-corrected calibration, at a month, of the Cox model of `surv` on x.

    Args:
        x: (n, p) design matrix.
        surv: follow-up.
        month: horizon in months, within the follow-up.
        n_groups: groups of predicted survival, cut at its quantiles.
        ties: as in `fit_cox`.
        n_resamples: as in `validate_bootstrap`, 1000 by default.
        seed: as in `validate_bootstrap`, 0 by default.
        indices: as in `validate_bootstrap`.

    Raises:
        FitError: as `validate_bootstrap`; E-FOLLOWUP when the month is before the first event or beyond the follow-up.
    """
    resamples = draws(len(surv), **resampling)
    model = RefittedModel.checked(x, surv, ties)
    times = surv.time_months
    if not times[surv.event].min() <= month <= times.max():
        raise FitError(Problem("E-FOLLOWUP", "no calibration at a month before the first event or after the follow-up",
                               found=f"{month:g} months",
                               expected=f"{times[surv.event].min():g} to {times.max():g}"))
    ones = np.ones(len(surv))
    scale = model.scale_at(ones, month)
    if scale is None:
        raise no_resample()
    judge = _Judge.of(model, float(month), scale, n_groups)
    reading = judge.read(scale)
    apparent = judge.difference(reading, ones)
    if apparent is None:
        raise no_resample()
    training, test, failed = both_sides(resamples, judge.differences)
    both, table = corrected_for_optimism(apparent, training, test), judge.groups(reading, ones)
    groups, curve = both.part(slice(len(table))), both.part(slice(len(table), None))
    return BootstrapCalibration(
        month=float(month), group_predicted=table[:, 0], group_observed=table[:, 1], group_se=table[:, 2],
        group_n=table[:, 3].astype(np.int64), groups=groups, predicted=judge.grid_survival, curve=curve,
        mean_absolute_error=float(np.interp(scale, judge.grid, np.abs(curve.corrected)).mean()),
        resamples=len(training) + failed, failed=failed,
    )


class _Reading(NamedTuple):
    """Predictions (n,) at a month: survival, group code, spline columns less their means, the grid's less the same."""

    survival: Vector
    code: Index
    basis: Matrix
    grid_basis: Matrix


@dataclass(frozen=True, eq=False)
class _Judge:
    """How predictions at a month differ from what happened: by group, and along a smooth curve."""

    model: RefittedModel
    month: float
    cuts: Vector
    knots: tuple[float, ...]
    grid: Vector
    grid_basis: Matrix
    grid_survival: Vector

    @classmethod
    def of(cls, model: RefittedModel, month: float, scale: Vector, n_groups: int) -> _Judge:
        """Groups, knots and grid from the predictions of the model of the original patients."""
        survival, ranked = np.exp(-np.exp(scale)), np.sort(scale)
        cuts = np.unique(np.quantile(np.append(survival, (0.0, 1.0)), np.linspace(0.0, 1.0, n_groups + 1)))
        inner = min(_CURVE_TRIM, scale.size // 4)
        grid = np.linspace(float(ranked[inner]), float(ranked[-1 - inner]), _CURVE_POINTS)
        knots = harrell_knots(scale, _CURVE_KNOTS)
        return cls(model, month, cuts, knots, grid, spline_basis(grid, knots), np.exp(-np.exp(grid)))

    def read(self, scale: Vector) -> _Reading:
        """What the predictions are to groups and curve, whoever is judged by them."""
        survival = np.exp(-np.exp(scale))
        code = np.minimum(np.maximum(np.searchsorted(self.cuts, survival, side="right") - 1, 0), self.cuts.size - 2)
        basis = spline_basis(scale, self.knots)
        center = basis.mean(axis=0)
        return _Reading(survival, code, np.ascontiguousarray(basis - center), self.grid_basis - center)

    def groups(self, reading: _Reading, counts: Vector) -> Matrix:
        """(g, 4): mean predicted, Kaplan-Meier, se of its log, patients."""
        rows = self.model.with_counts(counts)
        table: Matrix = group_survival(reading.survival, reading.code, rows, self.model.time, self.month,
                                       self.cuts.size - 1)
        return table

    def smooth(self, reading: _Reading, counts: Vector) -> Vector | None:
        """(k,) smoothed observed survival on the grid."""
        rows = self.model.with_counts(counts, reading.basis)
        fit = maximum_near(rows, np.eye(1, reading.basis.shape[1])[0])  # a calibrated model has slope 1 and no bend
        if fit is None:
            return None
        log_hazard = log_hazard_at(rows, rows.x @ fit[0], self.model.time, self.month)
        return survival_of(log_hazard + reading.grid_basis @ fit[0])

    def difference(self, reading: _Reading, counts: Vector) -> Vector | None:
        """(g + k,) observed minus predicted survival, by group and along the curve."""
        curve = self.smooth(reading, counts)
        if curve is None:
            return None
        table = self.groups(reading, counts)
        return np.concatenate([table[:, 1] - table[:, 0], curve - self.grid_survival])

    def differences(self, counts: Vector) -> tuple[Vector, Vector] | None:
        """The differences of a resample's model on the resample and on the original patients."""
        scale = self.model.scale_at(counts, self.month)
        if scale is None:
            return None
        reading = self.read(scale)
        training = self.difference(reading, counts[self.model.order])
        test = self.difference(reading, np.ones(scale.size))
        return None if training is None or test is None else (training, test)
