"""Cohort: clinical table + scans -> patients, split once and checked for leakage."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from mtdlr.cohort.clinical import survey_clinical
from mtdlr.cohort.ids import complain_of_ids, propose_ids
from mtdlr.errors import CohortError, Problem, ScanError, TableError
from mtdlr.imaging.dicom_instance import Reader, read_heaps
from mtdlr.imaging.layout import NOTHING, ScanSet, content_hashes, discover, names_the_patient, take_series
from mtdlr.spreadsheet import frame_csv
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
        table: indexed by patient id and sorted by it; time_months, event, center, split and the clinical columns.
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

    def __bool__(self) -> bool:
        """True, also of a cohort without patients: `if cohort` asks whether there is one."""
        return True

    def __iter__(self) -> Iterator[Patient]:
        for id_, row in self.table.iterrows():
            yield Patient(str(id_), row["split"], self.scans[str(id_)],
                          {str(name): value for name, value in row.items()})

    @property
    def ids(self) -> list[str]:
        """Patient ids in table order."""
        return [str(i) for i in self.table.index]

    @property
    def split(self) -> dict[str, str]:
        """Each patient's part of the study: training, internal or external."""
        return dict(zip(self.ids, self.table["split"].astype(str), strict=True))

    def to_csv(self) -> str:
        """The table as CSV, of which a spreadsheet runs no cell as a formula."""
        return frame_csv(self.table)

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


@dataclass(frozen=True, eq=False)
class Survey:
    """Everything that table and scans show, also of patients that cannot be used.

    Args:
        cohort: the patients that nothing is wrong with so far.
        scans: every patient's scans, those without a row in the table among them.
        ids: every id of the table, sorted.
        fatal: errors of table, folder or settings that stop a run; those of single scans do not.
    """

    cohort: Cohort
    scans: Mapping[str, ScanSet]
    ids: tuple[str, ...]
    fatal: tuple[Problem, ...] = ()


def read_cohort(settings: CohortSettings, read: Reader = read_heaps) -> Cohort:
    """Every patient that has both a clinical row and scans, sorted by id; the others are named in the problems.

    Args:
        settings: the study's cohort section.
        read: reads the headers of DICOM files: a `HeaderReader`; by default here and now.

    Raises:
        TableError: every error of the table and of the folder as a whole at once; what `survey_cohort` finds fatal.
    """
    survey = survey_cohort(settings, read)
    raise_errors(survey.fatal)
    return survey.cohort


def survey_cohort(settings: CohortSettings, read: Reader = read_heaps) -> Survey:
    """What can be read of table and scans, whatever is wrong with either. Raises nothing.

    Args:
        settings: the study's cohort section.
        read: reads the headers of DICOM files.
    """
    fatal: list[Problem] = []
    table, lines = _table_of(settings, fatal)
    scans = _scans_of(settings, fatal, read)
    ids = [str(i) for i in dict.fromkeys(table.index) if i]
    fatal += _complain_of_names(ids, scans, lines, settings)
    problems = [*fatal, *_complain_of_pairs(ids, scans, settings)] if scans and ids else list(fatal)
    problems += [p.of_patient(i) for i in ids if i in scans for p in scans[i].problems]
    wrong = {patient for problem in problems if problem.is_error for patient in problem.patients}
    known = table.index[table["time_months"].notna() & table["event"].notna()]
    usable = [i for i in ids if i in scans and i not in wrong and i in known]
    named = () if settings.keep_ids else [i for i, scan in scans.items() if names_the_patient(scan)]
    cohort = Cohort(split_patients(table.loc[usable], settings), {i: scans[i] for i in usable}, tuple(problems),
                    {i: lines.get(i, 0) for i in named})
    return Survey(cohort, scans, tuple(ids), tuple(p for p in fatal if p.is_error))


def find_scans(settings: CohortSettings, read: Reader = read_heaps) -> tuple[dict[str, ScanSet], list[Problem]]:
    """The scans by patient id, with the series and the mask's label that are requested, and what is wrong with all.

    Args:
        settings: the study's cohort section.
        read: reads the headers of DICOM files.

    Raises:
        ScanError: what `discover` raises.
    """
    scans = discover(settings.images, layout=settings.layout, mask_pattern=settings.mask_name, empty=True,
                     read=read)
    scans, unknown = take_series(scans, settings.series)
    problems = list(unknown)
    return {scan.patient_id: replace(scan, mask_label=settings.mask_label, problems=tuple(
        p for p in scan.problems if p.code != "W-IDFOLDER" or settings.keep_ids)) for scan in scans}, problems


