"""What a command found out, as frozen pydantic models: Rich shows them as tables, `--json` prints them whole."""

from __future__ import annotations

from typing import NamedTuple

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
    episode_returns: tuple[float, ...] = Field(
        description="return of each episode; in the town the mean over agent slots"
    )
    episode_lengths: tuple[int, ...] = Field((), description="ticks of each episode")
    mean: float
    iqm: float = Field(description="mean of the middle half (25 % trimmed mean)")
    ci_low: float = Field(description="lower end of the 95 % bootstrap interval of the mean")
    ci_high: float = Field(description="upper end of the 95 % bootstrap interval of the mean")
    events: dict[str, float] = Field(
        default_factory=dict, description="events per 1 000 agent-ticks, by name"
    )


class PolicyScoreDTO(BaseModel):
    """One policy's mean return on the held-out seeds, beside the expert's and the random policy's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    policy: str
    mean_return: float
    ci_low: float
    ci_high: float
    score: float | None = Field(
        description="(mean - random) / (expert - random): random is 0, the expert is 1; null if they earn the same"
    )
    faints_per_10k: float = Field(description="per 10 000 agent-ticks")


class Comparison(NamedTuple):
    """A checkpoint beside the expert and a random policy; empty where no expert plays."""

    policies: tuple[PolicyScoreDTO, ...] = ()  # expert, the checkpoint sampled and greedy, random
    returns: tuple[float, ...] = ()  # the checkpoint's, sampled, episode by episode
    warnings: tuple[str, ...] = ()

    def score(self, policy: str) -> float | None:
        """The score of a policy by name; None when there is none."""
        return next((row.score for row in self.policies if row.policy == policy), None)


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
    best_epoch: int = Field(
        gt=0, description="epoch with the lowest held-out loss; its weights are the checkpoint's"
    )
    val_accuracy_unforced: float = Field(
        ge=0, le=1, description="accuracy on held-out frames with more than one legal action"
    )
    majority_share: float = Field(
        ge=0, le=1, description="share of held-out frames with the commonest action"
    )
    macro_recall: float = Field(ge=0, le=1, description="mean recall over the actions that occur")
    recall: dict[str, float] = Field(description="recall on held-out frames by action name")
    n_train: int = Field(ge=0, description="training frames")
    n_val: int = Field(ge=0, description="held-out frames")
    train_episodes: int = Field(ge=0)
    val_episodes: int = Field(ge=0)
    action_names: tuple[str, ...] = ()
    samples_per_sec: float = Field(ge=0, description="training frames per second of the update loop")
    return_score_sampled: float | None = Field(
        None,
        description="the clone's return, sampled, where random is 0 and the expert 1; null without an expert",
    )
    return_score_greedy: float | None = Field(None, description="the same for its most probable actions")
    final_reward_mean: float | None = Field(
        None, description="mean return of the evaluated episodes, sampled"
    )
    final_reward_std: float | None = Field(None, ge=0, description="deviation of those returns")
    total_episodes: int | None = Field(None, ge=0, description="episodes evaluated, sampled")
    policies: tuple[PolicyScoreDTO, ...] = Field((), description="expert, clone and random on held-out seeds")


class OnPolicyResultDTO(TrainingResultDTO):
    """What a method reached that learns from its own rollouts; losses and their kin are those of the last rollout.

    NaN (null in JSON) says that the last rollout made no update.
    """

    epoch: float = Field(gt=0, description="rollouts learned from")
    updates: float = Field(ge=0, description="optimiser steps of the whole run")
    transitions: float = Field(ge=0, description="steps in the last rollout")
    steps: float = Field(ge=0, description="steps of all slots")
    checkpoint_interval: int = Field(1000, gt=0, description="steps between checkpoints")
    loss_policy: float = Field(description="what the policy descends")
    loss_value: float = Field(description="mean squared error of the values")
    loss_entropy: float = Field(description="mean entropy of the policy, nats")
    loss_total: float = Field(description="what was descended")
    adv_mean: float = Field(description="mean advantage before normalisation")
    adv_std: float = Field(description="deviation of the advantages before normalisation")
    grad_norm: float = Field(description="before clipping")
    explained_variance: float | None = Field(
        None, description="of the returns by the values; null if constant"
    )
    lr: float = Field(ge=0, description="learning rate of the last rollout's updates")
    skipped_updates: int = Field(0, ge=0, description="updates left out because they were not finite")
    total_episodes: int = Field(ge=0, description="training episodes that ended")
    final_reward_mean: float | None = Field(
        None, description="mean return of the last 100 training episodes; null before the first"
    )
    final_reward_std: float | None = Field(None, ge=0, description="deviation of those returns")
    episode_length_mean: float | None = Field(None, description="mean length of those episodes, ticks")
    reward_threshold: float | None = Field(None, description="mean return at which the environment is solved")
    converged: bool | None = Field(
        None,
        description="lower bound of the evaluation's mean at the threshold or above; null without either",
    )
    evaluation: EvaluationDTO | None = Field(None, description="of the final weights, on held-out seeds")
    steps_per_sec: float = Field(ge=0, description="steps per second of collecting and updating")
    collect_sec: float = Field(ge=0, description="wall-clock seconds collecting")
    update_sec: float = Field(ge=0, description="wall-clock seconds updating")


class PPOTrainingResultDTO(OnPolicyResultDTO):
    """What PPO reached; losses and their kin are means over the last rollout's updates, events are of that rollout.

    NaN (null in JSON) says that the last rollout made no update: each was skipped, or the first was beyond target_kl.
    """

    strategy: str = "ppo"
    telemetry_version: float = Field(1.2, description="of the names that Townlet's logs use too")
    data_mode: str = Field("rollout", description="where the transitions came from")
    cycle_id: int | None = Field(
        None, ge=0, description="times that data was collected before, or the anneal's cycle"
    )
    rollout_ticks: int | None = Field(
        None, ge=0, description="ticks of the last rollout, in every environment"
    )
    log_stream_offset: int | None = Field(None, ge=0, description="rollouts since the log began")
    batch_entropy_mean: float | None = Field(None, description="the same as loss_entropy")
    batch_entropy_std: float | None = Field(None, description="deviation of the entropy over batches, nats")
    clip_fraction: float = Field(description="share of probability ratios beyond the clip range")
    clip_fraction_max: float = Field(description="largest of a batch")
    clip_triggered_minibatches: int = Field(0, ge=0, description="batches with a ratio beyond the clip range")
    adv_min_std: float | None = Field(None, description="smallest such deviation of a batch")
    adv_zero_std_batches: int = Field(0, ge=0, description="batches whose advantages are all alike")
    reward_advantage_corr: float | None = Field(
        None,
        ge=-1,
        le=1,
        description="Pearson's correlation of rewards and advantages; null if one is constant",
    )
    grad_norm_max: float = Field(description="largest of a batch")
    kl_divergence: float = Field(description="approx_kl: k3 estimate of KL(old, new), nats")
    kl_divergence_max: float = Field(description="largest of a batch")
    queue_conflict_events: float | None = Field(
        None, ge=0, description="queue conflicts; null outside of a town"
    )
    queue_conflict_intensity_sum: float | None = Field(None, ge=0, description="their intensities, summed")
    shared_meal_events: float | None = Field(None, ge=0, description="meals that ended in company")
    late_help_events: float | None = Field(None, ge=0, description="colleagues who covered for a late one")
    shift_takeover_events: float | None = Field(
        None, ge=0, description="colleagues who covered for an absent one"
    )
    chat_success_events: float | None = Field(None, ge=0, description="chats that reached somebody free")
    chat_failure_events: float | None = Field(None, ge=0, description="chats that reached somebody busy")
    chat_quality_mean: float | None = Field(None, description="mean quality of the former; null without any")
    shower_complete_events: float | None = Field(None, ge=0, description="showers that ended")
    sleep_complete_events: float | None = Field(None, ge=0, description="sleeps that ended")
    conflict: dict[str, float] = Field(
        default_factory=dict, description="rivalry features: mean over slots of their mean and maximum"
    )
    baseline_sample_count: float | None = Field(
        None, ge=0, description="samples learned from; a rollout has one a slot"
    )
    baseline_reward_mean: float | None = Field(None, description="mean reward in them")
    baseline_reward_sum: float | None = Field(None, description="summed reward")
    baseline_reward_sum_mean: float | None = Field(None, description="summed reward of a sample, mean")
    baseline_log_prob_mean: float | None = Field(
        None, description="mean log probability of the actions taken, nats"
    )
    anneal_cycle: int | None = Field(
        None, ge=0, description="cycle of the anneal that ran this; null outside of one"
    )
    anneal_stage: str | None = Field(None, description="its stage")
    anneal_dataset: str | None = Field(None, description="label of its demonstrations")
    anneal_bc_accuracy: float | None = Field(None, ge=0, le=1, description="accuracy its cloning reached")
    anneal_bc_threshold: float | None = Field(
        None, ge=0, le=1, description="accuracy its cloning had to reach"
    )
    anneal_bc_passed: bool | None = Field(None, description="whether it did")
    anneal_loss_baseline: float | None = Field(None, description="loss_total to be compared with")
    anneal_queue_baseline: float | None = Field(None, description="queue_conflict_events to be compared with")
    anneal_intensity_baseline: float | None = Field(
        None, description="queue_conflict_intensity_sum to be compared with"
    )
    anneal_loss_flag: bool | None = Field(None, description="whether the loss got worse than tolerated")
    anneal_queue_flag: bool | None = Field(None, description="whether queue conflicts did")
    anneal_intensity_flag: bool | None = Field(None, description="whether their intensity did")
    epoch_duration_sec: float | None = Field(
        None, ge=0, description="wall-clock seconds of the last rollout and update"
    )


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
    action_counts: dict[str, int] = Field(description="how often each action was taken")
    action_entropy: float = Field(description="entropy of those counts, nats")
    illegal_actions: int = Field(description="actions taken although the mask forbade them")
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
    has_masks: bool
    frames: int
    trajectories: int = Field(description="lives; a file of another maker may hold several")
    episodes: int
    seeds: tuple[int, ...] = ()
    policy: str | None = Field(None, description="who acted, when the manifest says")
    action_counts: dict[str, int]
    action_entropy: float = Field(description="nats")
    majority_share: float = Field(description="share of frames with the commonest action")
    reward_mean: float
    episode_return_mean: float = Field(
        description="of the return of an episode: summed reward per agent slot"
    )
    episode_return_std: float
    episode_return_min: float
    episode_return_max: float
    terminations: int
    truncations: int
    forced_share: float | None = Field(
        None, description="share of frames with one legal action; null without masks"
    )
    mask_violations: int = Field(description="actions the mask of their frame forbids")
    non_finite: int = Field(description="NaN or infinite values in features and rewards")
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


class Measurement(BaseModel):
    """One number with its 95 % bootstrap interval over towns."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mean: float
    low: float
    high: float


