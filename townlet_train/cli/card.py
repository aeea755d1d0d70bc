"""`townlet-train card`: a model card from what a run wrote down."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from townlet_train.cli.options import JsonOutput, Overwrite
from townlet_train.cli.output import emit, warn, write


def command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Directory of a run.")],
    output: Annotated[
        Path | None, typer.Option("--output", help="Markdown file to write; unset: standard output.")
    ] = None,
    overwrite: Overwrite = False,
    json_output: JsonOutput = False,
) -> int:
    """Write a model card in Markdown, from recorded facts only; what was not recorded is said to be so."""
    from townlet_train.services.card import write_card

    card = write_card(run, output, overwrite=overwrite)
    if json_output:
        return emit(card, json_output=True)
    write(card.markdown if output is None else f"Written to {output}.")
    return warn(card.warnings)
