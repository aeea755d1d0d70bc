"""DAgger for townlet-train; importing this module needs neither NumPy nor torch."""

from __future__ import annotations

from townlet_train.api import TrainingStrategy, hookimpl
from townlet_train_dagger.strategy import DAggerStrategy

TOWNLET_TRAIN_API = 1


@hookimpl
def townlet_train_strategies() -> list[type[TrainingStrategy]]:
    """The strategies of this distribution."""
    return [DAggerStrategy]
