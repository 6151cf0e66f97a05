"""Arms of the radiomics: what a signature of PET features alone, or of CT features alone, finds beside the full one.

An arm is the same Lasso-Cox fit, cross-fitted alike, on the features of one modality and of the mask's shape, which
belongs to both. Arms are judged, and enter nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from mtdlr.estimate import Estimate
from mtdlr.evaluate.findings import c_of
from mtdlr.radiomics.stored import perturbed_of
from mtdlr.signature import Signature, fit_with_scores
from mtdlr.stats.concordance import compare_concordance
from mtdlr.store import Recipe, Store, digest
from mtdlr.study import Study
from mtdlr.survival import Survival
from mtdlr.workers.planning import Stored, signature_recipe

MODALITIES = ("PET", "CT")
SIGNATURE, SCORES = "signature.json", "scores.json"


@dataclass(frozen=True)
class Arm:
    """The signature of one modality's features in one cohort.

    Args:
        source: the mask, `auto` or `manual`.
        modality: `PET` or `CT`.
        split: the cohort.
        candidates, kept: features that went in, and that were kept.
        c: C-index of its score.
        lost: C of the full signature less this one's on the same patients, paired; nan where it cannot be told.
    """

    source: str
    modality: str
    split: str
    candidates: int
    kept: int
    c: Estimate
    lost: Estimate


def features_of(names: list[str], modality: str) -> list[str]:
    """The features of one modality and of the mask's shape.

    Args:
        names: of all features.
        modality: of `MODALITIES`.

    >>> features_of(["PET_original_glcm_Contrast", "CT_original_glcm_Contrast", "shape_MeshVolume"], "CT")
    ['CT_original_glcm_Contrast', 'shape_MeshVolume']
    """
    others = tuple(f"{other}_" for other in MODALITIES if other != modality)
    return [name for name in names if not name.startswith(others)]


def study_arms(
    store: Store, study: Study, table: pd.DataFrame, folds: pd.Series, *, stored: Mapping[str, Stored],
    features: Mapping[str, pd.DataFrame], scores: pd.DataFrame,
) -> tuple[Arm, ...]:
    """The arms of every mask source in every cohort; what is stored is not fitted again.

    Args:
        store: of the run.
        study: its settings; without `evaluate.arms` there is no arm.
        table: (patients) split, center and follow-up.
        folds: the subfold of each training patient: no fit that scores one has seen the others of it.
        stored: the stored features by mask source.
        features: (patients, features) by mask source.
        scores: (patients, scores) of the full signatures, `auto_radio` and `manual_radio`.

    Returns:
        Nothing of a source whose features are of one modality.
    """
    found: list[Arm] = []
    for source, values in features.items() if study.evaluate.arms else ():
        names = [str(name) for name in values]
        parts = {modality: features_of(names, modality) for modality in MODALITIES}
        if all(any(name.startswith(f"{one}_") for name in names) for one in MODALITIES):
            for modality, part in parts.items():
                signature, score = _fitted(store, study, table, folds, stored[source], values[part])
                found += [_judged(score, scores[f"{source}_radio"], table, Arm(
                    source, modality, split, len(part), len(signature.features), c_of(score, table, split),
                    Estimate(float("nan")))) for split in dict.fromkeys(map(str, table["split"]))]
    return tuple(found)


def _fitted(
    store: Store, study: Study, table: pd.DataFrame, folds: pd.Series, stored: Stored, values: pd.DataFrame
) -> tuple[Signature, pd.Series]:
    """The signature of some features and everybody's score: of training patients out of fold, of others as given."""
    training = table[table["split"] == "training"]
    recipe = signature_recipe(study, stored, training, folds[training.index])
    recipe = Recipe("arm", recipe.settings, {**recipe.inputs, "columns": digest(list(values)),
                                             "others": digest({i: stored.keys.get(str(i)) for i in table.index}),
                                             "splits": digest(table[["split", "center"]].astype(str).to_csv())})

    def build(folder: Path) -> None:
        own = values.loc[training.index]
        again = perturbed_of(stored.folders, own) if study.radiomics.perturbations else []
        signature, out_of_fold = fit_with_scores(own, training, folds[training.index], study.signature, again)
        score = pd.concat([signature.score(values.loc[rows.index], rows["center"])
                           for _, rows in table.groupby("split")]).reindex(table.index)
        score[out_of_fold.index] = out_of_fold
        signature.save(folder / SIGNATURE)
        (folder / SCORES).write_text(json.dumps({str(i): None if one != one else one for i, one in score.items()}))

    folder = store.make(recipe, build)
    known = json.loads((folder / SCORES).read_text())
    return Signature.load(folder / SIGNATURE), pd.Series(known, dtype=float).reindex(table.index)


def _judged(score: pd.Series, full: pd.Series, table: pd.DataFrame, arm: Arm) -> Arm:
    """The arm with what the full signature has more, on the cohort's patients that have both scores."""
    rows = (table["split"] == arm.split) & score.notna() & full.notna()
    surv = Survival(table.loc[rows, "time_months"].to_numpy(float), table.loc[rows, "event"].to_numpy(bool))
    if not surv.orderable:
        return arm
    lost = compare_concordance(full[rows].to_numpy(float), score[rows].to_numpy(float), surv).difference
    return Arm(arm.source, arm.modality, arm.split, arm.candidates, arm.kept, arm.c, lost)
