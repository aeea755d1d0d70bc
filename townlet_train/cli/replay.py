"""`townlet-train replay`: look at captured demonstrations, check them, split them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from townlet_train.cli.options import JsonOutput, Overwrite
from townlet_train.cli.output import emit
from townlet_train.errors import ExitCode

app = typer.Typer()

Recording = Annotated[Path, typer.Argument(help="A manifest, a capture directory or one .npz sample.")]


@app.command()
def inspect(path: Recording, json_output: JsonOutput = False) -> int:
    """Say what a recording holds: sizes, layout, actions, returns, conflicts."""
    from townlet_train.services.replay import ReplayDatasetService

    return emit(ReplayDatasetService().inspect(path), json_output=json_output)


@app.command()
def validate(path: Recording, json_output: JsonOutput = False) -> int:
    """Check everything in a recording and name every problem; exit code 2 when there is one."""
    from townlet_train.services.replay import ReplayDatasetService

    result = ReplayDatasetService().validate(path)
    code = emit(result, json_output=json_output)
    return code if result.valid else ExitCode.FAILED


@app.command()
def split(
    path: Recording,
    fraction: Annotated[float, typer.Option("--fraction", help="Share of the episodes to hold out.")] = 0.2,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the choice.")] = 42,
    output: Annotated[
        Path | None,
        typer.Option("--output", help="Directory for the two manifests; unset: beside the recording."),
    ] = None,
    overwrite: Overwrite = False,
    json_output: JsonOutput = False,
) -> int:
    """Write two manifests that share no episode: one to train on, one held out."""
    from townlet_train.services.replay import ReplayDatasetService

    service = ReplayDatasetService()
    result = service.split(path, fraction=fraction, seed=seed, output=output, overwrite=overwrite)
    return emit(result, json_output=json_output)
