"""A town small enough to know by heart: what the tests of capture, replay and training run against."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from townlet_train.envs.protocol import EnvSpec, Observation, Step

SPEC = EnvSpec(
    env_id="counting",
    feature_names=("tick", "env", "agent", "last_action", "episode"),
    action_names=("wait", "north", "chat"),
    map_channels=("self", "tick"),
    map_size=3,
    episode_ticks=6,
)


class CountingEnv:
    """Features count ticks; agent 1 of every environment dies at the third tick of an episode; episodes last 6 ticks.

    `north` is legal on even ticks only, `chat` never for agent 0. The reward is the action's number, and -1 for dying.
    """

    def __init__(self, n_envs: int = 2, n_agents: int = 2, episode_ticks: int = 6) -> None:
        self.spec = SPEC
        self.n_envs, self.n_agents, self._episode_ticks = n_envs, n_agents, episode_ticks
        self._tick, self._episode = 0, 0
        self._features = np.zeros((n_envs, n_agents, 5), np.float32)
        self._maps = np.zeros((n_envs, n_agents, *SPEC.map_shape), np.uint8)
        self._last = np.zeros((n_envs, n_agents), np.int64)
        self._seeds = np.zeros(n_envs, np.int64)
        self._chats = np.zeros(n_envs)

    def reset(self, seeds: NDArray[np.int64]) -> Observation:
        self._seeds = seeds.copy()
        self._tick, self._episode = 0, 0
        self._last[:], self._chats[:] = 0, 0
        return self._observe()

    def step(self, actions: NDArray[np.int64]) -> Step:
        self._tick += 1
        self._last[:] = actions
        self._chats += (actions == 2).sum(axis=1)
        rewards = actions.astype(np.float32)
        terminated = np.zeros(actions.shape, np.bool_)
        if self._tick == 3 and self.n_agents > 1:
            terminated[:, 1] = True
            rewards[:, 1] = -1
        truncated = np.full(actions.shape, self._tick == self._episode_ticks)
        final = Observation(*(array.copy() for array in self._observe()))
        if self._tick == self._episode_ticks:
            self._tick, self._episode = 0, self._episode + 1
        return Step(self._observe(), rewards, terminated, truncated, final)

    def get_state(self) -> dict[str, NDArray[Any]]:
        return {
            "tick": np.array([self._tick, self._episode]),
            "last": self._last.copy(),
            "chats": self._chats.copy(),
        }

    def set_state(self, state: dict[str, NDArray[Any]]) -> Observation:
        self._tick, self._episode = (int(value) for value in state["tick"])
        self._last[:], self._chats[:] = state["last"], state["chats"]
        return self._observe()

    def event_counts(self) -> dict[str, NDArray[np.float64]]:
        return {"chat_success": self._chats.copy()}

    def _observe(self) -> Observation:
        self._features[..., 0] = self._tick
        self._features[..., 1] = np.arange(self.n_envs)[:, None]
        self._features[..., 2] = np.arange(self.n_agents)
        self._features[..., 3] = self._last
        self._features[..., 4] = self._episode
        self._maps[..., 0, 1, 1] = 1
        self._maps[..., 1, :, :] = self._tick
        mask = np.ones((self.n_envs, self.n_agents, 3), np.bool_)
        mask[..., 1] = self._tick % 2 == 0
        mask[:, 0, 2] = False
        return Observation(self._features, self._maps, mask)


class LastLegalPolicy:
    """Always the legal action with the highest number."""

    name = "last_legal"

    def act(self, observation: Observation, uniforms: NDArray[np.float64]) -> NDArray[np.int64]:
        n_actions = observation.action_mask.shape[-1]
        actions: NDArray[np.int64] = n_actions - 1 - np.argmax(observation.action_mask[..., ::-1], axis=-1)
        return actions
