"""Residuals of a Cox model and the test of proportional hazards (R: residuals.coxph, and cox.zph of survival >= 3)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mtdlr.errors import FitError, Problem
from mtdlr.stats.checks import one_of
from mtdlr.stats.cox import CoxFit
from mtdlr.stats.cox_likelihood import sorted_rows
from mtdlr.stats.cox_robust import event_means, score_rows
from mtdlr.stats.cox_rows import Cases, CoxRows
from mtdlr.stats.cox_terms import EventTerms, accumulated, event_terms
from mtdlr.stats.inference import Test, chi_square_test
from mtdlr.survival import Survival

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
Index = NDArray[np.int64]
TimeScale = Literal["km", "rank", "identity", "log"]
TRANSFORMS = ("km", "rank", "identity", "log")


@dataclass(frozen=True, eq=False)
class CoxResiduals:
    """Residuals of n patients and m events.

    Args:
        martingale: (n,) events seen minus events expected.
        deviance: (n,) the same, made symmetric.
        score: (n, p) each patient's part of the score, without the case weight.
        dfbeta: (n, p) change of the coefficients when the patient is there.
        event_rows: (m,) the patients with events, by stratum and rising time.
        schoenfeld: (m, p) their x minus its mean in the risk set.
        scaled_schoenfeld: (m, p) the same as local estimates of the coefficients.
    """

    martingale: Vector
    deviance: Vector
    score: Matrix
    dfbeta: Matrix
    event_rows: Index
    schoenfeld: Matrix
    scaled_schoenfeld: Matrix


def cox_residuals(
    fit: CoxFit,
    x: ArrayLike,
    surv: Survival,
    *,
    cases: Cases | None = None,
) -> CoxResiduals:
    """The residuals of a fit on the patients it was fitted to.

    Args:
        fit: the model.
        x: the design matrix it was fitted to.
        surv: the follow-up it was fitted to.
        cases: as in `fit_cox`.

    Raises:
        FitError, TableError: as `fit_cox`.

    References: Therneau and Grambsch, Modeling Survival Data (2000), chapters 4, 6 and 7.
    """
    at = _Fitted.of(fit, x, surv, cases)
    sets, terms = at.data.sets, at.terms
    back = np.argsort(sets.order)
    weight = np.where(at.data.weight > 0, at.data.weight, 1.0)
    expected = accumulated(terms, sets, terms.share) / weight
    martingale = sets.event - expected
    expected_of_events = np.where(sets.event, np.maximum(expected, np.finfo(float).tiny), 1.0)
    inner = martingale + np.log(expected_of_events)
    deviance = np.sign(martingale) * np.sqrt(np.maximum(-2.0 * inner, 0.0))
    weighted = score_rows(at.x, at.data.weight, terms, sets)
    events = np.flatnonzero(sets.event)
    events = events[np.lexsort((sets.time[sets.group[events]], sets.stratum[sets.group[events]]))]
    schoenfeld = (at.x - event_means(terms, sets)[sets.group])[events]
    variance = at.variance()
    return CoxResiduals(
        martingale=martingale[back], deviance=deviance[back], score=(weighted / weight[:, None])[back],
        dfbeta=(weighted / weight[:, None] @ variance)[back], event_rows=sets.order[events], schoenfeld=schoenfeld,
        scaled_schoenfeld=len(events) * schoenfeld @ variance + fit.coef,
    )


def proportional_hazards_test(
    fit: CoxFit,
    x: ArrayLike,
    surv: Survival,
    *,
    transform: TimeScale = "km",
    terms: Mapping[str, slice] | None = None,
    cases: Cases | None = None,
) -> dict[str, Test]:
    """The score test that each term's coefficients do not change with time, and "GLOBAL" for all of them.

    The exact score test of x * g(time), as in cox.zph of survival >= 3; the approximation of Grambsch and Therneau
    (1994) that older programs print can be far off.

    Args:
        fit: the model.
        x: the design matrix it was fitted to.
        surv: the follow-up it was fitted to.
        transform: g: 1 - Kaplan-Meier just before, the rank among all times, the time itself or its logarithm.
        terms: columns to test together, such as `design.slices`; every column alone when None.
        cases: as in `fit_cox`.

    Returns:
        The test of each term: chi-square, df, p; nan where the data cannot say, as when all events have one time.

    Raises:
        FitError: E-OPTION; E-SEPARATION when a coefficient of the fit is infinite.
    """
    one_of(transform, TRANSFORMS, "transform of time")
    if fit.monotone:
        raise FitError(Problem("E-SEPARATION", "proportional hazards cannot be tested with an infinite coefficient",
                               where=f"column {fit.monotone[0]}", remedy="Leave the column out"))
    at = _Fitted.of(fit, x, surv, cases)
    g = _time_scale(transform, at)[at.terms.group]
    g = g - g.mean()
    gap = at.x - event_means(at.terms, at.data.sets)[at.data.sets.group]
    by_group = np.zeros(at.data.sets.time.size)
    by_group[at.terms.group] = g
    died = at.data.sets.event
    score = gap[died].T @ (at.data.weight * by_group[at.data.sets.group])[died]
    kept = [j for j, name in enumerate(fit.names) if name not in fit.dropped]
    constant, mixed, changing = (at.information(power)[np.ix_(kept, kept)] for power in (g**0, g, g**2))
    left = changing - mixed @ np.linalg.solve(constant, mixed) if kept else changing
    blocks = terms if terms is not None else {name: slice(j, j + 1) for j, name in enumerate(fit.names)}
    tests = {}
    for name, block in {**blocks, "GLOBAL": slice(None)}.items():
        inside = [k for k, j in enumerate(kept) if j in range(len(fit.names))[block]]
        u = score[kept][inside]
        statistic = _quadratic(u, left[np.ix_(inside, inside)], changing[np.ix_(inside, inside)])
        tests[name] = chi_square_test(statistic, len(inside))
    return tests


def _quadratic(u: Vector, left: Matrix, whole: Matrix) -> float:
    """u' left^-1 u; nan where the coefficients take all of the information `whole` for themselves."""
    if not u.size or not (np.diag(left) > 1e-10 * np.diag(whole)).all() or np.linalg.matrix_rank(left) < u.size:
        return np.nan
    return float(u @ np.linalg.solve(left, u))


