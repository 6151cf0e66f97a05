"""The command line: a thin layer of words over the package. Every verb has `--json`.

Exit status: 0 done, 1 some patients failed, 2 the user's input is wrong (one line each), 3 our bug,
130 or 143 interrupted.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from mtdlr.cli.check import check
from mtdlr.cli.export import export
from mtdlr.cli.pacs import fetch, send
from mtdlr.cli.predict import predict
from mtdlr.cli.samplesize import sizes
from mtdlr.cli.serve import serve
from mtdlr.cli.validate import validate
from mtdlr.cli.words import (
    Device,
    Json,
    Overrides,
    StudyFile,
    load_study,
    options_of,
    print_result,
    progress,
    run_folder,
    usage,
    write_text,
)
from mtdlr.errors import MtdlrError, Problem

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None,
                  context_settings={"help_option_names": ["-h", "--help"]},
                  help="From FDG-PET/CT, a clinical table and follow-up to a validated radiomic nomogram. "
                       "For research only; not a medical device.")


def _show_version(asked: bool) -> None:
    if asked:
        from mtdlr.versions import package_version

        typer.echo(f"mtdlr {package_version()}")
        raise typer.Exit()


@app.callback()
def _options(version: Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True,
                                                   help="Print the version.")] = False) -> None:
    """Options before the verb."""


@app.command()
def demo(
    folder: Annotated[Path, typer.Argument(help="Folder to make.")] = Path("demo"),
    patients: Annotated[int, typer.Option(help="How many synthetic patients.", min=90)] = 240,
    seed: Annotated[int, typer.Option(help="Seed of everything.")] = 0,
    as_json: Json = False,
) -> None:
    """Make a synthetic study of two centres with a known truth, and run everything on it."""
    from mtdlr.cli.compiling import compile_loops
    from mtdlr.synthetic import write_study
    from mtdlr.versions import require_extra
    from mtdlr.workers import Workers, beside

    require_extra("networks", "a study")  # before minutes of work
    require_extra("dicom", "the demo")
    parts = _shares(patients)
    study_file = folder / "study.toml"
    with beside(compile_loops):
        if not study_file.exists():
            _say(f"making {patients} synthetic patients in {folder}", as_json)
            write_study(folder, n_training=parts[0], n_internal=parts[1], n_external=parts[2], seed=seed,
                        workers=Workers(2, 1, progress(as_json)))
        run(study=study_file, as_json=as_json)


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
    from mtdlr.store import require_writable
    from mtdlr.study.template import study_template

    target, manifest = folder / "study.toml", folder / "manifest.csv"
    for path in (target, manifest) if images else (target,):
        require_writable(path)
        if path.exists():
            raise usage("E-EXISTS", "there is already such a file", str(path), "Choose another folder")
    filled: dict[str, Any] = {}
    lines = []
    if table is not None:
        filled["table"] = Path(os.path.relpath(table, folder)).as_posix()
    if images is not None:
        proposal = propose_manifest(images, folder, table)
        filled |= {"images": manifest.name} | ({"id": proposal.id_column} if proposal.id_column else {})
        write_text(manifest, proposal.as_csv())
        renamed = sum(bool(row[-1]) for row in proposal.rows)
        lines = [*map(str, proposal.problems), f"wrote {manifest}: {len(proposal.rows)} patients"
                 + (f", {renamed} under the table's id (column found_as)" if renamed else "") + "; look it over"]
    write_text(target, study_template({"cohort": filled}))
    print_result({"study": str(target)} | ({"manifest": str(manifest)} if images else {}), as_json, "\n".join(
        [*lines, f"wrote {target}: fill in [cohort], then `mtdlr check {target}`"]))


app.command()(check)


@dataclass(frozen=True)
class _RunOptions:
    """Of `mtdlr run`."""

    study: StudyFile
    until: Annotated[str | None, typer.Option(help="The last stage to do: cohort, prepare, train, score, radiomics, "
                                                   "signature, model, report or bundle.",
                                              show_default="bundle")] = None
    overrides: Overrides = None
    shard: Annotated[str | None, typer.Option(metavar="I/N", help="Do every n-th patient only, beside other shards; "
                                                                  "with --until prepare, score or radiomics.")] = None
    fold: Annotated[int | None, typer.Option(help="Train the networks of one fold only.", min=0)] = None
    executor: Annotated[str | None, typer.Option(metavar="dask:ADDRESS", help="Work on a Dask cluster.")] = None
    device: Device = None
    as_json: Json = False


@app.command()
@options_of(_RunOptions)
def run(options: _RunOptions) -> None:
    """Run a study to its report and model folder. What is done already is not done again.

    With --set, the results of settings other than the study file's are shown in tries/ of the run folder.
    """
    from contextlib import ExitStack

    from mtdlr.pipeline import Run
    from mtdlr.versions import require_extra
    from mtdlr.workers import Workers
    from mtdlr.workers.cluster import executor
    from mtdlr.workers.parts import STEPS, Shard, require_part
    from mtdlr.workers.planning import where_shown
    from mtdlr.workers.progress import summary

    shard, fold = options.shard, options.fold
    if shard and fold is not None:
        raise usage("E-SHARD", "a part is a shard or a fold, not both", f"{shard} and {fold}", "Leave one out")
    part = Shard.parse(shard) if shard else Shard(fold=fold) if fold is not None else None
    last = require_part(part, options.until or ("train" if fold is not None else "radiomics" if shard else "bundle"))
    if list(STEPS).index(last) > list(STEPS).index("prepare"):
        require_extra("networks", "training")  # before hours of preparation
    settings = load_study(options.study, [
        *(options.overrides or ()), *([] if options.device is None else [f"run.device={options.device}"])])
    folder = run_folder(options.study, settings)
    shown = where_shown(folder, settings, load_study(options.study, None)) if options.overrides else folder
    with ExitStack() as stack:
        pool = stack.enter_context(executor(options.executor)) if options.executor else None
        teller = progress(options.as_json, folder)
        stack.callback(teller.close)
        workers = Workers(settings.run.workers, settings.run.threads, teller, pool)
        _HELD.append(folder)
        with Run(settings, folder, workers, shard=part, output=shown) as work:
            work.until(last)
            teller.close()
            values, lines = summary(work)
            for line in lines:
                teller.note(line)
            print_result(values, options.as_json, "\n".join(lines))
            raise typer.Exit(1 if work.failed else 0)


@app.command()
def status(study: StudyFile, overrides: Overrides = None, as_json: Json = False) -> None:
    """Say how far a study's run is, and how long it will take. Starts nothing."""
    from mtdlr.store import run_status

    rows = run_status(run_folder(study, load_study(study, overrides)))
    print_result(rows, as_json, "\n".join(f"{name:<16} {value}" for name, value in rows.items()))


