"""What a step of Gymnasium environments is written into, and checks of what goes into one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from townlet_train.envs.protocol import Actions, EnvSpec, Observation, Step
from townlet_train.errors import DataError, UsageError

Zeros = Callable[[tuple[int, ...], type], NDArray[Any]]


@dataclass(frozen=True)
class Buffers:
    """The arrays one set of environments fills at every step."""

    features: NDArray[np.float32]  # (n_envs, n_features)
    final_features: NDArray[np.float32]
    mask: NDArray[np.bool_]  # (n_envs, n_actions)
    rewards: NDArray[np.float32]  # (n_envs,)
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]

    @classmethod
    def allocate(cls, n_envs: int, spec: EnvSpec, zeros: Zeros = np.zeros) -> Buffers:
        """Arrays for `n_envs` environments, every action legal; `zeros` decides in which memory they lie."""
        n_features = len(spec.feature_names)
        buffers = cls(
            features=zeros((n_envs, n_features), np.float32),
            final_features=zeros((n_envs, n_features), np.float32),
            mask=zeros((n_envs, len(spec.action_names)), np.bool_),
            rewards=zeros((n_envs,), np.float32),
            terminated=zeros((n_envs,), np.bool_),
            truncated=zeros((n_envs,), np.bool_),
        )
        buffers.mask[:] = True
        return buffers

    def rows(self, first: int, last: int) -> Buffers:
        """The same memory, for environments first..last-1 alone."""
        return Buffers(*(array[first:last] for array in vars(self).values()))

    def step(self) -> Step:
        """The arrays as what one tick brought, with the agent axis of length 1 put in."""
        maps, mask = np.zeros((len(self.features), 1, 0, 0, 0), np.uint8), self.mask[:, None]
        return Step(
            Observation(self.features[:, None], maps, mask),
            self.rewards[:, None],
            self.terminated[:, None],
            self.truncated[:, None],
            Observation(self.final_features[:, None], maps, mask),
        )


def check_seeds(seeds: NDArray[np.int64], n_envs: int) -> None:
    """Raise `UsageError` unless there is one seed per environment, none negative."""
    if len(seeds) != n_envs:
        raise UsageError(f"reset needs one seed per environment: {n_envs} environments, {len(seeds)} seeds.")
    if np.min(seeds) < 0:
        raise UsageError(f"Seeds are not negative, {int(np.min(seeds))} was given.")


def check_actions(actions: Actions, shape: tuple[int, ...]) -> None:
    """Raise `UsageError` unless there is one action per environment."""
    if actions.shape != shape:
        raise UsageError(f"actions has shape {actions.shape}, expected {shape}.")


def check_size(state: Mapping[str, NDArray[Any]], n_envs: int) -> None:
    """Raise `DataError` unless a saved state is of as many environments."""
    if len(state["seeds"]) != n_envs:
        raise DataError(
            f"The saved state holds {len(state['seeds'])} environments, expected {n_envs}. "
            f"Build as many as it was saved with."
        )
