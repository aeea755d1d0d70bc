"""What a run that learns from its own rollouts needs of its learner, and of where the rollouts come from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

import numpy as np

from townlet_train.data.checkpoint import Arrays
from townlet_train.learners.actor_critic import ActorCritic
from townlet_train.learners.curve import Measured
from townlet_train.learners.devices import Placement
from townlet_train.learners.rollouts import Episode, Float, Normaliser, Played
from townlet_train.policies.network import NetworkSpec


class OnPolicyStats(Measured, Protocol):
    """What a learner says of an update."""

    @property
    def skipped_updates(self) -> int: ...
    def shown(self) -> dict[str, float]:
        """What is worth watching while training goes on."""
        ...


Stats = TypeVar("Stats", bound=OnPolicyStats)
StatsOut = TypeVar("StatsOut", bound=OnPolicyStats, covariant=True)


class OnPolicyLearner(Protocol[StatsOut]):
    """What a run needs of a learner."""

    spec: NetworkSpec
    actor_critic: ActorCritic

    def learn(self, played: Played, progress: float, on_epoch: Callable[[], None]) -> StatsOut:
        """Learn from what its actor played after `progress` of the run, 0 to 1."""
        ...

    def set_normaliser(self, normaliser: Normaliser) -> None:
        """Let the network, and so every checkpoint, standardise features like this from now on."""
        ...

    @property
    def weights(self) -> Arrays:
        """Copies of all arrays by name."""
        ...

    def load_weights(self, weights: Arrays) -> None:
        """Take over all arrays by name."""
        ...

    def state(self) -> Arrays:
        """Copies of what `update` depends on beside the weights."""
        ...

    def restore(self, state: Arrays) -> None:
        """Continue from what `state` gave."""
        ...

    def adopt(self, state: Arrays | None, *, optimiser: bool = True) -> None:
        """Begin anew with the weights as they are, and what another run's `state` knows of rewards and gradients.

        Without its `optimiser`, gradients are unknown.
        """
        ...

    @property
    def n_updates(self) -> int:
        """Optimiser steps made."""
        ...

    @property
    def restores(self) -> int:
        """Returns to the last good weights."""
        ...


class RolloutSource(Protocol):
    """Where rollouts come from: environments that are played in, or a recording."""

    normaliser: Normaliser | None
    timestep: int

    @property
    def n_slots(self) -> int:
        """Steps that one tick adds."""
        ...

    @property
    def filled(self) -> int:
        """Ticks there are that nothing has been learned from."""
        ...

    @property
    def missing(self) -> int:
        """Ticks until the rollout is full."""
        ...

    def advance(self, actor: ActorCritic, n_ticks: int) -> None:
        """Go on by `n_ticks`, at most `missing`."""
        ...

    def finish(self) -> tuple[Played, list[Episode]]:
        """What there is since the last time, and the episodes that ended in it."""
        ...

    def state(self) -> Arrays:
        """Copies of everything that what comes next depends on."""
        ...

    def restore(self, state: Arrays) -> None:
        """Continue from what `state` gave."""
        ...

    def adopt_normaliser(self, mean: Float, std: Float, moments: Arrays | None) -> None:
        """Standardise features as another run left off."""
        ...


BuildLearner = Callable[[NetworkSpec, np.random.Generator, Placement], OnPolicyLearner[Stats]]
