"""How a Cox coefficient changes with time: scaled Schoenfeld residuals and a smooth curve through them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mtdlr.stats.cox import CoxFit
from mtdlr.stats.cox_residuals import cox_residuals
from mtdlr.stats.inference import normal_quantile
from mtdlr.stats.kaplan_meier import kaplan_meier
from mtdlr.stats.terms import spline_basis
from mtdlr.survival import Survival

Vector = NDArray[np.float64]

_POINTS = 40
_BEND_EVENTS = 12  # three for each coefficient of the curve; a straight line below


@dataclass(frozen=True, eq=False)
class HazardTrend:
    """One coefficient against time, as in R's plot(cox.zph).

    Args:
        name: column of the model.
        coef: its coefficient, the level a constant effect has.
        time, residual: (m,), months of the events and scaled Schoenfeld residuals there.
        grid: (k,), months of the curve, even on the scale 1 - Kaplan-Meier.
        smooth, low, high: (k,), natural spline through the residuals (four degrees of freedom) with its 95 % band.
    """

    name: str
    coef: float
    time: Vector
    residual: Vector
    grid: Vector
    smooth: Vector
    low: Vector
    high: Vector


def hazard_trends(fit: CoxFit, x: ArrayLike, surv: Survival) -> dict[str, HazardTrend]:
    """The trend over time of each coefficient of a fit, on the patients it was fitted to.

    Columns that the fit dropped or whose coefficient is infinite have none. With fewer than 12 events the curve is a
    straight line, with fewer than 3 there is no curve.

    Args:
        fit: the model, without strata.
        x: (n, p), what it was fitted to.
        surv: follow-up of the same n patients.

    References:
        Grambsch & Therneau, Biometrika 1994; plot.cox.zph in R's survival, transform = "km".
    """
    found = cox_residuals(fit, x, surv)
    time = surv.time_months[found.event_rows]
    scale = _scale(time, surv)
    kept = [j for j, name in enumerate(fit.names) if name not in (*fit.dropped, *fit.monotone)]
    if time.size < 3 or np.ptp(scale) == 0:
        return {}
    basis, knots = _bases(scale)
    points = np.linspace(scale.min(), scale.max(), _POINTS)
    grid_basis = _columns(points, knots)
    solve = np.linalg.pinv(basis)
    spread = np.sqrt(((grid_basis @ solve) ** 2).sum(axis=1))
    z = normal_quantile(0.95)
    months = np.interp(points, *_rising(scale, time))
    trends = {}
    for j in kept:
        residual = found.scaled_schoenfeld[:, j]
        smooth = grid_basis @ (solve @ residual)
        half = z * float(fit.se[j]) * np.sqrt(time.size) * spread
        trends[fit.names[j]] = HazardTrend(fit.names[j], float(fit.coef[j]), time, residual, months, smooth,
                                           smooth - half, smooth + half)
    return trends


def _scale(time: Vector, surv: Survival) -> Vector:
    """1 - Kaplan-Meier just before each time."""
    curve = kaplan_meier(surv)
    before = np.concatenate(([1.0], curve.survival))[np.searchsorted(curve.time, time, side="left")]
    return 1.0 - before


def _bases(scale: Vector) -> tuple[NDArray[np.float64], Vector]:
    """Columns of the curve at the events, and its knots: the thirds of grid and events together, as in R."""
    points = np.linspace(scale.min(), scale.max(), _POINTS)
    knots = np.quantile(np.concatenate((points, scale)), [0.0, 1 / 3, 2 / 3, 1.0])
    if scale.size < _BEND_EVENTS or (np.diff(knots) <= 0).any():
        knots = np.empty(0)
    return _columns(scale, knots), knots


def _columns(scale: Vector, knots: Vector) -> NDArray[np.float64]:
    """Intercept and natural spline, or a straight line without knots."""
    inner = spline_basis(scale, knots.tolist()) if knots.size else scale[:, None]
    return np.column_stack([np.ones(scale.size), inner])


def _rising(scale: Vector, time: Vector) -> tuple[Vector, Vector]:
    """Distinct values of the scale with the first month each stands for."""
    order = np.argsort(time, kind="stable")
    values, first = np.unique(scale[order], return_index=True)
    return values, time[order][first]
