"""Options that several commands share, so that they are spelt and explained once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ConfigFiles = Annotated[
    list[Path] | None,
    typer.Option(
        "--config", metavar="<path>", help="YAML, TOML or JSON file of settings; repeat it, later files win."
    ),
]
Sets = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="One setting by its dotted name, e.g. town.n_agents=4; repeatable."
    ),
]
Preset = Annotated[str | None, typer.Option("--preset", help="Settings shipped under a name, e.g. town-v1.")]
Seed = Annotated[int | None, typer.Option("--seed", help="Seed of every random stream.")]
Env = Annotated[str | None, typer.Option("--env", help="Environment id: town, or any of Gymnasium's.")]
OutputDir = Annotated[Path | None, typer.Option("--output-dir", help="Directory to leave everything in.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is already there.")]
Verbose = Annotated[bool, typer.Option("--verbose", help="Log more to standard error.")]
JsonOutput = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of tables.")]
Deterministic = Annotated[
    bool | None,
    typer.Option(
        "--deterministic/--sampled", help="Take the most probable action, or sample.", show_default=False
    ),
]

OTHER_NAMES = {
    "--batch": "--batch-size",
    "--clip-coef": "--clip-range",
    "--discount": "--gamma",
    "--entropy-coef": "--ent-coef",
    "--env-id": "--env",
    "--epochs": "--n-epochs",
    "--lam": "--gae-lambda",
    "--lr": "--learning-rate",
    "--max-steps": "--timesteps",
    "--minibatch-size": "--batch-size",
    "--num-envs": "--n-envs",
    "--num-epochs": "--n-epochs",
    "--num-steps": "--n-steps",
    "--num-timesteps": "--timesteps",
    "--num-workers": "--n-workers",
    "--out": "--output-dir",
    "--output": "--output-dir",
    "--resume": "--resume-from",
    "--steps": "--timesteps",
    "--total-timesteps": "--timesteps",
    "--update-epochs": "--n-epochs",
    "--value-coef": "--vf-coef",
    "--workers": "--n-workers",
}
"""What other libraries call an option, and what it is called here; nothing of this is accepted, only suggested."""
