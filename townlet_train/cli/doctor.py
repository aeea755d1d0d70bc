"""`townlet-train doctor`: measure whether things are as they should be."""

from __future__ import annotations

import typer

from townlet_train.cli.options import ConfigFiles, JsonOutput, Preset, Sets
from townlet_train.cli.output import emit, reporting
from townlet_train.cli.session import session_listing
from townlet_train.errors import ExitCode

app = typer.Typer()


@app.callback(invoke_without_command=True)
def doctor(context: typer.Context, json_output: JsonOutput = False) -> int:
    """Tell what this machine offers and what is installed: Python, torch, processor, disk, extras, plugins.

    What keeps the program from working as it is installed is a warning; a missing extra is none.
    """
    if context.invoked_subcommand is not None:
        return ExitCode.OK
    from townlet_train.results import PluginHealthDTO
    from townlet_train.services.machine import examine_machine
    from townlet_train.services.runs import EXPERIMENTS

    listing = session_listing(context)
    plugins = [
        PluginHealthDTO(
            plugin=each.name,
            distribution=each.distribution,
            version=each.version,
            status=each.status.value,
            reason=listing.reason(each),
        )
        for each in listing.plugins
    ]
    return emit(examine_machine(EXPERIMENTS, plugins), json_output=json_output)


@app.command()
def town(
    context: typer.Context,
    config: ConfigFiles = None,
    sets: Sets = None,
    preset: Preset = None,
    json_output: JsonOutput = False,
) -> int:
    """Measure on fixed seeds whether the town is worth training on; a promise it misses is a warning."""
    from townlet_train.cli.session import load_settings
    from townlet_train.contract import Progress
    from townlet_train.services.doctor import examine_town

    settings = load_settings(context, files=config, preset=preset, sets=sets, named={})
    with reporting() as report:
        result = examine_town(
            settings.config.town_in_cycle(),
            lambda done, total: report(Progress("examining the town", done, total, {})),
        )
    return emit(result, json_output=json_output)
