"""Tables that people keep in a spreadsheet: CSV of any dialect and .xlsx in, CSV out that runs no formula; and tables
as a notebook shows them.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
import zipfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtdlr.errors import Problem, TableError

if TYPE_CHECKING:
    import pandas as pd

FORMULA = ("=", "+", "-", "@", "\t", "\r")
NUMBER = re.compile(r"[+-]?[\d.]*( \([-\d. to>]+\))?")
_FLOAT = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?(inf|nan)")
_DELIMITERS = ",;\t|"
_LARGEST_BYTES = 1 << 28
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_SAVE = "Save it as 'CSV UTF-8' or as .xlsx"


@dataclass(frozen=True)
class Sheet:
    """A table as text.

    Args:
        names: the header, stripped; a name that stands twice has its column in brackets the second time.
        rows: cells as text, stripped, as many as there are names.
        lines: the line of the file (the row of the workbook) that each row stands in; the header is line 1.
        ragged: places in `rows` of those that had more or fewer cells than the header.
        decimal_comma: whether 1,5 can only mean one and a half, because commas do not separate cells.
        problems: E-HEADER, E-ROWLENGTH, W-ENCODING, W-SHEETS.
    """

    names: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    lines: tuple[int, ...]
    ragged: frozenset[int] = frozenset()
    decimal_comma: bool = False
    problems: tuple[Problem, ...] = ()


def read_sheet(path: Path) -> Sheet:
    """A CSV or .xlsx as text cells.

    BOM, UTF-16, Windows-1252 and GB18030; comma, semicolon, tab or bar; line ends of any system; the first sheet of a
    workbook. An apostrophe that keeps a cell from being a formula is taken off.

    Raises:
        TableError: E-NOTABLE (missing, unreadable or without rows), E-ENCODING (no text), E-CSV, E-EXTRA (.xlsx
            without openpyxl).
    """
    try:
        if path.exists() and not path.is_file():  # a pipe never ends
            raise OSError
        with path.open("rb") as stream:
            data = stream.read(_LARGEST_BYTES + 1)
    except (OSError, ValueError):
        raise TableError(Problem("E-NOTABLE", "there is no such table", where=path.name,
                                 remedy="Check the path, and whether you may read it")) from None
    if len(data) > _LARGEST_BYTES:
        raise _no_text(path, "more than 256 MB")
    if data[:4] == b"PK\x03\x04":
        rows, problems = _workbook(path, data)
        comma = True
    else:
        text, problems = _decoded(path, data)
        rows, comma = _separated(path, text)
    return _sheet(path, [(n, row) for n, row in rows if any(row)], comma, problems)


def csv_text(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A CSV; a cell that a spreadsheet would run as a formula gets an apostrophe in front.

    Args:
        header: names of the columns.
        rows: one value a column; None is an empty cell.

    >>> csv_text(["id", "value"], [["=cmd", -1.5]])
    "id,value\\n'=cmd,-1.5\\n"
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerows([[_plain(cell) for cell in row] for row in (header, *rows)])
    return out.getvalue()


def frame_csv(frame: pd.DataFrame) -> str:
    """A data frame with its index as `csv_text` writes it; numbers keep all digits."""
    shown = frame.map(_plain)
    shown.index = shown.index.map(_plain)
    shown.columns = shown.columns.map(_plain)
    return str(shown.to_csv(index_label=None if frame.index.name is None else str(frame.index.name)))


def plain_cell(cell: str) -> str:
    """The cell, or with an apostrophe in front where a spreadsheet would take it for a formula.

    >>> plain_cell("=cmd"), plain_cell("-"), plain_cell("1.5 (1.2-1.9)"), plain_cell("-1e-5")
    ("'=cmd", '-', '1.5 (1.2-1.9)', '-1e-5')
    """
    return f"'{cell}" if cell.startswith(FORMULA) and not (NUMBER.fullmatch(cell) or _FLOAT.fullmatch(cell)) else cell


def _plain(cell: Any) -> Any:
    return plain_cell(cell).replace("\r", " ") if isinstance(cell, str) else cell


def _decoded(path: Path, data: bytes) -> tuple[str, list[Problem]]:
    """(the text, W-ENCODING where it is not in Unicode)."""
    try:
        if data[:2] in _UTF16:
            return data.decode("utf-16"), []
        text = data.decode("utf-8-sig")
        if "\0" in text:
            raise _no_text(path)
        return text, []
    except UnicodeDecodeError:
        pass
    encoding = "GB18030" if _is_chinese(data) else "Windows-1252"
    try:
        if b"\0" in data or data[:2] in _UTF16:
            raise UnicodeError
        text = data.decode(encoding)
    except UnicodeError:
        raise _no_text(path) from None
    return text, [Problem("W-ENCODING", f"the table is not UTF-8 and was read as {encoding}", where=path.name,
                          remedy="Look whether letters with accents came out right; if not, save it as 'CSV UTF-8'")]


def _is_chinese(data: bytes) -> bool:
    """Whether every letter beyond ASCII is a pair of bytes as the common ones of GB2312 are; accents of Europe stand
    alone, and those of small letters begin no common pair."""
    runs = re.findall(rb"[\x80-\xff]+", data)
    leads = {lead for run in runs for lead in run[::2]}
    paired = all(len(run) % 2 == 0 and min(run) >= 0xA1 for run in runs)
    return paired and all(lead <= 0xA3 or 0xB0 <= lead <= 0xD7 for lead in leads)


def _separated(path: Path, text: str) -> tuple[list[tuple[int, list[str]]], bool]:
    """((line, cells) of each row, whether a comma can only be a decimal comma)."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    header = next((line for line in text.split("\n") if line.strip()), "")
    delimiter = max(_DELIMITERS, key=header.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        return [(reader.line_num, [_cell(cell) for cell in row]) for row in reader], delimiter != ","
    except csv.Error:
        raise TableError(Problem("E-CSV", "the table cannot be read as CSV", where=path.name,
                                 found=f"line {reader.line_num}: a quotation mark that is never closed, or a cell of "
                                       "more than 131,072 letters", remedy="Correct the line")) from None


def _cell(cell: str) -> str:
    cell = cell.replace("\u00a0", " ").strip()
    return cell[1:] if cell[:1] == "'" and cell[1:].startswith(FORMULA) else cell


def _workbook(path: Path, data: bytes) -> tuple[list[tuple[int, list[str]]], list[Problem]]:
    """The rows of a workbook's first sheet that holds any, as text."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as parts:
            is_workbook = "xl/workbook.xml" in parts.namelist()
            if sum(part.file_size for part in parts.infolist()) > 4 * _LARGEST_BYTES:
                is_workbook = False
    except (zipfile.BadZipFile, ValueError, OSError, EOFError):
        is_workbook = False
    if not is_workbook:
        raise _no_text(path)
    if find_spec("openpyxl") is None:
        raise TableError(Problem("E-EXTRA", "reading .xlsx needs openpyxl", where=path.name,
                                 remedy="pip install 'mtdlr[docs-out]', or save the table as 'CSV UTF-8'"))
    import openpyxl

    try:
        book = openpyxl.load_workbook(io.BytesIO(data), read_only=True, data_only=True)
        sheets = [[(n, [_written(cell) for cell in row]) for n, row in enumerate(sheet.iter_rows(values_only=True), 1)]
                  for sheet in book.worksheets]
    except Exception:  # a damaged workbook can raise anything inside the reader
        raise _no_text(path) from None
    filled = [rows for rows in sheets if any(any(row) for _, row in rows)]
    told = [Problem("W-SHEETS", "the workbook has several sheets; the first was read", where=path.name,
                    found=f"{len(filled)} sheets", remedy="Nothing, if that is right")] if len(filled) > 1 else []
    return (filled[0] if filled else []), told


def _written(value: object) -> str:
    """A workbook's cell as a CSV would hold it."""
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.date().isoformat() if value.time() == datetime.min.time() else value.isoformat(" ")
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return _cell(str(value))


def _sheet(path: Path, rows: list[tuple[int, list[str]]], comma: bool, problems: list[Problem]) -> Sheet:
    """The table with every row as long as its header."""
    if len(rows) < 2:
        raise TableError(Problem("E-NOTABLE", "the table has no rows", where=path.name))
    header = rows[0][1]
    while header and not header[-1] and all(len(row) < len(header) or not row[len(header) - 1] for _, row in rows):
        header = header[:-1]
    twice = [name for name, n in Counter(header).items() if n > 1 and name]
    if twice:
        problems.append(Problem("E-HEADER", "columns of the same name", where=path.name, found=", ".join(twice),
                                remedy="Rename or remove one of them"))
    names = [name if header.index(name) == k else f"{name} ({k + 1})" for k, name in enumerate(header)]
    width, lines, cut, ragged = len(names), [], [], set()
    for k, (line, row) in enumerate(rows[1:]):
        if len(row) < width or any(row[width:]):
            ragged.add(k)
            problems.append(Problem("E-ROWLENGTH", "a row has more or fewer cells than the header",
                                    where=f"{path.name}: line {line}", found=f"{len(row)} cells",
                                    expected=f"{width} cells", remedy="Put cells that hold the separator in quotes"))
        lines.append(line)
        cut.append(tuple([*row, *[""] * width][:width]))
    return Sheet(tuple(names), tuple(cut), tuple(lines), frozenset(ragged), comma, tuple(problems))


def _no_text(path: Path, found: str = "") -> TableError:
    return TableError(Problem("E-ENCODING", "the table is neither text nor an .xlsx workbook", where=path.name,
                              found=found, remedy=_SAVE))


def frame_of(rows: Iterable[Sequence[Any]], *, columns: Sequence[str], index: Sequence[str]) -> pd.DataFrame:
    """A table of plain rows; pandas is loaded here, where a table is asked for.

    Args:
        rows: as many values each as there are columns.
        columns: their names.
        index: a name for each row.
    """
    import pandas as pd

    return pd.DataFrame(list(rows), columns=list(columns), index=list(index))


def notebook_table(title: str, frame: pd.DataFrame) -> str:
    """A table as HTML with a line above it, for `_repr_html_`.

    Args:
        title: the line above.
        frame: the table; numbers get four digits.
    """
    return f"<p>{escape(title)}</p>{frame.to_html(float_format='{:.4g}'.format, border=0, na_rep='')}"