def split_patients(table: pd.DataFrame, settings: CohortSettings) -> pd.DataFrame:
    """The table with a `split` column: training, internal or external.

    External centres are kept apart. The rest is split at random within strata of event, or by the column that the
    settings name.

    Args:
        table: one row a patient, with `center` and `event`.
        settings: how to split (`cohort`).
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


def leakage(cohort: Cohort, known: Mapping[str, tuple[str, str, str]] | None = None,
            ) -> tuple[dict[str, str], list[Problem]]:
    """The content hash of every patient's scans, and errors where two patients share a PET or a CT, whatever mask was
    drawn on it.

    Args:
        cohort: the patients.
        known: the hashes of each patient's scans together, PET, and CT; without it every file is read.
    """
    hashes = known or {id_: _hashes_of(id_, cohort.scans[id_]) for id_ in cohort.ids}
    pairs = {id_: hashes[id_][1:] for id_ in cohort.ids}
    return {id_: hashes[id_][0] for id_ in cohort.ids}, shared_images(cohort.split, pairs)


def shared_images(split: Mapping[str, str], images: Mapping[str, tuple[str, str]]) -> list[Problem]:
    """E-SAMEIMAGE where two patients have the same PET or CT.

    Args:
        split: the cohort of each patient, of those that have one.
        images: hashes of each patient's PET and CT; "" is like no other.
    """
    owners = defaultdict(list)
    for id_, pair in images.items():
        for role, digest in zip(("PET", "CT"), pair, strict=True):
            if digest:
                owners[role, digest].append(id_)
    shared = dict.fromkeys(tuple(ids) for ids in owners.values() if len(ids) > 1)
    return [_same_scan(split, ids) for ids in shared]


def unreadable(id_: str) -> tuple[str, str, str]:
    """Stands for the hashes of a patient whose files cannot be read: like no other's. Preparing says what is wrong."""
    return (f"unreadable {id_}",) * 3


def _hashes_of(id_: str, scan: ScanSet) -> tuple[str, str, str]:
    """The hashes of one patient's scans together, PET, and CT; `unreadable` for files that are damaged."""
    try:
        return content_hashes(scan)
    except ScanError:
        return unreadable(id_)


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


def imputation(training: pd.DataFrame, variables: Sequence[str]) -> dict[str, float | str]:
    """The value that replaces a missing one of each variable: the training cohort's mode, or its median for a number.

    Args:
        training: rows of the training cohort.
        variables: names of columns; one without any known value is left out.
    """
    return {name: training[name].median() if pd.api.types.is_numeric_dtype(training[name])
            else training[name].mode().iloc[0] for name in variables if training[name].notna().any()}


def impute(table: pd.DataFrame, values: Mapping[str, float | str]) -> tuple[pd.DataFrame, list[Problem]]:
    """The table with its missing values imputed, and W-IMPUTED for each column that needs it.

    Args:
        table: one row a patient.
        values: of `imputation`.
    """
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


def _same_scan(split: Mapping[str, str], ids: tuple[str, ...]) -> Problem:
    splits = sorted({str(split[i]) for i in ids if i in split})
    return Problem("E-SAMEIMAGE", "the same scan belongs to several patients", patients=ids,
                   found="in the cohorts " + " and ".join(splits) if splits else "",
                   remedy="Leakage: keep one of them")


def _table_of(settings: CohortSettings, problems: list[Problem]) -> tuple[pd.DataFrame, dict[str, int]]:
    """(the clinical table sorted by id, the line of each id in the file); an empty table where there is none."""
    try:
        table, found, lines = survey_clinical(settings)
    except TableError as error:
        problems += error.problems
        columns = ["time_months", "event", "center", settings.split_column]
        return pd.DataFrame(columns=columns, index=pd.Index([], name="patient_id", dtype=object)), {}
    absent = {problem.found for problem in found if problem.code == "E-COLUMN"}
    problems += [*found, *_complain_of_split(table, settings, absent)]
    return table.sort_index(kind="stable"), lines


