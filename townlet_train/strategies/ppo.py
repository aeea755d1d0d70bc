"""PPO as a strategy: collect, update, log, repeat; then an evaluation on episodes nobody trained on."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, model_validator

from townlet_train.api import (
    EvaluationDTO,
    Interrupted,
    PPOTrainingResultDTO,
    Progress,
    StrategyParams,
    TrainingContext,
)

if TYPE_CHECKING:
    from townlet_train.envs.protocol import EnvSpec
    from townlet_train.learners.ppo import PPOStats
    from townlet_train.learners.rollouts import Episode, Rollout

TICKS_BETWEEN_REPORTS = 512
logger = logging.getLogger(__name__)


class PPOParams(StrategyParams):
    """What PPO can be told; names and defaults are Stable-Baselines3's."""

    timesteps: int = Field(50_000, gt=0, description="steps of all slots together")
    n_envs: int = Field(1, gt=0, description="environments side by side, seeds counting up")
    n_steps: int = Field(2048, gt=0, description="ticks between updates, in every environment")
    batch_size: int = Field(64, gt=0, description="transitions per gradient")
    n_epochs: int = Field(10, gt=0, description="passes over a rollout")
    learning_rate: float = Field(3e-4, gt=0, description="Adam's step size")
    learning_rate_schedule: Literal["constant", "linear"] = Field(
        "constant", description="linear falls to 0 over the run"
    )
    gamma: float = Field(0.99, ge=0, le=1, description="discount per tick")
    gae_lambda: float = Field(
        0.95, ge=0, le=1, description="trust in rewards over values: 1 sums all of them"
    )
    clip_range: float = Field(0.2, gt=0, description="how far a probability ratio pays off")
    clip_range_schedule: Literal["constant", "linear"] = Field(
        "constant", description="linear falls to 0 over the run"
    )
    clip_range_vf: float | None = Field(None, gt=0, description="how far a value may move; unset: any way")
    normalize_advantage: bool = Field(True, description="mean 0 and deviation 1 in every batch")
    ent_coef: float = Field(0.0, ge=0, description="weight of the entropy bonus")
    vf_coef: float = Field(0.5, ge=0, description="weight of the value loss")
    max_grad_norm: float = Field(0.5, gt=0, description="longer gradients are scaled down to this")
    target_kl: float | None = Field(None, gt=0, description="stop a rollout's epochs at 1.5 times this")
    checkpoint_interval: int = Field(1000, gt=0, description="steps between checkpoints")
    log_interval: int = Field(100, gt=0, description="steps between lines of metrics.jsonl")
    evaluation_episodes: int = Field(100, ge=0, description="held-out episodes at the end; 0: none")
    network: Literal["mlp", "conflict_aware"] = Field(
        "mlp", description="mlp reads the features; conflict_aware the map too, as upstream's network"
    )
    hidden_sizes: tuple[int, ...] | None = Field(
        None, min_length=1, description="hidden layer widths; unset: 64 64 for mlp, 256 for conflict_aware"
    )
    device: str = Field("cpu", min_length=1, description="torch device")

    @model_validator(mode="after")
    def _one_width_for_two_encoders(self) -> PPOParams:
        if self.network == "conflict_aware" and self.hidden_sizes is not None and len(self.hidden_sizes) != 1:
            raise ValueError("network conflict_aware has one hidden size")
        return self


class PPOStrategy:
    """Improve a policy by what its own actions bring."""

    name: ClassVar[str] = "ppo"
    summary: ClassVar[str] = "Proximal policy optimisation: improve by acting in the environment."
    requires_torch: ClassVar[bool] = True
    Params: ClassVar[type[StrategyParams]] = PPOParams

    def __init__(self, params: PPOParams) -> None:
        self.params = params

    def prepare(self, context: TrainingContext) -> None:
        """Refuse an environment that cannot be built."""
        from townlet_train.envs.build import build_env

        build_env(context.config, 1)

    def run(self, context: TrainingContext) -> PPOTrainingResultDTO:
        """Collect, update, log, repeat, for `timesteps`; the final weights become the checkpoint."""
        from townlet_train.files import sha256_of
        from townlet_train.learners.bc import limited_threads

        started, training = time.perf_counter(), _Training(self.params, context)
        try:
            with limited_threads(torch_threads=1, numpy_threads=1):
                while training.timestep < self.params.timesteps:
                    rollout, episodes = training.collect()
                    stats = training.update(rollout)
                    training.log(episodes, stats)
        except Interrupted as stop:
            raise Interrupted(f"{stop} The policy so far is {training.save()}.") from stop
        checkpoint = training.save()
        evaluation = self._evaluate(checkpoint, training.spec, context)
        result = training.result(stats, rollout.rewards.size, evaluation)
        return result.model_copy(
            update={
                "checkpoint": str(checkpoint),
                "checkpoint_sha256": sha256_of(checkpoint),
                "duration_sec": time.perf_counter() - started,
            }
        )

    def _evaluate(self, checkpoint: Path, spec: EnvSpec, context: TrainingContext) -> EvaluationDTO | None:
        """The returns on held-out seeds; None when no episodes are asked for."""
        from townlet_train.services.evaluation import evaluate_as_configured

        episodes = self.params.evaluation_episodes
        if not episodes:
            return None
        wanted = context.config.evaluation.model_copy(update={"episodes": episodes})

        def report(done: int, total: int) -> None:
            context.report(Progress("evaluation", done, total, {}))

        return evaluate_as_configured(
            context.config.model_copy(update={"evaluation": wanted}), checkpoint=checkpoint, report=report
        )


