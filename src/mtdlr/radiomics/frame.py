"""The features of many patients as a DataFrame: what `mtdlr features` does, in one function."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd

from mtdlr.errors import Problem
from mtdlr.radiomics.table import extract_rows, read_cases
from mtdlr.store import open_store
from mtdlr.study import RadiomicsSettings
from mtdlr.workers import Workers


@dataclass(frozen=True, eq=False)
class FeatureFrame:
    """Features by patient, and what has to be said about them.

    Args:
        features: one row a patient (nan where a feature is not defined), one column a feature; first the columns
            timepoint, label and label_channel where the table has them.
        problems: errors of the patients that failed (their row is nan), warnings of the others.
    """

    features: pd.DataFrame
    problems: tuple[Problem, ...]


def extract_features(images: str | Path, *, profile: str = "paper1456", workers: int = 1,
                     cache: str | Path | None = None, settings: RadiomicsSettings | None = None) -> FeatureFrame:
    """The radiomics features of many patients.

    Args:
        images: a folder of scans with masks, or a CSV (patient_id, pet, ct, mask; or Image, Mask and perhaps ID,
            Modality, Timepoint, Label, Label_channel).
        profile: paper1456, ibsi, or a PyRadiomics parameter file.
        workers: processes side by side; the values do not depend on their number. In a script, call this under
            `if __name__ == "__main__":` when there is more than one.
        cache: a folder that makes the call resumable; by default nothing is kept.
        settings: spacing and bin widths, in place of `profile`.

    Raises:
        MtdlrError: for a table, profile or parameter file that is wrong; a patient that is wrong costs its own row.
    """
    cases = read_cases(images)
    with ExitStack() as held:
        root = Path(cache) if cache else Path(held.enter_context(TemporaryDirectory()))
        found = extract_rows(cases, settings or RadiomicsSettings(profile=profile),
                             store=held.enter_context(open_store(root)), workers=Workers(workers))
    table = pd.DataFrame.from_dict(dict(found.rows), orient="index").reindex(list(found.rows), columns=found.columns)
    for place, name in enumerate(dict.fromkeys(name for case in cases for name, _ in case.about)):
        table.insert(place, name, [dict(case.about).get(name, "") for case in cases])
    table.index = pd.Index([case.id for case in cases], name="patient_id")
    return FeatureFrame(table, found.problems)
