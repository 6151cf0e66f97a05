"""The command line: a thin layer of words over the package. Every verb has `--json`.

Exit status: 0 done, 1 some patients failed, 2 the user's input is wrong (one line each), 3 our bug,
130 or 143 interrupted.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from mtdlr.errors import MtdlrError, Problem

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None,
                  help="From FDG-PET/CT, a clinical table and follow-up to a validated radiomic nomogram. "
                       "For research only; not a medical device.")
Overrides = Annotated[list[str] | None, typer.Option("--set", metavar="SECTION.KEY=VALUE",
                                                     help="Override a setting, e.g. deepmts.epochs=2; repeatable.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
StudyFile = Annotated[Path, typer.Argument(help="The study file (TOML).", show_default=False)]


@app.command()
def demo(
    folder: Annotated[Path, typer.Argument(help="Folder to make.")] = Path("demo"),
    patients: Annotated[int, typer.Option(help="How many synthetic patients.", min=60)] = 240,
    seed: Annotated[int, typer.Option(help="Seed of everything.")] = 0,
    as_json: Json = False,
) -> None:
    """Make a synthetic study of two centres with a known truth, and run everything on it."""
    from mtdlr.synthetic import write_study
    from mtdlr.workers import Workers

    parts = _shares(patients)
    study_file = folder / "study.toml"
    if not study_file.exists():
        _say(f"making {patients} synthetic patients in {folder}", as_json)
        write_study(folder, n_training=parts[0], n_internal=parts[1], n_external=parts[2], seed=seed,
                    workers=Workers(2, 1, _progress(as_json)))
    run(study_file, until="bundle", overrides=None, as_json=as_json)


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="Folder to put study.toml in.")] = Path("."),
    images: Annotated[Path | None, typer.Option(help="Folder of scans: also propose a manifest from what lies there.",
                                                exists=True)] = None,
    table: Annotated[Path | None, typer.Option(help="Clinical table, whose ids the manifest takes where they differ "
                                                    "from the scans' in spelling only.", exists=True)] = None,
    as_json: Json = False,
) -> None:
    """Write a commented study file with every key and its meaning; with --images also a manifest to look over."""
    from mtdlr.cohort.propose import propose_manifest
    from mtdlr.study.template import study_template

    target, manifest = folder / "study.toml", folder / "manifest.csv"
    for path in (target, manifest) if images else (target,):
        if path.exists():
            raise _usage("E-EXISTS", "there is already such a file", str(path), "Choose another folder")
    filled: dict[str, Any] = {}
    lines = []
    if table is not None:
        filled["table"] = Path(os.path.relpath(table, folder)).as_posix()
    if images is not None:
        proposal = propose_manifest(images, folder, table)
        filled |= {"images": manifest.name} | ({"id": proposal.id_column} if proposal.id_column else {})
        _write(manifest, proposal.as_csv())
        renamed = sum(bool(row[-1]) for row in proposal.rows)
        lines = [*map(str, proposal.problems), f"wrote {manifest}: {len(proposal.rows)} patients"
                 + (f", {renamed} under the table's id (column found_as)" if renamed else "") + "; look it over"]
    _write(target, study_template({"cohort": filled}))
    _print({"study": str(target)} | ({"manifest": str(manifest)} if images else {}), as_json, "\n".join(
        [*lines, f"wrote {target}: fill in [cohort], then `mtdlr check {target}`"]))


@app.command()
def check(
    study: StudyFile, overrides: Overrides = None,
    scans: Annotated[bool, typer.Option("--scans", help="Also tell which series were taken of each patient, why, and "
                                                        "what the SUV rests on.")] = False,
    table: Annotated[Path | None, typer.Option("--csv", help="Also write the problems here, one line each.")] = None,
    as_json: Json = False,
) -> None:
    """Tell everything that is wrong with a study's settings, table and scans. Computes nothing."""
    from mtdlr.cohort.check import check_study
    from mtdlr.cohort.check_table import as_csv, as_text, scans_text
    from mtdlr.workers import Workers

    checked = check_study(study, overrides or (), workers=Workers(min(4, os.cpu_count() or 1), 1, _progress(as_json)))
    width = shutil.get_terminal_size((120, 24)).columns
    if table is not None:
        _write(table, as_csv(checked), encoding="utf-8-sig")
    text = as_text(checked, width=width)
    _print({"problems": [p.as_dict() for p in checked.problems], "usable": checked.usable, "scans": checked.audits},
           as_json, f"{scans_text(checked, width=width)}\n\n{text}" if scans else text)
    raise typer.Exit(0 if checked.is_fine else 2)


