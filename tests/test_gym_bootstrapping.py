"""What the learners make of episodes' ends: with a perfect critic, no action is ever better than expected."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from numpy.typing import NDArray

from tests.conformance import GAMMA, KnownValues
from townlet_train.envs.autoreset import AdaptedVectorEnv
from townlet_train.envs.gymnasium import GymnasiumVectorEnv
from townlet_train.policies.network import NetworkSpec

pytest.importorskip("torch")
pytestmark = pytest.mark.torch


class PerfectCritic:
    """Reads the value off the observation; acts at random."""

    log_std = None

    def outputs(self, features: NDArray[np.float32], maps: Any) -> NDArray[np.float32]:
        return np.zeros((len(features), 2), np.float32)

    def evaluate(self, features: NDArray[np.float32], maps: Any) -> tuple[Any, Any]:
        return np.zeros((2, len(features)), np.float32), features[:, 0].copy()

    def distribution(self, outputs: Any, illegal: Any) -> Any:
        return SimpleNamespace(log_probs=lambda actions: np.full(len(actions), -np.log(2), np.float32))


@pytest.mark.parametrize("n_steps", [1, 4, 7, 32])
@pytest.mark.parametrize("mode", [None, *AutoresetMode])
def test_with_a_perfect_critic_no_advantage_differs_from_zero(
    mode: AutoresetMode | None, n_steps: int
) -> None:
    from townlet_train.learners.advantages import compute_gae
    from townlet_train.learners.rollouts import RolloutCollector, evaluated

    env = (
        GymnasiumVectorEnv(KnownValues, 3)
        if mode is None
        else AdaptedVectorEnv(SyncVectorEnv([KnownValues] * 3, autoreset_mode=mode))
    )
    spec = NetworkSpec("mlp", 1, 2, (4,))
    actor: Any = PerfectCritic()  # a gradient is never asked for
    rng = np.random.default_rng(0)
    collector = RolloutCollector(env, spec, n_steps=n_steps, seeds=np.array([1, 2, 3]), rng=rng)
    for _ in range(5):
        collector.advance(actor, n_steps)
        rollout = evaluated(collector.finish()[0], actor)
        advantages, returns = compute_gae(
            rollout.rewards,
            rollout.values,
            rollout.terminated,
            rollout.truncated,
            rollout.final_values,
            GAMMA,
            0.95,
        )
        np.testing.assert_allclose(advantages, 0, atol=1e-4)
        np.testing.assert_allclose(returns, rollout.features[..., 0], atol=1e-4)
