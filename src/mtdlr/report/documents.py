"""A table on paper: CSV, HTML, LaTeX, and Excel and Word where their writers are installed (extra `docs-out`)."""

from __future__ import annotations

import csv
import io
from html import escape
from importlib.util import find_spec
from pathlib import Path

from mtdlr.report.tables import Table
from mtdlr.spreadsheet import plain_cell

TEX = {"&": r"\&", "%": r"\%", "_": r"\_", "#": r"\#", "$": r"\$", "{": r"\{", "}": r"\}", "<": r"$<$", ">": r"$>$"}


def write_table(table: Table, folder: Path) -> list[Path]:
    """Write `table1.csv`, `.html`, `.tex` and, where possible, `.xlsx` and `.docx`; the paths written."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = folder / f"table{table.number}"
    texts = {".csv": to_csv(table), ".html": to_html(table), ".tex": to_latex(table)}
    for suffix, text in texts.items():
        stem.with_suffix(suffix).write_text(text, encoding="utf-8")
    written = [stem.with_suffix(suffix) for suffix in texts]
    if find_spec("openpyxl"):
        written.append(_write_excel(table, stem.with_suffix(".xlsx")))
    if find_spec("docx"):
        written.append(_write_word(table, stem.with_suffix(".docx")))
    return written


def to_csv(table: Table) -> str:
    """Comma-separated; a cell that a spreadsheet would run as a formula is quoted with an apostrophe."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerows([[plain_cell(cell) for cell in row] for row in (table.header, *table.rows)])
    return out.getvalue()


def to_html(table: Table) -> str:
    """A `<table>` with caption and footnotes; everything escaped."""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in table.header)
    body = "".join("<tr>" + "".join(_html_cell(cell, k) for k, cell in enumerate(row)) + "</tr>\n"
                   for row in table.rows)
    notes = "".join(f"<p class='note'>{escape(note)}</p>" for note in table.footnotes)
    return (f"<table id='table{table.number}'><caption>Table {table.number}. {escape(table.title)}</caption>\n"
            f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody></table>\n{notes}\n")


def to_latex(table: Table) -> str:
    """A booktabs table."""
    lines = [" & ".join(_tex(cell) for cell in row) + r" \\" for row in table.rows]
    head = " & ".join(_tex(cell) for cell in table.header) + r" \\"
    notes = "\n".join(f"\\par\\footnotesize {_tex(note)}" for note in table.footnotes)
    return "\n".join([r"\begin{table}", rf"\caption{{{_tex(table.title)}}}",
                      rf"\begin{{tabular}}{{l{'r' * (len(table.header) - 1)}}}", r"\toprule", head, r"\midrule",
                      *lines, r"\bottomrule", r"\end{tabular}", notes, r"\end{table}", ""])


def _html_cell(cell: str, column: int) -> str:
    indented = " class='level'" if column == 0 and cell.startswith("  ") else ""
    return f"<td{indented}>{escape(cell.strip())}</td>"


def _tex(cell: str) -> str:
    text = "".join(TEX.get(character, character) for character in cell)
    return r"\quad " + text.strip() if cell.startswith("  ") else text


def _write_excel(table: Table, path: Path) -> Path:
    from openpyxl import Workbook

    book = Workbook()
    sheet = book.active
    sheet.title = f"Table {table.number}"
    for row in (table.header, *table.rows):
        sheet.append([plain_cell(cell) for cell in row])
    for note in table.footnotes:
        sheet.append([plain_cell(note)])
    book.save(path)
    return path


def _write_word(table: Table, path: Path) -> Path:
    from docx import Document

    document = Document()
    document.add_paragraph(f"Table {table.number}. {table.title}")
    grid = document.add_table(rows=0, cols=len(table.header), style="Light List")
    for row in (table.header, *table.rows):
        for cell, text in zip(grid.add_row().cells, row, strict=True):
            cell.text = text
    for note in table.footnotes:
        document.add_paragraph(note)
    document.save(str(path))
    return path
