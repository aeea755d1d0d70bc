"""`townlet-train rollout`: capture demonstrations."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from townlet_train.cli.options import ConfigFiles, Env, JsonOutput, Overwrite, Preset, Seed, Sets
from townlet_train.cli.output import emit, reporting
from townlet_train.policies.experts import SCRIPTED_HELP

app = typer.Typer()


@app.callback()
def rollout() -> None:
    """Capture demonstrations."""


@app.command()
def capture(
    context: typer.Context,
    output: Annotated[Path, typer.Option("--output", help="Directory to leave the capture in.")],
    policy: Annotated[str, typer.Option("--policy", help=f"Who acts: {SCRIPTED_HELP}.")] = "expert",
    ticks: Annotated[
        int | None, typer.Option("--ticks", help="Ticks in every town or other environment.")
    ] = None,
    towns: Annotated[
        int | None,
        typer.Option("--towns", "--envs", help="Towns or other environments, seeds counting up from --seed."),
    ] = None,
    store: Annotated[
        str | None, typer.Option("--store", help="npz: one file per life; memmap: arrays for large captures.")
    ] = None,
    compress: Annotated[
        bool | None, typer.Option("--compress/--no-compress", help="Compress npz files.")
    ] = None,
    maps: Annotated[bool, typer.Option("--maps/--no-maps", help="Store the local maps.")] = True,
    prefix: Annotated[str | None, typer.Option("--prefix", help="Start of every file name.")] = None,
    auto_seed_agents: Annotated[
        bool | None, typer.Option("--auto-seed-agents", help="Put agents into a town that has none.")
    ] = None,
    env: Env = None,
    seed: Seed = None,
    config: ConfigFiles = None,
    sets: Sets = None,
    preset: Preset = None,
    overwrite: Overwrite = False,
    json_output: JsonOutput = False,
) -> int:
    """Let a policy act and keep what it saw, did and got; the capture lands whole or not at all."""
    from townlet_train.cli.session import experts_for, load_settings
    from townlet_train.contract import Progress
    from townlet_train.services.rollout import capture_as_configured

    named = {
        "env": env,
        "seed": seed,
        "rollout.ticks": ticks,
        "rollout.towns": towns,
        "rollout.store": store,
        "rollout.compress": compress,
        "rollout.prefix": prefix,
        "rollout.auto_seed_agents": auto_seed_agents,
    }
    settings = load_settings(context, files=config, preset=preset, sets=sets, named=named).config
    with reporting() as report:
        result = capture_as_configured(
            settings,
            policy=policy,
            output=output,
            with_maps=maps,
            overwrite=overwrite,
            experts=experts_for(context, policy),
            report=lambda done, total: report(Progress("capture", done, total, {})),
        )
    return emit(result, json_output=json_output)
