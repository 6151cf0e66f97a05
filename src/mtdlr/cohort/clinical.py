"""The clinical table: a CSV as hospitals write them -> one checked row a patient.

Every problem of the table is collected before anything is raised. What is only unusual is carried as a warning; what
would have to be guessed is an error.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd

from mtdlr.errors import Problem, TableError
from mtdlr.study import CohortSettings

MONTHS_PER = {"months": 1.0, "days": 12 / 365.25, "years": 12.0}
EVENT_ALIASES = {"yes": 1, "no": 0, "true": 1, "false": 0, "event": 1, "censored": 0, "progression": 1, "dead": 1,
                 "alive": 0}
REMEDIES = {
    "E-TIME": "Correct the cell", "E-EVENT": "Recode it: 0 censored, 1 event", "E-NUMBER": "Correct the cell",
    "E-MISSING": "Fill it in, or remove the row", "E-LEVEL": "Correct the cell, or add the level to cohort.factors",
    "E-FLAG": "Recode it: 0 or 1",
}  # fmt: skip
MISSING = {"", "na", "n/a", "nan", "null", "none", "."}
DATE = re.compile(r"\d{4}-\d{1,2}-\d{1,2}|\d{1,2}[./-]\d{1,2}[./-]\d{2,4}|\d{1,2}-[A-Za-z]{3}(-\d{2,4})?")
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def read_clinical(settings: CohortSettings) -> tuple[pd.DataFrame, list[Problem]]:
    """The table indexed by patient id, and everything that is wrong with it.

    Returns:
        The table with columns time_months (float), event (bool), center (str), the split column if one is given,
        every continuous column (float, NaN where missing), factor (str or NaN) and described column (0/1 or NaN);
        and problems, errors among them (the rows they name hold NaN).

    Raises:
        TableError: when there is no table to speak of: E-NOTABLE, E-ENCODING, E-HEADER, E-COLUMN.
    """
    raw = read_csv_text(settings.table)
    _require_columns(raw, settings)
    ids = raw[settings.id].str.strip()
    problems = _check_ids(ids)
    table = pd.DataFrame(index=pd.Index(ids, name="patient_id"))
    checks = _Columns(raw, ids, problems)
    table["time_months"] = checks.times(settings)
    table["event"] = checks.events(settings.event)
    table["center"] = raw[settings.center].str.strip().to_numpy() if settings.center else "all"
    if settings.split == "given":
        table[settings.split_column] = raw[settings.split_column].str.strip().str.lower().to_numpy()
    for name in settings.continuous:
        table[name] = checks.numbers(name)
    for name, levels in settings.factors.items():
        table[name] = checks.levels(name, levels)
    for name in settings.described:
        table[name] = checks.flags(name)
    return table, problems + implausible(table)


def read_csv_text(path: Path) -> pd.DataFrame:
    """A CSV as text cells: BOM, `;` or tab and decimal commas understood; duplicate headers refused."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except (FileNotFoundError, IsADirectoryError):
        raise TableError(Problem("E-NOTABLE", "there is no such table", where=str(path))) from None
    except UnicodeDecodeError:
        raise TableError(Problem("E-ENCODING", "the table is not UTF-8 text", where=path.name,
                                 remedy="Save it as 'CSV UTF-8'; an .xlsx must be exported first")) from None
    header = text.splitlines()[0] if text.strip() else ""
    delimiter = max(",;\t", key=header.count)
    rows = [row for row in csv.reader(io.StringIO(text), delimiter=delimiter) if any(cell.strip() for cell in row)]
    if len(rows) < 2:
        raise TableError(Problem("E-NOTABLE", "the table has no rows", where=path.name))
    names = [name.strip() for name in rows[0]]
    twice = [name for name, n in Counter(names).items() if n > 1]
    if twice:
        raise TableError(Problem("E-HEADER", "columns of the same name", where=path.name, found=", ".join(twice)))
    ragged = [n for n, row in enumerate(rows[1:], start=2) if len(row) != len(names)]
    if ragged:
        raise TableError(Problem("E-ROWLENGTH", "a row has more or fewer cells than the header", where=path.name,
                                 found=f"line {ragged[0]}", expected=f"{len(names)} cells"))
    table = pd.DataFrame(rows[1:], columns=names, dtype=str)
    return table.map(lambda cell: re.sub(r"^([+-]?\d+),(\d+)$", r"\1.\2", cell)) if delimiter == ";" else table


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


def _require_columns(raw: pd.DataFrame, settings: CohortSettings) -> None:
    """Every column that a setting names is there."""
    wanted = [settings.id, settings.time, settings.event, *settings.continuous, *settings.factors,
              *settings.described, settings.stage]
    wanted += [settings.center] if settings.center else []
    wanted += [settings.split_column] if settings.split == "given" else []
    missing = [name for name in dict.fromkeys(wanted) if name not in raw.columns]
    if missing:
        raise TableError(Problem("E-COLUMN", "the table lacks columns that the study file names",
                                 where=settings.table.name, found=", ".join(missing),
                                 expected="among " + ", ".join(map(str, raw.columns))))
    if settings.stage not in settings.factors:
        raise TableError(Problem("E-STAGE", "the stage must be one of cohort.factors", where="cohort.stage",
                                 found=settings.stage, remedy="Add it there with its levels"))


