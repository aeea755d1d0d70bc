"""All that the rest of a run depends on, as it moves: what a checkpoint holds, and how a run goes on from one."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Generic

import numpy as np

from townlet_train.contract import StartingPoint
from townlet_train.data.checkpoint import Arrays, Checkpoint, Lineage
from townlet_train.data.checkpoint import below as below
from townlet_train.data.checkpoint import under as under
from townlet_train.errors import CheckpointError, InexactStateError
from townlet_train.learners.assembly import Parts
from townlet_train.learners.curve import TrainingCurve
from townlet_train.learners.networks import with_own_critic
from townlet_train.learners.roles import Stats
from townlet_train.learners.telemetry import EventTally
from townlet_train.policies.network import FEATURE_MEAN, FEATURE_STD, NetworkSpec

logger = logging.getLogger(__name__)


class RunState(Generic[Stats]):
    """A run's parts, its curve and its counters; `settings` are kept in every checkpoint beside them."""

    def __init__(
        self,
        parts: Parts[Stats],
        curve: TrainingCurve,
        rng: np.random.Generator,
        settings: Mapping[str, Any],
    ) -> None:
        self.parts, self.curve = parts, curve
        self.events = EventTally(parts.env.event_counts if parts.plays else dict)
        self.rollouts = 0
        self._moved_from: str | None = None  # the device of the checkpoint, when it was another
        self.kept_back: InexactStateError | None = None  # why the environments' state is in no checkpoint
        self._rng, self._settings = rng, dict(settings)

    @property
    def timestep(self) -> int:
        """Steps of all slots."""
        return self.parts.source.timestep

    def begin(self, start: StartingPoint | None) -> None:
        """Go on where a checkpoint was saved, or begin with its policy, if there is one."""
        if start is not None and start.fork:
            self._adopt(start)
        elif start is not None:
            self._restore(start)

    def checkpoint(self) -> Checkpoint:
        """Copies of everything."""
        parts = self.parts
        state = {
            "timestep": self.timestep,
            "slots": parts.source.n_slots,
            "unlearned": parts.source.filled,
            "updates": parts.learner.n_updates,
            "rollouts": self.rollouts,
            "recorded": self.curve.told,
            **parts.placement._asdict(),
            "rng": self._rng.bit_generator.state,
        }
        weights, learner = parts.learner.weights, parts.learner.state()
        return Checkpoint(parts.info, weights, state | self._settings, learner, self._training())

    @property
    def resumable(self) -> bool:
        """Whether checkpoints hold all that the same run needs."""
        return self.kept_back is None

    def warnings(self) -> tuple[str, ...]:
        """What whoever reads the run's result must know."""
        found: list[str] = []
        device, restores = self.parts.placement.device, self.parts.learner.restores
        if self._moved_from is not None:
            found.append(moved(self._moved_from, device))
        if restores:
            found.append(
                f"Returns to the last good weights, each with half the learning rate from then on: {restores}."
            )
        if self.kept_back is not None:
            found.append(cannot_be_resumed("the policy and its optimiser", self.kept_back))
        return tuple(found)

    def _training(self) -> Arrays | None:
        """What only the same run can use; None where an environment does not give its state away."""
        if self.kept_back is not None:
            return None
        parts = self.parts
        try:
            training = under("collector", parts.source.state()) | under("curve", self.curve.state())
        except InexactStateError as error:
            self.kept_back = error
            logger.warning("%s", self.warnings()[-1])
            return None
        training |= under("events", self.events.state())
        return training if parts.beside is None else training | under("beside", parts.beside.state())

    def _restore(self, start: StartingPoint) -> None:
        saved, parts = start.checkpoint, self.parts
        training = training_of(start, parts.info.lineage)
        if saved.optimizer is None:
            raise no_training(start)
        if saved.info.lineage.reference_sha256 != parts.info.lineage.reference_sha256:
            raise CheckpointError(
                f"{start.path} stayed near a policy whose file holds another one now. Put that one back, "
                f"or begin a new run by --fork."
            )
        parts.learner.load_weights(saved.weights)
        parts.learner.restore(saved.optimizer)
        parts.source.restore(below("collector", training))
        self.curve.restore(below("curve", training))
        if parts.beside is not None:
            parts.beside.restore(below("beside", training))
        self.events.restore(below("events", training))
        self.rollouts = saved.state["rollouts"]
        if saved.state["device"] != parts.placement.device:
            self._moved_from = saved.state["device"]
            logger.warning("%s", self.warnings()[0])
        self._rng.bit_generator.state = saved.state["rng"]
        logger.info("going on from %s, step %d", start.path, self.timestep)

    def _adopt(self, start: StartingPoint) -> None:
        """Take over the policy, and what its learner knows where the method is the same."""
        parts, saved = self.parts, start.checkpoint
        network = NetworkSpec.from_document(saved.info.network)
        same_network = network == parts.network
        weights = saved.weights
        if not same_network:
            weights = with_own_critic(network, weights, parts.learner.weights)
            logger.info(
                "the actor of %s keeps the hidden layers it shared, the critic begins anew with its own; param "
                "shared_trunk leaves them shared",
                start.path,
            )
        parts.learner.load_weights(weights)
        same_method = saved.optimizer is not None and saved.info.algorithm == parts.info.algorithm
        parts.learner.adopt(
            saved.optimizer if same_method else None, optimiser=start.optimiser and same_network
        )
        moments = below("collector.moments", saved.training or {})
        parts.source.adopt_normaliser(saved.weights[FEATURE_MEAN], saved.weights[FEATURE_STD], moments)


def training_of(start: StartingPoint, lineage: Lineage) -> Arrays:
    """What a checkpoint holds for the same run alone, whatever the method; `lineage` is that of the run that goes on.

    Raises:
        CheckpointError: it holds none, or was learned from other demonstrations.
    """
    training, learned_from = start.checkpoint.training, start.checkpoint.info.lineage
    if training is None:
        raise no_training(start)
    if learned_from.demonstrations_sha256 != lineage.demonstrations_sha256:
        raise CheckpointError(
            f"{start.path} was learned from {learned_from.demonstrations}, which is another recording now. "
            f"Begin a new run with its policy by --fork."
        )
    return training


def cannot_be_resumed(held: str, why: CheckpointError) -> str:
    """A warning of a run whose environment keeps its state to itself; `held` is what checkpoints hold all the same."""
    return f"This run cannot be resumed: its checkpoints hold {held}, from which a new run begins by --fork. {why}"


def moved(before: str, now: str) -> str:
    """A warning of a run that goes on on another device."""
    return f"The run was on {before} and goes on on {now}, where sums may round otherwise."


def no_training(start: StartingPoint) -> CheckpointError:
    """The refusal of a checkpoint that only a fork can begin with."""
    return CheckpointError(
        f"{start.path} holds a policy and no state of its training. Resume from a checkpoint_<step>.zip, "
        f"or begin a new run with its policy by --fork."
    )
