"""The training curve: episodes as they end, and the lines of metrics.jsonl made of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean, pstdev
from typing import Any

from townlet_train.learners.rollouts import Episode

LAST = 100  # episodes that the results look back on


class TrainingCurve:
    """What is known of the run's episodes, one line every `interval` steps."""

    def __init__(self, interval: int) -> None:
        self.interval = interval
        self.episodes: list[Episode] = []
        self._told, self._shown = 0, 0  # last step a line was made for; episodes that ended by then
        self._loss: float | None = None  # of the newest update

    def lines(
        self, episodes: Sequence[Episode], now: int, stats: Mapping[str, Any]
    ) -> Iterator[dict[str, Any]]:
        """The lines due since the last call, with the latest episode by then; the last line also has `stats`."""
        self.episodes += episodes
        while self._told + self.interval <= now:
            self._told += self.interval
            while self._shown < len(self.episodes) and self.episodes[self._shown].timestep <= self._told:
                self._shown += 1
            latest = self.episodes[self._shown - 1] if self._shown else None
            yield {
                "timestep": self._told,
                "episode": self._shown,
                "reward": latest.episode_return if latest else None,
                "episode_length": latest.episode_length if latest else None,
                "loss": self._loss,
                **(stats if self._told + self.interval > now else {}),
            }
        self._loss = stats["loss"]

    @property
    def mean_return(self) -> float:
        """Of the last episodes; NaN before the first ended."""
        last = self.episodes[-LAST:]
        return fmean(episode.episode_return for episode in last) if last else math.nan

    def summary(self) -> dict[str, float | None]:
        """The run's episodes in the names of its results; null before the first ended."""
        last = self.episodes[-LAST:]
        returns = [episode.episode_return for episode in last]
        return {
            "total_episodes": len(self.episodes),
            "final_reward_mean": fmean(returns) if last else None,
            "final_reward_std": pstdev(returns) if last else None,
            "episode_length_mean": fmean(episode.episode_length for episode in last) if last else None,
        }
