"""How far what the networks see of a patient lies from what they see of training patients: their bottlenecks.

Each network has its own mean and shrunk covariance, from the patients that it trained on. What distance is usual is
told by the patients of its held-out fold, which it never saw. A new patient is compared by every network.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.special import fdtrc, fdtri

from mtdlr.shift.distance import LEAST_PATIENTS, REFUSE, WARN, Reference, ReferenceGroup, Shift, outside

Bottlenecks = NDArray[np.float32]
"""(networks, d) of one patient: the mean over the grid of each channel of the encoder's last level."""
NETWORK = "network"
LEAST_LEFT_OUT = 10
"""Patients of a held-out fold below which its network has no reference."""


def network_groups(found: Mapping[str, Bottlenecks], folds: Mapping[str, int]) -> dict[str, ReferenceGroup]:
    """The reference of each network, by `network 0`, `network 1`, ...; networks with too few patients have none.

    Args:
        found: bottlenecks of the training patients.
        folds: the fold of each of them; network k never saw fold k. With one fold, the network saw everybody and the
            distances are those of patients left out of mean and covariance alone.
    """
    ids = sorted(set(found) & set(folds))
    if not ids:
        return {}
    values, fold = np.array([found[i] for i in ids], dtype=np.float64), np.array([folds[i] for i in ids])
    groups: dict[str, ReferenceGroup] = {}
    for k in range(values.shape[1]):
        seen, left_out = values[fold != k, k], values[fold == k, k]
        if np.unique(fold).size < 2:
            whole = ReferenceGroup.fit(left_out)
            groups |= {} if whole is None else {f"{NETWORK} {k}": whole}
        elif len(seen) >= LEAST_PATIENTS and len(left_out) >= LEAST_LEFT_OUT:
            groups[f"{NETWORK} {k}"] = ReferenceGroup.fit_apart(seen, left_out)
    return groups


def judge_networks(reference: Reference, bottlenecks: Bottlenecks | None) -> Shift:
    """How far a patient lies outside by the mean of the networks' distances, each in units of its usual one.

    The tail is that of one network's distance: a mean of several spreads less, so it refuses rather too few.

    Args:
        reference: of the training cohort.
        bottlenecks: (networks, d) of the patient; None where the networks have none.
    """
    rows = [] if bottlenecks is None else list(np.asarray(bottlenecks, dtype=np.float64))
    pairs = [(reference.groups[f"{NETWORK} {k}"], row) for k, row in enumerate(rows)
             if f"{NETWORK} {k}" in reference.groups and np.isfinite(row).all()]
    if not pairs or any(group.mean.shape != row.shape for group, row in pairs):
        return Shift({})
    squared = float(np.mean([group.distances(row[None])[0] / group.typical for group, row in pairs]))
    freedom, n = (float(np.mean([getattr(group, name) for group, _ in pairs])) for name in ("freedom", "n"))
    other = max(n / 2.0, 2.0)
    beyond = float(fdtrc(freedom, other, squared))
    problems = () if beyond >= 1.0 - WARN else (outside(
        NETWORK, f"{np.sqrt(squared):.2f} times the usual distance",
        f"at most {np.sqrt(fdtri(freedom, other, WARN)):.2f}", refused=beyond < 1.0 - REFUSE),)
    return Shift({NETWORK: 1.0 - beyond}, problems)
