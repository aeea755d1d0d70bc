"""PPO as a strategy: collect, update, log, repeat; then an evaluation on episodes nobody trained on."""

from __future__ import annotations

import time
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
    build_env,
    sha256_of,
)

if TYPE_CHECKING:
    from townlet_train.learners.on_policy import CheckpointWriter
    from townlet_train.learners.ppo import PPOLearner
    from townlet_train.learners.rollouts import RolloutCollector


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
    normalize_observations: bool = Field(False, description="features over their running deviation")
    normalize_rewards: bool = Field(False, description="rewards over the running deviation of returns")
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
    activation: Literal["tanh", "relu"] | None = Field(
        None,
        description="of the hidden layers; unset: tanh for mlp, relu for conflict_aware, which has no other",
    )
    device: str = Field("cpu", min_length=1, description="torch device")

    @model_validator(mode="after")
    def _conflict_aware_is_of_one_make(self) -> PPOParams:
        if self.network == "conflict_aware" and self.hidden_sizes is not None and len(self.hidden_sizes) != 1:
            raise ValueError("network conflict_aware has one hidden size")
        if self.network == "conflict_aware" and self.activation == "tanh":
            raise ValueError("network conflict_aware has activation relu")
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
        build_env(context.config, 1)

    def run(self, context: TrainingContext) -> PPOTrainingResultDTO:
        """Collect, update, log, repeat, for `timesteps`; the final weights become the checkpoint."""
        from townlet_train.learners.bc import limited_threads
        from townlet_train.learners.curve import TrainingCurve
        from townlet_train.learners.on_policy import OnPolicyRun

        started, p = time.perf_counter(), self.params
        collector, learner, writer = self._build(context)
        curve = TrainingCurve(p.log_interval)

        def save(timestep: int) -> Path:
            return checkpoints.save(timestep, {"seed": context.seed, "updates": learner.n_updates})

        def report(**shown: float) -> None:
            context.report(Progress(self.name, collector.timestep, p.timesteps, shown))

        run = OnPolicyRun(collector, learner, p.timesteps, p.checkpoint_interval, save=save, report=report)
        with writer as checkpoints:
            try:
                with limited_threads(torch_threads=1, numpy_threads=1):
                    while not run.over:
                        rollout, episodes = run.collect()
                        stats = run.update(rollout)
                        for line in curve.lines(episodes, run.timestep, asdict(stats)):
                            context.record(line)
                        report(mean_return=curve.mean_return, approx_kl=stats.approx_kl)
            except Interrupted as stop:
                checkpoint = save(run.timestep)
                checkpoints.settle()
                raise Interrupted(f"{stop} The policy so far is {checkpoint}.") from stop
            checkpoint = save(run.timestep)
        evaluation = self._evaluate(checkpoint, context)
        threshold, skipped = collector.env.spec.reward_threshold, stats.skipped_updates
        return PPOTrainingResultDTO(
            **stats.telemetry(),
            **curve.summary(),
            evaluation=evaluation,
            reward_threshold=threshold,
            converged=evaluation.ci_low >= threshold if evaluation and threshold is not None else None,
            epoch=run.rollouts,
            updates=learner.n_updates,
            transitions=rollout.rewards.size,
            steps=run.timestep,
            steps_per_sec=run.timestep / (run.collect_sec + run.update_sec),
            collect_sec=run.collect_sec,
            update_sec=run.update_sec,
            checkpoint=str(checkpoint),
            checkpoint_sha256=sha256_of(checkpoint),
            duration_sec=time.perf_counter() - started,
            warnings=(f"{skipped} updates were skipped because they were not finite.",) if skipped else (),
        )

    def _build(self, context: TrainingContext) -> tuple[RolloutCollector, PPOLearner, CheckpointWriter]:
        """The environment at its first observation, the network at its first weights, and who saves it."""
        import numpy as np

        from townlet_train.learners.on_policy import CheckpointWriter, describe
        from townlet_train.learners.ppo import (
            FEATURE_CLIP,
            UNCLIPPED,
            PPOLearner,
            PPOSettings,
            network_for_env,
        )
        from townlet_train.learners.rollouts import RolloutCollector

        p, rng, seeds = self.params, context.rng, range(context.seed, context.seed + self.params.n_envs)
        env = build_env(context.config, p.n_envs)
        clip = FEATURE_CLIP if p.normalize_observations else UNCLIPPED
        network = network_for_env(env.spec, p.network, p.hidden_sizes, clip, p.activation)
        settings = PPOSettings(**{name: getattr(p, name) for name in PPOSettings.__dataclass_fields__})
        learner = PPOLearner(network, settings, rng)
        collector = RolloutCollector(
            env,
            network,
            n_steps=p.n_steps,
            seeds=np.array(seeds),
            rng=rng,
            normalize_observations=p.normalize_observations,
        )
        info = describe(self.name, network, env.spec, seeds, config_hash=context.config_hash)
        return collector, learner, CheckpointWriter(context.run_dir, info, learner)

    def _evaluate(self, checkpoint: Path, context: TrainingContext) -> EvaluationDTO | None:
        """The returns on held-out seeds; None when no episodes are asked for."""
        episodes = self.params.evaluation_episodes
        if not episodes:
            return None

        def report(done: int, total: int) -> None:
            context.report(Progress("evaluation", done, total, {}))

        return context.services.evaluation.evaluate(checkpoint=checkpoint, episodes=episodes, report=report)