class DoctorCheckDTO(BaseModel):
    """One promise, what was asked, what was measured."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    check: str
    passed: bool
    measured: str
    required: str


class TownBudgetDTO(ResultDTO):
    """What living in a town takes, before a tick is run."""

    service_share: float = Field(description="share of an agent's ticks spent using fridge, shower and bed")
    cook_share: float = Field(description="share spent cooking what is eaten")
    travel_share: float = Field(description="share spent walking between them")
    total_share: float
    utilisation: dict[str, float] = Field(description="share of each object type's time that is asked for")
    income_per_tick: float
    cost_per_tick: float
    feasible: bool
    verdict: str


class TownDoctorDTO(ResultDTO):
    """Whether the town is worth training on: every promise measured on fixed seeds."""

    healthy: bool
    checks: tuple[DoctorCheckDTO, ...]
    first_seed: int
    n_towns: int = Field(description="seeds first_seed .. first_seed + n_towns - 1, one episode each")
    returns: dict[str, Measurement] = Field(description="episode return by policy, mean over agent slots")
    faints_per_10k: dict[str, Measurement] = Field(description="per 10 000 agent-ticks, by policy")
    conflicts_per_1k: dict[str, Measurement] = Field(description="per 1 000 agent-ticks, by policy")
    clipped_share: dict[str, float] = Field(description="share of rewards at the clip, by policy")
    lone_fasting: Measurement = Field(
        description="return of one agent that never eats, less that of the worst other agent in its town"
    )
    stage_effects: dict[str, Measurement] = Field(
        description="return over the stage before, same towns, same actions"
    )
    dead: tuple[str, ...] = Field(
        description="map channels and features that never move and are not named as dormant"
    )
    dormant: dict[str, str] = Field(description="features that stay constant, and why")
    leak_probe: dict[str, float] = Field(
        description="held-out accuracy of the best single features, unforced frames"
    )
    leak_majority: float = Field(description="accuracy of always naming the commonest action on those frames")
    leak_control: float = Field(description="accuracy of the previous-action feature when it is switched on")
    memory_per_town: int = Field(description="bytes")


class KernelCacheDTO(ResultDTO):
    """Where the town's compiled rules are kept."""

    folder: str


class DemoStepDTO(BaseModel):
    """One step of the demo as the command a user would type."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seconds: float
    command: str


class DemoDTO(ResultDTO):
    """From nothing to a cloned villager and past it: what they reached on episodes nobody trained on."""

    run_dir: str
    checkpoint: str
    checkpoint_sha256: str
    frames: int = Field(description="demonstrated agent-ticks")
    val_accuracy: float | None
    val_accuracy_unforced: float
    majority_share: float
    first_seed: int = Field(description="of the held-out episodes, one seed each")
    episodes: int
    policies: tuple[PolicyScoreDTO, ...]
    steps: tuple[DemoStepDTO, ...]
