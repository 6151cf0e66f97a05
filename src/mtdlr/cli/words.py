"""Options and output that every verb shares."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def print_result(values: Any, as_json: bool, text: str) -> None:
    """The text, or with --json the values."""
    typer.echo(json.dumps(values, indent=1, default=str) if as_json else text)
