"""A model known only from its publication, judged on a clinical table: no images, no networks.

The model is a TOML file with the arguments of `Nomogram.from_coefficients`, or the nomogram.json of a run.
"""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mtdlr.cohort.clinical import survey_clinical
from mtdlr.errors import BundleError, CohortError, MtdlrError, Problem, StoreError
from mtdlr.nomogram import Nomogram
from mtdlr.spreadsheet import plain_cell
from mtdlr.stats.terms import Factor
from mtdlr.store import strict_json
from mtdlr.study import CohortSettings, Study
from mtdlr.survival import Survival
from mtdlr.validate.performance import TableValidation, numbers, validate_table
from mtdlr.validate.update import Choice, NomogramUpdate, update_nomogram, update_numbers
from mtdlr.validate.write import (
    calibration_table,
    center_table,
    clear_results,
    performance_figures,
    render,
    update_table,
)

_LARGEST = 1 << 24


class _Published(BaseModel):
    """The keys of a model file; a month or a name is a key of its table."""

    model_config = ConfigDict(extra="forbid")
    coefficients: dict[str, float] = Field(min_length=1)
    baseline_survival: dict[float, float] = Field(min_length=1)
    ranges: dict[str, tuple[float, float]] = {}
    levels: dict[str, tuple[str, ...]] = {}
    knots: dict[str, tuple[float, ...]] = {}
    baseline_log_hazard: float = 0.0
    endpoint: str = "survival"


@dataclass(frozen=True, eq=False)
class PublishedValidation:
    """A published model on a table.

    Args:
        nomogram: as published.
        study: with the table's settings.
        found: every number as received.
        update: None where none was asked for.
        problems: of the table and of the judgement, errors first.
    """

    nomogram: Nomogram
    study: Study
    found: TableValidation
    update: NomogramUpdate | None
    problems: tuple[Problem, ...]


def read_published(path: Path) -> Nomogram:
    """The nomogram in a file.

    Args:
        path: TOML with the arguments of `Nomogram.from_coefficients`, or JSON as `Nomogram.to_json` writes it.

    Raises:
        BundleError: E-PUBLISHED for a file that holds no such model.
        FitError: as `Nomogram.from_coefficients`.
    """
    try:
        if path.stat().st_size > _LARGEST:
            raise ValueError("too large")
        text = path.read_text(encoding="utf-8")
        if path.suffix.lower() == ".json":
            strict_json(text)
            return Nomogram.from_json(text)
        given = _Published.model_validate(tomllib.loads(text))
    except ValidationError as error:
        first = error.errors()[0]
        raise _no_model(path, ".".join(map(str, first["loc"]))[:80] + f": {first['type']}") from None
    except MtdlrError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _no_model(path, type(error).__name__) from None
    return Nomogram.from_coefficients(**given.model_dump())


def validate_published(nomogram: Nomogram, study: Study, update: Choice = "none") -> PublishedValidation:
    """A published model judged on the clinical table of a study; scans are not read.

    Args:
        nomogram: of `read_published`.
        study: its `cohort` names the table, the columns of id, time, event and centre, and levels.
        update: "none", "baseline", "slope" or "refit".

    Raises:
        TableError: as `read_clinical`, for a column of the model that the table lacks too.
        CohortError: E-NOPATIENTS where no row can be judged.
        FitError: as `update_nomogram`.
    """
    table, problems, _ = survey_clinical(_settings(nomogram, study.cohort))
    problems = [p for p in problems if p.code != "E-STAGE"]
    if any(p.code in ("E-COLUMN", "E-HEADER", "E-ROWLENGTH") for p in problems):
        raise CohortError([p for p in problems if p.is_error])
    rows = table[table["time_months"].notna() & table["event"].notna()]
    if not len(rows):
        raise CohortError([*(p for p in problems if p.is_error), Problem(
            "E-NOPATIENTS", "no row has follow-up", found=f"{len(table)} rows")])
    surv = Survival(rows["time_months"].to_numpy(float), rows["event"].to_numpy(bool))
    found = validate_table(nomogram, rows, surv, centers=list(rows["center"].astype(str)))
    updated = None
    if update != "none" and surv.n_events:
        known = rows.index.isin(found.risk.index)
        updated = update_nomogram(nomogram, rows[known], surv.take(known), update)
        problems = [*problems, *updated.problems]
    every = dict.fromkeys([*problems, *found.problems])
    return PublishedValidation(nomogram, study, found, updated, tuple(sorted(every, key=lambda p: not p.is_error)))


def write_published(done: PublishedValidation, folder: Path) -> None:
    """Write report.html, tables/, figures/, evaluation.json, scores.csv, and updated-nomogram.json after an update.

    They take the place of an earlier report; an updated nomogram of an earlier call stays where none is made.

    Args:
        done: of `validate_published`.
        folder: where the files go; made if missing.

    Raises:
        StoreError: E-EXISTS, before anything is written, where the folder holds another updated nomogram.
    """
    found, update, target = done.found, done.update, folder / "updated-nomogram.json"
    new = "" if update is None else update.nomogram.to_json()
    if new and target.exists() and target.read_text(encoding="utf-8") != new:
        raise StoreError(Problem("E-EXISTS", "the folder holds another updated nomogram, which would be lost",
                                 where=target.name, remedy="Choose another folder with -o, or move that file away"))
    clear_results(folder)
    tables = ([calibration_table(found)] if found.months else []) + ([center_table(found)] if found.centers else []) + (
        [update_table(update)] if update is not None else [])
    (folder / "evaluation.json").write_text(json.dumps(published_numbers(done), indent=1), encoding="utf-8")
    rows = pd.DataFrame({"log_hazard": found.risk}).join(found.survival.rename(columns=lambda m: f"survival_{m:g}"))
    rows.rename(index=plain_cell).to_csv(folder / "scores.csv", index_label="patient_id")
    lines = [f"{found.n} patients with {found.n_events} events were judged by a published model; "
             f"{len(found.left_out)} could not be."]
    page = render(folder, tables, performance_figures(found, folder / "figures", done.nomogram.endpoint),
                  title=done.study.report.title, summary=lines, problems=done.problems, parent="as published")
    (folder / "report.html").write_text(page, encoding="utf-8")
    if new:
        target.write_text(new, encoding="utf-8")


def published_numbers(done: PublishedValidation) -> dict[str, Any]:
    """Every number for programs.

    Args:
        done: of `validate_published`.
    """
    return {"main": numbers(done.found), "update": None if done.update is None else update_numbers(done.update)}


def _settings(nomogram: Nomogram, cohort: CohortSettings) -> CohortSettings:
    """How the table is read: with the model's columns, and every level that either side names."""
    levels = {term.name: term.levels for term in nomogram.design.terms if isinstance(term, Factor)}
    merged = {name: tuple(dict.fromkeys((*known, *cohort.factors.get(name, ())))) for name, known in levels.items()}
    numeric = [name for name in nomogram.design.variables if name not in levels]
    return cohort.model_copy(update={
        "factors": merged, "continuous": tuple(numeric), "described": (), "references": {}, "split": "random",
        "external_centers": (), "stage": next(iter(merged), cohort.id)})


def _no_model(path: Path, found: str) -> BundleError:
    return BundleError(Problem("E-PUBLISHED", "the file holds no model as it is published", where=path.name,
                               found=found, expected="coefficients and baseline_survival",
                               remedy="See docs/second-centre.md, or pass a model folder"))
