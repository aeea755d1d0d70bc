"""Anneal: clone, warm the critic up, improve cycle by cycle, under guardrails that act, up to the gate."""

from __future__ import annotations

from typing import ClassVar

from townlet_train.api import AnnealSummaryDTO, StrategyParams, TrainingContext, UsageError
from townlet_train.strategies.anneal.params import ANNEAL, BC, AnnealParams
from townlet_train.strategies.anneal.schedule import stages_of, what_suits


class AnnealStrategy:
    """From demonstrations to a policy that is better and no less safe."""

    name: ClassVar[str] = ANNEAL
    summary: ClassVar[str] = "Anneal from a clone to PPO in stages, under guardrails that act."
    requires_torch: ClassVar[bool] = True
    Params: ClassVar[type[StrategyParams]] = AnnealParams

    def __init__(self, params: AnnealParams) -> None:
        self.params = params

    def prepare(self, context: TrainingContext) -> None:
        """Refuse demonstrations that are not there, and a schedule that begins with nothing to improve."""
        if self.params.bc_manifest is not None:
            manifest = context.services.replay.check(self.params.bc_manifest)
            context.services.replay.check_env(manifest, context.config.env)
        stages = stages_of(self.params, what_suits(context.config.env, self.params))
        if stages[0].mode != BC:
            raise UsageError(
                f"A schedule begins with bc, which leaves what is improved; this one with {stages[0].mode}."
            )

    def run(self, context: TrainingContext) -> AnnealSummaryDTO:
        """Stage after stage until all are done or the guardrails end it; the best policy is what it leaves."""
        from townlet_train.strategies.anneal.stages import (
            Anneal,
        )  # brings NumPy, which a listing need not load

        return Anneal(self.params, context).run()
