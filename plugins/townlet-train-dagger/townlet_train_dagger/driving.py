"""Playing: expert and learner share the wheel, and the expert says everywhere what it would do."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from townlet_train.api import NetworkPolicy, Policy, VectorEnv, episodes_over
from townlet_train_dagger.aggregate import Aggregate, Arrays

ENV, EPISODES = "env.", "episodes"


class Drive(NamedTuple):
    """What some ticks of every slot brought."""

    by_learner: int  # agent-ticks that the learner drove
    agreed: int | None  # agent-ticks in which it would have done as the expert; None: there was none


class Driver:
    """Plays on in the same environments, whoever drives; every agent's state is labelled and kept."""

    def __init__(
        self, env: VectorEnv, expert: Policy, aggregate: Aggregate, *, seed: int, first: int
    ) -> None:
        """Environments begin with seeds from `seed` on, episodes are numbered from `first` on."""
        self._env, self._expert, self._aggregate = env, expert, aggregate
        self._observation = env.reset(np.arange(seed, seed + env.n_envs))
        self._episodes = np.arange(first, first + env.n_envs)

    @property
    def n_slots(self) -> int:
        """Labels that a tick adds."""
        return self._env.n_envs * self._env.n_agents

    def advance(
        self,
        learner: NetworkPolicy | None,
        beta: float,
        n_ticks: int,
        rng: np.random.Generator,
        on_tick: Callable[[], None],
    ) -> Drive:
        """Play `n_ticks`; each agent-tick is the expert's with probability `beta`, all are without a learner.

        The learner samples. `on_tick` may raise; what was played by then stays in the aggregate.
        """
        shape = (self._env.n_envs, self._env.n_agents)
        by_learner = agreed = 0
        for _ in range(n_ticks):
            labels = actions = self._expert.act(self._observation, np.zeros(shape))
            if learner is not None:
                own = learner.act(self._observation, rng.random(shape))
                learners = rng.random(shape) >= beta
                actions = np.where(learners, own, labels)
                by_learner += int(np.count_nonzero(learners))
                agreed += int(np.count_nonzero(own == labels))
            self._aggregate.append(self._observation, labels, self._episodes)
            step = self._env.step(actions)
            self._observation = step.observation
            over = np.flatnonzero(episodes_over(self._env.spec, step))
            self._episodes[over] = self._episodes.max() + 1 + np.arange(len(over))
            on_tick()
        return Drive(by_learner, None if learner is None else agreed)

    def state(self) -> Arrays:
        """Copies of where environments and episodes are.

        Raises:
            CheckpointError: an environment does not give its state away.
        """
        env = {f"{ENV}{name}": array for name, array in self._env.get_state().items()}
        return {**env, EPISODES: self._episodes.copy()}

    def restore(self, state: Arrays) -> None:
        """Continue from what `state` gave.

        Raises:
            CheckpointError: an environment did not come back to where it was.
        """
        env = {name.removeprefix(ENV): array for name, array in state.items() if name.startswith(ENV)}
        self._observation = self._env.set_state(env)
        self._episodes = state[EPISODES].copy()
