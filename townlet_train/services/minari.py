"""Minari datasets read as demonstrations, and recordings written as Minari datasets, some episodes at a time."""

from __future__ import annotations

import hashlib
import json
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import registry, spaces
from numpy.typing import NDArray

from townlet_train.data.landing import check_output, sole_writer
from townlet_train.data.layout import Layout
from townlet_train.data.manifest import SUFFIX, encode_manifest
from townlet_train.data.memmap import Store
from townlet_train.data.replay import SampleReplay, open_replay
from townlet_train.data.schema import EpisodeKey
from townlet_train.data.storage import Sample, describe_sample, encode_arrays
from townlet_train.data.trajectory import Trajectory
from townlet_train.envs.spaces import DiscreteActions, ObservationCode, action_code, observation_code
from townlet_train.errors import DataError, EnvironmentCreationError, MissingExtraError, UsageError
from townlet_train.files import atomic_directory, to_json
from townlet_train.results import MinariDTO
from townlet_train.services.replay import ReplayDatasetService

PREFIX, NAMES = "minari", "townlet_train"  # NAMES: where our datasets keep what Minari has no place for
EPISODES_AT_ONCE = 64
AUTHOR = "townlet-train"


def import_minari(
    dataset_id: str, output: Path, *, env: str | None = None, overwrite: bool = False
) -> MinariDTO:
    """Write a local Minari dataset as a recording that `bc` learns from.

    Observations of any fixed size become features; actions are those of a Discrete space. `env` is the environment it
    is of, where the dataset does not say, or not as it is called here.

    Raises:
        MissingExtraError: `minari` is not installed.
        UsageError: there is no such dataset, nobody says of which environment it is, or the output is in use.
        DataError: its observations or actions are of a kind that is not recorded.
    """
    dataset = _load(dataset_id)
    told = json.loads(dataset.storage.metadata.get(NAMES, "{}"))
    env_id = env or told.get("env_id") or (dataset.env_spec.id if dataset.env_spec else None)
    if env_id is None:
        raise UsageError(f"{dataset_id} does not say of which environment it is. Name one with --env.")
    actions, observations = _codes(dataset, dataset_id)
    features = tuple(told.get("feature_names", observations.names))
    layout = Layout(features, tuple(told.get("action_names", actions.names)), (), 0, env_id)
    with sole_writer(output):
        check_output(output, overwrite=overwrite)
        with atomic_directory(output) as directory:
            rows, seeds, lengths = [], set(), [0]
            for number, episode in enumerate(dataset.iterate_episodes()):
                trajectory = _trajectory(
                    episode, observations, actions.start, f"{dataset_id}, episode {number}"
                )
                seed = _seed_of(dataset, episode.id)
                rows.append(_write_sample(directory, number, trajectory, layout, seed))
                seeds |= set() if seed is None else {seed}
                lengths.append(trajectory.n_steps)
            if not rows:
                raise DataError(f"Minari dataset {dataset_id} holds no episodes.")
            about = {
                "env_id": env_id, "policy": dataset.storage.metadata.get("algorithm_name") or "unknown",
                "ticks": max(lengths), "n_envs": len(rows), "n_agents": 1, "seeds": sorted(seeds),
                "feature_names": list(layout.feature_names), "action_names": list(layout.action_names),
                "map_channels": [], "map_size": 0, "maps": False, "minari": dataset_id,
            }  # fmt: skip
            manifest = directory / f"{PREFIX}{SUFFIX}"
            manifest.write_bytes(encode_manifest(about, {"samples": rows}))
    return MinariDTO(
        dataset=dataset_id, recording=str(output / manifest.name), episodes=len(rows), frames=sum(lengths),
        left_out=0, env=env_id,
    )  # fmt: skip


