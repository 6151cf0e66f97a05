"""The table of agreement in docs/statistics.md is the tests' own record, and nothing else."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from conftest import AGREEMENT_PAGE, check_row, read_agreement


def _names() -> list[str]:
    """A pattern for the first argument of each call of `agrees` in the tests."""
    patterns = []
    for path in sorted(Path(__file__).parent.glob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "agrees":
                patterns.append(_pattern(node.args[0]))
    return patterns


def _pattern(argument: ast.expr) -> str:
    if isinstance(argument, ast.Constant):
        return re.escape(str(argument.value))
    if isinstance(argument, ast.JoinedStr):
        return "".join(_pattern(part) for part in argument.values)
    return ".+"


@pytest.mark.slow
def test_every_row_is_measured_and_every_measure_has_its_row() -> None:
    """No row of the page is without a test that makes it, and no comparison with R is without a row."""
    rows, patterns = [what for what, _ in read_agreement(AGREEMENT_PAGE)], _names()
    assert len(rows) > 70
    assert [what for what in rows if not any(re.fullmatch(p, what) for p in patterns if p != ".+")] == []
    assert [p for p in patterns if not any(re.fullmatch(p, what) for what in rows)] == []


def test_a_stale_row_fails() -> None:
    """A row that is missing, a tolerance that was loosened and a difference that has grown are each told."""
    rows = {("a", "R"): (1e-9, 1e-8)}
    check_row(rows, ("a", "R"), 1.2e-9, 1e-8)
    check_row({("a", "R"): (3e-12, 1e-8)}, ("a", "R"), 8e-11, 1e-8)
    for key, largest, within in ((("b", "R"), 0.0, 1e-8), (("a", "R"), 1e-9, 1e-6), (("a", "R"), 4e-9, 1e-8)):
        with pytest.raises(AssertionError, match="make it again"):
            check_row(rows, key, largest, within)
