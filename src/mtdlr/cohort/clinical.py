"""The clinical table: a spreadsheet as hospitals write it -> one checked row a patient.

Every problem of the table is collected before anything is raised. What is only unusual is carried as a warning; what
would have to be guessed is an error.
"""

from __future__ import annotations

import difflib
import re
from collections import defaultdict
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd

import mtdlr.cohort.cells as cells
from mtdlr.errors import Problem, TableError
from mtdlr.spreadsheet import Sheet, read_sheet
from mtdlr.study import CohortSettings

MONTHS_PER = {"months": 1.0, "days": 12 / 365.25, "years": 12.0}
LONGEST_MONTHS = 1200.0  # a hundred years
WHOLE = ("E-COLUMN", "E-HEADER", "E-ROWLENGTH", "E-STAGE")  # a run does not begin with such a table
REMEDIES = {
    "E-TIME": "Correct the cell", "E-EVENT": "Recode it: 0 censored, 1 event", "E-NUMBER": "Correct the cell",
    "E-MISSING": "Fill it in, or remove the row", "E-LEVEL": "Correct the cell, or add the level to cohort.factors",
    "E-FLAG": "Recode it: 0 or 1", "E-DATE": "Write it as year-month-day, e.g. 2020-03-31",
    "E-DATEORDER": 'Set cohort.date_order = "dmy" or "mdy", or write dates as year-month-day',
}  # fmt: skip


def read_clinical(settings: CohortSettings) -> tuple[pd.DataFrame, list[Problem]]:
    """The table indexed by patient id, and everything that is wrong with it.

    Returns:
        The table with columns time_months (float), event (bool), center (str), the split column if one is given,
        every continuous column (float, NaN where missing), factor (str or NaN) and described column (0/1 or NaN);
        and problems, errors among them (the rows they name hold NaN).

    Raises:
        TableError: when there is no table to speak of: E-NOTABLE, E-ENCODING, E-CSV, E-EXTRA, E-HEADER, E-ROWLENGTH,
            E-COLUMN, E-STAGE.
    """
    table, problems, _ = survey_clinical(settings)
    if any(problem.code in WHOLE for problem in problems):
        raise TableError(problem for problem in problems if problem.is_error)
    return table, problems


def survey_clinical(settings: CohortSettings) -> tuple[pd.DataFrame, list[Problem], dict[str, int]]:
    """As `read_clinical`, but a column that is not there is a problem beside the others and holds nothing; and the
    line of each id in the file.

    Raises:
        TableError: E-NOTABLE, E-ENCODING, E-CSV, E-EXTRA.
    """
    sheet = read_sheet(settings.table)
    problems = [*sheet.problems, *_missing_columns(sheet, settings)]
    columns = _Columns(sheet, settings.id, problems)
    problems += _check_ids(columns, settings.table.name)
    table = pd.DataFrame(index=pd.Index(columns.ids, name="patient_id"))
    table["time_months"] = columns.times(settings)
    table["event"] = columns.events(settings.event, settings.competing)
    if settings.competing:
        table["cause"] = columns.causes(settings.event, settings.competing, table["event"].to_numpy())
    table["center"] = columns.texts(settings.center) if settings.center else "all"
    if settings.split == "given":
        table[settings.split_column] = [text.lower() for text in columns.texts(settings.split_column)]
    for name in settings.continuous:
        table[name] = columns.numbers(name)
    for name, levels in settings.factors.items():
        table[name] = columns.levels(name, levels)
    for name in settings.described:
        table[name] = columns.flags(name)
    lines = dict(zip(reversed(columns.ids), reversed(sheet.lines), strict=True))
    return table, [*dict.fromkeys(problems), *implausible(table)], lines


def read_csv_text(path: Path) -> pd.DataFrame:
    """A table as text cells, decimal commas as points; any error of the file as a whole is raised.

    Raises:
        TableError: E-NOTABLE, E-ENCODING, E-CSV, E-EXTRA, E-HEADER, E-ROWLENGTH.
    """
    sheet = read_sheet(path)
    errors = [problem for problem in sheet.problems if problem.is_error]
    if errors:
        raise TableError(errors)
    table = pd.DataFrame(list(sheet.rows), columns=list(sheet.names), dtype=str)
    return table.map(lambda cell: re.sub(r"^([+-]?\d+),(\d+)$", r"\1.\2", cell)) if sheet.decimal_comma else table


