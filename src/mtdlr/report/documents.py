"""A table on paper: CSV, HTML, LaTeX, and Excel and Word where their writers are installed (extra `docs-out`)."""

from __future__ import annotations

import csv
import io
import re
import zipfile
from collections.abc import Sequence
from datetime import datetime
from html import escape
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mtdlr.report.tables import Table
from mtdlr.spreadsheet import plain_cell

_ESTIMATE = re.compile(r"^[-+]?[\d.]+ \([^()]*\)|P &lt;[\d.]+|P [\d.]+")
PAGE_MM = 261.0
"""Width of the text of a landscape A4 page."""
LONGEST = 44
"""Letters beyond which a column gets no wider, and its text breaks."""
EPOCH = datetime(2000, 1, 1)
"""The time of writing that documents hold, so that equal documents are equal files."""
TEX = {"&": r"\&", "%": r"\%", "_": r"\_", "#": r"\#", "$": r"\$", "{": r"\{", "}": r"\}", "<": r"$<$", ">": r"$>$"}


def write_table(table: Table, folder: Path) -> list[Path]:
    """Write `table1.csv`, `.html`, `.tex` and, where possible, `.xlsx` and `.docx`; the paths written.

    Args:
        table: the table.
        folder: where the files go; made if missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stem = folder / f"table{table.number}"
    texts = {".csv": to_csv(table), ".html": to_html(table), ".tex": to_latex(table)}
    for suffix, text in texts.items():
        stem.with_suffix(suffix).write_text(text, encoding="utf-8")
    written = [stem.with_suffix(suffix) for suffix in texts]
    if find_spec("openpyxl"):
        written.append(_write_excel(table, stem.with_suffix(".xlsx")))
    if find_spec("docx"):
        written.append(write_word([table], stem.with_suffix(".docx")))
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
    name = f"Table {table.number}. " if table.number else ""
    return (f"<table id='table{table.number or table.title}'><caption>{name}{escape(table.title)}</caption>\n"
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
    text = _ESTIMATE.sub(r"<span class='n'>\g<0></span>", escape(cell.strip()))  # no line ends inside an interval
    return f"<td{indented}>{text}</td>"


def _tex(cell: str) -> str:
    text = "".join(TEX.get(character, character) for character in cell)
    return r"\quad " + text.strip() if cell.startswith("  ") else text


def _write_excel(table: Table, path: Path) -> Path:
    """A sheet with a bold frozen header, cells wrapped in columns of a readable width, notes below."""
    from openpyxl import Workbook
    from openpyxl.styles import Alignment, Border, Font, Side
    from openpyxl.utils import get_column_letter

    book = Workbook()
    sheet = book.active
    sheet.title = f"Table {table.number}"
    for row in (table.header, *table.rows):
        sheet.append([plain_cell(cell) for cell in row])
    for cell in sheet[1]:
        cell.font, cell.border = Font(bold=True), Border(bottom=Side("thin"))
        cell.alignment = Alignment(wrap_text=True, vertical="top")
    sheet.freeze_panes = "B2"
    for k in range(len(table.header)):
        longest = max(len(row[k]) for row in (*table.rows, ("",) * len(table.header)))
        sheet.column_dimensions[get_column_letter(k + 1)].width = min(max(longest, 10) + 2, 48)
    for note in table.footnotes:
        sheet.append([plain_cell(note)])
        sheet.cell(sheet.max_row, 1).font = Font(italic=True, size=9)
    book.properties.created = book.properties.modified = EPOCH
    book.save(path)
    return _without_times(path)


def write_word(tables: Sequence[Table], path: Path, *, heading: str = "") -> Path:
    """All tables in one Word file, landscape, three-line tables whose header repeats on every page.

    Args:
        tables: in the order of print; one without a number has its title alone.
        path: the .docx to write.
        heading: printed first; nothing if empty.
    """
    from docx import Document
    from docx.enum.section import WD_ORIENT
    from docx.shared import Mm, Pt

    document = Document()
    section = document.sections[0]
    section.orientation, section.page_width, section.page_height = WD_ORIENT.LANDSCAPE, Mm(297), Mm(210)
    section.left_margin = section.right_margin = section.top_margin = section.bottom_margin = Mm(18)
    document.styles["Normal"].font.name, document.styles["Normal"].font.size = "Arial", Pt(9)
    if heading:
        document.add_heading(heading, level=1)
    for k, table in enumerate(tables):
        if k:
            document.add_page_break()
        title = f"Table {table.number}. {table.title}" if table.number else table.title
        document.add_paragraph().add_run(title).bold = True
        _word_table(document, table)
        for note in table.footnotes:
            document.add_paragraph().add_run(note).font.size = Pt(8)
    document.core_properties.created = document.core_properties.modified = EPOCH
    document.save(str(path))
    return _without_times(path)


def _word_table(document: Any, table: Table) -> None:
    from docx.oxml import OxmlElement
    from docx.shared import Mm, Pt

    grid = document.add_table(rows=0, cols=len(table.header))
    grid.autofit = False
    widths = [Mm(width) for width in column_widths(table, PAGE_MM)]
    for column, width in zip(grid.columns, widths, strict=True):
        column.width = width
    for number, row in enumerate((table.header, *table.rows)):
        line = grid.add_row()
        line._tr.get_or_add_trPr().append(OxmlElement("w:cantSplit"))  # no row is cut by the end of a page
        for cell, text, width in zip(line.cells, row, widths, strict=True):
            cell.width = width
            paragraph = cell.paragraphs[0]
            run = paragraph.add_run(text.strip())
            run.font.size, run.bold = Pt(8), number == 0
            paragraph.paragraph_format.space_after = Pt(1)
            if text.startswith("  "):
                paragraph.paragraph_format.left_indent = Mm(3)
    grid.rows[0]._tr.get_or_add_trPr().append(OxmlElement("w:tblHeader"))
    for row_number, edges in ((0, ("top", "bottom")), (len(table.rows), ("bottom",))):
        for cell in grid.rows[row_number].cells:
            _rule(cell, edges)


def column_widths(table: Table, total: float) -> list[float]:
    """Widths of the columns that share a page by their longest text, so that intervals stay on one line.

    Args:
        table: the table.
        total: width of the page, in any unit.

    >>> column_widths(Table(1, "", ("Model", "C (95% CI)", "P"), (("Stage", "0.6 (0.5-0.7)", "0.1"),)), 20)
    [5.0, 10.7, 4.3]
    """
    wanted = []
    for k, head in enumerate(table.header):
        longest = max([4, *map(len, head.split()), *(len(row[k].strip()) for row in table.rows)])
        wanted.append(min(longest + 2, LONGEST))
    return [round(total * one / sum(wanted), 1) for one in wanted]


def _rule(cell: Any, edges: Sequence[str]) -> None:
    """Lines above or below a cell."""
    from docx.oxml import OxmlElement
    from docx.oxml.ns import qn

    borders = OxmlElement("w:tcBorders")
    for edge in edges:
        line = OxmlElement(f"w:{edge}")
        for name, value in {"val": "single", "sz": "6", "color": "000000"}.items():
            line.set(qn(f"w:{name}"), value)
        borders.append(line)
    cell._tc.get_or_add_tcPr().append(borders)


def _without_times(path: Path) -> Path:
    """The same zip with every member dated alike, so that equal documents are equal files.

    openpyxl writes the time of saving as that of the last change, whatever the properties say.
    """
    with zipfile.ZipFile(path) as archive:
        members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    moment = EPOCH.strftime("%Y-%m-%dT%H:%M:%S").encode()
    members = [(name, re.sub(rb"\d{4}-\d\d-\d\dT[\d:]+", moment, data) if name == "docProps/core.xml" else data)
               for name, data in members]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members:
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), data, zipfile.ZIP_DEFLATED)
    return path
