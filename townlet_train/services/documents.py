"""Documents of a run as models, what they promise to other programs; and which versions of a document are read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from townlet_train.errors import UsageError
from townlet_train.results import ResultDTO

Texts = dict[str, str]


def check_version(document: Mapping[str, Any], known: type[ResultDTO], source: str) -> None:
    """Raise `UsageError` where a result is of a newer major version than is `known`; one that says none is read."""
    reads = str(known.model_fields["schema_version"].default)
    version = document.get("schema_version", reads)
    major = str(version).partition(".")[0]
    if not major.isdecimal() or int(major) > int(reads.partition(".")[0]):
        raise UsageError(
            f"{source} has schema version {version!r:.60}; this release reads {reads}. "
            f"Update townlet-train or write it anew."
        )


class _Open(BaseModel):
    """A document that may say more, as plugins do."""

    model_config = ConfigDict(frozen=True, extra="allow")


class RunError(_Open):
    """What ended a run."""

    type: str
    message: str


class RunResumption(_Open):
    """When a run was resumed, and from where."""

    checkpoint: str | None = Field(description="null: from its very beginning")
    timestep: int
    at: str


class RunDocument(_Open):
    """run.json: what a run is, and what became of it."""

    schema_version: str
    id: str
    strategy: str
    seed: int
    started_at: str
    ended_at: str | None
    status: str = Field(description="running, finished, failed, interrupted")
    pid: int
    error: RunError | None
    versions: Texts
    config: dict[str, Any]
    params: dict[str, Any]
    config_hash: str
    origin: Texts = Field(description="the layer that decided a setting, by its dotted name")
    start: dict[str, Any] | None = Field(description="the checkpoint it began with")
    lineage: dict[str, Any] | None = None
    chosen: dict[str, Any] | None = Field(None, description="what params left open, as it was in the end")
    resumed: tuple[RunResumption, ...] = ()


class ExperimentMetadata(_Open):
    """Which run it was."""

    experiment_id: str
    algorithm: str
    environment: str
    seed: int
    start_time: str
    end_time: str
    total_timesteps: int | None
    conda_environment: str | None


class ExperimentModel(_Open):
    """What it left."""

    algorithm: str
    policy: str | None
    model_file: str | None
    model_path: str
    checkpoint_interval: int | None
    checkpoints: tuple[str, ...]


class ExperimentMetrics(_Open):
    """What it reached, in the names of pipelines."""

    final_reward_mean: float | None
    final_reward_std: float | None
    episode_length_mean: float | None
    total_episodes: int | None
    converged: bool | None
    training_time_seconds: float | None


class ExperimentEnvironment(_Open):
    """Where it trained."""

    name: str
    observation_space: str | None
    action_space: str | None
    reward_threshold: float | None


class Experiment(_Open):
    """One finished run."""

    metadata: ExperimentMetadata
    model: ExperimentModel
    metrics: ExperimentMetrics
    hyperparameters: dict[str, Any]
    environment: ExperimentEnvironment
    result: dict[str, Any] = Field(description="the strategy's result, a document of its own")
    warnings: tuple[str, ...]


class ResultsDocument(_Open):
    """{id}_results.json: what a finished run reached, as pipelines expect it."""

    experiment_results: Experiment


class MetricsLine(_Open):
    """One line of metrics.jsonl; a method records whatever else it measures."""

    timestep: int
    timestamp: str
    episode: int | None = None
    reward: float | None = None
    episode_length: float | None = None
    loss: float | None = None
