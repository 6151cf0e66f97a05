"""Where the risk came from, for the report: shares by cohort and by patient."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from mtdlr.report.results import Results
from mtdlr.report.tables import SPLIT_LABELS

CHANNELS = ("pet", "ct")
PLACES = {"tumour": "in the predicted tumour", "near": "within 10 mm of it", "elsewhere": "elsewhere"}


def explained_rows(results: Results) -> list[tuple[str, ...]]:
    """Cohort, patients, mean shares of PET and of CT by place, and outside the tumour; the tumour's part of the volume.

    A patient without a predicted tumour has no place to be in or near, and takes no part.
    """
    names = [f"{channel} {place}" for channel in CHANNELS for place in PLACES]
    rows = []
    for split in results.cohort.splits:
        shares = [_share(results, i) for i in results.cohort.of(split).ids if i in results.explained]
        known = [share for share in shares if share["pet tumour"] + share["ct tumour"] > 0.0]
        if known:
            means = (np.mean([share[name] for share in known]) for name in (*names, "outside", "tumour_volume"))
            rows.append((SPLIT_LABELS[split], f"{len(known)} of {len(shares)}", *(f"{mean:.1%}" for mean in means)))
    return rows


def patient_shares(results: Results, patient: str) -> list[tuple[str, ...]]:
    """(place, share in PET, share in CT, what PET adds, what CT adds) of one patient; none where not explained.

    Args:
        results: of a finished run.
        patient: the patient's id.
    """
    if patient not in results.explained:
        return []
    found = _found(results, patient)
    return share_rows(found["share"], found["adds"])


def share_rows(share: Mapping[str, float], adds: Mapping[str, float]) -> list[tuple[str, ...]]:
    """(place, share in PET, share in CT, what PET adds, what CT adds) of an `Attribution`.

    Args:
        share: share of each channel and place in what moves the risk, by "channel place".
        adds: what each channel and place adds to the risk, likewise.
    """
    return [(label, *(f"{share[f'{channel} {place}']:.1%}" for channel in CHANNELS),
             *(f"{adds[f'{channel} {place}']:+.2f}" for channel in CHANNELS)) for place, label in PLACES.items()]


def _found(results: Results, patient: str) -> dict[str, Any]:
    return dict(json.loads((results.explained[patient] / "attribution.json").read_text()))


def _share(results: Results, patient: str) -> dict[str, float]:
    found = _found(results, patient)
    return {**found["share"], "outside": found["outside"], "tumour_volume": found["tumour_volume"]}
