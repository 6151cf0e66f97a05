"""A commented study file: every key, its meaning, its unit, its default, made from the settings themselves."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from mtdlr.study import PRESETS, Study

HEADER = """\
# A study for mtdlr. Lines that start with `#` show a key with its default; remove the `#` to change it.
# Relative paths are taken from this file's folder. `mtdlr check` tells what is wrong before anything runs.
# (paper) marks a default that is the published one.

# modern: the paper's method with its known flaws mended. paper: as published. quick: small networks for a laptop.
preset = "modern"
"""


def study_template(filled: Mapping[str, Mapping[str, Any]] | None = None) -> str:
    """A study file with every key; those in `filled` are set, the others are comments with their default.

    >>> "# spacing_mm = 2.0" in study_template()
    True
    """
    filled, parts = filled or {}, [HEADER]
    for section, key, field in _fields():
        if key is None:
            parts.append(f"\n[{section}]  # {field}")
            continue
        unit = f" [{_extra(field, 'unit')}]" if _extra(field, "unit") else ""
        parts.append(f"# {field.description}{unit}" + (" (paper)" if _extra(field, "source") == "paper" else ""))
        given = filled.get(section, {})
        parts.append(f"{key} = {toml_value(given[key])}" if key in given
                     else f"# {key} = {toml_value(_default(field))}")
    return "\n".join([*parts, ""])


def toml_value(value: Any) -> str:
    """A value as TOML; TOML has no null, so None is only said.

    >>> toml_value({"a b": ("x", 1)}), toml_value(True), toml_value(None)
    ('{ "a b" = ["x", 1] }', 'true', '(not set)')
    """
    if value is None:
        return "(not set)"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_key(k)} = {toml_value(v)}" for k, v in value.items()) + " }" if value else "{}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(toml_value(item) for item in value) + "]"
    return str(value) if isinstance(value, int | float) else json.dumps(str(value), ensure_ascii=False)


def settings_page() -> str:
    """docs/settings.md: every setting with default, unit, meaning and source, and what each preset changes."""
    parts = ["# Settings\n\nMade from the settings themselves; `mtdlr init` writes the same as a study file. "
             "Source `paper`: the default is the published value.\n"]
    for section, key, field in _fields():
        if key is None:
            parts.append(f"## [{section}]\n\n{field}\n\n| key | default | unit | meaning | source |")
            parts.append("|---|---|---|---|---|")
        else:
            parts.append(f"| `{key}` | `{toml_value(_default(field))}` | {_extra(field, 'unit')} | {field.description} "
                         f"| {_extra(field, 'source')} |")
    rows = [f"| {preset} | `{section}.{key}` | `{toml_value(value)}` |" for preset, sections in PRESETS.items()
            for section, keys in sections.items() for key, value in keys.items()]
    presets = ["", "## Presets", "", "`modern` is the defaults above.", "", "| preset | key | value |", "|---|---|---|"]
    return "\n".join([*parts, *presets, *rows, ""])


def _fields() -> Iterator[tuple[str, str | None, Any]]:
    """(section, None, its sentence), then (section, key, field) of each of its keys."""
    for name, field in Study.model_fields.items():
        model = field.annotation
        if isinstance(model, type) and issubclass(model, BaseModel):
            yield name, None, (model.__doc__ or "").splitlines()[0]
            for key, one in model.model_fields.items():
                yield name, key, one


def _default(field: FieldInfo) -> Any:
    return field.get_default(call_default_factory=True)


def _extra(field: FieldInfo, name: str) -> str:
    extra = field.json_schema_extra
    return str(extra.get(name, "")) if isinstance(extra, dict) else ""


def _key(key: str) -> str:
    return key if key.replace("_", "").replace("-", "").isalnum() else json.dumps(key)


if __name__ == "__main__":
    print(settings_page(), end="")
