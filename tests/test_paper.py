"""docs/paper.md names only code, tests and settings that there are."""

from __future__ import annotations

import ast
import importlib
import re
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from mtdlr.study import PRESETS, Study

TESTS = Path(__file__).parent
PAGE = (TESTS.parent / "docs" / "paper.md").read_text(encoding="utf-8")
ROWS = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in PAGE.splitlines()
        if line.startswith("| ") and line != "| what | where | differs |"]
DOTTED = re.compile(r"`([a-z]\w*(?:\.\w+)+)(?: = [^`]+)?`")
SET = re.compile(r"`([a-z]+)\.(\w+) = ([^`]+)`")
OF_A_PRESET = re.compile(r"\*(paper|modern)\*: " + SET.pattern)


def _setting(name: str) -> Any:
    """The field of `section.key`; None where there is none."""
    section, _, key = name.partition(".")
    field = Study.model_fields.get(section)
    return getattr(field.annotation, "model_fields", {}).get(key) if field else None


@cache
def _importable(name: str) -> bool:
    """Whether `module.name` (or `module.Class.field`) can be had from mtdlr."""
    parts = name.split(".")
    for k in range(len(parts), 0, -1):
        try:
            found: Any = importlib.import_module("mtdlr." + ".".join(parts[:k]))
        except ModuleNotFoundError:
            continue
        for part in parts[k:]:
            fields = getattr(found, "__annotations__", {})
            if not hasattr(found, part) and part not in fields:
                return False
            found = getattr(found, part, fields.get(part))
        return True
    return False


def _is_test(name: str) -> bool:
    """Whether `test_file` or `test_file.test_or_class` is one of ours."""
    path, _, inner = name.partition(".")
    if not (TESTS / f"{path}.py").is_file():
        return False
    tree = ast.parse((TESTS / f"{path}.py").read_text(encoding="utf-8"))
    names = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    return not inner or inner in names


def test_every_row_has_three_cells_and_a_name_or_an_excuse() -> None:
    """Each row names who does it, or says that it is not done or left out."""
    assert len(ROWS) > 200
    assert [row for row in ROWS if len(row) != 3] == []
    assert [what for what, where, differs in ROWS
            if (where == "-" and not re.search(r"\*\*not done\*\*|^left out", differs, re.IGNORECASE))
            or (where != "-" and not re.fullmatch(r"`[^`]+`(, `[^`]+`)*", where))] == []


@pytest.mark.parametrize("name", sorted({n for row in ROWS for n in re.findall(r"`([^`]+)`", row[1])}))
def test_what_the_middle_column_names_is_there(name: str) -> None:
    """Each name of the middle column is importable from mtdlr, a setting, or a test."""
    assert _is_test(name) if name.startswith("test_") else _importable(name) or _setting(name) is not None


def test_every_dotted_name_of_the_page_is_there() -> None:
    """No `section.key` of the page is without its setting, and no `module.name` without its code."""
    names = {name for name in DOTTED.findall(PAGE) if not name.startswith("test_")} - {"section.key"}
    assert len(names) > 150
    assert sorted(name for name in names if _setting(name) is None and not _importable(name)) == []


def test_every_value_of_a_setting_is_one_it_takes() -> None:
    """A `section.key = value` of the page is a valid study."""
    found = SET.findall(PAGE)
    assert len(found) > 40
    for section, key, value in found:
        assert Study.of({section: {key: tomllib.loads(f"v = {value}")["v"]}})


def test_what_the_page_says_of_a_preset_is_what_it_sets() -> None:
    """After *paper* or *modern* and a colon stands that preset's own value, and the two differ."""
    stated = OF_A_PRESET.findall(PAGE)
    assert len(stated) > 30
    for preset, section, key, value in stated:
        ours = getattr(getattr(Study.of({"preset": preset}), section), key)
        assert ours == tomllib.loads(f"v = {value}")["v"], f"{preset}: {section}.{key}"
        assert key in PRESETS["paper"][section], f"{section}.{key} is the same in both presets"
