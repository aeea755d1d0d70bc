"""Running moments, so that what a network sees and is paid has unit scale: values that are saved, handed on and frozen.

Everything here is a frozen value; `updated` gives a new one. To freeze a normaliser is to stop calling `updated`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

VALUES_AT_ONCE = 1 << 17  # so that they stay in a core's own cache
EPSILON = 1e-8  # keeps what never varies from being divided by 0


@dataclass(frozen=True)
class RunningMoments:
    """Count, mean and variance of everything seen, merged batch by batch (Chan, Golub and LeVeque 1979)."""

    count: float
    mean: Float64  # (n,)
    variance: Float64  # (n,), of the population

    @classmethod
    def empty(cls, n: int) -> RunningMoments:
        """Nothing seen yet: mean 0, variance 1, both gone with the first batch."""
        return cls(0.0, np.zeros(n), np.ones(n))

    @property
    def std(self) -> Float64:
        """Standard deviation, (n,), never 0."""
        return np.sqrt(self.variance + EPSILON)

    def updated(self, batch: NDArray[Any]) -> RunningMoments:
        """With a batch (..., n) seen in addition, which must be finite.

        Raises:
            ValueError: the batch holds NaN or infinity; merged, it would spoil the moments for good.
        """
        rows = batch.reshape(-1, len(self.mean))
        moments, n_rows = self, max(1, VALUES_AT_ONCE // len(self.mean))
        for start in range(0, len(rows), n_rows):
            moments = moments._merged(rows[start : start + n_rows].astype(np.float64))
        return moments

    def _merged(self, rows: Float64) -> RunningMoments:
        """With rows (n_rows, n) seen in addition; overwrites them."""
        sums = np.ones(len(rows)) @ rows
        if not np.isfinite(sums).all() and not np.isfinite(rows).all():
            first = int(np.argwhere(~np.isfinite(rows))[0][1])
            raise ValueError(f"column {first} of the batch holds a number that is not finite")
        count, own_mean = self.count + len(rows), sums / len(rows)
        rows -= own_mean
        apart = own_mean - self.mean
        mean = self.mean + apart * (len(rows) / count)
        squares = (
            self.variance * self.count
            + np.einsum("ij,ij->j", rows, rows)
            + apart**2 * (self.count * len(rows) / count)
        )
        return RunningMoments(count, mean, squares / count)

    def standardised(self, values: NDArray[Any], clip: float) -> Float32:
        """`values` (..., n) less the mean, over the deviation, cut to +-clip."""
        return np.clip((values - self.mean) / self.std, -clip, clip).astype(np.float32)

    def arrays(self) -> dict[str, Float64]:
        """Everything by name, for a checkpoint."""
        return {"count": np.array([self.count]), "mean": self.mean, "variance": self.variance}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> RunningMoments:
        """What `arrays` gave."""
        return cls(float(arrays["count"][0]), arrays["mean"].copy(), arrays["variance"].copy())


@dataclass(frozen=True)
class RewardScale:
    """Rewards over the deviation of the discounted return so far, uncentred, so that value targets have unit scale.

    The return so far of a slot, g = gamma g + r, begins anew when its life or episode ends.
    """

    gamma: float
    moments: RunningMoments  # of the returns so far
    returns: Float64  # (n_envs, n_agents): returns so far

    @classmethod
    def empty(
        cls, n_envs: int, n_agents: int, gamma: float, moments: RunningMoments | None = None
    ) -> RewardScale:
        """Nothing paid yet; `moments` are of another run's returns, to go on counting from."""
        return cls(gamma, moments or RunningMoments.empty(1), np.zeros((n_envs, n_agents)))

    def updated(self, rewards: NDArray[Any], ended: NDArray[np.bool_]) -> RewardScale:
        """With the steps of a rollout in addition: rewards and ends (n_steps, n_envs, n_agents), time first.

        A reward that is not finite is none: it adds nothing to the return so far, which is not counted at that step.
        """
        finite = np.isfinite(rewards)
        paid = rewards if finite.all() else np.where(finite, rewards, 0.0)
        seen = np.empty(rewards.shape)
        returns = self.returns
        for t in range(len(rewards)):
            seen[t] = returns = self.gamma * returns + paid[t]
            returns = np.where(ended[t], 0.0, returns)
        counted = seen if paid is rewards else seen[finite]
        return RewardScale(self.gamma, self.moments.updated(counted[..., None]), returns)

    def scaled(self, rewards: NDArray[Any], clip: float) -> Float32:
        """`rewards` over the deviation, cut to +-clip; those that are not finite stay what they are."""
        scaled = np.clip(rewards / self.moments.std[0], -clip, clip)
        return np.asarray(np.where(np.isinf(rewards), rewards, scaled), np.float32)

    def arrays(self) -> dict[str, Float64]:
        """Everything by name, for a checkpoint."""
        own = {"gamma": np.array([self.gamma]), "returns": self.returns}
        return own | self.moments.arrays()

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> RewardScale:
        """What `arrays` gave."""
        moments = RunningMoments.from_arrays(arrays)
        return cls(float(arrays["gamma"][0]), moments, arrays["returns"].copy())
