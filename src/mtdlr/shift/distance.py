"""How far a new patient lies from those a model was trained on: percentiles, a warning, a refusal.

A model keeps only aggregates of its training patients: means, shrunk covariances and counts, each over at least five
patients. A new patient's numbers are compared group by group (uptake, CT numbers, noise, anatomy, protocol, features,
network), so that a refusal names what is out of range.
"""

from __future__ import annotations

import json
import re
import struct
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import fdtrc

from mtdlr.errors import BundleError, Problem
from mtdlr.imaging.appearance import APPEARANCE

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
WARN, REFUSE = 0.95, 0.999
"""Percentiles of the training patients beyond which a patient is warned of, and refused."""
LEAST_PATIENTS = 20
"""Training patients below which a group has no reference."""
BEHIND_A_NUMBER = 5
"""Patients behind every count that is kept."""
ARRAYS, HEADER = "reference.npz", "reference.json"
_FOLDS = 5
_ARRAYS = ("mean", "scale", "components", "variances", "noise")
_RANK_SHARE = 0.2  # components kept, as a share of the patients
_RIDGE = 0.02  # variance added to every scaled number: the shrinkage of the covariance
PHYSICAL: dict[str, tuple[float, float, str, str]] = {
    "suv_top": (0.8, 150.0, "SUV of the hottest hundredth of the body", "g/ml"),
    "suv_middle": (0.05, 15.0, "median SUV of the body", "g/ml"),
    "hu_low": (-3100.0, -40.0, "lowest CT numbers", "HU"),
    "hu_high": (60.0, 32767.0, "highest CT numbers", "HU"),
    "pet_voxel_mm": (0.5, 12.0, "largest PET voxel edge", "mm"),
    "ct_voxel_mm": (0.1, 12.0, "largest CT voxel edge", "mm"),
}
"""Ranges that no FDG-PET/CT of a living patient leaves: (low, high, what, unit)."""
LABELS = {"uptake": "the level of FDG uptake", "ct_numbers": "the mix of CT numbers", "pet_noise": "the PET's noise",
          "ct_noise": "the CT's noise", "anatomy": "the anatomy in the region", "together": "the fit of PET and CT",
          "edges": "the edges that PET and CT share",
          "protocol": "the voxel sizes", "uptake_time": "the time from injection to scan",
          "features": "the features of the signature", "scores": "the scores",
          "network": "what the networks see"}
"""What each group is called in a message."""


