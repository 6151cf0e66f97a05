"""Which training patients are scored by networks that never saw them: the folds of the cross-fitting."""

from __future__ import annotations

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
