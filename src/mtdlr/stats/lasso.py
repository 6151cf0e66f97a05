"""The lasso and elastic-net Cox model: path, cross-validation, stability (R: glmnet and cv.glmnet, family = "cox")."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mtdlr.errors import FitError, Problem
from mtdlr.stats.checks import groups_of, labels, need_events, whole, within
from mtdlr.stats.cox import CoxFit, fit_cox
from mtdlr.stats.cox_rows import matrix_of
from mtdlr.stats.lasso_likelihood import Outcome, log_likelihoods, standardised, working
from mtdlr.stats.lasso_newton import FallingPenalties, path
from mtdlr.survival import Survival, numbers

Matrix = NDArray[np.float64]
Vector = NDArray[np.float64]
Index = NDArray[np.int64]

_HUGE = 1e6  # a penalty that leaves nothing but the unpenalised


@dataclass(frozen=True, eq=False)
class Penalties:
    """Which penalties a path goes through, and how well each is solved.

    Args:
        alpha: 1 lasso, towards 0 ridge; > 0.
        n: how many penalties, from the smallest one at which all coefficients are 0, evenly on the log scale.
        ratio: smallest over largest; 0.01 when p > n, else 1e-4.
        values: the penalties themselves, instead; 0 needs fewer features than events.
        tol: a penalty is done when no optimality condition is broken by more than this share of it. (glmnet and
            scikit-survival stop on the size of a step, which leaves about 3e-2 with their defaults.)
    """

    alpha: float = 1.0
    n: int = 100
    ratio: float | None = None
    values: ArrayLike | None = None
    tol: float = 1e-4

    def checked(self) -> Penalties:
        """These penalties, if they can be.

        Raises:
            FitError: E-PENALTY.
        """
        within(self.alpha, "alpha", 1e-6, 1.0, code="E-PENALTY")
        within(self.tol, "tol", 1e-14, 1.0, code="E-PENALTY")
        whole(self.n, "n", 1, 100_000, code="E-PENALTY")
        if self.ratio is not None:
            within(self.ratio, "ratio", 1e-12, 1.0 - 1e-12, code="E-PENALTY")
        if self.values is not None:
            given = np.atleast_1d(numbers(self.values, "penalties"))
            if given.ndim != 1 or given.size == 0 or not (np.isfinite(given).all() and (given >= 0).all()):
                raise _bad_penalty("penalties that are negative or not finite")
        return self

    def grid(self, largest: float, n: int, p: int) -> Vector:
        """The penalties (L,), falling, of p features and n patients.

        Args:
            largest: the smallest penalty at which all coefficients are 0; the first of the grid.
            n: number of patients.
            p: number of features; with p > n the grid ends earlier.
        """
        if self.values is not None:
            return np.ascontiguousarray(np.sort(np.atleast_1d(numbers(self.values, "penalties")))[::-1])
        ratio = self.ratio if self.ratio is not None else 0.01 if p > n else 1e-4
        result: Vector = largest * ratio ** (np.arange(self.n) / max(self.n - 1, 1))
        return result


@dataclass(frozen=True, eq=False)
class LassoPath:
    """Solutions along falling penalties: each minimises -(log partial likelihood) / n + penalty.

    Args:
        lambdas: (L,) penalties; fewer than asked for when the path stopped early (see `lasso_path`).
        coef: (L, p) coefficients per unit of x.
        deviance_ratio: (L,) share of the null deviance explained.
        null_deviance: twice the saturated minus the null log partial likelihood.
    """

    lambdas: Vector
    coef: Matrix
    deviance_ratio: Vector
    null_deviance: float

    @property
    def nonzero(self) -> Index:
        """(L,) how many coefficients are not 0."""
        result: Index = np.count_nonzero(self.coef, axis=1)
        return result

    def coef_at(self, lambdas: ArrayLike) -> Matrix:
        """(m, p) coefficients at any penalties: linear between those of the path, held beyond its ends."""
        s = np.clip(np.atleast_1d(np.asarray(lambdas, dtype=np.float64)), self.lambdas[-1], self.lambdas[0])
        if self.lambdas.size == 1:
            return np.repeat(self.coef, s.size, axis=0)
        right = np.clip(np.searchsorted(-self.lambdas, -s, side="left"), 1, self.lambdas.size - 1)
        high, low = self.lambdas[right - 1], self.lambdas[right]
        share = ((s - low) / (high - low))[:, None]
        result: Matrix = share * self.coef[right - 1] + (1.0 - share) * self.coef[right]
        return result


@dataclass(frozen=True, eq=False)
class LassoCV:
    """A path and how well each of its penalties does on patients left out.

    Args:
        path: fitted to all patients.
        cvm, cvsd: (L,) mean left-out partial-likelihood deviance per event, and its standard error.
        folds: (n,) fold of each patient.
        problems: what the reader should know.
    """

    path: LassoPath
    cvm: Vector
    cvsd: Vector
    folds: Index
    problems: tuple[Problem, ...] = ()

    @property
    def lambdas(self) -> Vector:
        """(L,) penalties."""
        return self.path.lambdas

    @property
    def coef(self) -> Matrix:
        """(L, p) coefficients per unit of x."""
        return self.path.coef

    @property
    def nonzero(self) -> Index:
        """(L,) how many coefficients are not 0."""
        return self.path.nonzero

    @property
    def index_min(self) -> int:
        """Where the mean deviance is smallest."""
        return int(np.nanargmin(self.cvm))

    @property
    def index_1se(self) -> int:
        """The largest penalty whose mean deviance is within one standard error of the smallest."""
        best = self.index_min
        return int(np.flatnonzero(self.cvm <= self.cvm[best] + self.cvsd[best])[0])

    @property
    def lambda_min(self) -> float:
        """The penalty with the smallest mean deviance."""
        return float(self.lambdas[self.index_min])

    @property
    def lambda_1se(self) -> float:
        """The largest penalty within one standard error of it."""
        return float(self.lambdas[self.index_1se])


def lasso_path(
    x: ArrayLike,
    surv: Survival,
    *,
    penalties: Penalties | None = None,
    weights: ArrayLike | None = None,
    penalty_factor: ArrayLike | None = None,
) -> LassoPath:
    """Elastic-net Cox models along falling penalties (R: glmnet(x, y, family = "cox")).

    Minimises -(log partial likelihood, Breslow ties) / n + lambda * (alpha |b|_1 + (1 - alpha) / 2 |b|_2^2) over the
    coefficients b of features divided by their 1/n standard deviation; reports them per unit of x.

    Args:
        x: (n, p) features.
        surv: follow-up.
        penalties: which penalties, and how well each is solved.
        weights: (n,) case weights, scaled to sum to n.
        penalty_factor: (p,) share of the penalty each feature bears, scaled to sum to p; 0 keeps it in.

    Returns:
        The path; it ends early where a smaller penalty has no finite solution, or as glmnet's does.

    Raises:
        FitError: E-NOEVENTS, E-LENGTH, E-MISSING, E-PENALTY (out of range, or the first is too small to be solved).
    """
    grid = (penalties or Penalties()).checked()
    return _fit_path(_Features.checked(x, surv, weights, penalty_factor), np.arange(len(surv)), grid)


def cross_validate_lasso(
    x: ArrayLike, surv: Survival, *, folds: ArrayLike | None = None, n_folds: int = 10, seed: int = 0,
    penalties: Penalties | None = None,
) -> LassoCV:
    """A lasso path with its cross-validated deviance (R: cv.glmnet(x, y, family = "cox", grouped = TRUE)).

    Each fold fits its own path, whose coefficients are interpolated onto the penalties of the full path; a fold's
    value is the deviance of all patients minus that of its training patients, per event left out (van Houwelingen et
    al., Stat Med 2006), weighted by those events.

    Args:
        x: (n, p) features.
        surv: follow-up.
        folds: (n,) the fold of each patient; None draws them by `stratified_folds`.
        n_folds: number of folds drawn, >= 3.
        seed: of the draw.
        penalties: as in `lasso_path`.

    Raises:
        FitError: as `lasso_path`; E-FOLDS when there are fewer than three folds or no event is left to train on.
    """
    features = _Features.checked(x, surv)
    grid = (penalties or Penalties()).checked()
    assigned = stratified_folds(surv.event, n_folds, seed) if folds is None else _fold_codes(folds, surv)
    full = _fit_path(features, np.arange(len(surv)), grid)
    parts = np.unique(assigned)
    values = np.array([
        _left_out_deviance(features, assigned != part, _fold_coef(features, assigned != part, full.lambdas, grid))
        for part in parts
    ])
    events = np.array([(surv.event & (assigned == part)).sum() for part in parts], dtype=np.float64)
    cvm, cvsd = _fold_mean(values[events > 0] / events[events > 0, None], events[events > 0])
    problems = [Problem("W-FOLDEVENTS", "no event in a fold: it cannot judge penalties", where=f"fold {part}",
                        remedy="Use fewer folds, stratified by event") for part in parts[events == 0]]
    return LassoCV(full, cvm, cvsd, assigned, tuple(problems))


def stratified_folds(event: ArrayLike, n_folds: int, seed: int, strata: ArrayLike | None = None) -> Index:
    """(n,) folds 0 .. n_folds - 1 at random, with events, and strata if given, spread evenly over them.

    Args:
        event: (n,) event indicator.
        n_folds: how many folds.
        seed: of the random numbers.
        strata: (n,) labels such as the centre.

    Raises:
        FitError: E-FOLDS when there are more folds than patients or fewer than two.

    >>> stratified_folds([1, 1, 1, 0, 0, 0], 3, seed=1).tolist()
    [0, 2, 1, 2, 0, 1]
    """
    died = labels(event, name="event")
    whole(seed, "seed", 0)
    if not 2 <= whole(n_folds, "the number of folds", 0, code="E-FOLDS") <= died.size:
        raise FitError(Problem("E-FOLDS", "folds must be at least 2 and at most one for each patient",
                               found=f"{n_folds} folds, {died.size} patients"))
    codes = np.zeros(died.size, dtype=np.int64) if strata is None else groups_of(strata, died.size, "strata")[1]
    random = np.random.default_rng(seed)
    shuffled = random.permutation(died.size)
    order = shuffled[np.lexsort((codes[shuffled], ~died[shuffled]))]
    folds = np.empty(died.size, dtype=np.int64)
    folds[order] = random.permutation(n_folds)[np.arange(died.size) % n_folds]
    return folds


def relaxed_fit(x: ArrayLike, surv: Survival, coef: ArrayLike, *, names: Sequence[str] | None = None) -> CoxFit:
    """The unpenalised Cox model (Breslow ties) on the features a lasso kept (R: glmnet(relax = TRUE), gamma = 0).

    Args:
        x: (n, p) features.
        surv: follow-up.
        coef: (p,) lasso coefficients; those that are 0 stay out.
        names: (p,) names of the features.

    Raises:
        FitError: as `fit_cox`; E-LENGTH when coef does not match x.
    """
    matrix, own = matrix_of(x, surv, names)
    beta = numbers(coef, "coef")
    kept = np.flatnonzero(beta)
    if beta.shape != (matrix.shape[1],):
        raise FitError(Problem("E-LENGTH", "one coefficient is needed for each column", found=f"{np.shape(coef)}"))
    return fit_cox(matrix[:, kept], surv, names=[own[j] for j in kept], ties="breslow")


@dataclass(frozen=True, eq=False)
class _Features:
    """Features (p, n) of patients in the order of falling time."""

    x: Matrix
    time: Vector
    event: NDArray[np.bool_]
    order: Index
    weight: Vector
    factor: Vector

    @classmethod
    def checked(
        cls, x: ArrayLike, surv: Survival, weights: ArrayLike | None = None, factor: ArrayLike | None = None
    ) -> _Features:
        """The checked features; raises the errors of `lasso_path`."""
        matrix = matrix_of(x, surv)[0]
        if 0 in matrix.shape:
            raise FitError(Problem("E-LENGTH", "x needs at least one patient and one column",
                                   found=f"shape {matrix.shape}", expected=f"({len(surv)}, p)"))
        need_events(surv.n_events, "a lasso Cox model")
        order = np.argsort(-surv.time_months, kind="stable")
        weight = _shares(weights, len(surv), "weights")
        return cls(np.ascontiguousarray(matrix[order].T), surv.time_months[order], surv.event[order], order,
                   weight[order], _shares(factor, matrix.shape[1], "penalty_factor"))

    def outcome(self, rows: Index) -> Outcome:
        """Follow-up of the given rows, rising positions in this order."""
        time, weight = self.time[rows], self.weight[rows]
        begins = np.flatnonzero(np.append(True, time[1:] != time[:-1]))
        return Outcome(weight * (rows.size / weight.sum()), self.event[rows], np.append(begins, rows.size))


def _shares(values: ArrayLike | None, n: int, what: str) -> Vector:
    """n numbers >= 0, scaled to sum to n; all 1 when None."""
    array = np.ones(n) if values is None else numbers(values, what)
    if array.shape != (n,) or not (np.isfinite(array).all() and (array >= 0).all() and array.sum() > 0):
        raise FitError(Problem("E-CASEWEIGHTS", f"{what} must be numbers >= 0, not all 0", found=f"shape {array.shape}",
                               expected=f"({n},)"))
    scaled: Vector = array * (n / array.sum())
    return scaled


def _bad_penalty(found: str) -> FitError:
    return FitError(Problem("E-PENALTY", "a penalty setting is out of range", found=found,
                            expected="0 < alpha <= 1, 0 < ratio < 1, penalties >= 0"))


def _fit_path(features: _Features, rows: Index, grid: Penalties) -> LassoPath:
    """The path of some patients: rising positions in the order of falling time."""
    outcome = features.outcome(rows)
    z, scale = standardised(features.x, rows, outcome.weight)
    p, n = z.shape
    saturated, null = _saturated(outcome), float(log_likelihoods(np.zeros((1, n)), outcome)[0])
    lambdas = grid.grid(_largest(z, outcome, features.factor, grid), n, p)
    falling = FallingPenalties(lambdas, float(grid.alpha), features.factor)
    coefs, logliks = path(z, outcome, falling, grid.tol, grid.values is None, saturated)
    if not len(coefs):
        raise FitError(Problem("E-PENALTY", "no finite coefficients solve the model: the penalty is too small",
                               found=f"{lambdas[0]:.3g}, {p} features", remedy="Take larger ones, or fewer features"))
    per_unit = coefs * np.divide(1.0, scale, where=scale > 0, out=np.zeros(p))
    return LassoPath(lambdas[: len(coefs)], per_unit, (logliks - null) / (saturated - null), 2.0 * (saturated - null))


def _largest(z: Matrix, outcome: Outcome, factor: Vector, grid: Penalties) -> float:
    """The smallest penalty at which every penalised coefficient is 0."""
    n = z.shape[1]
    eta, residual = np.zeros(n), np.zeros(n)
    if (factor == 0).any():
        held = np.where(factor == 0, 0.0, 1.0)
        eta = path(z, outcome, FallingPenalties(np.array([_HUGE]), 1.0, held), grid.tol / _HUGE, False, 0.0)[0][0] @ z
    working(eta, outcome, residual)
    slopes = np.abs(z @ residual)
    penalised = factor > 0
    return float((slopes[penalised] / factor[penalised]).max()) / max(grid.alpha, 1e-3)


def _saturated(outcome: Outcome) -> float:
    """The log partial likelihood of the saturated model: 0 but for ties."""
    deaths = np.add.reduceat(outcome.event * outcome.weight, outcome.start[:-1])
    deaths = deaths[deaths > 0]
    return -float(np.sum(deaths * np.log(deaths)))


def _left_out_deviance(features: _Features, training: NDArray[np.bool_], coef: Matrix) -> Vector:
    """(L,) deviance of all patients minus that of the training patients, with coefficients (L, p) of the latter."""
    used = np.flatnonzero(coef.any(axis=0))
    eta = coef[:, used] @ features.x[used]
    rows = np.flatnonzero(training[features.order])
    parts = []
    for some in (np.arange(features.time.size), rows):
        outcome = features.outcome(some)
        parts.append(2.0 * (_saturated(outcome) - log_likelihoods(np.ascontiguousarray(eta[:, some]), outcome)))
    result: Vector = parts[0] - parts[1]
    return result


def _fold_coef(features: _Features, training: NDArray[np.bool_], lambdas: Vector, grid: Penalties) -> Matrix:
    """(L, p) coefficients of the training patients' own path, at the penalties of the full path."""
    rows = np.flatnonzero(training[features.order])
    if not features.event[rows].any():
        raise FitError(Problem("E-FOLDS", "without one of the folds no event is left to train on",
                               remedy="Use more folds, stratified by event"))
    return _fit_path(features, rows, grid).coef_at(lambdas)


def _fold_mean(values: Matrix, events: Vector) -> tuple[Vector, Vector]:
    """Mean over folds weighted by events, and its standard error."""
    mean = np.average(values, axis=0, weights=events)
    spread = np.average((values - mean) ** 2, axis=0, weights=events)
    return mean, np.sqrt(spread / (len(values) - 1))


def _fold_codes(folds: ArrayLike, surv: Survival) -> Index:
    """The given folds as integers, at least three of them."""
    codes = np.asarray(folds)
    if codes.shape != (len(surv),) or not np.issubdtype(codes.dtype, np.integer) or np.unique(codes).size < 3:
        raise FitError(Problem("E-FOLDS", "folds must be one integer for each patient, three or more different",
                               found=f"shape {codes.shape}, {np.unique(codes).size} folds"))
    return codes.astype(np.int64)
