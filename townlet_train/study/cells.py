"""What one process of a study does: measure the scale, capture a seed's demonstrations, clone, or do one cell."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from townlet_train.config import RunConfig
from townlet_train.files import sha256_of
from townlet_train.orchestrator import TrainingOrchestrator
from townlet_train.registry import PluginPolicy, Registry, discover
from townlet_train.results import (
    AnnealStageResultDTO,
    AnnealSummaryDTO,
    EvaluationDTO,
    PPOTrainingResultDTO,
    StudyCellDTO,
    StudyPointDTO,
)
from townlet_train.services.rollout import capture_as_configured
from townlet_train.services.scoring import EvaluationService
from townlet_train.strategies.anneal.guardrails import faints_per_10k
from townlet_train.strategies.anneal.params import AnnealParams
from townlet_train.strategies.anneal.schedule import what_suits
from townlet_train.strategies.anneal.stages import SELECTION_SEED
from townlet_train.study.conditions import BC, SCRATCH, anneal_params, clone_params, scratch_params

Said = Mapping[str, Any]
SCRATCH_POINTS_PER_CYCLE = 2


class Job(BaseModel):
    """What a process is to do."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["scale", "demonstrations", "clone", "cell"]
    name: str
    config: RunConfig
    plugins: PluginPolicy  # that of the study, not what this process would say
    said: dict[str, Any]  # of anneal
    timesteps: int
    folder: Path  # of what it leaves
    condition: str = ""
    trunk: str = ""
    seed: int = 0
    demonstrations: Path | None = None  # what a clone is made of
    clone: Path | None = None


def do(job: Job) -> dict[str, Any]:
    """Do a job; what it found, as a plain document."""
    doing = {
        "scale": _measure_scale,
        "demonstrations": _capture,
        "clone": _make_clone,
        "cell": _run_cell,
    }[job.kind]
    return doing(job, discover(job.plugins))


def _measure_scale(job: Job, registry: Registry) -> dict[str, Any]:
    """What random and the expert earn on the seeds that select."""
    return {name: _on_the_way(job, registry, scripted=name).return_mean for name in ("random", "expert")}


def _capture(job: Job, registry: Registry) -> dict[str, Any]:
    """The demonstrations of a seed."""
    suits = what_suits(job.config.env, AnnealParams(**job.said))
    capture_as_configured(
        job.config,
        suited=suits.capture,
        output=job.folder,
        with_maps=suits.bc.get("network") == "conflict_aware",
        experts=registry.experts,
        overwrite=True,
    )
    return {"demonstrations": str(job.folder)}


def _make_clone(job: Job, registry: Registry) -> dict[str, Any]:
    """The clone of a seed with one kind of trunk."""
    params = {
        **clone_params(job.said, job.trunk, env=job.config.env),
        "manifest": job.demonstrations,
    }
    result = TrainingOrchestrator(job.config, registry=registry).run(
        "bc", params, run_dir=job.folder, overwrite=True
    )
    return {"clone": str(result.checkpoint)}


def _run_cell(job: Job, registry: Registry) -> dict[str, Any]:
    started = time.perf_counter()
    run = {BC: _keep_the_clone, SCRATCH: _train_from_scratch}.get(job.condition, _anneal)
    cell = run(job, registry)
    seconds = time.perf_counter() - started
    return cell.model_copy(update={"duration_sec": seconds}).model_dump(mode="json")


def _keep_the_clone(job: Job, registry: Registry) -> StudyCellDTO:
    """The clone, as it is."""
    assert job.clone is not None  # a study makes it first
    return _cell(job, 0, (_on_the_way(job, registry, checkpoint=job.clone),), job.clone, job.clone)


