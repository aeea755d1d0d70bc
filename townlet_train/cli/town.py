"""`townlet-train town`: look at the embedded town and prepare its kernels."""

from __future__ import annotations

import typer

from townlet_train.cli.options import ConfigFiles, JsonOutput, Preset, Sets
from townlet_train.cli.output import emit, log_to_stderr

app = typer.Typer()


@app.command()
def show(
    context: typer.Context,
    config: ConfigFiles = None,
    sets: Sets = None,
    preset: Preset = None,
    json_output: JsonOutput = False,
) -> int:
    """Print the feasibility budget: what living takes, before a tick is run."""
    from townlet_train.cli.session import load_settings
    from townlet_train.sim.feasibility import compute_budget

    settings = load_settings(context, files=config, preset=preset, sets=sets, named={})
    return emit(compute_budget(settings.config.town_in_cycle()), json_output=json_output)


@app.command("warm-up")
def warm_up(json_output: JsonOutput = False) -> int:
    """Compile the town's rules for this machine now, so that the first run need not."""
    from townlet_train.envs.town import warm_up as compile_kernels
    from townlet_train.results import KernelCacheDTO
    from townlet_train.sim.kernels import cache_folder

    log_to_stderr()
    compile_kernels()
    return emit(KernelCacheDTO(folder=str(cache_folder())), json_output=json_output)
