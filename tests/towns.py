"""A town a test can arrange: pick it up as a record, move people and things, put it back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from townlet_train.config import load
from townlet_train.config.town import TownConfig
from townlet_train.envs.town import TownVectorEnv
from townlet_train.sim.layout import ACTIONS, FEATURE_INDEX
from townlet_train.sim.state import TOWN

FRIDGE, STOVE, SHOWER, BED = range(4)  # object indices of the default town: one of each type


def preset(name: str) -> TownConfig:
    """The town of a shipped preset."""
    return load(preset=name).config.town


def records(state: Mapping[str, Any]) -> Any:
    """The towns of a saved state by field, (n_envs,); a view."""
    return state["towns"].view(TOWN)[:, 0]


class ArrangedTown:
    """One town with everybody out of everybody's way, to be stepped by action names."""

    def __init__(self, config: TownConfig | None = None, seed: int = 3) -> None:
        self.env = TownVectorEnv(config or TownConfig(), n_envs=1)
        self.observation = self.env.reset(np.array([seed]))
        self.arrange(self._spread)

    def arrange(self, change: Callable[[Any], None]) -> None:
        """Apply `change` to the town's record and continue from there."""
        state = self.env.get_state()
        change(records(state)[0])
        self.observation = self.env.set_state(state)

    def step(self, **actions: str) -> np.ndarray:
        """One tick; `a0="start"` is agent 0's action, everybody else waits. Returns the rewards (n_agents,)."""
        chosen = np.zeros((1, self.env.n_agents), np.int64)
        for agent, name in actions.items():
            chosen[0, int(agent[1:])] = ACTIONS.index(name)
        result = self.env.step(chosen)
        self.observation, self.terminated = result.observation, result.terminated[0].copy()
        return result.rewards[0].copy()

    @property
    def town(self) -> Any:
        """The town's record as it stands."""
        return records(self.env.get_state())[0]

    def event(self, name: str) -> float:
        """How often an event was counted so far."""
        return float(self.env.event_counts()[name][0])

    def feature(self, agent: int, name: str) -> float:
        """One agent's feature by name."""
        return float(self.observation.features[0, agent, FEATURE_INDEX[name]])

    def legal(self, agent: int, name: str) -> bool:
        """Whether an action is legal for an agent now."""
        return bool(self.observation.action_mask[0, agent, ACTIONS.index(name)])

    @staticmethod
    def _spread(town: Any) -> None:
        """Objects in a row on top, agents along the bottom two tiles apart, satisfied, rich, and off duty."""
        town["object_position"][:4] = [(1, 1), (3, 1), (5, 1), (7, 1)]
        town["job_position"][:] = [(0, 5), (4, 5), (9, 5)]
        town["position"][:6] = [(0, 9), (2, 9), (4, 9), (6, 9), (8, 9), (9, 7)]
        town["needs"][:] = 0.9
        town["wallet"][:] = 5.0
        town["shift_state"][:] = 4
        town["clock"] = 0


def beside(town: Any, agent: int, item: int) -> None:
    """Put an agent on the tile below an object."""
    town["position"][agent] = town["object_position"][item] + np.array([0, 1])
