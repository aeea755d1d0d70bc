"""`townlet-train replay`: look at captured demonstrations, check them, split, convert and merge them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from townlet_train.cli.options import JsonOutput, Overwrite
from townlet_train.cli.output import emit
from townlet_train.errors import ExitCode

app = typer.Typer()

Recording = Annotated[Path, typer.Argument(help="A manifest, a capture directory or one .npz sample.")]

NewCapture = Annotated[Path, typer.Option("--output", help="Directory to create.", show_default=False)]


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


@app.command()
def stats(
    path: Recording,
    held_out: Annotated[
        Path | None, typer.Option("--held-out", help="A recording that must share no episode with it.")
    ] = None,
    per_episode: Annotated[bool, typer.Option("--per-episode", help="Tell every episode's return.")] = False,
    json_output: JsonOutput = False,
) -> int:
    """Count what a recording of any size holds: returns, actions, repeated frames, and what it shares with another."""
    from townlet_train.services.recordings import recording_stats

    return emit(recording_stats(path, held_out=held_out, per_episode=per_episode), json_output=json_output)


@app.command()
def convert(
    path: Recording,
    output: NewCapture,
    store: Annotated[Literal["npz", "memmap"], typer.Option("--store", help="What to write.")],
    overwrite: Overwrite = False,
    json_output: JsonOutput = False,
) -> int:
    """Write a capture of samples as a large store, or a store as samples."""
    from townlet_train.services.recordings import convert_recording

    return emit(convert_recording(path, output, store, overwrite=overwrite), json_output=json_output)


@app.command()
def merge(
    paths: Annotated[list[Path], typer.Argument(metavar="RECORDING...", help="Two captures or more.")],
    output: NewCapture,
    overwrite: Overwrite = False,
    json_output: JsonOutput = False,
) -> int:
    """Make one recording of several: stores side by side, or one manifest of samples that stay where they are."""
    from townlet_train.services.recordings import merge_recordings

    return emit(merge_recordings(paths, output, overwrite=overwrite), json_output=json_output)
