"""One table or figure of the report, for a notebook or a script."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, TypeVar

import pandas as pd

from mtdlr.errors import Problem, StudyError
from mtdlr.report.pictures import make_figures
from mtdlr.report.results import Results
from mtdlr.report.review import review, review_figures, review_tables
from mtdlr.report.tables import make_tables

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Name = TypeVar("Name", int, str)


def table(results: Results, number: int) -> pd.DataFrame:
    """A table of the report as a data frame, its cells as printed.

    Args:
        results: of a finished run.
        number: 1 to 4 are the paper's tables; 5 and more are those of the report that the run can fill.

    Raises:
        StudyError: E-NOTSHOWN where the report has no such table.
    """
    tables = make_tables(results)
    if number not in tables:
        tables |= {one.number: one for one in review_tables(results, review(results))}
    return tables[_known(number, tables, "table")].to_frame()


def figure(results: Results, name: str) -> Figure:
    """A figure of the report, to look at in a notebook or to save in any format of matplotlib.

    Args:
        results: of a finished run.
        name: as in the report: "2a" is the nomogram, "2b" and on calibration, "3a" ROC curves, "4a" risk groups.

    Raises:
        StudyError: E-NOTSHOWN where the report has no such figure.
    """
    figures = make_figures(results)
    if name not in figures:
        figures |= review_figures(results, review(results))
    return figures[_known(name, figures, "figure")][1]


def _known(name: Name, there: Iterable[Name], kind: str) -> Name:
    """The name, where the report has it."""
    names = list(there)
    if name not in names:
        raise StudyError(Problem("E-NOTSHOWN", f"the report has no such {kind}", found=f"{kind} {name}",
                                 expected=", ".join(str(one) for one in sorted(names)),
                                 remedy="A table or figure is left out where its numbers cannot be estimated"))
    return name
