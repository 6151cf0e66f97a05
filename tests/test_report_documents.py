"""Tables as documents, read back by readers that nobody here wrote: csv, lxml, python-docx, openpyxl, and by hand."""

from __future__ import annotations

import csv
import zipfile
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from mtdlr.report.documents import LONGEST, PAGE_MM, column_widths, to_csv, to_html, to_latex, write_table, write_word
from mtdlr.report.tables import Table

docx = pytest.importorskip("docx")
openpyxl = pytest.importorskip("openpyxl")
lxml = pytest.importorskip("lxml.html")

TABLE = Table(3, "Ratios of Müller & Søn", ("Characteristic", "HR (95% CI)", "P"), (
    ("Age, \"years\"", "1.024 (1.001-1.047)", "0.041"), ("TNM\nstage", "", "-"), ("  IVa < III", "Reference", "-"),
    ("  鼻咽癌", "3.027 (0.000 to >1000)", "<0.001"), ("=2+3", "-0.100 (-0.200 to 0.100)", "@cmd")),
    ("Wald intervals; 50 % of #1.", "=1+1"))
PLAIN = [[cell.strip() for cell in row] for row in (TABLE.header, *TABLE.rows)]
W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"


def word(path: Path) -> Any:
    """The tree of a Word file."""
    with zipfile.ZipFile(path) as parts:
        return lxml.etree.fromstring(parts.read("word/document.xml"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The table in every format."""
    place = tmp_path_factory.mktemp("table") / "new"
    assert [path.name for path in write_table(TABLE, place)] == [
        f"table3.{kind}" for kind in ("csv", "html", "tex", "xlsx", "docx")]
    return place


# ---- CSV, HTML, LaTeX ------------------------------------------------------------------------------------------------

def test_csv_gives_every_cell_back(folder: Path) -> None:
    """Commas, quotation marks, line ends and other scripts come back; only what would be a formula has an
    apostrophe."""
    rows = list(csv.reader(StringIO((folder / "table3.csv").read_text(encoding="utf-8"), newline="")))
    assert rows[:5] == [list(TABLE.header), *map(list, TABLE.rows[:4])]
    assert rows[5] == ["'=2+3", "-0.100 (-0.200 to 0.100)", "'@cmd"]
    assert to_csv(Table(1, "", ("a",), ())) == "a\n"


def test_html_gives_every_cell_back(folder: Path) -> None:
    """A parser of HTML finds the header, each cell in its row, the caption with the number, and the footnotes."""
    page = lxml.fromstring("<div>" + (folder / "table3.html").read_text(encoding="utf-8") + "</div>")
    (table,) = page.findall(".//table")
    assert [cell.text_content() for cell in table.findall("thead/tr/th")] == list(TABLE.header)
    found = [[" ".join(cell.text_content().split()) for cell in row.findall("td")] for row in table.findall("tbody/tr")]
    assert found == [[" ".join(cell.split()) for cell in row] for row in PLAIN[1:]]
    assert table.get("id") == "table3" and table.find("caption").text == "Table 3. Ratios of Müller & Søn"
    assert [note.text for note in page.findall(".//p[@class='note']")] == list(TABLE.footnotes)


def test_html_marks_levels_and_what_may_not_break(folder: Path) -> None:
    """Levels of a factor are indented by their class; an estimate with its interval is one piece; a P alone is not."""
    page = lxml.fromstring((folder / "table3.html").read_text(encoding="utf-8"))
    assert [cell.text_content() for cell in page.findall(".//td[@class='level']")] == ["IVa < III", "鼻咽癌"]
    assert [piece.text for piece in page.findall(".//span[@class='n']")] == [
        "1.024 (1.001-1.047)", "3.027 (0.000 to >1000)", "-0.100 (-0.200 to 0.100)"]


def test_a_table_without_a_number_is_known_by_its_title() -> None:
    """A checklist has no number: its title alone is caption and id."""
    page = lxml.fromstring("<div>" + to_html(Table(0, "CLEAR", ("Item",), (("1",),))) + "</div>")
    assert page.find(".//caption").text == "CLEAR" and page.find(".//table").get("id") == "tableCLEAR"


def test_latex_has_a_cell_for_each_column() -> None:
    """Every row has as many cells as there are columns, braces are balanced, and specials are escaped once."""
    rows = (("x & y", "#1", "<0.001"), ("  level", "", "-"))
    text = to_latex(Table(2, "A_b {c}", ("Name", "50 %", "$"), rows, ("n_1",)))
    body = text.split(r"\midrule")[1].split(r"\bottomrule")[0].strip().splitlines()
    assert [line.replace(r"\&", "").count("&") for line in body] == [2, 2]
    assert all(line.endswith(r"\\") for line in body)
    assert body[0] == r"x \& y & \#1 & $<$0.001 \\" and body[1] == r"\quad level &  & - \\"
    plain = text.replace(r"\{", "").replace(r"\}", "")
    assert plain.count("{") == plain.count("}") and r"\begin{tabular}{lrr}" in text
    assert r"\caption{A\_b \{c\}}" in text and r"Name & 50 \% & \$ \\" in text and r"\par\footnotesize n\_1" in text


# ---- Excel -----------------------------------------------------------------------------------------------------------

def test_excel_gives_every_cell_back(folder: Path) -> None:
    """Cells are text, formulas among them too, and the footnotes stand below in small italics."""
    sheet = openpyxl.load_workbook(folder / "table3.xlsx").active
    rows = [[cell.value or "" for cell in row] for row in sheet.iter_rows()]
    assert rows[:5] == [list(TABLE.header), *map(list, TABLE.rows[:4])]
    assert rows[5] == ["'=2+3", "-0.100 (-0.200 to 0.100)", "'@cmd"]
    assert [row[0] for row in rows[6:]] == ["Wald intervals; 50 % of #1.", "'=1+1"]
    assert not any(cell.data_type == "f" for row in sheet.iter_rows() for cell in row), "no cell is a formula"
    note = sheet.cell(7, 1)
    assert sheet.title == "Table 3" and note.font.italic and note.font.size == 9


def test_excel_keeps_the_header_in_sight(folder: Path) -> None:
    """The header is bold, wrapped and underlined, and stays when the sheet is scrolled, as does the first column."""
    sheet = openpyxl.load_workbook(folder / "table3.xlsx").active
    assert sheet.freeze_panes == "B2"
    assert all(cell.font.bold and cell.alignment.wrap_text and cell.border.bottom.style == "thin" for cell in sheet[1])
    assert not any(cell.font.bold for cell in sheet[2])


def test_excel_columns_are_as_wide_as_their_text(tmp_path: Path) -> None:
    """At least 12 and at most 48 letters, else two more than the longest cell; the header alone widens nothing."""
    table = Table(1, "", ("A very long name of a column that wraps", "b", "c"), (("x", "y" * 20, "z" * 99),))
    write_table(table, tmp_path)
    sheet = openpyxl.load_workbook(tmp_path / "table1.xlsx").active
    assert [sheet.column_dimensions[letter].width for letter in "ABC"] == [12, 22, 48]
    write_table(Table(2, "", ("a",), ()), tmp_path)
    assert openpyxl.load_workbook(tmp_path / "table2.xlsx").active.column_dimensions["A"].width == 12


# ---- Word ------------------------------------------------------------------------------------------------------------

def test_word_gives_every_cell_back(folder: Path) -> None:
    """Title with number, every cell without its indent, then the footnotes."""
    document = docx.Document(str(folder / "table3.docx"))
    assert [[cell.text for cell in row.cells] for row in document.tables[0].rows] == PLAIN
    assert [one.text for one in document.paragraphs] == ["Table 3. Ratios of Müller & Søn", *TABLE.footnotes]
    assert document.paragraphs[0].runs[0].bold and document.paragraphs[1].runs[0].font.size.pt == 8


def test_a_word_page_is_a_landscape_a4(folder: Path) -> None:
    """297 by 210 mm with margins of 18 mm, so that 261 mm are left for the text."""
    section = docx.Document(str(folder / "table3.docx")).sections[0]
    assert (round(section.page_width.mm), round(section.page_height.mm)) == (297, 210)
    assert section.orientation == docx.enum.section.WD_ORIENT.LANDSCAPE
    assert section.page_width.mm - section.left_margin.mm - section.right_margin.mm == pytest.approx(PAGE_MM, abs=0.1)


def test_the_header_of_a_word_table_repeats_and_no_row_is_cut(folder: Path) -> None:
    """The first row alone is a header that repeats, every row stays on one page, and the header alone is bold."""
    rows = list(word(folder / "table3.docx").iter(f"{W}tr"))
    assert [row.find(f"{W}trPr/{W}tblHeader") is not None for row in rows] == [True, *[False] * 5]
    assert all(row.find(f"{W}trPr/{W}cantSplit") is not None for row in rows)
    bold = [{(one is not None and one.get(f"{W}val") != "0") for run in row.iter(f"{W}r")
             for one in [run.find(f"{W}rPr/{W}b")]} for row in rows]
    assert bold == [{True}, *[{False}] * 5]


def test_a_word_table_has_three_lines(folder: Path) -> None:
    """Above and below the header and below the last row; no line anywhere else."""
    lines = [{edge.tag.removeprefix(W) for edge in row.iter(f"{W}top", f"{W}bottom")
              if edge.get(f"{W}val") == "single"} for row in word(folder / "table3.docx").iter(f"{W}tr")]
    assert lines == [{"top", "bottom"}, *[set()] * 4, {"bottom"}]


def test_levels_are_indented_in_word(folder: Path) -> None:
    """A cell that begins with two blanks is 3 mm further in, without the blanks."""
    table = docx.Document(str(folder / "table3.docx")).tables[0]
    indents = [row.cells[0].paragraphs[0].paragraph_format.left_indent for row in table.rows]
    assert [indent and round(indent.mm) for indent in indents] == [None, None, None, 3, 3, None]


def test_several_tables_have_a_page_each(tmp_path: Path) -> None:
    """A heading first, tables in order, a page break between two and none before the first; no heading where none is
    asked for."""
    tables = [TABLE, Table(0, "CLEAR", ("Item", "What"), (("1", "Title"),)), Table(4, "C", ("Model",), (("Stage",),))]
    document = docx.Document(str(write_word(tables, tmp_path / "all.docx", heading="Study of A & B")))
    texts = [paragraph.text.strip() for paragraph in document.paragraphs]
    assert texts[0] == "Study of A & B" and document.paragraphs[0].style.name == "Heading 1"
    assert [len(table.rows) for table in document.tables] == [6, 2, 2] and "CLEAR" in texts and "Table 4. C" in texts
    breaks = [one for one in word(tmp_path / "all.docx").iter(f"{W}br") if one.get(f"{W}type") == "page"]
    assert len(breaks) == 2
    plain = docx.Document(str(write_word(tables[:1], tmp_path / "one.docx")))
    assert not [p for p in plain.paragraphs if p.style.name.startswith("Heading")]
    assert not [one for one in word(tmp_path / "one.docx").iter(f"{W}br") if one.get(f"{W}type") == "page"]


def test_word_columns_share_the_page(folder: Path) -> None:
    """The widths of the columns are those of `column_widths` and fill the text of the page."""
    table = docx.Document(str(folder / "table3.docx")).tables[0]
    widths = [column.width.mm for column in table.columns]
    assert widths == pytest.approx(column_widths(TABLE, PAGE_MM), abs=0.1)
    assert sum(widths) == pytest.approx(PAGE_MM, abs=1)


def test_columns_are_shared_by_their_longest_text() -> None:
    """The longest cell counts, of a header its longest word alone; four letters at least, LONGEST at most."""
    rows = (("a", "b" * 28, "c" * 500),)
    assert column_widths(Table(1, "", ("x", "y", "z"), rows), 80.0) == [
        pytest.approx(80.0 * n / (6 + 30 + LONGEST), abs=0.06) for n in (6, 30, LONGEST)]
    long, short = (column_widths(Table(1, "", (head, "y"), ()), 10.0) for head in ("one two three", "three"))
    assert long == short
    assert column_widths(Table(1, "", ("a", "b"), ()), 10.0) == [5.0, 5.0]


def test_the_same_table_is_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    """Written again, every file is the same; another cell changes every file."""
    for path in write_table(TABLE, tmp_path / "again"):
        assert path.read_bytes() == (folder / path.name).read_bytes(), path.name
    other = Table(3, TABLE.title, TABLE.header, (("x", "y", "z"), *TABLE.rows[1:]), TABLE.footnotes)
    for path in write_table(other, tmp_path / "other"):
        assert path.read_bytes() != (folder / path.name).read_bytes(), path.name
