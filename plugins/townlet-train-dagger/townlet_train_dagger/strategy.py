"""DAgger as a strategy: its params, its result, and what it refuses; `training` does the work."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from townlet_train.api import (
    EvaluationDTO,
    StrategyParams,
    TrainingContext,
    TrainingResultDTO,
    UsageError,
    build_expert,
)


class DAggerParams(StrategyParams):
    """What DAgger can be told; those of cloning are named as `bc` names them."""

    may_change_on_resume: ClassVar[frozenset[str] | None] = frozenset({"evaluation_episodes"})
    say_env: ClassVar[tuple[str, ...]] = ("manifest",)

    timesteps: int = Field(20_000, gt=0, description="agent-ticks that the expert labels, at most")
    n_iterations: int = Field(10, gt=0, description="times of playing, labelling and learning")
    n_envs: int = Field(16, ge=2, description="environments side by side, seeds counting up")
    beta: float = Field(
        0.0,
        ge=0,
        le=1,
        description="the expert drives with beta to the power of iterations done; what is given to begin with is one",
    )
    manifest: Path | None = Field(None, description="demonstrations that the aggregate begins with")
    n_epochs: int = Field(4, gt=0, description="passes over the aggregate in every iteration")
    batch_size: int = Field(256, gt=0, description="labels per update")
    learning_rate: float = Field(
        2e-3, gt=0, description="Adam's step size, falling linearly to 0 in every iteration"
    )
    weight_decay: float = Field(0.0, ge=0, description="pull of the weights to 0")
    evaluation_episodes: int | None = Field(
        None, ge=0, description="held-out episodes at the end; 0: none; unset: evaluation.episodes"
    )
    network: Literal["mlp", "conflict_aware"] = Field(
        "mlp", description="of a policy from nothing: mlp reads the features; conflict_aware the map too"
    )
    hidden_sizes: tuple[int, ...] | None = Field(
        None, min_length=1, description="hidden layer widths; unset: 64 64 for mlp, 256 for conflict_aware"
    )
    device: str = Field("cpu", min_length=1, description="torch device")

    @model_validator(mode="after")
    def _widths_a_network_can_have(self) -> DAggerParams:
        if self.hidden_sizes is not None and min(self.hidden_sizes) < 1:
            raise ValueError(f"hidden sizes are at least 1, {min(self.hidden_sizes)} was given")
        if self.network == "conflict_aware" and self.hidden_sizes is not None and len(self.hidden_sizes) != 1:
            raise ValueError("network conflict_aware has one hidden size")
        return self

    def ticks_by(self, iteration: int, n_slots: int) -> int:
        """Ticks that are over after so many iterations, when `n_slots` are labelled in each."""
        return self.timesteps * iteration // self.n_iterations // n_slots


class DAggerResultDTO(TrainingResultDTO):
    """What DAgger reached; accuracies and losses are those of the last iteration."""

    strategy: str = "dagger"
    steps: int = Field(ge=0, description="agent-ticks played and labelled")
    iterations: int = Field(ge=0, description="times of playing, labelling and learning")
    learner_share: float = Field(ge=0, le=1, description="share of those ticks that the learner drove")
    agreement: tuple[float | None, ...] = Field(
        description="by iteration, share of its ticks in which the learner would have done as the expert; "
        "null where there was no learner yet"
    )
    loss: float = Field(ge=0, description="mean cross-entropy of the training labels in the last epoch, nats")
    val_accuracy: float = Field(ge=0, le=1, description="share of held-out labels that it names")
    val_accuracy_unforced: float = Field(ge=0, le=1, description="the same where several actions are legal")
    val_loss: float = Field(ge=0, description="mean cross-entropy on the held-out labels, nats")
    n_train: int = Field(gt=0, description="labels learned from")
    n_val: int = Field(gt=0, description="labels of held-out episodes")
    n_demonstrated: int = Field(ge=0, description="of both, those of the manifest")
    aggregate_bytes: int = Field(gt=0, description="memory that the full aggregate takes")
    final_reward_mean: float | None = Field(None, description="mean return of the evaluated episodes")
    final_reward_std: float | None = Field(None, ge=0, description="deviation of those returns")
    total_episodes: int | None = Field(None, ge=0, description="episodes evaluated")
    evaluation: EvaluationDTO | None = Field(None, description="of the final weights, on held-out seeds")
    reward_threshold: float | None = Field(None, description="mean return at which the environment is solved")
    converged: bool | None = Field(
        None,
        description="lower bound of the evaluation's mean at the threshold or above; null without either",
    )
    collect_sec: float = Field(ge=0, description="wall-clock seconds playing and labelling")
    update_sec: float = Field(ge=0, description="wall-clock seconds learning")


class DAggerStrategy:
    """Imitate the expert in the states that the imitator itself gets into."""

    name: ClassVar[str] = "dagger"
    summary: ClassVar[str] = "DAgger: the expert labels the states that the learner visits."
    requires_torch: ClassVar[bool] = True
    Params: ClassVar[type[StrategyParams]] = DAggerParams

    def __init__(self, params: DAggerParams) -> None:
        self.params = params

    def prepare(self, context: TrainingContext) -> None:
        """Refuse an environment without an expert or with vectors as actions, too few ticks, a manifest of another."""
        from townlet_train.api import build_env  # brings NumPy
        from townlet_train.learners.devices import checked_device

        p = self.params
        with closing(build_env(context.config, 1)) as env:
            spec, n_slots = env.spec, p.n_envs * env.n_agents
        build_expert(spec, context.services.experts)
        if spec.action_shape:
            raise UsageError(
                f"DAgger learns to choose among named actions, those of {spec.env_id} are vectors. Use ppo there."
            )
        if p.ticks_by(1, n_slots) == 0:
            raise UsageError(
                f"{p.timesteps} timesteps in {p.n_iterations} iterations leave less than a tick of {n_slots} agents "
                f"for each. Raise --timesteps, or lower --n-iterations or --n-envs."
            )
        if p.manifest is not None:
            manifest = context.services.replay.check(p.manifest)
            context.services.replay.check_env(manifest, context.config.env)
        checked_device(p.device)

    def run(self, context: TrainingContext) -> DAggerResultDTO:
        """Play, label, learn, as often as it was told; the weights of the last iteration become the model."""
        from townlet_train_dagger.training import train

        return train(context, self.params, algorithm=self.name)
