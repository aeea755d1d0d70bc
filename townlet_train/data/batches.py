"""Whole trajectories in batches: what replays a recording step by step, recurrent learners and Townlet's own tools.

Trajectories of different shapes never share a batch: they are sorted into buckets by shape first.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from townlet_train.data.dataset import check_batch_size
from townlet_train.data.manifest import Entry
from townlet_train.data.metrics import baseline_metrics, conflict_stats, sample_metrics
from townlet_train.data.replay import SampleReplay, check_same_features
from townlet_train.data.storage import Sample, load_sample
from townlet_train.data.trajectory import Actions

Shape = tuple[tuple[str, tuple[int, ...]], ...]


@dataclass(frozen=True, eq=False)
class TrajectoryBatch:
    """Trajectories of one shape, stacked: (batch_size, n_steps, ...)."""

    maps: NDArray[np.uint8] | NDArray[np.float32] | None
    features: NDArray[np.float32]
    actions: Actions
    action_mask: NDArray[np.bool_] | None
    rewards: NDArray[np.float32]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    log_probs: NDArray[np.float32] | None
    values: NDArray[np.float32] | None  # (batch_size, n_steps) or (batch_size, n_steps + 1)
    feature_names: tuple[str, ...]
    action_names: tuple[str, ...]
    metrics: tuple[dict[str, float], ...]  # of each trajectory

    def summary(self, number: int) -> dict[str, float]:
        """Townlet's batch summary; `feature_dim` counts features."""
        conflict = conflict_stats(self.features, self.feature_names)
        return {
            "batch": float(number),
            "batch_size": float(self.features.shape[0]),
            "feature_dim": float(self.features.shape[-1]),
            **{f"conflict.{key}": value for key, value in conflict.items()},
        }


class TrajectoryDataset:
    """The samples of a manifest as batches of trajectories.

    With `streaming`, opening reads each file once for its shape and keeps none; iterating reads them again. With `rng`
    the trajectories of a bucket are shuffled anew in every epoch.
    """

    def __init__(
        self,
        replay: SampleReplay,
        *,
        batch_size: int = 1,
        rng: np.random.Generator | None = None,
        drop_last: bool = False,
        streaming: bool = False,
    ) -> None:
        check_batch_size(batch_size)
        self.batch_size, self.drop_last = batch_size, drop_last
        self._rng = rng
        self._buckets: dict[Shape, list[Entry]] = {}
        self._kept: dict[Entry, Sample] = {}
        self._metrics: list[dict[str, float]] = []
        first: Sample | None = None
        for entry in replay.manifest.entries:
            sample = load_sample(entry.sample, entry.metadata)
            first = first or sample
            check_same_features(first, sample)
            self._buckets.setdefault(_shape(sample), []).append(entry)
            self._metrics.append(sample_metrics(sample.trajectory, sample.layout))
            if not streaming:
                self._kept[entry] = sample

    def __len__(self) -> int:
        """Batches per epoch."""
        sizes = [len(entries) for entries in self._buckets.values()]
        return sum(
            size // self.batch_size if self.drop_last else -(-size // self.batch_size) for size in sizes
        )

    @property
    def baseline_metrics(self) -> dict[str, float]:
        """Metrics of the whole dataset, streaming or not."""
        return baseline_metrics(self._metrics)

    def __iter__(self) -> Iterator[TrajectoryBatch]:
        """One epoch, bucket by bucket."""
        for shape in sorted(self._buckets):
            entries = self._buckets[shape]
            order = np.arange(len(entries)) if self._rng is None else self._rng.permutation(len(entries))
            for start in range(0, len(order), self.batch_size):
                chosen = [entries[index] for index in order[start : start + self.batch_size].tolist()]
                if len(chosen) == self.batch_size or not self.drop_last:
                    yield build_batch([self._sample(entry) for entry in chosen])

    def _sample(self, entry: Entry) -> Sample:
        return self._kept.get(entry) or load_sample(entry.sample, entry.metadata)


def build_batch(samples: list[Sample]) -> TrajectoryBatch:
    """Stack trajectories that agree in shape and in the names of their actions."""
    parts = [sample.trajectory for sample in samples]
    maps = [part.maps for part in parts if part.maps is not None]
    masks = [part.action_mask for part in parts if part.action_mask is not None]
    log_probs = [part.log_probs for part in parts if part.log_probs is not None]
    values = [part.values for part in parts if part.values is not None]
    return TrajectoryBatch(
        maps=np.stack(maps) if maps else None,  # type: ignore[arg-type]  # numpy's stub loses the union of dtypes
        features=np.stack([part.features for part in parts]),
        actions=np.stack([part.actions for part in parts]),
        action_mask=np.stack(masks) if masks else None,
        rewards=np.stack([part.rewards for part in parts]),
        terminated=np.stack([part.terminated for part in parts]),
        truncated=np.stack([part.truncated for part in parts]),
        log_probs=np.stack(log_probs) if log_probs else None,
        values=np.stack(values) if values else None,
        feature_names=samples[0].layout.feature_names,
        action_names=samples[0].layout.action_names,
        metrics=tuple(sample_metrics(sample.trajectory, sample.layout) for sample in samples),
    )


def _shape(sample: Sample) -> Shape:
    """What two trajectories must share to be stacked: the shape of every array they have, and their action names."""
    trajectory = sample.trajectory
    arrays = {
        "maps": trajectory.maps,
        "features": trajectory.features,
        "actions": trajectory.actions,
        "action_mask": trajectory.action_mask,
        "log_probs": trajectory.log_probs,
        "values": trajectory.values,
    }
    shapes = tuple((name, array.shape) for name, array in arrays.items() if array is not None)
    return (*shapes, *((name, ()) for name in sample.layout.action_names))
