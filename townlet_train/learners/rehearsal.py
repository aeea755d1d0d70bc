"""Imitation beside reinforcement: the gradient of the demonstrations' negative log-likelihood, added to PPO's.

Demonstrations are what the expert did in the slots it drove (Rajeswaran et al. 2018 have the sum of both losses).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from townlet_train.learners.actor_critic import ActorCritic
from townlet_train.learners.rollouts import Float, Rollout


class Demonstrations(NamedTuple):
    """Rows that an expert labelled, features standardised."""

    features: Float  # (n, n_features)
    maps: NDArray[np.uint8] | None
    illegal: NDArray[np.bool_] | None  # (n, n_actions)
    actions: NDArray[Any]

    def take(self, rows: NDArray[np.int64]) -> Demonstrations:
        """Copies of some rows."""
        return Demonstrations(*(None if array is None else array[rows] for array in self))  # type: ignore[arg-type]  # by place


def demonstrated(rollout: Rollout) -> Demonstrations | None:
    """What the expert drove of a rollout; None where it drove nothing."""
    if rollout.driven is None or not rollout.driven.any():
        return None
    features, maps, illegal = rollout.features, rollout.maps, rollout.illegal
    driven = rollout.driven
    return Demonstrations(
        features[:, driven].reshape(-1, features.shape[-1]),
        None if maps is None else maps[:, driven].reshape(-1, *maps.shape[3:]),
        None if illegal is None else illegal[:, driven].reshape(-1, illegal.shape[-1]),
        rollout.actions[:, driven].reshape(-1, *rollout.actions.shape[3:]),
    )


class Rehearsal:
    """Adds `weight` times the mean negative log-likelihood of some demonstrations to a flat gradient."""

    def __init__(
        self,
        demonstrations: Demonstrations,
        actor_critic: ActorCritic,
        gradient: Tensor,
        weight: float,
        rng: np.random.Generator,
    ) -> None:
        self._all, self._actor_critic, self._gradient = demonstrations, actor_critic, gradient
        self._weight, self._rng = weight, rng

    def add(self, n_rows: int) -> float:
        """Add the gradient of so many rows, drawn with replacement; returns their mean loss, nats."""
        rows = self._all.take(self._rng.integers(len(self._all.actions), size=n_rows))
        before = self._gradient.clone()
        outputs, values, backward = self._actor_critic.forward(rows.features, rows.maps)
        illegal = None if rows.illegal is None else np.ascontiguousarray(rows.illegal.T)
        distribution = self._actor_critic.distribution(outputs, illegal)
        loss = -float(distribution.log_probs(rows.actions).mean())
        slope = np.full(n_rows, -self._weight / n_rows, np.float32)
        backward(distribution.gradient(rows.actions, slope, 0.0), np.zeros_like(values))
        self._gradient.add_(before)
        return loss
