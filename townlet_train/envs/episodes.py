"""One episode per seed, played to its end, whatever is played beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from townlet_train.envs.protocol import Actions, Observation, Pausable, VectorEnv, episodes_over
from townlet_train.envs.streams import policy_uniforms
from townlet_train.errors import UsageError

Act = Callable[[Observation, NDArray[np.float64]], Actions]  # a policy's `act`
Report = Callable[[int, int], None]  # what is done, and in all; may raise to stop


class Episodes(NamedTuple):
    """What one episode per seed brought."""

    returns: NDArray[np.float64]  # (n_seeds, n_agents): summed reward of each slot, across respawns
    lengths: NDArray[np.int64]  # (n_seeds,): ticks
    events: dict[str, NDArray[np.float64]]  # (n_seeds,) each


@runtime_checkable
class Sharing(Protocol):
    """An environment whose parts can play episodes without waiting for each other at every tick."""

    def share_episodes(self, act: Act, seeds: Sequence[int], report: Report) -> Episodes | None:
        """One episode for each seed; None where this policy, or so few seeds, cannot be shared out."""
        ...


@dataclass(frozen=True)
class InBatch:
    """A policy's `act` for some rows of a batch, as in the whole batch, on whose size it depends how products round."""

    act: Act
    n_rows: int  # of the whole batch
    first: int  # of the rows

    def __call__(self, observation: Observation, uniforms: NDArray[np.float64]) -> Actions:
        """Actions for some rows; the others are copies of the first of them."""
        own, rows = slice(self.first, self.first + len(uniforms)), np.zeros(self.n_rows, np.int64)
        rows[own] = np.arange(len(uniforms))
        features, maps, mask = observation
        return self.act(Observation(features[rows], maps[rows], mask[rows]), uniforms[rows])[own]


def run_episodes(
    act: Act, env: VectorEnv, seeds: Sequence[int], report: Report = lambda done, total: None
) -> Episodes:
    """One episode for each seed of a policy's `act`, as many at a time as `env` holds.

    `report` hears ticks where all episodes have one length, episodes where they have not.

    Raises:
        UsageError: there is no seed.
        EnvironmentFailedError: an environment raised, or a process that plays some of the seeds died or hung.
    """
    if not seeds:
        raise UsageError("An evaluation needs at least one episode, 0 were asked for.")
    if isinstance(env, Sharing):
        shared = env.share_episodes(act, seeds, report)
        if shared is not None:
            return shared
    blocks = [seeds[start : start + env.n_envs] for start in range(0, len(seeds), env.n_envs)]
    per_block = env.spec.episode_ticks or env.n_envs
    total = len(blocks) * env.spec.episode_ticks or len(seeds)
    # Products this small only wait for each other on a busy machine.
    with threadpool_limits(1, user_api="blas"):
        return join(
            [
                _run_block(act, env, block, _from(index * per_block, total, report))
                for index, block in enumerate(blocks)
            ]
        )


def join(parts: Sequence[Episodes], order: NDArray[np.int64] | slice = slice(None)) -> Episodes:
    """The episodes of one policy part after part, or in another order of these."""
    return Episodes(
        np.concatenate([part.returns for part in parts])[order],
        np.concatenate([part.lengths for part in parts])[order],
        {name: np.concatenate([part.events[name] for part in parts])[order] for name in parts[0].events},
    )


def _from(first: int, total: int, report: Report) -> Callable[[int], None]:
    """A report of what one block has done as a part of the whole."""
    return lambda done: report(first + done, total)


def _run_block(act: Act, env: VectorEnv, seeds: Sequence[int], report: Callable[[int], None]) -> Episodes:
    """The first episode of each of at most `env.n_envs` seeds; idle environments repeat the last and are dropped."""
    n_seeds, by_ticks = len(seeds), env.spec.episode_ticks > 0
    padded = np.array([*seeds, *[seeds[-1]] * (env.n_envs - n_seeds)], np.int64)
    draws = policy_uniforms(padded.tolist(), (env.n_agents, *env.spec.action_shape))
    observation = env.reset(padded)
    returns, lengths = np.zeros((env.n_envs, env.n_agents)), np.zeros(env.n_envs, np.int64)
    running = np.arange(env.n_envs) < n_seeds
    _pause(env, ~running)
    while running.any():
        step = env.step(act(observation, next(draws)))
        observation = step.observation
        returns[running] += step.rewards[running]
        lengths[running] += 1
        over = running & episodes_over(env.spec, step)
        if over.any():
            running &= ~over
            _pause(env, ~running)
        report(int(lengths[0]) if by_ticks else n_seeds - int(running.sum()))
    events = {name: counts[:n_seeds] for name, counts in env.event_counts().items()}
    return Episodes(returns[:n_seeds], lengths[:n_seeds], events)


def _pause(env: VectorEnv, envs: NDArray[np.bool_]) -> None:
    """Spare the work of episodes that count for nothing, where the environment can."""
    if isinstance(env, Pausable):
        env.pause(envs)
