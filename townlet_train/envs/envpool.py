"""EnvPool's environments, written anew in C++: chosen by an id like `envpool:LunarLander-v3`, and never otherwise.

They agree with Gymnasium's in what happens on average, not step by step, and nothing can bring one back to an earlier
moment. The prefix stays in the environment's id, so that checkpoints and results show what they come from.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from gymnasium.envs.registration import EnvSpec as GymnasiumSpec
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from townlet_train.data.checkpoint import task_of
from townlet_train.envs.autoreset import AdaptedVectorEnv
from townlet_train.errors import EnvironmentCreationError, MissingExtraError, UsageError, suggestion

logger = logging.getLogger(__name__)

LARGEST_SEED = 2**31 - 1

MakePool = Callable[[list[int]], Any]  # a pool of one environment per seed


def build_envpool(env_id: str, n_envs: int, *, n_threads: int) -> AdaptedVectorEnv:
    """`n_envs` environments of an id that starts with `envpool:`; the numbers do not depend on `n_threads`.

    Raises:
        MissingExtraError: EnvPool is not installed.
        EnvironmentCreationError: EnvPool has no such environment, or its spaces are not supported.
    """
    try:
        import envpool
    except ImportError as missing:
        raise MissingExtraError(env_id, "envpool") from missing
    task, known = task_of(env_id), envpool.list_all_envs()
    if task not in known:
        raise EnvironmentCreationError(f"EnvPool has no environment named {task!r}.{suggestion(task, known)}")
    if min(n_envs, n_threads) < 1:
        raise UsageError(
            f"At least one environment and one thread are needed, {n_envs} and {n_threads} were asked for."
        )
    logger.info("%s is EnvPool's own %s: like Gymnasium's on average, not step by step.", env_id, task)
    make = partial(_make, envpool.make, task, n_threads)
    return AdaptedVectorEnv(PoolVectorEnv(make, env_id, n_envs))


class PoolVectorEnv(VectorEnv[Any, Any, Any]):
    """A pool as Gymnasium's vector environments are: seeds for every reset, and rows that stay where they are.

    Left alone, a pool resets an environment in the step after its end, which is no transition. Reset before that step,
    by `reset_mask`, it goes on with the next one: so here it does not reset itself at all.
    """

    def __init__(self, make: MakePool, env_id: str, n_envs: int) -> None:
        self.metadata = {"autoreset_mode": AutoresetMode.DISABLED}
        self._make, self._pool, self.num_envs = make, make([*range(n_envs)]), n_envs
        self.single_observation_space = self._pool.observation_space
        self.single_action_space = self._pool.action_space
        self.observation_space = batch_space(self.single_observation_space, n_envs)
        self.action_space = batch_space(self.single_action_space, n_envs)
        self.spec = GymnasiumSpec(env_id, reward_threshold=self._pool.config.get("reward_threshold"))

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin episodes of a list of seeds, in a pool made for them, or those of `options["reset_mask"]` alone."""
        if seed is not None:
            self._pool = self._make(seed)
            return self._pool.reset()[0], {}
        fresh, info = self._pool.reset(options=options)
        observations = np.zeros((self.num_envs, *fresh.shape[1:]), fresh.dtype)
        observations[info["env_id"]] = fresh
        return observations, {}

    def step(self, actions: NDArray[Any]) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """One tick of every environment; who has ended must be reset before the next."""
        observations, rewards, terminated, truncated, _ = self._pool.step(actions)
        return observations, rewards, terminated, truncated, {}


def _make(make: Callable[..., Any], task: str, n_threads: int, seeds: list[int]) -> Any:
    """EnvPool's pool for these seeds."""
    if max(seeds) > LARGEST_SEED:
        raise UsageError(f"EnvPool takes seeds up to {LARGEST_SEED}, {max(seeds)} was given.")
    pool = make(task, env_type="gymnasium", num_envs=len(seeds), env_seed=seeds, num_threads=n_threads)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*precision lowered by casting", UserWarning)
        _ = pool.observation_space, pool.action_space  # made when they are first asked for
    return pool
