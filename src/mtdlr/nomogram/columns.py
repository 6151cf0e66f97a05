"""From the columns of a table to the terms of a nomogram, and what a nomogram cannot be made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from mtdlr.errors import FitError, Problem
from mtdlr.stats.cox import CoxFit
from mtdlr.stats.terms import Continuous, Design, Factor

Table = pd.DataFrame | Mapping[str, Any]


def unusable(cox: CoxFit) -> list[Problem]:
    """Why a fit cannot become a nomogram: coefficients that are infinite, or columns without one."""
    problems = [Problem("E-SEPARATION", "a coefficient is infinite, so the nomogram has no scale",
                        where=f"column {name}",
                        remedy="Use Firth's method, join a level without events with another, or leave it out")
                for name in cox.monotone]
    for name in cox.dropped:
        level = "=" in name
        problems.append(Problem(
            "E-LEVEL" if level else "E-COLLINEAR",
            "no patient has this level, or other columns give it" if level else "other variables give this one already",
            where=f"column {name}", remedy="Leave the level out" if level else "Leave the variable out"))
    return problems


def term_of(name: str, values: ArrayLike) -> Continuous | Factor:
    """The term of a column: continuous for numbers, else a factor whose first level is the reference.

    Levels keep the order of a pandas categorical, those of no patient left out, and are sorted otherwise.

    Args:
        name: name of the column.
        values: (n,) numbers or labels, missing ones allowed.

    >>> term_of("t_stage", ["T3", "T1", "T3"])
    Factor(name='t_stage', levels=('T1', 'T3'), reference='T1')
    """
    series = pd.Series(values)
    if isinstance(series.dtype, pd.CategoricalDtype):
        levels = tuple(str(level) for level in series.cat.remove_unused_categories().cat.categories)
    elif pd.api.types.is_numeric_dtype(series.dtype) and not pd.api.types.is_bool_dtype(series.dtype):
        return Continuous(name)
    else:
        levels = tuple(sorted({str(value) for value in series.dropna()}))
    return Factor(name, levels, levels[0] if levels else "")


def column_of(table: Table, name: str) -> Any:
    """A column of a table.

    Args:
        table: a data frame, or a mapping of columns.
        name: name of the column.

    Raises:
        FitError: E-COLUMN when the table has no such column.
    """
    if name not in table:
        raise FitError(Problem("E-COLUMN", "the model needs a column that is not in the table", where=f"column {name}",
                               found=", ".join(map(str, list(table)[:20]))))
    return table[name]


def columns_of(design: Design, table: Table) -> dict[str, NDArray]:
    """The columns of the design that the table has; a single value is a column of one row.

    Args:
        design: whose variables are taken.
        table: a data frame, or a mapping of columns or single values.
    """
    return {name: np.atleast_1d(np.asarray(table[name], dtype=object)) for name in design.variables if name in table}
