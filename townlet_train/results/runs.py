"""What run directories say about runs, read back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field

from townlet_train.results.base import ResultDTO

Value = str | int | float | bool | None  # a list, where a document has one, is told as JSON


class _Row(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")


class RunRowDTO(_Row):
    """One run in a line."""

    run: str = Field(description="its directory")
    strategy: str | None = None
    env: str | None = None
    seed: int | None = None
    status: str = Field(description="running, killed, finished, failed, interrupted, or damaged")
    started_at: str | None = None
    steps: int | None = Field(None, description="in all; unfinished: of the last line or checkpoint")
    return_mean: float | None = Field(None, description="held-out where it was evaluated, else of training")
    checkpoints: int = Field(description="files checkpoint_{step}.zip")
    bytes: int = Field(description="of all its files")
    damaged: str | None = Field(None, description="names of its files that cannot be read")


class RunsListDTO(ResultDTO):
    """Every run below some directories."""

    roots: tuple[str, ...]
    runs: tuple[RunRowDTO, ...]


class RunFileDTO(_Row):
    """A file of a run."""

    file: str = Field(description="its path below the run's directory")
    bytes: int


class RunShowDTO(ResultDTO):
    """Everything that a run wrote down about itself, by dotted name."""

    shown_last: ClassVar[tuple[str, ...]] = ("status", "steps", "return_mean", "model")

    run: str = Field(description="its directory")
    id: str | None = None
    strategy: str | None = None
    env: str | None = None
    seed: int | None = None
    status: str = Field(description="running, killed, finished, failed, interrupted, or damaged")
    pid: int | None = None
    started_at: str | None = None
    ended_at: str | None = None
    error: str | None = Field(None, description="what ended it, type first")
    config_hash: str | None = None
    steps: int | None = Field(None, description="in all; unfinished: of the last line or checkpoint")
    return_mean: float | None = Field(None, description="held-out where it was evaluated, else of training")
    model: str | None = Field(None, description="file to use")
    versions: dict[str, str] = {}
    settings: dict[str, Value] = Field({}, description="config and params that somebody chose")
    params: dict[str, Value] = {}
    chosen: dict[str, Value] = Field({}, description="what params left open, as it was in the end")
    lineage: dict[str, Value] = {}
    resumed: tuple[str, ...] = Field((), description="when, and from which step")
    last: dict[str, Value] = Field({}, description="the last line of metrics.jsonl")
    files: tuple[RunFileDTO, ...] = ()


class RunDifferenceDTO(_Row):
    """A name under which two runs have different values."""

    name: str
    first: Value = Field(None, description="null where the first run has no such name")
    second: Value = None


class RunDiffDTO(ResultDTO):
    """In what two runs differ."""

    first: str
    second: str
    settings: tuple[RunDifferenceDTO, ...] = Field(description="of config and params, seed and strategy")
    versions: tuple[RunDifferenceDTO, ...]
    reached: tuple[RunDifferenceDTO, ...] = Field(
        description="single values that were reached, times and paths aside"
    )
    same_settings: bool = Field(description="True when nothing but the outcome can differ")


class RunTailDTO(ResultDTO):
    """The last lines that a run recorded."""

    run: str
    status: str
    lines: tuple[dict[str, Value], ...] = Field(description="of metrics.jsonl, oldest first")


class RunLeftoverDTO(_Row):
    """A file that a run can do without."""

    path: str
    bytes: int
    why: str


class RunsGcDTO(ResultDTO):
    """What run directories can do without."""

    columns: ClassVar[Mapping[str, tuple[str, ...]]] = {"files": ("path", "bytes", "why")}
    shown_last: ClassVar[tuple[str, ...]] = ("deleted", "bytes")

    roots: tuple[str, ...]
    keep: int = Field(description="newest checkpoints that every run keeps")
    deleted: bool = Field(description="False: files are only listed")
    files: tuple[RunLeftoverDTO, ...]
    protected: int = Field(description="older checkpoints kept, because a run or a promotion names them")
    bytes: int = Field(description="of the files")


class CardDTO(ResultDTO):
    """A model card."""

    run: str
    output: str | None = Field(None, description="file it was written to")
    markdown: str
    not_recorded: tuple[str, ...] = Field(description="facts that the run did not write down")
