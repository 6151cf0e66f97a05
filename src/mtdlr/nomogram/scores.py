"""Deep scores: the risks of every network on one scale, out of fold for training patients, of all networks for others.

A nomogram is fitted on risks of one network each, and a new patient has the mean of K. What is chance in a network
averages out of the mean: with risks of variance 1 that correlate with r between networks, the mean has the variance
v = r + (1 - r) / K and the same covariance with the true hazard. So the log-hazard per unit of the mean is 1 / v times
that per unit of one network's risk (regression dilution), and new patients' means are divided by v.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from mtdlr.prepared import PLAIN

IN_SAMPLE = "_in_sample"
DEEP_PLAIN = f"deepmts{PLAIN}"
"""DeepMTS by the fit without the ten measures: shown beside it, and in no nomogram."""


@dataclass(frozen=True)
class Scale:
    """The risk standardisation of one network: the mean and SD of its risks in its own held-out fold.

    For new patients the SD is times `shared_variance` of the networks, so that the plain mean of the scaled risks is
    their score.
    """

    mean: float
    sd: float

    def __call__(self, risk: float) -> float:
        return (risk - self.mean) / self.sd


@dataclass(frozen=True, eq=False)
class Scores:
    """Deep scores of every patient: columns deepmts, single_task, each with `_sd` and `_in_sample` beside.

    `_sd` is the SD over the networks that score the patient (nan for one network). `_in_sample` is the score by the
    networks that trained on the patient (training cohort only). `folds` is the fold of each training patient. By
    network, `scales` are those of new patients and `held_out` those of training patients' own risks.
    """

    table: pd.DataFrame
    scales: Mapping[str, tuple[Scale, ...]]
    folds: pd.Series = field(default_factory=lambda: pd.Series(dtype=int))
    held_out: Mapping[str, tuple[Scale, ...]] = field(default_factory=dict)

    def deep_scales(self, patient: str) -> tuple[Scale, ...]:
        """The scales that one patient's risks by DeepMTS are put on.

        Args:
            patient: the patient's id.
        """
        return (self.held_out if patient in self.folds.index else self.scales)["deepmts"]

    def spread_as_new(self, rows: pd.DataFrame, single: str) -> pd.DataFrame:
        """Training patients' rows, their deep scores spread as those of new patients: times 1 / sqrt(v), their SD.

        Args:
            rows: with the columns deepmts and single_task, out of fold.
            single: name of the single-task network.
        """
        wider = {column: (self.held_out[network][0].sd / self.scales[network][0].sd) ** 0.5
                 for column, network in (("deepmts", "deepmts"), ("single_task", single))}
        return rows.assign(**{column: rows[column] * factor for column, factor in wider.items()})


def combine_scores(
    raw: Mapping[str, Mapping[str, Mapping[str, Sequence[float]]]], folds: pd.Series, single: str,
    frozen: Mapping[str, tuple[Scale, ...]] | None = None,
) -> Scores:
    """Deep scores from the risks that every network gave every patient.

    Args:
        raw: {patient: {"risks": {network: [risk of network 0, 1, ...]}}}.
        folds: the fold of each training patient (none for new patients); network k never saw fold k.
        single: name of the single-task network.
        frozen: the scales of a finished study; by default they come from the held-out folds.
    """
    columns: dict[str, pd.Series] = {}
    scales, held_out = dict(frozen or {}), dict(frozen or {})
    for column, network in (("deepmts", "deepmts"), ("single_task", single)):
        risks = _by_network(raw, network)
        if frozen is None:
            scales[network], held_out[network] = _scales(risks, folds)
        columns.update(_speak(risks, scales[network], held_out[network], folds, column))
    if frozen is None and all(DEEP_PLAIN in values["risks"] for values in raw.values()):
        risks = _by_network(raw, DEEP_PLAIN)
        columns[DEEP_PLAIN] = _speak(risks, *_scales(risks, folds), folds, DEEP_PLAIN)[DEEP_PLAIN]
    return Scores(pd.DataFrame(columns), scales, folds, held_out)


def shared_variance(scaled: pd.DataFrame, folds: pd.Series) -> float:
    """The variance of the mean of all networks' risks over that of one network's, v = r + (1 - r) / K.

    The correlation r between networks is the mean covariance, over the folds, of the risk by the network that never
    saw the fold with the risk by each other network, both in SD of the networks' own held-out folds. The other network
    knows these patients' outcomes, the first does not: a covariance holds no chance that only one of them knows, where
    a correlation would be divided by it. No outcome and no other cohort is looked at.

    Args:
        scaled: (patients, networks) risks in SD of each network's own held-out fold.
        folds: the fold of each training patient.

    Returns:
        From 1 / K, where networks share nothing, to 1, where they agree or there is one.

    References: Frost and Thompson, J R Stat Soc A 2000 (regression dilution).

    >>> folds = pd.Series([0, 0, 1, 1], index=list("abcd"))
    >>> shared_variance(pd.DataFrame({0: [-1.0, 1, -1, 1], 1: [-1.0, 1, -1, 1]}, index=folds.index) / 2**0.5, folds)
    1.0
    """
    n, found = scaled.shape[1], []
    if n < 2 or folds.nunique() < 2:
        return 1.0
    for k in scaled:
        rows = scaled.loc[folds.index[folds == k]]
        found += [float(rows[k].cov(rows[j])) for j in scaled if j != k]
    r = float(np.clip(np.nanmean(found) if np.isfinite(found).any() else 1.0, 0.0, 1.0))
    return round(r + (1.0 - r) / n, 12)


def _scales(risks: pd.DataFrame, folds: pd.Series) -> tuple[tuple[Scale, ...], tuple[Scale, ...]]:
    """(scales of new patients, scales of training patients' own risks)."""
    own = tuple(_scale(risks[k], folds, k) for k in range(risks.shape[1]))
    shared = shared_variance(_scaled(risks, own), folds)
    return tuple(Scale(one.mean, one.sd * shared) for one in own), own


def _scale(risks: pd.Series, folds: pd.Series, fold: int) -> Scale:
    """From the network's own held-out fold; none (the raw risk) where one network saw all patients."""
    if folds.nunique() < 2:
        return Scale(0.0, 1.0)
    held_out = risks[folds.index[folds == fold]]
    sd = float(held_out.std())
    return Scale(float(held_out.mean()), sd if sd > 0 else 1.0)


def _by_network(raw: Mapping[str, Mapping[str, Mapping[str, Sequence[float]]]], network: str) -> pd.DataFrame:
    """(patients, networks) risks of one kind."""
    return pd.DataFrame({i: values["risks"][network] for i, values in raw.items()}).T


def _scaled(risks: pd.DataFrame, scales: Sequence[Scale]) -> pd.DataFrame:
    return pd.DataFrame({k: (risks[k] - s.mean) / s.sd for k, s in enumerate(scales)})


def _speak(risks: pd.DataFrame, scales: Sequence[Scale], held_out: Sequence[Scale], folds: pd.Series, column: str
           ) -> dict[str, pd.Series]:
    """Score, spread and in-sample score of every patient from the networks' risks."""
    fold, scaled = folds.reindex(risks.index), _scaled(risks, scales)
    if risks.shape[1] == 1:
        return {column: scaled[0], f"{column}_sd": scaled.std(axis=1), f"{column}{IN_SAMPLE}": scaled[0].where(
            fold.notna())}
    own = pd.DataFrame({k: fold == k for k in scaled})
    trained = fold.notna()
    return {column: _scaled(risks, held_out).where(own).mean(axis=1).where(trained, scaled.mean(axis=1)),
            f"{column}_sd": scaled.std(axis=1).where(~trained),
            f"{column}{IN_SAMPLE}": scaled.where(~own).mean(axis=1).where(trained)}
