"""The baseline hazard of a Cox model, and the survival that follows from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mtdlr.errors import FitError, Problem
from mtdlr.stats.cox_likelihood import EventTerms, RiskSets, baseline_steps

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Baseline:
    """The cumulative baseline hazard at the event times of each stratum (R: basehaz; ties as in the fit).

    Args:
        strata: labels; ("all",) without strata.
        last_month: (strata,) the longest follow-up of each; nothing is said beyond it.
        stratum: (m,) index into strata, rising.
        time_months: (m,) event times, rising within a stratum.
        cumulative_hazard: (m,) at x = 0.
        centred: (m,) at the column means of the fit.
        variance: (m,) of `centred` with the coefficients held fixed.
        drift: (m, p) its derivative by the coefficients, with a minus sign.
    """

    strata: tuple[str, ...]
    last_month: Vector
    stratum: NDArray[np.int64]
    time_months: Vector
    cumulative_hazard: Vector
    centred: Vector
    variance: Vector
    drift: Matrix

    def survival(self, relative: Vector, months: ArrayLike, stratum: str | None) -> Matrix:
        """(n, m) survival of patients whose log hazard relative to the means is `relative` (n,)."""
        hazard = self._at(months, stratum, self.centred[:, None])[:, 0]
        result: Matrix = np.exp(-np.exp(relative)[:, None] * hazard)
        return result

    def log_hazard_se(self, rows: Matrix, months: ArrayLike, covariance: Matrix, stratum: str | None) -> Matrix:
        """(n, m) standard error of the log cumulative hazard of centred rows (n, p); nan before the first event."""
        values = self._at(months, stratum, np.column_stack([self.centred, self.variance, self.drift]))
        hazard, variance, drift = values[:, 0], values[:, 1], values[:, 2:]
        lean = drift[None, :, :] - rows[:, None, :] * hazard[None, :, None]
        total = variance + np.einsum("nmi,ij,nmj->nm", lean, covariance, lean)
        with np.errstate(invalid="ignore", divide="ignore"):
            result: Matrix = np.sqrt(total) / hazard
        return result

    def _at(self, months: ArrayLike, stratum: str | None, values: Matrix) -> Matrix:
        """The rows of `values` at m months: a step function from 0, nan beyond the follow-up."""
        which = self._index(stratum)
        asked = np.atleast_1d(np.asarray(months, dtype=np.float64))
        mine = self.stratum == which
        steps = np.vstack([np.zeros(values.shape[1]), values[mine]])
        found = steps[np.searchsorted(self.time_months[mine], asked, side="right")]
        return np.where((asked <= self.last_month[which])[:, None], found, np.nan)

    def _index(self, stratum: str | None) -> int:
        if stratum is None and len(self.strata) == 1:
            return 0
        if stratum not in self.strata:
            raise FitError(Problem("E-STRATUM", "the model has no such stratum", found=str(stratum),
                                   expected=" or ".join(self.strata)))
        return self.strata.index(stratum)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {field.name: np.asarray(getattr(self, field.name)).tolist() for field in fields(self)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Baseline:
        """The baseline that `as_dict` wrote."""
        def floats(key: str) -> Vector:
            return np.array(values[key], dtype=np.float64)

        time = floats("time_months")
        return cls(tuple(values["strata"]), floats("last_month"), np.array(values["stratum"], dtype=np.int64), time,
                   floats("cumulative_hazard"), floats("centred"), floats("variance"),
                   floats("drift").reshape(time.size, -1))


def baseline_hazard(terms: EventTerms, sets: RiskSets, center: float, strata: tuple[str, ...]) -> Baseline:
    """The baseline of the likelihood terms of a fit; not finite where the events are separated (the fit says so).

    Args:
        terms: at the fitted coefficients, with x centred at its means.
        sets: the risk sets.
        center: the log hazard at the means.
        strata: labels by stratum code.
    """
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        scale = np.exp(-terms.shift)
        step = terms.share / terms.at_risk * scale
        values = np.column_stack([step, terms.share * (scale / terms.at_risk) ** 2, step[:, None] * terms.mean])
    sums = baseline_steps(terms, sets, values)
    has_event = np.isin(np.arange(sets.time.size), terms.group)
    rows = np.flatnonzero(has_event)
    rows = rows[np.lexsort((sets.time[rows], sets.stratum[rows]))]
    last = np.array([sets.time[sets.stratum == code].max() for code in range(len(strata))])
    centred = sums[rows, 0]
    with np.errstate(over="ignore", invalid="ignore"):
        at_zero = centred * np.exp(-center)
    return Baseline(strata, last, sets.stratum[rows], sets.time[rows], at_zero, centred, sums[rows, 1], sums[rows, 2:])
