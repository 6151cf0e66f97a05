"""Everything a finished run knows: what tables, figures and report are made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from mtdlr.associate import Associations
from mtdlr.cohort import Cohort
from mtdlr.cohort.characteristics import Characteristic
from mtdlr.errors import Problem
from mtdlr.evaluate import Findings
from mtdlr.evaluate.arms import Arm
from mtdlr.model import FrozenModel
from mtdlr.store import digest
from mtdlr.study import Study


@dataclass(frozen=True, eq=False)
class Results:
    """The results of one study, as numbers. Tables, figures and pages print them and compute nothing.

    Args:
        cohort: the patients that are in.
        model: the frozen model.
        scores: (patients, scores) with their in-sample versions.
        findings: risks, survival, evaluations (Table 4), optimism and calibration.
        characteristics: Table 1.
        associations: Tables 2 and 3.
        features, pet_parameters: (patients, ...) by mask source.
        prepared, scored: each patient's folder.
        problems: errors first.
        pictures: the folder of the picture of each patient that has a page or that the report shows.
        explained: the folder of where the risk came from, of each patient that the report shows.
        arms: signatures of one modality's features, in each cohort.
    """

    study: Study
    cohort: Cohort
    model: FrozenModel
    scores: pd.DataFrame
    findings: Findings
    characteristics: Sequence[Characteristic]
    associations: Associations
    features: Mapping[str, pd.DataFrame]
    pet_parameters: Mapping[str, pd.DataFrame]
    prepared: Mapping[str, Path]
    scored: Mapping[str, Path]
    problems: tuple[Problem, ...]
    pictures: Mapping[str, Path] = field(default_factory=dict)
    explained: Mapping[str, Path] = field(default_factory=dict)
    arms: tuple[Arm, ...] = ()

    @property
    def digest(self) -> str:
        """Stands for every number that a report prints."""
        return digest([self.model.digest, self.findings.risks.to_csv(), self.scores.to_csv()])
