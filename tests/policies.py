"""Small networks, checkpoints and demonstrations for the tests of training and evaluation; none of it needs torch."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from townlet_train.data.checkpoint import Checkpoint, CheckpointInfo, Lineage, bounds_of
from townlet_train.data.dataset import Demonstrations
from townlet_train.envs.protocol import EnvSpec
from townlet_train.policies.network import FEATURE_MEAN, FEATURE_STD, NetworkSpec

MLP = NetworkSpec("mlp", n_features=5, n_actions=3, hidden_sizes=(8, 4))
SHARED = NetworkSpec("mlp", 5, 3, hidden_sizes=(8, 4), shared_trunk=True)
WITH_MAP = NetworkSpec("conflict_aware", 5, 3, hidden_sizes=(6,), activation="relu", map_shape=(2, 3, 3))
ACTIONS = ("wait", "north", "chat")


def random_weights(spec: NetworkSpec, seed: int = 0) -> dict[str, NDArray[np.float32]]:
    """Arrays of the right names and shapes, large enough that actions differ."""
    rng = np.random.default_rng(seed)
    shapes = spec.parameter_shapes() | {FEATURE_MEAN: (spec.n_features,), FEATURE_STD: (spec.n_features,)}
    weights = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    weights[FEATURE_STD] = np.abs(weights[FEATURE_STD]) + 0.5
    return weights


def small_checkpoint(spec: NetworkSpec, env: EnvSpec, *, seed: int = 0, **lineage: Any) -> Checkpoint:
    """A checkpoint of random weights for an environment."""
    info = CheckpointInfo(
        algorithm="bc",
        env_id=env.env_id,
        feature_names=env.feature_names,
        action_names=env.action_names,
        map_channels=env.map_channels if spec.kind == "conflict_aware" else (),
        map_size=env.map_size if spec.kind == "conflict_aware" else 0,
        action_bounds=bounds_of(env),
        network=spec.to_document(),
        lineage=Lineage(**lineage),
    )
    return Checkpoint(info, random_weights(spec, seed), {"timestep": 12})


def rule_demonstrations(n_episodes: int = 8, n_frames: int = 400, *, seed: int = 3) -> Demonstrations:
    """Episodes of a demonstrator with a simple rule on two features, which any network here can learn.

    It goes north when feature 0 is positive and that is legal, else chats when feature 1 is, else waits. Feature 4
    never changes; the first frame of every hundred leaves nothing but to wait.
    """
    rng = np.random.default_rng(seed)
    n = n_episodes * n_frames
    features = rng.normal(size=(n, 5)).astype(np.float32) * np.float32([1, 1, 30, 0.1, 0]) + np.float32(
        [0, 0, 5, 0, 2]
    )
    mask = np.ones((n, 3), np.bool_)
    mask[:, 1] = rng.random(n) < 0.8
    mask[::100, 1:] = False
    actions = np.where(
        (features[:, 0] > 0) & mask[:, 1], 1, np.where((features[:, 1] > 0) & mask[:, 2], 2, 0)
    )
    return Demonstrations(
        features=features,
        maps=(rng.random((n, 2, 3, 3)) < 0.2).astype(np.uint8),
        actions=actions.astype(np.int64),
        action_mask=mask,
        episode=np.repeat(np.arange(n_episodes), n_frames),
        feature_names=("a", "b", "c", "d", "constant"),
        action_names=ACTIONS,
        map_channels=("self", "others"),
        seeds=tuple(range(100, 100 + n_episodes)),
        label="rule",
    )
