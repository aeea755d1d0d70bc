"""A policy of ours as a model file of Stable-Baselines3, and what the policy in one puts out."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cloudpickle
import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3 import PPO

from townlet_train.api import Checkpoint, CheckpointError, CheckpointInfo, NetworkSpec
from townlet_train.learners.networks import ACTIVATIONS
from townlet_train_sb3 import extractor
from townlet_train_sb3.arrays import MEAN, STD, sb3_arrays, standardises
from townlet_train_sb3.training import generators_kept


def write(checkpoint: Checkpoint, output: Path) -> None:
    """Write a policy as an untrained PPO model with its weights; the normaliser is the model's features extractor.

    A normaliser cuts features off, which no linear layer could do for it.

    Raises:
        CheckpointError: the policy is no mlp.
    """
    spec = NetworkSpec.from_document(checkpoint.info.network)
    if spec.kind != "mlp":
        raise CheckpointError(
            f"The checkpoint holds a {spec.kind} network, expected an mlp, since Stable-Baselines3's MlpPolicy reads "
            f"no maps. Export it as onnx."
        )
    policy_kwargs: dict[str, Any] = {
        "net_arch": [*spec.hidden_sizes],
        "activation_fn": ACTIVATIONS[spec.activation],
    }
    if standardises(spec, checkpoint):
        policy_kwargs |= {
            "features_extractor_class": extractor.StandardisedFeatures,
            "features_extractor_kwargs": {"clip": spec.feature_clip},
        }
    with generators_kept(), code_carried():
        model = PPO("MlpPolicy", None, policy_kwargs=policy_kwargs, device="cpu", _init_setup_model=False)  # type: ignore[arg-type]  # its own `load` does without an environment, too
        model.observation_space, model.action_space = spaces_of(checkpoint.info, spec)
        model.n_envs = 1
        model._setup_model()
        layers = {
            **sb3_arrays(spec, checkpoint),
            "mean": checkpoint.weights[MEAN],
            "std": checkpoint.weights[STD],
        }
        own = model.policy.state_dict()
        named = {name: name.rpartition(".")[2] if "features_extractor." in name else name for name in own}
        model.policy.load_state_dict({name: torch.from_numpy(layers[ours]) for name, ours in named.items()})
        with output.open("wb") as stream:
            model.save(stream)


def outputs_of(path: Path, features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Unmasked logits or means (n, n_actions) of the policy in a model file, which is unpickled."""
    with path.open("rb") as stream:
        policy = PPO.load(stream, device="cpu").policy
    with torch.no_grad():
        seen = policy.pi_features_extractor(torch.from_numpy(features))
        outputs: NDArray[np.float32] = policy.action_net(policy.mlp_extractor.forward_actor(seen)).numpy()
    return outputs


def spaces_of(info: CheckpointInfo, spec: NetworkSpec) -> tuple[spaces.Space[Any], spaces.Space[Any]]:
    """The environment's own, which `PPO.load(..., env=...)` compares, where it is one of Gymnasium's and of arrays.

    Elsewhere features of any size, and indices or vectors within the bounds that are known.
    """
    any_features = spaces.Box(-np.inf, np.inf, (spec.n_features,), np.float32)
    bounds = info.action_bounds or ((None, None),) * spec.n_actions
    low, high = (
        np.array([end if bound is None else bound for bound in side], np.float32)
        for side, end in zip(zip(*bounds, strict=True), (-math.inf, math.inf), strict=True)
    )
    indices = spec.distribution == "categorical"
    any_actions = spaces.Discrete(spec.n_actions) if indices else spaces.Box(low, high)
    try:
        with warnings.catch_warnings(action="ignore"):
            env = gymnasium.make(info.env_id)
    except Exception:  # whatever keeps it from being built here, the policy is the same
        return any_features, any_actions
    env.close()
    observations, actions = env.observation_space, env.action_space
    fits = isinstance(observations, spaces.Box) and observations.shape == any_features.shape
    same = type(actions) is type(any_actions) and (
        actions == any_actions or actions.shape == (spec.n_actions,)
    )
    return (observations, actions) if fits and same else (any_features, any_actions)


@contextmanager
def code_carried() -> Iterator[None]:
    """The features extractor is saved with its code, so that a file opens where this plugin is not installed."""
    cloudpickle.register_pickle_by_value(extractor)
    try:
        yield
    finally:
        cloudpickle.unregister_pickle_by_value(extractor)
