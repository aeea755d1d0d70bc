"""Which ticks of a capture belong to which episode, kept while the capture runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class EpisodeSpan:
    """Ticks [start, stop) of one environment that belong to one episode."""

    env: int
    index: int  # counts the environment's episodes from 0
    seed: int  # what the environment was reset with
    start: int
    stop: int
    complete: bool  # False when the capture stopped before the episode did


class EpisodeClock:
    """Turns the flags of each tick into episodes."""

    def __init__(self, seeds: Sequence[int]) -> None:
        self.tick = 0
        self.finished: list[EpisodeSpan] = []
        self._open = [EpisodeSpan(env, 0, int(seed), 0, 0, False) for env, seed in enumerate(seeds)]

    def current(self, env: int) -> EpisodeSpan:
        """The episode an environment is in; its `stop` is not known yet."""
        return self._open[env]

    def advance(self, terminated: NDArray[np.bool_], truncated: NDArray[np.bool_]) -> None:
        """Count one tick; the flags are (n_envs, n_agents)."""
        self.tick += 1
        for env in np.flatnonzero(episodes_ended(terminated, truncated)).tolist():
            done = self._open[env]
            self.finished.append(EpisodeSpan(env, done.index, done.seed, done.start, self.tick, True))
            self._open[env] = EpisodeSpan(env, done.index + 1, done.seed, self.tick, 0, False)

    def spans(self) -> list[EpisodeSpan]:
        """Every episode so far, those that still run included, by environment and start."""
        running = [
            EpisodeSpan(span.env, span.index, span.seed, span.start, self.tick, False)
            for span in self._open
            if span.start < self.tick
        ]
        return sorted([*self.finished, *running], key=lambda span: (span.env, span.start))


def episodes_ended(terminated: NDArray[np.bool_], truncated: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(n_envs,): whose episode ends with a tick, from flags (n_envs, n_agents).

    It ends when it is cut for any agent, or when every agent's life ends at once (so an environment with one agent
    starts a new episode with each life).
    """
    return np.asarray(truncated.any(axis=1) | (terminated | truncated).all(axis=1), np.bool_)
