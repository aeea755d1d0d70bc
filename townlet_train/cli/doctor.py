"""`townlet-train doctor`: measure whether things are as they should be."""

from __future__ import annotations

import typer

from townlet_train.cli.options import ConfigFiles, JsonOutput, Preset, Sets
from townlet_train.cli.output import emit, reporting

app = typer.Typer()


@app.callback()
def doctor() -> None:
    """Measure whether things are as they should be."""


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
