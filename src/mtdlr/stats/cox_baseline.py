"""The baseline hazard of a Cox model, and the survival that follows from it; hazards are kept as logarithms, so that no
linear predictor makes them overflow or vanish."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

from mtdlr.errors import FitError, Problem
from mtdlr.stats.cox_likelihood import EventTerms, RiskSets

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

_LARGEST_LOG = 700.0  # exp(700) is finite, and survival under that hazard is 0 to the last bit


@dataclass(frozen=True, eq=False)
class Baseline:
    """The cumulative baseline hazard H of the patient at the column means, at the event times of each stratum.

    Args:
        strata: labels; ("all",) without strata.
        last_month: (strata,) the longest follow-up of each, in months; survival beyond it is nan.
        stratum: (m,) index into strata, rising.
        time_months: (m,) event times, rising within a stratum.
        log_hazard: (m,) log H (R: log(basehaz(centered = TRUE)); ties as in the fit).
        log_variance: (m,) of log H with the coefficients held fixed.
        mean: (m, p) mean of the columns in the risk sets up to the time, weighted by the steps of H, less the column
            means; its distance from a patient's columns carries the uncertainty of the coefficients (Tsiatis 1981).
    """

    strata: tuple[str, ...]
    last_month: Vector
    stratum: NDArray[np.int64]
    time_months: Vector
    log_hazard: Vector
    log_variance: Vector
    mean: Matrix

    def log_cumulative_hazard(self, months: ArrayLike, stratum: str | None = None) -> Vector:
        """(k,) log H at k months: -inf before the first event, nan beyond the last follow-up.

        Raises:
            FitError: E-STRATUM.
        """
        return self._at(months, stratum, self.log_hazard[:, None], -np.inf)[:, 0]

    def log_hazard_se(self, rows: Matrix, months: ArrayLike, covariance: Matrix, stratum: str | None) -> Matrix:
        """(n, k) standard error of the log cumulative hazard of centred rows (n, p); 0 before the first event.

        Raises:
            FitError: E-STRATUM.
        """
        values = self._at(months, stratum, np.column_stack([self.log_variance, self.mean]), 0.0)
        variance, mean = values[:, 0], values[:, 1:]
        lean = mean[None, :, :] - rows[:, None, :]
        total = variance + np.einsum("nmi,ij,nmj->nm", lean, covariance, lean)
        early = np.isneginf(self.log_cumulative_hazard(months, stratum))
        result: Matrix = np.where(early, 0.0, np.sqrt(np.maximum(total, 0.0)))
        return result

    def _at(self, months: ArrayLike, stratum: str | None, values: Matrix, before: float) -> Matrix:
        """The rows of `values` at k months: a step function, `before` the first event, nan beyond the follow-up."""
        which = self._index(stratum)
        asked = np.atleast_1d(np.asarray(months, dtype=np.float64))
        mine = self.stratum == which
        steps = np.vstack([np.full(values.shape[1], before), values[mine]])
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
                   floats("log_hazard"), floats("log_variance"), floats("mean").reshape(time.size, -1))


def survival_of(log_hazard: ArrayLike) -> NDArray[np.float64]:
    """Survival exp(-H) of log cumulative hazards of any size, exact at both ends: 1 for -inf, 0 from 700 on.

    >>> survival_of([-np.inf, 0.0, 1e3]).round(3).tolist()
    [1.0, 0.368, 0.0]
    """
    result: NDArray[np.float64] = np.exp(-np.exp(np.minimum(np.asarray(log_hazard, dtype=np.float64), _LARGEST_LOG)))
    return result


def baseline_hazard(terms: EventTerms, sets: RiskSets, strata: tuple[str, ...]) -> Baseline:
    """The baseline of the likelihood terms of a fit.

    Args:
        terms: at the fitted coefficients, with x centred at its means.
        sets: the risk sets.
        strata: labels by stratum code.
    """
    stratum = sets.stratum[terms.group]
    log_hazard, log_variance, mean = _running(np.log(terms.share) - terms.log_at_risk - terms.shift, terms.share,
                                              terms.mean, stratum)
    ends = np.flatnonzero(np.append(True, terms.group[1:] != terms.group[:-1]))  # the sum over a time's tied terms
    ends = ends[np.lexsort((sets.time[terms.group[ends]], stratum[ends]))]
    last = np.array([sets.time[sets.stratum == code].max() for code in range(len(strata))])
    return Baseline(strata, last, stratum[ends], sets.time[terms.group[ends]], log_hazard[ends], log_variance[ends],
                    mean[ends])


@njit(cache=True, error_model="numpy")
def _running(log_step, share, mean, stratum):  # type: ignore[no-untyped-def]
    """Log of the running sum of the steps, its variance and the step-weighted mean; terms run from late to early."""
    m, p = mean.shape
    log_hazard, log_variance, weighted = np.empty(m), np.empty(m), np.empty((m, p))
    for k in range(m - 1, -1, -1):
        if k == m - 1 or stratum[k] != stratum[k + 1]:
            log_hazard[k], log_variance[k] = log_step[k], 1.0 / share[k]
            weighted[k] = mean[k]
            continue
        total = np.logaddexp(log_hazard[k + 1], log_step[k])
        before, new = np.exp(log_hazard[k + 1] - total), np.exp(log_step[k] - total)
        log_hazard[k] = total
        log_variance[k] = before**2 * log_variance[k + 1] + new**2 / share[k]
        for a in range(p):
            weighted[k, a] = before * weighted[k + 1, a] + new * mean[k, a]
    return log_hazard, log_variance, weighted
