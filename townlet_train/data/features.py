"""What the features of a recording are like, counted block by block."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from townlet_train.data.block import Block


class FeatureRanges:
    """The range of every feature, and how often it is not finite."""

    def __init__(self) -> None:
        self._names: tuple[str, ...] = ()
        self._low: NDArray[np.float32] | None = None
        self._high: NDArray[np.float32] | None = None
        self._bad: NDArray[np.int64] | None = None

    def feed(self, block: Block) -> None:
        """Count one block."""
        finite = np.isfinite(block.features)
        low = np.where(finite, block.features, np.inf).min(axis=0)
        high = np.where(finite, block.features, -np.inf).max(axis=0)
        bad = np.count_nonzero(~finite, axis=0)
        self._names = block.layout.feature_names
        self._low = low if self._low is None else np.minimum(self._low, low)
        self._high = high if self._high is None else np.maximum(self._high, high)
        self._bad = bad if self._bad is None else self._bad + bad

    @property
    def constant(self) -> tuple[str, ...]:
        """Features that have the same value in every frame."""
        if self._low is None or self._high is None:
            return ()
        same = self._low == self._high
        return tuple(name for name, constant in zip(self._names, same.tolist(), strict=True) if constant)

    @property
    def non_finite(self) -> dict[str, int]:
        """NaN or infinite values by feature, those that have any."""
        counts = [] if self._bad is None else self._bad.tolist()
        return {name: count for name, count in zip(self._names, counts, strict=False) if count}
