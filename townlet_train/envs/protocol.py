"""One vector environment: many environments, several agents each, stepped together.

Axes are always (n_envs, n_agents, ...). Arrays returned by `reset` and `step` are views of the environment's own
buffers and hold until the next `step`; copy what you keep. When an agent's life or an episode ends, the same `step`
already returns the first observation of the next one; `final_observation` holds the last of an episode that was cut.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class EnvSpec:
    """What an environment shows and takes, by name, so that datasets and checkpoints can be compared with it."""

    env_id: str
    feature_names: tuple[str, ...]
    action_names: tuple[str, ...]
    map_channels: tuple[str, ...] = ()
    map_size: int = 0
    episode_ticks: int = 0

    @property
    def map_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of the local map; (0, 0, 0) when the environment has none."""
        return (len(self.map_channels), self.map_size, self.map_size)


class Observation(NamedTuple):
    """What every agent sees before it acts."""

    features: NDArray[np.float32]  # (n_envs, n_agents, n_features)
    maps: NDArray[
        np.uint8
    ]  # (n_envs, n_agents, channels, height, width); empty channels when there is no map
    action_mask: NDArray[np.bool_]  # (n_envs, n_agents, n_actions); True where the action is legal


class Step(NamedTuple):
    """What one tick brought."""

    observation: Observation
    rewards: NDArray[np.float32]  # (n_envs, n_agents)
    terminated: NDArray[np.bool_]  # (n_envs, n_agents): the life ended; do not bootstrap
    truncated: NDArray[np.bool_]  # (n_envs, n_agents): the episode was cut; bootstrap from final_observation
    final_observation: Observation  # valid where truncated is True, stale elsewhere


class VectorEnv(Protocol):
    """Many environments stepped together."""

    spec: EnvSpec
    n_envs: int
    n_agents: int

    def reset(self, seeds: NDArray[np.int64]) -> Observation:
        """Start one episode per environment; environment i draws from streams of `seeds[i]` alone. (n_envs,)"""
        ...

    def step(self, actions: NDArray[np.int64]) -> Step:
        """Advance every environment one tick. `actions` is (n_envs, n_agents)."""
        ...

    def get_state(self) -> dict[str, NDArray[Any]]:
        """A copy of everything the future depends on."""
        ...

    def set_state(self, state: dict[str, NDArray[Any]]) -> Observation:
        """Continue exactly from a state that `get_state` returned; returns the observation of that moment."""
        ...

    def event_counts(self) -> dict[str, NDArray[np.float64]]:
        """Events since `reset` by name, each (n_envs,); an event is counted once."""
        ...