def label_of(name: str) -> str:
    """A column as it is printed: `tnm_stage` -> `TNM stage`.

    >>> label_of("tnm_stage"), label_of("age"), label_of("SUV_max")
    ('TNM stage', 'Age', 'SUV max')
    """
    words = name.replace("_", " ").split()
    short = {"tnm", "ebv", "bmi", "ldh", "ic", "ccrt", "ac", "hpv", "mskcc"}
    words = [word.upper() if word.lower() in short else word for word in words]
    return " ".join([words[0][:1].upper() + words[0][1:], *words[1:]])


def implausible(table: pd.DataFrame) -> list[Problem]:
    """Warnings for rows that contradict themselves: stage against T and N, SUV and TLG against one another."""
    problems = []
    if {"t_stage", "n_stage", "tnm_stage"} <= set(table.columns):
        advanced = (table["t_stage"] == "T4") | (table["n_stage"] == "N3")
        stage = table["tnm_stage"]
        wrong = stage.notna() & table["t_stage"].notna() & table["n_stage"].notna() & (advanced != (stage == "IVa"))
        problems += [Problem("W-STAGE", "stage IVa goes with T4 or N3 and with nothing else", patients=(i,),
                             found=" ".join(str(table.at[i, name]) for name in ("t_stage", "n_stage", "tnm_stage")))
                     for i in _ids(table, wrong)]
    if {"suv_max", "suv_mean"} <= set(table.columns):
        problems += [Problem("W-SUVORDER", "SUVmax is below SUVmean", patients=(i,))
                     for i in _ids(table, table["suv_max"] < table["suv_mean"])]
    if {"tlg", "suv_mean", "mtv"} <= set(table.columns):
        product = table["suv_mean"] * table["mtv"]
        off = _ids(table, (table["tlg"] - product).abs() > 0.05 * product.abs() + 0.5)
        problems += [Problem("W-TLG", "TLG is not SUVmean x MTV", patients=(i,),
                             found=f"{table['tlg'][i]:g}", expected=f"{product[i]:g}") for i in off]
    return problems


def _ids(table: pd.DataFrame, rows: pd.Series) -> list[str]:
    return [str(i) for i in table.index[rows]]


def _missing_columns(sheet: Sheet, settings: CohortSettings) -> list[Problem]:
    """E-COLUMN for every column that a setting names and the table lacks, with the likeliest of those it has."""
    wanted = {"cohort.id": [settings.id], "cohort.event": [settings.event], "cohort.continuous": settings.continuous,
              "cohort.factors": settings.factors, "cohort.described": settings.described,
              "cohort.stage": [settings.stage]}
    wanted |= {"cohort.start": [settings.start], "cohort.end": [settings.end]} if settings.start and settings.end \
        else {"cohort.time": [settings.time]}
    wanted |= {"cohort.center": [settings.center]} if settings.center else {}
    wanted |= {"cohort.split_column": [settings.split_column]} if settings.split == "given" else {}
    keys: dict[str, str] = {}
    for key, names in wanted.items():
        for name in names:
            keys.setdefault(str(name), key)
    problems = [Problem("E-COLUMN", f"the table lacks a column that {key} names", where=settings.table.name,
                        found=f"no {name!r}", expected="one of " + ", ".join(sheet.names),
                        remedy=f"Set {key} to the column's name" + _likely(name, sheet.names))
                for name, key in keys.items() if name not in sheet.names]
    if settings.stage not in settings.factors:
        problems.append(Problem("E-STAGE", "the stage must be one of cohort.factors", where="cohort.stage",
                                found=settings.stage, remedy="Add it there with its levels"))
    return problems


def _likely(name: str, names: Sequence[str]) -> str:
    """`: is it 'Patient ID'?`, or nothing."""
    def bare(text: str) -> str:
        return re.sub(r"[\W_]", "", cells.plain(text))

    spelled = {bare(other): other for other in names}
    near = difflib.get_close_matches(bare(name), list(spelled), 1, cutoff=0.75)
    return f": is it {spelled[near[0]]!r}?" if near else ""


