"""Cox's proportional hazards model: fitted once, carried as a value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from math import nan
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mtdlr.errors import FitError, Problem
from mtdlr.estimate import Estimate
from mtdlr.stats.cox_baseline import Baseline, baseline_hazard, survival_of
from mtdlr.stats.cox_likelihood import event_terms, newton, sorted_rows
from mtdlr.stats.cox_robust import sandwich, score_rows
from mtdlr.stats.cox_rows import CoxRows, codes_in_order, informative
from mtdlr.stats.inference import Test, chi_square_test, normal_quantile, two_sided_p
from mtdlr.survival import Survival

Ties = Literal["efron", "breslow"]
Matrix = NDArray[np.float64]
Vector = NDArray[np.float64]

_TOLERANCE = 1e-9  # Newton decrement; the step after it is quadratically smaller
_MAX_ITERATIONS = 200
_STILL_MOVING = 0.05  # change of the log hazard over a column's range in the last Newton step
_EVENTS_PER_VARIABLE = 10


@dataclass(frozen=True, eq=False)
class CoxFit:
    """A fitted Cox model.

    Args:
        names: (p,) columns, in the order of the design matrix.
        coef: (p,) log hazard ratios per unit; 0 for a dropped column.
        covariance: (p, p) of coef; the sandwich when `robust`.
        loglik_null, loglik: log partial likelihood at 0 and at coef.
        score_statistic: of the test at 0.
        ties: how tied events were treated.
        n, n_events: patients and events.
        means: (p,) column means, the patient the centred baseline belongs to.
        converged: whether Newton's method did.
        robust: whether covariance is the (clustered) sandwich.
        dropped: columns that say nothing the others do not: constant or collinear.
        monotone: columns whose coefficient is infinite; coef holds where the search stopped.
        baseline: cumulative hazard, under the same ties.
        problems: everything the reader should know (W-...).
    """

    names: tuple[str, ...]
    coef: Vector
    covariance: Matrix
    loglik_null: float
    loglik: float
    score_statistic: float
    ties: Ties
    n: int
    n_events: int
    means: Vector
    converged: bool
    robust: bool
    dropped: tuple[str, ...]
    monotone: tuple[str, ...]
    baseline: Baseline
    problems: tuple[Problem, ...]

    @property
    def se(self) -> Vector:
        """(p,) standard errors of coef."""
        result: Vector = np.sqrt(np.diag(self.covariance))
        return result

    @property
    def center(self) -> float:
        """The log hazard at the column means."""
        return float(self.means @ self.coef)

    @property
    def cumulative_hazard(self) -> Vector:
        """(m,) cumulative baseline hazard at x = 0 (R: basehaz(centered = FALSE)), at `baseline.time_months`; inf where
        it is beyond floating point."""
        with np.errstate(over="ignore"):
            result: Vector = np.exp(self.baseline.log_hazard - self.center)
        return result

    @property
    def df(self) -> int:
        """How many coefficients were estimated."""
        return len(self.names) - len(self.dropped)

    @property
    def likelihood_ratio(self) -> Test:
        """The likelihood-ratio test of the whole model."""
        return chi_square_test(2.0 * (self.loglik - self.loglik_null), self.df)

    @property
    def score_test(self) -> Test:
        """The score (log-rank) test of the whole model."""
        return chi_square_test(self.score_statistic, self.df)

    def wald(self, columns: Sequence[str] | slice | None = None) -> Test:
        """The Wald test that the coefficients of some columns are all 0 (all columns when None).

        Levels without events count in the degrees of freedom, as in SPSS; dropped columns do not.

        Args:
            columns: names, or a slice such as `design.slices["t_stage"]`.
        """
        wanted = self.names[columns] if isinstance(columns, slice) else self.names if columns is None else columns
        at = [self.names.index(name) for name in wanted if name not in self.dropped]
        beta, block = self.coef[at], self.covariance[np.ix_(at, at)]
        return chi_square_test(float(beta @ np.linalg.solve(block, beta)) if at else nan, len(at))

    def hazard_ratios(self, level: float = 0.95) -> dict[str, Estimate]:
        """The hazard ratio per unit of each column, with its Wald interval and p value.

        A column that was dropped or has no finite estimate (W-CONSTANT, W-SEPARATION, W-NOEVENTLEVEL) has nan in
        every field; `firth_cox` gives a finite one.
        """
        z = normal_quantile(level)
        ratios = {}
        for name, beta, se in zip(self.names, self.coef.tolist(), self.se.tolist(), strict=True):
            if name in self.dropped or name in self.monotone:
                ratios[name] = Estimate(nan)
            else:
                with np.errstate(over="ignore"):  # hardly any events: the upper limit is infinite
                    low, value, high = np.exp([beta - z * se, beta, beta + z * se]).tolist()
                ratios[name] = Estimate(value, low, high, two_sided_p(beta / se))
        return ratios

    def log_hazard(self, x: ArrayLike) -> Vector:
        """(n,) log hazard of the rows of x (n, p), relative to x = 0."""
        result: Vector = _rows(x, len(self.names)) @ self.coef
        return result

    def survival(self, x: ArrayLike, months: ArrayLike, *, stratum: str | None = None) -> Matrix:
        """(n, m) predicted survival of the rows of x (n, p) at m months; nan beyond the last follow-up.

        Args:
            x: design matrix.
            months: horizons in months.
            stratum: whose baseline, for a stratified model.

        Raises:
            FitError: E-STRATUM when the model is stratified and the stratum is not one of its own.
        """
        return survival_of(self._log_cumulative_hazard(x, months, stratum))

    def survival_interval(
        self, x: ArrayLike, months: ArrayLike, *, level: float = 0.95, stratum: str | None = None
    ) -> tuple[Matrix, Matrix]:
        """(low, high), both (n, m): the log-log interval of `survival`, from the uncertainty of both the baseline and
        the coefficients (Tsiatis 1981; R: survfit(conf.type = "log-log")).

        Both limits are 1 before the first event and nan beyond the last follow-up; they are finite for a log hazard of
        any size, because the limits are formed on the log cumulative hazard.
        """
        rows = _rows(x, len(self.names)) - self.means
        half = normal_quantile(level) * self.baseline.log_hazard_se(rows, months, self.covariance, stratum)
        log_hazard = self._log_cumulative_hazard(x, months, stratum)
        return survival_of(log_hazard + half), survival_of(log_hazard - half)

    def _log_cumulative_hazard(self, x: ArrayLike, months: ArrayLike, stratum: str | None) -> Matrix:
        """(n, m) log cumulative hazard of the rows of x (n, p) at m months."""
        relative = self.log_hazard(x) - self.center
        return np.asarray(relative[:, None] + self.baseline.log_cumulative_hazard(months, stratum))

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        plain = {key: value.tolist() if isinstance(value, np.ndarray) else value for key, value in values.items()}
        return plain | {"baseline": self.baseline.as_dict(), "problems": [p.as_dict() for p in self.problems],
                        "names": list(self.names), "dropped": list(self.dropped), "monotone": list(self.monotone)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> CoxFit:
        """The fit that `as_dict` wrote."""
        arrays = {key: np.array(values[key], dtype=np.float64) for key in ("coef", "means")}
        p = len(values["names"])
        arrays["covariance"] = np.array(values["covariance"], dtype=np.float64).reshape(p, p)
        tuples = {key: tuple(values[key]) for key in ("names", "dropped", "monotone")}
        return cls(**{**values, **arrays, **tuples, "baseline": Baseline.from_dict(values["baseline"]),
                      "problems": tuple(Problem(**problem) for problem in values["problems"])})


def fit_cox(
    x: ArrayLike,
    surv: Survival,
    *,
    names: Sequence[str] | None = None,
    ties: Ties = "efron",
    strata: ArrayLike | None = None,
    offset: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    clusters: ArrayLike | None = None,
) -> CoxFit:
    """The Cox model of `surv` on the columns of x, by maximum partial likelihood (R: survival::coxph).

    Args:
        x: (n, p) design matrix; a vector is one column.
        surv: follow-up of the n patients.
        names: (p,) names of the columns; x1, x2, ... when None.
        ties: "efron" (Efron 1977, R's default) or "breslow" (SPSS; glmnet).
        strata: (n,) labels; each label has its own baseline hazard.
        offset: (n,) known part of the log hazard.
        weights: (n,) case weights >= 0; give `clusters` too when they are not counts of identical patients.
        clusters: (n,) labels; the variance becomes the sandwich clustered on them (Lin and Wei 1989); one label per
            patient gives the robust variance.

    Raises:
        FitError: E-NOEVENTS, E-FEWEVENTS (fewer than 2), E-LENGTH, E-MISSING, E-CASEWEIGHTS.

    >>> surv = Survival([1.0, 2.0, 3.0, 4.0], [1, 1, 1, 1])
    >>> fit = fit_cox([0.0, 1.0, 0.0, 1.0], surv, names=["treated"])
    >>> print(fit.hazard_ratios()["treated"])
    0.390 (0.034-4.438)
    """
    data, efron = CoxRows.checked(x, surv, names, strata, offset, weights), ties == "efron"
    sets = data.sets
    kept = informative(data, efron=efron)
    rows = sorted_rows(data.z[:, kept], data.weight, sets, efron=efron)
    b, null, null_score, null_info, loglik, info, step, converged = newton(
        rows, data.offset, _MAX_ITERATIONS, _TOLERANCE
    )
    p = data.z.shape[1]
    coef = np.zeros(p)
    variance = np.zeros((p, p))
    coef[kept] = b / data.scale[kept]
    variance[np.ix_(kept, kept)] = _inverse(info) / np.outer(data.scale[kept], data.scale[kept])
    moving = np.zeros(p, dtype=bool)
    moving[kept] = np.abs(step) * np.ptp(rows.x, axis=0) > _STILL_MOVING
    centred = data.z * data.scale
    terms = event_terms(sorted_rows(centred, data.weight, sets, efron=efron), centred @ coef + data.offset, sets)
    covariance: Matrix = variance
    if clusters is not None:
        influence: Matrix = score_rows(centred, data.weight, terms, sets) @ variance
        covariance = sandwich(influence, codes_in_order(clusters, sets, "clusters"))
    dropped = np.setdiff1d(np.arange(p), kept)
    return CoxFit(
        names=data.names, coef=coef, covariance=covariance, loglik_null=float(null), loglik=float(loglik),
        score_statistic=float(null_score @ _inverse(null_info) @ null_score), ties=ties, n=len(surv),
        n_events=data.n_events, means=data.means, converged=bool(converged), robust=clusters is not None,
        dropped=tuple(data.names[j] for j in dropped), monotone=tuple(data.names[j] for j in np.flatnonzero(moving)),
        baseline=baseline_hazard(terms, sets, data.strata),
        problems=_problems(data, dropped, moving, bool(converged)),
    )


def _rows(x: ArrayLike, p: int) -> Matrix:
    """x as (n, p)."""
    matrix = np.asarray(x, dtype=np.float64)
    if matrix.ndim != 2 or matrix.shape[1] != p:
        raise FitError(Problem("E-LENGTH", "x needs the columns of the fit", found=f"shape {matrix.shape}",
                               expected=f"(n, {p})"))
    return matrix


def _inverse(lower: Matrix) -> Matrix:
    """The inverse of the symmetric matrix whose lower half is given."""
    full = np.tril(lower) + np.tril(lower, -1).T
    result: Matrix = np.asarray(np.linalg.inv(full), dtype=np.float64)
    return result


def _problems(
    data: CoxRows, dropped: NDArray[np.int64], moving: NDArray[np.bool_], converged: bool
) -> tuple[Problem, ...]:
    """What the reader of a fit should know."""
    out = [Problem("W-CONSTANT", "the column is constant, or a combination of columns before it, and was dropped",
                   where=f"column {data.names[j]}") for j in dropped]
    for j in np.flatnonzero(moving):
        one = data.z[:, j] == data.z[:, j].max()
        if np.unique(data.z[:, j]).size == 2 and not (data.sets.event & one & (data.weight > 0)).any():
            out.append(Problem("W-NOEVENTLEVEL", "no event was seen at this level, so it has no hazard ratio",
                               where=f"column {data.names[j]}", found=f"{one.sum()} patients, 0 events",
                               remedy="Join it with another level, or use Firth's method"))
        else:
            out.append(Problem("W-SEPARATION", "the likelihood is monotone: the hazard ratio is infinite or zero",
                               where=f"column {data.names[j]}", remedy="Use Firth's method or fewer columns"))
    df = data.z.shape[1] - dropped.size
    if df and data.n_events < _EVENTS_PER_VARIABLE * df:
        out.append(Problem("W-EPV", "few events for the number of columns",
                           found=f"{data.n_events} events, {df} columns",
                           expected=f"{_EVENTS_PER_VARIABLE} events per column",
                           remedy="Use fewer columns or shrinkage"))
    if not converged:
        out.append(Problem("W-NOTCONVERGED", "the fit did not converge", remedy="Use fewer columns or Firth's method"))
    return tuple(out)
