"""Any Gymnasium environment under the vector protocol: plain environments stepped one after the other.

Each environment is one agent, alone. Nothing resets itself: an episode that ends here is reset here, in the same
step, so no autoreset mode can be misread. Environment i starts as `gymnasium.make(id).reset(seed=seeds[i])` would.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec as GymnasiumSpec
from gymnasium.envs.registration import registry
from gymnasium.spaces import Space
from numpy.typing import NDArray

from townlet_train.envs.buffers import Buffers, check_actions, check_seeds, check_size
from townlet_train.envs.journal import (
    Journal,
    State,
    check_arrival,
    join_states,
    split_state,
    start_episode,
)
from townlet_train.envs.protocol import Actions, EnvSpec, Observation, Step
from townlet_train.envs.spaces import action_code, observation_code
from townlet_train.errors import (
    EnvironmentCreationError,
    EnvironmentFailedError,
    UsageError,
    suggestion,
)

GymnasiumEnv = gymnasium.Env[Any, Any]
MASK = "action_mask"  # where in `info` environments of Gymnasium say what is legal


class GymnasiumVectorEnv:
    """Several environments of one id in this process; implements `VectorEnv` with one agent each.

    `buffers` and `first` say which part of a larger set they are: where to write, and the number of the first one.

    Raises:
        EnvironmentCreationError: the id is unknown, needs what is not installed, or has spaces that are not supported.
    """

    n_agents = 1

    def __init__(
        self,
        make: Callable[[], GymnasiumEnv],
        n_envs: int,
        *,
        buffers: Buffers | None = None,
        first: int = 0,
    ) -> None:
        if n_envs < 1:
            raise UsageError(f"At least one environment is needed, {n_envs} were asked for.")
        self.n_envs = n_envs
        self._envs = [make() for _ in range(n_envs)]
        env = self._envs[0]
        name = type(env.unwrapped).__name__
        self.spec = describe(name, env.spec, env.observation_space, env.action_space)
        self._flatten = observation_code(env.observation_space, self.spec.env_id).flatten
        self._actions = action_code(env.action_space, self.spec.env_id)
        self._first = first
        self._shape = (n_envs, 1, *self.spec.action_shape)
        self._journals = [Journal(env) for env in self._envs]
        self._buffers = buffers or Buffers.allocate(n_envs, self.spec)
        self._step = self._buffers.step()
        self._stepped = [*range(n_envs)]
        self._masked = self._seeded = False

    def reset(self, seeds: NDArray[np.int64]) -> Observation:
        """Start an episode per environment, of its own seed. (n_envs,)"""
        check_seeds(seeds, self.n_envs)
        for index, (env, journal, seed) in enumerate(zip(self._envs, self._journals, seeds, strict=True)):
            journal.begin_seeded(int(seed))
            observation, info = env.reset(seed=int(seed))
            self._masked = MASK in info
            self._show(index, observation, info)
        self._stepped = [*range(self.n_envs)]
        self._seeded = True
        return self._step.observation

    def step(self, actions: Actions) -> Step:
        """One tick of every environment for `actions` (n_envs, 1, *spec.action_shape)."""
        self._check_seeded()
        check_actions(actions, self._shape)
        buffers, flatten = self._buffers, self._flatten
        decoded = self._actions.decode(actions)
        for index in self._stepped:
            env, journal, action = self._envs[index], self._journals[index], decoded[index]
            try:
                observation, reward, terminated, truncated, info = env.step(action)
                journal.actions.append(action)
                if terminated or truncated:
                    buffers.final_features[index] = flatten(observation)
                    journal.begin()
                    observation, info = env.reset()
            except Exception as error:
                raise EnvironmentFailedError(
                    f"{self.spec.env_id}, environment {self._first + index}, "
                    f"raised {type(error).__name__} on action {action}: {error}"
                ) from error
            buffers.features[index] = flatten(observation)
            if self._masked:
                buffers.mask[index] = info[MASK]
            buffers.rewards[index] = reward
            buffers.terminated[index] = terminated
            buffers.truncated[index] = truncated
        return self._step

    def pause(self, envs: NDArray[np.bool_]) -> None:
        """Do not step these (n_envs,) before the next reset; they go on showing what they showed, without reward."""
        self._stepped = np.flatnonzero(~envs).tolist()
        for array in (self._buffers.rewards, self._buffers.terminated, self._buffers.truncated):
            array[envs] = 0

    def get_state(self) -> State:
        """How every environment's episode began and its actions since; see `envs.journal`."""
        self._check_seeded()
        features = self._buffers.features
        dtype, shape = self._actions.dtype, self._actions.shape
        return join_states(
            [journal.state(features[i], dtype, shape) for i, journal in enumerate(self._journals)]
        )

    def set_state(self, state: State) -> Observation:
        """Replay to where `get_state` was called; returns the observation of that moment.

        Raises:
            InexactStateError: the replay arrived somewhere else.
            DataError: the state is of another number of environments.
        """
        check_size(state, self.n_envs)
        for index, own in enumerate(split_state(state)):
            self._replay(index, own)
        self._stepped = [*range(self.n_envs)]
        self._seeded = True
        return self._step.observation

    def _replay(self, index: int, state: State) -> None:
        """Bring one environment to its state."""
        env, journal = self._envs[index], self._journals[index]
        observation, info = start_episode(env, state)
        journal.continue_from(state)
        for action in journal.actions:
            observation, _, _, _, info = env.step(action)
        self._masked = MASK in info
        self._show(index, observation, info)
        check_arrival(env, self._buffers.features[index], state)

    def _check_seeded(self) -> None:
        if not self._seeded:
            raise UsageError("The environment was used before it was reset. Call reset(seeds) first.")

    def _show(self, index: int, observation: Any, info: Mapping[str, Any]) -> None:
        """Put what one environment shows where it is seen."""
        self._buffers.features[index] = self._flatten(observation)
        if self._masked:
            self._buffers.mask[index] = info[MASK]

    def event_counts(self) -> dict[str, NDArray[np.float64]]:
        """Gymnasium environments report none."""
        return {}

    def close(self) -> None:
        """Let the environments release what they hold."""
        for env in self._envs:
            env.close()


