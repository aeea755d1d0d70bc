"""Minari datasets read as demonstrations, episode by episode."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from pydantic import ValidationError

from townlet_train.data.landing import check_output, sole_writer
from townlet_train.data.layout import Layout, describe_bounds, within_bounds
from townlet_train.data.manifest import SUFFIX, encode_manifest
from townlet_train.data.schema import MOST, EpisodeKey, Names, Size, Strictly
from townlet_train.data.storage import describe_sample, encode_arrays
from townlet_train.data.trajectory import Trajectory
from townlet_train.envs.spaces import BoxActions, DiscreteActions, ObservationCode, observation_code
from townlet_train.errors import DataError, EnvironmentCreationError, UsageError
from townlet_train.files import atomic_directory, to_json
from townlet_train.results import MinariDTO
from townlet_train.services.minari.database import NAMES, load_dataset

PREFIX = "minari"
# What HDF5, Minari and NumPy say of a file that is damaged.
DAMAGES = (OSError, LookupError, RuntimeError, TypeError, ValueError, AssertionError, AttributeError)


def import_minari(
    dataset_id: str, output: Path, *, env: str | None = None, overwrite: bool = False
) -> MinariDTO:
    """Write a local Minari dataset as a recording that `bc` learns from.

    Observations of any fixed size become features; actions are those of a Discrete space, or of a Box and flattened.
    Every episode stays one, and lives of one town-episode that we exported belong together again. `env` is the
    environment it is of, where the dataset does not say, or not as it is called here.

    Raises:
        MissingExtraError: `minari` is not installed.
        UsageError: there is no such dataset, nobody says of which environment it is, or the output is in use.
        DataError: its observations or actions are of a kind that is not recorded, or it is damaged.
    """
    dataset = load_dataset(dataset_id)
    told = _told(dataset, dataset_id)
    env_id = env or told.env_id or (dataset.env_spec.id if dataset.env_spec else None)
    if env_id is None:
        raise UsageError(f"{dataset_id} does not say of which environment it is. Name one with --env.")
    actions, observations = _codes(dataset, dataset_id)
    features = _names(told.feature_names, observations.names, "features", dataset_id)
    names = _names(told.action_names, actions.names, "actions", dataset_id)
    layout = Layout(features, names, (), 0, env_id, actions.low, actions.high)
    with sole_writer(output):
        check_output(output, overwrite=overwrite)
        with atomic_directory(output) as directory:
            rows: list[dict[str, Any]] = []
            places = _Places(dataset)
            frames = 0
            for number, episode in enumerate(_episodes(dataset, dataset_id)):
                where = f"{dataset_id}, episode {number}"
                place = places.of(number, int(episode.id), where)
                trajectory = _trajectory(episode, observations, actions, place, where)
                rows.append(_write_sample(directory, number, trajectory, layout, place))
                places.take(place, trajectory.n_steps)
                frames += trajectory.n_steps
            if not rows:
                raise DataError(f"Minari dataset {dataset_id} holds no episodes.")
            about = {
                "env_id": env_id, "policy": str(dataset.storage.metadata.get("algorithm_name") or "unknown"),
                "ticks": places.ticks, "n_envs": places.n_envs, "n_agents": told.n_agents,
                "seeds": places.seeds, "feature_names": list(layout.feature_names),
                "action_names": list(layout.action_names), "map_channels": [], "map_size": 0, "maps": False,
                "minari": dataset_id, **describe_bounds(layout),
            }  # fmt: skip
            manifest = directory / f"{PREFIX}{SUFFIX}"
            manifest.write_bytes(encode_manifest(about, {"samples": rows}))
    return MinariDTO(
        dataset=dataset_id, recording=str(output / manifest.name), episodes=len(rows), frames=frames,
        left_out=0, env=env_id,
    )  # fmt: skip


class _Told(Strictly):
    """What an export of ours says of a whole dataset; another library says nothing of it."""

    env_id: str | None = None
    feature_names: Names | None = None
    action_names: Names | None = None
    n_agents: Size = 1


def _told(dataset: Any, dataset_id: str) -> _Told:
    try:
        return _Told.model_validate_json(dataset.storage.metadata.get(NAMES, "{}"))
    except ValidationError as error:
        raise _not_ours(dataset_id) from error


def _names(
    told: tuple[str, ...] | None, of_space: tuple[str, ...], what: str, dataset_id: str
) -> tuple[str, ...]:
    """The names that our export wrote, one for each of its space's; those of the space where it wrote none."""
    if told is not None and len(told) != len(of_space):
        raise DataError(
            f"{dataset_id}: its metadata `{NAMES}` names {len(told)} {what}, its space has {len(of_space)}. "
            f"Export it again."
        )
    return of_space if told is None else told


