"""Cox estimates that stay finite: Firth's penalised likelihood, and intervals from the profile of the likelihood.

Firth, Biometrika 1993; Heinze and Schemper, Biometrics 2001. The penalty is half the log determinant of the
information, so a level without events gets a finite hazard ratio instead of 0 or infinity.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import exp, inf, log, nan, sqrt

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray
from scipy.special import chdtrc

from mtdlr.errors import FitError, Problem
from mtdlr.estimate import Estimate
from mtdlr.stats.checks import one_of
from mtdlr.stats.cox import TIES, CoxFit, Ties
from mtdlr.stats.cox_baseline import baseline_hazard
from mtdlr.stats.cox_likelihood import SortedRows, derivatives, rescaled, sorted_rows
from mtdlr.stats.cox_rows import Cases, CoxRows, informative
from mtdlr.stats.inference import normal_quantile
from mtdlr.survival import Survival

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

_TOLERANCE = 1e-10
_MAX_ITERATIONS = 200
_LONGEST_STEP = 2.0  # standard deviations of x times a log hazard ratio
_FARTHEST = 60  # steps searched for the end of an interval, each of a standard error or less at first
_ROOT = 1e-10
_LARGEST = log(sys.float_info.max)
_GAIN = 0.2  # share of what the slope promises that a step must bring


def firth_cox(
    x: ArrayLike,
    surv: Survival,
    *,
    names: Sequence[str] | None = None,
    ties: Ties = "efron",
    cases: Cases | None = None,
) -> CoxFit:
    """The Cox model by Firth's penalised likelihood (R: coxphf); its log likelihoods are the penalised ones.

    Wald intervals of a penalised fit can be poor when events are few: give `profile_interval(..., firth=True)` beside
    the estimate.

    Args:
        x: as in `fit_cox`.
        surv: as in `fit_cox`.
        names: as in `fit_cox`.
        ties: as in `fit_cox`.
        cases: as in `fit_cox`; no clusters.

    Returns:
        The fit: coef = argmax of l(b) + log det I(b) / 2.

    Raises:
        FitError: as `fit_cox`; E-NOTCONVERGED.

    >>> surv = Survival([1, 2, 3, 4, 5, 6], [1, 1, 1, 0, 0, 0])
    >>> fit = firth_cox([1, 1, 1, 0, 0, 0], surv, names=["positive"])
    >>> round(float(fit.coef[0]), 3), fit.monotone
    (2.565, ())
    """
    problem = _Penalised.of(x, surv, names, ties, cases, firth=True)
    beta, loglik, info = problem.maximise(np.zeros(problem.p), np.ones(problem.p, dtype=bool))
    data, kept, p = problem.data, problem.kept, problem.data.z.shape[1]
    coef, covariance = np.zeros(p), np.zeros((p, p))
    scale = data.scale[kept]
    coef[kept] = beta / scale
    covariance[np.ix_(kept, kept)] = np.linalg.inv(info) / np.outer(scale, scale)
    null, score, null_info = problem.at(np.zeros(problem.p))
    units = float(np.log(scale).sum())  # the determinant is of x as given, not standardised
    whole = sorted_rows(data.z, data.weight, data.sets, efron=ties == "efron")
    dropped = tuple(name for j, name in enumerate(data.names) if j not in kept)
    return CoxFit(
        names=data.names, coef=coef, covariance=covariance, loglik_null=null + units, loglik=loglik + units,
        score_statistic=float(score @ np.linalg.solve(null_info, score)), ties=ties, n=len(surv),
        n_events=data.n_events, means=data.means, converged=True, robust=False, dropped=dropped, monotone=(),
        baseline=baseline_hazard(whole, problem.rows.x @ beta + data.offset, data.sets, data.scale, data.strata),
        problems=tuple(Problem("W-CONSTANT", "the column is constant, or a combination of columns before it, and was "
                               "dropped", where=f"column {name}") for name in dropped),
    )


def profile_interval(
    x: ArrayLike,
    surv: Survival,
    column: str | int,
    *,
    level: float = 0.95,
    firth: bool = False,
    ties: Ties = "efron",
    cases: Cases | None = None,
) -> Estimate:
    """The hazard ratio of one column with its profile-likelihood interval and likelihood-ratio p value.

    An end that the likelihood does not bound is 0 or infinity; so is the estimate under a monotone likelihood, but not
    that of the penalised one.

    Args:
        x: as in `fit_cox`.
        surv: as in `fit_cox`.
        column: which, by its name in the data frame (x1, x2, ... of an array) or by its place from 0.
        level: coverage.
        firth: profile the penalised likelihood, which bounds both ends.
        ties: as in `fit_cox`.
        cases: as in `fit_cox`; no clusters.

    Raises:
        FitError: as `fit_cox`; E-COLUMN when there is no such column or it carries no information.
    """
    problem = _Penalised.of(x, surv, None, ties, cases, firth=firth)
    j = problem.place(column)
    free = np.ones(problem.p, dtype=bool)
    start = np.zeros(problem.p)
    free[j] = False

    def profile(value: float) -> float:
        held = start.copy()
        held[j] = value
        return problem.maximise(held, free)[1]

    beta, best, info = problem.maximise(start, ~np.zeros(problem.p, dtype=bool))
    se = sqrt(np.linalg.inv(info)[j, j])
    reach = min(se, 3.0 / np.ptp(problem.rows.x[:, j]))
    center = float(beta[j])
    target = best - normal_quantile(level) ** 2 / 2.0
    # The penalised profile falls everywhere, but slowly where events are separated: its steps grow.
    low, high = (_end(profile, center, side * reach, target, growth=1.1 if firth else 1.0) for side in (-1.0, 1.0))
    unit = problem.data.scale[problem.kept[j]]
    monotone = center if firth else -inf if low == -inf else inf if high == inf else center
    p = float(chdtrc(1.0, max(2.0 * (best - profile(0.0)), 0.0)))
    return Estimate(_ratio(monotone / unit), _ratio(low / unit), _ratio(high / unit), p)


def _ratio(log_ratio: float) -> float:
    return inf if log_ratio > _LARGEST else exp(log_ratio)


def _end(profile: Callable[[float], float], center: float, step: float, target: float, *, growth: float) -> float:
    """Where the profile falls to the target on one side of the centre; infinite when it never does, or when the
    information becomes singular before it does."""
    inner, above = center, profile(center) - target
    for _ in range(_FARTHEST):
        outer, below = inner + step, profile(inner + step) - target
        if below == -inf:
            break
        if below < 0:
            root = _crossing(lambda value: profile(value) - target, (inner, above), (outer, below))
            if root == root:
                return root
            break
        inner, above, step = outer, below, growth * step
    return inf if step > 0 else -inf


def _crossing(function: Callable[[float], float], a: tuple[float, float], b: tuple[float, float]) -> float:
    """The root between two (place, value) of opposite sign, by false position with Illinois' halving; nan where the
    function is -inf on the way."""
    for _ in range(_MAX_ITERATIONS):
        root = (a[0] * b[1] - b[0] * a[1]) / (b[1] - a[1])
        value = function(root)
        if value == -inf:
            return nan
        if abs(value) < _ROOT or abs(b[0] - a[0]) < _ROOT:
            break
        a, b = ((a[0], a[1] / 2.0), (root, value)) if value * b[1] > 0 else (b, (root, value))
    return root


@dataclass(frozen=True, eq=False)
class _Penalised:
    """A Cox likelihood, with Firth's penalty or without, of standardised columns."""

    data: CoxRows
    kept: NDArray[np.int64]
    rows: SortedRows
    firth: bool

    @classmethod
    def of(
        cls, x: ArrayLike, surv: Survival, names: Sequence[str] | None, ties: Ties, cases: Cases | None, *, firth: bool,
    ) -> _Penalised:
        """The likelihood."""
        one_of(ties, TIES, "treatment of ties")
        data = CoxRows.checked(x, surv, names, cases or Cases())
        kept, rows, _ = informative(data, efron=ties == "efron")
        return cls(data, kept, rows, firth)

    @property
    def p(self) -> int:
        """How many columns."""
        return int(self.kept.size)

    def place(self, column: str | int) -> int:
        """Where a column is among those kept."""
        names = dict(enumerate(self.data.names))
        name = names.get(column, str(column)) if isinstance(column, int) else column
        found = [k for k, j in enumerate(self.kept) if self.data.names[j] == name]
        if not found:
            raise FitError(Problem("E-COLUMN", "no such column, or it carries no information", where=f"column {name}",
                                   expected=" or ".join(self.data.names[j] for j in self.kept)))
        return found[0]

    def at(self, beta: Vector) -> tuple[float, Vector, Matrix]:
        """Value, gradient and information at beta; the value is -inf where the information is singular."""
        eta = self.rows.x @ beta + self.data.offset
        score, lower = np.zeros(self.p), np.zeros((self.p, self.p))
        value = float(derivatives(self.rows, eta, score, lower))
        info = np.tril(lower) + np.tril(lower, -1).T
        if self.firth:
            sign, log_determinant = np.linalg.slogdet(info)
            if sign <= 0:
                return -inf, score, info
            value += 0.5 * float(log_determinant)
            score = score + _penalty_gradient(self.rows, eta, np.linalg.inv(info))
        return value, score, info

    def maximise(self, beta: Vector, free: NDArray[np.bool_]) -> tuple[Vector, float, Matrix]:
        """beta, value and information at the maximum over the free coefficients, the others held."""
        value, score, info = self.at(beta)
        longest = _LONGEST_STEP
        for _ in range(_MAX_ITERATIONS):
            step = np.zeros(self.p)
            step[free] = np.linalg.lstsq(info[np.ix_(free, free)], score[free], rcond=1e-14)[0]
            gain = float(step @ score)
            size = float(np.abs(step).max(initial=0.0))
            step *= min(1.0, longest / max(size, 1e-300))
            # Where a variable orders nearly all events, the maximum lies thousands of standard deviations away.
            longest = 2.0 * longest if size > longest else _LONGEST_STEP
            for _half in range(40):
                trial = self.at(beta + step)
                # The penalty bends too: a step that gains less than this promised goes to and fro across the maximum.
                if trial[0] >= value + _GAIN * float(step @ score) - 1e-12 * (1.0 + abs(value)):
                    break
                step *= 0.5
            beta, (value, score, info) = beta + step, trial
            if gain < _TOLERANCE:
                return beta, value, info
        raise FitError(Problem("E-NOTCONVERGED", "the penalised fit did not converge", remedy="Use fewer columns"))


