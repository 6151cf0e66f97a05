"""How each centre made its scans, and whether scores follow tumour volume, centre or scanner (Tables 12, 13)."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import atanh, isfinite, sqrt, tanh
from typing import Any

import numpy as np
import pandas as pd

from mtdlr.errors import FitError
from mtdlr.estimate import Estimate
from mtdlr.report.numbers import estimate_numbers
from mtdlr.report.results import Results
from mtdlr.report.tables import SPLIT_LABELS, Table, estimate_text, p_text
from mtdlr.stats.groups import kruskal_wallis
from mtdlr.stats.inference import normal_quantile
from mtdlr.stats.ranks import spearman
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
        centre_p, scanner_p: Kruskal-Wallis P of the score over the cohort's centres, and over its PET scanners; nan
            with one.
    """

    score: str
    split: str
    n: int
    volume: Estimate
    centre_p: float
    scanner_p: float = float("nan")


def acquisition_table(results: Results) -> Table:
    """Table 12: scanners, reconstruction, voxels, uptake time, dose and years by centre; no row without prepared scans.

    Args:
        results: of a finished run.
    """
    audits = audits_of(results)
    centres = results.cohort.table["center"]
    own = {str(centre): [audits[str(i)] for i in centres.index[centres == centre] if audits.get(str(i))]
           for centre in sorted(centres.unique(), key=str)}
    facts = {centre: acquired(known) for centre, known in own.items() if known}
    names = list(next(iter(facts.values()), {}))
    return Table(12, "Acquisition by centre", ("", *facts),
                 tuple((name, *(found[name] for found in facts.values())) for name in names), (
        "Numbers: median (range) of what the headers state; words: the commonest, with patients. A dash: not stated, "
        "as in NIfTI. Voxels: slice distance x in-plane. Scanners, reconstructions and kernels as closed lists know "
        "them; years as the headers state them, none where they say that dates were changed.",))


def audits_of(results: Results) -> dict[str, Mapping[str, Any]]:
    """What was recorded of each prepared patient's files, by patient.

    Args:
        results: of a finished run.
    """
    return {i: json.loads((folder / "facts.json").read_text(encoding="utf-8")).get("audit", {})
            for i, folder in results.prepared.items() if (folder / "facts.json").exists()}


def scanner_name(audit: Mapping[str, Any], kind: str = "pet") -> str:
    """Vendor and model of a patient's scanner; empty where no header states one.

    Args:
        audit: of one patient.
        kind: "pet" or "ct".
    """
    told = (audit.get(kind) or {}).get("scanner") or {}
    return " ".join(filter(None, (told.get("vendor"), told.get("model"))))


def confounding(results: Results) -> tuple[Confounding, ...]:
    """Every score and the main risk against volume, centre and scanner, in each cohort.

    Args:
        results: of a finished run.
    """
    table, pet = results.cohort.table, results.pet_parameters.get("manual", pd.DataFrame())
    volume = pet[VOLUME].reindex(table.index) if VOLUME in pet else pd.Series(np.nan, index=table.index)
    scores = {score.title: results.scores[score.name] for score in SCORES if score.name in results.scores}
    scores["MTDLR risk"] = results.findings.risks[MAIN]
    scanners = pd.Series({i: scanner_name(audit) for i, audit in audits_of(results).items()}, dtype=object)
    groups = pd.DataFrame({"centre": table["center"].astype(str), "scanner": scanners.reindex(table.index).fillna("")})
    return tuple(_confounded(name, split, score[rows], volume[rows], groups[rows])
                 for name, score in scores.items() for split in results.cohort.splits
                 for rows in [table["split"] == split])


def confounding_table(found: Iterable[Confounding]) -> Table:
    """Table 13: correlation of the scores with tumour volume, and their difference between centres.

    Args:
        found: of `confounding`.
    """
    rows = tuple((one.score, SPLIT_LABELS[one.split].split()[0], str(one.n), estimate_text(one.volume),
                  p_text(one.volume.p), p_text(one.centre_p), p_text(one.scanner_p))
                 for one in found if isfinite(one.volume.value) or isfinite(one.centre_p))
    return Table(13, "Scores against tumour volume, centre and scanner", (
        "Score", "Cohort", "Patients", "Rank correlation with MTV (95% CI)", "P", "P between centres",
        "P between scanners"), rows, (
        "Spearman's correlation with the metabolic volume (SUV >= 2.5) in the manual mask, interval by Fisher's "
        "transformation; Kruskal-Wallis tests over the cohort's centres and over its PET scanners (vendor and model) "
        "where there are several. A score that follows the volume closely may hold little beyond it; Table 10 "
        "has the C-index of volume and stage alone.",))