def _train_from_scratch(job: Job, registry: Registry) -> StudyCellDTO:
    """PPO that begins with nothing; its checkpoints are measured on the way."""
    env = job.config.env
    n_points = SCRATCH_POINTS_PER_CYCLE * n_cycles(env, job.said)
    interval = max(1, job.timesteps // n_points)
    params = {
        **scratch_params(job.said, job.trunk, env=env, timesteps=job.timesteps),
        "checkpoint_interval": interval,
    }
    result = TrainingOrchestrator(job.config, registry=registry).run(
        "ppo", params, run_dir=job.folder, overwrite=True
    )
    by_steps = {int(path.stem.rpartition("_")[2]): path for path in job.folder.glob("checkpoint_*.zip")}
    curve = [StudyPointDTO(steps=0, return_mean=_on_the_way(job, registry, scripted="random").return_mean)]
    curve += [
        _on_the_way(job, registry, checkpoint=path).model_copy(update={"steps": steps})
        for steps, path in sorted(by_steps.items())
    ]
    assert isinstance(result, PPOTrainingResultDTO)  # of the strategy of that name
    last = Path(str(result.checkpoint))
    return _cell(job, int(result.steps), tuple(curve), last, last)


def _anneal(job: Job, registry: Registry) -> StudyCellDTO:
    """An anneal of the clone under the condition; where it was ended, what it released stands for the rest."""
    params = anneal_params(job.condition, job.said, job.trunk, env=job.config.env, timesteps=job.timesteps)
    result = TrainingOrchestrator(job.config, registry=registry).run(
        "anneal", {**params, "clone": job.clone}, run_dir=job.folder, overwrite=True
    )
    assert isinstance(result, AnnealSummaryDTO)  # of the strategy of that name
    last = [stage for stage in result.stages if stage.return_mean is not None][-1]
    cell = _cell(
        job,
        result.steps,
        curve_of(result.stages, job.timesteps),
        job.folder / str(last.checkpoint),
        Path(str(result.checkpoint)),
    )
    actions = tuple(stage.action for stage in result.stages if stage.action)
    return cell.model_copy(update={"status": result.status, "actions": actions})


def curve_of(stages: Sequence[AnnealStageResultDTO], timesteps: int) -> tuple[StudyPointDTO, ...]:
    """What was measured on the way; where the guardrails ended it, the best stands for the steps not taken."""
    measured = [(stage, stage.return_mean) for stage in stages if stage.return_mean is not None]
    curve = [
        StudyPointDTO(
            steps=stage.total_steps,
            return_mean=return_mean,
            faints_per_10k=stage.faints_per_10k,
            queue_conflict_events=stage.queue_conflict_events,
        )
        for stage, return_mean in measured
    ]
    if stages[-1].action in ("hold", "fail"):
        best = [point for point, (stage, _) in zip(curve, measured, strict=True) if stage.best][-1]
        curve.append(best.model_copy(update={"steps": timesteps}))
    return tuple(curve)


def n_cycles(env: str, said: Said) -> int:
    """Stages of PPO that an anneal has."""
    return what_suits(env, AnnealParams(**said)).n_cycles


def episodes_at_the_end(config: RunConfig, said: Said) -> int:
    """Held-out episodes that a cell's last policy plays."""
    told = AnnealParams(**said).evaluation_episodes
    return config.evaluation.episodes if told is None else told


def _cell(job: Job, steps: int, curve: tuple[StudyPointDTO, ...], last: Path, released: Path) -> StudyCellDTO:
    """A cell with what its last policy and the released one earn on held-out seeds."""
    service = EvaluationService(job.config)
    episodes = episodes_at_the_end(job.config, job.said)
    final = service.evaluate(checkpoint=last, episodes=episodes)
    best = (
        final
        if sha256_of(last) == sha256_of(released)
        else service.evaluate(checkpoint=released, episodes=episodes)
    )
    return StudyCellDTO(
        condition=job.condition,
        trunk=job.trunk,
        seed=job.seed,
        clone_sha256=None if job.clone is None else sha256_of(job.clone),
        steps=steps,
        curve=curve,
        final_return=final.mean,
        final_faints_per_10k=faints_per_10k(final),
        released_return=best.mean,
        released_faints_per_10k=faints_per_10k(best),
        duration_sec=0.0,
    )


def _on_the_way(job: Job, registry: Registry, **whom: Any) -> StudyPointDTO:
    """What a policy earns on the seeds that anneals select by."""
    service = EvaluationService(job.config, registry.experts)
    episodes = what_suits(job.config.env, AnnealParams(**job.said)).stage_episodes
    measured: EvaluationDTO = service.evaluate(**whom, episodes=episodes, seed=SELECTION_SEED)
    return StudyPointDTO(
        steps=0,
        return_mean=measured.mean,
        faints_per_10k=faints_per_10k(measured),
        queue_conflict_events=measured.events.get("queue_conflict"),
    )
