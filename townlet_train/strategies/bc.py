"""Behaviour cloning as a strategy: load, split by episode, train to the lowest held-out loss, leave a checkpoint."""

from __future__ import annotations

import logging
import time
from dataclasses import asdict
from pathlib import Path
from statistics import fmean, pstdev
from typing import TYPE_CHECKING, ClassVar

from townlet_train.api import (
    BCTrainingResultDTO,
    CheckpointError,
    Comparison,
    DataError,
    Interrupted,
    Progress,
    StartingPoint,
    StrategyParams,
    TrainingContext,
    UsageError,
    sha256_of,
)
from townlet_train.strategies.bc_params import BCParams

if TYPE_CHECKING:
    from townlet_train.api import Demonstrations
    from townlet_train.learners.bc import BCLearner, BCSettings, BCStats
    from townlet_train.learners.cloning import Cloning

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
        """Refuse a run whose demonstrations, environment or device are not there, or whose start is none."""
        from townlet_train.learners.devices import checked_device

        manifest = context.services.replay.check(self.params.manifest)
        context.services.replay.check_env(manifest, context.config.env)
        context.services.evaluation.check_env(context.config.env)
        checked_device(self.params.device)
        if context.start is not None:
            self._check_start(context.start, manifest, context)
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
        """Clone the demonstrator; the weights of the epoch with the lowest held-out loss become the model."""
        from townlet_train.learners.cloning import Cloning
        from townlet_train.learners.imitation import check_teachable

        started = time.perf_counter()
        manifest = context.services.replay.resolve_manifest(self.params.manifest)
        recorded = context.services.replay.check_env(manifest, context.config.env)
        demonstrations = self._demonstrations(manifest, context)
        taught = check_teachable(
            demonstrations, self.params.majority_threshold, allow_degenerate=self.params.allow_degenerate
        )
        cloning = Cloning(
            context,
            self.params,
            self._learner(demonstrations, context),
            algorithm=self.name,
            env_id=recorded or context.config.env,
            manifest=manifest,
        )
        epochs = self._train(cloning, context)
        model = cloning.save_model()
        comparison = Comparison()
        if self.params.evaluate and recorded is not None:
            comparison = self._compare(model, context)
        result = self._result(cloning.learner, epochs, comparison, manifest, model)
        warnings = (*demonstrations.warnings, *taught, *cloning.warnings, *comparison.warnings)
        return result.model_copy(
            update={
                "warnings": (*warnings, *self.params.shortfalls(result)),
                "duration_sec": time.perf_counter() - started,
            }
        )

    def _check_start(self, start: StartingPoint, manifest: Path, context: TrainingContext) -> None:
        """Refuse a checkpoint beyond the epochs asked for, and to begin with a policy of other kinds of actions."""
        saved, n_epochs = start.checkpoint, self.params.n_epochs
        shown = context.services.replay.action_bounds(manifest)
        acts = "chooses among named actions" if saved.info.action_names else "acts by vectors of numbers"
        if start.fork and bool(saved.info.action_names) == bool(shown):
            raise CheckpointError(
                f"{start.path} {acts}, {manifest} shows {'such vectors' if shown else 'named actions'}. "
                f"Begin with another policy, or with none."
            )
        if start.fork and saved.info.action_bounds and saved.info.action_bounds != shown:
            raise CheckpointError(
                f"{start.path} {acts} within other bounds than those of {manifest}: {saved.info.action_bounds} where "
                f"{shown} belongs. Begin with another policy, or with none."
            )
        if (
            not start.fork
            and n_epochs < saved.state["params"]["n_epochs"]
            and n_epochs <= saved.state["epoch"]
        ):
            raise UsageError(
                f"{start.path} has {saved.state['epoch']} epochs behind it, {n_epochs} are asked for. Raise --n-epochs."
            )

    def _demonstrations(self, manifest: Path, context: TrainingContext) -> Demonstrations:
        """What there is to learn from, features and actions in the order of the policy to begin with."""
        if context.start is None:
            return context.services.replay.load(manifest, with_maps=self.params.network == "conflict_aware")
        info = context.start.checkpoint.info
        return context.services.replay.load(
            manifest,
            with_maps=bool(info.map_channels),
            feature_names=info.feature_names,
            action_names=info.action_names,
        )

    def _learner(self, demonstrations: Demonstrations, context: TrainingContext) -> BCLearner:
        """A learner with the network that was asked for, or that of the policy to begin with."""
        from townlet_train.api import NetworkSpec
        from townlet_train.learners.bc import BCLearner, network_for

        p, start = self.params, context.start
        if start is None:
            spec = network_for(demonstrations, p.network, p.hidden_sizes, shared_trunk=p.shared_trunk)
        else:
            spec = NetworkSpec.from_document(start.checkpoint.info.network)
            shown = None if demonstrations.maps is None else demonstrations.maps.shape[1:]
            if spec.kind == "conflict_aware" and shown != spec.map_shape:
                raise DataError(
                    f"{demonstrations.label} has maps of shape {shown}, {start.path} reads {spec.map_shape}. "
                    f"Begin with another policy, or with none."
                )
        return BCLearner.from_demonstrations(
            demonstrations,
            self._settings(),
            spec,
            val_fraction=p.val_fraction,
            rng=context.rng,
            weights=None if start is None else start.checkpoint.weights,
        )

    def _settings(self) -> BCSettings:
        from townlet_train.learners.bc import BCSettings

        p = self.params
        return BCSettings(p.learning_rate, p.batch_size, p.n_epochs, p.weight_decay, p.device, p.n_threads)

    def _train(self, cloning: Cloning, context: TrainingContext) -> list[BCStats]:
        """Epoch after epoch until there are enough or none helps any more; the run is saved after every best one."""
        learner = cloning.learner
        total = len(learner.train) * self.params.n_epochs
        epochs: list[BCStats] = []
        try:
            while learner.epoch < self.params.n_epochs and learner.epochs_since_best < self.params.patience:
                stats = learner.train_epoch(
                    lambda: context.report(Progress("bc", learner.timestep, total, {}))
                )
                epochs.append(stats)
                context.record(asdict(stats))
                if learner.epochs_since_best == 0:
                    cloning.save()
                reached = {
                    "val_accuracy": stats.val_accuracy,
                    "val_mean_absolute_error": stats.val_mean_absolute_error,
                }
                shown = {"loss": stats.loss, "val_loss": stats.val_loss}
                shown |= {name: value for name, value in reached.items() if value is not None}
                context.report(Progress("bc", stats.timestep, total, shown))
        except Interrupted as stop:
            raise Interrupted(f"{stop} Go on with --resume-from {cloning.save()}") from stop
        return epochs

    def _compare(self, checkpoint: Path, context: TrainingContext) -> Comparison:
        """The clone's return beside the expert's and a random policy's."""
        try:
            return context.services.evaluation.compare(
                checkpoint,
                name="clone",
                report=lambda done, total: context.report(Progress("evaluate", done, total, {})),
            )
        except Interrupted as stop:
            raise Interrupted(f"{stop} Training had ended; the clone is {checkpoint}") from stop

    def _result(
        self,
        learner: BCLearner,
        epochs: list[BCStats],
        comparison: Comparison,
        manifest: Path,
        model: Path,
    ) -> BCTrainingResultDTO:
        returns = comparison.returns
        best, training = learner.best, learner.measure(learner.best.weights, learner.train)
        return BCTrainingResultDTO(
            manifest=str(manifest),
            accuracy=training.accuracy,
            loss=training.loss,
            learning_rate=self.params.learning_rate,
            batch_size=self.params.batch_size,
            epochs=learner.epoch,
            val_accuracy=best.held_out.accuracy,
            val_loss=best.held_out.loss,
            weight_decay=self.params.weight_decay,
            device=self.params.device,
            best_epoch=best.epoch,
            val_accuracy_unforced=best.held_out.accuracy_unforced,
            majority_share=best.held_out.majority_share,
            macro_recall=best.held_out.macro_recall,
            recall=best.held_out.recall,
            mean_absolute_error=training.mean_absolute_error,
            val_mean_absolute_error=best.held_out.mean_absolute_error,
            n_train=len(learner.train),
            n_val=len(learner.val),
            train_episodes=learner.n_episodes(learner.train),
            val_episodes=learner.n_episodes(learner.val),
            action_names=learner.demonstrations.action_names,
            samples_per_sec=fmean(stats.samples_per_sec for stats in epochs) if epochs else None,
            return_score_sampled=comparison.score("clone, sampled"),
            return_score_greedy=comparison.score("clone, greedy"),
            final_reward_mean=fmean(returns) if returns else None,
            final_reward_std=pstdev(returns) if returns else None,
            total_episodes=len(returns) or None,
            policies=comparison.policies,
            checkpoint=str(model),
            checkpoint_sha256=sha256_of(model),
        )
