"""Behaviour cloning as a strategy: load, split by episode, train to the lowest held-out loss, leave a checkpoint."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, model_validator

from townlet_train.api import (
    BCTrainingResultDTO,
    Interrupted,
    Progress,
    StrategyParams,
    TrainingContext,
    sha256_of,
)

if TYPE_CHECKING:
    from townlet_train.learners.bc import BCLearner, BCSettings, BCStats, Clone

LOW_ACCURACY = 0.95
logger = logging.getLogger(__name__)


class BCParams(StrategyParams):
    """What behaviour cloning can be told."""

    manifest: Path | None = Field(
        None, description="demonstrations: a manifest, a capture directory or a sample"
    )
    learning_rate: float = Field(2e-3, gt=0, description="Adam's step size, falling linearly to 0")
    batch_size: int = Field(256, gt=0, description="frames per update")
    n_epochs: int = Field(8, gt=0, description="passes over the training frames at most")
    weight_decay: float = Field(0.0, ge=0, description="pull of the weights to 0")
    val_fraction: float = Field(0.2, gt=0, lt=1, description="share of the episodes held out")
    patience: int = Field(3, gt=0, description="stop after so many epochs without a lower held-out loss")
    network: Literal["mlp", "conflict_aware"] = Field(
        "mlp", description="mlp reads the features; conflict_aware the map too, as upstream's network"
    )
    hidden_sizes: tuple[int, ...] | None = Field(
        None, min_length=1, description="hidden layer widths; unset: 64 64 for mlp, 256 for conflict_aware"
    )
    majority_threshold: float = Field(
        0.9, gt=0, le=1, description="refuse when one action is this share of frames"
    )
    allow_degenerate: bool = Field(False, description="train although one action is nearly everything")
    device: str = Field("cpu", min_length=1, description="torch device")
    n_threads: int = Field(
        1, gt=0, description="threads; another number changes the last bits of the weights"
    )

    @model_validator(mode="after")
    def _widths_a_network_can_have(self) -> BCParams:
        if self.hidden_sizes is not None and min(self.hidden_sizes) < 1:
            raise ValueError(f"hidden sizes are at least 1, {min(self.hidden_sizes)} was given")
        if self.network == "conflict_aware" and self.hidden_sizes is not None and len(self.hidden_sizes) != 1:
            raise ValueError("network conflict_aware has one hidden size")
        return self


class BCStrategy:
    """Imitate captured demonstrations."""

    name: ClassVar[str] = "bc"
    summary: ClassVar[str] = "Behaviour cloning: imitate captured demonstrations."
    requires_torch: ClassVar[bool] = True
    Params: ClassVar[type[StrategyParams]] = BCParams

    def __init__(self, params: BCParams) -> None:
        self.params = params

    def prepare(self, context: TrainingContext) -> None:
        """Refuse a run whose demonstrations are not there."""
        context.services.replay.resolve_manifest(self.params.manifest)

    def run(self, context: TrainingContext) -> BCTrainingResultDTO:
        """Clone the demonstrator; the epoch with the lowest held-out loss becomes the checkpoint."""
        from townlet_train.learners.bc import BCLearner
        from townlet_train.learners.imitation import check_teachable

        started = time.perf_counter()
        manifest = context.services.replay.resolve_manifest(self.params.manifest)
        demonstrations = context.services.replay.load(
            manifest, with_maps=self.params.network == "conflict_aware"
        )
        warnings = [
            *demonstrations.warnings,
            *check_teachable(
                demonstrations, self.params.majority_threshold, allow_degenerate=self.params.allow_degenerate
            ),
        ]
        learner = BCLearner.from_demonstrations(
            demonstrations,
            self._settings(),
            network=self.params.network,
            hidden_sizes=self.params.hidden_sizes,
            val_fraction=self.params.val_fraction,
            rng=context.rng,
        )
        epochs = self._train(learner, partial(self._save, learner, manifest, context), context)
        result = self._result(learner, epochs, manifest, context)
        accuracy = learner.best.held_out.accuracy
        if accuracy < LOW_ACCURACY:
            warnings.append(
                f"Held-out accuracy is {accuracy:.3f}, below {LOW_ACCURACY}: a clone so far off can lose much of the "
                f"return. Evaluate it beside the demonstrator."
            )
        return result.model_copy(
            update={"warnings": tuple(warnings), "duration_sec": time.perf_counter() - started}
        )

    def _settings(self) -> BCSettings:
        from townlet_train.learners.bc import BCSettings

        p = self.params
        return BCSettings(p.learning_rate, p.batch_size, p.n_epochs, p.weight_decay, p.device, p.n_threads)

    def _train(
        self, learner: BCLearner, save: Callable[[Clone], Path], context: TrainingContext
    ) -> list[BCStats]:
        """Epoch after epoch until there are enough or none helps any more; every best one is saved at once."""
        total = len(learner.train) * self.params.n_epochs
        epochs: list[BCStats] = []
        try:
            while learner.epoch < self.params.n_epochs and learner.epochs_since_best < self.params.patience:
                stats = learner.train_epoch(
                    lambda: context.report(Progress("bc", learner.timestep, total, {}))
                )
                epochs.append(stats)
                if learner.epochs_since_best == 0:
                    save(learner.best)
                context.record(asdict(stats))
                shown = {"loss": stats.loss, "val_loss": stats.val_loss, "val_accuracy": stats.val_accuracy}
                context.report(Progress("bc", stats.timestep, total, shown))
        except Interrupted as stop:
            saved = save(learner.best if epochs else learner.clone())
            raise Interrupted(f"{stop} The best clone so far is {saved}.") from stop
        return epochs

    def _save(self, learner: BCLearner, manifest: Path, context: TrainingContext, clone: Clone) -> Path:
        """Write a clone as checkpoint_<frames learned from>.zip."""
        path = checkpoint_path(context, clone)
        learner.save(
            clone,
            path,
            algorithm=self.name,
            env_id=context.config.env,
            manifest=manifest,
            config_hash=context.config_hash,
            seed=context.seed,
        )
        logger.debug("saved %s after epoch %d", path, clone.epoch)
        return path

    def _result(
        self, learner: BCLearner, epochs: list[BCStats], manifest: Path, context: TrainingContext
    ) -> BCTrainingResultDTO:
        best, training = learner.best, learner.measure(learner.best.weights, learner.train)
        checkpoint = checkpoint_path(context, best)
        return BCTrainingResultDTO(
            manifest=str(manifest),
            accuracy=training.accuracy,
            loss=training.loss,
            learning_rate=self.params.learning_rate,
            batch_size=self.params.batch_size,
            epochs=len(epochs),
            val_accuracy=best.held_out.accuracy,
            val_loss=best.held_out.loss,
            weight_decay=self.params.weight_decay,
            device=self.params.device,
            best_epoch=best.epoch,
            val_accuracy_unforced=best.held_out.accuracy_unforced,
            majority_share=best.held_out.majority_share,
            macro_recall=best.held_out.macro_recall,
            recall=best.held_out.recall,
            n_train=len(learner.train),
            n_val=len(learner.val),
            train_episodes=learner.n_episodes(learner.train),
            val_episodes=learner.n_episodes(learner.val),
            action_names=learner.demonstrations.action_names,
            samples_per_sec=fmean(stats.samples_per_sec for stats in epochs),
            checkpoint=str(checkpoint),
            checkpoint_sha256=sha256_of(checkpoint),
        )


def checkpoint_path(context: TrainingContext, clone: Clone) -> Path:
    """Where a clone is saved: named by the frames it had learned from."""
    return context.run_dir / f"checkpoint_{clone.timestep}.zip"