@app.command()
def run(
    study: StudyFile,
    until: Annotated[str, typer.Option(help="The last stage to do.")] = "bundle",
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Run a study to its report and model folder. What is done already is not done again."""
    from mtdlr.pipeline import STAGES, Run
    from mtdlr.workers import Workers

    if until not in STAGES:
        raise _usage("E-STAGENAME", "no such stage", until, f"One of {', '.join(STAGES)}")
    settings = _load(study, overrides)
    workers = Workers(settings.run.workers, settings.run.threads, _progress(as_json))
    with Run(settings, _run_folder(study, settings), workers) as work:
        work.until(until)
        excluded = sorted(set(work.cohort.ids) - set(work.included.ids)) if until != "cohort" else []
        problems = work.problems if until in STAGES[6:] else list(work.cohort.problems)
        _finish(work.folder, until, problems, excluded, as_json)


@app.command()
def status(study: StudyFile, overrides: Overrides = None, as_json: Json = False) -> None:
    """Say how far a study's run is. Starts nothing."""
    from mtdlr.store import run_status

    rows = run_status(_run_folder(study, _load(study, overrides)))
    _print(rows, as_json, "\n".join(f"{name:<12} {value}" for name, value in rows.items()))


@app.command()
def predict(
    bundle: Annotated[Path, typer.Argument(help="A model folder made by `mtdlr run`.", show_default=False)],
    patient: Annotated[Path, typer.Argument(help="DICOM folder, zip, or a folder with NIfTI PET and CT.",
                                            show_default=False)],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the result.")] = Path("prediction"),
    clinical: Annotated[list[str] | None, typer.Option("--clinical", metavar="NAME=VALUE",
                                                       help="A clinical value, e.g. tnm_stage=IVa.")] = None,
    series: Annotated[list[str] | None, typer.Option(help="DICOM series to take instead: UID, key or pattern of the "
                                                          "description; repeatable.")] = None,
    uptake_min: Annotated[float | None, typer.Option(help="Minutes from injection to scan, where the headers lack "
                                                          "them.", min=1)] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Also show where in the images the risk came from: seconds "
                                                            "on the quick grid, minutes on the full one.")] = False,
    as_json: Json = False,
) -> None:
    """Predict one patient with a frozen model: mask, risk, survival at the horizons, nomogram points."""
    from mtdlr.predict import Bundle, write_prediction

    prediction = Bundle.load(bundle).predict(patient, clinical=_pairs(clinical or []),
                                                series=series or (), uptake_min=uptake_min, explain=explain)
    write_prediction(prediction, output)
    _print(prediction.as_dict(), as_json, f"{prediction}\nwrote {output}")


