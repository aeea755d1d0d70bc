"""PPO with the map-and-features network in a real town: what it is asked once, and where its weights lie."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from townlet_train.config.town import TownConfig  # noqa: E402
from townlet_train.envs.town import TownVectorEnv  # noqa: E402
from townlet_train.learners.conflict_aware import ConflictAwareActorCritic  # noqa: E402
from townlet_train.learners.networks import (  # noqa: E402
    build_network,
    export_weights,
    network_for_env,
)
from townlet_train.learners.ppo import PPOLearner  # noqa: E402
from townlet_train.learners.rollouts import RolloutCollector, evaluated  # noqa: E402
from townlet_train.strategies.ppo import PPOParams  # noqa: E402

N_STEPS, SETTINGS = 6, PPOParams(batch_size=64, n_epochs=2, learning_rate=1e-2)


def learner_and_collector() -> tuple[PPOLearner, RolloutCollector]:
    """Two towns of six at their first observation."""
    env, rng = TownVectorEnv(TownConfig(), 2), np.random.default_rng(5)
    spec = network_for_env(env.spec, "conflict_aware", (16,))
    learner = PPOLearner(spec, SETTINGS, rng)
    return learner, RolloutCollector(env, spec, n_steps=N_STEPS, seeds=np.arange(2), rng=rng)


def test_values_and_log_probs_kept_while_acting_are_what_the_network_says_of_the_rollout() -> None:
    learner, collector = learner_and_collector()
    actor = learner.actor_critic
    assert isinstance(actor, ConflictAwareActorCritic)
    for n_ticks in (N_STEPS, N_STEPS - 2):  # the second is cut short, as a run's last rollout may be
        collector.advance(actor, n_ticks)
        rollout = evaluated(collector.finish()[0], actor)
        n = rollout.rewards.size
        assert rollout.maps is not None
        assert rollout.illegal is not None
        maps = rollout.maps.reshape(n, *rollout.maps.shape[3:])
        outputs, values = actor.evaluate(rollout.features.reshape(n, -1), maps)
        np.testing.assert_allclose(rollout.values[:-1].ravel(), values, rtol=1e-4, atol=1e-5)
        distribution = actor.distribution(outputs, rollout.illegal.reshape(n, -1).T)
        expected = distribution.log_probs(rollout.actions.ravel())
        np.testing.assert_allclose(rollout.log_probs.ravel(), expected, rtol=1e-4, atol=1e-5)
        learner.update(rollout, 0.0)


def test_weights_are_exported_under_their_names_wherever_they_lie() -> None:
    learner, _ = learner_and_collector()
    expected = export_weights(build_network(learner.spec, np.random.default_rng(5)))
    assert expected["map_encoder.1.weight"].shape == (16, 484)
    for name, array in learner.weights.items():
        assert array.flags.c_contiguous
        np.testing.assert_array_equal(array, expected[name])


def test_the_same_seed_learns_the_same_bits() -> None:
    weights = []
    for _ in range(2):
        learner, collector = learner_and_collector()
        for _ in range(2):
            collector.advance(learner.actor_critic, N_STEPS)
            learner.learn(collector.finish()[0], 0.0)
        weights.append({name: array.tobytes() for name, array in learner.weights.items()})
    assert weights[0] == weights[1]
