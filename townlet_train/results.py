"""What a command found out, as frozen pydantic models: Rich shows them as tables, `--json` prints them whole."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class ResultDTO(BaseModel):
    """Base of everything a command reports."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")

    schema_version: str = Field("1.0.0", description="version of this document's schema")
    warnings: tuple[str, ...] = Field((), description="what the user should know although the work was done")


class TrainingResultDTO(ResultDTO):
    """Base of every strategy's result."""

    strategy: str = Field("", description="registered name of the strategy that produced this")
    duration_sec: float | None = Field(None, ge=0, description="wall-clock seconds")
    checkpoint: str | None = Field(None, description="path of the checkpoint this run leaves to use")
    checkpoint_sha256: str | None = Field(None, description="sha256 of that file's bytes")


class EvaluationDTO(ResultDTO):
    """Episode returns of one policy on fixed seeds."""

    policy: str = Field(description="checkpoint path or scripted policy name")
    env: str = Field(description="environment id")
    deterministic: bool = Field(description="True: the most probable action; False: sampled")
    seeds: tuple[int, ...] = Field(description="one seed per episode")
    episode_returns: tuple[float, ...] = Field(description="return of each episode; in the town the mean over agent slots")
    mean: float
    iqm: float = Field(description="mean of the middle half (25 % trimmed mean)")
    ci_low: float = Field(description="lower end of the 95 % bootstrap interval of the mean")
    ci_high: float = Field(description="upper end of the 95 % bootstrap interval of the mean")
    events: dict[str, float] = Field(default_factory=dict, description="events per 1 000 agent-ticks, by name")


class BCTrainingResultDTO(TrainingResultDTO):
    """What behaviour cloning reached, on the demonstrations and on episodes held out of them."""

    strategy: str = "bc"
    mode: str = "bc"
    manifest: str = Field(description="manifest the demonstrations came from")
    accuracy: float = Field(ge=0, le=1, description="share of training frames whose action the clone names")
    loss: float = Field(ge=0, description="mean cross-entropy on the training frames, nats")
    learning_rate: float = Field(gt=0)
    batch_size: int = Field(gt=0)
    epochs: int = Field(gt=0, description="epochs trained, fewer than asked when stopped early")
    val_accuracy: float | None = Field(None, ge=0, le=1, description="accuracy on held-out episodes")
    val_loss: float | None = Field(None, ge=0, description="mean cross-entropy on held-out episodes, nats")
    weight_decay: float | None = Field(None, ge=0)
    device: str | None = None
    best_epoch: int = Field(gt=0, description="epoch with the lowest held-out loss; its weights are the checkpoint's")
    val_accuracy_unforced: float = Field(ge=0, le=1, description="accuracy on held-out frames with more than one legal action")
    majority_share: float = Field(ge=0, le=1, description="share of held-out frames with the commonest action")
    macro_recall: float = Field(ge=0, le=1, description="mean recall over the actions that occur")
    recall: dict[str, float] = Field(description="recall on held-out frames by action name")
    n_train: int = Field(ge=0, description="training frames")
    n_val: int = Field(ge=0, description="held-out frames")
    train_episodes: int = Field(ge=0)
    val_episodes: int = Field(ge=0)
    action_names: tuple[str, ...] = ()
    samples_per_sec: float = Field(ge=0, description="training frames per second of the update loop")
