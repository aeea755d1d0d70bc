"""`townlet-train demo`: from nothing to a released policy that is better than its teacher, command by command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from townlet_train.cli.options import JsonOutput, Overwrite
from townlet_train.cli.output import emit, reporting, verdict_code
from townlet_train.cli.scenes import Scenes
from townlet_train.cli.session import load_settings, session_registry
from townlet_train.cli.story import PRESET, Story
from townlet_train.errors import ExitCode


def command(
    context: typer.Context,
    output_dir: Annotated[
        Path, typer.Option("--output-dir", help="Directory to leave everything in.")
    ] = Path("demo"),
    seed: Annotated[int, typer.Option("--seed", help="Seed of the demonstrations and of the training.")] = 1,
    overwrite: Overwrite = False,
    json_output: JsonOutput = False,
) -> int:
    """Capture the expert, clone it, anneal, gate and promote; every step says which command does it.

    The exit code is 0 when it ends with a promoted release, otherwise that of the gate's verdict: HOLD 10, FAIL 11.
    """
    registry = session_registry(context)
    for strategy in ("bc", "anneal"):
        registry.select(strategy)
    settings = load_settings(context, preset=PRESET, named={"seed": seed})
    with reporting() as report:
        result = Story(Scenes(settings, registry, output_dir, overwrite=overwrite, report=report)).run()
    code = emit(result, json_output=json_output)
    return code if result.promoted else verdict_code(result.verdict, ExitCode.FAILED)
