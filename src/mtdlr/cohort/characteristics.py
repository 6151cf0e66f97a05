"""Who the patients of each cohort are, and whether the cohorts differ: Table 1 as numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from mtdlr.cohort.clinical import label_of
from mtdlr.errors import FitError
from mtdlr.stats.groups import chi_square, kruskal_wallis
from mtdlr.study import CohortSettings


@dataclass(frozen=True)
class Range:
    """A continuous variable in one cohort: median, smallest and largest value of n patients; nan where n is 0."""

    n: int
    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Characteristic:
    """One variable of every cohort.

    Args:
        name, label: the column, and what is printed for it.
        ranges: by cohort, of a continuous variable.
        counts: patients by level and cohort, of a categorical one.
        p: of the difference between cohorts: Kruskal-Wallis or Pearson's chi-square; nan where there is none.
        is_flag: whether only the patients who have it are printed (0/1 columns).
    """

    name: str
    label: str
    p: float
    ranges: Mapping[str, Range] = field(default_factory=dict)
    counts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    is_flag: bool = False


def characteristics(
    table: pd.DataFrame, settings: CohortSettings, pet: pd.DataFrame, labels: Mapping[str, str]
) -> tuple[Characteristic, ...]:
    """Every variable of Table 1.

    Args:
        table: (patients) split, event and the clinical columns.
        settings: which columns are continuous, categorical or only described.
        pet: (patients, PET parameters) inside the manual mask.
        labels: the PET parameters to describe, and what is printed for them.
    """
    splits = dict.fromkeys(map(str, table["split"]))
    cohorts = {split: table[table["split"] == split] for split in splits}

    def columns(name: str) -> dict[str, pd.Series]:
        return {split: rows[name] for split, rows in cohorts.items()}

    found = [_continuous(name, label_of(name), columns(name)) for name in settings.continuous]
    found += [_categorical(name, label_of(name), columns(name), levels) for name, levels in settings.factors.items()]
    found += [_flag(name, columns(name)) for name in settings.described]
    found += [_continuous(name, label, {split: pet.loc[rows.index, name] for split, rows in cohorts.items()})
              for name, label in labels.items() if name in pet]
    outcome = {split: rows["event"].map({False: "Event free", True: "Event"}) for split, rows in cohorts.items()}
    return (*found, _categorical("event", "Outcome", outcome, ("Event free", "Event")))


def _continuous(name: str, label: str, values: Mapping[str, pd.Series]) -> Characteristic:
    samples = {split: v.dropna().to_numpy(float) for split, v in values.items()}
    ranges = {split: Range(v.size, float(np.median(v)), float(v.min()), float(v.max())) if v.size
              else Range(0, np.nan, np.nan, np.nan) for split, v in samples.items()}
    return Characteristic(name, label, _p_of(lambda: kruskal_wallis([v for v in samples.values() if v.size]).p), ranges)


def _categorical(name: str, label: str, values: Mapping[str, pd.Series], levels: Sequence[str]) -> Characteristic:
    counts = {level: {split: int((v == level).sum()) for split, v in values.items()} for level in levels}
    present = np.array([list(row.values()) for row in counts.values() if any(row.values())])
    return Characteristic(name, label, _p_of(lambda: chi_square(present).p), counts=counts)


def _flag(name: str, values: Mapping[str, pd.Series]) -> Characteristic:
    counts = {level: {split: int((v == k).sum()) for split, v in values.items()}
              for k, level in ((1, "yes"), (0, "no"))}
    table = np.array([list(row.values()) for row in counts.values()])
    return Characteristic(name, label_of(name), _p_of(lambda: chi_square(table).p), counts=counts, is_flag=True)


def _p_of(test: Callable[[], float]) -> float:
    """The p value, or nan where the cohorts cannot be compared (one cohort, one level)."""
    try:
        return test()
    except FitError:
        return float("nan")
