"""The cumulative/dynamic AUC over time: how discrimination changes with the horizon."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mtdlr.stats.kaplan_meier import kaplan_meier
from mtdlr.stats.time_roc import auc_at
from mtdlr.survival import Survival

Vector = NDArray[np.float64]

_FEWEST = 5  # events and patients at risk on each side of a month


@dataclass(frozen=True, eq=False)
class AucCurve:
    """AUC(t) at several months.

    Args:
        months: (m,), ascending.
        auc, low, high: (m,), with pointwise normal intervals; nan where the data do not reach.
        mean: average over the months, weighted by the fall of the Kaplan-Meier curve between them; nan when one is.
    """

    months: Vector
    auc: Vector
    low: Vector
    high: Vector
    mean: float


def auc_curve(risk: ArrayLike, surv: Survival, months: ArrayLike, *, level: float = 0.95) -> AucCurve:
    """AUC(t) of a risk over several months, with pointwise intervals.

    Args:
        risk: (n,), higher is worse.
        surv: follow-up of the same n patients.
        months: (m,), ascending horizons > 0.
        level: coverage of the intervals.

    Raises:
        TableError: E-LENGTH, E-MISSING.

    References:
        Blanche et al. Stat Med 2013; Lambert & Chevret, SMMR 2016 (mean); timeROC in R.
    """
    grid = np.asarray(months, dtype=np.float64)
    found = [auc_at(risk, surv, float(month), level=level).auc for month in grid]
    auc, low, high = (np.array([getattr(one, name) for one in found]) for name in ("value", "low", "high"))
    stay = np.array([1.0, *(at.value for at in kaplan_meier(surv).at(grid))])
    fall = -np.diff(stay)
    mean = float(auc @ fall / fall.sum()) if fall.sum() > 0 else float("nan")
    return AucCurve(grid, auc, low, high, mean)


def curve_months(surv: Survival, points: int = 25) -> Vector:
    """Months at which an AUC curve is worth drawing: evenly from the 5th event to the last with 5 patients left.

    Args:
        surv: follow-up of the patients whose AUC curve is drawn.
        points: how many months; >= 1.

    Returns:
        (m,) ascending; empty with fewer than five events, or when so few patients are left before the fifth.

    >>> curve_months(Survival([1.0, 2.0], [1, 1])).size
    0
    """
    events = np.sort(surv.time_months[surv.event])
    if events.size < _FEWEST or len(surv) < 2 * _FEWEST:
        return np.empty(0)
    first, last = float(events[_FEWEST - 1]), float(np.sort(surv.time_months)[-_FEWEST])
    return np.linspace(first, last, points, endpoint=False) if last > first else np.empty(0)
