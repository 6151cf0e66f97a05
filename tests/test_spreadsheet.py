"""Tables as spreadsheets write them, in and out."""

from __future__ import annotations

import csv
import subprocess
import sys
from io import BytesIO, StringIO
from pathlib import Path

import pandas as pd
import pytest

from mtdlr.errors import TableError
from mtdlr.spreadsheet import csv_text, frame_csv, plain_cell, read_sheet

WORDS = (("Patient", "Größe", "Herkunft"), ("A-1", "1,5", "Köln"), ("B-2", "2,25", "Gießen"))


def _file(folder: Path, data: bytes | str, name: str = "table.csv") -> Path:
    path = folder / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def _lines(rows: tuple[tuple[str, ...], ...], delimiter: str = ";", end: str = "\r\n") -> str:
    return end.join(delimiter.join(row) for row in rows) + end


@pytest.mark.parametrize("data", [
    _lines(WORDS).encode("cp1252"), _lines(WORDS).encode("utf-8-sig"), _lines(WORDS).encode("utf-16"),
    _lines(WORDS, "\t", "\r").encode("cp1252"), _lines(WORDS, "|", "\n").encode(),
])
def test_every_dialect_reads_the_same(tmp_path: Path, data: bytes) -> None:
    """Semicolons, tabs and bars, three line ends, UTF-8, UTF-16 and Windows-1252 give the same cells."""
    sheet = read_sheet(_file(tmp_path, data))
    assert (sheet.names, *sheet.rows) == WORDS and sheet.decimal_comma and sheet.lines == (2, 3)
    assert {p.code for p in sheet.problems} <= {"W-ENCODING"}


def test_what_is_not_unicode_is_said(tmp_path: Path) -> None:
    """Windows-1252 and GB18030 are told apart by how their letters stand together, and the guess is a warning."""
    for text, encoding, shown in (("id,Größe\n1,2\n", "cp1252", "Windows-1252"),
                                  ("编号,分期\n1,晚期\n", "gb18030", "GB18030")):
        sheet = read_sheet(_file(tmp_path, text.encode(encoding)))
        assert sheet.names == tuple(text.split("\n")[0].split(","))
        (problem,) = sheet.problems
        assert problem.code == "W-ENCODING" and shown in problem.what


def test_a_workbook_reads_like_its_csv(tmp_path: Path) -> None:
    """An .xlsx gives texts as a CSV would: dates as year-month-day, whole numbers without a point, the first sheet."""
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    book.active.append(["id", "seen", "n", "x"])
    book.active.append(["P1", pd.Timestamp("2020-03-04").to_pydatetime(), 12.0, 0.1])
    book.active.append([None, None, None, None])
    book.active.append(["'=P2", "04.03.2020", None, "1,5"])
    book.create_sheet("notes").append(["x"])
    stream = BytesIO()
    book.save(stream)
    sheet = read_sheet(_file(tmp_path, stream.getvalue(), "t.xlsx"))
    assert sheet.rows == (("P1", "2020-03-04", "12", "0.1"), ("=P2", "04.03.2020", "", "1,5"))
    assert sheet.lines == (2, 4) and [p.code for p in sheet.problems] == ["W-SHEETS"]


def test_a_workbook_without_its_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without openpyxl one line names the extra that reads .xlsx."""
    openpyxl = pytest.importorskip("openpyxl")
    stream = BytesIO()
    openpyxl.Workbook().save(stream)
    monkeypatch.setattr("mtdlr.spreadsheet.find_spec", lambda _: None)
    with pytest.raises(TableError, match=r"E-EXTRA.*mtdlr\[docs-out\]"):
        read_sheet(_file(tmp_path, stream.getvalue(), "t.xlsx"))


@pytest.mark.parametrize(("data", "code"), [
    (b"", "E-NOTABLE"), (b"a,b\n", "E-NOTABLE"), (b"\xd0\xcf\x11\xe0 old excel\0", "E-ENCODING"),
    (b"PK\x03\x04 no workbook", "E-ENCODING"), (b"a,b\n1,\0\n", "E-ENCODING"), (b"\xff\xfea", "E-ENCODING"),
    (b"a,b\n1," + b"x" * 140_000 + b"\n", "E-CSV"), (b'a,b\n1,"' + b"never closed," * 12_000, "E-CSV"),
])
def test_what_is_no_table_is_one_typed_error(tmp_path: Path, data: bytes, code: str) -> None:
    """Nothing that a file can hold leaves the reader as anything but a TableError."""
    with pytest.raises(TableError, match=code) as caught:
        read_sheet(_file(tmp_path, data))
    assert str(tmp_path) not in str(caught.value)


def test_a_row_of_another_length_keeps_its_line(tmp_path: Path) -> None:
    """Cells too many or too few are an error with the line; empty cells at the end are none; twin names are told."""
    sheet = read_sheet(_file(tmp_path, "a,b,b\n1,2,3,,\n\n4,5\n6,7,8,9\n"))
    assert [(p.code, p.where) for p in sheet.problems] == [
        ("E-HEADER", "table.csv"), ("E-ROWLENGTH", "table.csv: line 4"), ("E-ROWLENGTH", "table.csv: line 5")]
    assert sheet.names == ("a", "b", "b (3)") and sheet.ragged == {1, 2} and sheet.lines == (2, 4, 5)


@pytest.mark.parametrize("cell", ["=cmd|' /C calc'!A0", "+1+1", "-1+1", "@SUM(A1)", "\tx", "\rx"])
def test_no_cell_starts_a_formula(tmp_path: Path, cell: str) -> None:
    """FAULTS 59: a formula gets an apostrophe in every CSV, in cells, ids and column names; reading takes it off."""
    frame = pd.DataFrame({cell: [cell, "x"], "n": [-1.5, float("nan")]}, index=pd.Index([cell, "b"], name="id"))
    for text in (frame_csv(frame), csv_text(["id", cell, "n"], [[cell, cell, -1.5], ["b", "x", ""]])):
        rows = list(csv.reader(StringIO(text)))
        shown = f"'{cell}".replace("\r", " ")  # no reader takes a line end inside a cell without quotes
        assert rows[0] == ["id", shown, "n"] and rows[1] == [shown, shown, "-1.5"]
    sheet = read_sheet(_file(tmp_path, frame_csv(frame)))
    assert sheet.rows[0][0] == cell.strip() or cell[0] in "\t\r"


def test_numbers_are_left_alone() -> None:
    """Negative numbers, also with an exponent, and a dash are no formulas; digits are kept."""
    assert [plain_cell(c) for c in ("-1", "-1.5e-7", "+3", "-", "-0.5 (-1.0-0.2)")] == [
        "-1", "-1.5e-7", "+3", "-", "-0.5 (-1.0-0.2)"]
    frame = pd.DataFrame({"x": [-0.1, 1e-17]}, index=pd.Index(["a", "b"], name="id"))
    assert frame_csv(frame) == frame.to_csv()


def test_the_reader_needs_no_pandas() -> None:
    """Reading a table costs no import of pandas or openpyxl until it is needed."""
    code = "import sys, mtdlr.spreadsheet; print('pandas' in sys.modules, 'openpyxl' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                          check=True).stdout.split() == ["False"] * 2
