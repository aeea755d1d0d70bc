"""Frames of any recording in one shape, so that what reads them need not know the store they came from."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from townlet_train.data.layout import Layout
from townlet_train.data.trajectory import Maps


class Block(NamedTuple):
    """Some consecutive frames, flattened; each array's first axis is n_frames.

    The arrays may be views of buffers that the next block overwrites: copy what you keep.
    """

    layout: Layout
    features: NDArray[np.float32]  # (n_frames, n_features)
    maps: Maps | None  # (n_frames, channels, height, width)
    actions: NDArray[np.int64]  # (n_frames,): index of layout.action_names
    action_mask: NDArray[np.bool_] | None  # (n_frames, n_actions)
    rewards: NDArray[np.float32]  # (n_frames,)
    terminated: NDArray[np.bool_]  # (n_frames,)
    truncated: NDArray[np.bool_]  # (n_frames,)
    episode: NDArray[np.int64]  # (n_frames,): number of the episode in its recording
    life: NDArray[
        np.int64
    ]  # (n_frames,): number of the agent's life, unique in its recording; -1 when unknown
    source: str  # file or directory, for messages

    def copy(self) -> Block:
        """The same frames in memory of their own."""
        return self._replace(
            features=self.features.copy(),
            maps=None if self.maps is None else self.maps.copy(),
            actions=self.actions.copy(),
            action_mask=None if self.action_mask is None else self.action_mask.copy(),
            rewards=self.rewards.copy(),
            terminated=self.terminated.copy(),
            truncated=self.truncated.copy(),
        )
