"""Which training patients are scored by networks that never saw them: the folds of the cross-fitting."""

from __future__ import annotations

import numpy as np
import pandas as pd

from mtdlr.errors import CohortError, Problem
from mtdlr.stats.lasso import stratified_folds
from mtdlr.study import ScoreSettings

FEWEST_CENTERS = 3


def training_folds(table: pd.DataFrame, settings: ScoreSettings) -> pd.Series:
    """The fold of every training patient, from 0 on.

    Random folds are stratified by event and centre. With `folds = "center"` each fold is a centre, in the order of
    their names: every score of its patients comes from models of the other centres (leave-one-centre-out). In-sample
    scores need one fold only.

    Args:
        table: rows of the training patients, with event and center.
        settings: how the training cohort's own scores are made.

    Raises:
        CohortError: E-CENTERFOLDS where fewer than three centres train.
        FitError: E-FOLDS where there are more folds than patients.
    """
    if settings.training == "in_sample":
        return pd.Series(0, index=table.index)
    if settings.folds == "center":
        wrong = too_few_centers(table, settings)
        if wrong:
            raise CohortError(wrong)
        codes, _ = pd.factorize(table["center"].astype(str), sort=True)
        return pd.Series(codes, index=table.index)
    return pd.Series(stratified_folds(table["event"].to_numpy(bool), settings.folds, settings.seed,
                                      strata=table["center"].to_numpy(str)), index=table.index)


def training_subfolds(table: pd.DataFrame, folds: pd.Series, settings: ScoreSettings) -> pd.Series:
    """The subfold of every training patient: folds cut into parts, subfold s of fold s modulo the number of folds.

    Networks learn masks, of which there are many voxels, and cost hours: each does without a whole fold. What is fitted
    to outcomes has few events and costs seconds, so it does without one part of a fold at a time: with 3 folds of 3
    parts from 8 of 9 patients in place of 6. No head, signature or rival that scores a patient knows the outcome.

    Args:
        table: rows of the training patients, with event and center.
        folds: the fold of each, as `training_folds` gives.
        settings: how the training cohort's own scores are made.

    >>> table = pd.DataFrame({"event": [1, 0] * 12, "center": "a"})
    >>> folds = training_folds(table, ScoreSettings(folds=3))
    >>> training_subfolds(table, folds, ScoreSettings(folds=3)).value_counts().tolist()
    [4, 4, 4, 4, 4, 4]
    """
    n = int(folds.nunique())
    parts = settings.n_subfolds(int(table["event"].sum()), n)
    if parts < 2:
        return folds
    subfolds = folds.to_numpy().copy()
    for fold in range(n):
        mine = np.flatnonzero(folds.to_numpy() == fold)
        rows = table.iloc[mine]
        subfolds[mine] += n * stratified_folds(rows["event"].to_numpy(bool), parts, settings.seed,
                                               strata=rows["center"].to_numpy(str))
    return pd.Series(subfolds, index=folds.index)


def given_to(fold: int, table: pd.DataFrame, subfolds: pd.Series, n_folds: int, *, solved: bool
             ) -> tuple[pd.DataFrame, dict[str, int]]:
    """(training patients that a network of a fold is given, the subfold of those it must not learn from).

    Args:
        fold: the network's, which it never sees while it learns.
        table: rows of the training patients.
        subfolds: the subfold of each.
        n_folds: how many folds there are; with one, everybody is learned from.
        solved: whether the risk is solved when the training ends, and then from everybody; else the fold stays out.
    """
    held_out = subfolds[(subfolds % n_folds == fold) & (n_folds > 1)]
    return (table, {str(i): int(s) for i, s in held_out.items()}) if solved else (table.drop(held_out.index), {})


def too_few_centers(table: pd.DataFrame, settings: ScoreSettings) -> list[Problem]:
    """E-CENTERFOLDS where leave-one-centre-out is asked for and fewer than three centres train.

    Args:
        table: rows of the training patients, with center.
        settings: how the training cohort's own scores are made.
    """
    centers = sorted(set(table["center"].astype(str)))
    if settings.folds != "center" or settings.training == "in_sample" or len(centers) >= FEWEST_CENTERS:
        return []
    return [Problem("E-CENTERFOLDS", "leaving out one centre at a time needs three centres that train",
                    where="score.folds", found=", ".join(centers), expected=f"{FEWEST_CENTERS} or more",
                    remedy="Name the column of the centre in cohort.center, or set score.folds to a number")]
