"""Anneal: clone, warm the critic up, improve cycle by cycle, under guardrails that act, up to the gate."""

from __future__ import annotations

from typing import ClassVar

from townlet_train.api import (
    AnnealSummaryDTO,
    StrategyParams,
    TrainingContext,
    UsageError,
)
from townlet_train.strategies.anneal.params import ANNEAL, BC, CRITIC_WARMUP, EVAL, PPO, AnnealParams
from townlet_train.strategies.anneal.schedule import Suits, stages_of, strategy_of, what_suits


class AnnealStrategy:
    """From demonstrations to a policy that is better and no less safe."""

    name: ClassVar[str] = ANNEAL
    summary: ClassVar[str] = "Anneal from a clone to PPO in stages, under guardrails that act."
    requires_torch: ClassVar[bool] = True
    Params: ClassVar[type[StrategyParams]] = AnnealParams

    def __init__(self, params: AnnealParams) -> None:
        self.params = params

    def prepare(self, context: TrainingContext) -> None:
        """Refuse what to begin with, stages, params or releases that cannot be used, and seeds the gate may not see."""
        from townlet_train.api import (
            check_block_unseen,
            load_baselines,
            load_checkpoint,
            spec_of,
        )  # bring NumPy

        if context.start is not None and context.start.fork:
            raise UsageError(
                "An anneal begins with a clone of its own, so --fork has no meaning here. Leave it out."
            )
        self._check_beginning(context)
        self._check_stages(context)
        if self.params.gate:
            check_block_unseen(context.config)
        if self.params.promotion_dir is not None:
            load_baselines(self.params.promotion_dir)
        release = None if context.services.promotion is None else context.services.promotion.release
        if self.params.gate and release is not None:
            load_checkpoint(release).info.check_matches(spec_of(context.config))

    def _check_beginning(self, context: TrainingContext) -> None:
        """Refuse a clone or demonstrations that cannot be used, and an accuracy that is asked of what has none."""
        from townlet_train.api import build_expert, load_checkpoint, spec_of  # bring NumPy

        spec = spec_of(context.config)
        if self.params.bc_threshold is not None and spec.action_shape:
            raise UsageError(
                f"bc_threshold asks for an accuracy, which a clone of vectors has not, and those of {spec.env_id} are. "
                f"Leave it out; guardrails.return_tolerance holds every stage to the clone's return."
            )
        if self.params.clone is not None:
            load_checkpoint(self.params.clone).info.check_matches(spec)
        elif self.params.bc_manifest is None:
            build_expert(spec, context.services.experts)
        else:
            manifest = context.services.replay.check(self.params.bc_manifest)
            context.services.replay.check_env(manifest, context.config.env)

    def _check_stages(self, context: TrainingContext) -> None:
        """Refuse a schedule that begins with nothing to improve, and stages whose strategy or params nobody knows."""
        suits = what_suits(context.config.env, self.params)
        stages = stages_of(self.params, suits)
        if stages[0].mode != BC:
            raise UsageError(
                f"A schedule begins with bc, which leaves what is improved; this one with {stages[0].mode}."
            )
        if suits.ppo.get("shared_trunk") and not self._shared_clone(suits):
            raise UsageError(
                "ppo.shared_trunk leaves shared what the clone's actor and critic share, and this clone's share none. "
                "Give bc.shared_trunk too, or leave it out."
            )
        told = {BC: suits.bc, CRITIC_WARMUP: suits.ppo, PPO: {**suits.ppo, **self.params.recorded}}
        for stage in stages:
            if stage.mode != EVAL:
                params = {**told.get(stage.mode, {}), **stage.params}
                strategy = context.build_strategy(strategy_of(stage), params)
                if stage.mode in (CRITIC_WARMUP, PPO):  # others may want to see what they begin with
                    strategy.prepare(context)

    def _shared_clone(self, suits: Suits) -> bool:
        """Whether actor and critic of what the anneal begins with share their hidden layers."""
        from townlet_train.api import load_checkpoint  # brings NumPy

        if self.params.clone is None:
            return bool(suits.bc.get("shared_trunk"))
        return bool(load_checkpoint(self.params.clone).info.network.get("shared_trunk"))

    def run(self, context: TrainingContext) -> AnnealSummaryDTO:
        """Stage after stage until all are done or the guardrails end it; the best policy is what it leaves."""
        from townlet_train.strategies.anneal.setting import (
            Setting,
        )  # brings NumPy, which a listing need not load
        from townlet_train.strategies.anneal.stages import Anneal

        return Anneal(Setting.prepare(self.params, context)).run()
