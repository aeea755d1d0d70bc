"""Stable-Baselines3 for townlet-train: two strategies, an export format and a command.

Importing this module needs neither Stable-Baselines3 nor NumPy nor torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from townlet_train.api import TrainingStrategy, hookimpl
from townlet_train_sb3.formats import SB3Format
from townlet_train_sb3.strategies import SB3A2C, SB3PPO

TOWNLET_TRAIN_API = 1


@hookimpl
def townlet_train_strategies() -> list[type[TrainingStrategy]]:
    """Stable-Baselines3's PPO and A2C."""
    return [SB3PPO, SB3A2C]


@hookimpl
def townlet_train_exporters() -> Mapping[str, SB3Format]:
    """`export --format sb3`."""
    return {"sb3": SB3Format()}


@hookimpl
def townlet_train_commands() -> Mapping[str, Any]:
    """`townlet-train import-sb3`."""
    from townlet_train_sb3.command import app

    return {"import-sb3": app}
