"""Recordings written as Minari datasets, some episodes at a time."""

from __future__ import annotations

import json
import shlex
import warnings
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import registry, spaces

from townlet_train.data.landing import leftovers, sole_writer
from townlet_train.data.layout import Layout
from townlet_train.data.memmap import Store
from townlet_train.data.replay import SampleReplay, open_replay
from townlet_train.data.storage import Sample
from townlet_train.data.trajectory import Trajectory
from townlet_train.errors import DataError, UsageError
from townlet_train.files import atomic_directory
from townlet_train.results import MinariDTO
from townlet_train.services.minari.database import NAMES, add_namespace, load_minari, path_of
from townlet_train.services.replay import ReplayDatasetService

EPISODES_AT_ONCE = 64
AUTHOR = "townlet-train"


def export_minari(path: Path, dataset_id: str) -> MinariDTO:
    """Write every life of a recording as an episode of a new local Minari dataset.

    A dataset holds an observation more than actions. Where a recording does not say what was seen after a life's last
    action, that action is left out and the episode says so, and is marked as truncated. Maps are left out, action masks
    are in the infos. The dataset appears whole or not at all.

    Raises:
        MissingExtraError: `minari` is not installed.
        UsageError: there is no recording, or a dataset of that name is there.
        DataError: the recording is a large store, or no action in it is followed by an observation.
        StorageError: it cannot be written.
    """
    minari = load_minari()
    replay = open_replay(ReplayDatasetService().resolve_manifest(path))
    if isinstance(replay, Store):
        raise DataError(
            f"{path} is a store of ticks; expected samples. Convert it: "
            f"townlet-train replay convert {shlex.quote(str(path))} --store npz --output DIR"
        )
    target = path_of(minari, dataset_id)
    with sole_writer(target):
        _check_new(target, dataset_id)
        with atomic_directory(target) as directory:
            dataset = _Written(directory / "data", dataset_id, replay)
            for sample in replay.samples():
                dataset.add(sample)
            layout = dataset.finish()
    add_namespace(dataset_id)
    return MinariDTO(
        dataset=dataset_id, recording=str(path), episodes=dataset.episodes, frames=dataset.frames,
        left_out=dataset.left_out, env=layout.env_id, warnings=(*_lost(layout), *leftovers(target)),
    )  # fmt: skip


def _check_new(target: Path, dataset_id: str) -> None:
    if target.exists():
        raise UsageError(
            f"There is a Minari dataset {dataset_id!r} already. Choose another name, or: minari delete {dataset_id}"
        )


class _Written:
    """A Minari dataset being written, some episodes at a time, in a directory that Minari does not list."""

    def __init__(self, directory: Path, dataset_id: str, replay: SampleReplay) -> None:
        self._directory, self._dataset_id, self._replay = directory, dataset_id, replay
        self._storage: Any = None
        self._layout: Layout | None = None
        self._waiting: list[Sample] = []
        self.episodes = self.frames = self.left_out = 0

    def add(self, sample: Sample) -> None:
        """A life is an episode, unless nothing follows its only action."""
        n_steps = _n_exported(sample.trajectory)
        self._layout = self._layout or sample.layout
        self.frames += n_steps
        self.left_out += sample.trajectory.n_steps - n_steps
        if n_steps:
            self.episodes += 1
            self._waiting.append(sample)
        if len(self._waiting) == EPISODES_AT_ONCE:
            self._write(self._layout)

    def finish(self) -> Layout:
        """Write what is waiting; returns the layout of all. `DataError` where there is nothing to write."""
        if self._layout is None or self.episodes == 0:
            raise DataError(
                f"{self._replay.path} holds no action that an observation follows, so there is no transition to write."
            )
        self._write(self._layout)
        return self._layout

    def _write(self, layout: Layout) -> None:
        self._storage = self._storage or self._opened(layout)
        first = self._storage.total_episodes
        self._storage.update_episodes(map(_buffer, self._waiting))
        numbers = range(first, first + len(self._waiting))
        self._storage.update_episode_metadata(map(_about, self._waiting), numbers)
        self._waiting = []

    def _opened(self, layout: Layout) -> Any:
        """A new dataset without episodes."""
        capture = self._replay.capture
        names = {
            "env_id": layout.env_id,
            "feature_names": list(layout.feature_names),
            "action_names": list(layout.action_names),
            "n_agents": capture.n_agents if capture else 1,
        }
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that the environment's spec cannot be written down
            storage = import_module("minari.dataset.minari_storage").MinariStorage.new(
                self._directory,
                observation_space=spaces.Box(-np.inf, np.inf, (len(layout.feature_names),), np.float32),
                action_space=_action_space(layout),
                env_spec=registry.get(layout.env_id),
            )
        storage.update_metadata(
            {
                "dataset_id": self._dataset_id,
                "minari_version": version("minari"),
                "algorithm_name": capture.policy if capture else "unknown",
                "author": {AUTHOR},
                "author_email": {"none"},
                "code_permalink": "none",
                "description": f"Captured in {layout.env_id} by townlet-train.",
                "requirements": [AUTHOR],
                NAMES: json.dumps(names),
            }
        )
        return storage


def _action_space(layout: Layout) -> spaces.Space[Any]:
    if not layout.action_low:
        return spaces.Discrete(len(layout.action_names))
    return spaces.Box(np.array(layout.action_low, np.float32), np.array(layout.action_high, np.float32))


def _n_exported(life: Trajectory) -> int:
    """Actions of a life that an observation follows."""
    return life.n_steps - (life.final_features is None)


def _buffer(sample: Sample) -> Any:
    """A life as Minari takes it: one observation more than actions."""
    life, n_steps = sample.trajectory, _n_exported(sample.trajectory)
    left_out = n_steps < life.n_steps
    seen = life.features if life.final_features is None else np.vstack([life.features, life.final_features])
    cut = left_out & (np.arange(n_steps) == n_steps - 1)
    return import_module("minari.data_collector").EpisodeBuffer(
        seed=None if sample.episode is None else sample.episode.seed,
        observations=seen,
        actions=life.actions[:n_steps],
        rewards=life.rewards[:n_steps],
        terminations=life.terminated[:n_steps],
        truncations=life.truncated[:n_steps] | (cut & ~life.terminated[:n_steps]),
        infos={} if life.action_mask is None else {"action_mask": life.action_mask},
    )


def _about(sample: Sample) -> dict[str, Any]:
    """What an episode's metadata say beside Minari's: whose life it is, and whether its last action is left out."""
    told: dict[str, Any] = {"left_out": _n_exported(sample.trajectory) < sample.trajectory.n_steps}
    if sample.episode is not None:
        told |= {
            "env": sample.episode.env,
            "index": sample.episode.index,
            "agent_id": sample.agent_id or "",
            "start_tick": sample.metadata["episode"].get("start_tick", 0),
        }
    return {f"{NAMES}/{name}": value for name, value in told.items()}


def _lost(layout: Layout) -> tuple[str, ...]:
    return (f"Maps ({', '.join(layout.map_channels)}) were left out.",) if layout.map_channels else ()
