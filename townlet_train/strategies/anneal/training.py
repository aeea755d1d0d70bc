"""One stage trained: its strategy runs in a folder of its own, from where the journey is."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from townlet_train.api import (
    AnnealContext,
    StartingPoint,
    TownletTrainError,
    TrainingError,
    TrainingResultDTO,
    load_checkpoint,
    sha256_of,
    stream,
)
from townlet_train.strategies.anneal.guardrails import INTENSITY, QUEUE
from townlet_train.strategies.anneal.journey import Journey
from townlet_train.strategies.anneal.params import BC, StageParams
from townlet_train.strategies.anneal.setting import Setting
from townlet_train.strategies.anneal.telling import EVENTS_BASELINE, INTENSITY_BASELINE

FIRST_STAGE_SEED, LAST_STAGE_SEED = 1_000_000, 20_000_000
STAGES, CLONE = "stages", "clone.zip"
logger = logging.getLogger(__name__)


def train_stage(
    setting: Setting,
    journey: Journey,
    index: int,
    told: Mapping[str, Any],
    record: Callable[[Mapping[str, Any]], None],
) -> TrainingResultDTO:
    """Run a stage's strategy as it was `told`.

    Raises:
        TrainingError: it failed, or raised what no strategy should.
    """
    stage = setting.stages[index]
    folder = setting.context.run_dir / STAGES / f"{index:02d}_{stage.mode}"
    shutil.rmtree(folder, ignore_errors=True)  # of a life that was killed
    folder.mkdir(parents=True)
    if stage.mode == BC and setting.params.clone is not None:
        return _given(setting.params.clone, folder)
    rng = stream(setting.context.seed, f"stage {index}")
    strategy = setting.context.build_strategy(told["strategy"], told["params"])
    config = setting.context.config
    context = replace(
        setting.context,
        config=config.model_copy(update={"town": config.town_in_cycle(stage.cycle)}),
        seed=int(rng.integers(FIRST_STAGE_SEED, LAST_STAGE_SEED)),
        rng=rng,
        run_dir=folder,
        record=record,
        anneal_context=_anneal_context(setting, stage, journey),
        start=_start(setting, stage, journey),
    )
    strategy.prepare(context)
    try:
        return strategy.run(context)
    except (TownletTrainError, OSError, MemoryError):
        raise
    except Exception as error:
        logger.debug("%s failed", strategy.name, exc_info=True)
        raise TrainingError(
            f"{type(error).__name__}: {str(error).rstrip('.')}. Its traceback is in the run's log."
        ) from error


def newest(model: Path) -> Path:
    """The checkpoint with its optimiser, where a stage left one beside the file that is only its policy."""
    steps = {path: path.stem.removeprefix("checkpoint_") for path in model.parent.glob("checkpoint_*.zip")}
    numbered = [path for path, step in steps.items() if step.isdigit()]
    if model in numbered or not numbered:
        return model
    last = max(numbered, key=lambda path: int(steps[path]))
    theirs, ours = load_checkpoint(last).weights, load_checkpoint(model).weights
    same = theirs.keys() == ours.keys() and all((theirs[name] == ours[name]).all() for name in ours)
    return last if same else model  # a strategy may leave its best, and later ones beside it


def _start(setting: Setting, stage: StageParams, journey: Journey) -> StartingPoint | None:
    """The policy to go on with; the optimiser goes on only from a stage of the same kind."""
    if journey.current is None or stage.mode == BC:
        return None
    path = setting.context.run_dir / journey.current
    return StartingPoint(
        path, sha256_of(path), load_checkpoint(path), fork=True, optimiser=journey.continues == stage.mode
    )


def _anneal_context(setting: Setting, stage: StageParams, journey: Journey) -> AnnealContext:
    clone = next((done for done in journey.stages if done.mode == BC), None)
    reference, limits = journey.reference, setting.params.guardrails
    kept = journey.baselines.get(setting.label, {})
    before = {QUEUE: kept.get(EVENTS_BASELINE), INTENSITY: kept.get(INTENSITY_BASELINE)}
    events = before if reference is None else reference.events
    return AnnealContext(
        cycle=stage.cycle,
        stage=stage.mode,
        dataset_label=setting.label,
        bc_accuracy=None if clone is None else clone.accuracy,
        bc_threshold=setting.suits.bc_threshold,
        bc_passed=clone is not None and bool(clone.passed),
        loss_baseline=journey.loss,
        queue_events_baseline=events.get(QUEUE),
        queue_intensity_baseline=events.get(INTENSITY),
        loss_tolerance=limits.loss_tolerance,
        queue_tolerance=_queue_tolerance(setting),
    )


def _queue_tolerance(setting: Setting) -> float:
    """Share that queue conflicts may fall, as the gate says."""
    found = (held.tolerance for held in setting.context.config.gate.guardrails if held.event == QUEUE)
    return next((tolerance for tolerance in found if tolerance is not None), 0.0)


def _given(clone: Path, folder: Path) -> TrainingResultDTO:
    """A clone that was there before, taken into the anneal."""
    path = folder / CLONE
    shutil.copyfile(clone, path)
    return TrainingResultDTO(strategy=BC, checkpoint=str(path), checkpoint_sha256=sha256_of(path))
