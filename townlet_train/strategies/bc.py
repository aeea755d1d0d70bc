"""Behaviour cloning as a strategy: load, split by episode, train to the lowest held-out loss, leave a checkpoint."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from statistics import fmean, pstdev
from typing import TYPE_CHECKING, ClassVar

from townlet_train.api import (
    BCTrainingResultDTO,
    Comparison,
    Interrupted,
    Progress,
    StrategyParams,
    TrainingContext,
    sha256_of,
)
from townlet_train.strategies.bc_params import BCParams

if TYPE_CHECKING:
    from townlet_train.learners.bc import BCLearner, BCSettings, BCStats, Clone

logger = logging.getLogger(__name__)


class BCStrategy:
    """Imitate captured demonstrations."""

    name: ClassVar[str] = "bc"
    summary: ClassVar[str] = "Behaviour cloning: imitate captured demonstrations."
    requires_torch: ClassVar[bool] = True
    Params: ClassVar[type[StrategyParams]] = BCParams

    def __init__(self, params: BCParams) -> None:
        self.params = params

    def prepare(self, context: TrainingContext) -> None:
        """Refuse a run whose demonstrations, environment or device are not there."""
        from townlet_train.learners.devices import checked_device

        manifest = context.services.replay.check(self.params.manifest)
        context.services.replay.check_env(manifest, context.config.env)
        context.services.evaluation.check_env(context.config.env)
        checked_device(self.params.device)
        p = self.params
        widths = (
            "its own widths" if p.hidden_sizes is None else f"widths {', '.join(map(str, p.hidden_sizes))}"
        )
        logger.info(
            "%s: %d frames of %d seeds, %.0f %% of the episodes held out; network %s with %s; up to %d epochs on %s",
            manifest,
            *context.services.replay.size(manifest),
            100 * p.val_fraction,
            p.network,
            widths,
            p.n_epochs,
            p.device,
        )

    def run(self, context: TrainingContext) -> BCTrainingResultDTO:
        """Clone the demonstrator; the epoch with the lowest held-out loss becomes the checkpoint."""
        from townlet_train.learners.bc import BCLearner
        from townlet_train.learners.imitation import check_teachable

        started = time.perf_counter()
        manifest = context.services.replay.resolve_manifest(self.params.manifest)
        recorded = context.services.replay.check_env(manifest, context.config.env)
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
            shared_trunk=self.params.shared_trunk,
            val_fraction=self.params.val_fraction,
            rng=context.rng,
        )
        epochs = self._train(learner, partial(self._save, learner, manifest, recorded, context), context)
        comparison = Comparison()
        if self.params.evaluate and recorded is not None:
            comparison = self._compare(checkpoint_path(context, learner.best), context)
        result = self._result(learner, epochs, comparison, manifest, context)
        warnings += [*comparison.warnings, *self.params.shortfalls(result)]
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
            what = "best clone so far" if epochs else "network, in the middle of its first epoch,"
            raise Interrupted(f"{stop} The {what} is {saved}.") from stop
        return epochs

    def _save(
        self,
        learner: BCLearner,
        manifest: Path,
        recorded: str | None,
        context: TrainingContext,
        clone: Clone,
    ) -> Path:
        """Write a clone as checkpoint_<frames learned from>.zip, of the environment it saw."""
        path = checkpoint_path(context, clone)
        learner.save(
            clone,
            path,
            algorithm=self.name,
            env_id=recorded or context.config.env,
            manifest=manifest,
            config_hash=context.config_hash,
            seed=context.seed,
        )
        logger.debug("saved %s after epoch %d", path, clone.epoch)
        return path

    def _compare(self, checkpoint: Path, context: TrainingContext) -> Comparison:
        """The clone's return beside the expert's and a random policy's."""
        try:
            return context.services.evaluation.compare(
                checkpoint,
                name="clone",
                report=lambda done, total: context.report(Progress("evaluate", done, total, {})),
            )
        except Interrupted as stop:
            raise Interrupted(f"{stop} Training had ended; the clone is {checkpoint}.") from stop

    def _result(
        self,
        learner: BCLearner,
        epochs: list[BCStats],
        comparison: Comparison,
        manifest: Path,
        context: TrainingContext,
    ) -> BCTrainingResultDTO:
        returns = comparison.returns
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
            return_score_sampled=comparison.score("clone, sampled"),
            return_score_greedy=comparison.score("clone, greedy"),
            final_reward_mean=fmean(returns) if returns else None,
            final_reward_std=pstdev(returns) if returns else None,
            total_episodes=len(returns) or None,
            policies=comparison.policies,
            checkpoint=str(checkpoint),
            checkpoint_sha256=sha256_of(checkpoint),
        )


def checkpoint_path(context: TrainingContext, clone: Clone) -> Path:
    """Where a clone is saved: named by the frames it had learned from."""
    return context.run_dir / f"checkpoint_{clone.timestep}.zip"
