"""The command of a strategy, made from its params model: built-in or third-party, all are made here."""

from __future__ import annotations

import inspect
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from townlet_train.cli.commands import COMMANDS
from townlet_train.cli.lazy import QuickCommand
from townlet_train.cli.options import (
    ConfigFiles,
    Env,
    JsonOutput,
    OutputDir,
    Overwrite,
    Preset,
    Seed,
    Sets,
    Verbose,
)
from townlet_train.cli.output import emit, log_to_stderr, reporting, verdict_code
from townlet_train.cli.params import TAKEN, given_values, option_annotation
from townlet_train.cli.session import load_settings, session_registry
from townlet_train.errors import CondaEnvironmentError

if TYPE_CHECKING:
    from townlet_train.contract import TrainingStrategy

DryRun = Annotated[bool, typer.Option("--dry-run", help="Check that the run could start, and stop.")]
CondaEnv = Annotated[
    str | None,
    typer.Option("--require-conda-env", metavar="NAME", help="Refuse to run in any other conda environment."),
]

ResumeFrom = Annotated[
    str | None,
    typer.Option(
        "--resume-from",
        metavar="PATH|latest",
        help="Go on from a checkpoint, as the same run; latest: the newest of the output directory.",
    ),
]
Fork = Annotated[
    bool, typer.Option("--fork", help="With --resume-from: begin a new run with the checkpoint's policy.")
]

SHARED: dict[str, tuple[Any, object]] = {
    "config": (ConfigFiles, None),
    "sets": (Sets, None),
    "preset": (Preset, None),
    "seed": (Seed, None),
    "env": (Env, None),
    "output_dir": (OutputDir, None),
    "resume_from": (ResumeFrom, None),
    "fork": (Fork, False),
    "dry_run": (DryRun, False),
    "overwrite": (Overwrite, False),
    "require_conda_env": (CondaEnv, None),
    "verbose": (Verbose, False),
    "json_output": (JsonOutput, False),
}
_PREFIX = "param_"


def strategy_command(strategy: type[TrainingStrategy], called: str) -> Any:
    """A command with an option for each param, beside those every strategy has; it is `called` by name or address.

    A param named like a shared option keeps its place in files and `--set`, and gets no option of its own.
    """
    fields = {name: field for name, field in strategy.Params.model_fields.items() if name not in TAKEN}

    def run(context: typer.Context, **options: Any) -> int:
        given = {name: options.pop(_PREFIX + name) for name in fields}
        return run_strategy_command(context, strategy, called, given, **options)

    parameters = [_parameter("context", typer.Context, inspect.Parameter.empty)]
    parameters += [
        _parameter(_PREFIX + name, option_annotation(name, field), None) for name, field in fields.items()
    ]
    parameters += [_parameter(name, annotation, default) for name, (annotation, default) in SHARED.items()]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # functions take the attribute
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    single = typer.Typer(rich_markup_mode=None, add_completion=False)
    single.command(called, cls=QuickCommand, help=strategy.summary, epilog=_commands_below(called))(run)
    return typer.main.get_command(single)


def _commands_below(called: str) -> str | None:
    """The commands that begin with a strategy's name, as the end of its help; None where there are none."""
    below = [f"`{name}`: {entry.help}" for name, entry in COMMANDS.items() if name.startswith(f"{called} ")]
    return f"See also {' '.join(below)}" if below else None


def run_strategy_command(
    context: typer.Context,
    strategy: type[TrainingStrategy],
    called: str,
    given: dict[str, object],
    *,
    config: list[Path] | None,
    sets: list[str] | None,
    preset: str | None,
    seed: int | None,
    env: str | None,
    output_dir: Path | None,
    resume_from: str | None,
    fork: bool,
    dry_run: bool,
    overwrite: bool,
    require_conda_env: str | None,
    verbose: bool,
    json_output: bool,
) -> int:
    """Resolve the settings, run the strategy and show what it found."""
    from townlet_train.orchestrator import run_strategy

    log_to_stderr(verbose=verbose)
    check_conda_environment(require_conda_env)
    registry = session_registry(context)
    registry.select(called)
    named: dict[str, object] = {"seed": seed, "env": env}
    named |= {
        f"{strategy.name}.{name}": value for name, value in given_values(strategy.Params, given).items()
    }
    settings = load_settings(context, files=config, preset=preset, sets=sets, named=named, chosen=strategy)
    with reporting() as report:
        result = run_strategy(
            called,
            settings.section(strategy.name),
            config=settings.config,
            origin=settings.origin,
            run_dir=output_dir,
            resume_from=resume_from,
            fork=fork,
            overwrite=overwrite,
            dry_run=dry_run,
            registry=registry,
            report=report,
        )
    return verdict_code(getattr(result, "status", None), emit(result, json_output=json_output))


def check_conda_environment(required: str | None) -> None:
    """Compare the active conda environment with the one a run insists on.

    Raises:
        CondaEnvironmentError: another one is active, or none.
    """
    active = os.environ.get("CONDA_DEFAULT_ENV")
    if required is not None and active != required:
        found = f"{active!r} is active" if active else "none is active"
        raise CondaEnvironmentError(
            f"The conda environment {required!r} is required and {found}. Run: conda activate {required}"
        )


def _parameter(name: str, annotation: Any, default: object) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
