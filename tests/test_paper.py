"""docs/paper.md names only code, tests and settings that there are."""

from __future__ import annotations

import ast
import importlib
import re
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

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


@cache
def _tests_of(path: Path) -> set[str]:
    """The functions and classes of a test file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}


def _is_test(name: str) -> bool:
    """Whether `test_file` or `test_file.test_or_class` is one of ours."""
    file, _, inner = name.partition(".")
    path = TESTS / f"{file}.py"
    return path.is_file() and (not inner or inner in _tests_of(path))


def test_every_row_has_three_cells_and_a_name_or_an_excuse() -> None:
    """Each row names who does it, or says that it is not done or left out."""
    assert len(ROWS) > 200
    assert [row for row in ROWS if len(row) != 3] == []
    assert [what for what, where, differs in ROWS
            if (where == "-" and not re.search(r"\*\*not done\*\*|^left out", differs, re.IGNORECASE))
            or (where != "-" and not re.fullmatch(r"`[^`]+`(, `[^`]+`)*", where))] == []


def test_what_the_middle_column_names_is_there() -> None:
    """Each name of the middle column is importable from mtdlr, a setting, or a test."""
    names = sorted({name for row in ROWS for name in re.findall(r"`([^`]+)`", row[1])})
    assert len(names) > 200
    assert [name for name in names if not (
        _is_test(name) if name.startswith("test_") else _importable(name) or _setting(name) is not None)] == []


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