@app.command()
def cluster(
    study: StudyFile,
    slurm: Annotated[bool, typer.Option("--slurm", help="Write a script that submits every job with sbatch.")] = False,
    shards: Annotated[int, typer.Option(help="Jobs that share the patients.", min=1)] = 20,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Script to write.", show_default=False)] = None,
    overrides: Overrides = None, as_json: Json = False,
) -> None:
    """Write the script that runs a study in many jobs: for SLURM, or for a plain shell."""
    from mtdlr.cohort import HeaderReader, read_cohort
    from mtdlr.store import require_writable
    from mtdlr.workers import Workers
    from mtdlr.workers.cluster import SHELL, SLURM, Plan, job_script

    settings = load_study(study, overrides)
    reader = HeaderReader(Workers(settings.run.workers), run_folder(study, settings), writes=False)
    centers = read_cohort(settings.cohort, reader).of("training").table["center"].nunique() if (
        settings.score.folds == "center") else 1
    folds = settings.score.n_folds(centers)
    target = output or Path(f"{study.stem}.{'slurm' if slurm else 'shell'}.sh")
    require_writable(target)
    plan = Plan(f"{sys.executable} -m mtdlr", study.resolve(), folds, shards, tuple(overrides or ()))
    target.write_text(job_script(plan, SLURM if slurm else SHELL), encoding="utf-8")
    target.chmod(0o755)
    print_result({"script": str(target), "shards": shards, "folds": folds}, as_json,
           f"wrote {target}: read it, then `bash {target}`")


app.command()(predict)
app.command()(send)
app.command()(fetch)
app.command()(serve)


@dataclass(frozen=True)
class _FeatureOptions:
    """Of `mtdlr features`."""

    images: Annotated[Path, typer.Argument(help="A CSV, or a folder of scans with masks. Columns: patient_id, pet, ct, "
                                                "mask (pet or ct may be empty); or Image, Mask and, if you like, ID, "
                                                "Modality, Timepoint, Label. Paths start at the CSV's folder.",
                                           show_default=False)]
    output: Annotated[Path, typer.Option("-o", "--output", help="CSV to write.")] = Path("features.csv")
    profile: Annotated[str, typer.Option(help="paper1456 (1456 features), ibsi (recommended for new work), or a "
                                              "PyRadiomics parameter file (YAML).")] = "paper1456"
    spacing_mm: Annotated[float, typer.Option(help="Voxel size (not with a parameter file).", min=0.25)] = 2.0
    pet_bin_width: Annotated[float, typer.Option(help="Grey-level bin of PET, in SUV (not with a parameter file).",
                                                 min=1e-6)] = 0.25
    ct_bin_width: Annotated[float, typer.Option(help="Grey-level bin of CT, in HU, and of images without a Modality "
                                                     "(not with a parameter file).", min=1e-6)] = 25.0
    workers: Annotated[int, typer.Option(help="Processes side by side.", min=1)] = 1
    as_json: Json = False


