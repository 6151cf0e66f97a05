"""One patient's features as a stored result, and the table of a cohort read from such results."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

NAMES, VALUES = "names.txt", "values.npy"
"""The features of features.json once more, in the form that is read fast."""


def save_features(folder: Path, features: Mapping[str, float], again: Sequence[Mapping[str, float]],
                  pet_parameters: Mapping[str, float]) -> None:
    """Write one patient's features, those of its perturbed masks, and its PET parameters: read by `table_of`.

    Args:
        folder: where the files go; it must exist.
        features: by name; an undefined one is nan.
        again: the features once more, for each perturbation.
        pet_parameters: SUVmax, MTV and the like, by name.
    """
    (folder / "features.json").write_text(json.dumps({
        "features": features, "perturbed": again, "pet_parameters": pet_parameters}))
    (folder / NAMES).write_text("\n".join(features))
    np.save(folder / VALUES, np.array(list(features.values()), dtype=np.float64))


def table_of(folders: Mapping[str, Path], what: str, ids: list[str]) -> pd.DataFrame:
    """The features or PET parameters of a cohort, one row a patient; a row of NaN where extraction failed.

    Args:
        folders: folder of `save_features`, by patient.
        what: "features" or "pet_parameters".
        ids: the patients, in the order wanted.
    """
    if what == "features" and folders:
        names = {i: (folder / NAMES).read_text() for i, folder in folders.items()}
        if len(set(names.values())) == 1:  # parsing ten thousand patients' JSON takes a minute
            values = np.stack([np.load(folder / VALUES, allow_pickle=False) for folder in folders.values()])
            columns = next(iter(names.values())).split("\n")
            return pd.DataFrame(values, index=list(names), columns=columns).reindex(ids)
    rows = {i: json.loads((folder / "features.json").read_text())[what] for i, folder in folders.items()}
    return pd.DataFrame.from_dict(rows, orient="index").reindex(ids)


def perturbed_of(folders: Mapping[str, Path], table: pd.DataFrame) -> list[pd.DataFrame]:
    """The features of a table's patients under each perturbation, one table each; none where there was none.

    Args:
        folders: folder of `save_features`, by patient.
        table: features of some patients; its rows and columns are taken.
    """
    rows = {str(i): json.loads((folders[str(i)] / "features.json").read_text())["perturbed"]
            for i in table.index if str(i) in folders}
    return [again.reindex(table.index) for again in perturbed_tables(rows, list(table.columns))]


def perturbed_tables(rows: Mapping[str, Sequence[Mapping[str, float]]], columns: Sequence[str]) -> list[pd.DataFrame]:
    """One table (patients, columns) a perturbation, from each patient's perturbed features; nan where there are none.

    Args:
        rows: patient -> features of each of its perturbations.
        columns: which features.
    """
    count = max((len(found) for found in rows.values()), default=0)
    return [pd.DataFrame.from_dict({patient: found[k] if k < len(found) else {} for patient, found in rows.items()},
                                   orient="index", dtype=float).reindex(list(rows), columns=list(columns))
            for k in range(count)]
