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
