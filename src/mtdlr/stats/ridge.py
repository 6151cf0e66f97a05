"""The ridge Cox model: every patient in the risk set, solved to the optimum, the penalty by cross-validation.

Minimises -(log partial likelihood, Breslow ties) + penalty / 2 * |b|^2. With features whose variances add up to 1, the
penalty is one over the variance that the log-hazard has before the data speak: 1 expects hazard ratios near e between
patients one SD apart, 100 hardly any difference.

References: Verweij and van Houwelingen, Stat Med 1994; van Houwelingen et al., Stat Med 2006 (the left-out deviance).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mtdlr.errors import FitError, Problem
from mtdlr.stats.checks import need_events
from mtdlr.stats.concordance import concordance
from mtdlr.stats.lasso import stratified_folds
from mtdlr.survival import Survival

Matrix = NDArray[np.float64]
Vector = NDArray[np.float64]

PENALTIES: Vector = np.geomspace(100.0, 0.3, 14)
VARIANCE_STEPS, VARIANCE_PASSES = (1.5, 0.75), 2  # of the log variance; rounds over the blocks at each step
DEGREES_OF_FREEDOM = 3.0  # of a coefficient's prior
ROUNDS = 12  # of finding the variance of each coefficient; more move none by over 2 % of the largest
_STEPS = 50
_TOLERANCE = 1e-8


@dataclass(frozen=True, eq=False)
class RidgeCV:
    """A ridge Cox model and how its penalty was chosen.

    Args:
        penalties: (L,) falling.
        coef: (L, p) coefficients, all patients.
        deviance: (L,) left-out partial-likelihood deviance per event; twice the loss of a patient never seen.
        null_deviance: the same of a model that knows nothing.
        left_out: (L, n) log-hazard of each patient by the models that never saw the patient.
    """

    penalties: Vector
    coef: Matrix
    deviance: Vector
    null_deviance: float
    left_out: Matrix

    @property
    def best(self) -> int:
        """Where the left-out deviance is least."""
        return int(np.argmin(self.deviance))

    @property
    def helps(self) -> bool:
        """Whether the best penalty does better on patients left out than knowing nothing."""
        return bool(self.deviance[self.best] < self.null_deviance)


def ridge_path(x: ArrayLike, surv: Survival, penalties: ArrayLike = PENALTIES) -> Matrix:
    """(L, p) coefficients of the ridge Cox model at each penalty.

    Args:
        x: (n, p) features; only differences between patients count.
        surv: follow-up.
        penalties: (L,) > 0, best falling: each solution starts from the one before.

    Raises:
        FitError: E-NOEVENTS; E-LENGTH where x does not fit; E-MISSING for values that are not finite; E-PENALTY.

    >>> surv = Survival([1.0, 2.0, 3.0, 4.0], [1, 1, 1, 0])
    >>> ridge_path([[2.0], [1.0], [1.5], [0.0]], surv, [1.0]).round(3).tolist()
    [[0.779]]
    """
    matrix, values = _checked(x, surv, penalties)
    reduced, basis = _reduced(matrix)
    return _solve(reduced, surv, values) @ basis


def cross_validate_ridge(
    x: ArrayLike, surv: Survival, *, penalties: ArrayLike = PENALTIES, n_folds: int = 10, seed: int = 0,
    folds: ArrayLike | None = None,
) -> RidgeCV:
    """The ridge Cox model at each penalty, with its left-out deviance.

    A fold's deviance is that of all patients less that of its training patients (`cross_validate_lasso` does the same).

    Args:
        x: (n, p) features.
        surv: follow-up.
        penalties: (L,) > 0, falling.
        n_folds: folds, stratified by event; never more than there are events.
        seed: of the folds.
        folds: (n,) the fold of each patient, instead.

    Raises:
        FitError: as `ridge_path`; E-FOLDS with fewer than two events.
    """
    matrix, values = _checked(x, surv, penalties)
    assigned = _folds(surv, n_folds, seed) if folds is None else np.asarray(folds)
    reduced, basis = _reduced(matrix)
    left_out, deviance, null = np.zeros((values.size, len(surv))), np.zeros(values.size), 0.0
    order = _Order.of(surv)
    for label in np.unique(assigned):
        inside, inner = _without(label, assigned, surv)
        part, smaller = _reduced(reduced[inside])
        eta = (_solve(part, inner, values) @ smaller) @ reduced.T
        left_out[:, ~inside] = (eta - eta[:, inside].mean(axis=1, keepdims=True))[:, ~inside]
        within = _Order.of(inner)
        deviance += [-2.0 * (order.log_likelihood(one) - within.log_likelihood(one[inside])) for one in eta]
        null += -2.0 * (order.log_likelihood(np.zeros(len(surv))) - within.log_likelihood(np.zeros(len(inner))))
    events = surv.n_events
    return RidgeCV(values, _solve(reduced, surv, values) @ basis, deviance / events, null / events, left_out)


def blockwise_ridge(
    x: ArrayLike, surv: Survival, blocks: Sequence[NDArray[np.intp]], *, left_out: bool = True
) -> tuple[Vector, dict[str, Any]]:
    """(p,) coefficients where blocks and features have penalties of their own, and what was chosen.

    Before the data speak, each block is expected to add some variance to the log-hazard. The variances are chosen that
    make the follow-up most probable, with the coefficients integrated out (Laplace's approximation). A prior holds
    them: log variances are normal with SD 1, about the value at which all blocks together add 1. They are sought one by
    one, in steps of 1.5 and then .75 of the log variance.

    Within a block a few features may say much and most of them little. So before the data speak the coefficient of a
    feature has a t distribution of three degrees of freedom, with the scale that the block's variance gives to each.
    That is a ridge penalty of each feature's own, found in rounds: the prior's variance of a coefficient is three parts
    the scale's square and one part the square that is expected of the coefficient after the data.

    Args:
        x: (n, p) features; in a block they share one scale.
        surv: follow-up.
        blocks: the columns of each block; together all columns.
        left_out: whether to try the fit on patients left out, which takes as long as the fit.

    Returns:
        The coefficients; and `variances`, of each block; if asked, `left_out_c_index`, by ten folds with these scales.

    Raises:
        FitError: as `ridge_path`; with `left_out` E-FOLDS with fewer than two events.

    References: Ripatti and Palmgren, Biometrics 2000 (random effects in Cox models, by Laplace's approximation);
    Gelman et al., Ann Appl Stat 2008 (t distributions as priors of coefficients, by such rounds).
    """
    matrix, _ = _checked(x, surv, [1.0])
    evidence = _Evidence.of(matrix, surv, blocks)
    chosen = _most_probable(evidence)
    scales = evidence.scaled(chosen)
    said: dict[str, Any] = {"variances": np.exp(chosen).tolist()}
    if left_out:
        said["left_out_c_index"] = concordance(_left_out(matrix, surv, scales), surv).c.value
    return _heavy_tailed(matrix, surv, scales), said


def _most_probable(evidence: _Evidence) -> Vector:
    """The log variance of each block."""
    n = len(evidence.blocks)
    chosen = np.full(n, -np.log(n))
    best, start = evidence(chosen, None)
    for step in VARIANCE_STEPS:
        for k in np.tile(np.arange(n), VARIANCE_PASSES):
            for move in (step, -step):
                while (found := evidence(chosen + move * (np.arange(n) == k), start))[0] > best:
                    best, start = found
                    chosen[k] += move
    return chosen


def _heavy_tailed(x: Matrix, surv: Survival, scales: Vector) -> Vector:
    """(p,) coefficients of features (n, p) whose priors are t distributions of these scales (p,)."""
    order, centred = _Order.of(surv), x - x.mean(axis=0)
    variances, coef = np.square(scales), np.zeros(x.shape[1])
    for _ in range(ROUNDS):
        sd = np.sqrt(variances)
        z = centred * sd
        beta = _solve(z, surv, np.ones(1), coef / sd)[0]
        spread = np.diag(np.linalg.inv(_derivatives(order, z[order.rows], beta, 1.0)[1]))  # of beta, after the data
        coef = beta * sd
        expected = np.square(coef) + spread * variances
        variances = (DEGREES_OF_FREEDOM * np.square(scales) + expected) / (DEGREES_OF_FREEDOM + 1.0)
    return coef


def _left_out(x: Matrix, surv: Survival, scales: Vector) -> Vector:
    """(n,) log-hazard of each patient by such a fit to the patients of the other folds, of at most ten."""
    assigned, found = _folds(surv, 10, 0), np.zeros(len(surv))
    for label in np.unique(assigned):
        inside, inner = _without(label, assigned, surv)
        eta = x @ _heavy_tailed(x[inside], inner, scales)
        found[~inside] = (eta - eta[inside].mean())[~inside]
    return found


def _folds(surv: Survival, n_folds: int, seed: int) -> NDArray[np.intp]:
    """The fold of each patient, stratified by event; never more folds than events."""
    return stratified_folds(surv.event, max(2, min(n_folds, surv.n_events, len(surv))), seed)


def _without(label: object, assigned: NDArray[Any], surv: Survival) -> tuple[NDArray[np.bool_], Survival]:
    """Who is not in a fold, and their follow-up."""
    inside = assigned != label
    inner = surv.take(inside)
    if inner.n_events == 0:
        raise FitError(Problem("E-FOLDS", "a fold leaves no event to learn from", where="ridge Cox model"))
    return inside, inner


@dataclass(frozen=True, eq=False)
class _Evidence:
    """How probable the follow-up is at given log variances of the blocks."""

    x: Matrix
    surv: Survival
    blocks: Sequence[NDArray[np.intp]]
    sizes: Vector

    @classmethod
    def of(cls, x: Matrix, surv: Survival, blocks: Sequence[NDArray[np.intp]]) -> _Evidence:
        """Of features (n, p); a block's size is the root of the sum of its variances."""
        centred = x - x.mean(axis=0)
        sizes = np.array([np.sqrt(np.square(centred[:, columns]).sum(axis=1).mean()) or 1.0 for columns in blocks])
        return cls(centred, surv, blocks, sizes)

    def scaled(self, log_variances: Vector) -> Vector:
        """(p,) what columns are multiplied by so that a penalty of 1 expects these variances."""
        weights = np.ones(self.x.shape[1])
        for columns, size, value in zip(self.blocks, self.sizes, log_variances, strict=True):
            weights[columns] = np.exp(value / 2.0) / size
        return weights

    def __call__(self, log_variances: Vector, start: Vector | None) -> tuple[float, Vector]:
        """(log evidence with the prior, coefficients of x); the search for these begins at `start`."""
        weights, order = self.scaled(log_variances), _Order.of(self.surv)
        z = self.x * weights
        beta = _solve(z, self.surv, np.ones(1), None if start is None else start / weights)[0]
        hessian = _derivatives(order, z[order.rows], beta, 1.0)[1]
        prior = np.square(log_variances + np.log(len(self.blocks))).sum() / 2.0
        return -_objective(order, z, beta, 1.0) - np.linalg.slogdet(hessian)[1] / 2.0 - prior, beta * weights


def log_partial_likelihood(risk: ArrayLike, surv: Survival) -> float:
    """The log partial likelihood (Breslow ties) of log-hazards (n,).

    Args:
        risk: (n,) log-hazards, higher is worse.
        surv: follow-up of the same n patients.

    >>> round(log_partial_likelihood([0.0, 0.0, 0.0], Survival([1.0, 2.0, 3.0], [1, 1, 0])), 4)
    -1.7918
    """
    return _Order.of(surv).log_likelihood(np.asarray(risk, dtype=np.float64))


@dataclass(frozen=True, eq=False)
class _Order:
    """Follow-up in the order of falling time: rows, and where each event's risk set ends."""

    rows: NDArray[np.intp]
    events: NDArray[np.intp]
    last: NDArray[np.intp]

    @classmethod
    def of(cls, surv: Survival) -> _Order:
        """The order of some patients."""
        rows = np.argsort(-surv.time_months, kind="stable")
        time = -surv.time_months[rows]
        events = np.flatnonzero(surv.event[rows])
        return cls(rows, events, np.searchsorted(time, time[events], side="right") - 1)

    def log_likelihood(self, eta: Vector) -> float:
        """The log partial likelihood at log-hazards (n,) in the patients' own order."""
        sorted_eta = eta[self.rows]
        top = sorted_eta.max()
        sums = np.cumsum(np.exp(sorted_eta - top))
        return float((sorted_eta[self.events] - top - np.log(sums[self.last])).sum())


def _reduced(x: Matrix) -> tuple[Matrix, Matrix]:
    """(z, basis): centred x as z @ basis with orthonormal rows of the basis, in the fewest columns."""
    centred = x - x.mean(axis=0)
    u, s, vt = np.linalg.svd(centred, full_matrices=False)
    kept = s > 1e-10 * max(float(s[0]), 1e-300)
    if not kept.any():
        return np.zeros((len(x), 1)), np.zeros((1, x.shape[1]))
    return u[:, kept] * s[kept], vt[kept]


def _solve(z: Matrix, surv: Survival, penalties: Vector, start: Vector | None = None) -> Matrix:
    """(L, r) coefficients by Newton's method from `start` (by default 0), halving steps that do not help."""
    order = _Order.of(surv)
    sorted_z = z[order.rows]
    beta, found = np.zeros(z.shape[1]) if start is None else start, []
    for penalty in penalties:
        value = _objective(order, z, beta, penalty)
        for _ in range(_STEPS):
            gradient, hessian = _derivatives(order, sorted_z, beta, penalty)
            step = np.linalg.solve(hessian, gradient)
            decrement = float(gradient @ step)
            if decrement < _TOLERANCE:
                break
            size = 1.0
            while (trial := _objective(order, z, beta - size * step, penalty)) > value and size > 1e-6:
                size /= 2.0
            beta, value = beta - size * step, trial
        found.append(beta)
    return np.array(found)


def _objective(order: _Order, z: Matrix, beta: Vector, penalty: float) -> float:
    return penalty / 2.0 * float(beta @ beta) - order.log_likelihood(z @ beta)


def _derivatives(order: _Order, z: Matrix, beta: Vector, penalty: float) -> tuple[Vector, Matrix]:
    """Gradient and Hessian of the objective; z in the order of falling time."""
    eta = z @ beta
    weight = np.exp(eta - eta.max())
    sums = np.cumsum(weight)
    steps = np.zeros(len(z))
    np.add.at(steps, order.last, 1.0 / sums[order.last])
    hazard = np.cumsum(steps[::-1])[::-1]
    residual = weight * hazard
    gradient = penalty * beta + z.T @ residual - z[order.events].sum(axis=0)
    means = np.cumsum(weight[:, None] * z, axis=0)[order.last] / sums[order.last, None]
    hessian = (z * residual[:, None]).T @ z - means.T @ means
    hessian[np.diag_indices_from(hessian)] += penalty
    return gradient, hessian


def _checked(x: ArrayLike, surv: Survival, penalties: ArrayLike) -> tuple[Matrix, Vector]:
    matrix, values = np.asarray(x, dtype=np.float64), np.atleast_1d(np.asarray(penalties, dtype=np.float64))
    if matrix.ndim != 2 or len(matrix) != len(surv) or 0 in matrix.shape:
        raise FitError(Problem("E-LENGTH", "x needs one row for each patient and at least one column",
                               found=f"shape {matrix.shape}", expected=f"({len(surv)}, p)"))
    if not np.isfinite(matrix).all():
        raise FitError(Problem("E-MISSING", "a feature is missing or not finite", where="ridge Cox model",
                               found=f"{int((~np.isfinite(matrix)).sum())} such values"))
    if not (values.size and np.isfinite(values).all() and (values > 0).all()):
        raise FitError(Problem("E-PENALTY", "a ridge penalty must be above 0", found=str(values.tolist())))
    need_events(surv.n_events, "a ridge Cox model")
    return matrix, values
