"""A cloning as a run: what its checkpoints hold, and how it begins with one or goes on from it."""

from __future__ import annotations

import logging
from pathlib import Path

from townlet_train.contract import StrategyParams, TrainingContext
from townlet_train.data.checkpoint import (
    Checkpoint,
    CheckpointInfo,
    Lineage,
    bounds_of,
    save_checkpoint,
    seed_ranges,
)
from townlet_train.files import sha256_of
from townlet_train.learners.assembly import continued_lineage
from townlet_train.learners.bc import BCLearner
from townlet_train.learners.run_state import moved, no_training, training_of
from townlet_train.services.runs import model_path, versions

logger = logging.getLogger(__name__)


class Cloning:
    """A learner in its run, from where the run's start left it; `manifest` is where its demonstrations came from."""

    def __init__(
        self,
        context: TrainingContext,
        params: StrategyParams,
        learner: BCLearner,
        *,
        algorithm: str,
        env_id: str,
        manifest: Path,
    ) -> None:
        self.learner = learner
        self._run_dir, self._seed = context.run_dir, context.seed
        self._settings = {
            "seed": context.seed,
            "config": context.config.model_dump(mode="json"),
            "params": params.model_dump(mode="json"),
        }
        frames, reads_maps = learner.demonstrations, learner.spec.kind == "conflict_aware"
        own = Lineage(
            demonstrations=str(manifest),
            demonstrations_sha256=sha256_of(manifest),
            training_seeds=seed_ranges(frames.seeds),
        )
        self._info = CheckpointInfo(
            algorithm=algorithm,
            env_id=env_id,
            feature_names=frames.feature_names,
            action_names=frames.action_names,
            action_bounds=bounds_of(frames),
            map_channels=frames.map_channels if reads_maps else (),
            map_size=learner.spec.map_shape[-1],
            network=learner.spec.to_document(),
            lineage=own if context.start is None else continued_lineage(own, context.start),
            config_hash=context.config_hash,
            versions=versions(),
        )
        self.warnings = self._begin(context)

    def save(self) -> Path:
        """Write the run as it is to checkpoint_<timestep>.zip."""
        learner = self.learner
        path = self._run_dir / f"checkpoint_{learner.timestep}.zip"
        state = learner.counters() | self._settings
        checkpoint = Checkpoint(
            self._info, learner.weights, state, learner.optimiser_state(), learner.best_weights()
        )
        save_checkpoint(path, checkpoint)
        logger.debug("saved %s in epoch %d", path, learner.epoch)
        return path

    def save_model(self) -> Path:
        """Write the best clone, and nothing that training would need, to the run's model file."""
        path, best = model_path(self._run_dir, self._info.algorithm, self._seed), self.learner.best
        state = {"epoch": best.epoch, "timestep": best.timestep, "seed": self._seed}
        save_checkpoint(path, Checkpoint(self._info, best.weights, state))
        return path

    def _begin(self, context: TrainingContext) -> tuple[str, ...]:
        """Go on where a checkpoint was saved, or with what its optimiser knows; what is to be told of that.

        Raises:
            CheckpointError: it holds no training, or that of other demonstrations.
        """
        start = context.start
        if start is None:
            return ()
        saved = start.checkpoint
        if start.fork:
            if saved.optimizer is not None and saved.info.algorithm == self._info.algorithm:
                self.learner.adopt(saved.optimizer)
            return ()
        training = training_of(start, self._info.lineage)
        if saved.optimizer is None:
            raise no_training(start)
        self.learner.restore(saved.state, saved.optimizer, training)
        logger.info("going on from %s, frame %d", start.path, self.learner.timestep)
        before, now = saved.state["params"]["device"], self.learner.settings.device
        return () if before == now else (moved(before, now),)
