"""The door plugins come through: one hook.

A whole plugin is a module like this, named in the entry-point group `townlet_train` of its distribution:

    from townlet_train.api import StrategyParams, TrainingContext, TrainingResultDTO, hookimpl

    class Coin:
        name = "coin"
        summary = "Flip a coin and report it"
        requires_torch = False
        Params = StrategyParams

        def __init__(self, params): self.params = params
        def prepare(self, context): pass
        def run(self, context): return TrainingResultDTO(strategy="coin")

    @hookimpl
    def townlet_train_strategies():
        return [Coin]

A plugin may say which version of this door it was written for: `TOWNLET_TRAIN_API = 1`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from townlet_train.contract import TrainingStrategy

PROJECT = "townlet_train"
API_VERSION = 1

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def townlet_train_strategies() -> Iterable[type[TrainingStrategy]]:  # type: ignore[empty-body]  # a hook specification has no body
    """Strategy classes this plugin contributes. Importing their module must not import torch."""