def export_minari(path: Path, dataset_id: str) -> MinariDTO:
    """Write every life of a recording as an episode of a new local Minari dataset.

    A recording has no observation after the last action of a life, so that action is left out and the episode is
    marked as truncated; maps are left out, action masks are in the infos.

    Raises:
        MissingExtraError: `minari` is not installed.
        UsageError: there is no recording, or a dataset of that name is there.
        DataError: the recording is a large store, or every life in it has one step.
    """
    minari = _minari()
    replay = open_replay(ReplayDatasetService().resolve_manifest(path))
    if isinstance(replay, Store):
        raise DataError(
            f"{path} is a store of ticks; expected samples. Convert it: townlet-train replay convert"
        )
    _check_new(minari, dataset_id)
    layout: Layout | None = None
    dataset: Any = None
    waiting: list[Any] = []
    left_out = frames = episodes = 0
    with _whole_or_none(minari, dataset_id):
        for sample in replay.samples():
            layout = layout or sample.layout
            left_out += 1
            if sample.trajectory.n_steps > 1:
                waiting.append(_buffer(sample))
                frames, episodes = frames + sample.trajectory.n_steps - 1, episodes + 1
            if len(waiting) == EPISODES_AT_ONCE:
                dataset, waiting = _appended(minari, dataset, dataset_id, waiting, layout, replay), []
        if layout is None or episodes == 0:
            raise DataError(f"{path} holds no life of two steps or more, so there is no transition to write.")
        if waiting:
            dataset = _appended(minari, dataset, dataset_id, waiting, layout, replay)
    return MinariDTO(
        dataset=dataset_id, recording=str(path), episodes=episodes, frames=frames, left_out=left_out,
        env=layout.env_id, warnings=_lost(layout),
    )  # fmt: skip


def _minari() -> Any:
    try:
        import_module("h5py")
        return import_module("minari")
    except ImportError as error:
        raise MissingExtraError("Reading and writing Minari datasets", "minari") from error


@contextmanager
def _whole_or_none(minari: Any, dataset_id: str) -> Iterator[None]:
    """A dataset whose writing ends early is deleted: what is there of it would load as if it were whole."""
    try:
        yield
    except BaseException:
        shutil.rmtree(_path_of(minari, dataset_id), ignore_errors=True)
        raise


def _path_of(minari: Any, dataset_id: str) -> Path:
    return Path(minari.storage.get_dataset_path(dataset_id))


def _load(dataset_id: str) -> Any:
    minari = _minari()
    try:
        return minari.load_dataset(dataset_id)
    except FileNotFoundError as error:
        known = ", ".join(sorted(minari.list_local_datasets())) or "none"
        raise UsageError(
            f"There is no Minari dataset {dataset_id!r} on this machine. Known: {known}. Get one with: "
            f"minari download {dataset_id}"
        ) from error
    except ValueError as error:
        raise UsageError(f"Minari does not load {dataset_id!r}: {str(error).rstrip('.')}.") from error


def _check_new(minari: Any, dataset_id: str) -> None:
    try:
        minari.dataset.minari_dataset.parse_dataset_id(dataset_id)
    except ValueError as error:
        raise UsageError(
            f"{dataset_id!r} is no name of a Minari dataset, e.g. town/expert-v0: {error}."
        ) from error
    if _path_of(minari, dataset_id).exists():
        raise UsageError(
            f"There is a Minari dataset {dataset_id!r} already. Choose another name, or: minari delete {dataset_id}"
        )


class _Indices:
    """Actions of a Discrete space: their names, and the number of the first."""

    def __init__(self, space: spaces.Discrete) -> None:
        self.names, self.start = DiscreteActions(space).names, int(space.start)


def _codes(dataset: Any, dataset_id: str) -> tuple[_Indices, ObservationCode]:
    """How its actions and observations become indices and features."""
    space = dataset.action_space
    if not isinstance(space, spaces.Discrete):
        raise DataError(
            f"The actions of {dataset_id} are {space}; recordings hold indices, of a Discrete space."
        )
    try:
        action_code(space, dataset_id)
        return _Indices(space), observation_code(dataset.observation_space, dataset_id)
    except EnvironmentCreationError as error:
        raise DataError(str(error)) from error


