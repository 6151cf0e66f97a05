"""The rivals of one study: what they need of its patients, fitted once and stored like every other result."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from mtdlr.errors import Problem
from mtdlr.evaluate.rivals import Rivals, coarse_pet, fit_rivals, read_embedding
from mtdlr.prepared import load_mask
from mtdlr.store import Recipe, Store, digest, file_hash
from mtdlr.study import Study
from mtdlr.workers.planning import Stored, outcome_digest

RISKS, PROBLEMS = "risks.csv", "problems.json"


def study_rivals(
    store: Store, study: Study, table: pd.DataFrame, folds: pd.Series, *, stored: Mapping[str, Stored],
    radiomics: pd.DataFrame
) -> Rivals:
    """The rivals of one study; what is stored is not fitted again.

    Args:
        store: of the run.
        study: the clinical columns, and `evaluate.embedding` if there is one.
        table: (patients) split, follow-up and clinical columns of those who have scores.
        folds: the subfold of each training patient: no fit that scores one has seen the others of it.
        stored: every patient's `prepared` and `scored` folders and `radiomics` in the predicted mask.
        radiomics: (patients, features) of the last.
    """
    cohort, file = study.cohort, study.evaluate.embedding
    columns = [*cohort.factors, *cohort.continuous]
    inputs = {name: digest({i: one.keys.get(i, "") for i in table.index}) for name, one in stored.items()}
    inputs |= {"clinical": digest(table[columns].to_csv()), "outcome": outcome_digest(table),
               "split": digest(table["split"].tolist()), "folds": digest([folds.index.tolist(), folds.tolist()]),
               "embedding": "" if file is None else file_hash(file)}
    settings = {"stage": cohort.stage, "factors": {k: list(v) for k, v in cohort.factors.items()},
                "continuous": list(cohort.continuous)}

    def build(folder: Path) -> None:
        rivals = fit_rivals(table, folds, stage=cohort.stage, factors=cohort.factors, continuous=cohort.continuous,
                            inputs=_inputs(study, table, stored, radiomics))
        rivals.risks.to_csv(folder / RISKS, index_label="patient_id")
        (folder / PROBLEMS).write_text(json.dumps([problem.as_dict() for problem in rivals.problems]))

    folder = store.make(Recipe("rivals", settings, inputs), build)
    risks = pd.read_csv(folder / RISKS, dtype=str).set_index("patient_id").astype(float)
    return Rivals(risks.reindex(table.index), tuple(
        Problem(**problem) for problem in json.loads((folder / PROBLEMS).read_text())))


def _inputs(
    study: Study, table: pd.DataFrame, stored: Mapping[str, Stored], radiomics: pd.DataFrame
) -> dict[str, pd.DataFrame]:
    """Volume of the predicted mask, coarse PET, radiomics and vectors, a row a patient."""
    ids = [str(i) for i in table.index]
    masks = {i: load_mask(stored["scored"].folders[i]) for i in ids}
    volume = pd.DataFrame({"ml": {i: float(mask.array.sum()) * mask.voxel_ml for i, mask in masks.items()}})
    cells = {i: coarse_pet(np.load(stored["prepared"].folders[i] / "image.npy", mmap_mode="r", allow_pickle=False))
             for i in ids}
    found = {"volume": volume, "image": pd.DataFrame.from_dict(cells, orient="index"), "radiomics": radiomics}
    if study.evaluate.embedding is not None:
        found["embedding"] = read_embedding(study.evaluate.embedding, ids)
    return found
