"""The verbs `send` and `fetch`: a prediction into an archive, one examination out of it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from mtdlr.cli.words import Json, print_result, usage

_VARIABLE = "MTDLR_PACS_CREDENTIALS"
Url = Annotated[str, typer.Option("--dicomweb", metavar="URL", help="Address of the archive's DICOMweb service.",
                                  show_default=False)]
Credentials = Annotated[Path | None, typer.Option(metavar="FILE", help="File with USER:PASSWORD or Bearer TOKEN in one "
                                                  f"line; otherwise the environment's {_VARIABLE}.")]


def send(
    folder: Annotated[Path, typer.Argument(help="A folder written by `mtdlr predict --dicom`.", show_default=False)],
    url: Url,
    credentials: Credentials = None,
    as_json: Json = False,
) -> None:
    """Send the DICOM objects of a prediction to an archive, and check that it holds them."""
    archive = _archive(url, credentials)
    from mtdlr.pacs import send as send_objects

    digests = send_objects(folder, archive)
    print_result({"held": digests}, as_json, f"{len(digests)} objects sent, read back and equal: {', '.join(digests)}")


def fetch(
    study: Annotated[str, typer.Argument(help="StudyInstanceUID (0020,000D) of the examination.", show_default=False)],
    url: Url,
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for PET and CT.")] = Path("examination"),
    credentials: Credentials = None,
    as_json: Json = False,
) -> None:
    """Pull PET and CT of one examination from an archive: every image that it lists, or nothing."""
    archive = _archive(url, credentials)
    from mtdlr.pacs import fetch as fetch_study

    images = fetch_study(study, output, archive)
    series = ", ".join(f"{name} {number} images" for name, number in images.items())
    print_result({"images": images}, as_json, f"wrote {output}: {series}")


def _archive(url: str, credentials: Path | None) -> Any:
    """The archive with what it is entered with."""
    from mtdlr.versions import require_extra

    require_extra("dicom", "an archive")
    from mtdlr.pacs import Archive, authorization

    try:
        line = os.environ.get(_VARIABLE, "") if credentials is None else credentials.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise usage("E-PACSLOGIN", "the file of --credentials cannot be read", credentials.name if credentials else "",
                    "Give a text file of one line") from None
    return Archive(url, authorization(line))
