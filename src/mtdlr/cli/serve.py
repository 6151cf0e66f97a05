"""The verb `serve`: a page for one patient at a time."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer


def serve(
    bundle: Annotated[Path, typer.Argument(help="A model folder made by `mtdlr run`.", show_default=False)],
    folder: Annotated[Path, typer.Option(help="Folder for uploads and results; a server that was killed finds its jobs "
                                              "there again.")] = Path("serve"),
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.", min=0, max=65535)] = 8000,
    host: Annotated[str, typer.Option(help="Address to listen on; others than 127.0.0.1 need --allow-remote.")
                    ] = "127.0.0.1",
    remote: Annotated[list[str] | None, typer.Option("--allow-remote", metavar="NAME", help="Let other machines in "
                                                     "that reach this one by this name; repeatable.")] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the results when the server ends; they are deleted "
                                                      "otherwise.")] = False,
) -> None:
    """Serve a frozen model as a page: send one PET/CT, read the prognosis, change a covariate.

    Prints the address to open. It holds a token that is made anew at every start.
    """
    from mtdlr.versions import require_extra

    require_extra("web", "the page")
    require_extra("networks", "the page")
    from mtdlr.serve.server import Address
    from mtdlr.serve.server import serve as run_server

    run_server(partial(_predictor, bundle.absolute()), folder.absolute(), Address(host, port, tuple(remote or ())),
               keep=keep, ready=_tell)


def _predictor(bundle: Path) -> Any:
    """Load the model; called in the worker alone, so that the server's own process never holds torch."""
    from mtdlr.serve.predictor import load_predictor

    return load_predictor(bundle)


def _tell(address: str) -> None:
    typer.echo(f"open {address}\nCtrl-C ends the server")
