"""What an agent sees in MiniGrid as zeros and ones, and the rooms registered so.

MiniGrid shows a square of cells, each by the numbers of its kind, colour and state, beside a direction and a mission in
words. Numbers that are names mean nothing to a network, and words have no fixed size.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from townlet_train_minigrid import ROOMS, room_id

try:
    from minigrid.core.constants import COLOR_TO_IDX, OBJECT_TO_IDX, STATE_TO_IDX
except ModuleNotFoundError as error:
    raise gymnasium.error.DependencyNotInstalled(
        "MiniGrid is not installed. Run: pip install minigrid"
    ) from error

VIEW = 7  # cells on a side of what an agent sees; it stands in the middle of the last row and looks up
N_VALUES = (len(OBJECT_TO_IDX), len(COLOR_TO_IDX), len(STATE_TO_IDX))  # of a cell's kind, colour and state
N_DIRECTIONS = 4
AHEAD = ((VIEW // 2) * VIEW + VIEW - 2) * sum(N_VALUES)  # the first feature of the cell in front of the agent
WALL = OBJECT_TO_IDX["wall"]


class Features(gymnasium.ObservationWrapper[NDArray[np.float32], int, dict[str, Any]]):
    """The cells in view column by column, then the direction, one-hot: (984,)."""

    def __init__(self, env: gymnasium.Env[dict[str, Any], int]) -> None:
        super().__init__(env)
        n_features = VIEW * VIEW * sum(N_VALUES) + N_DIRECTIONS
        self.observation_space = gymnasium.spaces.Box(0, 1, (n_features,), np.float32)

    def observation(self, observation: dict[str, Any]) -> NDArray[np.float32]:
        """One for the value that each part of a cell has."""
        image = observation["image"]
        parts = [_one_hot(image[..., part], size) for part, size in enumerate(N_VALUES)]
        cells = np.concatenate(parts, axis=-1).ravel()
        return np.concatenate([cells, _one_hot(observation["direction"], N_DIRECTIONS)])


def _one_hot(values: Any, size: int) -> NDArray[np.float32]:
    """(..., size) of indices (...)."""
    return np.asarray(np.eye(size, dtype=np.float32)[values])


def make_room(room: str, **options: Any) -> Features:
    """One of MiniGrid's rooms, seen as features."""
    return Features(gymnasium.make(f"minigrid:MiniGrid-{room}-v0", disable_env_checker=True, **options))


for _room in ROOMS:
    gymnasium.register(room_id(_room), "townlet_train_minigrid.envs:make_room", kwargs={"room": _room})
