"""The verb `export`: a frozen model in the formats of others."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mtdlr.cli.words import Json, print_result, usage


def export(
    bundle: Annotated[Path, typer.Argument(help="A model folder made by `mtdlr run`.", show_default=False)],
    to: Annotated[str, typer.Option("--to", help="monai, hf (Hugging Face), bids or fhir.", show_default=False)],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder to make.", show_default="export-FORMAT")
                   ] = None,
    licence: Annotated[str, typer.Option(help="Licence of the model, an SPDX identifier such as CC-BY-4.0; without it "
                                              "the card says that it is not stated.")] = "",
    author: Annotated[list[str] | None, typer.Option(help="An author of the model; repeatable.")] = None,
    as_json: Json = False,
) -> None:
    """Write a frozen model, with its model card, as MONAI, Hugging Face, BIDS or FHIR keep models.

    Writes files only: no connection is opened.
    """
    from mtdlr.report.export.card import Terms
    from mtdlr.report.export.write import export_model

    if to not in ("monai", "hf", "bids", "fhir"):
        raise usage("E-OPTION", "no such format", to, "One of monai, hf, bids, fhir")
    target = out or Path(f"export-{to}")
    files = export_model(bundle, target, to, terms=Terms(licence, tuple(author or ())))  # type: ignore[arg-type]
    print_result({"folder": str(target), "files": files}, as_json, f"wrote {target}: {', '.join(files)}")
