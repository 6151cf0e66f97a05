"""The rows of a Cox fit: checked once, standardised, and put in the order of the risk sets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mtdlr.errors import FitError, Problem
from mtdlr.stats.checks import aligned, follow_up, groups_of, need_events, risks, scores
from mtdlr.stats.cox_likelihood import RiskSets, SortedRows, Start, derivatives, risk_sets, sorted_rows
from mtdlr.survival import Survival, numbers

Matrix = NDArray[np.float64]
Vector = NDArray[np.float64]

_LARGEST = 1e100
_ROUNDING = 2e-15  # a column that varies no more than this share of its size is constant
_COLLINEAR = 1e-9  # share of a column's information that the columns before it leave


@dataclass(frozen=True, eq=False)
class Cases:
    """What is known of n patients beside their columns and follow-up; None where nothing is.

    Args:
        strata: (n,) labels; each label has its own baseline hazard.
        offset: (n,) known part of the log hazard.
        weights: (n,) case weights >= 0; give `clusters` too when they are not counts of identical patients.
        clusters: (n,) labels; the variance becomes the sandwich clustered on them (Lin and Wei 1989); one label per
            patient gives the robust variance.
    """

    strata: ArrayLike | None = None
    offset: ArrayLike | None = None
    weights: ArrayLike | None = None
    clusters: ArrayLike | None = None


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
    def checked(cls, x: ArrayLike, surv: Survival, names: Sequence[str] | None, cases: Cases) -> CoxRows:
        """The rows of a fit, checked, standardised and sorted.

        Args:
            x: (n, p) design matrix.
            surv: follow-up of the n patients.
            names: (p,) column names; None takes those of the table, or x1 to xp.
            cases: strata, offset, weights and clusters.

        Raises:
            TableError: E-ORDER, E-INDEX, E-NUMBER, E-LENGTH, E-MISSING, E-LEVEL.
            FitError: E-LENGTH, E-MISSING, E-NUMBER for x; E-CASEWEIGHTS for a negative weight; E-NOEVENTS, E-FEWEVENTS
                for fewer than two events.
        """
        matrix, labels = matrix_of(x, surv, names)
        levels, codes = (("all",), None) if cases.strata is None else label_codes(cases.strata, surv, "strata")
        sets = risk_sets(surv.time_months, surv.event, codes)
        weight = _numbers(cases.weights, 1.0, surv, sets, "weights")
        if (weight < 0).any():
            raise FitError(Problem("E-CASEWEIGHTS", "a weight is negative", found=f"{weight.min():g}", expected=">= 0"))
        n_events = int((sets.event & (weight > 0)).sum())
        need_events(n_events, "a Cox model")
        if n_events < 2:
            raise FitError(Problem("E-FEWEVENTS", "a Cox model cannot be fitted to one event", found="1 event",
                                   expected="at least 2, better 10 per column"))
        z = matrix.take(sets.order, axis=0)
        start = z[0].copy()  # a constant column is exactly 0 from here, however large its value
        z -= start
        mean = weight @ z / weight.sum()
        z -= mean
        scale = np.sqrt(weight @ (z * z) / weight.sum())
        flat = scale <= _ROUNDING * np.maximum(np.abs(start), 1e-290)
        z[:, flat], scale[flat], means = 0.0, 1.0, start + mean
        z /= scale
        return cls(labels, z, means, scale, _numbers(cases.offset, 0.0, surv, sets, "offset"), weight, sets,
                   levels, n_events)


def matrix_of(x: ArrayLike, surv: Survival, names: Sequence[str] | None = None) -> tuple[Matrix, tuple[str, ...]]:
    """x as (n, p) finite numbers in the order of the follow-up, and its column names.

    A data frame gives its own names, and its columns are taken by `names` where it has them all.

    Args:
        x: (n, p) table or array, or (n,) for one column.
        surv: follow-up of the n patients.
        names: (p,) column names, all different; None takes those of the table, or x1 to xp.

    Raises:
        TableError: E-ORDER, E-INDEX, E-NUMBER.
        FitError: E-LENGTH, E-MISSING, E-NUMBER for a number beyond 1e100.
    """
    if isinstance(x, Survival):
        scores(x, 0, "x")
    frame = aligned(x, follow_up(surv))
    if hasattr(frame, "columns") and hasattr(frame, "iloc"):
        if names is not None and set(names) <= set(frame.columns):
            frame = frame[list(names)]
        names = tuple(str(name) for name in frame.columns) if names is None else names
    matrix = numbers(frame, "x")
    matrix = matrix[:, None] if matrix.ndim == 1 else matrix
    if matrix.ndim != 2 or len(matrix) != len(surv):
        raise FitError(Problem("E-LENGTH", "x needs one row for each patient", found=f"shape {matrix.shape}",
                               expected=f"({len(surv)}, p)"))
    labels = tuple(names) if names is not None else tuple(f"x{j + 1}" for j in range(matrix.shape[1]))
    if len(labels) != matrix.shape[1] or len(set(labels)) != len(labels):
        raise FitError(Problem("E-LENGTH", "x needs one name for each column, all different",
                               found=f"{len(set(labels))} names", expected=f"{matrix.shape[1]}"))
    return finite(matrix, labels), labels


def finite(matrix: Matrix, names: Sequence[str]) -> Matrix:
    """The matrix (n, p), if all of it is finite and within 1e100.

    Args:
        matrix: (n, p) numbers.
        names: (p,) column names, for the message.

    Raises:
        FitError: E-MISSING for a missing or infinite value, E-NUMBER for one beyond 1e100.
    """
    if matrix.size and not (matrix.min() >= -_LARGEST and matrix.max() <= _LARGEST):  # nan is neither
        bad = ~(np.abs(matrix) <= _LARGEST)
        row, column = np.argwhere(bad)[0]
        where, value = f"column {names[column]}, row {row}", matrix[row, column]
        if np.isfinite(value):
            raise FitError(Problem("E-NUMBER", "a number is too large to compute with", where=where, found=f"{value:g}",
                                   expected=f"up to {_LARGEST:g}"))
        raise FitError(Problem("E-MISSING", "a value is missing or not finite", where=where,
                               found=f"{(~np.isfinite(matrix)).sum()} such values"))
    return matrix


def label_codes(values: ArrayLike, surv: Survival, what: str) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """The different labels of the patients in sorted order, as text, and the code of each patient.

    Args:
        values: (n,) labels of one kind.
        surv: follow-up of the n patients.
        what: what the labels are called in a message: "strata".

    Returns:
        (levels, codes): k texts, and (n,) codes 0 to k - 1.

    Raises:
        TableError: those of `groups_of`; E-INDEX.
    """
    levels, codes = groups_of(aligned(values, surv), len(surv), what)
    return tuple(str(level) for level in levels), codes


def _numbers(values: ArrayLike | None, default: float, surv: Survival, sets: RiskSets, what: str) -> Vector:
    """Finite numbers in the order of the risk sets."""
    array = np.full(len(surv), default) if values is None else risks(values, surv, what)
    ordered: Vector = array[sets.order]
    return ordered


def informative(data: CoxRows, *, efron: bool) -> tuple[NDArray[np.int64], SortedRows, Start]:
    """The columns that vary in some risk set and are not a combination of columns before them; the rows with these
    columns, and the likelihood at 0.

    Args:
        data: the rows of a fit, with p standardised columns.
        efron: True for Efron's treatment of ties, False for Breslow's.

    Returns:
        (columns, rows, start): (k,) places among the p columns, the rows with these k columns, and the value, score and
        information of the likelihood at 0.
    """
    p = data.z.shape[1]
    score, info = np.zeros(p), np.zeros((p, p))
    rows = sorted_rows(data.z, data.weight, data.sets, efron=efron)
    loglik = float(derivatives(rows, data.offset, score, info))
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
    columns = np.array(kept, dtype=np.int64)
    if columns.size < p:
        rows = rows._replace(x=np.ascontiguousarray(data.z[:, columns]))
    return columns, rows, Start(loglik, score[columns], np.ascontiguousarray(info[np.ix_(columns, columns)]))
