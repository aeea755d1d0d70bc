"""A capture in Townlet's layout: one sample per agent's life, written when the life ends."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from townlet_train.data.episodes import EpisodeClock, EpisodeSpan
from townlet_train.data.manifest import METRICS_SUFFIX, SUFFIX, encode_manifest
from townlet_train.data.memmap import stored_arrays
from townlet_train.data.metrics import sample_metrics
from townlet_train.data.plan import CapturePlan
from townlet_train.data.schema import EpisodeKey
from townlet_train.data.storage import describe_sample, encode_arrays
from townlet_train.data.trajectory import Trajectory
from townlet_train.files import to_json

Array = NDArray[Any]

START_CAPACITY = 64


class SampleWriter:
    """Collects ticks in memory until a life ends, then writes it; memory grows with the longest life, not the capture.

    Files are written plainly: the directory they are in becomes visible only when it is complete.
    """

    def __init__(self, directory: Path, plan: CapturePlan) -> None:
        self._directory, self._plan = directory, plan
        shape = (plan.n_envs, plan.n_agents)
        arrays = stored_arrays(plan.layout, with_maps=plan.with_maps).items()
        self._ticks: dict[str, Array] = {
            name: np.empty((START_CAPACITY, *shape, *tail), dtype) for name, (tail, dtype) in arrays
        }
        self._length = 0
        self._starts = np.zeros(shape, np.int64)  # row where each slot's life began
        self._lives = np.zeros(shape, np.int64)  # lives each slot has written
        self._clock = EpisodeClock(plan.seeds)
        self._rows: list[dict[str, Any]] = []
        self._metrics: dict[str, dict[str, float]] = {}

    @property
    def episodes(self) -> list[EpisodeSpan]:
        """Every episode so far."""
        return self._clock.spans()

    def append_decision(self, *, features: Array, maps: Array, action_mask: Array, actions: Array) -> None:
        """What every agent saw and did, before the step; (n_envs, n_agents, ...)."""
        self._make_room()
        self._put(features=features, maps=maps, action_mask=action_mask, actions=actions)

    def append_outcome(
        self, *, rewards: Array, terminated: Array, truncated: Array, final_features: Mapping[int, Array]
    ) -> None:
        """What the step brought; lives that ended with it are written.

        `final_features` are what was seen after it, (n_agents, n_features) by environment whose episode it ended.
        """
        self._put(rewards=rewards, terminated=terminated, truncated=truncated)
        self._length += 1
        ending = [self._clock.current(env) for env in range(len(self._starts))]
        self._clock.advance(terminated, truncated)
        for env, agent in np.argwhere(terminated | truncated).tolist():
            seen = final_features.get(env)
            self._write_life(ending[env], agent, None if seen is None else seen[agent])

    def finish(self, metadata: Mapping[str, Any]) -> Path:
        """Write the lives that still run, the metrics and the manifest; returns the manifest's path."""
        for env, agent in np.argwhere(self._starts < self._length).tolist():
            self._write_life(self._clock.current(env), agent, None)
        self._rows.sort(key=lambda row: str(row["sample"]))
        metrics = {"metadata": metadata, "samples": dict(sorted(self._metrics.items()))}
        self._write(f"{self._plan.prefix}{METRICS_SUFFIX}", _encode(metrics))
        path = self._directory / f"{self._plan.prefix}{SUFFIX}"
        path.write_bytes(encode_manifest(metadata, {"samples": self._rows}))
        return path

    def close(self) -> None:
        """Nothing stays open between ticks."""

    def _put(self, **tick: Array) -> None:
        for name, array in tick.items():
            if name in self._ticks:
                self._ticks[name][self._length] = array

    def _make_room(self) -> None:
        """Forget rows that no running life needs, and double the buffers when that is not enough."""
        capacity = len(self._ticks["actions"])
        if self._length < capacity:
            return
        unused = int(self._starts.min())
        if unused > 0:
            for array in self._ticks.values():
                array[: capacity - unused] = array[unused:].copy()
            self._starts -= unused
            self._length -= unused
        else:
            self._ticks = {
                name: np.concatenate([array, np.empty_like(array)]) for name, array in self._ticks.items()
            }

    def _write_life(self, span: EpisodeSpan, agent: int, final_features: Array | None) -> None:
        env = span.env
        rows = slice(int(self._starts[env, agent]), self._length)
        arrays = {name: array[rows, env, agent] for name, array in self._ticks.items()}
        self._starts[env, agent] = self._length
        self._lives[env, agent] += 1
        n_steps = rows.stop - rows.start
        trajectory = Trajectory(**arrays, final_features=final_features)
        agent_id = f"seed{span.seed}_agent{agent}"
        name = f"{self._plan.prefix}_{agent_id}_{self._lives[env, agent]:03d}"
        description = describe_sample(
            trajectory,
            self._plan.layout,
            agent_id=agent_id,
            episode=EpisodeKey(env=env, index=span.index, seed=span.seed),
            start_tick=self._clock.tick - n_steps - span.start,
        )
        metrics = sample_metrics(trajectory, self._plan.layout)
        arrays_sha256 = self._write(f"{name}.npz", encode_arrays(trajectory, compress=self._plan.compress))
        document_sha256 = self._write(f"{name}.json", _encode(description | {"metrics": metrics}))
        self._rows.append(
            {
                "sample": f"{name}.npz",
                "meta": f"{name}.json",
                "agent_id": agent_id,
                "frame_count": n_steps,
                "sha256": arrays_sha256,
                "meta_sha256": document_sha256,
            }
        )
        self._metrics[f"{name}.npz"] = metrics

    def _write(self, name: str, content: bytes) -> str:
        """Write one file; returns the hex sha256 of its bytes."""
        (self._directory / name).write_bytes(content)
        return hashlib.sha256(content).hexdigest()


def _encode(document: Mapping[str, Any]) -> bytes:
    return (to_json(document) + "\n").encode()