@dataclass(frozen=True, eq=False)
class ReferenceGroup:
    """Reference distribution of d numbers: a mean, a covariance of low rank plus noise, and how its distances spread.

    Args:
        names: (d,) of the numbers; empty for pictures.
        mean: (d,).
        scale: (d,) by which numbers are divided before anything else.
        components: (k, d) orthonormal directions of the scaled numbers; variances (k,) along them.
        noise: (d,) variance of the scaled numbers outside the components, the scanners' tolerance included.
        typical: mean squared distance of a training patient that the reference did not see.
        freedom: degrees of freedom of that distance.
        n: patients.
    """

    names: tuple[str, ...]
    mean: Vector
    scale: Vector
    components: Matrix
    variances: Vector
    noise: Vector
    typical: float
    freedom: float
    n: int

    @classmethod
    def fit_apart(cls, seen: Matrix, left_out: Matrix) -> ReferenceGroup:
        """The reference of some patients' numbers, with how far others lie from it.

        Args:
            seen: (n, d) of the patients who make mean and covariance, finite.
            left_out: (m, d) of the patients whose distances are the usual ones.
        """
        whole = _fitted(seen, (), np.zeros(seen.shape[1]))
        apart = whole.distances(left_out)
        typical, freedom = float(apart.mean()), 2.0 * float(apart.mean() ** 2 / max(apart.var(), 1e-12))
        return replace(whole, typical=typical, freedom=freedom, n=len(left_out))

    @classmethod
    def fit(cls, rows: ArrayLike, *, names: Sequence[str] = (), tolerance: ArrayLike = 0.0) -> ReferenceGroup | None:
        """The reference of n training patients' numbers (n, d); None below 20 patients.

        Args:
            rows: (n, d), finite.
            names: (d,) what the numbers are called.
            tolerance: scalar or (d,) standard deviation by which a number may differ between good scanners.
        """
        x = np.asarray(rows, dtype=np.float64)
        if len(x) < LEAST_PATIENTS:
            return None
        allowed = np.broadcast_to(np.asarray(tolerance, dtype=np.float64), x.shape[1:])
        whole = _fitted(x, tuple(names), allowed)
        fold = np.arange(len(x)) % _FOLDS
        seen = np.concatenate([_fitted(x[fold != k], (), allowed).distances(x[fold == k]) for k in range(_FOLDS)])
        typical, freedom = float(seen.mean()), 2.0 * float(seen.mean() ** 2 / max(seen.var(), 1e-12))
        if typical < x.shape[1]:  # the tolerance leaves room for scanners that the training cohort did not have
            typical, freedom = float(x.shape[1]), max(freedom, min(float(x.shape[1]), 10.0))
        return replace(whole, typical=typical, freedom=freedom)

    def distances(self, rows: Matrix) -> Vector:
        """(n,) squared Mahalanobis distances."""
        z = (rows - self.mean) / self.scale
        white = z / np.sqrt(self.noise)
        # Woodbury: the components seen through the noise
        basis = self.components / np.sqrt(self.noise)
        inner = np.diag(1.0 / self.variances) + basis @ basis.T if self.variances.size else np.zeros((0, 0))
        along = white @ basis.T
        explained = (along * np.linalg.solve(inner, along.T).T).sum(axis=1) if self.variances.size else 0.0
        result: Vector = np.maximum((white**2).sum(axis=1) - explained, 0.0)
        return result

    def beyond(self, row: Vector) -> float:
        """Share of training patients expected to lie further out, down to 0: the upper tail of F.

        F has half as many lower degrees of freedom as there are patients, for the tail is known less than the mean.
        """
        return float(fdtrc(self.freedom, max(self.n / 2.0, 2.0), self.distances(row[None, :])[0] / self.typical))

    def worst(self, row: Vector) -> tuple[str, str]:
        """(found, expected) of the number furthest from its mean; of pictures, how many times the usual distance."""
        times = float(np.sqrt(self.distances(row[None, :])[0] / self.typical))
        if not self.names:
            return f"{times:.1f} times the usual distance", "at most about 2"
        variance = self.noise + (self.components**2 * self.variances[:, None]).sum(axis=0)
        at = int(np.argmax(np.abs((row - self.mean) / self.scale) / np.sqrt(variance)))
        half = 2.0 * float(np.sqrt(variance[at]) * self.scale[at])
        ends = [float(value) for value in (row[at], self.mean[at] - half, self.mean[at] + half)]
        name = self.names[at]
        if name.startswith("log "):
            name, ends = name.removeprefix("log "), np.exp(np.minimum(ends, 300.0)).tolist()
        return f"{name} {ends[0]:.3g}", f"{ends[1]:.3g} to {ends[2]:.3g}"

    def as_dict(self) -> dict[str, Any]:
        """Everything but the arrays, as plain values."""
        return {"names": list(self.names), "typical": self.typical, "freedom": self.freedom, "n": self.n}

    def arrays(self) -> dict[str, Vector]:
        """The arrays, in single precision."""
        return {name: getattr(self, name).astype(np.float32) for name in _ARRAYS}


@dataclass(frozen=True)
class Shift:
    """How far one patient lies from the training patients.

    Args:
        percentiles: by group, the share of training patients expected to lie closer, 0 to 1.
        problems: E-SHIFT beyond the 99.9th percentile, E-PHYSICAL outside what a living patient can have, W-SHIFT
            beyond the 95th; W-UNSEEN for a scanner that the training cohort did not have.
    """

    percentiles: Mapping[str, float]
    problems: tuple[Problem, ...] = ()

    @property
    def percentile(self) -> float:
        """The largest percentile; nan where nothing could be compared."""
        return max(self.percentiles.values(), default=float("nan"))

    @property
    def refused(self) -> bool:
        """Whether the patient is too far outside for a prognosis."""
        return any(problem.is_error for problem in self.problems)

    def accepted(self) -> Shift:
        """The same with refusals turned into warnings, as `--accept-out-of-distribution` asks."""
        return replace(self, problems=tuple(
            replace(p, code=p.code.replace("E-", "W-"), remedy="Accepted on request; read the prediction with distrust")
            if p.is_error else p for p in self.problems))

    def joined(self, other: Shift) -> Shift:
        """This and the percentiles and problems of another one."""
        return Shift({**self.percentiles, **other.percentiles}, (*self.problems, *other.problems))

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"percentile": None if np.isnan(self.percentile) else self.percentile,
                "percentiles": dict(self.percentiles), "problems": [p.as_dict() for p in self.problems]}


