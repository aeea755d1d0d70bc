"""All that the rest of a run depends on, as it moves: what a checkpoint holds, and how a run goes on from one."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from townlet_train.api import (
    Checkpoint,
    CheckpointError,
    Demonstrations,
    Lineage,
    NetworkPolicy,
    NetworkSpec,
    StartingPoint,
    TrainingContext,
    VectorEnv,
    build_expert,
    save_checkpoint,
    seed_ranges,
    sha256_of,
)
from townlet_train.learners.assembly import continued_lineage, describe
from townlet_train.learners.bc import BCLearner, BCSettings
from townlet_train.learners.imitation import check_choices
from townlet_train.learners.networks import build_network, export_weights, network_for_env
from townlet_train.learners.run_state import below, cannot_be_resumed, training_of, under
from townlet_train_dagger.aggregate import Aggregate, Arrays
from townlet_train_dagger.driving import Driver
from townlet_train_dagger.strategy import DAggerParams

AGGREGATE, DRIVER = "aggregate", "driver"
logger = logging.getLogger(__name__)


class Tally(NamedTuple):
    """What an iteration's playing came to."""

    n_labels: int
    by_learner: int  # agent-ticks that the learner drove
    agreement: (
        float | None
    )  # share of them all in which it would have done as the expert; None: there was none

    def line(self) -> dict[str, Any]:
        """What a line of metrics.jsonl says of it."""
        return {
            "labels": self.n_labels,
            "learner_share": self.by_learner / self.n_labels,
            "agreement": self.agreement,
        }


@dataclass(frozen=True)
class Learned:
    """What an iteration's learning came to, at the end of the epoch with the lowest held-out loss."""

    loss: float  # mean cross-entropy of the training labels as they were met, in the last epoch
    val_loss: float
    val_accuracy: float
    val_accuracy_unforced: float
    n_train: int
    n_val: int

    def line(self) -> dict[str, Any]:
        """What a line of metrics.jsonl says of it."""
        return asdict(self)


