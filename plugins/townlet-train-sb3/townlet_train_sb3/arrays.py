"""Arrays by name, here and in Stable-Baselines3: an MLP's layers are called the same, what is around them is not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from townlet_train.api import Checkpoint, NetworkSpec

Arrays = Mapping[str, NDArray[Any]]
UNCLIPPED = 1e9  # what cuts nothing off
MEAN, STD = "normaliser.mean", "normaliser.std"
SHARED, ACTOR, CRITIC = "mlp_extractor.shared_net", "mlp_extractor.policy_net", "mlp_extractor.value_net"


def checkpoint_arrays(spec: NetworkSpec, arrays: Arrays) -> dict[str, NDArray[np.float32]]:
    """The arrays of a checkpoint with that network, from those of Stable-Baselines3's policy; features as they are."""
    identity = {MEAN: np.zeros(spec.n_features), STD: np.ones(spec.n_features)}
    chosen = identity | {name: arrays[name] for name in spec.parameter_shapes()}
    return {name: np.array(array, np.float32) for name, array in chosen.items()}


def sb3_arrays(spec: NetworkSpec, checkpoint: Checkpoint) -> dict[str, NDArray[np.float32]]:
    """A checkpoint's layers as actor and critic of Stable-Baselines3, which share none: both get a shared trunk."""
    weights = {name: checkpoint.weights[name] for name in spec.parameter_shapes()}
    for name in [name for name in weights if name.startswith(SHARED)]:
        layer = weights.pop(name)
        weights |= {name.replace(SHARED, trunk): layer for trunk in (ACTOR, CRITIC)}
    return {name: np.array(array, np.float32) for name, array in weights.items()}


def standardises(spec: NetworkSpec, checkpoint: Checkpoint) -> bool:
    """Whether features reach a checkpoint's network otherwise than they are shown."""
    mean, std = checkpoint.weights[MEAN], checkpoint.weights[STD]
    return bool(mean.any() or (std != 1).any() or spec.feature_clip < UNCLIPPED)
