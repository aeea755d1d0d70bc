"""The built-in plugin: it comes in through the same door as everybody's."""

from __future__ import annotations

from townlet_train.api import EXPERTS, Experts, TrainingStrategy, hookimpl
from townlet_train.strategies.anneal.strategy import AnnealStrategy
from townlet_train.strategies.bc import BCStrategy
from townlet_train.strategies.ppo import PPOStrategy

TOWNLET_TRAIN_API = 1


@hookimpl
def townlet_train_strategies() -> list[type[TrainingStrategy]]:
    """The strategies of this distribution."""
    return [AnnealStrategy, BCStrategy, PPOStrategy]


@hookimpl
def townlet_train_experts() -> Experts:
    """The experts of this distribution."""
    return EXPERTS
