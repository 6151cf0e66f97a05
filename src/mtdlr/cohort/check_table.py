"""What `mtdlr check` found, as a data manager reads it: one table, the same trouble of many patients in one row."""

from __future__ import annotations

import csv
import re
import textwrap
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from typing import Any

from mtdlr.cohort.check import Checked
from mtdlr.errors import Problem
from mtdlr.spreadsheet import plain_cell

_SHOWN = 6  # ids named in one row
_VALUES = 3  # different findings named in one row
_LEFT_OUT = 24  # ids named below the table
_NUMBER = re.compile(r"(?<![\w.,-])-?\d+(?:\.\d+)?(?![\w]|\.\d)")
_LINE = re.compile(r"(^|: )line \d+(?=:|$)")
_CODE, _WHO = 14, 24
_GAP = "  "


@dataclass(frozen=True)
class Row:
    """The same problem of one or more patients."""

    code: str
    patients: tuple[str, ...]
    place: str
    what: str
    remedy: str


def rows_of(problems: Sequence[Problem]) -> list[Row]:
    """Problems of one code, place and remedy joined: errors first, the whole study before single patients.

    Where patients differ in a number, its range is given; where they differ in words, the commonest.
    """
    joined: dict[tuple[str, ...], list[Problem]] = defaultdict(list)
    for problem in problems:
        role, tag = _role_and_tag(problem.place)
        remedy = problem.remedy or ("" if problem.is_error else "Nothing, if that is right")
        joined[problem.code, role, tag, _NUMBER.sub("#", problem.what), remedy].append(problem)
    rows = []
    for (code, role, tag, _, remedy), same in joined.items():
        what = f"{tag}: " * bool(tag) + _spread([p.what for p in same])
        for word, values in (("found", [p.found for p in same if p.found]),
                             ("expected", [p.expected for p in same if p.expected])):
            what += f"; {word} {_spread(values)}" if values else ""
        patients = tuple(dict.fromkeys(i for p in same for i in p.patients))
        rows.append(Row(code, patients, role, " ".join(what.split()), remedy))
    return sorted(rows, key=lambda row: (not row.code.startswith("E-"), bool(row.patients), row.code))


def _role_and_tag(place: str) -> tuple[str, str]:
    """("PET", "PatientWeight (0010,1030)") of "PET: PatientWeight (0010,1030)"; lines of a table are the role's."""
    role, _, tag = place.rpartition(": ") if ": " in place else (place, "", "")
    return _LINE.sub("", role).strip(": "), tag


def _spread(texts: Sequence[str]) -> str:
    """Texts that differ in numbers only as one with ranges, others as a list of the commonest.

    >>> _spread(["60 min", "71.5 min"]), _spread(["'V'", "'X'", "'V'"])
    ('60 to 71.5 min', "'V' (2), 'X'")
    """
    counts = Counter(texts)
    if len(counts) == 1:
        return texts[0]
    if len({_NUMBER.sub("#", text) for text in counts}) == 1 and not texts[0].startswith("'"):
        columns = iter(zip(*(_NUMBER.findall(text) for text in counts), strict=True))
        return _NUMBER.sub(lambda _: _range(next(columns)), texts[0])
    shown = [f"{text} ({n})" if n > 1 else text for text, n in counts.most_common(_VALUES)]
    more = len(counts) - _VALUES
    return ", ".join(shown) + (f" and {more} others" if more > 0 else "")


def _range(numbers: Sequence[str]) -> str:
    low, high = min(numbers, key=float), max(numbers, key=float)
    return low if low == high else f"{low} to {high}"


