"""PPO as a strategy: its params, and its result; `learners.on_policy` does the work that A2C does too."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, model_validator

from townlet_train.api import PPOTrainingResultDTO, StrategyParams, TrainingContext, spec_of
from townlet_train.learners.params import OnPolicyParams

if TYPE_CHECKING:
    import numpy as np

    from townlet_train.learners.devices import Placement
    from townlet_train.learners.networks import NetworkSpec


class PPOParams(OnPolicyParams):
    """What PPO can be told; names and defaults are Stable-Baselines3's."""

    may_change_on_resume: ClassVar[frozenset[str] | None] = frozenset(
        {*(OnPolicyParams.may_change_on_resume or ()), "telemetry_frequency", "telemetry_max_entries"}
    )
    say_env: ClassVar[tuple[str, ...]] = ("replay_manifest", "capture_dir", "replay_sample", "reference")

    batch_size: int = Field(64, gt=0, description="transitions per gradient")
    n_epochs: int = Field(10, gt=0, description="passes over a rollout")
    clip_range: float = Field(0.2, gt=0, description="how far a probability ratio pays off")
    clip_range_schedule: Literal["constant", "linear"] = Field(
        "constant", description="linear falls to 0 over the run"
    )
    clip_range_vf: float | None = Field(None, gt=0, description="how far a value may move; unset: any way")
    target_kl: float | None = Field(None, gt=0, description="stop a rollout's epochs at 1.5 times this")
    learning_rate_warmup: int = Field(0, ge=0, description="updates in which the learning rate rises from 0")
    reference: Path | None = Field(None, description="checkpoint with the policy to stay near")
    kl_coef: float = Field(0.0, ge=0, description="weight of the distance KL(reference || policy)")
    kl_half_life: float | None = Field(
        None, gt=0, description="share of the run in which kl_coef halves; unset: it stays"
    )
    kl_floor: float = Field(0.0, ge=0, description="what kl_coef does not fall below")
    expert_share: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of the slots that the environment's expert drives, others every rollout",
    )
    bc_coef: float = Field(
        0.0, ge=0, description="weight of imitating it: the negative log-likelihood of what it did there"
    )
    critic_only: bool = Field(
        False, description="the actor, and all that it shares with the critic, stay as they are"
    )
    until_explained_variance: float | None = Field(
        None, lt=1, description="stop after the rollout whose returns the critic explains that well"
    )
    telemetry_frequency: int = Field(
        1, ge=0, description="rollouts from record to record of ppo_log.jsonl; 0: none"
    )
    telemetry_max_entries: int | None = Field(
        None, gt=0, description="records in a file of it, ppo_log.1.jsonl follows; unset: any number"
    )
    mode: Literal["rollout", "replay", "mixed"] | None = Field(
        None, description="learn from rollouts, from a recording, or from both in turn; unset: what is named"
    )
    replay_manifest: Path | None = Field(None, description="manifest of recorded transitions to learn from")
    capture_dir: Path | None = Field(None, description="capture with recorded transitions to learn from")
    replay_sample: Path | None = Field(None, description="one recorded sample to learn from")

    @property
    def rows_per_gradient(self) -> int:
        """Steps that one gradient is of."""
        return self.batch_size

    @property
    def recording(self) -> Path | None:
        """Where recorded transitions are; None without any."""
        return self.replay_manifest or self.capture_dir or self.replay_sample

    @property
    def data_mode(self) -> str:
        """Where transitions come from: the mode that was named, or the one that what is named means."""
        return self.mode or ("replay" if self.recording else "rollout")

    @model_validator(mode="after")
    def _a_reference_where_one_is_needed(self) -> PPOParams:
        if self.kl_coef and self.reference is None:
            raise ValueError("kl_coef weighs the distance to a policy: name its checkpoint as reference")
        if self.reference is not None and not self.kl_coef:
            raise ValueError("a reference without kl_coef has no effect: give kl_coef too")
        if self.reference is not None and self.data_mode == "replay":
            raise ValueError(
                "a reference reads what is played, and nothing is: give mode mixed, or no reference"
            )
        return self

    @model_validator(mode="after")
    def _an_expert_where_one_is_imitated(self) -> PPOParams:
        if self.bc_coef and not self.expert_share:
            raise ValueError("bc_coef imitates the expert where it drives: give expert_share too")
        if self.expert_share and self.data_mode == "replay":
            raise ValueError("an expert drives in rollouts, and nothing is played: leave expert_share out")
        return self

    @model_validator(mode="after")
    def _one_recording_where_one_is_needed(self) -> PPOParams:
        named = [
            path for path in (self.replay_manifest, self.capture_dir, self.replay_sample) if path is not None
        ]
        if len(named) > 1:
            raise ValueError(
                "one of replay_manifest, capture_dir and replay_sample can be named, not several"
            )
        if named and self.mode == "rollout":
            raise ValueError("mode rollout learns from no recording, and one is named")
        if not named and self.mode in ("replay", "mixed"):
            raise ValueError(f"mode {self.mode} learns from a recording: name a replay_manifest")
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
        """Refuse an environment, device, recording or reference that cannot be used, or is of another environment."""
        from townlet_train.learners.devices import AUTO, checked_device

        spec = spec_of(context.config)
        if self.params.reference is not None:
            from townlet_train.api import load_checkpoint  # brings NumPy

            load_checkpoint(self.params.reference).info.check_matches(spec)
        if self.params.device != AUTO:
            checked_device(self.params.device)
        if self.params.recording is not None:
            context.services.replay.check(self.params.recording)
            context.services.replay.check_env(self.params.recording, context.config.env)

    def run(self, context: TrainingContext) -> PPOTrainingResultDTO:
        """Collect, update, log, repeat, for `timesteps`; the final weights become the model."""
        from townlet_train.learners.on_policy import OnPolicyRun, Recording, train
        from townlet_train.learners.ppo import PPOLearner, PPOStats
        from townlet_train.learners.reference import load_reference
        from townlet_train.learners.telemetry import TelemetryLog

        p = self.params
        log = TelemetryLog(
            context, self.name, frequency=p.telemetry_frequency, max_entries=p.telemetry_max_entries
        )

        def tell(run: OnPolicyRun[PPOStats], stats: PPOStats) -> None:
            if log.due(run.rollouts):
                log.append({**run.telemetry(), **stats.telemetry(), "data_mode": p.data_mode})

        def build(network: NetworkSpec, rng: np.random.Generator, placement: Placement) -> PPOLearner:
            reference = None if p.reference is None else load_reference(p.reference, network, placement)
            return PPOLearner(network, p, rng, placement, reference)

        def enough(stats: PPOStats) -> bool:
            wanted = p.until_explained_variance
            return wanted is not None and stats.explained_variance >= wanted

        path = p.recording
        source = None if path is None else context.services.replay.resolve_manifest(path)
        trained = train(
            context,
            self.params,
            algorithm=self.name,
            build_learner=build,
            reference=p.reference,
            expert_share=p.expert_share,
            enough=enough,
            recording=None if source is None else Recording(source, alone=p.data_mode == "replay"),
            on_rollout=tell,
        )
        reached = {**trained.telemetry, **trained.stats.telemetry(), **trained.facts}
        return PPOTrainingResultDTO(**reached, data_mode=p.data_mode)