def _check_ids(columns: _Columns, table: str) -> list[Problem]:
    lines = defaultdict(list)
    for id_, line in zip(columns.ids, columns.sheet.lines, strict=True):
        lines[id_].append(line)
    problems = [Problem("E-NOID", "a row has no patient id", where=f"{table}: line {line}", remedy="Fill it in")
                for line in lines.pop("", ()) if columns.has_ids]
    return problems + [Problem("E-DUPLICATE", "the same patient id stands in several rows", patients=(i,),
                               found="lines " + ", ".join(map(str, at)), expected="one row", remedy="Keep one of them")
                       for i, at in lines.items() if len(at) > 1]


class _Columns:
    """The raw table while its columns are checked; complaints gather in `problems`."""

    def __init__(self, sheet: Sheet, id_column: str, problems: list[Problem]) -> None:
        self.sheet, self.problems = sheet, problems
        self.has_ids = id_column in sheet.names
        self.ids = list(self.texts(id_column))

    def texts(self, name: str) -> list[str]:
        """The cells of a column; empty ones where the table lacks it."""
        if name not in self.sheet.names:
            return [""] * len(self.sheet.rows)
        place = self.sheet.names.index(name)
        return [row[place] for row in self.sheet.rows]

    def times(self, settings: CohortSettings) -> np.ndarray:
        """Months; NaN where the entry is an error."""
        if settings.start and settings.end:
            name, months = settings.end, self.between(settings)
        else:
            name, months = settings.time, self.numbers(settings.time, needed=True) * MONTHS_PER[settings.time_unit]
        for row in np.flatnonzero(months < 1e-3).tolist():
            self._complain("E-TIME", "follow-up time must be positive", row, name)
        known = months[months > 0]
        median = float(np.median(known)) if known.size else 0.0
        if median > 300:
            self.problems.append(Problem(
                "W-UNIT", f"median follow-up is {median:.0f} months: are these days?", where=f"column {name}",
                remedy='Set cohort.time_unit = "days"'))
        longest = LONGEST_MONTHS * (10 if median > 300 else 1)
        for row in np.flatnonzero(months > longest).tolist():
            self._complain("E-TIME", "follow-up is longer than a hundred years", row, name)
        return np.where((months >= 1e-3) & (months <= longest), months, np.nan)

    def between(self, settings: CohortSettings) -> np.ndarray:
        """Months from the start column to the end column."""
        columns = [str(settings.start), str(settings.end)]
        order = cells.order_of(cell for name in columns for cell in self.texts(name)) \
            if settings.date_order == "auto" else settings.date_order
        begun, ended = (self.dates(name, order) for name in columns)
        days = [np.nan if a is None or b is None else float((b - a).days) for a, b in zip(begun, ended, strict=True)]
        return np.array(days) * MONTHS_PER["days"]

    def dates(self, name: str, order: cells.Order | None) -> list[date | None]:
        """The dates of a column; None where missing or not a date, which are errors."""
        found: list[date | None] = []
        for row, cell in enumerate(self.texts(name)):
            found.append(cells.date_in(cell, order))
            if cells.is_missing(cell):
                self._complain("E-MISSING", "a value is missing that every patient needs", row, name)
            elif found[-1] is None and cells.is_two_dates(cell):
                self._complain("E-DATEORDER", "day or month first? no date of the table shows it", row, name)
            elif found[-1] is None:
                number = cells.number_in(cell)
                what = "not a date" if number is None else "a number stands where a date should"
                self._complain("E-DATE", what, row, name)
        return found

    def events(self, name: str, competing: Sequence[str] = ()) -> np.ndarray:
        """0, 1 or NaN; usual words for them are understood, with one warning. A competing event is 0: it ends the
        follow-up without the event."""
        others = {cells.plain(word) for word in competing}
        status, words = np.full(len(self.ids), np.nan), set()
        for row, cell in enumerate(self.texts(name)):
            meant = 0 if cells.plain(cell) in others else cells.event_in(cell)
            if meant is None:
                self._complain("E-EVENT", "event status must be 1 (event) or 0 (censored)", row, name,
                               remedy="Name the values of other events in cohort.competing")
                continue
            status[row] = meant
            if cells.number_in(cell) is None and cells.plain(cell) not in others:
                words.add(f"{cell} = {meant}")
        if words:
            self.problems.append(Problem("W-EVENTWORD", "event status given in words", where=f"column {name}",
                                         found=", ".join(sorted(words)),
                                         remedy="Check that they were understood"))
        return status

    def causes(self, name: str, competing: Sequence[str], status: np.ndarray) -> np.ndarray:
        """The status with 2, 3, ... for the competing events in the order of the setting; counts them in a warning."""
        codes = {cells.plain(word): float(k) for k, word in enumerate(competing, start=2)}
        named = [cells.plain(cell) for cell in self.texts(name)]
        cause = np.array([codes.get(word, one) for word, one in zip(named, status, strict=True)])
        counts = (f"{named.count(cells.plain(word))} of {word!r}" for word in competing)
        self.problems.append(Problem(
            "W-COMPETING", "other events preclude the event: Cox models are cause-specific, and 1 - Kaplan-Meier is "
            "too high a probability", where=f"column {name}", found=", ".join(counts),
            remedy="Read cumulative incidence and Gray's test in Table 11"))
        return cause

    def numbers(self, name: str, *, needed: bool = False) -> np.ndarray:
        """Floats; NaN where missing (an error if needed) or not a number (always an error)."""
        values, missing = np.full(len(self.ids), np.nan), []
        for row, cell in enumerate(self.texts(name)):
            number = cells.number_in(cell, decimal_comma=self.sheet.decimal_comma)
            if cells.is_missing(cell):
                missing.append(row)
            elif number is not None and np.isfinite(number):
                values[row] = number
            elif cells.looks_like_a_date(cell):
                self._complain("E-NUMBER", "a date stands where a number should", row, name, remedy=needed * (
                    "Name both columns of dates, cohort.start and cohort.end, instead of cohort.time"))
            else:
                self._complain("E-NUMBER", "not a number", row, name)
        if needed:
            for row in missing:
                self._complain("E-MISSING", "a value is missing that every patient needs", row, name)
        else:
            self._list_missing(name, missing)
        return values

    def levels(self, name: str, levels: tuple[str, ...]) -> np.ndarray:
        """Factor levels; a blank is the level Unknown where the factor has one, else NaN with a warning."""
        unknown = next((level for level in levels if level.lower() == "unknown"), None)
        spelled = {cells.plain(level): level for level in levels}
        values, missing = np.full(len(self.ids), None, dtype=object), []
        for row, cell in enumerate(self.texts(name)):
            if cells.plain(cell) in spelled:
                values[row] = spelled[cells.plain(cell)]
            elif cells.is_missing(cell):
                values[row] = unknown
                missing.append(row)
            else:
                self._complain("E-LEVEL", f"not a level of {name}", row, name, expected=", ".join(levels))
        if unknown is None:
            self._list_missing(name, missing)
        return values

    def flags(self, name: str) -> np.ndarray:
        """0/1 columns; yes and no are understood."""
        texts, values = self.texts(name), np.full(len(self.ids), np.nan)
        missing = [row for row, cell in enumerate(texts) if cells.is_missing(cell)]
        for row, cell in enumerate(texts):
            meant = cells.event_in(cell)
            if meant is not None:
                values[row] = meant
            elif not cells.is_missing(cell):
                self._complain("E-FLAG", "must be 0 or 1", row, name)
        self._list_missing(name, missing)
        return values

    def _list_missing(self, name: str, rows: list[int]) -> None:
        """One warning that names every patient without a value."""
        who = tuple(self.ids[row] for row in rows if self.ids[row])
        if rows and name in self.sheet.names:
            self.problems.append(Problem("W-MISSING", f"{len(rows)} values missing", where=f"column {name}",
                                         patients=who, remedy="Fill them in if they are known"))

    def _complain(self, code: str, what: str, row: int, column: str, *, expected: str = "", remedy: str = "") -> None:
        if row in self.sheet.ragged or column not in self.sheet.names:
            return  # said already, of the row or of the column
        id_, line = self.ids[row], self.sheet.lines[row]
        self.problems.append(Problem(
            code, what, where=column if id_ else f"line {line}: {column}", found=repr(self._raw(row, column)),
            expected=expected, remedy=remedy or REMEDIES[code], patients=(id_,) if id_ else ()))

    def _raw(self, row: int, column: str) -> str:
        cell = self.texts(column)[row]
        return cell if len(cell) <= 40 else cell[:39] + "\u2026"
