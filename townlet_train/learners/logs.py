"""What a run that acts writes to its log: its setup, every episode, and where it is whenever it saves.

Nothing is logged while the environment is stepped; episodes are told when their rollout is whole.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence

import numpy as np

from townlet_train.contract import PROGRESS_LOG
from townlet_train.data.checkpoint import Arrays
from townlet_train.envs.protocol import VectorEnv
from townlet_train.learners.params import OnPolicyParams
from townlet_train.learners.rollouts import Episode
from townlet_train.policies.network import NetworkSpec

logger = logging.getLogger(__name__)
progress_logger = logging.getLogger(PROGRESS_LOG)


def log_setup(env: VectorEnv, network: NetworkSpec, weights: Arrays, params: OnPolicyParams) -> None:
    """What is trained, where, and how."""
    spec = env.spec
    actions = ", ".join(spec.action_names) or f"{len(spec.action_low)} real numbers"
    logger.debug(
        "environment %s: %d side by side, %d agents each, %d features, maps %s, actions %s, reward threshold %s",
        spec.env_id, env.n_envs, env.n_agents, len(spec.feature_names), spec.map_shape, actions, spec.reward_threshold,
    )  # fmt: skip
    shapes = ", ".join(f"{name} {'x'.join(map(str, array.shape))}" for name, array in weights.items())
    n_weights = sum(np.size(array) for array in weights.values())
    logger.debug("network %s", network.to_document())
    logger.debug("%d weights: %s", n_weights, shapes)
    logger.debug("params %s", params.model_dump(mode="json"))


def log_episodes(episodes: Sequence[Episode], n_before: int) -> None:
    """A line for each episode that ended, numbered on from those before; one record, since each costs some time."""
    if episodes and logger.isEnabledFor(logging.DEBUG):
        lines = (
            f"  step {timestep}: episode {number}, reward {episode_return:.6g}, {length} ticks"
            for number, (timestep, episode_return, length) in enumerate(episodes, n_before + 1)
        )
        logger.debug("%d episodes ended\n%s", len(episodes), "\n".join(lines))


def log_save(algorithm: str, timestep: int, total: int, shown: Mapping[str, float]) -> None:
    """Where the run is, before it saves a checkpoint."""
    numbers = "".join(f" {name}={value:.5g}" for name, value in shown.items() if not math.isnan(value))
    progress_logger.info(
        "%s %d/%d%s, saving checkpoint_%d.zip", algorithm, min(timestep, total), total, numbers, timestep
    )
