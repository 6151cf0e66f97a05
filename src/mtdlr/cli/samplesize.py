"""The verb `samplesize`: how many patients a model needs."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from mtdlr.cli.words import Json, print_result

sizes = typer.Typer(help="How many patients a survival model needs, to be developed or to be validated.",
                    no_args_is_help=True, rich_markup_mode=None)


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
    print_result(asdict(size), as_json, str(size))


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
    print_result(asdict(size) | {"needed": needed}, as_json, f"{size}" + (f"\nwrote {output}" if output else ""))