def _trajectory(episode: Any, code: ObservationCode, first_action: int, where: str) -> Trajectory:
    """An episode as one life: what was seen before each action."""
    n_steps = len(episode.rewards)
    features = np.stack([_features(code, _step(episode.observations, index)) for index in range(n_steps)])
    mask = episode.infos.get("action_mask") if isinstance(episode.infos, dict) else None
    ended = np.asarray(episode.terminations, np.bool_)
    try:
        return Trajectory(
            features=features,
            actions=np.asarray(episode.actions, np.int64) - first_action,
            rewards=np.asarray(episode.rewards, np.float32),
            terminated=ended,
            truncated=np.asarray(episode.truncations, np.bool_) & ~ended,
            action_mask=None if mask is None else np.asarray(mask[:n_steps], np.bool_),
        )
    except DataError as error:
        raise DataError(f"{where}: {error}") from error


def _features(code: ObservationCode, observation: Any) -> NDArray[np.float32]:
    return np.asarray(code.flatten(observation), np.float32).ravel()


def _step(observations: Any, index: int) -> Any:
    """One observation of an episode, whose parts are arrays, dicts and tuples of them."""
    if isinstance(observations, Mapping):
        return {name: _step(part, index) for name, part in observations.items()}
    if isinstance(observations, tuple):
        return tuple(_step(part, index) for part in observations)
    return observations[index]


def _seed_of(dataset: Any, episode: int) -> int | None:
    [about] = dataset.storage.get_episode_metadata([episode])
    seed = about.get("seed")
    return None if seed is None or int(seed) < 0 else int(seed)


def _write_sample(
    directory: Path, number: int, trajectory: Trajectory, layout: Layout, seed: int | None
) -> dict[str, Any]:
    """One episode on disk; returns its row in the manifest. Episodes of one seed count as one."""
    name = f"{PREFIX}_episode{number:06d}"
    key = EpisodeKey(env=0, index=0, seed=seed or 0)
    document = describe_sample(trajectory, layout, agent_id=f"episode{number}", episode=key, start_tick=0)
    if seed is None:
        del document["episode"]
    contents = {
        f"{name}.npz": encode_arrays(trajectory, compress=True),
        f"{name}.json": (to_json(document) + "\n").encode(),
    }
    for file, content in contents.items():
        (directory / file).write_bytes(content)
    sums = [hashlib.sha256(content).hexdigest() for content in contents.values()]
    return {"sample": f"{name}.npz", "meta": f"{name}.json", "sha256": sums[0], "meta_sha256": sums[1]}


def _buffer(sample: Sample) -> Any:
    """A life as Minari takes it: one observation more than actions."""
    life, n_steps = sample.trajectory, sample.trajectory.n_steps - 1
    last = np.arange(n_steps) == n_steps - 1
    infos = {} if life.action_mask is None else {"action_mask": life.action_mask}
    return import_module("minari.data_collector").EpisodeBuffer(
        seed=None if sample.episode is None else sample.episode.seed,
        observations=life.features,
        actions=life.actions[:-1],
        rewards=life.rewards[:-1],
        terminations=life.terminated[:-1],
        truncations=life.truncated[:-1] | (last & ~life.terminated[:-1]),
        infos=infos,
    )


def _appended(
    minari: Any, dataset: Any, dataset_id: str, episodes: list[Any], layout: Layout, replay: SampleReplay
) -> Any:
    """The dataset with some episodes more; a new one where there is none yet."""
    if dataset is not None:
        dataset.update_dataset_from_buffer(episodes)
        return dataset
    n_features = len(layout.feature_names)
    policy = replay.capture.policy if replay.capture else "unknown"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that no environment is evaluated in, or registered
        dataset = minari.create_dataset_from_buffers(
            dataset_id,
            episodes,
            env=layout.env_id if layout.env_id in registry else None,
            observation_space=spaces.Box(-np.inf, np.inf, (n_features,), np.float32),
            action_space=spaces.Discrete(len(layout.action_names)),
            algorithm_name=policy,
            author=AUTHOR,
            author_email="none",
            code_permalink="none",
            description=f"Captured in {layout.env_id} by townlet-train; the last action of every life is left out.",
            requirements=[AUTHOR],
        )
    names = {
        "env_id": layout.env_id,
        "feature_names": list(layout.feature_names),
        "action_names": list(layout.action_names),
    }
    dataset.storage.update_metadata({NAMES: json.dumps(names)})
    return dataset


def _lost(layout: Layout) -> tuple[str, ...]:
    return (f"Maps ({', '.join(layout.map_channels)}) were left out.",) if layout.map_channels else ()
