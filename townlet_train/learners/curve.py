"""The training curve: episodes as they end, and the lines of metrics.jsonl made of them."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from statistics import fmean, pstdev
from typing import Any, Protocol

import numpy as np

from townlet_train.data.checkpoint import Arrays
from townlet_train.learners.rollouts import Episode

LAST = 100  # episodes that the results look back on


class Measured(Protocol):
    """What an update measured."""

    @property
    def loss(self) -> float: ...
    def line(self) -> dict[str, Any]:
        """Everything by name, worked out when it is asked for."""
        ...


class TrainingCurve:
    """What is known of the run's episodes, one line every `interval` steps."""

    def __init__(self, interval: int) -> None:
        self.interval = interval
        self.told = 0  # last step a line was made for
        self._shown = 0  # episodes that ended by then
        self._latest: Episode | None = None  # of those
        self._unshown: deque[Episode] = deque()
        self._last: deque[Episode] = deque(maxlen=LAST)
        self._loss: float | None = None  # of the newest update

    def lines(
        self,
        episodes: Sequence[Episode],
        now: int,
        stats: Measured,
        times: Callable[[], Mapping[str, float]] = dict,
    ) -> Iterator[dict[str, Any]]:
        """The lines due since the last call, with the latest episode by then; the last also has `stats` and `times`."""
        if episodes:
            self._unshown += episodes
            self._last += episodes
        while self.told + self.interval <= now:
            self.told += self.interval
            while self._unshown and self._unshown[0].timestep <= self.told:
                self._latest = self._unshown.popleft()
                self._shown += 1
            newest = {**stats.line(), **times()} if self.told + self.interval > now else {}
            yield self._line(self.told) | newest
        self._loss = stats.loss

    def only_line(
        self, now: int, stats: Measured, times: Callable[[], Mapping[str, float]] = dict
    ) -> dict[str, Any] | None:
        """The line of a run that ended before its first was due; None where there were lines."""
        if self.told or not now:
            return None
        self._shown, self._latest = self.n_episodes, self._last[-1] if self._last else None
        self._unshown.clear()
        return self._line(now) | {**stats.line(), **times()}

    def _line(self, timestep: int) -> dict[str, Any]:
        """What a line says of the episodes shown by then."""
        return {
            "timestep": timestep,
            "episode": self._shown,
            "reward": self._latest.episode_return if self._latest else None,
            "episode_length": self._latest.episode_length if self._latest else None,
            "loss": self._loss,
        }

    @property
    def n_episodes(self) -> int:
        """Episodes that have ended."""
        return self._shown + len(self._unshown)

    @property
    def mean_return(self) -> float:
        """Of the last episodes; NaN before the first ended."""
        return fmean(episode.episode_return for episode in self._last) if self._last else math.nan

    def summary(self) -> dict[str, float | None]:
        """The run's episodes in the names of its results; null before the first ended."""
        last = self._last
        returns = [episode.episode_return for episode in last]
        return {
            "total_episodes": self.n_episodes,
            "final_reward_mean": fmean(returns) if last else None,
            "final_reward_std": _deviation(returns) if last else None,
            "episode_length_mean": fmean(episode.episode_length for episode in last) if last else None,
        }

    def state(self) -> Arrays:
        """Everything by name, for a checkpoint."""
        return {
            "counts": np.array([self.told, self._shown]),
            "latest": _table([self._latest] if self._latest else []),
            "unshown": _table(self._unshown),
            "last": _table(self._last),
            "loss": np.array([] if self._loss is None else [self._loss]),
        }

    def restore(self, state: Arrays) -> None:
        """Continue from what `state` gave."""
        self.told, self._shown = state["counts"].tolist()
        self._latest = next(iter(_episodes(state["latest"])), None)
        self._unshown = deque(_episodes(state["unshown"]))
        self._last = deque(_episodes(state["last"]), maxlen=LAST)
        self._loss = next(iter(state["loss"].tolist()), None)


def _deviation(values: Sequence[float]) -> float | None:
    """Of the population; null where one is not finite, so that there is none."""
    return pstdev(values) if all(map(math.isfinite, values)) else None


def _table(episodes: Sequence[Episode] | deque[Episode]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Episodes as rows (n, 3); whole numbers below 2^53 are exact."""
    return np.fromiter(chain.from_iterable(episodes), np.float64).reshape(-1, 3)


def _episodes(table: np.ndarray[Any, Any]) -> Iterator[Episode]:
    for timestep, episode_return, length in table.tolist():
        yield Episode(int(timestep), episode_return, int(length))
