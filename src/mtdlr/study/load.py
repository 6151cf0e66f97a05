"""Study: every setting of every stage, in one file, with its unit, its default and where the default comes from.

A study file is TOML, one table a section. Unknown keys are errors that suggest the nearest key, and all mistakes of a
file come back at once. A stage function takes its own section; a science function takes plain values.
"""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError, model_validator

from mtdlr.errors import Problem, StudyError
from mtdlr.study.presets import PRESETS
from mtdlr.study.sections import (
    CohortSettings,
    DeepmtsSettings,
    EvaluateSettings,
    NetworkName,
    NomogramSettings,
    PrepareSettings,
    RadiomicsSettings,
    ReportSettings,
    RunSettings,
    ScoreSettings,
    Section,
    SignatureSettings,
    SingletaskSettings,
    setting,
)


class Study(Section):
    """All settings of one study.

    >>> Study().prepare.size, Study.of({"preset": "quick"}).prepare.size
    (128, 32)
    """

    preset: Literal["modern", "paper", "workstation", "quick"] = setting(
        "modern", "a named set of defaults; keys below override it")
    cohort: CohortSettings = CohortSettings()
    prepare: PrepareSettings = PrepareSettings()
    deepmts: DeepmtsSettings = DeepmtsSettings()
    singletask: SingletaskSettings = SingletaskSettings()
    score: ScoreSettings = ScoreSettings()
    radiomics: RadiomicsSettings = RadiomicsSettings()
    signature: SignatureSettings = SignatureSettings()
    nomogram: NomogramSettings = NomogramSettings()
    evaluate: EvaluateSettings = EvaluateSettings()
    report: ReportSettings = ReportSettings()
    run: RunSettings = RunSettings()

    @classmethod
    def of(cls, values: Mapping[str, Any], *, where: str = "study") -> Study:
        """The study of a nested mapping, on top of its preset.

        Args:
            values: sections and their settings; `preset` names the preset.
            where: what the mapping is called in a message.

        Raises:
            StudyError: E-KEY for an unknown key (with the nearest known one), E-SETTING for a value out of range;
                all of them at once.
        """
        preset = values.get("preset", "modern")
        try:
            return cls.model_validate(_merge(PRESETS.get(preset, {}) if isinstance(preset, str) else {}, values))
        except ValidationError as error:
            raise StudyError(_problem(detail, where) for detail in error.errors()) from None

    @classmethod
    def load(cls, path: str | Path, overrides: Sequence[str] = ()) -> Study:
        """The study of a TOML file; relative paths in it are taken from the file's own folder.

        Args:
            path: the study file.
            overrides: `section.key=value` strings, the value in TOML (bare words are taken as strings).

        Raises:
            StudyError: E-NOSTUDY, E-TOML, E-OVERRIDE, and what `Study.of` raises.
        """
        path = Path(path)
        values = _read_toml(path)
        for override in overrides:
            values = _merge(values, _parse_override(override))
        return cls.of(_anchor(values, path.resolve().parent), where=path.name)

    @property
    def nomogram_covariates(self) -> tuple[str, ...]:
        """The clinical columns of the nomograms: `nomogram.covariates`, by default the stage alone."""
        return self.nomogram.covariates or (self.cohort.stage,)

    @model_validator(mode="after")
    def _covariates_are_described(self) -> Study:
        known = {*self.cohort.factors, *self.cohort.continuous}
        for name in self.nomogram.covariates:
            if name not in known:
                raise ValueError(f"nomogram.covariates: {name!r} is neither in cohort.factors nor in cohort.continuous")
        for name in self.nomogram.splines:
            if name not in self.nomogram.covariates or name not in self.cohort.continuous:
                raise ValueError(f"nomogram.splines: {name!r} is not a continuous column of nomogram.covariates")
        return self

    def recipe(self, section: str) -> dict[str, Any]:
        """A section's settings as plain JSON values: what the store names results by."""
        return getattr(self, section).model_dump(mode="json")

    @property
    def sections(self) -> dict[NetworkName, str]:
        """The section of settings that each network follows."""
        return {"deepmts": "deepmts", self.singletask.network: "singletask"}


def field_of(path: str) -> tuple[str, str, str]:
    """(meaning, unit, source) of a setting such as `prepare.spacing_mm`."""
    section, key = path.split(".")
    model = Study.model_fields[section].annotation
    assert model is not None
    field = model.model_fields[key]
    extra = field.json_schema_extra
    assert isinstance(extra, dict)
    return field.description or "", str(extra["unit"]), str(extra["source"])


def _read_toml(path: Path) -> dict[str, Any]:
    """The file's tables."""
    try:
        if not path.is_file():  # a pipe would be waited for
            raise FileNotFoundError
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except PermissionError:
        raise StudyError(Problem("E-NOACCESS", "the study file may not be read", where=path.name,
                                 remedy="Give yourself the right to read it")) from None
    except OSError:
        raise StudyError(Problem("E-NOSTUDY", "there is no such study file", where=str(path),
                                 remedy="`mtdlr init DIR` writes one")) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise StudyError(Problem("E-TOML", f"not valid TOML: {error}", where=path.name)) from None


def _parse_override(text: str) -> dict[str, Any]:
    """`section.key=value` as a nested mapping."""
    key, equals, value = text.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise StudyError(Problem("E-OVERRIDE", "an override reads section.key=value", found=text))
    try:
        parsed: Any = tomllib.loads(f"v = {value}")["v"]
    except tomllib.TOMLDecodeError:
        parsed = value.strip()
    for part in reversed(parts):
        parsed = {part: parsed}
    return dict(parsed)


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`above` laid over `below`, table by table."""
    merged = dict(below)
    for key, value in above.items():
        under = merged.get(key)
        merged[key] = _merge(under, value) if isinstance(under, Mapping) and isinstance(value, Mapping) else value
    return merged


def _anchor(values: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The same settings with the file's relative paths made absolute."""
    places = {"cohort": ("images", "table"), "prepare": ("template",), "evaluate": ("known_risk",), "run": ("folder",)}
    anchored = json.loads(json.dumps(values, default=str))
    for section, keys in places.items():
        table = anchored.get(section, {})
        if section == "cohort":
            table = {"images": "images", "table": "clinical.csv"} | table
        if isinstance(table, dict):
            anchored[section] = table | {k: str(folder / table[k]) for k in keys if isinstance(table.get(k), str)}
    profile = anchored.get("radiomics", {}).get("profile", "")
    if isinstance(profile, str) and profile.endswith((".yaml", ".yml", ".json")):
        anchored["radiomics"]["profile"] = str(folder / profile)
    return anchored


def _problem(detail: Any, where: str) -> Problem:
    """One pydantic complaint in our words."""
    key = ".".join(str(part) for part in detail["loc"])
    if detail["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(detail["loc"][-1]), _known(detail["loc"][:-1]), n=1)
        return Problem("E-KEY", "unknown setting", where=f"{where}: {key}",
                       remedy=f"Did you mean `{near[0]}`?" if near else "docs/settings.md lists them all")
    found = "" if isinstance(detail["input"], dict) else repr(detail["input"])
    return Problem("E-SETTING", detail["msg"].removeprefix("Value error, "), where=f"{where}: {key}", found=found)


def _known(path: Sequence[Any]) -> list[str]:
    """Keys allowed at a place of the study file."""
    model: Any = Study
    for part in path:
        model = model.model_fields[part].annotation
    return list(model.model_fields)
