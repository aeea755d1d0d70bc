"""Frames of any recording in one shape, so that what reads them need not know the store they came from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from townlet_train.data.layout import Layout
from townlet_train.data.trajectory import Actions, Maps


class Block(NamedTuple):
    """Some consecutive frames, flattened; each array's first axis is n_frames.

    The arrays may be views of buffers that the next block overwrites: copy what you keep.
    """

    layout: Layout
    features: NDArray[np.float32]  # (n_frames, n_features)
    maps: Maps | None  # (n_frames, channels, height, width)
    actions: Actions  # (n_frames,): index of layout.action_names; or (n_frames, n_dimensions)
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
        return self._each(np.copy)

    def rows(self, rows: slice | NDArray[np.int64] | NDArray[np.bool_]) -> Block:
        """Some of the frames: views for a slice, copies for an index or a mask."""
        return self._each(lambda array: array[rows])

    def _each(self, change: Callable[[NDArray[Any]], NDArray[Any]]) -> Block:
        return self._replace(
            features=change(self.features),
            maps=None if self.maps is None else change(self.maps),
            actions=change(self.actions),
            action_mask=None if self.action_mask is None else change(self.action_mask),
            rewards=change(self.rewards),
            terminated=change(self.terminated),
            truncated=change(self.truncated),
            episode=change(self.episode),
            life=change(self.life),
        )
