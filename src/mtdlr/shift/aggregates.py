"""What a frozen model keeps of its training patients beside its coefficients: aggregates and salted hashes, no row.

Reference distributions (`shift`), the conformal lower bound, the margins of Table 1, the risks in groups, and a salted
hash of each training image, by which a patient who was in training is recognised. Every number stands on at least five
patients.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mtdlr.cohort.clinical import label_of
from mtdlr.errors import BundleError, FitError, Problem
from mtdlr.nomogram import Nomogram
from mtdlr.shift import BEHIND_A_NUMBER, LEAST_PATIENTS, Description, Reference, Shift, TrainingRisks
from mtdlr.shift.network import Bottlenecks, network_groups
from mtdlr.stats.conformal import LowerBound, fit_lower_bound
from mtdlr.study import CohortSettings
from mtdlr.survival import Survival

FILE = "aggregates.json"
REFERENCE_SCORES = ("deepmts", "single_task", "auto_radio")
"""Scores whose distribution in the training cohort a model keeps."""
Vector = NDArray[np.float64]
Row = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Aggregates:
    """Aggregates of the training patients.

    Args:
        reference: distributions of how their scans look.
        bound: thresholds of the lower bound of the time to the event; None where the events do not carry one.
        margins: rows of Table 1: `label`, `level` and `n` (None where it is hidden, see `margins`), or `quartiles`
            (25, 50, 75 %) of a number.
        salt: what the images' hashes are salted with.
        images: salted hashes of the training images, sorted.
        risks: the training patients' cross-fitted risks in groups; None where a model keeps none.
    """

    reference: Reference
    bound: LowerBound | None
    margins: tuple[Row, ...]
    salt: str
    images: tuple[str, ...]
    risks: TrainingRisks | None = None

    def holds(self, images: Iterable[str]) -> bool:
        """Whether one of these content hashes belongs to a training patient."""
        return any(salted(self.salt, image) in self.images for image in images)

    def later(self, scores: pd.DataFrame, measured: pd.DataFrame) -> list[Shift]:
        """How far the scores and the signature's features of each patient lie outside: warnings, no refusal.

        Args:
            scores: as in `late_numbers`.
            measured: as in `late_numbers`.
        """
        return [self.reference.judge(numbers, refuses=False) for numbers in late_numbers(scores, measured)]

    def save(self, folder: Path) -> None:
        """Write aggregates.json, reference.json and reference.npz."""
        self.reference.save(folder)
        values = {"bound": None if self.bound is None else self.bound.as_dict(), "margins": list(self.margins),
                  "salt": self.salt, "images": list(self.images),
                  "risks": None if self.risks is None else self.risks.as_dict()}
        (folder / FILE).write_text(json.dumps(values, indent=1), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Aggregates:
        """What `save` wrote.

        Raises:
            BundleError: E-REFERENCE when a file is missing or is not what it should be.
        """
        try:
            values = json.loads((folder / FILE).read_text(encoding="utf-8"))
            bound = None if values["bound"] is None else LowerBound.from_dict(values["bound"])
            risks = values.get("risks")  # models made before they were kept have none
            return cls(Reference.load(folder), bound, tuple(values["margins"]), str(values["salt"]),
                       tuple(map(str, values["images"])), None if risks is None else TrainingRisks.from_dict(risks))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            raise BundleError(Problem("E-REFERENCE", "the aggregates of the model cannot be read",
                                      found=type(error).__name__,
                                      remedy="Ask the sender for the model again")) from None


def late_numbers(scores: pd.DataFrame, measured: pd.DataFrame) -> list[dict[str, Vector]]:
    """The numbers of each patient that are known only once it is scored: its scores and the signature's features.

    Args:
        scores: (n, columns) with `REFERENCE_SCORES`.
        measured: (n, p) features of the signature, on the training scale; p may be 0.
    """
    rows = zip(scores[list(REFERENCE_SCORES)].to_numpy(float), measured.to_numpy(float), strict=True)
    return [{"scores": found} | ({"features": features} if features.size else {}) for found, features in rows]


def training_reference(
    found: Mapping[str, Description], scores: pd.DataFrame, measured: pd.DataFrame, *,
    bottlenecks: Mapping[str, Bottlenecks], folds: Mapping[str, int],
) -> Reference:
    """The reference distributions of the training patients.

    Args:
        found: how each of them looks.
        scores: (patients, columns) as in `late_numbers`, out of fold.
        measured: (patients, p) as in `late_numbers`.
        bottlenecks: of each patient with scores.
        folds: of each patient; network k never saw fold k.
    """
    late = dict(zip(map(str, scores.index), late_numbers(scores, measured), strict=True))
    reference = Reference.fit([{**one.numbers, **late[i]} for i, one in found.items()],
                              [one.labels for one in found.values()],
                              names={"scores": REFERENCE_SCORES, "features": tuple(measured.columns)})
    return replace(reference, groups={**reference.groups, **network_groups(bottlenecks, folds)})


def salted(salt: str, image: str) -> str:
    """Sixteen hex digits of an image's content hash with the model's salt.

    Args:
        salt: the model's salt, a random text.
        image: content hash of the image.
    """
    return hashlib.sha256(f"{salt} {image}".encode()).hexdigest()[:16]


def training_bound(nomogram: Nomogram, rows: pd.DataFrame) -> LowerBound | None:
    """The lower bound from the training patients' cross-fitted scores; None without enough patients or events.

    Args:
        nomogram: of the model.
        rows: training patients with follow-up, covariates and out-of-fold scores; incomplete ones take no part.
    """
    known = rows[list(nomogram.design.variables)].notna().all(axis=1)
    kept = rows[known]
    surv = Survival(kept["time_months"].to_numpy(float), kept["event"].to_numpy(bool))
    if len(surv) < LEAST_PATIENTS or not surv.n_events:
        return None
    stored = Nomogram.from_json(nomogram.to_json())  # as it is in a bundle
    own = np.diag(stored.survival(kept, surv.time_months).value)
    usable = np.isfinite(own)
    try:
        return fit_lower_bound(own[usable], surv.take(usable))
    except FitError:
        return None


def margins(table: pd.DataFrame, settings: CohortSettings) -> tuple[Row, ...]:
    """The rows of Table 1 of one cohort, as quartiles and counts of at least five patients.

    Args:
        table: (patients) with the clinical columns and the event.
        settings: which columns are continuous, categorical or described.
    """
    rows: list[Row] = []
    for name in settings.continuous:
        values = table[name].dropna().to_numpy(float) if name in table else np.empty(0)
        if values.size >= LEAST_PATIENTS:
            rows.append({"name": name, "label": label_of(name), "n": int(values.size),
                         "quartiles": [float(q) for q in np.quantile(values, (0.25, 0.5, 0.75))]})
    for name, levels in (*settings.factors.items(), *((flag, (1, 0)) for flag in settings.described)):
        if name in table:
            rows += _counts(name, levels, [int((table[name] == level).sum()) for level in levels])
    rows.append(_count("event", "Event", int(table["event"].sum())))
    return tuple(rows)


def _counts(name: str, levels: Sequence[object], counts: Sequence[int]) -> list[Row]:
    """The levels of a column. Where one is hidden the smallest others are too, until five patients are hidden together:
    a single hidden level would be the total less the others."""
    hidden = [k for k, n in enumerate(counts) if 0 < n < BEHIND_A_NUMBER]
    shown = sorted((k for k, n in enumerate(counts) if n >= BEHIND_A_NUMBER), key=lambda k: counts[k])
    while hidden and shown and (len(hidden) < 2 or sum(counts[k] for k in hidden) < BEHIND_A_NUMBER):
        hidden.append(shown.pop(0))
    return [_count(name, level, n) | ({"n": None} if k in hidden else {})
            for k, (level, n) in enumerate(zip(levels, counts, strict=True))]


def _count(name: str, level: object, n: int) -> dict[str, Any]:
    """A level and its patients; None for one to four of them."""
    text = {1: "yes", 0: "no"}.get(level, level) if isinstance(level, int) else level
    return {"name": name, "label": label_of(name), "level": str(text),
            "n": n if n == 0 or n >= BEHIND_A_NUMBER else None}


def margins_text(rows: Sequence[Row], total: int) -> dict[tuple[str, str], str]:
    """The printed form of each row of `margins`: median (quartiles), or n (per cent).

    Args:
        rows: of `margins`; a count of None is below five and stays hidden.
        total: number of patients, for the per cent.

    Returns:
        By (label, level).
    """
    text = {}
    for row in rows:
        if "quartiles" in row:
            low, middle, high = row["quartiles"]
            text[row["label"], ""] = f"{middle:.4g} ({low:.4g}-{high:.4g})"
        else:
            n = row["n"]
            share = f"{n} ({100 * n / total:.1f}%)" if n is not None and total else "-"
            text[row["label"], row["level"]] = "hidden" if n is None else share
    return text
