"""Tables that people open in a spreadsheet: what a cell may hold."""

from __future__ import annotations

import re

FORMULA = ("=", "+", "-", "@", "\t", "\r")
NUMBER = re.compile(r"[+-]?[\d.]*( \([-\d. to>]+\))?")


def plain_cell(cell: str) -> str:
    """The cell, or with an apostrophe in front where a spreadsheet would take it for a formula.

    >>> plain_cell("=cmd"), plain_cell("-"), plain_cell("1.5 (1.2-1.9)")
    ("'=cmd", '-', '1.5 (1.2-1.9)')
    """
    return f"'{cell}" if cell.startswith(FORMULA) and not NUMBER.fullmatch(cell) else cell
