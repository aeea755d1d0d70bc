"""Any Gymnasium environment under the vector protocol: plain environments stepped one after the other.

Each environment is one agent, alone. Nothing resets itself: an episode that ends here is reset here, in the same
step, so no autoreset mode can be misread. Environment i starts as `gymnasium.make(id).reset(seed=seeds[i])` would.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec as GymnasiumSpec
from gymnasium.envs.registration import registry
from gymnasium.spaces import Space
from numpy.typing import NDArray

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
    DataError,
    EnvironmentCreationError,
    EnvironmentFailedError,
    UsageError,
    suggestion,
)

GymnasiumEnv = gymnasium.Env[Any, Any]
Zeros = Callable[[tuple[int, ...], type], NDArray[Any]]


@dataclass(frozen=True)
class Buffers:
    """The arrays one set of environments fills at every step; `zeros` decides in which memory they lie."""

    features: NDArray[np.float32]  # (n_envs, n_features)
    final_features: NDArray[np.float32]
    rewards: NDArray[np.float32]  # (n_envs,)
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]

    @classmethod
    def allocate(cls, n_envs: int, n_features: int, zeros: Zeros = np.zeros) -> Buffers:
        """Zeros for `n_envs` environments."""
        wide, flat = (n_envs, n_features), (n_envs,)
        floats = (zeros(shape, np.float32) for shape in (wide, wide, flat))
        return cls(*floats, *(zeros(flat, np.bool_) for _ in range(2)))

    def rows(self, first: int, last: int) -> Buffers:
        """The same memory, for environments first..last-1 alone."""
        return Buffers(*(array[first:last] for array in vars(self).values()))

    def step(self, spec: EnvSpec) -> Step:
        """The arrays as what one tick brought, with the agent axis of length 1 put in."""
        n_envs = len(self.features)
        maps = np.zeros((n_envs, 1, 0, 0, 0), np.uint8)
        mask = np.ones((n_envs, 1, len(spec.action_names)), np.bool_)
        return Step(
            Observation(self.features[:, None], maps, mask),
            self.rewards[:, None],
            self.terminated[:, None],
            self.truncated[:, None],
            Observation(self.final_features[:, None], maps, mask),
        )


class GymnasiumVectorEnv:
    """Several environments of one id in this process; implements `VectorEnv` with one agent each.

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
    ) -> None:
        if n_envs < 1:
            raise UsageError(f"At least one environment is needed, {n_envs} were asked for.")
        self.n_envs = n_envs
        self._envs = [make() for _ in range(n_envs)]
        first = self._envs[0]
        name = type(first.unwrapped).__name__
        self.spec = describe(name, first.spec, first.observation_space, first.action_space)
        self._flatten = observation_code(first.observation_space, self.spec.env_id).flatten
        self._actions = action_code(first.action_space, self.spec.env_id)
        self._journals = [Journal(env) for env in self._envs]
        self._buffers = buffers or Buffers.allocate(n_envs, len(self.spec.feature_names))
        self._step = self._buffers.step(self.spec)
        self._seeded = False

    def reset(self, seeds: NDArray[np.int64]) -> Observation:
        """Start an episode per environment, of its own seed. (n_envs,)"""
        check_seeds(seeds, self.n_envs)
        for index, (env, journal, seed) in enumerate(zip(self._envs, self._journals, seeds, strict=True)):
            journal.begin_seeded(int(seed))
            self._buffers.features[index] = self._flatten(env.reset(seed=int(seed))[0])
        self._seeded = True
        return self._step.observation

    def step(self, actions: Actions) -> Step:
        """One tick of every environment for `actions` (n_envs, 1, *spec.action_shape)."""
        if not self._seeded:
            raise UsageError("The environment was stepped before it was reset. Call reset(seeds) first.")
        buffers, flatten = self._buffers, self._flatten
        for index, action in enumerate(self._actions.decode(actions)):
            env, journal = self._envs[index], self._journals[index]
            try:
                observation, reward, terminated, truncated, _ = env.step(action)
                journal.actions.append(action)
                if terminated or truncated:
                    buffers.final_features[index] = flatten(observation)
                    journal.begin()
                    observation, _ = env.reset()
            except Exception as error:
                raise EnvironmentFailedError(
                    f"{self.spec.env_id}, environment {index}, raised {type(error).__name__} on action {action}: "
                    f"{error}"
                ) from error
            buffers.features[index] = flatten(observation)
            buffers.rewards[index] = reward
            buffers.terminated[index] = terminated
            buffers.truncated[index] = truncated
        return self._step

    def get_state(self) -> State:
        """How every environment's episode began and its actions since; see `envs.journal`."""
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
        if len(state["seeds"]) != self.n_envs:
            raise DataError(
                f"The saved state holds {len(state['seeds'])} environments, expected {self.n_envs}. "
                f"Build as many as it was saved with."
            )
        for index, own in enumerate(split_state(state)):
            self._replay(index, own)
        self._seeded = True
        return self._step.observation

    def _replay(self, index: int, state: State) -> None:
        """Bring one environment to its state."""
        env, journal = self._envs[index], self._journals[index]
        observation = start_episode(env, state)
        journal.continue_from(state)
        for action in journal.actions:
            observation = env.step(action)[0]
        self._buffers.features[index] = self._flatten(observation)
        check_arrival(env, self._buffers.features[index], state)

    def event_counts(self) -> dict[str, NDArray[np.float64]]:
        """Gymnasium environments report none."""
        return {}

    def close(self) -> None:
        """Let the environments release what they hold."""
        for env in self._envs:
            env.close()


def describe(
    name: str | None, env_spec: GymnasiumSpec | None, observations: Space[Any], actions: Space[Any]
) -> EnvSpec:
    """What an environment shows and takes, by name; `name` is for those that Gymnasium has not registered."""
    env_id = env_spec.id if env_spec is not None else str(name)
    code = action_code(actions, env_id)
    return EnvSpec(
        env_id=env_id,
        feature_names=observation_code(observations, env_id).names,
        action_names=code.names,
        action_low=code.low,
        action_high=code.high,
        reward_threshold=None if env_spec is None else env_spec.reward_threshold,
    )


def make_gymnasium(env_id: str) -> GymnasiumEnv:
    """`gymnasium.make` whose failures are sentences.

    Raises:
        EnvironmentCreationError: the id is unknown or deprecated, or the environment cannot be built.
    """
    try:
        with warnings.catch_warnings():
            # As an error, this warning of Box2D's bindings crashes the interpreter.
            warnings.filterwarnings("ignore", "builtin type .* has no __module__", DeprecationWarning)
            return gymnasium.make(env_id, disable_env_checker=True)
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


def check_seeds(seeds: NDArray[np.int64], n_envs: int) -> None:
    """Raise `UsageError` unless there is one seed per environment, none negative."""
    if len(seeds) != n_envs:
        raise UsageError(f"reset needs one seed per environment: {n_envs} environments, {len(seeds)} seeds.")
    if np.min(seeds) < 0:
        raise UsageError(f"Seeds are not negative, {int(np.min(seeds))} was given.")


def _missing(env_id: str, error: Exception) -> str:
    """What is not installed, and the command that installs it."""
    entry = registry[env_id].entry_point if env_id in registry else None
    if isinstance(entry, str) and entry.startswith("gymnasium.envs.box2d"):
        return "Box2D is not installed. Run: pip install 'townlet-train[box2d]'"
    return str(error)
