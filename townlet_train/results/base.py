"""What every report has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field


class ResultDTO(BaseModel):
    """Base of everything a command reports."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")

    columns: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    """What a person is shown of each record in a field that lists some; of other fields, everything."""

    headings: ClassVar[Mapping[str, str]] = {}
    """What a person reads above a column instead of the field's name, where that alone does not say what it is."""

    shown_last: ClassVar[tuple[str, ...]] = ()
    """What a person looks for, by dotted name: shown below everything else, in this order."""

    schema_version: str = Field("1.0.0", description="version of this document's schema")
    warnings: tuple[str, ...] = Field((), description="what the user should know although the work was done")


class TrainingResultDTO(ResultDTO):
    """Base of every strategy's result."""

    shown_last: ClassVar[tuple[str, ...]] = (
        "status",
        "accuracy",
        "val_accuracy",
        "val_accuracy_unforced",
        "val_mean_absolute_error",
        "return_score_sampled",
        "return_score_greedy",
        "final_reward_mean",
        "evaluation.mean",
        "evaluation.ci_low",
        "evaluation.ci_high",
        "reward_threshold",
        "converged",
        "duration_sec",
        "checkpoint",
    )

    strategy: str = Field("", description="registered name of the strategy that produced this")
    duration_sec: float | None = Field(None, ge=0, description="wall-clock seconds")
    checkpoint: str | None = Field(None, description="path of the checkpoint this run leaves to use")
    checkpoint_sha256: str | None = Field(None, description="sha256 of that file's bytes")