@dataclass(frozen=True, eq=False)
class Reference:
    """Reference distributions of a training cohort: aggregates only.

    Args:
        groups: by name, see `LABELS`.
        counts: of scanners and the like, {kind: {label: patients}}; labels of fewer than five patients are together
            under "other".
        n: training patients.
    """

    groups: Mapping[str, ReferenceGroup]
    counts: Mapping[str, Mapping[str, int]]
    n: int

    @classmethod
    def fit(
        cls, numbers: Sequence[Mapping[str, Vector]], labels: Sequence[Mapping[str, str]] = (), *,
        names: Mapping[str, Sequence[str]] | None = None,
    ) -> Reference:
        """The reference of training patients.

        Args:
            numbers: of each patient, vectors by group (as `patient_numbers` gives them, and any others).
            labels: of each patient, {kind: label}, such as vendor and kernel.
            names: of the numbers of the groups that are not in `APPEARANCE`.
        """
        groups = {}
        for group in dict.fromkeys(name for one in numbers for name in one):
            rows = [one[group] for one in numbers if group in one and np.isfinite(one[group]).all()]
            known = APPEARANCE.get(group)
            fitted = ReferenceGroup.fit(np.array(rows).reshape(len(rows), -1),
                                        tolerance=known.tolerance if known else 0.0,
                                        names=known.names if known else (names or {}).get(group, ()))
            if fitted is not None:
                groups[group] = fitted
        kinds = dict.fromkeys(kind for one in labels for kind in one)
        return cls(groups, {kind: _counted([one[kind] for one in labels if kind in one]) for kind in kinds},
                   len(numbers))

    def judge(
        self, numbers: Mapping[str, Vector], physical: Mapping[str, float] | None = None,
        labels: Mapping[str, str] | None = None, *, refuses: bool = True,
    ) -> Shift:
        """How far a patient lies outside.

        Args:
            numbers: vectors by group; groups without a reference are not judged.
            physical: values of `PHYSICAL`.
            labels: {kind: label}.
            refuses: False turns what would be refused into a warning.
        """
        problems, percentiles = list(_impossible(physical or {})), {}
        for name, group in self.groups.items():
            row = numbers.get(name)
            if row is None or row.shape != group.mean.shape or not np.isfinite(row).all():
                continue
            beyond = group.beyond(row)
            percentiles[name] = 1.0 - beyond
            if beyond < 1.0 - WARN:
                problems.append(outside(name, *group.worst(row), refused=refuses and beyond < 1.0 - REFUSE))
        problems += [_unseen(kind, label, self.counts[kind]) for kind, label in (labels or {}).items()
                     if self.counts.get(kind) and label not in self.counts[kind]]
        return Shift(percentiles, tuple(sorted(problems, key=lambda p: not p.is_error)))

    def save(self, folder: Path) -> None:
        """Write reference.npz and reference.json."""
        arrays = {f"{name}/{key}": value for name, group in self.groups.items()
                  for key, value in group.arrays().items()}
        np.savez(folder / ARRAYS, **arrays)  # type: ignore[arg-type]
        header = {"n": self.n, "counts": {kind: dict(found) for kind, found in self.counts.items()},
                  "groups": {name: group.as_dict() for name, group in self.groups.items()}}
        (folder / HEADER).write_text(json.dumps(header, indent=1), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Reference:
        """What `save` wrote.

        Raises:
            BundleError: E-REFERENCE when the files are missing or are not such a reference.
        """
        try:
            header = json.loads((folder / HEADER).read_text(encoding="utf-8"))
            with (folder / ARRAYS).open("rb") as file, np.load(file, allow_pickle=False) as stored:
                groups = {name: ReferenceGroup(names=tuple(values["names"]), typical=float(values["typical"]),
                                               freedom=float(values["freedom"]), n=int(values["n"]),
                                               **{key: stored[f"{name}/{key}"].astype(np.float64) for key in _ARRAYS})
                          for name, values in header["groups"].items()}
            if not all(_is_sound(name, group) for name, group in groups.items()):
                raise ValueError("no reference that a fit gives")
            return cls(groups, header["counts"], int(header["n"]))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RuntimeError, EOFError,
                BadZipFile, zlib.error, struct.error) as error:
            raise BundleError(Problem("E-REFERENCE", "the reference distributions of the model cannot be read",
                                      found=type(error).__name__,
                                      remedy="Ask the sender for the model again")) from None