@dataclass(frozen=True, eq=False)
class _Fitted:
    """The rows of a fit, centred and in the order of the risk sets, and the terms of its likelihood."""

    data: CoxRows
    x: Matrix
    terms: EventTerms
    kept: Index

    @classmethod
    def of(
        cls, fit: CoxFit, x: ArrayLike, surv: Survival, cases: Cases | None,
    ) -> _Fitted:
        """At the coefficients of the fit."""
        data = CoxRows.checked(x, surv, fit.names, cases or Cases())
        centred = data.z * data.scale
        rows = sorted_rows(centred, data.weight, data.sets, efron=fit.ties == "efron")
        kept = np.array([j for j, name in enumerate(fit.names) if name not in fit.dropped], dtype=np.int64)
        return cls(data, centred, event_terms(rows, centred @ fit.coef + data.offset), kept)

    def information(self, multiplier: Vector) -> Matrix:
        """(p, p) the sum over the terms of the multiplier (m,) times the variance of x in the risk set."""
        step = multiplier * self.terms.share
        rows = accumulated(self.terms, self.data.sets, step)
        result: Matrix = self.x.T @ (self.x * rows[:, None]) - self.terms.mean.T @ (self.terms.mean * step[:, None])
        return result

    def variance(self) -> Matrix:
        """(p, p) the inverse of the information; 0 for dropped columns."""
        variance = np.zeros((self.x.shape[1], self.x.shape[1]))
        block = np.ix_(self.kept, self.kept)
        variance[block] = np.linalg.inv(self.information(np.ones(self.terms.share.size))[block])
        return variance


def _time_scale(transform: TimeScale, at: _Fitted) -> Vector:
    """(groups,) g of the time of each tie group."""
    sets = at.data.sets
    time = sets.time
    if transform == "identity":
        return time
    if transform == "log":
        return np.log(time)
    row_time, weight = time[sets.group], at.data.weight
    if transform == "rank":
        ranked = np.sort(row_time)
        low, high = (np.searchsorted(ranked, time, side=side) for side in ("left", "right"))
        return np.asarray((low + high + 1.0) / 2.0, dtype=np.float64)
    distinct = np.unique(row_time[sets.event])
    deaths = np.array([weight[sets.event & (row_time == t)].sum() for t in distinct])
    at_risk = np.array([weight[row_time >= t].sum() for t in distinct])
    survival = np.append(1.0, np.cumprod(1.0 - deaths / at_risk))
    return np.asarray(1.0 - survival[np.searchsorted(distinct, time, side="left")], dtype=np.float64)
