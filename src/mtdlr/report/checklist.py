"""Reporting checklists filled from what this run did: TRIPOD+AI, CLEAR and METRICS.

An item is done when every fact it needs was recorded by this run, or when the authors state what only they know. It is
never done because a feature exists. The lists are published under CC BY 4.0; the wording here is ours.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Literal

from mtdlr.report.tables import Table
from mtdlr.spreadsheet import plain_cell

Status = Literal["done", "part", "not applicable", "yours"]
SOURCES = {
    "TRIPOD+AI": "Collins GS, et al. TRIPOD+AI statement. BMJ 2024;385:e078378. doi 10.1136/bmj-2023-078378",
    "CLEAR": "Kocak B, et al. CheckList for EvaluAtion of Radiomics research (CLEAR). Insights Imaging 2023;14:75. "
             "doi 10.1186/s13244-023-01415-8",
    "METRICS": "Kocak B, et al. METhodological RadiomICs Score (METRICS). Insights Imaging 2024;15:8. "
               "doi 10.1186/s13244-023-01572-w",
}
"""Where the lists were published."""


@dataclass(frozen=True)
class Fact:
    """Something that this run recorded.

    Args:
        value: as text; empty where the run did not do it.
        stage: the stage that made it.
        anchor: section of the report that shows it.
        key: short hash of what it was read from.
    """

    value: str
    stage: str
    anchor: str
    key: str


@dataclass(frozen=True)
class Item:
    """One item of a list as this run fills it.

    Args:
        checklist, number, title: which.
        weight: share of the METRICS score in percent; 0 in the other lists.
        status: `done`, `part`, `not applicable`, or `yours` (the authors').
        value: what can be written.
        source: stages and hashes it came from, or `authors`.
        anchor: section of the report; empty where there is none.
        missing: facts that this run did not record, and the statement that the authors can give.
    """

    checklist: str
    number: str
    title: str
    weight: float
    status: Status
    value: str
    source: str
    anchor: str
    missing: tuple[str, ...] = ()


@dataclass(frozen=True)
class MetricsScore:
    """METRICS as an interval, in percent of the applicable weights.

    Args:
        certain: done by this run and by the statements given.
        possible: with the items done in part as well.
        yours: weight of what only the authors can add.
    """

    certain: float
    possible: float
    yours: float


def fill_checklists(facts: Mapping[str, Fact], statements: Mapping[str, str]) -> tuple[Item, ...]:
    """Every item of the three lists.

    Args:
        facts: by name, those of this run; a missing name or an empty value was not done.
        statements: what the authors state, by the name of `[report.statements]`.
    """
    return tuple(_item(row, facts, statements) for row in _rows())


def statement_names() -> tuple[str, ...]:
    """The names that a statement can have, sorted."""
    return tuple(sorted({row["statement"] for row in _rows() if row["statement"]}))


def fact_names() -> tuple[str, ...]:
    """The names of the facts that items need, sorted."""
    return tuple(sorted({name for row in _rows() for name in row["facts"].split()}))


def metrics_score(items: tuple[Item, ...]) -> MetricsScore:
    """METRICS of the filled list."""
    own = [item for item in items if item.checklist == "METRICS" and item.status != "not applicable"]
    total = sum(item.weight for item in own)
    certain, part, yours = (100.0 * sum(i.weight for i in own if i.status == status) / total
                            for status in ("done", "part", "yours"))
    return MetricsScore(certain, certain + part, yours)


def counts(items: tuple[Item, ...]) -> dict[str, dict[Status, int]]:
    """How many items of each list are done, in part, not applicable and yours."""
    states: tuple[Status, ...] = ("done", "part", "not applicable", "yours")
    return {name: {state: sum(i.checklist == name and i.status == state for i in items) for state in states}
            for name in SOURCES}


def checklist_tables(items: tuple[Item, ...]) -> list[Table]:
    """Each list as a table without a number, for Word and HTML."""
    header = ("Item", "What", "Status", "What can be written", "From", "Missing")
    tables = []
    for name, source in SOURCES.items():
        rows = tuple((i.number, i.title, i.status, i.value or "-", i.source or "-", ", ".join(i.missing) or "-")
                     for i in items if i.checklist == name)
        tables.append(Table(0, name, header, rows, (f"{source}. CC BY 4.0; items in our words.",)))
    return tables


def checklists_csv(items: tuple[Item, ...]) -> str:
    """All items as CSV; a cell that a spreadsheet would run as a formula is quoted."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["list", "item", "title", "weight", "status", "value", "source", "section", "missing"])
    for i in items:
        cells = (i.checklist, i.number, i.title, f"{i.weight:g}" if i.weight else "", i.status, i.value, i.source,
                 i.anchor, ", ".join(i.missing))
        writer.writerow([plain_cell(cell) for cell in cells])
    return out.getvalue()


def _rows() -> list[dict[str, str]]:
    text = (files("mtdlr.report") / "checklists.tsv").read_text(encoding="utf-8")
    return list(csv.DictReader(io.StringIO(text), delimiter="\t"))


def _item(row: Mapping[str, str], facts: Mapping[str, Fact], statements: Mapping[str, str]) -> Item:
    needed = row["facts"].split()
    known = [facts[name] for name in needed if name in facts and facts[name].value]
    absent = [name for name in needed if name not in facts or not facts[name].value]
    stated = statements.get(row["statement"], "").strip() if row["statement"] else ""
    must_state = row["who"] == "person" and not stated
    absent = [] if stated and row["who"] == "either" else absent
    given = [*(fact.value for fact in known), *([stated] if stated else [])]
    status: Status
    if row["when"] and not _holds(row["when"], facts):
        return Item(row["list"], row["item"], row["title"], _weight(row), "not applicable", "", "", "")
    status = "yours" if not given else "part" if absent or must_state else "done"
    source = [f"{fact.stage} {fact.key}" for fact in known] + (["authors"] if stated else [])
    missing = (*absent, *([f"report.statements.{row['statement']}"] if must_state else []))
    return Item(row["list"], row["item"], row["title"], _weight(row), status, "; ".join(given),
                ", ".join(dict.fromkeys(source)), next((fact.anchor for fact in known), ""), missing)


def _holds(condition: str, facts: Mapping[str, Fact]) -> bool:
    """Whether the item applies to this run: the fact of that name was recorded."""
    return condition in facts and bool(facts[condition].value)


def _weight(row: Mapping[str, str]) -> float:
    return float(row["weight"] or 0.0)