def as_text(checked: Checked, *, width: int = 120) -> str:
    """The table for a terminal, and who can be used.

    Args:
        checked: what the check found.
        width: characters of a line; at least 80 are taken.
    """
    if not checked.problems:
        assert checked.usable, "somebody left out without a word"
        return f"nothing is wrong; {_count(len(checked.usable), 'patient')} can be used"
    width = max(width, 80)
    left = width - _CODE - _WHO - 3 * len(_GAP)
    widths = (_CODE, _WHO, left * 3 // 5, left - left * 3 // 5)
    lines = [_line(("CODE", "WHO, WHERE", "WHAT IS WRONG", "WHAT TO DO"), widths), "-" * width]
    for row in rows_of(checked.problems):
        who = "\n".join(filter(None, (_names(row.patients), row.place))) or "the whole study"
        lines.append(_line((row.code, who, row.what, row.remedy), widths))
    return "\n".join([*lines, "-" * width, *textwrap.wrap(_summary(checked), width)])


def as_csv(checked: Checked) -> str:
    """One line a problem and patient, to sort and tick off; no cell starts a formula."""
    out = StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(("patient", "code", "kind", "where", "what", "found", "expected", "what to do"))
    for problem in checked.problems:
        patients, place = problem.patients, problem.place
        kind = "error" if problem.is_error else "warning"
        cells = (", ".join(patients), problem.code, kind, place, problem.what, problem.found, problem.expected,
                 problem.remedy)
        writer.writerow([plain_cell(" ".join(cell.split())) for cell in cells])
    return out.getvalue()


def scans_text(checked: Checked, *, width: int = 120) -> str:
    """For each patient which series were taken and why, and what the SUV rests on.

    Args:
        checked: what the check found.
        width: characters of a line; at least 80 are taken.
    """
    lines = []
    for patient, audit in checked.audits.items():
        told = [str(audit.get("choice") or f"{audit.get('layout', 'unreadable')} files, taken as given")]
        told = [part for text in told for part in text.split("; ")]
        told.append(f"SUV: {suv_line(audit)}")
        told.append("mask: yes" if audit.get("mask") else "mask: none")
        lines += [f"{patient}:"] + [wrapped for text in told for wrapped in
                                    textwrap.wrap(text, max(width, 80), initial_indent="  ", subsequent_indent="    ")]
    return "\n".join(lines)


def suv_line(audit: Mapping[str, Any]) -> str:
    """What a PET's SUV rests on, in one line."""
    suv = (audit.get("pet") or {}).get("suv")
    if suv is None:
        return "taken as given" if audit.get("pet") else "not to be had, see the errors"
    facts = [str(suv.get("units_used") or suv.get("units") or "units unknown")]
    facts += [f"{suv['weight_kg']:g} kg"] if "weight_kg" in suv else []
    facts += [f"{suv['dose_bq'] / 1e6:.4g} MBq"] if "dose_bq" in suv else []
    facts += [f"{suv['uptake_min']:.0f} min uptake"] if "uptake_min" in suv else []
    facts += [f"decay reference from {suv['reference_from']}"] if "reference_from" in suv else []
    facts += [str(suv["method"])] if "method" in suv and "reference_from" not in suv else []
    return ", ".join(facts)


def _count(n: int, word: str) -> str:
    return f"{n} {word}" if n == 1 else f"{n} {word}s"


def _names(patients: Sequence[str]) -> str:
    """`P1, P2 and 7 more`."""
    more = len(patients) - _SHOWN
    return ", ".join(patients[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    """Cells side by side, each wrapped into its column."""
    columns = [[line for part in cell.split("\n") for line in textwrap.wrap(part, width)] or [""]
               for cell, width in zip(cells, widths, strict=True)]
    height = max(map(len, columns))
    padded = [[*column, *[""] * (height - len(column))] for column in columns]
    return "\n".join(_GAP.join(f"{text:<{width}}" for text, width in zip(parts, widths, strict=True)).rstrip()
                     for parts in zip(*padded, strict=True))


def _summary(checked: Checked) -> str:
    """How many errors and warnings, and how many patients remain."""
    errors = sum(problem.is_error for problem in checked.problems)
    counts = ", ".join(_count(n, word) for n, word in ((errors, "error"), (len(checked.problems) - errors, "warning")))
    text = f"{counts}; {_count(len(checked.usable), 'patient')} can be used"
    wrong = sorted({patient for p in checked.problems if p.is_error for patient in p.patients})
    more = f" and {len(wrong) - _LEFT_OUT} more" if len(wrong) > _LEFT_OUT else ""
    return text + (f", not {', '.join(wrong[:_LEFT_OUT])}{more}" if wrong else "")
