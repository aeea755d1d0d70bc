"""What all stages of one anneal have in common: its params and schedule, what it learns from, how it measures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from townlet_train.api import EvaluationDTO, Progress, TrainingContext, capture_as_configured
from townlet_train.strategies.anneal.params import AnnealParams, StageParams
from townlet_train.strategies.anneal.schedule import Suits, stages_of, what_suits

DEMONSTRATIONS = "demonstrations"


@dataclass(frozen=True)
class Setting:
    """One anneal, before its first stage and after its last."""

    params: AnnealParams
    context: TrainingContext
    suits: Suits
    stages: tuple[StageParams, ...]
    manifest: Path | None  # of the demonstrations; None where a clone was given
    label: str  # what baselines are kept under

    @classmethod
    def prepare(cls, params: AnnealParams, context: TrainingContext) -> Setting:
        """The setting of an anneal; captures the expert where nobody gave demonstrations."""
        suits = what_suits(context.config.env, params)
        context.services.evaluation.start_ahead()
        manifest = _demonstrations(params, context, suits)
        label = params.dataset_label or _label(manifest, params.clone)
        return cls(params, context, suits, stages_of(params, suits), manifest, label)

    def path(self, below: str | None) -> Path:
        """A checkpoint of this run, from its place below the run's directory."""
        return self.context.run_dir / str(below)

    def evaluate(self, episodes: int | None, seed: int | None, **whom: Any) -> EvaluationDTO:
        """What somebody earns, sampled; None: as many episodes, from the held-out seed, as every evaluation."""

        def report(done: int, total: int) -> None:
            self.context.report(Progress("evaluate", done, total, {}, live=True))

        return self.context.services.evaluation.evaluate(**whom, episodes=episodes, seed=seed, report=report)

    def social_stage(self, stage: StageParams) -> str | None:
        """The social rewards that the town pays in a stage's cycle."""
        return self.context.config.social_stage(stage.cycle) if self.context.config.env == "town" else None


def _demonstrations(params: AnnealParams, context: TrainingContext, suits: Suits) -> Path | None:
    """The manifest that was named, or that of the expert's rollouts, captured unless that was done before."""
    if params.clone is not None:
        return None
    replay = context.services.replay
    if params.bc_manifest is not None:
        return replay.resolve_manifest(params.bc_manifest)
    folder = context.run_dir / DEMONSTRATIONS
    if not any(folder.glob("*_manifest.json")):  # also where a life that left no checkpoint was cleared away
        _capture(folder, context, suits)
    return replay.resolve_manifest(folder)


def _capture(folder: Path, context: TrainingContext, suits: Suits) -> None:
    def report(done: int, total: int) -> None:
        context.report(Progress("capture", done, total, {}))

    capture_as_configured(
        context.config,
        suited=suits.capture,
        output=folder,
        with_maps=suits.bc.get("network") == "conflict_aware",
        report=report,
        experts=context.services.experts,
    )


def _label(manifest: Path | None, clone: Path | None) -> str:
    """What baselines are kept under, where nobody says: the demonstrations' folder, or the clone's name."""
    return manifest.parent.name if manifest is not None else clone.stem if clone is not None else ""
