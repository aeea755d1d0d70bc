"""`townlet-train export`: a policy in a format of other programs."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated

import typer

from townlet_train.cli.options import JsonOutput, Overwrite
from townlet_train.cli.output import emit
from townlet_train.cli.session import session_registry
from townlet_train.errors import UnknownNameError


def command(
    context: typer.Context,
    checkpoint: Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="E.g. a run's ..._model.zip.")],
    format_name: Annotated[
        str,
        typer.Option(
            "--format", help="onnx, safetensors, npz, torchscript, or a plugin's.", show_default=False
        ),
    ],
    output: Annotated[Path, typer.Option("--output", help="File to write.", show_default=False)],
    overwrite: Overwrite = False,
    json_output: JsonOutput = False,
) -> int:
    """Write a checkpoint's policy for other programs, normaliser and mask inside.

    What is written is run on random observations beside the checkpoint, and is left only if it acts alike; a warning
    says so where a plugin's format cannot be run.
    """
    from townlet_train.services.export import FORMATS, Format, export_checkpoint

    formats = dict(FORMATS)
    if format_name not in formats:
        registry = session_registry(context)
        formats |= {name: Format(*exporter, gives=()) for name, exporter in registry.exporters().items()}
        if format_name not in formats:
            raise UnknownNameError("format", format_name, formats, registry.hint(format_name))
    with redirect_stdout(sys.stderr):
        result = export_checkpoint(checkpoint, format_name, output, overwrite=overwrite, formats=formats)
    return emit(result, json_output=json_output)
