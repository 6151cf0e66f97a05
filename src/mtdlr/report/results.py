"""Everything a finished run knows: what tables, figures, report and bundle are made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from mtdlr.cohort import Cohort
from mtdlr.errors import Problem
from mtdlr.model import Models
from mtdlr.study import Study


@dataclass(frozen=True, eq=False)
class Results:
    """The results of one study.

    Args:
        cohort: the patients that are in.
        prepared, scored: each patient's folder.
        networks: checkpoint folders by network.
        mean_image: the folder of the training cohort's mean image.
        features: (patients, features) by source of the mask, `auto` and `manual`.
        pet_parameters: (patients, SUVmax, MTV and the like) by source of the mask.
        models: scores, nomograms, evaluations.
        problems: errors first.
        pictures: the folder of the picture of each patient that has a page or that the report shows.
        explained: the folder of where the risk came from, of each patient that the report shows.
    """

    study: Study
    cohort: Cohort
    prepared: Mapping[str, Path]
    scored: Mapping[str, Path]
    networks: Mapping[str, Sequence[Path]]
    mean_image: Path
    features: Mapping[str, pd.DataFrame]
    pet_parameters: Mapping[str, pd.DataFrame]
    models: Models
    problems: tuple[Problem, ...]
    pictures: Mapping[str, Path] = field(default_factory=dict)
    explained: Mapping[str, Path] = field(default_factory=dict)