@app.command()
def features(
    images: Annotated[Path, typer.Argument(help="A CSV, or a folder of scans with masks. Columns: patient_id, pet, ct, "
                                                "mask (pet or ct may be empty); or Image, Mask and, if you like, ID "
                                                "and Modality. Paths start at the CSV's folder.", show_default=False)],
    output: Annotated[Path, typer.Option("-o", "--output", help="CSV to write.")] = Path("features.csv"),
    profile: Annotated[str, typer.Option(help="paper1456 (1456 features), ibsi (recommended for new work), or a "
                                              "PyRadiomics parameter file (YAML).")] = "paper1456",
    spacing_mm: Annotated[float, typer.Option(help="Voxel size (not with a parameter file).", min=0.25)] = 2.0,
    pet_bin_width: Annotated[float, typer.Option(help="Grey-level bin of PET, in SUV (not with a parameter file).",
                                                 min=1e-6)] = 0.25,
    ct_bin_width: Annotated[float, typer.Option(help="Grey-level bin of CT, in HU, and of images without a Modality "
                                                     "(not with a parameter file).", min=1e-6)] = 25.0,
    workers: Annotated[int, typer.Option(help="Processes side by side.", min=1)] = 1,
    as_json: Json = False,
) -> None:
    """Extract radiomics features inside given masks: one row a patient.

    A stopped run goes on where it was: give the same command again. A patient that fails keeps an empty row and is
    named, with the reason; the others are not touched by it.
    """
    from mtdlr.radiomics.table import write_features
    from mtdlr.study import RadiomicsSettings
    from mtdlr.workers import Workers

    settings = RadiomicsSettings(profile=profile, spacing_mm=spacing_mm, pet_bin_width=pet_bin_width,
                                 ct_bin_width=ct_bin_width)
    problems = write_features(images, output, settings, workers=Workers(workers, 1, _progress(as_json)))
    for problem in problems:
        typer.echo(str(problem), err=True)
    failed = {patient for p in problems if p.is_error for patient in p.patients}
    _print({"table": str(output), "problems": [p.as_dict() for p in problems]}, as_json,
           f"wrote {output}" + (f"; rows without features: {len(failed)}" if failed else ""))
    raise typer.Exit(1 if failed else 0)


sizes = typer.Typer(help="How many patients a survival model needs, to be developed or to be validated.",
                    no_args_is_help=True, rich_markup_mode=None)
app.add_typer(sizes, name="samplesize")


@sizes.command("development")
def samplesize_development(
    parameters: Annotated[int, typer.Option(help="Candidate predictor parameters; all features of a lasso count.",
                                            min=1)],
    rate: Annotated[float, typer.Option(help="Events per patient and unit of time.")],
    horizon: Annotated[float, typer.Option(help="Time of prediction, in the same unit.")],
    follow_up: Annotated[float, typer.Option(help="Mean follow-up, in the same unit.")],
    r2: Annotated[float | None, typer.Option(help="Expected Cox-Snell R2 of the model; by default 15 % of the largest "
                                                  "possible.")] = None,
    as_json: Json = False,
) -> None:
    """Patients for developing a survival model without overfitting (Riley et al. 2019; as R's pmsampsize)."""
    from mtdlr.stats.sample_size import development_size

    size = development_size(parameters, rate=rate, horizon=horizon, mean_follow_up=follow_up, r2=r2)
    _print(asdict(size), as_json, str(size))


@sizes.command("validation")
def samplesize_validation(
    c: Annotated[float, typer.Option(help="C-index that the model is expected to have.")],
    risk: Annotated[float, typer.Option(help="Share of patients with the event by the horizon.")],
    lost: Annotated[float, typer.Option(help="Share of patients lost to follow-up before the horizon.")] = 0.2,
    threshold: Annotated[float | None, typer.Option(help="Risk at which one would treat; by default --risk.")] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Folder for the table (CSV) and the figure "
                                                                       "(SVG, PDF, PNG).")] = None,
    as_json: Json = False,
) -> None:
    """Precision of an external validation as its cohort grows, by simulation, and patients for the usual targets."""
    from mtdlr.report.figures.precision import write_precision
    from mtdlr.stats.sample_size import validation_size

    size = validation_size(c, risk, lost=lost, threshold=threshold)
    if output is not None:
        write_precision(size, output)
    needed = {name: n if n < float("inf") else None for name, n in size.needed.items()}
    _print(asdict(size) | {"needed": needed}, as_json, f"{size}" + (f"\nwrote {output}" if output else ""))


@app.command()
def doctor(as_json: Json = False) -> None:
    """Print the versions and the machine, for a bug report. No patient data."""
    from mtdlr.versions import versions

    facts = versions()
    _print(facts, as_json, "\n".join(f"{name:<14} {value}" for name, value in facts.items()))


