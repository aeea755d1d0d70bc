"""What is told of a stage: in the result, and as events."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from townlet_train.api import AnnealStageResultDTO, EvaluationDTO, TrainingResultDTO
from townlet_train.strategies.anneal.guardrails import INTENSITY, LOSS, QUEUE, Flag, faints_per_10k
from townlet_train.strategies.anneal.journey import Journey
from townlet_train.strategies.anneal.params import BC, DAGGER, StageParams
from townlet_train.strategies.anneal.setting import Setting

LOSS_BASELINE = "loss_total"
EVENTS_BASELINE, INTENSITY_BASELINE = "queue_conflict_events", "queue_conflict_intensity"


def describe(
    setting: Setting,
    stage: StageParams,
    journey: Journey,
    result: TrainingResultDTO | None,
    measured: EvaluationDTO,
    flags: tuple[Flag, ...],
    told: Mapping[str, Any],
) -> AnnealStageResultDTO:
    """A stage that left a policy, before anything is done about it."""
    found = {} if result is None else result.model_dump()
    is_clone, raised = stage.mode == BC, {flag.guardrail for flag in flags}
    given = is_clone and setting.params.clone is not None  # nothing was trained then
    accuracy = found.get("val_accuracy") if stage.mode in (BC, DAGGER) else None
    threshold = setting.suits.bc_threshold if is_clone and accuracy is not None else None
    return AnnealStageResultDTO(
        cycle=stage.cycle,
        mode=stage.mode,
        steps=journey.steps - sum(done.steps for done in journey.stages),
        total_steps=journey.steps,
        social_stage=setting.social_stage(stage),
        checkpoint=journey.current,
        accuracy=accuracy,
        threshold=threshold,
        passed=None if accuracy is None or threshold is None else accuracy >= threshold,
        loss=found.get("loss") if stage.mode in (BC, DAGGER) else None,
        **{
            name: _finite(found.get(name))
            for name in ("loss_total", "loss_policy", "loss_value", "explained_variance")
        },
        anneal_ratio=told["params"].get("expert_share"),
        bc_weight=told["params"].get("bc_coef"),
        reference_kl=found.get("reference_kl"),
        kl_coef=told["params"].get("kl_coef"),
        learning_rate=None if given else told["params"].get("learning_rate"),
        return_mean=measured.mean,
        return_low=measured.ci_low,
        return_high=measured.ci_high,
        faints_per_10k=faints_per_10k(measured),
        queue_conflict_events=measured.events.get("queue_conflict"),
        queue_conflict_intensity_sum=measured.events.get("queue_conflict_intensity"),
        anneal_loss_flag=None if is_clone else LOSS in raised,
        anneal_queue_flag=None if is_clone else QUEUE in raised,
        anneal_intensity_flag=None if is_clone else INTENSITY in raised,
        flags=tuple(flag.reason for flag in flags),
    )


def describe_failed(
    setting: Setting, stage: StageParams, journey: Journey, reason: str
) -> AnnealStageResultDTO:
    """A stage that left nothing."""
    return AnnealStageResultDTO(
        cycle=stage.cycle,
        mode=stage.mode,
        steps=0,
        total_steps=journey.steps,
        social_stage=setting.social_stage(stage),
        flags=(reason,),
        action="fail",
        rolled_back=True,
    )


def events_of(
    index: int, done: AnnealStageResultDTO, after: Journey, seconds: float
) -> Iterator[dict[str, Any]]:
    """The stage as an event, and what was done about it as another."""
    yield {"event": "stage", "stage": index, **done.model_dump(mode="json"), "duration_sec": seconds}
    if done.action is not None:
        yield {
            "event": done.action,
            "stage": index,
            "cycle": done.cycle,
            "reasons": list(done.flags or after.reasons),
            "kl_scale": after.kl_scale,
            "rate_scale": after.rate_scale,
            "policy": after.current,
        }


def baselines_of(journey: Journey) -> dict[str, float]:
    """What later stages are compared with, under upstream's names."""
    events = {} if journey.reference is None else journey.reference.events
    found = {
        LOSS_BASELINE: journey.loss,
        EVENTS_BASELINE: events.get(QUEUE),
        INTENSITY_BASELINE: events.get(INTENSITY),
        "return_mean": None if journey.reference is None else journey.reference.mean,
    }
    return {name: value for name, value in found.items() if value is not None}


def _finite(value: float | None) -> float | None:
    """A number that a checkpoint's JSON can hold."""
    return value if value is not None and math.isfinite(value) else None