def describe(
    name: str, env_spec: GymnasiumSpec | None, observations: Space[Any], actions: Space[Any]
) -> EnvSpec:
    """What an environment shows and takes, by name; `name` is for those that Gymnasium has not registered."""
    env_id = env_spec.id if env_spec is not None else name
    code = action_code(actions, env_id)
    return EnvSpec(
        env_id=env_id,
        feature_names=observation_code(observations, env_id).names,
        action_names=code.names,
        action_low=code.low,
        action_high=code.high,
        reward_threshold=None if env_spec is None else env_spec.reward_threshold,
    )


def make_gymnasium(env: str | GymnasiumSpec) -> GymnasiumEnv:
    """`gymnasium.make` of an id or of what is registered under one; its failures are sentences.

    Raises:
        EnvironmentCreationError: the id is unknown or deprecated, or the environment cannot be built.
    """
    env_id = env if isinstance(env, str) else env.id
    try:
        with warnings.catch_warnings():
            # As an error, this warning of Box2D's bindings crashes the interpreter.
            warnings.filterwarnings("ignore", "builtin type .* has no __module__", DeprecationWarning)
            return gymnasium.make(env, disable_env_checker=True)
    except gymnasium.error.UnregisteredEnv as error:
        close = suggestion(env_id, ["town", *registry])
        if not close:
            raise EnvironmentCreationError(
                f"No environment named {env_id!r}: it is neither 'town' nor an id that Gymnasium knows."
            ) from error
        raise EnvironmentCreationError(f"No environment named {env_id!r}.{close}") from error
    except gymnasium.error.DependencyNotInstalled as error:
        raise EnvironmentCreationError(f"{env_id} cannot be built: {_missing(env_id, error)}") from error
    except Exception as error:
        raise EnvironmentCreationError(f"{env_id} cannot be built: {error}") from error


def _missing(env_id: str, error: Exception) -> str:
    """What is not installed, and the command that installs it."""
    entry = registry[env_id].entry_point if env_id in registry else None
    if isinstance(entry, str) and entry.startswith("gymnasium.envs.box2d"):
        return "Box2D is not installed. Run: pip install 'townlet-train[box2d]'"
    return str(error)
