"""Cox's proportional hazards model: fitted once, carried as a value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from math import nan
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mtdlr.errors import FitError, Problem
from mtdlr.estimate import Estimate
from mtdlr.spreadsheet import frame_of, notebook_table
from mtdlr.stats.checks import one_of
from mtdlr.stats.cox_baseline import Baseline, baseline_hazard, survival_of
from mtdlr.stats.cox_likelihood import SortedRows, sorted_rows
from mtdlr.stats.cox_newton import newton
from mtdlr.stats.cox_robust import sandwich, score_rows
from mtdlr.stats.cox_rows import Cases, CoxRows, finite, informative, label_codes
from mtdlr.stats.cox_terms import event_terms
from mtdlr.stats.inference import Test, chi_square_test, normal_quantile, two_sided_p
from mtdlr.survival import Survival, numbers

if TYPE_CHECKING:
    import pandas as pd

Ties = Literal["efron", "breslow"]
TIES = ("efron", "breslow")
Matrix = NDArray[np.float64]
Vector = NDArray[np.float64]

_TOLERANCE = 1e-9  # Newton decrement; the step after it is quadratically smaller
_MAX_ITERATIONS = 200
_STILL_STEP = 1e-6  # standardised columns whose last step is shorter are at rest
_STILL_MOVING = 0.05  # change of the log hazard over a column's range in the last Newton step
_LOST = 1e-8  # share of the information at 0 below which a coefficient is infinite
_GONE = 1e-13
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
        result: Vector = np.sqrt(np.maximum(np.diag(self.covariance), 0.0))
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

    @property
    def aic(self) -> float:
        """Akaike's criterion: 2 df - 2 loglik (R: AIC; on the partial likelihood)."""
        return 2.0 * self.df - 2.0 * self.loglik

    def __repr__(self) -> str:
        return (f"CoxFit({self.n} patients, {self.n_events} events, {len(self.names)} columns, loglik "
                f"{self.loglik:.2f}, AIC {self.aic:.2f}; .summary() for the coefficients)")

    def __str__(self) -> str:
        return self.summary()

    def summary(self, level: float = 0.95) -> str:
        """The fit as text, as R prints it: hazard ratios with intervals and p, tests of the whole model, problems.

        Args:
            level: coverage of the intervals.
        """
        width = max([8, *(len(name) for name in self.names)])
        lines = [f"Cox model: {self.n} patients, {self.n_events} events, {self.ties} ties",
                 f"{'':{width}} {'coef':>9} {'HR':>9} {'low':>9} {'high':>9} {'p':>9}"]
        for (name, ratio), beta in zip(self.hazard_ratios(level).items(), self.coef, strict=True):
            cells = " ".join(f"{value:9.4g}" for value in (beta, ratio.value, ratio.low, ratio.high, ratio.p))
            lines.append(f"{name:{width}} {cells}")
        test = self.likelihood_ratio
        lines.append(f"likelihood ratio {test.statistic:.4g} on {test.df:g} df, p = {test.p:.3g}; AIC {self.aic:.2f}")
        return "\n".join([*lines, *(str(problem) for problem in self.problems)])

    def to_frame(self, level: float = 0.95) -> pd.DataFrame:
        """One row a column of x: coef, se, hr, low, high, p; nan where there is no finite estimate.

        Args:
            level: coverage of the intervals.
        """
        ratios = self.hazard_ratios(level).values()
        rows = [(beta, se, r.value, r.low, r.high, r.p) for beta, se, r in zip(self.coef, self.se, ratios, strict=True)]
        return frame_of(rows, columns=["coef", "se", "hr", "low", "high", "p"], index=self.names)

    def _repr_html_(self) -> str:
        return notebook_table(repr(self), self.to_frame())

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
        result: Vector = _rows(x, self.names) @ self.coef
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

        Args:
            x: (n, p) design matrix.
            months: (m,) horizons in months.
            level: coverage of the interval, within (0, 1).
            stratum: whose baseline, for a stratified model.

        Raises:
            FitError: E-STRATUM when the model is stratified and the stratum is not one of its own.
        """
        rows = _rows(x, self.names) - self.means
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
        p = len(values["names"])
        arrays: dict[str, NDArray[np.float64]] = {
            key: np.array(values[key], dtype=np.float64).reshape(p) for key in ("coef", "means")}
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
    cases: Cases | None = None,
) -> CoxFit:
    """The Cox model of `surv` on the columns of x, by maximum partial likelihood (R: survival::coxph).

    Args:
        x: (n, p) design matrix, finite; a vector is one column, a data frame brings its names and its index.
        surv: follow-up of the n patients.
        names: (p,) names of the columns; those of the data frame, or x1, x2, ..., when None.
        ties: "efron" (Efron 1977, R's default) or "breslow" (SPSS; glmnet).
        cases: strata, offset, weights and clusters of the patients.

    Returns:
        The fit, with coef = argmax of the sum over the events i of x_i b - log sum of exp(x_j b) over the risk set.
        `problems` says what the reader should know: dropped columns, infinite coefficients, few events.

    Raises:
        FitError: E-OPTION, E-NOEVENTS, E-FEWEVENTS (fewer than 2), E-LENGTH, E-MISSING, E-NUMBER, E-CASEWEIGHTS.
        TableError: E-ORDER, E-INDEX, E-NUMBER.

    >>> surv = Survival([1.0, 2.0, 3.0, 4.0], [1, 1, 1, 1])
    >>> fit = fit_cox([0.0, 1.0, 0.0, 1.0], surv, names=["treated"])
    >>> print(fit.hazard_ratios()["treated"])
    0.390 (0.034-4.438)
    """
    one_of(ties, TIES, "treatment of ties")
    cases = cases or Cases()
    data, efron = CoxRows.checked(x, surv, names, cases), ties == "efron"
    kept, rows, null = informative(data, efron=efron)
    b, loglik, info, step, converged = newton(rows, data.offset, null, _MAX_ITERATIONS, _TOLERANCE, True)
    p, scale = data.z.shape[1], data.scale[kept]
    coef, covariance = np.zeros(p), np.zeros((p, p))
    coef[kept] = b / scale
    lost = np.diag(info) < _LOST * np.diag(null.info)
    covariance[np.ix_(kept, kept)] = _inverse(info, np.diag(null.info)) / np.outer(scale, scale)
    moving = np.zeros(p, dtype=bool)
    moving[kept[lost]] = True
    far = np.flatnonzero(np.abs(step) > _STILL_STEP)
    moving[kept[far]] = np.abs(step[far]) * np.ptp(rows.x[:, far], axis=0) > _STILL_MOVING
    eta = rows.x @ b + data.offset
    if cases.clusters is not None:
        codes = label_codes(cases.clusters, surv, "clusters")[1][data.sets.order]
        covariance = _clustered(data, eta, covariance, codes, efron=efron)
    dropped = np.setdiff1d(np.arange(p), kept)
    return CoxFit(
        names=data.names, coef=coef, covariance=covariance, loglik_null=null.loglik, loglik=float(loglik),
        score_statistic=float(null.score @ _inverse(null.info, np.diag(null.info)) @ null.score), ties=ties,
        n=len(surv), n_events=data.n_events, means=data.means, converged=bool(converged),
        robust=cases.clusters is not None,
        dropped=tuple(data.names[j] for j in dropped), monotone=tuple(data.names[j] for j in np.flatnonzero(moving)),
        baseline=_baseline(data, kept, rows, eta),
        problems=_problems(data, dropped, moving, bool(converged)),
    )


def _rows(x: Any, names: tuple[str, ...]) -> Matrix:
    """x as (n, p) finite numbers; the columns of a data frame are found by name."""
    if hasattr(x, "columns") and hasattr(x, "iloc"):
        absent = [name for name in names if name not in x.columns]
        if absent:
            raise FitError(Problem("E-COLUMN", "the model needs a column that is not in the table",
                                   where=f"column {absent[0]}", found=", ".join(map(str, list(x.columns)[:20]))))
        x = x[list(names)]
    matrix = numbers(x, "x")
    if matrix.ndim != 2 or matrix.shape[1] != len(names):
        raise FitError(Problem("E-LENGTH", "x needs the columns of the fit", found=f"shape {matrix.shape}",
                               expected=f"(n, {len(names)})"))
    return finite(matrix, names)


def _clustered(data: CoxRows, eta: Vector, covariance: Matrix, clusters: NDArray[np.int64], *, efron: bool) -> Matrix:
    """The sandwich (p, p) of the score of each cluster between two inverse informations."""
    x = data.z * data.scale
    terms = event_terms(sorted_rows(x, data.weight, data.sets, efron=efron), eta)
    return sandwich(score_rows(x, data.weight, terms, data.sets) @ covariance, clusters)


def _baseline(data: CoxRows, kept: NDArray[np.int64], rows: SortedRows, eta: Vector) -> Baseline:
    """The baseline with a mean for every column; that of a column left out plays no part, for its variance is 0."""
    base = baseline_hazard(rows, eta, data.sets, data.scale[kept], data.strata)
    mean = np.zeros((len(base.time_months), len(data.names)))
    mean[:, kept] = base.mean
    return replace(base, mean=mean)


def _inverse(lower: Matrix, null: Vector) -> Matrix:
    """The inverse of the information whose lower half is given; a column of which separated events have left no
    information to rounding (diagonal at 0: `null`) gets a variance that is large and alone."""
    full = np.tril(lower) + np.tril(lower, -1).T
    gone = ~(np.diag(full) > _GONE * null)
    full[gone], full[:, gone] = 0.0, 0.0
    full[gone, gone] = _GONE * null[gone]
    try:
        result: Matrix = np.asarray(np.linalg.inv(full), dtype=np.float64)
    except np.linalg.LinAlgError:
        return np.asarray(np.linalg.pinv(full, hermitian=True), dtype=np.float64)
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