def _scans_of(settings: CohortSettings, problems: list[Problem], read: Reader) -> dict[str, ScanSet]:
    try:
        scans, found = find_scans(settings, read)
    except ScanError as error:
        problems += error.problems
        return {}
    problems += found
    return scans


def _complain_of_pairs(ids: Sequence[str], scans: Mapping[str, ScanSet], settings: CohortSettings) -> list[Problem]:
    """Patients of the table without scans, with the likeliest cause, and scans without a row."""
    unreadable = [i for i, scan in scans.items() if scan.kind == NOTHING]
    proposed = propose_ids(ids, scans)
    problems = complain_of_ids(ids, list(scans), proposed)
    said = {patient for problem in problems for patient in problem.patients}
    problems += [Problem("E-NOSCAN", "no PET/CT found for this patient", patients=(i,),
                         remedy=f"Add the scans to {settings.images.name}, or remove the row")
                 for i in ids if i not in scans and i not in said]
    spare = sorted(set(scans) - set(ids) - set(proposed.values()))
    without_row = [i for i in spare if i not in unreadable and not _is_nameless(scans[i])]
    if without_row:
        more = f" and {len(without_row) - 8} more" if len(without_row) > 8 else ""
        problems.append(Problem("W-NOROW", f"{len(without_row)} scans have no row in the table",
                                found=", ".join(without_row[:8]) + more, remedy="Add their rows, or leave them out"))
    rowless = [replace(p, code="W" + p.code[1:], where=f"{i}: {p.where}" if p.where else i) for i in spare
               for p in scans[i].problems if i in unreadable and p.code != "E-NOIMAGES"]
    return problems + rowless + [p for i in spare if _is_nameless(scans[i])
                                 for p in scans[i].problems]


def _is_nameless(scan: ScanSet) -> bool:
    """Whether a row of the manifest says too little to be a patient's."""
    return any(problem.code == "E-MANIFEST" for problem in scan.problems)


def _complain_of_names(ids: Sequence[str], scans: Mapping[str, ScanSet], lines: Mapping[str, int],
                       settings: CohortSettings) -> list[Problem]:
    """E-IDFOLDER with the lines of the table in which such ids stand."""
    named = [i for i, scan in scans.items() if names_the_patient(scan)]
    if not named or settings.keep_ids:
        return []
    at = sorted(lines[i] for i in named if i in lines)
    shown = f", lines {', '.join(map(str, at[:8]))}{' and more' * (len(at) > 8)} of {settings.table.name}" if at else ""
    return [Problem(
        "E-IDFOLDER", "folders bear the patient's name or number, which would stand in every output",
        where="cohort.images", found=f"{len(named)} of {len(scans)} folders{shown}",
        remedy="Rename them here and in the table, or set cohort.keep_ids = true to have it so")]


def _complain_of_split(table: pd.DataFrame, settings: CohortSettings, absent: set[str]) -> list[Problem]:
    """E-CENTER and E-SPLIT, not of a column that is absent."""
    problems = []
    unknown = sorted(set(settings.external_centers) - set(table["center"]))
    if unknown and f"no {settings.center!r}" not in absent:
        problems.append(Problem("E-CENTER", "no patient comes from this centre", where="cohort.external_centers",
                                found=", ".join(unknown), expected=", ".join(sorted(set(table["center"]))),
                                remedy="Correct the name"))
    if settings.split != "given" or f"no {settings.split_column!r}" in absent:
        return problems
    names = table[settings.split_column]
    return problems + [Problem("E-SPLIT", "not a cohort", where=settings.split_column, patients=(str(i),),
                               found=repr(name), expected=", ".join(SPLITS), remedy="Correct the cell")
                       for i, name in names.items() if SPLIT_ALIASES.get(name, name) not in SPLITS and i]


def _hold_out(event: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """A random mask of the given fraction, with its share of events."""
    generator, held = np.random.default_rng(seed), np.zeros(event.size, dtype=bool)
    for status in (True, False):
        rows = generator.permutation(np.flatnonzero(event == status))
        held[rows[: round(fraction * rows.size)]] = True
    return held
