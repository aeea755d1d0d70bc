"""The end of an anneal: the best policy is judged, measured and handed over."""

from __future__ import annotations

import time
from statistics import pstdev

from townlet_train.api import (
    AnnealStatus,
    AnnealSummaryDTO,
    GateDTO,
    Progress,
    PromotionStatusDTO,
    gate_checkpoints,
    gate_evidence,
    save_baselines,
    sha256_of,
    spec_of,
)
from townlet_train.strategies.anneal.journey import Journey
from townlet_train.strategies.anneal.params import BC
from townlet_train.strategies.anneal.setting import Setting
from townlet_train.strategies.anneal.telling import baselines_of


def summary(setting: Setting, journey: Journey, started: float) -> AnnealSummaryDTO:
    """The verdict on the best policy, and what it earns on held-out seeds; `started` by the performance counter."""
    verdict, promotion = _judge(setting, journey)
    ending, reasons = _ending(setting, journey, verdict)
    best = journey.best or journey.current
    path = None if best is None else setting.path(best)
    threshold, n = spec_of(setting.context.config).reward_threshold, setting.params.evaluation_episodes
    evaluation = setting.evaluate(n, None, checkpoint=path) if n != 0 and path is not None else None
    baselines, status = baselines_of(journey), journey.status or ending
    if setting.params.promotion_dir is not None and status != "FAIL":
        save_baselines(setting.params.promotion_dir, setting.label, baselines)
    return AnnealSummaryDTO(
        status=status,
        reasons=journey.reasons or reasons,
        gate=verdict,
        promotion_pass_streak=None if promotion is None else promotion.pass_streak,
        promotion_candidate_ready=None if promotion is None else promotion.candidate_ready,
        warnings=() if promotion is None else promotion.warnings,
        stages=journey.stages,
        dataset_label=setting.label,
        baselines={**journey.baselines, setting.label: baselines},
        steps=journey.steps,
        demonstrations=None if setting.manifest is None else str(setting.manifest),
        bc_checkpoint=None if journey.clone is None else str(setting.context.run_dir / journey.clone),
        checkpoint=None if path is None else str(path),
        checkpoint_sha256=None if path is None else sha256_of(path),
        final_reward_mean=None if evaluation is None else evaluation.mean,
        final_reward_std=None if evaluation is None else pstdev(evaluation.episode_returns),
        total_episodes=None if evaluation is None else len(evaluation.episode_returns),
        evaluation=evaluation,
        reward_threshold=threshold,
        converged=None if evaluation is None else evaluation.reaches(threshold),
        duration_sec=time.perf_counter() - started,
    )


def _judge(setting: Setting, journey: Journey) -> tuple[GateDTO | None, PromotionStatusDTO | None]:
    """The verdict on the best policy beside the release, or beside the clone; where promotion stands then."""
    if journey.status is not None or not setting.params.gate or journey.best is None:
        return None, None

    def report(done: int, total: int) -> None:
        setting.context.report(Progress("gate", done, total, {}, live=True))

    promotion = setting.context.services.promotion
    release = None if promotion is None else promotion.release
    first = _first_clone(journey)
    if release is None and journey.best == first:
        return None, None  # nothing to judge beside but itself
    beside = release or setting.path(first)
    verdict = gate_checkpoints(
        setting.context.config,
        [setting.path(journey.best)],
        beside,
        report=report,
        experts=setting.context.services.experts,
        checks=setting.context.services.gate_checks,
        processes=setting.context.services.processes,
    )
    if promotion is None:
        return verdict, None
    found = gate_evidence(verdict.model_dump(mode="json"))
    against = None if release is None else found.release_sha256
    noted = promotion.record_evaluation(
        found.status, found.candidate, seeds=found.seeds, release_sha256=against
    )
    return verdict, noted


def _ending(
    setting: Setting, journey: Journey, verdict: GateDTO | None
) -> tuple[AnnealStatus, tuple[str, ...]]:
    """The verdict where the guardrails held, and its reasons."""
    if verdict is not None:
        return verdict.verdict, verdict.reasons
    if setting.params.gate and journey.best == _first_clone(journey):
        return "HOLD", ("No stage was better than the clone, and there is no release to judge it beside.",)
    return "PASS", ()


def _first_clone(journey: Journey) -> str | None:
    """What the stage that cloned left, whatever was imitated better later."""
    return next((done.checkpoint for done in journey.stages if done.mode == BC), None)