class _Training:
    """One run under way: environment, learner, curve, and what each has taken."""

    def __init__(self, params: PPOParams, context: TrainingContext) -> None:
        import numpy as np

        from townlet_train.envs.build import build_env
        from townlet_train.learners.curve import TrainingCurve
        from townlet_train.learners.ppo import PPOLearner, PPOSettings, network_for_env
        from townlet_train.learners.rollouts import RolloutCollector

        p = self.params = params
        self.context = context
        env = build_env(context.config, p.n_envs)
        network = network_for_env(env.spec, p.network, p.hidden_sizes)
        settings = PPOSettings(**{name: getattr(p, name) for name in PPOSettings.__dataclass_fields__})
        self.spec, self.learner = env.spec, PPOLearner(network, settings, context.rng)
        self.seeds = range(context.seed, context.seed + p.n_envs)
        self.collector = RolloutCollector(
            env, network, n_steps=p.n_steps, seeds=np.array(self.seeds), rng=context.rng
        )
        self.curve = TrainingCurve(p.log_interval)
        self.rollouts, self.collect_sec, self.update_sec = 0, 0.0, 0.0

    @property
    def timestep(self) -> int:
        """Steps of all slots."""
        return self.collector.timestep

    def collect(self) -> tuple[Rollout, list[Episode]]:
        """One rollout, shorter where the run ends; checkpoints are saved on the way."""
        started, collector, p = time.perf_counter(), self.collector, self.params
        left = min(collector.n_steps, self._ticks_until(p.timesteps))
        while left:
            due = (self.timestep // p.checkpoint_interval + 1) * p.checkpoint_interval
            n_ticks = min(left, self._ticks_until(due), TICKS_BETWEEN_REPORTS)
            collector.advance(self.learner.actor_critic, n_ticks)
            left -= n_ticks
            if self.timestep >= due:
                self.save()
            self._report("collect")
        rollout = collector.finish(self.learner.actor_critic)
        self.collect_sec += time.perf_counter() - started
        return rollout

    def update(self, rollout: Rollout) -> PPOStats:
        """Learn from it."""
        started = time.perf_counter()
        progress = (self.timestep - rollout.rewards.size) / self.params.timesteps
        stats = self.learner.update(rollout, progress, lambda: self._report("update"))
        self.update_sec += time.perf_counter() - started
        self.rollouts += 1
        return stats

    def log(self, episodes: Sequence[Episode], stats: PPOStats) -> None:
        """Lines for metrics.jsonl, and one for who watches."""
        for line in self.curve.lines(episodes, self.timestep, asdict(stats)):
            self.context.record(line)
        recent = self.curve.recent()
        shown = {"return": recent.return_mean} if recent else {}
        shown |= {"approx_kl": stats.approx_kl, "explained_variance": stats.explained_variance}
        self._report("update", shown)

    def save(self) -> Path:
        """Write the weights as they are to checkpoint_<timestep>.zip."""
        from townlet_train.config import config_hash
        from townlet_train.data.checkpoint import Checkpoint, save_checkpoint
        from townlet_train.services.runs import versions

        context, learner = self.context, self.learner
        resolved = config_hash(context.config, {"ppo": self.params.model_dump(mode="json")})
        info = learner.describe(self.spec, self.seeds, config_hash=resolved, versions=versions())
        state = {"timestep": self.timestep, "seed": context.seed, "updates": learner.n_updates}
        path = context.run_dir / f"checkpoint_{self.timestep}.zip"
        save_checkpoint(path, Checkpoint(info, learner.weights, state, learner.optimizer_arrays()))
        logger.debug("saved %s", path)
        return path

    def result(
        self, stats: PPOStats, transitions: int, evaluation: EvaluationDTO | None
    ) -> PPOTrainingResultDTO:
        """What the run measured; `stats` are those of its last rollout of so many transitions."""
        recent, threshold, skipped = self.curve.recent(), self.spec.reward_threshold, stats.skipped_updates
        seconds = self.collect_sec + self.update_sec
        return PPOTrainingResultDTO(
            epoch=self.rollouts,
            updates=self.learner.n_updates,
            transitions=transitions,
            steps=self.timestep,
            loss_policy=stats.policy_loss,
            loss_value=stats.value_loss,
            loss_entropy=stats.entropy,
            loss_total=stats.loss,
            clip_fraction=stats.clip_fraction,
            clip_fraction_max=stats.clip_fraction_max,
            adv_mean=stats.advantage_mean,
            adv_std=stats.advantage_std,
            grad_norm=stats.grad_norm,
            grad_norm_max=stats.grad_norm_max,
            kl_divergence=stats.approx_kl,
            kl_divergence_max=stats.approx_kl_max,
            explained_variance=None if math.isnan(stats.explained_variance) else stats.explained_variance,
            lr=stats.learning_rate,
            skipped_updates=skipped,
            total_episodes=len(self.curve.episodes),
            final_reward_mean=recent.return_mean if recent else None,
            final_reward_std=recent.return_std if recent else None,
            episode_length_mean=recent.length_mean if recent else None,
            reward_threshold=threshold,
            converged=evaluation.ci_low >= threshold if evaluation and threshold is not None else None,
            evaluation=evaluation,
            steps_per_sec=self.timestep / seconds,
            collect_sec=self.collect_sec,
            update_sec=self.update_sec,
            warnings=(f"{skipped} updates were skipped because they were not finite.",) if skipped else (),
        )

    def _ticks_until(self, timestep: int) -> int:
        """Ticks that bring every slot's steps to `timestep` or beyond."""
        return -((self.timestep - timestep) // self.collector.n_slots)

    def _report(self, phase: str, shown: Mapping[str, float] | None = None) -> None:
        self.context.report(Progress(f"ppo: {phase}", self.timestep, self.params.timesteps, shown or {}))