def main() -> None:
    """Entry point: errors of the user are one line each, never a traceback."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    os.environ.setdefault("PYTHONWARNINGS", "ignore:resource_tracker")  # said by multiprocessing when we are stopped
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        app()
    except MtdlrError as error:
        for problem in error.problems:
            typer.echo(str(problem), err=True)
        sys.exit(2)
    except Exception:
        traceback.print_exc()
        typer.echo("E-INTERNAL this is our bug: please report the lines above with `mtdlr doctor`", err=True)
        sys.exit(3)


def _stop(number: int, _: object) -> None:
    """End at once, workers first: what is stored is whole, and the rest is made again or goes on where it was."""
    for child in multiprocessing.active_children():
        child.kill()
    typer.echo("stopped; run the same command again to go on", err=True)
    os._exit(128 + number)


def _load(path: Path, overrides: Sequence[str] | None) -> Any:
    from mtdlr.study import Study

    return Study.load(path, overrides or ())


def _run_folder(study: Path, settings: Any) -> Path:
    """Where this study's results go: beside the study file unless it says otherwise."""
    return (settings.run.folder and settings.run.folder.resolve()) or study.resolve().parent / "runs" / study.stem


def _shares(patients: int) -> tuple[int, int, int]:
    """Training, internal and external patients; more external ones than in the paper, for they cost no training."""
    external, internal = round(patients * 0.35), round(patients * 0.15)
    return patients - external - internal, internal, external


def _pairs(texts: Sequence[str]) -> dict[str, str]:
    pairs = [text.partition("=") for text in texts]
    for text, (name, equals, value) in zip(texts, pairs, strict=True):
        if not (name and equals and value):
            raise _usage("E-CLINICAL", "a clinical value reads NAME=VALUE", text, "e.g. --clinical tnm_stage=IVa")
    return {name: value for name, _, value in pairs}


def _write(path: Path, text: str, *, encoding: str = "utf-8") -> None:
    """The text as a file; where nothing can be written, one line says so."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding=encoding, newline="")
    except OSError as error:
        raise _usage("E-READONLY", "the file cannot be written", f"{path.name}: {error.strerror}",
                     "Choose a place that you may write to") from None


def _usage(code: str, what: str, found: str, remedy: str) -> MtdlrError:
    return MtdlrError(Problem(code, what, found=found, remedy=remedy))


def _finish(folder: Path, until: str, problems: Sequence[Problem], excluded: Sequence[str], as_json: bool) -> None:
    report = folder / "report.html"
    lines = [str(problem) for problem in problems if problem.is_error]
    lines.append(f"{len(problems) - len(lines)} warnings, {len(excluded)} patients left out")
    if until in ("report", "bundle"):
        lines.append(f"report: {report}")
    _print({"folder": str(folder), "report": str(report), "excluded": list(excluded),
            "problems": [p.as_dict() for p in problems]}, as_json, "\n".join(lines))
    raise typer.Exit(1 if excluded else 0)


def _say(text: str, as_json: bool) -> None:
    typer.echo(text, err=as_json)


def _print(values: Any, as_json: bool, text: str) -> None:
    typer.echo(json.dumps(values, indent=1, default=str) if as_json else text)


def _progress(as_json: bool) -> Callable[[str, int, int], None]:
    """Told of every finished job: a live line on a terminal, one line a minute elsewhere."""
    started: dict[str, float] = {}
    last = [0.0]

    def tell(label: str, done: int, total: int) -> None:
        now = time.monotonic()
        begun = started.setdefault(label, now)
        left = (now - begun) / max(done - 1, 1) * (total - done)
        line = f"{label}: {done}/{total}" + (f", about {left:.0f} s left" if 1 < done < total else "")
        if sys.stderr.isatty() and not as_json:
            typer.echo(f"\r\033[K{line}", err=True, nl=done == total)
        elif done == total or now - last[0] > 60:
            last[0] = now
            typer.echo(line, err=True)

    return tell