def _check_ids(ids: pd.Series) -> list[Problem]:
    problems = [Problem("E-NOID", "a row has no patient id", where=f"row {n + 2}", remedy="Fill it in")
                for n in np.flatnonzero(ids == "")]
    return problems + [Problem("E-DUPLICATE", "the same patient id stands in several rows", patients=(i,),
                               found=f"{n} rows", expected="one", remedy="Keep one of them")
                       for i, n in Counter(ids).items() if n > 1 and i]


class _Columns:
    """The raw table while its columns are checked; complaints gather in `problems`."""

    def __init__(self, raw: pd.DataFrame, ids: pd.Series, problems: list[Problem]) -> None:
        self.raw, self.ids, self.problems = raw, ids, problems

    def times(self, settings: CohortSettings) -> np.ndarray:
        """Months; NaN where the entry is an error."""
        months = self.numbers(settings.time, needed=True) * MONTHS_PER[settings.time_unit]
        for row in np.flatnonzero(months < 1e-3).tolist():
            self._complain("E-TIME", "follow-up time must be positive", row, settings.time)
        known = months[months > 0]
        if known.size and np.median(known) > 300:
            self.problems.append(Problem(
                "W-UNIT", f"median follow-up is {np.median(known):.0f} months: are these days?",
                where=f"column {settings.time}", remedy='Set cohort.time_unit = "days"'))
        return np.where(months >= 1e-3, months, np.nan)

    def events(self, name: str) -> np.ndarray:
        """0, 1 or NaN; usual words for them are understood, with one warning."""
        status, words = np.full(len(self.raw), np.nan), set()
        for row, cell in enumerate(self.raw[name].str.strip()):
            if cell.lower() in EVENT_ALIASES:
                words.add(cell)
                status[row] = EVENT_ALIASES[cell.lower()]
            elif NUMBER.fullmatch(cell) and float(cell) in (0.0, 1.0):
                status[row] = float(cell)
            else:
                self._complain("E-EVENT", "event status must be 1 (event) or 0 (censored)", row, name)
        if words:
            self.problems.append(Problem("W-EVENTWORD", "event status given in words", where=f"column {name}",
                                         found=", ".join(sorted(words)),
                                         remedy="Check that they were understood"))
        return status

    def numbers(self, name: str, *, needed: bool = False) -> np.ndarray:
        """Floats; NaN where missing (an error if needed) or not a number (always an error)."""
        values, missing = np.full(len(self.raw), np.nan), []
        for row, cell in enumerate(self.raw[name].str.strip()):
            if cell.lower() in MISSING:
                missing.append(row)
            elif NUMBER.fullmatch(cell) and np.isfinite(float(cell)):
                values[row] = float(cell)
            else:
                what = "a date stands where a number should" if DATE.fullmatch(cell) else "not a number"
                self._complain("E-NUMBER", what, row, name)
        if needed:
            for row in missing:
                self._complain("E-MISSING", "a value is missing that every patient needs", row, name)
        else:
            self._list_missing(name, missing)
        return values

    def levels(self, name: str, levels: tuple[str, ...]) -> np.ndarray:
        """Factor levels; a blank is the level Unknown where the factor has one, else NaN with a warning."""
        unknown = next((level for level in levels if level.lower() == "unknown"), None)
        spelled = {level.lower(): level for level in levels}
        values, missing = np.full(len(self.raw), None, dtype=object), []
        for row, cell in enumerate(self.raw[name].str.strip()):
            if cell.lower() in spelled:
                values[row] = spelled[cell.lower()]
            elif cell.lower() in MISSING:
                values[row] = unknown
                missing.append(row)
            else:
                self._complain("E-LEVEL", f"not a level of {name}", row, name, expected=", ".join(levels))
        if unknown is None:
            self._list_missing(name, missing)
        return values

    def flags(self, name: str) -> np.ndarray:
        """0/1 columns."""
        values = self.numbers(name)
        for row in np.flatnonzero(np.isfinite(values) & ~np.isin(values, (0, 1))).tolist():
            self._complain("E-FLAG", "must be 0 or 1", row, name)
        return values

    def _list_missing(self, name: str, rows: list[int]) -> None:
        """One warning that names every patient without a value."""
        if rows:
            self.problems.append(Problem("W-MISSING", f"{len(rows)} values missing", where=f"column {name}",
                                         found=", ".join(self.ids.iloc[rows]),
                                         remedy="Fill them in if they are known"))

    def _complain(self, code: str, what: str, row: int, column: str, *, expected: str = "") -> None:
        self.problems.append(Problem(code, what, where=column, patients=(self.ids.iloc[row],),
                                     found=repr(self.raw[column].iloc[row]), expected=expected,
                                     remedy=REMEDIES[code]))
