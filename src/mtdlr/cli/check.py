"""The verb `check`: everything that is wrong with a study before any work is done, and what the work will cost."""

from __future__ import annotations

import os
import shutil
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mtdlr.cli.validate import check_for
from mtdlr.cli.words import Json, Overrides, StudyFile, load_study, print_result, progress, run_folder, write_text

if TYPE_CHECKING:
    from mtdlr.cohort.check import Checked
    from mtdlr.nets.pace import Pace
    from mtdlr.study import Study


def check(
    study: StudyFile, overrides: Overrides = None,
    scans: Annotated[bool, typer.Option("--scans", help="Also tell which series were taken of each patient, why, and "
                                                        "what the SUV rests on.")] = False,
    table: Annotated[Path | None, typer.Option("--csv", help="Also write the problems here, one line each.")] = None,
    bundle: Annotated[Path | None, typer.Option("--for", metavar="BUNDLE", help="Check a study for `validate` with "
                                                "this model: nobody trains, and the model's covariates are needed.",
                                                show_default=False)] = None,
    as_json: Json = False,
) -> None:
    """Tell everything that is wrong with a study's settings, table and scans, and what a run will cost here."""
    from mtdlr.cohort.check import check_study
    from mtdlr.cohort.check_table import as_csv, as_text, scans_text
    from mtdlr.store import require_writable
    from mtdlr.workers import Workers

    if table is not None:
        require_writable(table)
    workers = Workers(min(4, os.cpu_count() or 1), 1, progress(as_json))
    checked = (check_study(study, overrides or (), workers=workers, run_folder=partial(run_folder, study))
               if bundle is None
               else check_for(bundle, study, overrides or (), workers))
    width = shutil.get_terminal_size((120, 24)).columns
    if table is not None:
        write_text(table, as_csv(checked), encoding="utf-8-sig")
    text = as_text(checked, width=width)
    if scans:
        text = f"{scans_text(checked, width=width)}\n\n{text}"
    found = {"problems": [p.as_dict() for p in checked.problems], "usable": checked.usable, "scans": checked.audits}
    if checked.training:
        found["cost"], lines = _cost(checked, study, list(overrides or ()))
        text = "\n".join([text, "", *lines])
    print_result(found, as_json, text)
    raise typer.Exit(0 if checked.is_fine else 2)


def _cost(checked: Checked, path: Path, overrides: list[str]) -> tuple[dict[str, Any], list[str]]:
    """What a run costs, for JSON and in lines."""
    from mtdlr.cohort.cost import Machine, Size, as_dict, as_lines, costs, under_presets
    from mtdlr.versions import free_disk_gb, is_installed

    settings = checked.study
    assert settings is not None
    size = Size(len(checked.usable), checked.training, [checked.audits[i] for i in checked.usable],
                checked.centers)
    presets = under_presets(lambda name: load_study(path, [*overrides, f"preset={name}"]))
    machine, free = Machine.here(), free_disk_gb(run_folder(path, settings))
    found = costs(settings, presets, size, machine, _timer if is_installed("networks") else None)
    return as_dict(settings, found, free_gb=free), as_lines(settings, size, machine, found, free_gb=free)


def _timer(study: Study, section: str) -> Pace:
    """The pace of the network of a section on this machine."""
    from mtdlr.nets.pace import pace_of

    return pace_of(getattr(study, section), size=study.prepare.size, threads=study.run.threads,
                   device=study.run.device)
