"""The policy to stay near: a checkpoint that is asked, of everything seen, what it would have done."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from townlet_train.data.checkpoint import Checkpoint, load_checkpoint
from townlet_train.errors import CheckpointError
from townlet_train.learners.actor_critic import parameter_order
from townlet_train.learners.devices import Placement
from townlet_train.learners.learner import build_actor_critic
from townlet_train.learners.networks import FlatParameters, build_network, import_weights
from townlet_train.learners.rollouts import Played, evaluate_pieces
from townlet_train.policies.network import FEATURE_MEAN, FEATURE_STD, NetworkSpec, normalise

Float = NDArray[np.float32]


class ReferencePolicy:
    """A policy whose weights and whose way to standardise features stay as they are."""

    def __init__(self, checkpoint: Checkpoint, placement: Placement) -> None:
        self.spec = NetworkSpec.from_document(checkpoint.info.network)
        network = build_network(self.spec, np.random.default_rng(0)).to(placement.device)
        import_weights(network, checkpoint.weights)
        parameters = FlatParameters(network, parameter_order(self.spec))
        self._actor = build_actor_critic(network, parameters, placement)
        self._mean, self._std = checkpoint.weights[FEATURE_MEAN], checkpoint.weights[FEATURE_STD]

    def check_matches(self, learner: NetworkSpec, source: str) -> None:
        """Raise `CheckpointError` when distances to the learner's policy make no sense."""
        if self.spec.kind == "conflict_aware" and learner.kind == "mlp":
            raise CheckpointError(
                f"{source} reads maps, the policy that is trained does not, so none are kept for it. "
                f"Name a reference without maps, or train with --network conflict_aware."
            )
        for name in ("n_features", "n_actions", "distribution"):
            own, wanted = getattr(self.spec, name), getattr(learner, name)
            if own != wanted:
                raise CheckpointError(
                    f"{source} has {name} {own!r}, the policy that is trained {wanted!r}. "
                    f"Name a reference that was trained in the same environment."
                )

    def parameters(self, played: Played) -> Float:
        """The distributions it would have acted by, (n_parameters, n), of every step played.

        Raises:
            ValueError: nobody kept the features as they were shown.
        """
        if played.observed is None:
            raise ValueError("a reference reads features as they were shown, and they were not kept")
        features = normalise(played.observed, self._mean, self._std, self.spec.feature_clip)
        maps = None if played.maps is None or self.spec.kind == "mlp" else played.maps[:-1]
        outputs, _ = evaluate_pieces(self._actor, features, maps)
        illegal = None if played.illegal is None else played.illegal.reshape(-1, self.spec.n_actions).T
        return self._actor.distribution(outputs, illegal).parameters()


def load_reference(path: Path, learner: NetworkSpec, placement: Placement) -> ReferencePolicy:
    """The policy of a checkpoint, for a learner with such a network.

    Raises:
        CheckpointError: it cannot be read, or sees or does other things than the learner's policy.
    """
    reference = ReferencePolicy(load_checkpoint(path), placement)
    reference.check_matches(learner, str(path))
    return reference
