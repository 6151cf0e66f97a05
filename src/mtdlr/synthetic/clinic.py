"""The clinical table: patients whose margins are those of the paper's Table 1, cohort by cohort."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

T_STAGES = ("T1", "T2", "T3", "T4")
N_STAGES = ("N0", "N1", "N2", "N3")
TREATMENTS = ("ic", "ccrt", "ac", "targeted")


@dataclass(frozen=True)
class Margins:
    """One column of Table 1 (Gu et al. 2023): counts of each level, and (centre, low, high) of the continuous ones."""

    n: int
    events: int
    gender: Mapping[str, int]
    ebv: Mapping[str, int]
    histology: Mapping[str, int]
    t_stage: tuple[int, int, int, int]
    n_stage: tuple[int, int, int, int]
    stage_iva: int
    treatments: tuple[int, int, int, int]
    age: tuple[float, float, float]
    bmi: tuple[float, float, float]
    ldh: tuple[float, float, float]


TABLE_1 = {
    "training": Margins(
        522, 127, {"Male": 402, "Female": 120}, {"Negative": 92, "Positive": 346, "Unknown": 84},
        {"I": 4, "II": 50, "III": 468}, (133, 52, 289, 48), (29, 130, 301, 62), 106, (472, 343, 98, 72),
        age=(45, 15, 83), bmi=(23.22, 14.69, 38.89), ldh=(198.02, 89, 782)),
    "internal": Margins(
        130, 24, {"Male": 101, "Female": 29}, {"Negative": 33, "Positive": 72, "Unknown": 25},
        {"I": 2, "II": 14, "III": 114}, (34, 17, 65, 14), (1, 33, 76, 20), 33, (121, 82, 24, 11),
        age=(48, 14, 79), bmi=(23.35, 15.23, 31.41), ldh=(177.68, 101, 728)),
    "external": Margins(
        234, 45, {"Male": 180, "Female": 54}, {"Negative": 42, "Positive": 155, "Unknown": 37},
        {"I": 2, "II": 6, "III": 226}, (68, 29, 128, 9), (6, 54, 137, 37), 45, (222, 157, 42, 24),
        age=(48, 14, 74), bmi=(24.09, 16.41, 34.38), ldh=(212.89, 111, 1400)),
}


def clinical_table(split: str, n: int, rng: np.random.Generator) -> pd.DataFrame:
    """A clinical table of `n` patients (no follow-up yet) with Table 1's margins of `split`.

    Counts are the paper's when `n` is the paper's, and the nearest proportions otherwise. Stage is IVa exactly when
    T4 or N3, and every other row is a stage III of AJCC 8: T3 with N0-N2, or T1-T2 with N2.

    Args:
        split: training, internal or external.
        n: patients, >= 1.
        rng: source of the shuffles.

    >>> table = clinical_table("training", 522, np.random.default_rng(0))
    >>> int((table.tnm_stage == "IVa").sum()), int((table.ebv == "Unknown").sum())
    (106, 84)
    """
    margins = TABLE_1[split]
    t_stage, n_stage = _stages(margins, n, rng)
    table = {
        "age": np.rint(_truncated_normal(margins.age, 12.0, n, rng)).astype(int),
        **{name: _dealt(getattr(margins, name), n, rng) for name in ("gender", "ebv", "histology")},
        "bmi": _truncated_normal(margins.bmi, 3.3, n, rng).round(2),
        "ldh": np.rint(_truncated_lognormal(margins.ldh, 0.3, n, rng)).astype(int),
        "t_stage": t_stage,
        "n_stage": n_stage,
        "tnm_stage": np.where((t_stage == "T4") | (n_stage == "N3"), "IVa", "III"),
    }
    for name, count in zip(TREATMENTS, margins.treatments, strict=True):
        table[name] = _dealt({1: count, 0: margins.n - count}, n, rng).astype(int)
    return pd.DataFrame(table)


def apportion(weights: Sequence[float], n: int) -> NDArray[np.int_]:
    """Whole counts that sum to `n` in the proportions of `weights` (largest remainders).

    Args:
        weights: (k,) numbers >= 0, not all 0.
        n: the sum wanted.

    >>> apportion([402, 120], 10).tolist()
    [8, 2]
    """
    shares = np.asarray(weights, dtype=float) / np.sum(weights) * n
    counts = np.floor(shares + 1e-9).astype(int)
    rest = np.argsort(counts - shares, kind="stable")[: n - int(counts.sum())]
    counts[rest] += 1
    return counts


def _dealt(counts: Mapping[object, int], n: int, rng: np.random.Generator) -> NDArray:
    """The levels in their proportions, in random order."""
    return rng.permutation(np.repeat(np.array(list(counts)), apportion(list(counts.values()), n)))


def _stages(margins: Margins, n: int, rng: np.random.Generator) -> tuple[NDArray, NDArray]:
    """T and N stages whose margins, and whose number of IVa, are the table's."""
    both = margins.t_stage[3] + margins.n_stage[3] - margins.stage_iva
    cells = (both, margins.t_stage[3] - both, margins.n_stage[3] - both, margins.n - margins.stage_iva)
    k_both, k_t4, k_n3, k_iii = apportion(cells, n)
    t_low = _without_last(T_STAGES, margins.t_stage, k_n3 + k_iii, rng)
    n_low = _without_last(N_STAGES, margins.n_stage, k_t4 + k_iii, rng)
    t_iii, n_iii = _stage_iii(t_low[k_n3:], n_low[k_t4:], rng)
    t_stage = np.concatenate([["T4"] * (k_both + k_t4), t_low[:k_n3], t_iii])
    n_stage = np.concatenate([["N3"] * k_both, n_low[:k_t4], ["N3"] * k_n3, n_iii])
    order = rng.permutation(n)
    return t_stage[order], n_stage[order]


def _without_last(levels: Sequence[str], counts: Sequence[int], n: int, rng: np.random.Generator) -> NDArray:
    """The lower three stages in their proportions, in random order."""
    return _dealt(dict(zip(levels[:3], counts[:3], strict=True)), n, rng)


def _stage_iii(t_stage: NDArray, n_stage: NDArray, rng: np.random.Generator) -> tuple[NDArray, NDArray]:
    """The same stages paired so that N0 and N1 only meet T3; where T3 runs out, N2 is given instead."""
    t_stage = t_stage[np.argsort(t_stage != "T3", kind="stable")]
    n_stage = n_stage[np.argsort(n_stage == "N2", kind="stable")]
    threes = int((t_stage == "T3").sum())
    n_stage = np.where((np.arange(n_stage.size) >= threes), "N2", n_stage)
    n_stage[:threes] = rng.permutation(n_stage[:threes])
    return t_stage, n_stage


def _stratified(n: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """One uniform number from each of n equal slices of (0, 1), shuffled: small samples keep the margins too."""
    return rng.permutation((np.arange(n) + rng.uniform(0.2, 0.8, n)) / n)


def _truncated_normal(
    center_low_high: tuple[float, float, float], sd: float, n: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Normal values cut to [low, high]."""
    center, low, high = center_low_high
    p_low, p_high = ndtr((np.array([low, high]) - center) / sd)
    return np.asarray(center + sd * ndtri(p_low + (p_high - p_low) * _stratified(n, rng)))


def _truncated_lognormal(
    mean_low_high: tuple[float, float, float], sigma: float, n: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Log-normal values of the given mean, cut to [low, high]."""
    mean, low, high = np.log(mean_low_high)
    return np.exp(_truncated_normal((mean - sigma**2 / 2, low, high), sigma, n, rng))
