"""PPO as a strategy: its params, and its result; `learners.on_policy` does the work that A2C does too."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from townlet_train.api import PPOTrainingResultDTO, StrategyParams, TrainingContext, build_env
from townlet_train.learners.params import OnPolicyParams


class PPOParams(OnPolicyParams):
    """What PPO can be told; names and defaults are Stable-Baselines3's."""

    batch_size: int = Field(64, gt=0, description="transitions per gradient")
    n_epochs: int = Field(10, gt=0, description="passes over a rollout")
    clip_range: float = Field(0.2, gt=0, description="how far a probability ratio pays off")
    clip_range_schedule: Literal["constant", "linear"] = Field(
        "constant", description="linear falls to 0 over the run"
    )
    clip_range_vf: float | None = Field(None, gt=0, description="how far a value may move; unset: any way")
    continue_after_death: bool = Field(
        False, description="a death costs its reward alone: the slot's next life counts on"
    )
    target_kl: float | None = Field(None, gt=0, description="stop a rollout's epochs at 1.5 times this")
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
        """Refuse an environment that cannot be built, and a recording that cannot be read or is of another one."""
        build_env(context.config, 1)
        if self.params.recording is not None:
            context.services.replay.check(self.params.recording)
            context.services.replay.check_env(self.params.recording, context.config.env)

    def run(self, context: TrainingContext) -> PPOTrainingResultDTO:
        """Collect, update, log, repeat, for `timesteps`; the final weights become the model."""
        from townlet_train.learners.on_policy import Recording, train
        from townlet_train.learners.ppo import PPOLearner, PPOSettings

        settings = PPOSettings(
            **{name: getattr(self.params, name) for name in PPOSettings.__dataclass_fields__}
        )
        path = self.params.recording
        source = None if path is None else context.services.replay.resolve_manifest(path)
        trained = train(
            context,
            self.params,
            algorithm=self.name,
            build_learner=lambda network, rng, device: PPOLearner(
                network, replace(settings, device=device), rng
            ),
            recording=None if source is None else Recording(source, alone=self.params.data_mode == "replay"),
        )
        return PPOTrainingResultDTO(
            **trained.stats.telemetry(), **trained.facts, data_mode=self.params.data_mode
        )
