"""`townlet-train runs`: look at run directories, compare them, and free what they can do without."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from townlet_train.cli.options import JsonOutput
from townlet_train.cli.output import emit, write
from townlet_train.errors import ExitCode, UsageError

app = typer.Typer()

HERE = Path()

Roots = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="[DIR]...", help="Directories to search; unset: the working directory.", show_default=False
    ),
]
RunDir = Annotated[Path, typer.Argument(metavar="RUN", help="Directory of a run.")]


@app.command("list")
def list_runs(
    roots: Roots = None,
    status: Annotated[
        str | None, typer.Option("--status", help="Only runs of this status, e.g. finished or killed.")
    ] = None,
    env: Annotated[str | None, typer.Option("--env", help="Only runs in this environment.")] = None,
    json_output: JsonOutput = False,
) -> int:
    """List every run below some directories: status, steps, return, size."""
    from townlet_train.services import recorded

    return emit(recorded.list_runs(roots or [HERE], status=status, env=env), json_output=json_output)


@app.command()
def show(run: RunDir, json_output: JsonOutput = False) -> int:
    """Show what a run wrote down: settings, versions, lineage, where it is, what it left."""
    from townlet_train.services.recorded import show_run

    return emit(show_run(run), json_output=json_output)


@app.command()
def diff(
    first: Annotated[Path, typer.Argument(metavar="RUN", help="Directory of a run.")],
    second: Annotated[Path, typer.Argument(metavar="RUN", help="Directory of another.")],
    json_output: JsonOutput = False,
) -> int:
    """Tell in what two runs differ: settings, versions, and what they reached."""
    from townlet_train.services.run_diff import diff_runs

    return emit(diff_runs(first, second), json_output=json_output)


@app.command()
def tail(
    run: RunDir,
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, help="How many.")] = 10,
    follow: Annotated[
        bool, typer.Option("--follow", help="Go on until the run ends, a JSON line each.")
    ] = False,
    json_output: JsonOutput = False,
) -> int:
    """Show the last lines that a run recorded."""
    if follow and json_output:
        raise UsageError("--follow prints JSON lines as they come, --json one document. Choose one of them.")
    from townlet_train.services.run_tail import follow_run, tail_run

    if not follow:
        return emit(tail_run(run, lines), json_output=json_output)
    for line in follow_run(run, lines):
        write(line)
    return ExitCode.OK


@app.command()
def gc(
    roots: Roots = None,
    keep: Annotated[int, typer.Option("--keep", min=1, help="Newest checkpoints that every run keeps.")] = 2,
    delete: Annotated[bool, typer.Option("--delete", help="Delete what is listed.")] = False,
    json_output: JsonOutput = False,
) -> int:
    """List older checkpoints and half-written files of runs that are not at work; with --delete remove them.

    A model file stays, and so does every checkpoint that a run or a promotion below the same directories names.
    """
    from townlet_train.services.leftovers import collect_leftovers

    return emit(collect_leftovers(roots or [HERE], keep=keep, delete=delete), json_output=json_output)
