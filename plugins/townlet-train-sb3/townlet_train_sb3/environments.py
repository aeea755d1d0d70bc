"""Environments of townlet-train as Stable-Baselines3 sees them: a `VecEnv` around a `VectorEnv` of one agent each."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.vec_env.base_vec_env import VecEnv, VecEnvIndices, VecEnvStepReturn

from townlet_train.api import EnvSpec, VectorEnv
from townlet_train.learners.rollouts import Episode


class SlotEnv(VecEnv):
    """The same environments, seeds and resets that Stable-Baselines3's own `make_vec_env` gives.

    `episodes` are those that ended and nobody has taken yet. Action masks are not shown: nothing there reads them.
    """

    def __init__(self, env: VectorEnv) -> None:
        self._env = env
        super().__init__(env.n_envs, *spaces_of(env.spec))
        self.episodes: list[Episode] = []
        self._ticks = 0
        self._returns, self._lengths = np.zeros(env.n_envs), np.zeros(env.n_envs, np.int64)
        self._actions: NDArray[Any] = np.zeros(0)

    def reset(self) -> NDArray[np.float32]:
        """An episode in each environment, of the seeds that `seed` set."""
        observation = self._env.reset(np.array(self._seeds, np.int64))
        self._reset_seeds()
        return observation.features[:, 0].copy()

    def step_async(self, actions: NDArray[Any]) -> None:
        """Take actions (n_envs, ...) for the next `step_wait`."""
        self._actions = np.asarray(actions, np.float32 if self._env.spec.action_low else np.int64)

    def step_wait(self) -> VecEnvStepReturn:
        """One tick of every environment, as Stable-Baselines3 wants it told."""
        step = self._env.step(self._actions[:, None])
        terminated, truncated = step.terminated[:, 0], step.truncated[:, 0]
        over, rewards = terminated | truncated, step.rewards[:, 0].copy()
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        self._ticks += 1
        self._returns += rewards
        self._lengths += 1
        for index in np.flatnonzero(over).tolist():
            infos[index] = {
                "terminal_observation": step.final_observation.features[index, 0].copy(),
                "TimeLimit.truncated": bool(truncated[index] and not terminated[index]),
            }
            ended_at = self._ticks * self.num_envs
            self.episodes.append(Episode(ended_at, float(self._returns[index]), int(self._lengths[index])))
        self._returns[over] = self._lengths[over] = 0
        return step.observation.features[:, 0].copy(), rewards, over, infos

    def close(self) -> None:
        """Release the environments."""
        self._env.close()

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """None, for every attribute: nothing of the environments is shown but their steps."""
        return [None] * self.num_envs

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Nothing can be set."""
        raise AttributeError(f"environments of a run have no attribute {attr_name!r} that could be set")

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any
    ) -> list[Any]:
        """Nothing can be called."""
        raise AttributeError(f"environments of a run have no method {method_name!r}")

    def env_is_wrapped(self, wrapper_class: type[Any], indices: VecEnvIndices = None) -> list[bool]:
        """No wrapper of Gymnasium's is visible."""
        return [False] * self.num_envs


def spaces_of(spec: EnvSpec) -> tuple[spaces.Box, spaces.Space[Any]]:
    """Features of any size, and indices or vectors as actions."""
    observations = spaces.Box(-np.inf, np.inf, (len(spec.feature_names),), np.float32)
    if spec.action_low:
        low, high = np.array([spec.action_low, spec.action_high], np.float32)
        return observations, spaces.Box(low, high)
    return observations, spaces.Discrete(len(spec.action_names))
