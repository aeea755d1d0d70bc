"""What behaviour cloning can be told."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from townlet_train.api import BCTrainingResultDTO, StrategyParams


class BCParams(StrategyParams):
    """What behaviour cloning can be told."""

    may_change_on_resume: ClassVar[frozenset[str] | None] = frozenset(
        {
            "n_epochs",
            "patience",
            "device",
            "evaluate",
            "min_accuracy",
            "min_score_sampled",
            "min_score_greedy",
        }
    )

    say_env: ClassVar[tuple[str, ...]] = ("manifest",)

    manifest: Path | None = Field(
        None, description="demonstrations: a manifest, a capture directory or a sample"
    )
    learning_rate: float = Field(2e-3, gt=0, description="Adam's step size, falling linearly to 0")
    batch_size: int = Field(256, gt=0, description="frames per update")
    n_epochs: int = Field(8, gt=0, description="passes over the training frames at most")
    weight_decay: float = Field(0.0, ge=0, description="pull of the weights to 0")
    val_fraction: float = Field(0.2, gt=0, lt=1, description="share of the episodes held out")
    patience: int = Field(3, gt=0, description="stop after so many epochs without a lower held-out loss")
    network: Literal["mlp", "conflict_aware"] = Field(
        "mlp",
        description="of a clone from nothing: mlp reads the features; conflict_aware, as upstream's, the map too",
    )
    hidden_sizes: tuple[int, ...] | None = Field(
        None, min_length=1, description="hidden layer widths; unset: 64 64 for mlp, 256 for conflict_aware"
    )
    shared_trunk: bool = Field(
        False, description="actor and critic of an mlp are to read the same hidden layers"
    )
    majority_threshold: float = Field(
        0.9, gt=0, le=1, description="refuse when one action is this share of frames"
    )
    allow_degenerate: bool = Field(False, description="train although one action is nearly everything")
    evaluate: bool = Field(
        True, description="measure the clone's return beside the expert's and a random policy's"
    )
    min_accuracy: float = Field(0.95, ge=0, le=1, description="warn below this held-out accuracy")
    min_score_sampled: float = Field(
        0.97, description="warn below this return, sampled, where random is 0 and the expert 1"
    )
    min_score_greedy: float = Field(0.95, description="warn below this return of the most probable actions")
    device: str = Field("cpu", min_length=1, description="torch device")
    n_threads: int = Field(
        1, gt=0, le=1024, description="threads; another number changes the last bits of the weights"
    )

    @model_validator(mode="after")
    def _widths_a_network_can_have(self) -> BCParams:
        if self.hidden_sizes is not None and min(self.hidden_sizes) < 1:
            raise ValueError(f"hidden sizes are at least 1, {min(self.hidden_sizes)} was given")
        if self.network == "conflict_aware" and self.hidden_sizes is not None and len(self.hidden_sizes) != 1:
            raise ValueError("network conflict_aware has one hidden size")
        if self.network == "conflict_aware" and self.shared_trunk:
            raise ValueError("network conflict_aware shares its layers anyway: leave shared_trunk out")
        return self

    def shortfalls(self, result: BCTrainingResultDTO) -> Iterator[str]:
        """A sentence for each threshold the clone misses: accuracy alone says little about the return."""
        for what, reached, least in (
            ("Held-out accuracy", result.val_accuracy, self.min_accuracy),
            ("The clone's score, sampled,", result.return_score_sampled, self.min_score_sampled),
            ("The clone's score, greedy,", result.return_score_greedy, self.min_score_greedy),
        ):
            if reached is not None and reached < least:
                yield f"{what} is {reached:.3f}, below {least:g}. Capture more or train for more epochs."