@njit(cache=True)
def _penalty_gradient(rows, eta, inverse):  # type: ignore[no-untyped-def]
    """Half the gradient of log det information: third central moments of x in the risk sets, contracted with the
    inverse information. q(v) = v' inverse v; the mean of (x - m) q(x - m) needs only sums of q, x q and x x'."""
    p = rows.x.shape[1]
    width = p + 1
    gradient, lean = np.zeros(p), np.zeros(p)
    shift, none = 0.0, np.zeros((0, 0))
    s, t = np.zeros((p + 2, p + 2)), np.zeros((p + 2, p + 2))
    for g in range(rows.fresh.size):
        first, last = rows.start[g], rows.start[g + 1]
        if rows.fresh[g]:
            s[:, :] = 0.0
        before = shift
        shift, s0 = rescaled(eta, rows.weight, (first, last), shift, s[0, 0], lean[:0], none)
        if s0 != s[0, 0]:
            s *= np.exp(before - shift)
        t[:, :] = 0.0
        deaths, mass = 0, 0.0
        for i in range(first, last):
            if rows.weight[i] <= 0.0:
                continue
            r = rows.weight[i] * np.exp(eta[i] - shift)
            _add_moments(r, rows.x[i], inverse, s)
            if rows.event[i]:
                deaths += 1
                mass += rows.weight[i]
                _add_moments(r, rows.x[i], inverse, t)
        terms = deaths if rows.efron else min(deaths, 1)
        for j in range(terms):
            moments = s - j / terms * t
            moments /= moments[0, 0]
            q = 0.0
            for a in range(p):
                lean[a] = np.sum(inverse[a] * moments[0, 1:width])
                q += moments[0, a + 1] * lean[a]
            for a in range(p):
                third = moments[p + 1, a + 1] - 2.0 * np.sum(moments[a + 1, 1:width] * lean)
                third += moments[0, a + 1] * (2.0 * q - moments[p + 1, 0])
                gradient[a] += 0.5 * mass / terms * third
    return gradient


@njit(cache=True)
def _add_moments(r, x, inverse, sums):  # type: ignore[no-untyped-def]
    """Add r * (1, x, q) (1, x)' to the sums: row 0 holds 1 and x, rows 1..p x x', row p + 1 q and x q."""
    p = x.size
    q = 0.0
    for a in range(p):
        for b in range(p):
            q += x[a] * inverse[a, b] * x[b]
    sums[0, 0] += r
    sums[p + 1, 0] += r * q
    for a in range(p):
        sums[0, a + 1] += r * x[a]
        sums[p + 1, a + 1] += r * q * x[a]
        for b in range(p):
            sums[a + 1, b + 1] += r * x[a] * x[b]
