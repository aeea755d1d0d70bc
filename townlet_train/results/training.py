"""What a training run reached."""

from __future__ import annotations

from pydantic import Field

from townlet_train.results.base import TrainingResultDTO
from townlet_train.results.evaluation import EvaluationDTO, PolicyScoreDTO


class BCTrainingResultDTO(TrainingResultDTO):
    """What behaviour cloning reached, on the demonstrations and on episodes held out of them."""

    strategy: str = "bc"
    mode: str = "bc"
    manifest: str = Field(description="manifest the demonstrations came from")
    accuracy: float | None = Field(
        ge=0, le=1, description="share of training frames whose action the clone names; null of vectors"
    )
    loss: float = Field(
        description="mean negative log-likelihood of the training frames, nats; of vectors it may be below 0"
    )
    learning_rate: float = Field(gt=0)
    batch_size: int = Field(gt=0)
    epochs: int = Field(gt=0, description="epochs trained, fewer than asked when stopped early")
    val_accuracy: float | None = Field(None, ge=0, le=1, description="accuracy on held-out episodes")
    val_loss: float | None = Field(None, description="the same on held-out episodes")
    weight_decay: float | None = Field(None, ge=0)
    device: str | None = None
    best_epoch: int = Field(
        gt=0, description="epoch with the lowest held-out loss; its weights are the checkpoint's"
    )
    val_accuracy_unforced: float | None = Field(
        ge=0, le=1, description="accuracy on held-out frames with more than one legal action"
    )
    majority_share: float | None = Field(
        ge=0, le=1, description="share of held-out frames with the commonest action"
    )
    macro_recall: float | None = Field(ge=0, le=1, description="mean recall over the actions that occur")
    recall: dict[str, float] = Field(description="recall on held-out frames by action name")
    mean_absolute_error: float | None = Field(
        None,
        ge=0,
        description="of the clone's most probable vectors on the training frames, over all dimensions; null of indices",
    )
    val_mean_absolute_error: float | None = Field(None, ge=0, description="the same on held-out episodes")
    n_train: int = Field(ge=0, description="training frames")
    n_val: int = Field(ge=0, description="held-out frames")
    train_episodes: int = Field(ge=0)
    val_episodes: int = Field(ge=0)
    action_names: tuple[str, ...] = ()
    samples_per_sec: float | None = Field(
        None,
        ge=0,
        description="training frames per second of the update loop; null where a resumed run had none left to learn",
    )
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
    reference_kl: float | None = Field(
        None, description="KL(reference, policy), nats; null without a reference"
    )
    kl_coef: float = Field(0.0, ge=0, description="what it was weighed with")
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
