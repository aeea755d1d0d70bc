"""An environment whose true values are known, so that a perfect critic shows every wrong reading of an episode's end.

Each observation is the discounted value of its state. Acting, storing and bootstrapping rightly, every temporal
difference reward + GAMMA * next value - value is 0; a truncation taken for a termination, a value of the next
episode's start, or a step that was only a reset is not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from townlet_train.envs.protocol import Step, VectorEnv

GAMMA, PERIOD = 0.9, 4
CUT_AFTER, DIES_AFTER = 5, 3
UNDEFINED = 50.0  # what a dead state shows; its value is 0 whatever a critic says

Bootstrap = Callable[[Step], NDArray[np.float64]]


class KnownValues(gymnasium.Env[Any, Any]):
    """Walks a circle with rewards 1 to 4. Lives take turns: one would go on for ever and is cut, the next one dies."""

    observation_space = spaces.Box(-np.inf, np.inf, (1,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self) -> None:
        self.lives, self.position, self.left = 0, 0, 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.lives += 1
        self.endless = self.lives % 2 == 1
        self.position = int(self.np_random.integers(PERIOD))
        self.left = CUT_AFTER if self.endless else DIES_AFTER
        return self.observe(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.left > 0, "stepped after its end"
        reward = float(self.position + 1)
        self.position, self.left = (self.position + 1) % PERIOD, self.left - 1
        over = self.left == 0
        return self.observe(), reward, over and not self.endless, over and self.endless, {}

    def observe(self) -> NDArray[np.float32]:
        rewards = [GAMMA**j * ((self.position + j) % PERIOD + 1) for j in range(PERIOD)]
        if self.endless:
            return np.array([sum(rewards) / (1 - GAMMA**PERIOD)], np.float32)
        return np.array([sum(rewards[: self.left]) if self.left else UNDEFINED], np.float32)


def right(step: Step) -> NDArray[np.float64]:
    """The value of what follows: none after death, the last observation's where cut, else the next one's."""
    following = np.where(step.truncated, values(step.final_observation), values(step.observation))
    return np.where(step.terminated, 0, following)


def truncation_as_termination(step: Step) -> NDArray[np.float64]:
    """Wrong: nothing follows a cut."""
    return np.where(step.terminated | step.truncated, 0, values(step.observation))


def from_the_reset_observation(step: Step) -> NDArray[np.float64]:
    """Wrong: the next episode's start follows a cut."""
    return np.where(step.terminated, 0, values(step.observation))


def termination_as_truncation(step: Step) -> NDArray[np.float64]:
    """Wrong: a death has a future."""
    over = step.terminated | step.truncated
    return np.where(over, values(step.final_observation), values(step.observation))


WRONG: tuple[Bootstrap, ...] = (
    truncation_as_termination,
    from_the_reset_observation,
    termination_as_truncation,
)


def values(observation: Any) -> NDArray[np.float64]:
    """The perfect critic, (n_envs, n_agents)."""
    return np.asarray(observation.features[..., 0], np.float64)


def temporal_differences(env: VectorEnv, bootstrap: Bootstrap, n_steps: int = 40) -> NDArray[np.float64]:
    """reward + GAMMA * following value - value of every step, (n_steps, n_envs, n_agents)."""
    before = values(env.reset(np.arange(env.n_envs)))
    differences = []
    for _ in range(n_steps):
        step = env.step(np.zeros((env.n_envs, env.n_agents), np.int64))
        differences.append(step.rewards + GAMMA * bootstrap(step) - before)
        before = values(step.observation).copy()
    return np.stack(differences)