def _not_ours(where: str) -> DataError:
    return DataError(f"{where}: its metadata `{NAMES}` is not what an export writes. Export it again.")


def _episodes(dataset: Any, dataset_id: str) -> Iterator[Any]:
    """Every episode of a dataset, read when its turn comes."""
    try:
        yield from dataset.iterate_episodes()
    except DAMAGES as error:
        raise DataError(
            f"Minari dataset {dataset_id} cannot be read to its end: {_why(error)}. Get or make it again."
        ) from error


def _why(error: Exception) -> str:
    return str(error).rstrip(".") or type(error).__name__


class _Indices:
    """Actions of a Discrete space: their names, and the number of the first."""

    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()

    def __init__(self, space: spaces.Discrete) -> None:
        self.names, self.start = DiscreteActions(space).names, int(space.start)

    def recorded(self, actions: Any) -> NDArray[np.int64]:
        """(n_steps,); `DataError` where one is not of the space."""
        indices = np.asarray(actions, np.int64) - self.start
        if not 0 <= indices.min() <= indices.max() < len(self.names):
            raise DataError(f"it has actions outside the {len(self.names)} of its space.")
        return indices


class _Vectors:
    """Actions of a Box, flattened: their bounds."""

    names: tuple[str, ...] = ()

    def __init__(self, space: spaces.Box) -> None:
        code = BoxActions(space)
        self.low, self.high = code.low, code.high

    def recorded(self, actions: Any) -> NDArray[np.float32]:
        """(n_steps, n_dimensions); `DataError` where one is not of the space."""
        vectors = np.asarray(actions, np.float32).reshape(len(actions), -1)
        if not within_bounds(vectors, self.low, self.high).all():
            raise DataError("it has actions that are no numbers or outside the bounds of its space.")
        return vectors


def _codes(dataset: Any, dataset_id: str) -> tuple[_Indices | _Vectors, ObservationCode]:
    """How its actions and observations become indices or vectors, and features."""
    space = dataset.action_space
    if not isinstance(space, spaces.Discrete | spaces.Box):
        raise DataError(
            f"The actions of {dataset_id} are {space}; recordings hold indices, of a Discrete space, or vectors, of a "
            f"Box."
        )
    try:
        actions = _Indices(space) if isinstance(space, spaces.Discrete) else _Vectors(space)
        return actions, observation_code(dataset.observation_space, dataset_id)
    except EnvironmentCreationError as error:
        raise DataError(str(error)) from error


class _Place(NamedTuple):
    """Which episode of a recording an episode of a dataset is, and what of it."""

    key: EpisodeKey
    agent_id: str
    start_tick: int = 0  # counted from the episode's first tick
    left_out: bool = False  # its last action, and so the truncation is ours and was not recorded


class _Places:
    """Says of every episode of a dataset which one it is: as it was exported, else one of its own."""

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset
        self._of_seed: Counter[int] = Counter()
        self._lengths: dict[int, dict[int, int]] = defaultdict(dict)  # ticks, by environment and index
        self._seeds: set[int] = set()

    @property
    def n_envs(self) -> int:
        return len(self._lengths)

    @property
    def ticks(self) -> int:
        """Ticks of the environment that has most."""
        return max(sum(lengths.values()) for lengths in self._lengths.values())

    @property
    def seeds(self) -> list[int]:
        return sorted(self._seeds)

    def of(self, number: int, episode_id: int, where: str) -> _Place:
        """The place of the episode that comes at `number`."""
        try:
            [about] = self._dataset.storage.get_episode_metadata([episode_id])
            seed = about.get("seed")
            seed = None if seed is None or seed < 0 else seed
            # An episode of a seed that was there before is taken as a later one of the environment reset with it.
            earlier = 0 if seed is None else self._of_seed[seed]
            key = EpisodeKey(env=number, index=earlier, seed=seed)
        except DAMAGES as error:
            raise DataError(
                f"{where}: its metadata cannot be read: {_why(error)}. Get or make it again."
            ) from error
        told = about.get(NAMES, {})
        try:
            left_out = bool(told.get("left_out", False))
            if "env" in told:
                key = EpisodeKey(env=int(told["env"]), index=int(told["index"]), seed=seed)
                return _Place(key, str(told["agent_id"]), _tick(told["start_tick"]), left_out)
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise _not_ours(where) from error
        self._of_seed.update(() if seed is None else (seed,))
        return _Place(key, f"episode{number}", left_out=left_out)

    def take(self, place: _Place, n_steps: int) -> None:
        """Count the ticks of an episode."""
        lengths = self._lengths[place.key.env]
        lengths[place.key.index] = max(lengths.get(place.key.index, 0), place.start_tick + n_steps)
        self._seeds |= set() if place.key.seed is None else {place.key.seed}


