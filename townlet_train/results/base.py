"""What every report has."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class ResultDTO(BaseModel):
    """Base of everything a command reports."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")

    schema_version: str = Field("1.0.0", description="version of this document's schema")
    warnings: tuple[str, ...] = Field((), description="what the user should know although the work was done")


class TrainingResultDTO(ResultDTO):
    """Base of every strategy's result."""

    strategy: str = Field("", description="registered name of the strategy that produced this")
    duration_sec: float | None = Field(None, ge=0, description="wall-clock seconds")
    checkpoint: str | None = Field(None, description="path of the checkpoint this run leaves to use")
    checkpoint_sha256: str | None = Field(None, description="sha256 of that file's bytes")