class RunState:
    """Policy, aggregate, environments and counters; what is random in an iteration is spawned for it alone."""

    warnings: tuple[str, ...] = ()

    def __init__(
        self, context: TrainingContext, params: DAggerParams, env: VectorEnv, algorithm: str
    ) -> None:
        self._context, self._params, self._env, self._algorithm = context, params, env, algorithm
        start, spec = context.start, env.spec
        fresh, *self._rngs = context.rng.spawn(2 + params.n_iterations)  # a clone's, then one an iteration
        self._network = (
            network_for_env(spec, params.network, params.hidden_sizes, normalised=True)
            if start is None
            else _network_of(start, env)
        )
        self._handed_in = start is not None and (start.fork or bool(start.checkpoint.state["handed_in"]))
        reads_maps = self._network.kind == "conflict_aware"
        demonstrated = self._demonstrations(with_maps=reads_maps)
        n_demonstrated = 0 if demonstrated is None else len(demonstrated)
        self._aggregate = Aggregate(spec, n_demonstrated + params.timesteps, with_maps=reads_maps)
        n_episodes = (
            0
            if demonstrated is None
            else self._aggregate.begin(demonstrated, may_hold_out=not self._handed_in)
        )
        self._info = describe(
            algorithm,
            self._network,
            spec,
            self._lineage(start, demonstrated),
            config_hash=context.config_hash,
        )
        expert = build_expert(spec, context.services.experts)
        self._driver = Driver(env, expert, self._aggregate, seed=context.seed, first=n_episodes)
        self.iteration = 0
        self._by_learner, self._agreement = 0, list[float | None]()
        self._learned: Learned | None = None
        if start is None:
            self._weights: Mapping[str, Any] = export_weights(build_network(self._network, fresh))
        else:
            self._weights = start.checkpoint.weights
            if not start.fork:
                self._restore(start)
        logger.info(
            "The aggregate takes %.1f MB: %d labels demonstrated, room for %d more.",
            *(self._aggregate.n_bytes / 1e6, n_demonstrated, params.timesteps),
        )

    @property
    def timestep(self) -> int:
        """Agent-ticks played and labelled."""
        return len(self._aggregate) - self._aggregate.n_demonstrated

    @property
    def has_policy(self) -> bool:
        """Whether the weights have learned something."""
        return self._handed_in or self._learned is not None

    @property
    def needs_clone(self) -> bool:
        """Whether there are demonstrations that nothing has been learned from yet."""
        return not self.has_policy and self._aggregate.n_demonstrated > 0

    @property
    def beta(self) -> float:
        """Probability that the expert drives an agent-tick of this iteration.

        The first iteration of the paper, which the expert drives alone, is done where there was a policy or a
        demonstration to begin with.
        """
        begun = self._handed_in or self._aggregate.n_demonstrated > 0
        return float(self._params.beta ** (self.iteration + begun))

    @property
    def resumable(self) -> bool:
        """Whether checkpoints hold all that the same run needs."""
        return not self.warnings

    def play(self, on_tick: Callable[[], None]) -> Tally:
        """The ticks of this iteration, labelled; `on_tick` may raise, and the iteration is to begin again then."""
        p, n_slots = self._params, self._driver.n_slots
        n_ticks = p.ticks_by(self.iteration + 1, n_slots) - p.ticks_by(self.iteration, n_slots)
        learner = NetworkPolicy(self._checkpoint({}, None)) if self.has_policy else None
        drive = self._driver.advance(learner, self.beta, n_ticks, self._rngs[1 + self.iteration], on_tick)
        n_labels = n_ticks * n_slots
        agreement = None if drive.agreed is None else drive.agreed / n_labels
        return Tally(n_labels, drive.by_learner, agreement)

    def learn(self, on_progress: Callable[[], None]) -> Learned:
        """Go on from the weights by cloning the whole aggregate."""
        p, frames, split = self._params, self._aggregate.frames(), self._aggregate.split()
        check_choices(frames, split)
        rng = self._rngs[1 + self.iteration if self.timestep else 0]
        learner = BCLearner(
            self._network,
            BCSettings(p.learning_rate, p.batch_size, p.n_epochs, p.weight_decay, p.device),
            frames,
            split,
            rng,
            weights=self._weights if self.has_policy else None,
            fits_normaliser=not self._handed_in,  # whoever handed it in has its own use for it
        )
        stats = [learner.train_epoch(on_progress) for _ in range(p.n_epochs)]
        held_out = learner.best.held_out
        assert held_out.accuracy is not None  # of indices, as all labels are
        assert held_out.accuracy_unforced is not None
        self._weights = learner.best.weights
        self._learned = Learned(
            loss=stats[-1].loss,
            val_loss=held_out.loss,
            val_accuracy=held_out.accuracy,
            val_accuracy_unforced=held_out.accuracy_unforced,
            n_train=len(learner.train),
            n_val=len(learner.val),
        )
        return self._learned

    def finish_iteration(self, tally: Tally) -> None:
        """Count what was played and learned from."""
        self.iteration += 1
        self._by_learner += tally.by_learner
        self._agreement.append(tally.agreement)

    def save(self) -> Path:
        """Write the run as it is to checkpoint_<timestep>.zip."""
        path = self._context.run_dir / f"checkpoint_{self.timestep}.zip"
        save_checkpoint(path, self._checkpoint(self._counters(), self._training()))
        return path

    def save_model(self) -> Path:
        """Write the policy, and nothing that training would need, to the run's model file."""
        path = self._context.run_dir / f"{self._algorithm}_seed{self._context.seed}_model.zip"
        save_checkpoint(path, self._checkpoint(self._counters(), None))
        return path

    def facts(self) -> dict[str, Any]:
        """What the result says of the run."""
        assert self._learned is not None  # there is at least one iteration
        return {
            **self._learned.line(),
            "steps": self.timestep,
            "iterations": self.iteration,
            "learner_share": self._by_learner / self.timestep,
            "agreement": tuple(self._agreement),
            "n_demonstrated": self._aggregate.n_demonstrated,
            "aggregate_bytes": self._aggregate.n_bytes,
        }

    def _checkpoint(self, state: Mapping[str, Any], training: Arrays | None) -> Checkpoint:
        return Checkpoint(self._info, self._weights, state, training=training)

    def _counters(self) -> dict[str, Any]:
        """All that is no array."""
        return {
            "timestep": self.timestep,
            "recorded": self.timestep,  # a line follows every iteration
            "iteration": self.iteration,
            "handed_in": self._handed_in,
            "by_learner": self._by_learner,
            "agreement": self._agreement,
            "learned": None if self._learned is None else asdict(self._learned),
            "seed": self._context.seed,
            "config": self._context.config.model_dump(mode="json"),
            "params": self._params.model_dump(mode="json"),
        }

    def _training(self) -> Arrays | None:
        """What only the same run can use; None where an environment does not give its state away."""
        try:
            driver = self._driver.state()
        except CheckpointError as error:
            if self.resumable:
                self.warnings = (cannot_be_resumed("the policy", error),)
                logger.warning("%s", self.warnings[0])
            return None
        return under(AGGREGATE, self._aggregate.state()) | under(DRIVER, driver)

    def _restore(self, start: StartingPoint) -> None:
        state, training = start.checkpoint.state, training_of(start, self._info.lineage)
        self._aggregate.restore(below(AGGREGATE, training))
        self._driver.restore(below(DRIVER, training))
        self.iteration, self._by_learner = state["iteration"], state["by_learner"]
        self._agreement = list(state["agreement"])
        self._learned = None if state["learned"] is None else Learned(**state["learned"])
        logger.info("going on from %s, step %d", start.path, self.timestep)

    def _demonstrations(self, *, with_maps: bool) -> Demonstrations | None:
        """The manifest's frames, actions numbered as the environment does; None without one."""
        if self._params.manifest is None:
            return None
        spec = self._env.spec
        return self._context.services.replay.load(
            self._params.manifest,
            with_maps=with_maps,
            feature_names=spec.feature_names,
            action_names=spec.action_names,
        )

    def _lineage(self, start: StartingPoint | None, demonstrated: Demonstrations | None) -> Lineage:
        """Where the policy comes from."""
        seeds = range(self._context.seed, self._context.seed + self._env.n_envs)
        shown = () if demonstrated is None else demonstrated.seeds
        named = self._params.manifest
        manifest = None if named is None else self._context.services.replay.resolve_manifest(named)
        own = Lineage(
            demonstrations=None if manifest is None else str(manifest),
            demonstrations_sha256=None if manifest is None else sha256_of(manifest),
            training_seeds=seed_ranges([*seeds, *shown]),
        )
        return own if start is None else continued_lineage(own, start)


def _network_of(start: StartingPoint, env: VectorEnv) -> NetworkSpec:
    """The network of the checkpoint to begin with, whatever the params say of one from nothing.

    Raises:
        CheckpointError: it reads and does other things than `env` has.
    """
    start.checkpoint.info.check_matches(env.spec)
    return NetworkSpec.from_document(start.checkpoint.info.network)
