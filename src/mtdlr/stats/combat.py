"""ComBat: features of several scanners on one scale, by batch location and scale with empirical Bayes shrinkage.

Johnson, Li & Rabinovic, Biostatistics 2007, parametric; with a reference batch as in R's sva::ComBat(ref.batch). What
was fitted on training patients is applied unchanged to others, and a new batch is fitted against the stored reference
without changing it. No outcome enters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mtdlr.errors import FitError, Problem

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
MINIMUM = 2
"""Patients below which a batch has no variance: never one."""
_TOLERANCE = 1e-10  # relative change at which the empirical Bayes iteration stops (sva: 1e-4)
_MAX_ITERATIONS = 1000


@dataclass(frozen=True, eq=False)
class Batch:
    """What ComBat takes off one batch: shifts and variance ratios of the p standardised features.

    Args:
        shift: (p,) empirical Bayes location.
        ratio: (p,) empirical Bayes variance ratio, > 0.
        n: patients it was estimated from.
    """

    shift: Vector
    ratio: Vector
    n: int


@dataclass(frozen=True, eq=False)
class Combat:
    """A fitted transform: aggregates only, no patient's row.

    Args:
        mean, sd: (p,) of each feature on the common scale; sd is 1 and the feature passes unchanged where it is flat.
        batches: by label; the reference batch, if any, has shift 0 and ratio 1.
        varies: (p,) features that vary in the common scale.
    """

    mean: Vector
    sd: Vector
    batches: Mapping[str, Batch]
    varies: NDArray[np.bool_]

    def transform(self, features: ArrayLike, batch: str) -> Matrix:
        """The features (n, p) of one known batch, on the common scale.

        Args:
            features: (n, p), finite, in the columns of the fit.
            batch: label of the scanner or centre, one of `batches`.

        Raises:
            FitError: E-BATCH for a batch that was not fitted, E-LENGTH for other columns.
        """
        if batch not in self.batches:
            raise FitError(Problem("E-BATCH", "this batch was not seen when the features were harmonised",
                                   found=batch, expected=" or ".join(self.batches)))
        x, part = _checked(features, self.mean.size), self.batches[batch]
        moved = ((x - self.mean) / self.sd - part.shift) / np.sqrt(part.ratio) * self.sd + self.mean
        return np.where(self.varies, moved, x)

    def with_batch(self, batch: str, features: ArrayLike, *, minimum: int = MINIMUM) -> Combat:
        """The transform with one more batch, fitted to the stored scale from the features of its own patients.

        Against a reference batch this equals a joint fit of both. It uses the new patients' features to transform
        them (transductive), and no outcome.

        Args:
            batch: label of the new batch.
            features: (n, p) of its patients.
            minimum: patients below which nothing is fitted.

        Raises:
            FitError: E-BATCHSIZE below `minimum` patients (never one patient); E-LENGTH, E-MISSING.
        """
        x = _checked(features, self.mean.size)
        _require(len(x), max(minimum, MINIMUM), batch)
        part = _shrunk((x - self.mean) / self.sd, self.varies)
        return Combat(self.mean, self.sd, {**self.batches, batch: part}, self.varies)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"mean": self.mean.tolist(), "sd": self.sd.tolist(), "varies": self.varies.tolist(),
                "batches": {name: {"shift": part.shift.tolist(), "ratio": part.ratio.tolist(), "n": part.n}
                            for name, part in self.batches.items()}}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Combat:
        """The transform that `as_dict` wrote."""
        batches = {str(name): Batch(np.array(part["shift"], float), np.array(part["ratio"], float), int(part["n"]))
                   for name, part in values["batches"].items()}
        return cls(np.array(values["mean"], float), np.array(values["sd"], float), batches,
                   np.array(values["varies"], bool))


def fit_combat(features: ArrayLike, batch: ArrayLike, *, reference: str | None = None) -> Combat:
    """The ComBat transform of features measured in several batches.

    Each feature of batch b is modelled as mean + sd (shift_b + sqrt(ratio_b) error); shift and ratio are shrunk over
    the features of a batch (normal and inverse gamma priors). Fit it on training patients only, inside each fold.

    Args:
        features: (n, p), one row a patient, without missing values.
        batch: (n,) labels of scanner or centre.
        reference: the batch that stays as it is; None takes the weighted mean of all batches.

    Raises:
        FitError: E-BATCHSIZE for a batch of one patient, E-BATCH for an unknown reference, E-LENGTH, E-MISSING.

    >>> x = np.array([[1.0, 5.0], [2.0, 4.0], [3.0, 7.0], [11.0, 5.0], [12.0, 9.0], [13.0, 6.0]])
    >>> fit = fit_combat(x, ["a"] * 3 + ["b"] * 3, reference="a")
    >>> fit.transform(x[:3], "a").tolist() == x[:3].tolist(), bool(fit.transform(x[3:], "b")[:, 0].mean() < 4)
    (True, True)
    """
    x = _checked(features, None)
    labels = np.asarray(batch).astype(str)
    if labels.shape != (len(x),):
        raise FitError(Problem("E-LENGTH", "batch must hold one label for each row of the features",
                               found=f"shape {labels.shape}", expected=f"({len(x)},)"))
    names = [str(name) for name in np.unique(labels)]
    if reference is not None and reference not in names:
        raise FitError(Problem("E-BATCH", "the reference batch is not among the batches", found=reference,
                               expected=" or ".join(names)))
    for name in names:
        _require(int((labels == name).sum()), MINIMUM, name)
    mean, sd, varies = _common_scale(x, labels, names, reference)
    z = (x - mean) / sd
    parts = {name: _shrunk(z[labels == name], varies) for name in names}
    if reference is not None:
        p = mean.size
        parts[reference] = Batch(np.zeros(p), np.ones(p), parts[reference].n)
    return Combat(mean, sd, parts, varies)


def _common_scale(
    x: Matrix, labels: NDArray, names: list[str], reference: str | None
) -> tuple[Vector, Vector, NDArray[np.bool_]]:
    """(mean, sd, varies) of the features: of the reference, or pooled over the batches."""
    rows = {name: x[labels == name] for name in names}
    if reference is not None:
        mean = rows[reference].mean(axis=0)
        variance = rows[reference].var(axis=0)
    else:
        mean = x.mean(axis=0)
        variance = sum(part.var(axis=0) * len(part) for part in rows.values()) / len(x)
    varies = variance > 1e-20 * np.maximum(mean**2, 1e-300)
    return mean, np.where(varies, np.sqrt(variance), 1.0), varies


def _shrunk(z: Matrix, varies: NDArray[np.bool_]) -> Batch:
    """The empirical Bayes location and variance ratio of one batch's standardised features (n, p)."""
    n, p = z.shape
    shift, ratio = np.zeros(p), np.ones(p)
    if varies.sum() < 2:  # nothing to borrow from: the plain estimates
        shift[varies], ratio[varies] = z[:, varies].mean(axis=0), np.maximum(z[:, varies].var(axis=0, ddof=1), 1e-12)
        return Batch(shift, ratio, n)
    part = z[:, varies]
    raw_shift, raw_ratio = part.mean(axis=0), part.var(axis=0, ddof=1)
    prior_mean, prior_variance = raw_shift.mean(), raw_shift.var(ddof=1)
    m, s2 = raw_ratio.mean(), max(raw_ratio.var(ddof=1), 1e-300)
    shape, rate = (2.0 * s2 + m**2) / s2, (m * s2 + m**3) / s2
    at, width = raw_shift.copy(), raw_ratio.copy()
    for _ in range(_MAX_ITERATIONS):
        new_at = (n * prior_variance * raw_shift + width * prior_mean) / (n * prior_variance + width)
        new_width = (rate + 0.5 * ((part - new_at) ** 2).sum(axis=0)) / (n / 2.0 + shape - 1.0)
        change = max(_relative(new_at, at), _relative(new_width, width))
        at, width = new_at, new_width
        if change < _TOLERANCE:
            break
    shift[varies], ratio[varies] = at, np.maximum(width, 1e-12)
    return Batch(shift, ratio, n)


