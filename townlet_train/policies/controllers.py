"""Experts of Gymnasium's environments: controllers that look at one observation, many rows at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from townlet_train.envs.protocol import Actions, EnvSpec, Observation
from townlet_train.errors import UsageError

CART_POLE_GAINS = (0.1, 0.2, 1.0, 0.5)  # of position, speed, angle and angular speed
LEAN_AT_MOST = 0.4  # radians the lander leans to come to the middle
HEIGHT_PER_OFFSET = 0.55  # how high it stays for each unit that it is beside the middle
WORTH_AN_ENGINE = 0.05


class CartPoleExpert:
    """Pushes to the side the pole falls to, and a little so that the cart comes back to the middle."""

    name = "expert"

    def __init__(self, spec: EnvSpec) -> None:
        _check_shapes(spec, n_features=4, n_actions=2)

    def act(self, observation: Observation, uniforms: NDArray[np.float64]) -> NDArray[np.int64]:
        """1, to the right, or 0, for every agent (n_envs, n_agents); `uniforms` are ignored."""
        push: NDArray[np.bool_] = (observation.features * np.array(CART_POLE_GAINS, np.float32)).sum(
            axis=-1
        ) > 0
        return push.astype(np.int64)


class LunarLanderExpert:
    """The controller that ships with Gymnasium, `gymnasium.envs.box2d.lunar_lander.heuristic`, for whole batches.

    It leans towards the middle, hovers the higher the further it is from it, and once a leg has touched only brakes.
    """

    name = "expert"

    def __init__(self, spec: EnvSpec) -> None:
        self._vectors = bool(spec.action_shape)
        _check_shapes(spec, n_features=8, n_actions=2 if self._vectors else 4)

    def act(self, observation: Observation, uniforms: NDArray[np.float64]) -> Actions:
        """Engines (n_envs, n_agents), or their thrusts (n_envs, n_agents, 2); `uniforms` are ignored."""
        x, y, x_speed, y_speed, angle, spin, left_leg, right_leg = np.moveaxis(observation.features, -1, 0)
        landed = (left_leg != 0) | (right_leg != 0)
        lean = np.clip(x * 0.5 + x_speed, -LEAN_AT_MOST, LEAN_AT_MOST)
        turn = np.where(landed, 0, (lean - angle) * 0.5 - spin)
        lift = np.where(landed, -y_speed * 0.5, (HEIGHT_PER_OFFSET * np.abs(x) - y) * 0.5 - y_speed * 0.5)
        if self._vectors:
            thrusts = np.stack([lift * 20 - 1, turn * -20], axis=-1)
            return np.asarray(thrusts.clip(-1, 1), np.float32)
        main = (lift > np.abs(turn)) & (lift > WORTH_AN_ENGINE)
        sides = [main, turn < -WORTH_AN_ENGINE, turn > WORTH_AN_ENGINE]
        return np.asarray(np.select(sides, [2, 3, 1]), np.int64)


def _check_shapes(spec: EnvSpec, *, n_features: int, n_actions: int) -> None:
    """Raise `UsageError` where an environment of a familiar name shows or takes something else."""
    found = len(spec.feature_names), len(spec.action_low) or len(spec.action_names)
    if found != (n_features, n_actions):
        raise UsageError(
            f"The expert of {spec.env_id} reads {n_features} features and chooses among {n_actions} actions, "
            f"this environment has {found[0]} and {found[1]}. Use random or idle."
        )
