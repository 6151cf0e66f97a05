"""How the scans of each centre were made, and whether the scores follow tumour volume or the centre (Tables 12, 13)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import atanh, isfinite, sqrt, tanh
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from mtdlr.errors import FitError
from mtdlr.estimate import Estimate
from mtdlr.report.numbers import estimate_numbers
from mtdlr.report.results import Results
from mtdlr.report.tables import SPLIT_LABELS, Table, estimate_text, p_text
from mtdlr.stats.groups import kruskal_wallis
from mtdlr.stats.inference import normal_quantile
from mtdlr.study import MAIN, SCORES

VOLUME = "mtv_ml_2_5"
FEWEST = 10
"""Patients below which no correlation is given."""
NOT_KNOWN = Estimate(float("nan"))


@dataclass(frozen=True)
class Confounding:
    """One score in one cohort against what it should not merely stand for.

    Args:
        score, split, n: which, where, patients with score and volume.
        volume: Spearman's correlation with the metabolic volume of the manual mask, with interval and P.
        centre_p: Kruskal-Wallis P of the score over the cohort's centres; nan with one centre.
    """

    score: str
    split: str
    n: int
    volume: Estimate
    centre_p: float


def acquisition_table(results: Results) -> Table:
    """Table 12: source, voxels, uptake time and dose by centre, as ranges; no row without prepared scans.

    Args:
        results: of a finished run.
    """
    audits = {i: json.loads((folder / "facts.json").read_text(encoding="utf-8")).get("audit", {})
              for i, folder in results.prepared.items() if (folder / "facts.json").exists()}
    centres = results.cohort.table["center"]
    own = {str(centre): [audits[i] for i in centres.index[centres == centre] if audits.get(i)]
           for centre in sorted(centres.unique(), key=str)}
    rows = tuple((centre, *_acquired(known)) for centre, known in own.items() if known)
    return Table(12, "Acquisition by centre", (
        "Centre", "Patients", "Source", "PET voxel (mm)", "CT voxel (mm)", "Uptake time (min)",
        "Injected activity (MBq)", "Activity by weight (MBq/kg)"), rows, (
        "Median (range) of what the headers state; a dash: not stated, as in NIfTI. Voxels: slice distance x in-plane. "
        "The scanner's vendor and model are not kept.",))


def confounding(results: Results) -> tuple[Confounding, ...]:
    """Every score and the main risk against volume and centre, in each cohort.

    Args:
        results: of a finished run.
    """
    table, pet = results.cohort.table, results.pet_parameters.get("manual", pd.DataFrame())
    volume = pet[VOLUME].reindex(table.index) if VOLUME in pet else pd.Series(np.nan, index=table.index)
    scores = {score.title: results.scores[score.name] for score in SCORES if score.name in results.scores}
    scores["MTDLR risk"] = results.findings.risks[MAIN]
    return tuple(_confounded(name, split, score[rows], volume[rows], table.loc[rows, "center"])
                 for name, score in scores.items() for split in results.cohort.splits
                 for rows in [table["split"] == split])


def confounding_table(found: Iterable[Confounding]) -> Table:
    """Table 13: correlation of the scores with tumour volume, and their difference between centres.

    Args:
        found: of `confounding`.
    """
    rows = tuple((one.score, SPLIT_LABELS[one.split].split()[0], str(one.n), estimate_text(one.volume),
                  p_text(one.volume.p), p_text(one.centre_p))
                 for one in found if isfinite(one.volume.value) or isfinite(one.centre_p))
    return Table(13, "Scores against tumour volume and centre", (
        "Score", "Cohort", "Patients", "Rank correlation with MTV (95% CI)", "P", "P between centres"), rows, (
        "Spearman's correlation with the metabolic volume (SUV >= 2.5) in the manual mask, interval by Fisher's "
        "transformation; Kruskal-Wallis test over the centres of the cohort. A score that follows the volume closely "
        "may hold little beyond it; Table 10 has the C-index of volume and stage alone.",))


def confounding_numbers(one: Confounding) -> dict[str, Any]:
    """The numbers as plain JSON values; None for what could not be computed.

    Args:
        one: of `confounding`.
    """
    return {"score": one.score, "cohort": one.split, "n": one.n, "volume_correlation": estimate_numbers(one.volume),
            "centre_p": one.centre_p if isfinite(one.centre_p) else None}


def rank_correlation(x: pd.Series, y: pd.Series) -> Estimate:
    """Spearman's correlation with its Fisher interval; nan below ten pairs, or where one of them does not vary.

    Args:
        x: (n,) values; pairs with a missing one take no part.
        y: (n,) values of the same patients.
    """
    pair = pd.concat([x, y], axis=1).dropna().to_numpy(float)
    if len(pair) < FEWEST or (np.ptp(pair, axis=0) == 0).any():
        return NOT_KNOWN
    found = spearmanr(pair[:, 0], pair[:, 1])
    middle = atanh(min(max(float(found.statistic), -1 + 1e-12), 1 - 1e-12))
    reach = normal_quantile(0.95) * sqrt(1.06 / (len(pair) - 3))  # Fieller, Hartley and Pearson 1957
    return Estimate(float(found.statistic), tanh(middle - reach), tanh(middle + reach), float(found.pvalue))


def _confounded(name: str, split: str, score: pd.Series, volume: pd.Series, centre: pd.Series) -> Confounding:
    known = score.notna()
    groups = [score[known & (centre == one)].to_numpy(float) for one in sorted(centre.unique(), key=str)]
    try:
        p = kruskal_wallis([group for group in groups if len(group)]).p
    except FitError:  # one centre, or a score that does not vary
        p = float("nan")
    return Confounding(name, split, int((known & volume.notna()).sum()), rank_correlation(score, volume), float(p))


def _acquired(audits: list[Mapping[str, Any]]) -> tuple[str, ...]:
    """The cells of one centre."""
    pets, cts = ([audit.get(kind) or {} for audit in audits] for kind in ("pet", "ct"))
    suv = [pet.get("suv") or {} for pet in pets]
    sources = sorted({str(pet["source"]) for pet in pets if "source" in pet})
    dose = [one["dose_bq"] / 1e6 for one in suv if one.get("dose_bq")]
    by_weight = [one["dose_bq"] / 1e6 / one["weight_kg"] for one in suv if one.get("dose_bq") and one.get("weight_kg")]
    return (str(len(audits)), ", ".join(sources) or "-", _voxel(pets), _voxel(cts),
            _range([one["uptake_min"] for one in suv if one.get("uptake_min") is not None], ".0f"),
            _range(dose, ".0f"), _range(by_weight, ".1f"))


def _voxel(scans: list[Mapping[str, Any]]) -> str:
    spacing = np.array([scan["spacing_zyx_mm"] for scan in scans if "spacing_zyx_mm" in scan], dtype=float)
    if not spacing.size:
        return "-"
    return " x ".join(_range(spacing[:, axis].tolist(), ".3g") for axis in (0, 2))


def _range(values: list[float], form: str) -> str:
    """Median (range) as text, the value alone where there is one, a dash where there is none."""
    if not values:
        return "-"
    low, middle, high = (f"{value:{form}}" for value in (min(values), float(np.median(values)), max(values)))
    return middle if low == high else f"{middle} ({low}-{high})"
