"""The verb `validate`: a frozen model on another centre's patients."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, NoReturn

import typer

from mtdlr.cli.words import Json, Overrides, StudyFile, load_study, print_result, progress, usage


def validate(
    bundle: Annotated[Path, typer.Argument(help="The frozen model's folder; or a published model as a TOML file, or a "
                                                "run's nomogram.json, judged on the table alone.")],
    study: StudyFile,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the validation.")] = Path("validation"),
    update: Annotated[str, typer.Option(help="Also update the model: none, baseline, slope or refit.")] = "none",
    accept: Annotated[bool, typer.Option("--accept-out-of-distribution", help="Judge scans unlike the training scans "
                                         "too; the output records it.")] = False,
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Validate a frozen model on the patients of another centre, as it was received; update it only on request."""
    from mtdlr.bundle import read_bundle
    from mtdlr.validate.run import validate_cohort
    from mtdlr.validate.updated import require_free
    from mtdlr.validate.write import evaluation, write_validation
    from mtdlr.workers import Workers

    if update not in ("none", "baseline", "slope", "refit"):
        raise usage("E-OPTION", "no such update", update, "One of none, baseline, slope, refit")
    settings = load_study(study, overrides)
    if bundle.is_file():
        from mtdlr.validate.published import published_numbers, read_published, validate_published, write_published

        judged = validate_published(read_published(bundle), settings, update)  # type: ignore[arg-type]
        write_published(judged, out)
        _end(judged.problems, judged.found.n, published_numbers(judged), out, as_json)
    workers = Workers(settings.run.workers, settings.run.threads, progress(as_json))
    model = read_bundle(bundle)
    require_free(out, model, update)
    found = validate_cohort(model, settings, out, update=update,  # type: ignore[arg-type]
                            accept=accept, workers=workers)
    write_validation(found, out)
    _end(found.problems, len(found.cohort), evaluation(found), out, as_json)


def _end(problems: Sequence[Any], n: int, values: Any, out: Path, as_json: bool) -> NoReturn:
    """Print what came out and leave with 1 where a patient failed or was refused."""
    failed = [p for p in problems if p.is_error]
    print_result(values, as_json, "\n".join([*map(str, failed), f"{n} patients judged: {out / 'report.html'}"]))
    raise typer.Exit(1 if failed else 0)


def check_for(bundle: Path, study: Path, overrides: Sequence[str], workers: Any) -> Any:
    """What `check` finds in a study that a frozen model shall judge; follow-up is not needed."""
    from mtdlr.bundle import read_bundle
    from mtdlr.cohort.check import check_study
    from mtdlr.validate.run import settings_of

    model = read_bundle(bundle)
    with TemporaryDirectory() as place:
        return check_study(study, overrides, workers=workers, received=lambda s: settings_of(model, s, Path(place)))
