"""Who walks along the wall until the goal is there: in an empty room it lies in a corner."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from townlet_train.api import Observation
from townlet_train_minigrid.envs import AHEAD, WALL

TURN_RIGHT, FORWARD = 1, 2


class AlongTheWall:
    """Forward, and to the right where a wall is ahead."""

    name = "expert"

    def act(self, observation: Observation, uniforms: NDArray[np.float64]) -> NDArray[np.int64]:
        """An action for every agent; `uniforms` are ignored."""
        blocked = observation.features[..., AHEAD + WALL] > 0
        return np.where(blocked, TURN_RIGHT, FORWARD)
