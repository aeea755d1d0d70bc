"""What a policy is to capture, evaluation and the gate."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from townlet_train.envs.protocol import Actions, Observation


class Policy(Protocol):
    """A pure function of what the agents see and of one uniform draw each.

    A sampling policy inverts its distribution with the draw, a deterministic one ignores it; so the same observation
    and draw give the same action whatever else is in the batch.
    """

    name: str

    def act(self, observation: Observation, uniforms: NDArray[np.float64]) -> Actions:
        """Actions for draws in [0, 1), both (n_envs, n_agents, *action_shape)."""
        ...