def confounding_numbers(one: Confounding) -> dict[str, Any]:
    """The numbers as plain JSON values; None for what could not be computed.

    Args:
        one: of `confounding`.
    """
    return {"score": one.score, "cohort": one.split, "n": one.n, "volume_correlation": estimate_numbers(one.volume),
            "centre_p": one.centre_p if isfinite(one.centre_p) else None,
            "scanner_p": one.scanner_p if isfinite(one.scanner_p) else None}


def rank_correlation(x: pd.Series, y: pd.Series) -> Estimate:
    """Spearman's correlation with its Fisher interval; nan below ten pairs, or where one of them does not vary.

    Args:
        x: (n,) values; pairs with a missing one take no part.
        y: (n,) values of the same patients.
    """
    pair = pd.concat([x, y], axis=1).dropna().to_numpy(float)
    if len(pair) < FEWEST or (np.ptp(pair, axis=0) == 0).any():
        return NOT_KNOWN
    rho, p = spearman(pair[:, 0], pair[:, 1])
    middle = atanh(min(max(rho, -1 + 1e-12), 1 - 1e-12))
    reach = normal_quantile(0.95) * sqrt(1.06 / (len(pair) - 3))  # Fieller, Hartley and Pearson 1957
    return Estimate(rho, tanh(middle - reach), tanh(middle + reach), p)


def _confounded(name: str, split: str, score: pd.Series, volume: pd.Series, groups: pd.DataFrame) -> Confounding:
    known = score.notna()
    between = [_between(score[known], groups.loc[known, column]) for column in ("centre", "scanner")]
    return Confounding(name, split, int((known & volume.notna()).sum()), rank_correlation(score, volume), *between)


def _between(score: pd.Series, group: pd.Series) -> float:
    """Kruskal-Wallis P of a score over named groups; nan with one group, or a score that does not vary."""
    parts = [score[group == one].to_numpy(float) for one in sorted(set(group)) if one]
    try:
        return float(kruskal_wallis(parts).p)
    except FitError:
        return float("nan")


def acquired(audits: list[Mapping[str, Any]]) -> dict[str, str]:
    """What the headers of one centre state, by name.

    Args:
        audits: of its patients.
    """
    pets, cts = ([audit.get(kind) or {} for audit in audits] for kind in ("pet", "ct"))
    suv = [pet.get("suv") or {} for pet in pets]
    dose = [one["dose_bq"] / 1e6 for one in suv if one.get("dose_bq")]
    by_weight = [one["dose_bq"] / 1e6 / one["weight_kg"] for one in suv if one.get("dose_bq") and one.get("weight_kg")]
    years = [float(year) for pet in pets if (year := _told(pet, "year"))]
    return {
        "Patients": str(len(audits)), "Source": _often([str(pet.get("source", "")) for pet in pets]),
        "PET scanner": _often([scanner_name(audit) for audit in audits]),
        "PET reconstruction": _often([_told(pet, "reconstruction") for pet in pets]),
        "PET voxel (mm)": _voxel(pets), "CT scanner": _often([scanner_name(audit, "ct") for audit in audits]),
        "CT kernel": _often([_told(ct, "kernel") for ct in cts]), "CT voxel (mm)": _voxel(cts),
        "Uptake time (min)": _range([one["uptake_min"] for one in suv if one.get("uptake_min") is not None], ".0f"),
        "Injected activity (MBq)": _range(dose, ".0f"), "Activity by weight (MBq/kg)": _range(by_weight, ".1f"),
        "Years": "-" if not years else f"{min(years):.0f}" + (f"-{max(years):.0f}" if min(years) < max(years) else "")}


def _told(scan: Mapping[str, Any], name: str) -> str:
    return str((scan.get("scanner") or {}).get(name, ""))


def _often(words: list[str], most: int = 4) -> str:
    """The commonest of some words with how often each is there; a dash where there is none."""
    counts = Counter(filter(None, words)).most_common()
    if not counts:
        return "-"
    if len(counts) == 1 and counts[0][1] == len(words):
        return counts[0][0]
    return ", ".join([f"{word} ({n})" for word, n in counts[:most]] + ["others"] * (len(counts) > most))


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
