"""What was captured, and what a recording holds."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from townlet_train.results.base import ResultDTO


class RolloutCaptureDTO(ResultDTO):
    """What a capture left on disk, and what happened in it."""

    output: str = Field(description="directory the capture is in")
    manifest: str = Field(description="its manifest: what `bc --manifest` and `replay` take")
    store: str = Field(description="npz: one file per agent's life; memmap: arrays for large captures")
    env: str = Field(description="environment id")
    policy: str = Field(description="name of the policy that acted")
    ticks: int = Field(description="ticks captured in every environment")
    towns: int = Field(description="environments captured side by side")
    agents: int = Field(description="agents per environment")
    frames: int = Field(description="agent-ticks: ticks x towns x agents")
    seeds: tuple[int, ...] = Field(description="what each environment was reset with")
    episodes: int = Field(description="episodes, those cut short by the end of the capture included")
    complete_episodes: int = Field(description="episodes that ran to their end")
    terminations: int = Field(description="lives that ended")
    mean_episode_return: float | None = Field(
        None, description="mean over complete episodes of the summed reward, averaged over agent slots"
    )
    reward_mean: float = Field(description="mean reward per agent-tick")
    action_counts: dict[str, int] = Field(description="how often each action was taken; none of vectors")
    action_entropy: float | None = Field(description="entropy of those counts, nats; null of vectors")
    illegal_actions: int = Field(
        description="actions taken although the mask forbade them; vectors beyond their bounds"
    )
    events: dict[str, float] = Field(
        default_factory=dict, description="events by name, summed over environments"
    )
    bytes: int = Field(description="size of everything written")
    duration_sec: float = Field(ge=0)
    agent_ticks_per_sec: float = Field(ge=0)


class ReplayInspectDTO(ResultDTO):
    """What a recording holds."""

    path: str = Field(description="manifest or sample that was read")
    store: str = Field(description="npz or memmap")
    layout: str = Field(description="the feature layout in words")
    n_features: int
    map_shape: tuple[int, ...] | None = Field(
        None, description="(channels, height, width); null without maps"
    )
    action_names: tuple[str, ...] = Field(description="by id; empty when the files name none")
    action_bounds: tuple[tuple[float | None, float | None], ...] = Field(
        (), description="of vectors as actions, (lowest, highest) by dimension; null: unbounded"
    )
    action_range: tuple[tuple[float, float], ...] = Field(
        (), description="what was found of them, (lowest, highest) by dimension"
    )
    has_masks: bool
    frames: int
    trajectories: int = Field(description="lives; a file of another maker may hold several")
    episodes: int = Field(description="whole ones and those that were cut off")
    cut_off: int = Field(
        0, description="episodes that the recording stopped before; their returns are in no mean"
    )
    seeds: tuple[int, ...] = ()
    policy: str | None = Field(None, description="who acted, when the manifest says")
    action_counts: dict[str, int] = Field(description="by name; none of vectors")
    action_entropy: float | None = Field(description="nats; null of vectors")
    majority_share: float | None = Field(
        description="share of frames with the commonest action; null of vectors"
    )
    reward_mean: float
    episode_return_mean: float | None = Field(
        description="of the return of a whole episode: summed reward per agent slot; null without one"
    )
    episode_return_std: float | None
    episode_return_min: float | None
    episode_return_max: float | None
    terminations: int
    truncations: int
    forced_share: float | None = Field(
        None, description="share of frames with one legal action; null without masks"
    )
    mask_violations: int = Field(
        description="actions the mask of their frame forbids, vectors beyond their bounds"
    )
    non_finite: int = Field(description="NaN or infinite values in features, rewards and vectors")
    conflict: dict[str, float] = Field(
        default_factory=dict, description="mean and maximum of the rivalry features"
    )
    baseline: dict[str, float] = Field(
        default_factory=dict, description="Townlet's baseline metrics, over samples"
    )
    rejected: int = Field(0, description="entries marked `accepted: false`, left out")
    duplicates: int = Field(0, description="entries naming a sample again, left out")


class ReplayProblem(BaseModel):
    """One thing that is wrong with a recording."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    problem: str = Field(description="what is wrong and where, in a sentence")


class ReplayValidateDTO(ResultDTO):
    """Whether a recording can be trusted."""

    path: str
    valid: bool = Field(description="True when there is no problem")
    problems: tuple[ReplayProblem, ...] = ()
    frames: int = Field(description="frames that could be read")


class ReplaySplitDTO(ResultDTO):
    """Two manifests that share no episode."""

    path: str = Field(description="manifest that was split")
    train: str = Field(description="manifest of the training episodes")
    held_out: str = Field(description="manifest of the held-out episodes")
    seed: int
    fraction: float = Field(description="share of the episodes that was asked to be held out")
    train_episodes: int
    held_out_episodes: int
    train_frames: int
    held_out_frames: int


class ReplayEpisodeDTO(BaseModel):
    """One episode of a recording."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    episode: int = Field(description="its number in the recording")
    frames: int
    episode_return: float = Field(description="summed reward per agent slot")
    cut_off: bool = Field(False, description="the recording stopped before the episode did")


class ReplayStatsDTO(ResultDTO):
    """What a recording of any size holds, frame by frame, and what it shares with one that is held out."""

    path: str
    frames: int
    episodes: int = Field(description="whole ones and those that were cut off")
    cut_off: int = Field(0, description="episodes that the recording stopped before")
    action_counts: dict[str, int] = Field(description="by name; none of vectors")
    action_entropy: float | None = Field(description="nats; null of vectors")
    return_quantiles: dict[str, float] = Field(
        description="of the return of a whole episode, by share below; empty without one"
    )
    episode_frames_min: int | None = Field(description="of whole episodes; null without one")
    episode_frames_max: int | None
    non_finite: dict[str, int] = Field(description="NaN or infinite values by feature, those that have any")
    constant: tuple[str, ...] = Field(description="features that are the same in every frame")
    mask_violations: int = Field(
        description="actions the mask of their frame forbids, vectors beyond their bounds"
    )
    repeated_frames: int = Field(description="frames equal to an earlier one in what was seen and done")
    repeated_share: float
    held_out: str | None = Field(None, description="the recording it was compared with")
    shared_frames: int | None = Field(None, description="frames of that one that are in this one, too")
    shared_share: float | None = Field(None, description="share of that one's frames")
    shared_episodes: int | None = Field(None, description="episodes of the same seed and number in both")
    per_episode: tuple[ReplayEpisodeDTO, ...] = Field((), description="where they were asked for")


class ReplayRewriteDTO(ResultDTO):
    """A recording that was written anew, from one or several."""

    sources: tuple[str, ...]
    output: str = Field(description="directory it is in")
    manifest: str
    store: str = Field(description="npz or memmap")
    frames: int
    episodes: int
    seeds: tuple[int, ...]
    bytes: int = Field(description="size of everything written")
