"""`townlet-train schema`: JSON Schemas of what commands print and leave."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from townlet_train.cli.options import JsonOutput
from townlet_train.cli.output import emit, write
from townlet_train.errors import ExitCode, UsageError


def command(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME]",
            help="Document to describe, or the command of ours that prints it; unset: list them.",
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", help="Directory to write every schema to, {name}.json each.")
    ] = None,
    json_output: JsonOutput = False,
) -> int:
    """Print the JSON Schema of a result or a file, or list all that have one."""
    from townlet_train.services.schemas import list_schemas, schema_of

    if not words:
        return emit(list_schemas(output), json_output=json_output)
    if output is not None:
        raise UsageError("--output writes every schema. Leave the name out, or redirect standard output.")
    from townlet_train.files import to_json

    write(to_json(schema_of(" ".join(words)), indent=2))
    return ExitCode.OK