def _tick(number: Any) -> int:
    """A tick of an episode; `ValueError` for what no recording counts."""
    if not 0 <= int(number) <= MOST:
        raise ValueError(f"{number} is no tick")
    return int(number)


def _trajectory(
    episode: Any, code: ObservationCode, actions: _Indices | _Vectors, place: _Place, where: str
) -> Trajectory:
    """An episode as one life: what was seen before each action, and after the last."""
    n_steps = len(episode.rewards)
    if n_steps == 0:
        raise DataError(
            f"{where}: it has no step, and so no action to learn from. Leave it out of the dataset."
        )
    try:
        seen = [_features(code, _step(episode.observations, index)) for index in range(n_steps + 1)]
        mask = episode.infos.get("action_mask") if isinstance(episode.infos, dict) else None
        ended = np.asarray(episode.terminations, np.bool_)
        cut = np.asarray(episode.truncations, np.bool_) & ~ended
        if place.left_out:
            cut = cut & (np.arange(n_steps) < n_steps - 1)
        life = Trajectory(
            features=np.stack(seen[:-1]),
            actions=actions.recorded(episode.actions),
            rewards=np.asarray(episode.rewards, np.float32),
            terminated=ended,
            truncated=cut,
            action_mask=None if mask is None or actions.low else np.asarray(mask[:n_steps], np.bool_),
            final_features=None if place.left_out else seen[-1],
        )
        _check_values(life, seen, len(actions.names))
    except DataError as error:
        raise DataError(f"{where}: {error}") from error
    except DAMAGES as error:
        raise DataError(
            f"{where}: its arrays do not belong together: {_why(error)}. Get or make it again."
        ) from error
    return life


def _check_values(life: Trajectory, seen: Sequence[NDArray[np.float32]], n_actions: int) -> None:
    """Refuse what a recording may not hold, before it is written."""
    if not (np.isfinite(np.stack(seen)).all() and np.isfinite(life.rewards).all()):
        raise DataError("it has observations or rewards that are NaN or infinite; expected finite numbers.")
    if life.action_mask is not None and life.action_mask.shape[1] != n_actions:
        raise DataError(f"`action_mask` has {life.action_mask.shape[1]} columns for {n_actions} actions.")


def _features(code: ObservationCode, observation: Any) -> NDArray[np.float32]:
    features = np.asarray(code.flatten(observation), np.float32).ravel()
    if len(features) != len(code.names):
        raise DataError(
            f"it has an observation of {len(features)} numbers, its space has {len(code.names)}. Get or make it again."
        )
    return features


def _step(observations: Any, index: int) -> Any:
    """One observation of an episode, whose parts are arrays, dicts and tuples of them."""
    if isinstance(observations, Mapping):
        return {name: _step(part, index) for name, part in observations.items()}
    if isinstance(observations, tuple):
        return tuple(_step(part, index) for part in observations)
    return observations[index]


def _write_sample(
    directory: Path, number: int, trajectory: Trajectory, layout: Layout, place: _Place
) -> dict[str, Any]:
    """One episode on disk; returns its row in the manifest."""
    name = f"{PREFIX}_episode{number:06d}"
    document = describe_sample(
        trajectory, layout, agent_id=place.agent_id, episode=place.key, start_tick=place.start_tick
    )
    contents = {
        f"{name}.npz": encode_arrays(trajectory, compress=True),
        f"{name}.json": (to_json(document) + "\n").encode(),
    }
    for file, content in contents.items():
        (directory / file).write_bytes(content)
    sums = [hashlib.sha256(content).hexdigest() for content in contents.values()]
    return {"sample": f"{name}.npz", "meta": f"{name}.json", "sha256": sums[0], "meta_sha256": sums[1]}
