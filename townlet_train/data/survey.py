"""One pass over a recording of any size that counts what is in it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from townlet_train.data.block import Block
from townlet_train.data.layout import Layout, within_bounds
from townlet_train.data.metrics import conflict_columns

T = TypeVar("T", bound=np.generic)


class Survey:
    """Totals over every block it is fed; its memory grows with episodes and lives, not with frames."""

    def __init__(self) -> None:
        self.layout: Layout | None = None
        self.map_shape: tuple[int, ...] | None = None
        self.frames = 0
        self.action_counts: dict[str, int] = {}
        self.reward_sum = 0.0
        self.terminations = 0
        self.truncations = 0
        self.masked_frames = 0
        self.forced_frames = 0
        self.mask_violations = 0  # and vectors beyond their bounds
        self.non_finite = 0
        self._returns = np.zeros(0)
        self._frames_in_episode = np.zeros(0, np.int64)
        self._life_episode = np.full(0, -1, np.int64)  # by number of the life; -1 where there is no such life
        self._life_ended = np.zeros(0, np.bool_)
        self._conflict: dict[str, tuple[float, float]] = {}
        self._extremes: list[
            NDArray[np.float32]
        ] = []  # of vectors: the lowest and the highest of each dimension

    @classmethod
    def of(cls, blocks: Iterable[Block]) -> Survey:
        """The survey of all blocks."""
        survey = cls()
        for block in blocks:
            survey.feed(block)
        return survey

    def feed(self, block: Block) -> None:
        """Count one block."""
        if self.layout is None:
            self.layout = block.layout
            self.map_shape = None if block.maps is None else block.maps.shape[1:]
        self.frames += len(block.actions)
        if block.layout.action_low:
            self._measure_vectors(block)
        else:
            self._count_actions(block)
        self._count_rewards(block)
        self._count_conflict(block)
        self.non_finite += int(np.count_nonzero(~np.isfinite(block.features)))
        self.non_finite += int(np.count_nonzero(~np.isfinite(block.rewards)))
        self._count_lives(block)

    @property
    def trajectories(self) -> int:
        """Lives, running or ended."""
        return int(np.count_nonzero(self._life_episode >= 0))

    @property
    def cut_off(self) -> frozenset[int]:
        """Numbers of the episodes that hold a life without an end: the recording stopped before they did."""
        running = self._life_episode[(self._life_episode >= 0) & ~self._life_ended]
        return frozenset(running.tolist())

    @property
    def returns_by_episode(self) -> dict[int, float]:
        """The rewards of all agents of each episode, summed, by its number."""
        sums = self._returns.tolist()
        return {number: sums[number] for number in self.frames_in_episodes}

    @property
    def whole_returns(self) -> dict[int, float]:
        """The same of the episodes that were not cut off."""
        cut_off = self.cut_off
        return {number: total for number, total in self.returns_by_episode.items() if number not in cut_off}

    @property
    def frames_in_episodes(self) -> dict[int, int]:
        """Frames of each episode, by its number."""
        return {number: count for number, count in enumerate(self._frames_in_episode.tolist()) if count}

    @property
    def counts(self) -> NDArray[np.int64]:
        """(n_actions,): how often each action was taken, in the order of `action_counts`."""
        return np.array(list(self.action_counts.values()), np.int64)

    @property
    def majority_share(self) -> float | None:
        """Share of frames with the commonest action; None of vectors."""
        return float(self.counts.max() / self.frames) if self.action_counts else None

    @property
    def action_range(self) -> tuple[tuple[float, float], ...]:
        """The lowest and the highest value of each dimension of vectors; empty where actions are indices."""
        return tuple((float(low), float(high)) for low, high in zip(*self._extremes, strict=True))

    @property
    def conflict(self) -> dict[str, float]:
        """Mean and maximum of each rivalry feature."""
        stats: dict[str, float] = {}
        for name, (total, highest) in self._conflict.items():
            stats[f"{name}_mean"] = total / self.frames
            stats[f"{name}_max"] = highest
        return stats

    def _count_actions(self, block: Block) -> None:
        names = block.layout.action_names
        counts = np.bincount(block.actions, minlength=len(names)).tolist()
        for index, count in enumerate(counts):
            name = names[index] if names else str(index)
            self.action_counts[name] = self.action_counts.get(name, 0) + count
        if block.action_mask is None:
            return
        self.masked_frames += len(block.actions)
        self.forced_frames += int(np.count_nonzero(block.action_mask.sum(axis=1) == 1))
        legal = np.take_along_axis(block.action_mask, block.actions[:, None], axis=1)
        self.mask_violations += int(np.count_nonzero(~legal))

    def _measure_vectors(self, block: Block) -> None:
        seen = np.vstack([*self._extremes, block.actions])
        self._extremes = [seen.min(axis=0), seen.max(axis=0)]
        self.non_finite += int(np.count_nonzero(~np.isfinite(block.actions)))
        inside = within_bounds(block.actions, block.layout.action_low, block.layout.action_high)
        self.mask_violations += int(np.count_nonzero(~inside))

    def _count_rewards(self, block: Block) -> None:
        self.reward_sum += float(block.rewards.sum(dtype=np.float64))
        self.terminations += int(np.count_nonzero(block.terminated))
        self.truncations += int(np.count_nonzero(block.truncated))
        sums = np.bincount(block.episode, weights=block.rewards)
        self._returns = _grown(self._returns, len(sums))
        self._returns[: len(sums)] += sums
        self._frames_in_episode = _grown(self._frames_in_episode, len(sums))
        self._frames_in_episode[: len(sums)] += np.bincount(block.episode)

    def _count_lives(self, block: Block) -> None:
        known = block.life >= 0
        n_lives = int(block.life.max(initial=-1)) + 1
        self._life_ended = _grown(self._life_ended, n_lives)
        self._life_episode = _grown(self._life_episode, n_lives, -1)
        self._life_episode[block.life[known]] = block.episode[known]
        self._life_ended[block.life[known & (block.terminated | block.truncated)]] = True

    def _count_conflict(self, block: Block) -> None:
        for name, column in conflict_columns(block.features, block.layout.feature_names).items():
            total, highest = self._conflict.get(name, (0.0, -np.inf))
            self._conflict[name] = (
                total + float(column.sum(dtype=np.float64)),
                max(highest, float(column.max())),
            )


def _grown(array: NDArray[T], length: int, fill: int = 0) -> NDArray[T]:
    """`array` with `fill` added up to `length`."""
    if len(array) >= length:
        return array
    grown = np.full(max(length, 2 * len(array)), fill, array.dtype)
    grown[: len(array)] = array
    return grown
