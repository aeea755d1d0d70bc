"""One vector environment: many environments, several agents each, stepped together.

Axes are always (n_envs, n_agents, ...). Arrays returned by `reset` and `step` are views of the environment's own
buffers and hold until the next `step`; copy what you keep. When an agent's life or an episode ends, the same `step`
already returns the first observation of the next one; `final_observation` holds the last of an episode that was cut.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Actions = NDArray[Any]  # int64 indices or float32 vectors, as the environment's `EnvSpec` says


@dataclass(frozen=True)
class EnvSpec:
    """What an environment shows and takes, by name, so that datasets and checkpoints can be compared with it.

    Actions are indices into `action_names`, or, where `action_low` and `action_high` bound them, vectors.
    """

    env_id: str
    feature_names: tuple[str, ...]
    action_names: tuple[str, ...]
    map_channels: tuple[str, ...] = ()
    map_size: int = 0
    episode_ticks: int = 0  # length of every episode; 0: an episode is over when its agent's life is
    action_low: tuple[float, ...] = ()
    action_high: tuple[float, ...] = ()
    reward_threshold: float | None = None  # mean episode return at which the task counts as solved

    @property
    def action_shape(self) -> tuple[int, ...]:
        """Shape of one agent's action, and of its uniform draws: () for an index, (dim,) for a vector."""
        return (len(self.action_low),) if self.action_low else ()

    @property
    def map_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of the local map; (0, 0, 0) when the environment has none."""
        return (len(self.map_channels), self.map_size, self.map_size)


class Observation(NamedTuple):
    """What every agent sees before it acts."""

    features: NDArray[np.float32]  # (n_envs, n_agents, n_features)
    maps: NDArray[np.uint8]  # (n_envs, n_agents, channels, height, width); no channels when there is no map
    action_mask: NDArray[np.bool_]  # (n_envs, n_agents, n_actions): what is legal; no actions for vectors


class Step(NamedTuple):
    """What one tick brought."""

    observation: Observation
    rewards: NDArray[np.float32]  # (n_envs, n_agents)
    terminated: NDArray[np.bool_]  # (n_envs, n_agents): the life ended; do not bootstrap
    truncated: NDArray[np.bool_]  # (n_envs, n_agents): the episode was cut; bootstrap from final_observation
    final_observation: Observation  # valid where an episode is over (`episodes_over`), stale elsewhere


def episodes_over(spec: EnvSpec, step: Step) -> NDArray[np.bool_]:
    """Environments whose episode this step ended, (n_envs,); where episodes have a length, deaths end none."""
    ended = step.truncated if spec.episode_ticks else step.truncated | step.terminated
    return np.asarray(ended.all(axis=1))


class VectorEnv(Protocol):
    """Many environments stepped together."""

    spec: EnvSpec
    n_envs: int
    n_agents: int

    def reset(self, seeds: NDArray[np.int64]) -> Observation:
        """Start one episode per environment; environment i draws from streams of `seeds[i]` alone. (n_envs,)"""
        ...

    def step(self, actions: Actions) -> Step:
        """Advance every environment one tick. `actions` is (n_envs, n_agents, *spec.action_shape)."""
        ...

    def get_state(self) -> dict[str, NDArray[Any]]:
        """A copy of everything the future depends on, as arrays of numbers, which any file of arrays can hold."""
        ...

    def set_state(self, state: dict[str, NDArray[Any]]) -> Observation:
        """Continue exactly from a state that `get_state` returned; returns the observation of that moment."""
        ...

    def event_counts(self) -> dict[str, NDArray[np.float64]]:
        """Events since `reset` by name, each (n_envs,); an event is counted once."""
        ...

    def close(self) -> None:
        """Release what it holds: processes, threads, windows; it is not used afterwards."""
        ...


@runtime_checkable
class Pausable(Protocol):
    """An environment that can leave some of its own alone, so that episodes nobody watches cost nothing."""

    def pause(self, envs: NDArray[np.bool_]) -> None:
        """Do not step these (n_envs,) before the next reset; they go on showing what they showed, without reward."""
        ...
