"""`townlet-train evaluate`: what a checkpoint or a scripted policy earns on fixed seeds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from townlet_train.cli.options import ConfigFiles, Env, JsonOutput, Preset, Seed, Sets
from townlet_train.errors import UnknownNameError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from townlet_train.config import RunConfig
    from townlet_train.contract import Progress
    from townlet_train.results import EvaluationDTO

MOST_TOWNS = 64

CheckpointPath = Annotated[
    Path | None,
    typer.Argument(metavar="CHECKPOINT", help="Checkpoint to evaluate, e.g. a run's ..._model.zip."),
]
PolicyName = Annotated[
    str | None,
    typer.Option("--policy", help="Scripted policy instead of a checkpoint: expert, random or idle."),
]
Episodes = Annotated[int | None, typer.Option("--episodes", min=1, help="Episodes, one seed each.")]
Deterministic = Annotated[
    bool | None,
    typer.Option(
        "--deterministic/--sampled", help="Take the most probable action, or sample.", show_default=False
    ),
]


def command(
    context: typer.Context,
    checkpoint: CheckpointPath = None,
    policy: PolicyName = None,
    env: Env = None,
    episodes: Episodes = None,
    seed: Seed = None,
    deterministic: Deterministic = None,
    config: ConfigFiles = None,
    sets: Sets = None,
    preset: Preset = None,
    json_output: JsonOutput = False,
) -> int:
    """Measure a checkpoint or a scripted policy on fixed seeds.

    Seeds are consecutive from --seed, one episode each. Seeds the checkpoint was trained on are warned of.
    """
    from townlet_train.cli.output import emit, log_to_stderr, reporting
    from townlet_train.cli.session import load_settings

    log_to_stderr(verbose=False)
    if (checkpoint is None) == (policy is None):
        raise UsageError("Name one thing to evaluate: a CHECKPOINT, or a scripted one with --policy expert.")
    named = {
        "env": env,
        "evaluation.episodes": episodes,
        "evaluation.seed": seed,
        "evaluation.deterministic": deterministic,
    }
    settings = load_settings(context, files=config, preset=preset, sets=sets, named=named)
    with reporting() as report:
        result = evaluate_named(settings.config, checkpoint=checkpoint, scripted=policy, report=report)
    return emit(result, json_output=json_output)


def evaluate_named(
    config: RunConfig, *, checkpoint: Path | None, scripted: str | None, report: Callable[[Progress], None]
) -> EvaluationDTO:
    """Evaluate one checkpoint or one scripted policy as `config.evaluation` says."""
    from townlet_train.contract import Progress
    from townlet_train.envs.town import TownVectorEnv
    from townlet_train.services.evaluation import evaluate, load_policy

    if config.env != "town":
        raise UnknownNameError("environment", config.env, ["town"])
    seeds = range(config.evaluation.seed, config.evaluation.seed + config.evaluation.episodes)
    env = TownVectorEnv(config.town, min(len(seeds), MOST_TOWNS))
    policy, warnings = load_policy(
        env.spec,
        checkpoint=checkpoint,
        scripted=scripted,
        deterministic=config.evaluation.deterministic,
        seeds=seeds,
    )
    return evaluate(
        policy,
        env,
        seeds,
        deterministic=config.evaluation.deterministic or scripted in ("expert", "idle", "fasting"),
        report=lambda done, total: report(Progress(f"evaluate {policy.name}", done, total, {})),
        warnings=warnings,
    )
