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
BLOCK_STEP, BLOCK_FOLDS = 5.0, 5
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
    assigned = (stratified_folds(surv.event, max(2, min(n_folds, surv.n_events, len(surv))), seed)
                if folds is None else np.asarray(folds))
    reduced, basis = _reduced(matrix)
    left_out, deviance, null = np.zeros((values.size, len(surv))), np.zeros(values.size), 0.0
    order = _Order.of(surv)
    for label in np.unique(assigned):
        inside = assigned != label
        inner = surv.take(inside)
        if inner.n_events == 0:
            raise FitError(Problem("E-FOLDS", "a fold leaves no event to learn from", where="ridge Cox model"))
        part, smaller = _reduced(reduced[inside])
        eta = (_solve(part, inner, values) @ smaller) @ reduced.T
        left_out[:, ~inside] = (eta - eta[:, inside].mean(axis=1, keepdims=True))[:, ~inside]
        within = _Order.of(inner)
        deviance += [-2.0 * (order.log_likelihood(one) - within.log_likelihood(one[inside])) for one in eta]
        null += -2.0 * (order.log_likelihood(np.zeros(len(surv))) - within.log_likelihood(np.zeros(len(inner))))
    events = surv.n_events
    return RidgeCV(values, _solve(reduced, surv, values) @ basis, deviance / events, null / events, left_out)


def solved_ridge(x: ArrayLike, surv: Survival) -> tuple[Vector, dict[str, float]]:
    """(p,) coefficients at the penalty of the smallest left-out deviance, and that `penalty` and `left_out_c_index`.

    Args:
        x: (n, p) features whose variances add up to 1.
        surv: follow-up.

    Raises:
        FitError: as `cross_validate_ridge`.
    """
    found = cross_validate_ridge(x, surv)
    return found.coef[found.best], {"penalty": float(found.penalties[found.best]),
                                    "left_out_c_index": concordance(found.left_out[found.best], surv).c.value}


def blockwise_ridge(x: ArrayLike, surv: Survival, blocks: Sequence[NDArray[np.intp]]) -> tuple[Vector, dict[str, Any]]:
    """(p,) coefficients where each block of features has a penalty of its own, and what was chosen.

    Starts from one penalty for all (`cross_validate_ridge`). Block after block its penalty is then multiplied or
    divided by five where that lowers the left-out deviance, and at last the common part is chosen again. One pass, for
    every choice is made on the same patients.

    Args:
        x: (n, p) features whose variances add up to 1.
        surv: follow-up.
        blocks: the columns of each block; together all columns.

    Returns:
        The coefficients; and `penalty`, `left_out_c_index`, and `factors`, what each block's penalty is multiplied by.

    Raises:
        FitError: as `cross_validate_ridge`.
    """
    matrix = np.asarray(x, dtype=np.float64)
    found = cross_validate_ridge(matrix, surv, n_folds=BLOCK_FOLDS)
    penalty, best, factors = found.penalties[found.best], found.deviance[found.best], np.ones(len(blocks))
    for k in range(len(blocks)):
        for step in (BLOCK_STEP, 1.0 / BLOCK_STEP):
            tried = factors.copy()
            tried[k] *= step
            deviance = cross_validate_ridge(matrix * _weights(tried, blocks, matrix.shape[1]), surv,
                                            penalties=[penalty], n_folds=BLOCK_FOLDS).deviance[0]
            if deviance < best:
                best, factors = deviance, tried
    weights = _weights(factors, blocks, matrix.shape[1])
    coef, facts = solved_ridge(matrix * weights, surv)
    return coef * weights, facts | {"factors": factors.tolist()}


def _weights(factors: Vector, blocks: Sequence[NDArray[np.intp]], n: int) -> Vector:
    """(p,) what columns are multiplied by so that a common penalty is `factors` times it in each block."""
    weights = np.ones(n)
    for columns, factor in zip(blocks, factors, strict=True):
        weights[columns] = factor**-0.5
    return weights


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


def _solve(z: Matrix, surv: Survival, penalties: Vector) -> Matrix:
    """(L, r) coefficients by Newton's method, halving steps that do not help."""
    order = _Order.of(surv)
    sorted_z = z[order.rows]
    beta, found = np.zeros(z.shape[1]), []
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
