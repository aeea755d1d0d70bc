"""`townlet-train import-sb3`: a model file of Stable-Baselines3 as a checkpoint, without unpickling anything."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer
from pydantic import Field

from townlet_train.api import ResultDTO, UsageError
from townlet_train_sb3.needed import check_installed

app = typer.Typer(help="Make a checkpoint of a model file of Stable-Baselines3.", rich_markup_mode=None)


class SB3ImportDTO(ResultDTO):
    """A model file of Stable-Baselines3, and the checkpoint made of it."""

    model: str = Field(description="path of the model file")
    model_sha256: str = Field(description="sha256 of its bytes; the parent in the checkpoint's lineage")
    stable_baselines3: str | None = Field(None, description="version that wrote it, where it says")
    env: str = Field(description="environment that the policy is for")
    hidden_sizes: tuple[int, ...] = Field(description="widths of the hidden layers")
    activation: str = Field(description="of the hidden layers, tanh or relu")
    training_seeds: tuple[tuple[int, int], ...] = Field(
        (), description="environment seeds it trained on, (first, last) each; empty where it does not say"
    )
    checkpoint: str = Field(description="path of the checkpoint")
    checkpoint_sha256: str = Field(description="sha256 of its bytes")


@app.command()
def import_sb3(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="A zip that model.save(...) of PPO or A2C wrote.")
    ],
    env: Annotated[str, typer.Option("--env", help="Environment it was trained in.", show_default=False)],
    output: Annotated[Path, typer.Option("--output", help="Checkpoint to write.", show_default=False)],
    activation: Annotated[
        Literal["tanh", "relu"] | None,
        typer.Option(
            "--activation", help="Of the hidden layers, where the file does not say.", show_default=False
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is already there.")] = False,
    json_output: Annotated[
        bool, typer.Option("--json", help="Print one JSON document instead of tables.")
    ] = False,
) -> SB3ImportDTO:
    """Make a checkpoint of a model file of Stable-Baselines3's PPO or A2C with an MlpPolicy.

    Nothing in the file is unpickled: the policy is known by the names and shapes of its arrays, and by what is written
    beside the pickles in plain words. What cannot be known so is refused.
    """
    if output.is_dir() or (output.exists() and not overwrite):
        raise UsageError(f"{output} exists. Choose another --output or pass --overwrite.")
    check_installed("import-sb3", "torch")
    from townlet_train_sb3.importing import import_model

    return import_model(model, env, output, activation)