def _relative(new: Vector, old: Vector) -> float:
    """Largest relative change."""
    return float((np.abs(new - old) / np.maximum(np.abs(old), 1e-300)).max())


def _checked(features: ArrayLike, p: int | None) -> Matrix:
    """The features as (n, p) finite numbers."""
    x = np.asarray(features, dtype=np.float64)
    if x.ndim != 2 or (p is not None and x.shape[1] != p):
        raise FitError(Problem("E-LENGTH", "features need one row a patient and the fitted columns",
                               found=f"shape {x.shape}", expected=f"(n, {p if p is not None else 'p'})"))
    if not np.isfinite(x).all():
        row, column = np.argwhere(~np.isfinite(x))[0]
        raise FitError(Problem("E-MISSING", "a feature is missing or not finite", where=f"row {row}, column {column}",
                               remedy="Leave the patient out of the harmonisation"))
    return x


def _require(n: int, minimum: int, batch: str) -> None:
    """E-BATCHSIZE unless the batch has enough patients."""
    if n < minimum:
        raise FitError(Problem("E-BATCHSIZE", "a batch has too few patients to be harmonised", where=f"batch {batch}",
                               found=f"{n} patient{'s' if n != 1 else ''}", expected=f"at least {minimum}",
                               remedy="Leave its features as they are"))