def _fitted(x: Matrix, names: tuple[str, ...], allowed: Vector) -> ReferenceGroup:
    """Mean, components and noise of rows (n, d); how distances spread is not known yet."""
    n, d = x.shape
    mean, spread = x.mean(axis=0), x.std(axis=0, ddof=1)
    scale = np.maximum(np.hypot(spread, allowed), 1e-9)
    _, singular, basis = np.linalg.svd((x - mean) / scale, full_matrices=False)
    values = singular**2 / (n - 1)
    k = min(d, int(_RANK_SHARE * n))
    rest = float(values[k:].sum()) / (d - k) if d > k else 0.0
    noise = rest + (allowed / scale) ** 2 + _RIDGE
    return ReferenceGroup(names, mean, scale, basis[:k], np.maximum(values[:k] - rest, 1e-12), noise, 1.0, float(d), n)


def _is_sound(name: str, group: ReferenceGroup) -> bool:
    """Whether a stored group is one that a fit gives: a plain name, arrays that belong together, positive spreads."""
    arrays = [getattr(group, key) for key in _ARRAYS]
    d, k = group.mean.size, len(group.variances)
    shapes = [(d,), (d,), (k, d), (k,), (d,)]
    return (re.fullmatch(r"[a-z_]{1,20}( \d{1,2})?", name) is not None
            and [array.shape for array in arrays] == shapes and len(group.names) in (0, d)
            and all(np.isfinite(array).all() for array in arrays) and group.n >= BEHIND_A_NUMBER
            and all((array > 0).all() for array in (group.scale, group.variances, group.noise))
            and 0 < group.typical < np.inf and 0 < group.freedom < np.inf)


def _counted(labels: Sequence[str]) -> dict[str, int]:
    """Patients by label; labels of fewer than five patients together."""
    found = Counter(labels)
    kept = {label: n for label, n in sorted(found.items()) if n >= BEHIND_A_NUMBER}
    rest = len(labels) - sum(kept.values())
    return kept | ({"other": rest} if rest >= BEHIND_A_NUMBER else {})


def _impossible(values: Mapping[str, float]) -> list[Problem]:
    """E-PHYSICAL for every value outside its range."""
    problems = []
    for name, value in values.items():
        low, high, what, unit = PHYSICAL[name]
        if not low <= value <= high:
            problems.append(Problem("E-PHYSICAL", f"{what}: impossible in an FDG-PET/CT", where="scan",
                                    found=f"{value:.3g} {unit}", expected=f"{low:g} to {high:g} {unit}",
                                    remedy="Check that the images are PET in SUV and CT in HU"))
    return problems


def outside(name: str, found: str, expected: str, *, refused: bool) -> Problem:
    """E-SHIFT or W-SHIFT of one group.

    Args:
        name: of the group.
        found: of the patient.
        expected: of the training patients.
        refused: E-SHIFT; else W-SHIFT.
    """
    what = f"{LABELS.get(name, name)} lies outside that of the training patients"
    if refused:
        return Problem("E-SHIFT", what, where="scan", found=found, expected=expected,
                       remedy="No prognosis is given; --accept-out-of-distribution overrides this, on record")
    return Problem("W-SHIFT", what.replace("outside", "at the edge of"), where="scan", found=found, expected=expected,
                   remedy="Look at the scan before using the prediction")


def _unseen(kind: str, label: str, known: Mapping[str, int]) -> Problem:
    return Problem("W-UNSEEN", f"the training patients had no such {kind}", where="scan", found=label,
                   expected=" or ".join(known), remedy="Validate the model on patients of this scanner first")
