"""What a training method is to the rest of the program.

A strategy is a small class: a name, a summary, a frozen pydantic model of its params, `prepare` to fail fast, `run` to
work. Everything it may touch arrives in a frozen `TrainingContext`; everything it found out leaves as a result DTO.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar, runtime_checkable

from pydantic import BaseModel, ConfigDict, ValidationError

from townlet_train.errors import ConfigError, suggestion
from townlet_train.results import TrainingResultDTO

if TYPE_CHECKING:
    import numpy as np

    from townlet_train.config import RunConfig
    from townlet_train.data.checkpoint import Checkpoint
    from townlet_train.services import TrainingServices


class StrategyParams(BaseModel):
    """Base of every strategy's params: frozen, and a key nobody declared is an error.

    A strategy whose runs can be resumed names the params that may change when they are; `say_env` are params that name
    recordings or checkpoints: where nobody names an environment, a new run is in that of the first.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    may_change_on_resume: ClassVar[frozenset[str] | None] = None
    say_env: ClassVar[tuple[str, ...]] = ()


SomeParams = TypeVar("SomeParams", bound=StrategyParams)


def validated_params(model: type[SomeParams], values: Mapping[str, Any], where: str) -> SomeParams:
    """Params from plain values; `where` says whose they are.

    Raises:
        ConfigError: a value is wrong or nobody declared it; the first is named.
    """
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        hint = suggestion(key, model.model_fields) if first["type"] == "extra_forbidden" else ""
        said = f"{where}.{key} is {first['input']!r}" if key else where
        raise ConfigError(f"{said}: {first['msg'].removeprefix('Value error, ')}.{hint}") from error


PROGRESS_LOG = "townlet_train.progress"  # the logger of lines that a live line on a terminal stands in for


@dataclass(frozen=True)
class Progress:
    """One report of long work: how far, of how much, and the numbers worth seeing now.

    Off a terminal a report with metrics is a line, unless it is only meant for a live one.
    """

    phase: str
    done: int
    total: int
    metrics: Mapping[str, float]
    live: bool = False


@dataclass(frozen=True)
class AnnealContext:
    """What an anneal stage is measured against: baselines and tolerances handed to the strategy that runs it."""

    cycle: int
    stage: str
    dataset_label: str
    bc_accuracy: float | None
    bc_threshold: float
    bc_passed: bool
    loss_baseline: float | None
    queue_events_baseline: float | None
    queue_intensity_baseline: float | None
    loss_tolerance: float
    queue_tolerance: float


@dataclass(frozen=True)
class StartingPoint:
    """The checkpoint a run begins with: to go on as the same run, or, forked, as another one with its policy."""

    path: Path
    sha256: str
    checkpoint: Checkpoint
    fork: bool
    optimiser: bool = True  # whether a fork by the same method takes over what its optimiser knows

    def describe(self) -> dict[str, Any]:
        """What run.json says of it: enough to find the same file again."""
        return {"checkpoint": str(self.path.absolute()), "sha256": self.sha256, "fork": self.fork}


@dataclass(frozen=True)
class TrainingContext:
    """Everything a strategy may touch during one run.

    `config_hash` identifies config and params together and belongs into every artefact. `rng` is the run's training
    stream; draw from it or spawn from it, and from nothing else. `report` takes a `Progress` and returns at once; it
    raises `Interrupted` when the user asked to stop, so call it in every loop. `record` appends one line to the run's
    `metrics.jsonl`. `start` is the checkpoint to begin with; only strategies with `may_change_on_resume` get one.
    """

    config: RunConfig
    services: TrainingServices
    config_hash: str
    seed: int
    rng: np.random.Generator
    run_dir: Path
    report: Callable[[Progress], None]
    record: Callable[[Mapping[str, Any]], None]
    build_strategy: Callable[[str, Mapping[str, Any]], TrainingStrategy]
    anneal_context: AnnealContext | None = None
    start: StartingPoint | None = None


class RunLogger(Protocol):
    """What a plugin hears of one run; see the hook `townlet_train_logger`.

    One that also has `finish(result)` is handed the result of a run that ended well, before it is closed.
    """

    def record(self, line: Mapping[str, Any]) -> None:
        """Take one line of metrics.jsonl, its `timestamp` included, as soon as it is on disk.

        Called from within training: return at once. An error becomes a warning, training goes on, and `close` is all
        that this logger still hears.
        """
        ...

    def close(self) -> None:
        """Take nothing more: the run has ended, well or not."""
        ...


class GateCheck(Protocol):
    """A check of the gate that is told something; see the hook `townlet_train_gate_checks`."""

    Params: ClassVar[type[StrategyParams]]

    def __init__(self, params: Any) -> None: ...

    def objections(self, checkpoint: Checkpoint) -> Iterable[str]:
        """What it objects to in a candidate, a sentence each; the same for the same candidate, whenever it is asked."""
        ...


@runtime_checkable
class TrainingStrategy(Protocol):
    """A training method, ours or a plugin's.

    One that also has `requires`, what pip calls each module it cannot do without by the module's name, is listed as
    unavailable where one is missing.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    requires_torch: ClassVar[bool]
    Params: ClassVar[type[StrategyParams]]

    def __init__(self, params: Any) -> None: ...

    def prepare(self, context: TrainingContext) -> None:
        """Fail fast on what is missing or wrong, without side effects; `--dry-run` stops after it."""
        ...

    def run(self, context: TrainingContext) -> TrainingResultDTO:
        """Train, leave the artefacts in `context.run_dir`, and return what was measured."""
        ...
