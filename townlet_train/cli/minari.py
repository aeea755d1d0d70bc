"""`townlet-train minari`: Minari datasets as demonstrations, and captures as Minari datasets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from townlet_train.cli.options import JsonOutput, Overwrite
from townlet_train.cli.output import emit

app = typer.Typer()


@app.command("import")
def import_dataset(
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="Id of a dataset on this machine.")],
    output: Annotated[Path, typer.Option("--output", help="Directory to create.", show_default=False)],
    env: Annotated[
        str | None, typer.Option("--env", help="Environment it is of; unset: as the dataset says.")
    ] = None,
    overwrite: Overwrite = False,
    json_output: JsonOutput = False,
) -> int:
    """Write a Minari dataset as demonstrations for `bc`: any observations of fixed size, discrete actions."""
    from townlet_train.services.minari import import_minari

    return emit(import_minari(dataset, output, env=env, overwrite=overwrite), json_output=json_output)


@app.command("export")
def export_dataset(
    path: Annotated[Path, typer.Argument(help="A manifest or capture directory with samples.")],
    dataset: Annotated[
        str, typer.Option("--dataset", help="Id to create, e.g. town/expert-v0.", show_default=False)
    ],
    json_output: JsonOutput = False,
) -> int:
    """Write a capture as a Minari dataset that `minari` validates, lists and loads."""
    from townlet_train.services.minari import export_minari

    return emit(export_minari(path, dataset), json_output=json_output)
