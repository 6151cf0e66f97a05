"""Features of several centres on one scale: ComBat (`stats.combat`) fitted on training patients, kept with a signature.

What is done follows a patient's centre. A centre of training has its stored transform. A new centre with enough
patients is put on the stored scale by its own patients' features, without outcomes (transductive). A smaller one stays
as it is.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mtdlr.errors import FitError, Problem
from mtdlr.stats.combat import Combat, fit_combat
from mtdlr.study import SignatureSettings

Policy = Literal["stored", "transductive", "none"]
LEAST_PATIENTS = 5
"""Patients behind every number that is kept of a centre."""


@dataclass(frozen=True)
class CenterPolicy:
    """What was done with the features of one centre.

    Args:
        center: its name; "" where none was given.
        policy: "stored" for the transform fitted in training, "transductive" for one fitted on the centre's own
            features, or "none".
        n: its patients with features.
        minimum: patients from which a new centre is harmonised.
    """

    center: str
    policy: Policy
    n: int
    minimum: int

    @property
    def problem(self) -> Problem | None:
        """W-TRANSDUCTIVE or W-NOTHARMONISED; None for a centre of training."""
        where = f"centre {self.center}" if self.center else "no centre given"
        found = f"{self.n} patient{'s' * (self.n != 1)}"
        if self.policy == "transductive":
            return Problem("W-TRANSDUCTIVE", "the features of a new centre were harmonised with the help of these very "
                           "patients (ComBat, no outcomes)", where=where, found=found,
                           remedy="One later patient is not harmonised: the result holds for a whole centre")
        if self.policy == "none":
            return Problem("W-NOTHARMONISED", "the features were not harmonised as those of training were", where=where,
                           found=found, expected=f"a centre of training, or at least {self.minimum} patients",
                           remedy="Read the radiomic score with distrust")
        return None


@dataclass(frozen=True, eq=False)
class Harmonisation:
    """A fitted transform of features: aggregates over at least five patients each, no row.

    Args:
        features: (p,) names, in the columns of `combat`.
        combat: with a reference batch, the largest centre.
        minimum: patients from which a new centre is harmonised.
    """

    features: tuple[str, ...]
    combat: Combat
    minimum: int

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Harmonisation) and self.as_dict() == other.as_dict()

    def __hash__(self) -> int:
        return hash((self.features, self.minimum))

    def apply(self, table: pd.DataFrame, centers: pd.Series) -> pd.DataFrame:
        """The table with its features on the training scale; missing values stay missing.

        Args:
            table: (n, columns) with the features, one row a patient.
            centers: (n,) name of each patient's centre.

        Raises:
            FitError: E-FEATURE when a feature has no column.
        """
        values = self._values(table)
        for one, rows in self._policies(values, centers):
            if one.policy != "none":
                part = values[rows]
                known = np.isfinite(part)
                combat = self.combat if one.policy == "stored" else self.combat.with_batch(
                    one.center, part[known.all(axis=1)], minimum=self.minimum)
                moved = combat.transform(np.where(known, part, self.combat.mean), one.center)
                values[rows] = np.where(known, moved, part)
        return table.assign(**dict(zip(self.features, values.T, strict=True)))

    def policies(self, table: pd.DataFrame, centers: pd.Series) -> tuple[CenterPolicy, ...]:
        """What `apply` does with each centre, in the order of their names.

        Args:
            table: as in `apply`.
            centers: as in `apply`.
        """
        return tuple(one for one, _ in self._policies(self._values(table), centers))

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"features": list(self.features), "minimum": self.minimum, "combat": self.combat.as_dict()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Harmonisation:
        """What `as_dict` wrote.

        Raises:
            ValueError, KeyError, TypeError: for values that are no such transform.
        """
        found = cls(tuple(map(str, values["features"])), Combat.from_dict(values["combat"]), int(values["minimum"]))
        p, combat = len(found.features), found.combat
        rows = [combat.mean, combat.sd, *(row for one in combat.batches.values() for row in (one.shift, one.ratio))]
        sound = all(row.shape == (p,) and np.isfinite(row).all() for row in rows) and combat.varies.shape == (p,)
        positive = all((row > 0).all() for row in (combat.sd, *(one.ratio for one in combat.batches.values())))
        enough = min((one.n for one in combat.batches.values()), default=0) >= LEAST_PATIENTS <= found.minimum
        if set(values) != {"features", "minimum", "combat"} or not (p and sound and positive and enough):
            raise ValueError("no transform that a fit gives")
        return found

    def _values(self, table: pd.DataFrame) -> NDArray[np.float64]:
        absent = [name for name in self.features if name not in table.columns]
        if absent:
            raise FitError(Problem("E-FEATURE", "the feature table lacks features that were harmonised in training",
                                   found=", ".join(absent)[:200]))
        return table[list(self.features)].to_numpy(float, copy=True)

    def _policies(
        self, values: NDArray[np.float64], centers: pd.Series
    ) -> list[tuple[CenterPolicy, NDArray[np.bool_]]]:
        """Each centre's policy and its rows."""
        labels, whole, found = centers.astype(str).to_numpy(), np.isfinite(values).all(axis=1), []
        for center in sorted(set(labels)):
            rows = labels == center
            n = int((rows & whole).sum())
            policy: Policy = ("stored" if center in self.combat.batches else
                              "transductive" if n >= self.minimum else "none")
            found.append((CenterPolicy(center, policy, n, self.minimum), rows))
        return found


def large_centers(centers: pd.Series, settings: SignatureSettings) -> frozenset[str]:
    """The centres with enough patients to be harmonised.

    Args:
        centers: (n,) name of each training patient's centre.
        settings: of the study (`signature`).
    """
    counts = centers.astype(str).value_counts()
    return frozenset(counts.index[counts >= settings.harmonise_patients])


def fit_harmonisation(
    features: pd.DataFrame, centers: pd.Series, settings: SignatureSettings, among: Collection[str]
) -> Harmonisation | None:
    """The transform of some training patients' features, the largest centre as reference; no outcome enters.

    Features take part that every patient has. Patients without features (an empty mask) take no part.

    Args:
        features: (n, columns), one row a patient.
        centers: (n,) name of each patient's centre.
        settings: of the study (`signature`).
        among: centres that are harmonised; of them, those with five patients here.

    Returns:
        None where harmonising is off or no centre has enough patients.
    """
    if settings.harmonise == "off":
        return None
    rows = features.notna().mean(axis=1).to_numpy() > 0.5
    labels = centers.astype(str).to_numpy()
    counts = {name: int((rows & (labels == name)).sum()) for name in sorted(among)}
    batches = [name for name, n in counts.items() if n >= LEAST_PATIENTS]
    values = features.to_numpy(float)
    kept = np.isfinite(values[rows]).all(axis=0)
    if not batches or not kept.any():
        return None
    seen = rows & np.isin(labels, batches)
    combat = fit_combat(values[seen][:, kept], labels[seen], reference=max(batches, key=lambda name: counts[name]))
    return Harmonisation(tuple(map(str, features.columns[kept])), combat, settings.harmonise_patients)
