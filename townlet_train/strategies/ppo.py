"""PPO as a strategy: its params, and its result; `learners.on_policy` does the work that A2C does too."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from townlet_train.api import PPOTrainingResultDTO, StrategyParams, TrainingContext, build_env
from townlet_train.learners.params import OnPolicyParams


class PPOParams(OnPolicyParams):
    """What PPO can be told; names and defaults are Stable-Baselines3's."""

    may_change_on_resume: ClassVar[frozenset[str] | None] = frozenset(
        {*(OnPolicyParams.may_change_on_resume or ()), "telemetry_frequency", "telemetry_max_entries"}
    )

    batch_size: int = Field(64, gt=0, description="transitions per gradient")
    n_epochs: int = Field(10, gt=0, description="passes over a rollout")
    clip_range: float = Field(0.2, gt=0, description="how far a probability ratio pays off")
    clip_range_schedule: Literal["constant", "linear"] = Field(
        "constant", description="linear falls to 0 over the run"
    )
    clip_range_vf: float | None = Field(None, gt=0, description="how far a value may move; unset: any way")
    target_kl: float | None = Field(None, gt=0, description="stop a rollout's epochs at 1.5 times this")
    telemetry_frequency: int = Field(
        1, ge=0, description="rollouts from record to record of ppo_log.jsonl; 0: none"
    )
    telemetry_max_entries: int | None = Field(
        None, gt=0, description="records in a file of it, ppo_log.1.jsonl follows; unset: any number"
    )


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
        """Collect, update, log, repeat, for `timesteps`; the final weights become the model."""
        from townlet_train.learners.on_policy import OnPolicyRun, train
        from townlet_train.learners.ppo import PPOLearner, PPOSettings, PPOStats
        from townlet_train.learners.telemetry import TelemetryLog

        p = self.params
        log = TelemetryLog(
            context, self.name, frequency=p.telemetry_frequency, max_entries=p.telemetry_max_entries
        )

        def tell(run: OnPolicyRun[PPOStats], stats: PPOStats) -> None:
            if log.due(run.rollouts):
                log.append({**run.telemetry(), **stats.telemetry()})

        settings = PPOSettings(**{name: getattr(p, name) for name in PPOSettings.__dataclass_fields__})
        trained = train(
            context,
            self.params,
            algorithm=self.name,
            build_learner=lambda network, rng: PPOLearner(network, settings, rng),
            on_rollout=tell,
        )
        return PPOTrainingResultDTO(**{**trained.telemetry, **trained.stats.telemetry(), **trained.facts})
