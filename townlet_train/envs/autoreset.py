"""An existing `gymnasium.vector.VectorEnv` under the vector protocol, whichever way it resets itself.

Its `autoreset_mode` decides what `step` returns at an episode's end, and with it what may be learned from:

    SAME_STEP   the next episode's first observation, the last one in `infos`; as this house's protocol has it
    DISABLED    the last observation; the caller resets
    NEXT_STEP   the last observation; the step after it only resets, whatever the action, and is no transition.
                A masked reset here, at once, takes the place of that step.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from gymnasium.vector.utils import iterate
from numpy.typing import NDArray

from townlet_train.data.checkpoint import task_of
from townlet_train.envs.buffers import Buffers, check_actions, check_seeds
from townlet_train.envs.gymnasium import describe
from townlet_train.envs.journal import State
from townlet_train.envs.protocol import Actions, Observation, Step
from townlet_train.envs.spaces import action_code, observation_code
from townlet_train.errors import EnvironmentCreationError, InexactStateError

TAKE_A_MASKED_RESET = (SyncVectorEnv, AsyncVectorEnv)  # in NEXT_STEP mode; where it is disabled, all do


class AdaptedVectorEnv:
    """Implements `VectorEnv` with one agent each, on top of another library's vector environment.

    Raises:
        EnvironmentCreationError: its spaces are not supported, or it resets in a way that loses steps.
    """

    n_agents = 1

    def __init__(self, envs: gymnasium.vector.VectorEnv[Any, Any, Any]) -> None:
        self._envs, self.n_envs = envs, envs.num_envs
        name = type(envs.unwrapped).__name__
        self.spec = describe(name, envs.spec, envs.single_observation_space, envs.single_action_space)
        self._flatten = observation_code(envs.single_observation_space, self.spec.env_id).flatten
        self._actions = action_code(envs.single_action_space, self.spec.env_id)
        self._mode = _autoreset_mode(envs)
        self._buffers = Buffers.allocate(self.n_envs, self.spec)
        self._step = self._buffers.step()

    def reset(self, seeds: NDArray[np.int64]) -> Observation:
        """Start an episode per environment, of its own seed. (n_envs,)"""
        check_seeds(seeds, self.n_envs)
        each = [int(seed) for seed in seeds]
        # The base class declares one seed; every vector environment takes one for each.
        observations, _ = self._envs.reset(seed=each)  # type: ignore[arg-type]
        self._buffers.features[:] = self._features(observations)
        return self._step.observation

    def step(self, actions: Actions) -> Step:
        """One tick of every environment for `actions` (n_envs, 1, *spec.action_shape)."""
        check_actions(actions, (self.n_envs, 1, *self.spec.action_shape))
        decoded = np.asarray(self._actions.decode(actions), self._actions.dtype)
        observations, rewards, terminated, truncated, infos = self._envs.step(decoded)
        buffers, over = self._buffers, terminated | truncated
        buffers.features[:] = self._features(observations)
        buffers.rewards[:], buffers.terminated[:], buffers.truncated[:] = rewards, terminated, truncated
        if over.any():
            if self._mode is AutoresetMode.SAME_STEP:
                for index in np.flatnonzero(over):
                    buffers.final_features[index] = self._flatten(infos["final_obs"][index])
            else:
                buffers.final_features[over] = buffers.features[over]
                fresh, _ = self._envs.reset(options={"reset_mask": over.copy()})
                buffers.features[over] = self._features(fresh)[over]
        return self._step

    def _features(self, observations: Any) -> NDArray[Any]:
        """Features (n_envs, n_features) of a batch of observations."""
        if isinstance(self._envs.single_observation_space, Box):
            return np.asarray(observations).reshape(self.n_envs, -1)
        batch = iterate(self._envs.observation_space, observations)
        return np.stack([self._flatten(observation) for observation in batch])

    def get_state(self) -> State:
        """Raises `InexactStateError`, always: what happens inside another library's environment is not known here."""
        raise InexactStateError(self._no_way_back())

    def set_state(self, state: State) -> Observation:
        """Raises `InexactStateError`, always."""
        raise InexactStateError(self._no_way_back())

    def _no_way_back(self) -> str:
        return (
            f"{self.spec.env_id} inside {type(self._envs.unwrapped).__name__} cannot be brought back to an earlier "
            f"moment. A run that shall be resumed needs the plain environment, --env {task_of(self.spec.env_id)}."
        )

    def event_counts(self) -> dict[str, NDArray[np.float64]]:
        """Gymnasium environments report none."""
        return {}

    def close(self) -> None:
        """Close what is underneath."""
        self._envs.close()


def _autoreset_mode(envs: gymnasium.vector.VectorEnv[Any, Any, Any]) -> AutoresetMode:
    """The mode an environment says it has; `EnvironmentCreationError` when it says none, or loses steps by it."""
    found = envs.metadata.get("autoreset_mode")
    wanted = "Make it with autoreset_mode=AutoresetMode.SAME_STEP."
    if not isinstance(found, AutoresetMode):
        raise EnvironmentCreationError(
            f"{type(envs.unwrapped).__name__} does not say in its metadata how it resets itself. {wanted}"
        )
    if found is AutoresetMode.NEXT_STEP and not isinstance(envs.unwrapped, TAKE_A_MASKED_RESET):
        raise EnvironmentCreationError(
            f"{type(envs.unwrapped).__name__} resets one step late, and is not known to be resettable at once. {wanted}"
        )
    return found