@app.command()
@options_of(_FeatureOptions)
def features(options: _FeatureOptions) -> None:
    """Extract radiomics features inside given masks: one row a patient.

    A stopped run goes on where it was: give the same command again. A patient that fails keeps an empty row and is
    named, with the reason; the others are not touched by it.
    """
    from mtdlr.radiomics.table import write_features
    from mtdlr.study import RadiomicsSettings
    from mtdlr.workers import Workers

    settings = RadiomicsSettings(profile=options.profile, spacing_mm=options.spacing_mm,
                                 pet_bin_width=options.pet_bin_width, ct_bin_width=options.ct_bin_width)
    problems = write_features(options.images, options.output, settings,
                              workers=Workers(options.workers, 1, progress(options.as_json)))
    for problem in problems:
        typer.echo(str(problem), err=True)
    failed = {patient for p in problems if p.is_error for patient in p.patients}
    table = str(options.output)
    print_result({"table": table, "problems": [p.as_dict() for p in problems]}, options.as_json,
                 f"wrote {table}" + (f"; rows without features: {len(failed)}" if failed else ""))
    raise typer.Exit(1 if failed else 0)


app.add_typer(sizes, name="samplesize")
app.command()(validate)
app.command()(export)


@app.command()
def doctor(as_json: Json = False) -> None:
    """Print the versions and the machine, for a bug report, and test a card's arithmetic. No patient data."""
    from mtdlr.versions import EXTRAS, free_disk_gb, is_installed, memory_gb, versions

    if is_installed("networks"):
        from mtdlr.nets.device import device_facts
    else:
        def device_facts() -> dict[str, str]:
            return {"device": "none, without mtdlr[networks]"}

    memory = memory_gb()
    facts = versions() | {"memory": "not known" if memory is None else f"{memory:.1f} GB",
                          "free disk here": f"{free_disk_gb(Path()):.1f} GB"} | device_facts()
    facts |= {"extras": ", ".join(filter(is_installed, EXTRAS)) or "none"}
    print_result(facts, as_json, "\n".join(f"{name:<14} {value}" for name, value in facts.items()))


def main() -> None:
    """Entry point: errors of the user are one line each, never a traceback."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    os.environ.setdefault("PYTHONWARNINGS", "ignore:resource_tracker")  # said by multiprocessing when we are stopped
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        app()
    except MtdlrError as error:
        _complain(error.problems)
        sys.exit(2)
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and (problem := _missing_extra(error)):
            _complain([problem])
            sys.exit(2)
        if isinstance(error, OSError) and (problem := _disk(error)):
            _complain([problem])
            sys.exit(2)
        # The text of a foreign error may hold a patient's file name; the places in the code do not.
        frames = traceback.extract_tb(error.__traceback__)
        typer.echo("".join(f"  {Path(f.filename).name}:{f.lineno} {f.name}\n" for f in frames), err=True, nl=False)
        _complain([Problem("E-INTERNAL", f"{type(error).__name__}: this is our bug",
                           remedy="Please report the lines above with `mtdlr doctor`")])
        sys.exit(3)


def _disk(error: OSError) -> Problem | None:
    from mtdlr.store import disk_problem

    return disk_problem(error)


def _missing_extra(error: ModuleNotFoundError) -> Problem | None:
    from mtdlr.versions import missing_extra

    return missing_extra(error)


_HELD: list[Path] = []
"""Run folders that this process works in: what it trains there is given back when it is stopped."""


def _complain(problems: Sequence[Problem]) -> None:
    """One line each on standard error; with --json, also JSON on standard output."""
    for problem in problems:
        typer.echo(str(problem), err=True)
    if "--json" in sys.argv[1:]:
        typer.echo(json.dumps({"problems": [p.as_dict() for p in problems]}, indent=1))


def _stop(number: int, _: object) -> None:
    """End at once, workers first: what is stored is whole, and the rest is made again or goes on where it was."""
    children = multiprocessing.active_children()
    for child in children:
        child.kill()
    for child in children:
        child.join(2)
    for folder in _HELD:
        from mtdlr.store import release

        release(folder, {os.getpid(), *(child.pid or 0 for child in children)})
    os.write(2, b"stopped; run the same command again to go on\n")
    os._exit(128 + number)


def _shares(patients: int) -> tuple[int, int, int]:
    """Training, internal and external patients; more external ones than in the paper, for they cost no training."""
    external, internal = round(patients * 0.35), round(patients * 0.15)
    return patients - external - internal, internal, external


def _say(text: str, as_json: bool) -> None:
    typer.echo(text, err=as_json)
