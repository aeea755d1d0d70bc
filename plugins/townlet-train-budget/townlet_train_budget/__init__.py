"""A budget of memory and arithmetic that a released policy has to keep: a check of townlet-train's gate.

Both are counted from the candidate's network, not measured, so the same file gets the same verdict on any machine.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pydantic import Field

from townlet_train.api import StrategyParams, hookimpl

if TYPE_CHECKING:
    from townlet_train.api import Checkpoint

TOWNLET_TRAIN_API = 1
__all__ = ["Budget", "BudgetParams", "townlet_train_gate_checks"]

BYTES = 4  # of a weight


class BudgetParams(StrategyParams):
    """What a policy may take; what is not named is not looked at."""

    bytes: int | None = Field(None, gt=0, description="of weights that decide the action, 4 each")
    multiply_adds: int | None = Field(None, gt=0, description="multiplications of one agent's decision")


class Budget:
    """What acting takes, in bytes of weights and in multiply-adds."""

    Params = BudgetParams

    def __init__(self, params: BudgetParams) -> None:
        self.params = params

    def objections(self, checkpoint: Checkpoint) -> list[str]:
        """A sentence for each budget that the candidate's actor exceeds; its critic does not act."""
        from townlet_train.api import NetworkSpec

        shapes = NetworkSpec.from_document(checkpoint.info.network).actor_shapes().values()
        taken = {
            "bytes": BYTES * sum(math.prod(shape) for shape in shapes),
            "multiply_adds": sum(math.prod(shape) for shape in shapes if len(shape) == 2),
        }
        return [
            f"Acting takes {taken[name]} {name.replace('_', '-')}, and gate.checks.budget.{name} allows {allowed}."
            for name, allowed in self.params
            if allowed is not None and taken[name] > allowed
        ]


@hookimpl
def townlet_train_gate_checks() -> dict[str, type[Budget]]:
    """The check and its name."""
    return {"budget": Budget}
