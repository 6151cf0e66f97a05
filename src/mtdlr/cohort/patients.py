"""Cohort: clinical table + scans -> patients, split once and checked for leakage."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from mtdlr.cohort.clinical import read_clinical
from mtdlr.errors import CohortError, Problem, StudyError, TableError
from mtdlr.imaging.layout import ScanSet, content_hashes, discover, names_the_patient, take_series
from mtdlr.study import CohortSettings
from mtdlr.survival import Survival

SPLITS = ("training", "internal", "external")
SPLIT_ALIASES = {"train": "training", "validation": "internal", "internal validation": "internal", "val": "internal",
                 "test": "internal", "external validation": "external", "ext": "external"}
MIN_EVENTS = 10
_MORE = "Mend the patients listed, add patients, or wait for longer follow-up"


@dataclass(frozen=True)
class Patient:
    """One patient: where the scans are, and the clinical row."""

    id: str
    split: str
    scan: ScanSet
    clinical: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Cohort:
    """Every patient of a study.

    Args:
        table: indexed by patient id; time_months, event, center, split and the clinical columns.
        scans: where each patient's scans are.
        problems: what was found on the way; errors name the patients that are left out.
        withheld: ids that name the patient, with the line of the table that they stand in (0: in none).
    """

    table: pd.DataFrame
    scans: Mapping[str, ScanSet]
    problems: tuple[Problem, ...] = ()
    withheld: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.table)

    def __iter__(self) -> Iterator[Patient]:
        for id_, row in self.table.iterrows():
            yield Patient(str(id_), row["split"], self.scans[str(id_)],
                          {str(name): value for name, value in row.items()})

    @property
    def ids(self) -> list[str]:
        """Patient ids in table order."""
        return [str(i) for i in self.table.index]

    @property
    def splits(self) -> list[str]:
        """The cohorts that have patients, in the paper's order."""
        return [split for split in SPLITS if (self.table["split"] == split).any()]

    @property
    def survival(self) -> Survival:
        """Follow-up in table order."""
        return Survival(self.table["time_months"].to_numpy(float), self.table["event"].to_numpy(bool))

    def of(self, split: str) -> Cohort:
        """The patients of one split."""
        return replace(self, table=self.table[self.table["split"] == split])

    def only(self, ids: Collection[str]) -> Cohort:
        """The given patients, in table order."""
        return replace(self, table=self.table[self.table.index.isin(list(ids))])

    def some_of_each(self, count: int) -> list[str]:
        """The first ids of every split, about `count` in all."""
        share = -(-count // len(self.splits))
        return [i for split in self.splits for i in self.of(split).ids[:share]]


def read_cohort(settings: CohortSettings, *, tolerant: bool = False) -> Cohort:
    """Every patient that has both a clinical row and scans; those without scans are named in the problems.

    Args:
        settings: the study's cohort section.
        tolerant: leave out the rows of the table that hold errors instead of raising, to look further (`check`).

    Raises:
        TableError: every error of the table at once; what `read_clinical` raises.
        StudyError: E-CENTER.
    """
    table, problems = read_clinical(settings)
    problems += _complain_of_split(table, settings)
    if not tolerant:
        raise_errors(problems)
    found, about_scans = find_scans(settings)
    problems += about_scans
    if not tolerant:
        raise_errors(about_scans)
    problems += [Problem("E-NOSCAN", "no PET/CT found for this patient", patients=(i,),
                         remedy=f"Looked in {settings.images.name}; is it named otherwise there?")
                 for i in dict.fromkeys(table.index) if i not in found]
    problems += [p.of_patient(i) for i in dict.fromkeys(table.index) if i in found for p in found[i].problems]
    spare = sorted(set(found) - set(table.index))
    if spare:
        problems.append(Problem("W-NOROW", f"{len(spare)} scans have no row in the table", found=", ".join(spare[:8]),
                                remedy="Add their rows, or leave them out"))
    usable = _usable(table, found, problems)
    lines = {str(i): line for line, i in enumerate(table.index, 2)}
    named = () if settings.keep_ids else [i for i, scan in found.items() if names_the_patient(scan)]
    return Cohort(split_patients(table.loc[usable], settings), {i: found[i] for i in usable}, tuple(problems),
                  {i: lines.get(i, 0) for i in named})


def find_scans(settings: CohortSettings) -> tuple[dict[str, ScanSet], list[Problem]]:
    """The scans by patient id, with the series and the mask's label that are asked for, and what is wrong with all.

    Raises:
        ScanError: what `discover` raises.
    """
    scans = discover(settings.images, layout=settings.layout, mask_pattern=settings.mask_name)
    scans, unknown = take_series(scans, settings.series)
    named = sum(map(names_the_patient, scans))
    problems = list(unknown)
    if named and not settings.keep_ids:
        problems.append(Problem(
            "E-IDFOLDER", "folders bear the patient's name or number, which would stand in every output",
            where="cohort.images", found=f"{named} of {len(scans)} folders",
            remedy="Rename them here and in the table, or set cohort.keep_ids = true to have it so"))
    return {scan.patient_id: replace(scan, mask_label=settings.mask_label, problems=tuple(
        p for p in scan.problems if p.code != "W-IDFOLDER" or settings.keep_ids)) for scan in scans}, problems


def split_patients(table: pd.DataFrame, settings: CohortSettings) -> pd.DataFrame:
    """The table with a `split` column: training, internal or external.

    External centres are kept apart; the rest is split at random within strata of event, or as the given column says.
    """
    table = table.assign(event=table["event"].astype(bool))
    external = table["center"].isin(settings.external_centers).to_numpy()
    if settings.split == "given":
        split = table[settings.split_column].map(lambda name: SPLIT_ALIASES.get(name, name)).to_numpy(dtype=object)
    elif settings.split == "center":
        split = np.where(external, "external", "training").astype(object)
    else:
        inside = _hold_out(table["event"].to_numpy()[~external], settings.internal_fraction, settings.seed)
        split = np.full(len(table), "external", dtype=object)
        split[~external] = np.where(inside, "internal", "training")
    return table.assign(split=split)


def leakage(cohort: Cohort) -> tuple[dict[str, str], list[Problem]]:
    """The content hash of every patient's scans, and errors where two patients share a PET or a CT, whatever mask was
    drawn on it (reads every file)."""
    hashes = {id_: content_hashes(cohort.scans[id_]) for id_ in cohort.ids}
    owners = defaultdict(list)
    for id_, (_, *images) in hashes.items():
        for role, digest in zip(("PET", "CT"), images, strict=True):
            owners[role, digest].append(id_)
    shared = dict.fromkeys(tuple(ids) for ids in owners.values() if len(ids) > 1)
    return {id_: whole for id_, (whole, *_) in hashes.items()}, [_same_scan(cohort, list(ids)) for ids in shared]


def require_events(cohort: Cohort) -> None:
    """Refuse a training cohort that cannot carry a model.

    Raises:
        CohortError: E-NOTRAINING, E-NOEVENTS, E-FEWEVENTS.
    """
    training = cohort.of("training")
    events = int(training.table["event"].sum())
    if not len(training):
        raise CohortError(Problem("E-NOTRAINING", "no patient is in the training cohort"))
    if events == 0:
        raise CohortError(Problem("E-NOEVENTS", "no event in the training cohort: nothing can be learned",
                                  found=f"0 events in {len(training)} patients", remedy=_MORE))
    if events < MIN_EVENTS:
        raise CohortError(Problem("E-FEWEVENTS", f"at least {MIN_EVENTS} events needed in the training cohort",
                                  found=f"{events} in {len(training)} patients", remedy=_MORE))


def imputation(training: pd.DataFrame, variables: Sequence[str]) -> dict[str, object]:
    """What a missing value of each variable takes: the training cohort's mode, or its median for a number."""
    return {name: training[name].median() if pd.api.types.is_numeric_dtype(training[name])
            else training[name].mode().iloc[0] for name in variables if training[name].notna().any()}


def impute(table: pd.DataFrame, values: Mapping[str, object]) -> tuple[pd.DataFrame, list[Problem]]:
    """The table with `values` of `imputation` where one is missing, and a warning for each column that needs one."""
    filled, problems = table.copy(), []
    for name, value in values.items():
        missing = filled[name].isna()
        if missing.any():
            filled.loc[missing, name] = value
            problems.append(Problem("W-IMPUTED", f"missing values take the training cohort's {value}",
                                    where=f"column {name}", found=", ".join(map(str, filled.index[missing]))))
    return filled, problems


def raise_errors(problems: Sequence[Problem]) -> None:
    """Raise every error among the problems at once.

    Raises:
        TableError: if there is any.
    """
    errors = [problem for problem in problems if problem.is_error]
    if errors:
        raise TableError(errors)


def _same_scan(cohort: Cohort, ids: list[str]) -> Problem:
    splits = sorted({str(cohort.table.at[i, "split"]) for i in ids})
    return Problem("E-SAMEIMAGE", "the same scan belongs to several patients", patients=tuple(ids),
                   found="in the cohorts " + " and ".join(splits), remedy="Leakage: keep one of them")


def _complain_of_split(table: pd.DataFrame, settings: CohortSettings) -> list[Problem]:
    unknown = sorted(set(settings.external_centers) - set(table["center"]))
    if unknown:
        raise StudyError(Problem("E-CENTER", "no patient comes from this centre", where="cohort.external_centers",
                                 found=", ".join(unknown), expected=", ".join(sorted(set(table["center"])))))
    if settings.split != "given":
        return []
    names = table[settings.split_column]
    return [Problem("E-SPLIT", "not a cohort", where=settings.split_column, patients=(str(i),), found=repr(name),
                    expected=", ".join(SPLITS), remedy="Correct the cell")
            for i, name in names.items() if SPLIT_ALIASES.get(name, name) not in SPLITS]


def _usable(table: pd.DataFrame, found: Mapping[str, ScanSet], problems: list[Problem]) -> list[str]:
    """Ids that nothing is wrong with."""
    named = {patient for problem in problems if problem.is_error for patient in problem.patients}
    return [i for i in dict.fromkeys(table.index) if i in found and i not in named and i]


def _hold_out(event: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """A random mask of the given fraction, with its share of events."""
    generator, held = np.random.default_rng(seed), np.zeros(event.size, dtype=bool)
    for status in (True, False):
        rows = generator.permutation(np.flatnonzero(event == status))
        held[rows[: round(fraction * rows.size)]] = True
    return held
