"""What a rollout held, under the names of Townlet's training logs, telemetry 1.2; what it does not have is null."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from townlet_train.contract import AnnealContext, TrainingContext
from townlet_train.data.checkpoint import Arrays
from townlet_train.data.metrics import conflict_columns
from townlet_train.learners.rollouts import Played
from townlet_train.services.rolling import RollingLog, rewind

TELEMETRY_VERSION = 1.2
EVENT_OF = {  # the town's event by the field that counts it
    "queue_conflict_events": "queue_conflict",
    "queue_conflict_intensity_sum": "queue_conflict_intensity",
    "shared_meal_events": "shared_meal",
    "late_help_events": "late_help",
    "shift_takeover_events": "shift_takeover",
    "chat_success_events": "chat_success",
    "chat_failure_events": "chat_failure",
    "shower_complete_events": "shower",
    "sleep_complete_events": "sleep",
}


class Spent(NamedTuple):
    """Steps of all slots, and the seconds they took."""

    steps: int
    collect_sec: float
    update_sec: float

    def since(self, earlier: Spent) -> Spent:
        """What came on top of an earlier state."""
        return Spent(
            self.steps - earlier.steps,
            self.collect_sec - earlier.collect_sec,
            self.update_sec - earlier.update_sec,
        )

    def shown(self) -> dict[str, float]:
        """Steps per second by phase."""
        return {"collect/s": self.steps / self.collect_sec, "update/s": self.steps / self.update_sec}

    def fields(self) -> dict[str, float]:
        """For a line of metrics.jsonl."""
        rate = self.steps / (self.collect_sec + self.update_sec)
        return {"collect_sec": self.collect_sec, "update_sec": self.update_sec, "steps_per_sec": rate}


class EventTally:
    """The events of the newest rollout: what `count` has counted between the last two marks, by name, (n_envs,)."""

    def __init__(self, count: Callable[[], Mapping[str, NDArray[np.float64]]]) -> None:
        self._count = count
        self._before = self._now = count()

    def mark(self) -> None:
        """A rollout has ended."""
        self._before, self._now = self._now, self._count()

    def counts(self) -> dict[str, float]:
        """Events by name, summed over environments; none where the environment counts none."""
        return {name: float((now - self._before[name]).sum()) for name, now in self._now.items()}

    def state(self) -> dict[str, NDArray[Any]]:
        """Copies of what the next count depends on beside the environment."""
        return {name: counts.copy() for name, counts in self._now.items()}

    def restore(self, state: Arrays) -> None:
        """Continue from what `state` gave."""
        self._now = {name: state[name] for name in self._now}


class TelemetryLog:
    """Townlet's log of a method: a record of every `frequency`-th rollout, none where that is 0.

    A run that is resumed goes on with the records its checkpoint knows, those of another directory copied.
    """

    def __init__(
        self, context: TrainingContext, algorithm: str, *, frequency: int, max_entries: int | None
    ) -> None:
        path, start = context.run_dir / f"{algorithm}_log.jsonl", context.start
        if start is not None and not start.fork:
            known = start.checkpoint.state["rollouts"]
            rewind(start.path.parent / path.name, path, lambda record: record["epoch"] <= known)
        self._log, self._frequency = RollingLog(path, max_entries), frequency

    def due(self, rollouts: int) -> bool:
        """Whether that rollout is one that is told."""
        return self._frequency > 0 and rollouts % self._frequency == 0

    def append(self, fields: Mapping[str, Any]) -> None:
        """Write a rollout's fields, those of `conflict` as `conflict.<name>`."""
        flat = {name: value for name, value in fields.items() if name != "conflict"}
        self._log.append(flat | {f"conflict.{name}": value for name, value in fields["conflict"].items()})


def rollout_fields(
    played: Played, feature_names: Sequence[str], events: Mapping[str, float]
) -> dict[str, Any]:
    """Fields of what was played, or read from a recording, which has no ticks and no samples of one length."""
    return {
        "rollout_ticks": len(played.rewards) if played.on_policy else None,
        **event_fields(events),
        **baseline_fields(played.rewards, played.rewards[0].size if played.on_policy else None),
        "conflict": {} if played.observed is None else conflict_fields(played.observed, feature_names),
    }


def event_fields(events: Mapping[str, float]) -> dict[str, float | None]:
    """Counts of a rollout's events; null what the environment does not count."""
    chats, quality = events.get("chat_success"), events.get("chat_quality")
    mean_quality = quality / chats if chats and quality is not None else None
    return {
        **{field: events.get(event) for field, event in EVENT_OF.items()},
        "chat_quality_mean": mean_quality,
    }


def baseline_fields(rewards: NDArray[np.float32], n_samples: int | None) -> dict[str, float | None]:
    """Rewards (n_steps, n_envs, n_agents) as a recording of so many samples is described; null if nobody knows."""
    total = float(rewards.sum(dtype=np.float64))
    return {
        "baseline_sample_count": n_samples,
        "baseline_reward_mean": total / rewards.size,
        "baseline_reward_sum": total,
        "baseline_reward_sum_mean": total / n_samples if n_samples else None,
    }


def conflict_fields(observed: NDArray[np.float32], feature_names: Sequence[str]) -> dict[str, float]:
    """Mean over slots of each rivalry feature's mean and maximum over the rollout; empty without such features."""
    fields: dict[str, float] = {}
    for name, column in conflict_columns(observed, feature_names).items():
        fields[f"{name}_mean_avg"] = float(column.mean(dtype=np.float64))
        fields[f"{name}_max_avg"] = float(column.max(axis=0).mean(dtype=np.float64))
    return fields


def anneal_fields(context: AnnealContext | None) -> dict[str, Any]:
    """What a stage is measured against; nothing outside of an anneal."""
    if context is None:
        return {}
    return {
        "anneal_cycle": context.cycle,
        "anneal_stage": context.stage,
        "anneal_dataset": context.dataset_label,
        "anneal_bc_accuracy": context.bc_accuracy,
        "anneal_bc_threshold": context.bc_threshold,
        "anneal_bc_passed": context.bc_passed,
        "anneal_loss_baseline": context.loss_baseline,
        "anneal_queue_baseline": context.queue_events_baseline,
        "anneal_intensity_baseline": context.queue_intensity_baseline,
    }


def correlation(first: NDArray[Any], second: NDArray[Any]) -> float:
    """Pearson's correlation of two arrays of one shape; NaN when either is constant.

    >>> correlation(np.array([1.0, 2.0, 3.0]), np.array([2.0, 4.0, 6.0]))
    1.0
    """
    a = first.ravel() - first.mean(dtype=np.float64)
    b = second.ravel() - second.mean(dtype=np.float64)
    scale = np.sqrt(np.dot(a, a) * np.dot(b, b))
    return float(np.clip(np.dot(a, b) / scale, -1, 1)) if scale > 0 else float("nan")


def batch_deviations(values: NDArray[np.float32], batch_size: int) -> NDArray[np.float64]:
    """Population deviation of each batch of consecutive values; the last batch may be shorter.

    >>> batch_deviations(np.array([1, 3, 5, 5, 7], np.float32), 2).tolist()
    [1.0, 0.0, 0.0]
    """
    whole = len(values) // batch_size * batch_size
    deviations = values[:whole].reshape(-1, batch_size).std(axis=1, dtype=np.float64)
    return deviations if whole == len(values) else np.append(deviations, values[whole:].std(dtype=np.float64))
