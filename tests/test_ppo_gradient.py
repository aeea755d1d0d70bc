"""PPO's objective: the gradient written out is autograd's, and the losses are what the paper says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.policies import MLP, WITH_MAP, random_weights
from townlet_train.policies.network import LOG_STD, Activation, NetworkSpec, compute_logits, sample_gaussian

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from townlet_train.learners.actor_critic import (  # noqa: E402
    WORTH_TWO_LANES,
    AutogradActorCritic,
    MlpActorCritic,
    parameter_order,
)
from townlet_train.learners.networks import FlatParameters, build_network  # noqa: E402
from townlet_train.learners.surrogate import Objective, Transitions, normalised  # noqa: E402

GAUSSIAN = replace(MLP, distribution="gaussian")
PLAIN = Objective(clip_range=0.2, clip_range_vf=None, ent_coef=0.0, vf_coef=0.5, normalize_advantage=True)
OBJECTIVES = [
    PLAIN,
    PLAIN._replace(ent_coef=0.02, normalize_advantage=False),
    PLAIN._replace(clip_range_vf=0.3, vf_coef=1.5),
]


class Pair:
    """One set of weights behind both ways to a gradient."""

    def __init__(self, spec: NetworkSpec) -> None:
        self.spec = spec
        network = build_network(spec, np.random.default_rng(0))
        weights = random_weights(spec)
        if spec.distribution == "gaussian":
            weights[LOG_STD] = np.float32([-0.5, 0.0, 0.3])
        network.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})
        self.parameters = FlatParameters(network, parameter_order(spec))
        self.by_autograd = AutogradActorCritic(network, self.parameters)

    def batch(self, n: int, *, masked: bool = True, seed: int = 1) -> Transitions:
        """Transitions of a slightly other policy, so that some ratios are clipped."""
        rng, spec = np.random.default_rng(seed), self.spec
        features = rng.normal(size=(n, spec.n_features)).astype(np.float32)
        maps = rng.integers(2, size=(n, *spec.map_shape), dtype=np.uint8)
        illegal = rng.random((spec.n_actions, n)) < 0.3
        illegal[0] = False
        categorical = spec.distribution == "categorical"
        shown = illegal if masked and categorical else None
        outputs, values = self.by_autograd.evaluate(features, maps)
        distribution = self.by_autograd.distribution(outputs, shown)
        legal = ~illegal if masked else np.ones_like(illegal)
        chosen = np.array([rng.choice(np.flatnonzero(row)) for row in legal.T])
        actions: Any = chosen if categorical else rng.normal(size=(n, spec.n_actions)).astype(np.float32)

        def noise(scale: float) -> Any:
            return rng.normal(scale=scale, size=n).astype(np.float32)

        return Transitions(
            features,
            maps if spec.kind == "conflict_aware" else None,
            shown,
            actions,
            log_probs=distribution.log_probs(actions) + noise(0.3),
            values=values + noise(0.4),
            advantages=noise(2.0) + 1,
            returns=values + noise(1.0),
        )


@pytest.mark.parametrize("objective", OBJECTIVES, ids=["plain", "entropy", "value clip"])
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("n", [2, 64])
@pytest.mark.parametrize(
    "spec",
    [MLP, GAUSSIAN, replace(MLP, activation="relu", hidden_sizes=(6,)), replace(MLP, hidden_sizes=(5, 7, 3))],
    ids=["tanh", "gaussian", "relu", "deep"],
)
def test_the_written_out_gradient_is_autograds(
    spec: NetworkSpec, n: int, masked: bool, objective: Objective
) -> None:
    pair = Pair(spec)
    batch = pair.batch(n, masked=masked)
    losses = MlpActorCritic(spec, pair.parameters).gradient(batch, objective)
    written_out = pair.parameters.gradient.numpy().copy()
    reference = pair.by_autograd.gradient(batch, objective)
    by_autograd = pair.parameters.gradient.numpy()
    np.testing.assert_allclose(losses, reference, rtol=1e-4, atol=1e-5)
    largest = float(np.abs(by_autograd).max())
    assert largest > 1e-3
    np.testing.assert_allclose(written_out, by_autograd, atol=1e-5 * max(1.0, largest))


@pytest.mark.parametrize("objective", OBJECTIVES, ids=["plain", "entropy", "value clip"])
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_two_threads_find_the_gradient_of_a_large_batch(
    activation: Activation, masked: bool, objective: Objective
) -> None:
    pair = Pair(replace(MLP, hidden_sizes=(120, 50), activation=activation))
    batch = pair.batch(2900, masked=masked)
    assert 2900 * pair.parameters.vector.numel() > WORTH_TWO_LANES
    losses = MlpActorCritic(pair.spec, pair.parameters).gradient(batch, objective)
    found = pair.parameters.gradient.numpy().copy()
    reference = pair.by_autograd.gradient(batch, objective)
    np.testing.assert_allclose(losses, reference, rtol=1e-4, atol=1e-5)
    largest = float(pair.parameters.gradient.abs().max())
    np.testing.assert_allclose(found, pair.parameters.gradient.numpy(), atol=1e-5 * largest)


@pytest.mark.parametrize("spec", [MLP, GAUSSIAN], ids=["categorical", "gaussian"])
def test_both_ways_put_out_the_same_and_what_the_checkpoint_will(spec: NetworkSpec) -> None:
    pair = Pair(spec)
    written_out = MlpActorCritic(spec, pair.parameters)
    features = pair.batch(7).features
    outputs, values = written_out.evaluate(features)
    expected, expected_values = pair.by_autograd.evaluate(features, None)
    np.testing.assert_allclose(outputs, expected, atol=1e-5)
    np.testing.assert_allclose(values, expected_values, atol=1e-5)
    np.testing.assert_allclose(written_out.outputs(features), expected.T, atol=1e-5)
    weights = random_weights(spec) | {"normaliser.mean": np.zeros(5, np.float32)}
    weights |= {"normaliser.std": np.ones(5, np.float32)}
    maps = np.zeros((7, 0, 0, 0), np.uint8)
    np.testing.assert_allclose(compute_logits(spec, weights, features, maps), expected.T, atol=1e-4)


def test_a_network_with_maps_learns_by_autograd() -> None:
    pair = Pair(WITH_MAP)
    batch = pair.batch(16)
    losses = pair.by_autograd.gradient(batch, PLAIN)
    assert np.isfinite(losses).all()
    assert all(gradient.any() for gradient in pair.parameters.gradients.values())


def test_losses_of_one_transition_worked_out_by_hand() -> None:
    """Equal logits of three actions, one of them illegal: p = 1/2, so the ratio is 1/2 over e^-1."""
    pair = Pair(MLP)
    pair.parameters.vector.zero_()
    batch = pair.batch(1)._replace(
        illegal=np.array([[False], [False], [True]]),
        actions=np.array([1]),
        log_probs=np.float32([-1.0]),
        advantages=np.float32([2.0]),
        returns=np.float32([3.0]),
    )
    losses = MlpActorCritic(MLP, pair.parameters).gradient(batch, PLAIN._replace(ent_coef=0.1))
    ratio = 0.5 * np.e
    assert losses.policy_loss == pytest.approx(-1.2 * 2.0)
    assert losses.value_loss == pytest.approx(9.0)
    assert losses.entropy == pytest.approx(np.log(2))
    assert losses.loss == pytest.approx(-2.4 + 0.5 * 9.0 - 0.1 * np.log(2))
    assert losses.approx_kl == pytest.approx(ratio - 1 - np.log(ratio), abs=1e-6)
    assert losses.clip_fraction == 1.0


def test_advantages_are_normalised_as_a_sample_and_one_is_left_alone() -> None:
    np.testing.assert_allclose(normalised(np.float32([1, 2, 3])), [-1, 0, 1], atol=1e-6)
    assert normalised(np.float32([5])).tolist() == [5]


def test_a_gaussian_sample_sits_at_its_draws_quantile() -> None:
    mean, log_std = np.float32([[[1.0, -2.0]]]), np.float32([0.0, np.log(2)])
    draws = np.array([[[0.5, 0.8413447]]])
    np.testing.assert_allclose(sample_gaussian(mean, log_std, draws), [[[1.0, 0.0]]], atol=1e-5)
    assert np.isfinite(sample_gaussian(mean, log_std, np.array([[[0.0, 1.0]]]))).all()
