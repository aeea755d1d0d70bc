"""`townlet-train evaluate`: what a checkpoint or a scripted policy earns on fixed seeds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from townlet_train.cli.options import ConfigFiles, Deterministic, Env, JsonOutput, Preset, Sets
from townlet_train.cli.output import emit, reporting
from townlet_train.errors import UsageError
from townlet_train.policies.experts import SCRIPTED_HELP

CheckpointPath = Annotated[
    Path | None,
    typer.Argument(metavar="CHECKPOINT", help="Checkpoint to evaluate, e.g. a run's ..._model.zip."),
]
PolicyName = Annotated[
    str | None,
    typer.Option("--policy", help=f"Scripted policy instead of a checkpoint: {SCRIPTED_HELP}."),
]
FirstSeed = Annotated[
    int | None, typer.Option("--seed", help="Seed of the first episode; the others count up from it.")
]
Episodes = Annotated[int | None, typer.Option("--episodes", help="Episodes, one seed each.")]


def command(
    context: typer.Context,
    checkpoint: CheckpointPath = None,
    policy: PolicyName = None,
    env: Env = None,
    episodes: Episodes = None,
    seed: FirstSeed = None,
    deterministic: Deterministic = None,
    config: ConfigFiles = None,
    sets: Sets = None,
    preset: Preset = None,
    json_output: JsonOutput = False,
) -> int:
    """Measure a checkpoint or a scripted policy on fixed seeds.

    Seeds are consecutive from --seed, one episode each. Seeds the checkpoint was trained on are warned of.
    """
    from townlet_train.cli.session import experts_for, in_env_of, load_settings

    if (checkpoint is None) == (policy is None):
        raise UsageError("Name one thing to evaluate: a CHECKPOINT, or a scripted one with --policy expert.")
    named = {
        "env": env,
        "evaluation.episodes": episodes,
        "evaluation.seed": seed,
        "evaluation.deterministic": deterministic,
    }
    settings = load_settings(context, files=config, preset=preset, sets=sets, named=named)

    from townlet_train.contract import Progress
    from townlet_train.services.evaluation import evaluate_as_configured

    with reporting() as report:
        result = evaluate_as_configured(
            settings.config if checkpoint is None else in_env_of(context, settings, [checkpoint]),
            checkpoint=checkpoint,
            scripted=policy,
            experts=experts_for(context, policy),
            report=lambda done, total: report(Progress("evaluating", done, total, {})),
        )
    return emit(result, json_output=json_output)
