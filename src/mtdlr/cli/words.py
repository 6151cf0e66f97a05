"""Options, output and errors that every verb shares."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import MISSING, fields
from functools import wraps
from inspect import Parameter, Signature
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from mtdlr.errors import MtdlrError, Problem

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Overrides = Annotated[list[str] | None, typer.Option("--set", metavar="SECTION.KEY=VALUE",
                                                     help="Override a setting, e.g. deepmts.epochs=2; repeatable.")]
Device = Annotated[str | None, typer.Option(metavar="DEVICE", help="Where networks run: auto, cpu, cuda or mps.")]
StudyFile = Annotated[Path, typer.Argument(help="The study file (TOML).", show_default=False)]


def options_of(kind: type[Any]) -> Callable[[Callable[[Any], None]], Callable[..., None]]:
    """Let a verb with many options take them as one value: each field of `kind` is an option of the command line.

    Args:
        kind: a frozen dataclass whose fields are annotated as the parameters of a verb are.
    """
    hints = get_type_hints(kind, include_extras=True)
    shown = Signature([Parameter(
        one.name, Parameter.KEYWORD_ONLY, annotation=hints[one.name],
        default=Parameter.empty if one.default is MISSING else one.default) for one in fields(kind)])

    def _expanded(verb: Callable[[Any], None]) -> Callable[..., None]:
        @wraps(verb)
        def _from_options(**given: Any) -> None:
            verb(kind(**given))

        _from_options.__signature__ = shown  # type: ignore[attr-defined]  # what typer reads
        _from_options.__annotations__ = hints
        return _from_options

    return _expanded


def print_result(values: Any, as_json: bool, text: str) -> None:
    """The text, or with --json the values."""
    typer.echo(json.dumps(values, indent=1, default=str) if as_json else text)


def load_study(path: Path, overrides: Sequence[str] | None) -> Any:
    """The settings of a study file with the overrides of the command line."""
    from mtdlr.study import Study

    return Study.load(path, overrides or ())


def usage(code: str, what: str, found: str, remedy: str) -> MtdlrError:
    """What to raise when the command itself is wrong."""
    return MtdlrError(Problem(code, what, found=found, remedy=remedy))


def progress(as_json: bool, folder: Path | None = None) -> Any:
    """Told of every finished job: see `progress.teller_of`."""
    from mtdlr.workers.progress import teller_of

    return teller_of(as_json, folder)


def run_folder(study: Path, settings: Any) -> Path:
    """Where this study's results go: beside the study file unless it says otherwise."""
    return (settings.run.folder and settings.run.folder.resolve()) or study.resolve().parent / "runs" / study.stem


def write_text(path: Path, text: str, *, encoding: str = "utf-8") -> None:
    """The text as a file; where nothing can be written, one line says so."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding=encoding, newline="")
    except OSError as error:
        raise usage("E-READONLY", "the file cannot be written", f"{path.name}: {error.strerror}",
                     "Choose a place that you may write to") from None
