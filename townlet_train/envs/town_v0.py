"""The town as a PettingZoo ParallelEnv.

    from townlet_train.envs import town_v0
    env = town_v0.parallel_env()
    observations, infos = env.reset(seed=7)

An agent is a home in the town: when its resident faints or is evicted, the penalty is in the reward, the next resident
moves in at once and `infos[agent]["life_ended"]` says so. The episode ends for all agents together, by truncation.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from townlet_train.config.town import TownConfig
from townlet_train.envs.protocol import Observation
from townlet_train.envs.town import TownVectorEnv
from townlet_train.errors import MissingExtraError, UsageError

try:
    from pettingzoo import ParallelEnv
except ImportError as missing:
    raise MissingExtraError("The town as a PettingZoo environment", "pettingzoo") from missing

AgentObservation = dict[str, NDArray[Any]]


class TownParallelEnv(ParallelEnv):  # type: ignore[misc]  # pettingzoo ships no types
    """One town; agents are `home_0` ... and stay for the whole episode."""

    metadata = {"name": "town_v0", "render_modes": [], "is_parallelizable": True}
    render_mode = None

    def __init__(self, config: TownConfig | None = None) -> None:
        self._town = TownVectorEnv(config or TownConfig(), n_envs=1)
        self._rng = np.random.default_rng(0)
        self.possible_agents = [f"home_{index}" for index in range(self._town.n_agents)]
        self.agents: list[str] = []
        spec = self._town.spec
        self._observation_space = spaces.Dict(
            {
                "observation": spaces.Box(-np.inf, np.inf, (len(spec.feature_names),), np.float32),
                "map": spaces.Box(0, 1, spec.map_shape, np.uint8),
                "action_mask": spaces.Box(0, 1, (len(spec.action_names),), np.int8),
            }
        )
        self._action_spaces = {
            agent: spaces.Discrete(len(spec.action_names)) for agent in self.possible_agents
        }

    def observation_space(self, agent: str) -> spaces.Dict:
        """Features `observation` (n_features,), the local `map` (4, 11, 11) and the `action_mask` (n_actions,)."""
        return self._observation_space

    def action_space(self, agent: str) -> spaces.Discrete:
        """One of the town's actions."""
        return self._action_spaces[agent]

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, AgentObservation], dict[str, dict[str, Any]]]:
        """Begin an episode; without a seed the next one of the sequence that the last seed began."""
        if seed is not None:
            self._rng = np.random.default_rng(seed)
        self.agents = list(self.possible_agents)
        town_seed = seed if seed is not None else int(self._rng.integers(2**31))
        observation = self._town.reset(np.array([town_seed]))
        return self._by_agent(observation), {agent: {} for agent in self.agents}

    def step(
        self, actions: dict[str, int]
    ) -> tuple[
        dict[str, AgentObservation],
        dict[str, float],
        dict[str, bool],
        dict[str, bool],
        dict[str, dict[str, Any]],
    ]:
        """One tick for one action per agent."""
        if not self.agents:
            raise UsageError("The episode is over. Call reset() before the next step.")
        if set(actions) != set(self.agents):
            raise UsageError(
                f"step needs an action for each of {', '.join(self.agents)}, not for {sorted(actions)}."
            )
        step = self._town.step(np.array([[actions[agent] for agent in self.possible_agents]]))
        over = bool(step.truncated[0, 0])
        observations = self._by_agent(step.final_observation if over else step.observation)
        rewards = {agent: float(step.rewards[0, slot]) for slot, agent in enumerate(self.agents)}
        infos = {
            agent: {"life_ended": bool(step.terminated[0, slot])} for slot, agent in enumerate(self.agents)
        }
        terminated, truncated = dict.fromkeys(self.agents, False), dict.fromkeys(self.agents, over)
        if over:
            self.agents = []
        return observations, rewards, terminated, truncated, infos

    def _by_agent(self, observation: Observation) -> dict[str, AgentObservation]:
        """Copies of one town's rows, by agent."""
        return {
            agent: {
                "observation": observation.features[0, slot].copy(),
                "map": observation.maps[0, slot].copy(),
                "action_mask": observation.action_mask[0, slot].astype(np.int8),
            }
            for slot, agent in enumerate(self.possible_agents)
        }


def parallel_env(config: TownConfig | None = None) -> TownParallelEnv:
    """One town as a PettingZoo ParallelEnv; the default is town-v1."""
    return TownParallelEnv(config)
