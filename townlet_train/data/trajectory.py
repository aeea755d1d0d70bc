"""One agent's recording: what it saw, could do, did and got, tick by tick.

Row t holds the observation and the mask *before* the action of row t was taken, and the reward that action brought.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from townlet_train.errors import DataError

Maps = NDArray[np.uint8] | NDArray[np.float32]
Actions = NDArray[Any]  # int64 indices or float32 vectors, as the recording's `Layout` says


@dataclass(frozen=True, eq=False)
class Trajectory:
    """One agent's life within one episode; files of other makers may hold several lives in a row.

    Raises `DataError` when arrays disagree about an axis, naming the axis and both lengths.
    """

    features: NDArray[np.float32]  # (n_steps, n_features)
    actions: Actions  # (n_steps,) indices, or (n_steps, n_dimensions) vectors
    rewards: NDArray[np.float32]  # (n_steps,)
    terminated: NDArray[np.bool_]  # (n_steps,): the life ended with this step
    truncated: NDArray[np.bool_]  # (n_steps,): the episode was cut after this step
    maps: Maps | None = None  # (n_steps, channels, height, width); float32 only where values are not whole
    action_mask: NDArray[np.bool_] | None = (
        None  # (n_steps, n_actions); None when every action counts as legal
    )
    log_probs: NDArray[np.float32] | None = None  # (n_steps,); None when the behaviour policy named none
    values: NDArray[np.float32] | None = None  # (n_steps,) or, with a bootstrap value, (n_steps + 1,)
    final_features: NDArray[np.float32] | None = (
        None  # (n_features,) seen after the last step; None: not recorded
    )

    def __post_init__(self) -> None:
        _check_axes("features", self.features, 2)
        n_steps = len(self.features)
        if n_steps == 0:
            raise DataError("A trajectory holds at least one step; this one has none.")
        _check_steps("actions", self.actions, 2 if self.actions.dtype == np.float32 else 1, (n_steps,))
        for name in ("rewards", "terminated", "truncated", "log_probs"):
            _check_steps(name, getattr(self, name), 1, (n_steps,))
        _check_steps("values", self.values, 1, (n_steps, n_steps + 1))
        _check_steps("maps", self.maps, 4, (n_steps,))
        _check_steps("action_mask", self.action_mask, 2, (n_steps,))
        if self.final_features is not None and self.final_features.shape != self.features.shape[1:]:
            raise DataError(
                f"`final_features` is {self.final_features.shape}; expected {self.features.shape[1:]}, one frame's."
            )

    @property
    def n_steps(self) -> int:
        """Ticks recorded."""
        return len(self.actions)

    @property
    def ended(self) -> NDArray[np.bool_]:
        """(n_steps,): terminated or truncated, the `dones` of Townlet's files."""
        return self.terminated | self.truncated

    @property
    def n_dead(self) -> int:
        """Frames after the first end, which a recording of one life does not have."""
        ends = np.flatnonzero(self.ended)
        return self.n_steps - 1 - int(ends[0]) if len(ends) else 0


def _check_axes(name: str, array: NDArray[np.generic], n_axes: int) -> None:
    if array.ndim != n_axes:
        raise DataError(f"`{name}` has {array.ndim} axes {array.shape}; expected {n_axes}.")


def _check_steps(name: str, array: NDArray[np.generic] | None, n_axes: int, allowed: tuple[int, ...]) -> None:
    """The first axis of `array` has one of the allowed lengths; an absent array has none to check."""
    if array is None:
        return
    _check_axes(name, array, n_axes)
    if len(array) not in allowed:
        raise DataError(f"Axis n_steps of `{name}` is {len(array)}; `features` has {allowed[0]}.")
