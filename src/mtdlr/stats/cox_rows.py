"""The rows of a Cox fit: checked once, standardised, and put in the order of the risk sets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mtdlr.errors import FitError, Problem
from mtdlr.stats.cox_likelihood import RiskSets, derivatives, risk_sets, sorted_rows
from mtdlr.stats.inference import need_events
from mtdlr.survival import Survival

Matrix = NDArray[np.float64]
Vector = NDArray[np.float64]

_COLLINEAR = 1e-9  # share of a column's information that the columns before it leave


@dataclass(frozen=True, eq=False)
class CoxRows:
    """The rows of a fit, checked, standardised and in the order of the risk sets."""

    names: tuple[str, ...]
    z: Matrix
    means: Vector
    scale: Vector
    offset: Vector
    weight: Vector
    sets: RiskSets
    strata: tuple[str, ...]
    n_events: int

    @classmethod
    def checked(
        cls, x: ArrayLike, surv: Survival, names: Sequence[str] | None, strata: ArrayLike | None,
        offset: ArrayLike | None, weights: ArrayLike | None,
    ) -> CoxRows:
        """The rows; raises what fit_cox says."""
        matrix, labels = _matrix(x, len(surv), names)
        levels, codes = np.unique(labels_of(strata, len(surv), "strata"), return_inverse=True)
        sets = risk_sets(surv.time_months, surv.event, None if strata is None else codes.astype(np.int64))
        weight = _numbers(weights, 1.0, sets, "weights")
        if (weight < 0).any():
            raise FitError(Problem("E-CASEWEIGHTS", "a weight is negative", found=f"{weight.min():g}", expected=">= 0"))
        n_events = int((sets.event & (weight > 0)).sum())
        need_events(n_events, "a Cox model")
        if n_events < 2:
            raise FitError(Problem("E-FEWEVENTS", "a Cox model cannot be fitted to one event", found="1 event",
                                   expected="at least 2, better 10 per column"))
        ordered = matrix[sets.order]
        means = np.average(ordered, axis=0, weights=weight)
        centred = ordered - means
        scale = np.sqrt(np.average(centred**2, axis=0, weights=weight))
        flat = scale <= 1e-12 * np.maximum(np.abs(ordered).max(axis=0), 1e-300)
        scale = np.where(flat, 1.0, scale)
        z = np.where(flat, 0.0, centred) / scale
        return cls(labels, z, means, scale, _numbers(offset, 0.0, sets, "offset"), weight, sets,
                   tuple(str(level) for level in levels), n_events)


def _matrix(x: ArrayLike, n: int, names: Sequence[str] | None) -> tuple[Matrix, tuple[str, ...]]:
    """x as (n, p) finite numbers, and its column names."""
    matrix = np.asarray(x, dtype=np.float64)
    matrix = matrix[:, None] if matrix.ndim == 1 else matrix
    if matrix.ndim != 2 or len(matrix) != n:
        raise FitError(Problem("E-LENGTH", "x needs one row for each patient", found=f"shape {matrix.shape}",
                               expected=f"({n}, p)"))
    labels = tuple(names) if names is not None else tuple(f"x{j + 1}" for j in range(matrix.shape[1]))
    if len(labels) != matrix.shape[1] or len(set(labels)) != len(labels):
        raise FitError(Problem("E-LENGTH", "x needs one name for each column, all different",
                               found=f"{len(set(labels))} names", expected=f"{matrix.shape[1]}"))
    bad = ~np.isfinite(matrix)
    if bad.any():
        row, column = np.argwhere(bad)[0]
        raise FitError(Problem("E-MISSING", "a value is missing or not finite",
                               where=f"column {labels[column]}, row {row}", found=f"{bad.sum()} such values"))
    return matrix, labels


def labels_of(values: ArrayLike | None, n: int, what: str) -> NDArray:
    """n labels; one and the same when None."""
    array = np.full(n, "all") if values is None else np.asarray(values)
    if array.shape != (n,):
        raise FitError(Problem("E-LENGTH", f"{what} must hold one value for each patient",
                               found=f"shape {array.shape}", expected=f"({n},)"))
    return array


def codes_in_order(values: ArrayLike, sets: RiskSets, what: str) -> NDArray:
    """Labels in the order of the risk sets, as codes."""
    codes = np.unique(labels_of(values, sets.order.size, what), return_inverse=True)[1]
    ordered: NDArray = codes[sets.order]
    return ordered


def _numbers(values: ArrayLike | None, default: float, sets: RiskSets, what: str) -> Vector:
    """Finite numbers in the order of the risk sets."""
    n = sets.order.size
    array = np.full(n, default) if values is None else labels_of(np.asarray(values, dtype=np.float64), n, what)
    if not np.isfinite(array).all():
        raise FitError(Problem("E-MISSING", "a value is missing or not finite", where=what))
    ordered: Vector = array[sets.order]
    return ordered


def informative(data: CoxRows, *, efron: bool) -> NDArray[np.int64]:
    """The columns that vary in some risk set and are not a combination of columns before them."""
    p = data.z.shape[1]
    score, info = np.zeros(p), np.zeros((p, p))
    derivatives(sorted_rows(data.z, data.weight, data.sets, efron=efron), data.offset, score, info)
    kept: list[int] = []
    factor = np.zeros((p, p))
    total = np.diag(info)
    for j in range(p):
        row = info[j, kept].copy()
        for k in range(len(kept)):
            row[k] = (row[k] - row[:k] @ factor[k, :k]) / factor[k, k]
        left = total[j] - row @ row
        if total[j] > 1e-12 * max(total.max(), 1.0) and left > _COLLINEAR * total[j]:
            factor[len(kept), : len(kept)] = row
            factor[len(kept), len(kept)] = np.sqrt(left)
            kept.append(j)
    return np.array(kept, dtype=np.int64)
