"""What methods that learn from their own rollouts share: when to play, to save, to report, and writing checkpoints."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar

from townlet_train.data.checkpoint import (
    Arrays,
    Checkpoint,
    CheckpointInfo,
    Lineage,
    bounds_of,
    save_checkpoint,
    seed_ranges,
)
from townlet_train.envs.protocol import EnvSpec
from townlet_train.learners.actor_critic import ActorCritic
from townlet_train.learners.rollouts import Episode, Normaliser, Rollout, RolloutCollector
from townlet_train.policies.network import NetworkSpec
from townlet_train.services.runs import versions

TICKS_BETWEEN_REPORTS = 512
Stats = TypeVar("Stats")
StatsOut = TypeVar("StatsOut", covariant=True)


class OnPolicyLearner(Protocol[StatsOut]):
    """What a run needs of a learner."""

    spec: NetworkSpec
    actor_critic: ActorCritic

    def update(self, rollout: Rollout, progress: float, on_epoch: Callable[[], None]) -> StatsOut:
        """Learn from a rollout played after `progress` of the run, 0 to 1."""
        ...

    def set_normaliser(self, normaliser: Normaliser) -> None:
        """Let the network, and so every checkpoint, standardise features like this from now on."""
        ...

    @property
    def weights(self) -> Arrays:
        """Copies of all arrays by name."""
        ...

    def optimizer_arrays(self) -> Arrays:
        """Copies of the optimiser's arrays by name."""
        ...


class OnPolicyRun(Generic[Stats]):
    """Plays and learns until the steps are used up; saves every `checkpoint_interval` steps on the way.

    `report` is called often, and may raise to stop the run.
    """

    def __init__(
        self,
        collector: RolloutCollector,
        learner: OnPolicyLearner[Stats],
        timesteps: int,
        checkpoint_interval: int,
        *,
        save: Callable[[int], object],
        report: Callable[[], None],
    ) -> None:
        self._collector, self._learner = collector, learner
        self._timesteps, self._interval = timesteps, checkpoint_interval
        self._save, self._report = save, report
        self.rollouts, self.collect_sec, self.update_sec = 0, 0.0, 0.0

    @property
    def timestep(self) -> int:
        """Steps of all slots."""
        return self._collector.timestep

    @property
    def over(self) -> bool:
        """Whether the steps are used up."""
        return self.timestep >= self._timesteps

    def collect(self) -> tuple[Rollout, list[Episode]]:
        """One rollout, shorter where the run ends, and the episodes that ended in it."""
        actor = self._learner.actor_critic
        started, left = time.perf_counter(), min(self._collector.n_steps, self._ticks_until(self._timesteps))
        while left:
            due = (self.timestep // self._interval + 1) * self._interval
            n_ticks = min(left, self._ticks_until(due), TICKS_BETWEEN_REPORTS)
            self._collector.advance(actor, n_ticks)
            left -= n_ticks
            if self.timestep >= due:
                self._save(self.timestep)
            self._report()
        rollout = self._collector.finish(actor)
        self.collect_sec += time.perf_counter() - started
        return rollout

    def update(self, rollout: Rollout) -> Stats:
        """Learn from it."""
        started = time.perf_counter()
        progress = (self.timestep - rollout.rewards.size) / self._timesteps
        stats = self._learner.update(rollout, progress, self._report)
        if self._collector.normaliser is not None:
            self._learner.set_normaliser(self._collector.normaliser)
        self.update_sec += time.perf_counter() - started
        self.rollouts += 1
        return stats

    def _ticks_until(self, timestep: int) -> int:
        """Ticks that bring the steps of all slots to `timestep` or beyond."""
        return -((self.timestep - timestep) // self._collector.n_slots)


class CheckpointWriter:
    """Writes checkpoint_<timestep>.zip of a learner as it is at that moment, while training goes on.

    One file at a time: a failure to write is raised by the next `save` or by `settle`. Leaving the context settles.
    """

    def __init__(self, folder: Path, info: CheckpointInfo, learner: OnPolicyLearner[object]) -> None:
        self._folder, self._info, self._learner = folder, info, learner
        self._thread = ThreadPoolExecutor(1, "checkpoints")
        self._pending: Future[str] | None = None

    def save(self, timestep: int, state: Mapping[str, Any]) -> Path:
        """Where the file will be, at the latest after `settle`."""
        self.settle()
        path = self._folder / f"checkpoint_{timestep}.zip"
        checkpoint = Checkpoint(
            self._info,
            self._learner.weights,
            {"timestep": timestep, **state},
            self._learner.optimizer_arrays(),
        )
        self._pending = self._thread.submit(save_checkpoint, path, checkpoint)
        return path

    def settle(self) -> None:
        """Wait until what was saved is on disk."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown()
        if error is None:
            self.settle()


def describe(
    algorithm: str,
    network: NetworkSpec,
    env: EnvSpec,
    seeds: Iterable[int],
    *,
    config_hash: str,
) -> CheckpointInfo:
    """What a checkpoint says about a policy that learned in `env`, its environments reset with `seeds`."""
    reads_maps = network.kind == "conflict_aware"
    return CheckpointInfo(
        algorithm=algorithm,
        env_id=env.env_id,
        feature_names=env.feature_names,
        action_names=env.action_names,
        map_channels=env.map_channels if reads_maps else (),
        map_size=env.map_size if reads_maps else 0,
        action_bounds=bounds_of(env),
        network=network.to_document(),
        lineage=Lineage(training_seeds=seed_ranges(seeds)),
        config_hash=config_hash,
        versions=versions(),
    )
