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
    ActorCritic,
    MlpActorCritic,
    parameter_order,
)
from townlet_train.learners.autograd import AutogradActorCritic  # noqa: E402
from townlet_train.learners.conflict_aware import ConflictAwareActorCritic  # noqa: E402
from townlet_train.learners.networks import FlatParameters, build_network  # noqa: E402
from townlet_train.learners.rehearsal import Demonstrations, Rehearsal  # noqa: E402
from townlet_train.learners.surrogate import Losses, Objective, Transitions, normalised  # noqa: E402

TOWN_SIZED = replace(WITH_MAP, n_features=31, n_actions=9, hidden_sizes=(64,), map_shape=(3, 7, 7))
GAUSSIAN = replace(MLP, distribution="gaussian")
PLAIN = Objective(clip_range=0.2, clip_range_vf=None, ent_coef=0.0, vf_coef=0.5, normalize_advantage=True)
OBJECTIVES = [
    PLAIN,
    PLAIN._replace(ent_coef=0.02, normalize_advantage=False),
    PLAIN._replace(clip_range_vf=0.3, vf_coef=1.5),
    PLAIN._replace(kl_coef=0.7),
]


class Pair:
    """One set of weights behind both ways to a gradient."""

    def __init__(self, spec: NetworkSpec) -> None:
        self.spec = spec
        network = build_network(spec, np.random.default_rng(0))
        weights = random_weights(spec)
        if spec.distribution == "gaussian":
            weights[LOG_STD] = np.float32([-0.5, 0.0, 0.3])
        if (
            spec is TOWN_SIZED
        ):  # outputs of about 1, as wide layers have them; in the hundreds, rounding alone shows
            weights = {name: array / np.sqrt(max(1, array[0].size)) for name, array in weights.items()}
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
            self.reference(outputs, shown, np.random.default_rng(seed + 1)),
            actions,
            log_probs=distribution.log_probs(actions) + noise(0.3),
            values=values + noise(0.4),
            advantages=noise(2.0) + 1,
            returns=values + noise(1.0),
        )

    def reference(self, outputs: Any, illegal: Any, rng: np.random.Generator) -> Any:
        """Distributions not far from these outputs."""
        noise = rng.normal(scale=0.5, size=outputs.shape).astype(np.float32)
        other = self.by_autograd.distribution(outputs + noise, illegal).parameters().copy()
        if self.spec.distribution == "gaussian":
            other[len(outputs) :] += np.float32(0.2)
        return other


def learned(network: ActorCritic, batch: Transitions, objective: Objective) -> Losses:
    """What a batch measured, taken whole and in order, as the learner takes it; its gradient is where it should be."""
    n = len(batch.returns)
    (found,) = network.lesson(batch).gradients(np.arange(n), n, objective)
    return found.losses


@pytest.mark.parametrize("objective", OBJECTIVES, ids=["plain", "entropy", "value clip", "near a reference"])
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
    reference = learned(pair.by_autograd, batch, objective)
    by_autograd = pair.parameters.gradient.numpy()
    np.testing.assert_allclose(losses, reference, rtol=1e-4, atol=1e-5)
    largest = float(np.abs(by_autograd).max())
    assert largest > 1e-3
    np.testing.assert_allclose(written_out, by_autograd, atol=1e-5 * max(1.0, largest))


@pytest.mark.parametrize("objective", OBJECTIVES, ids=["plain", "entropy", "value clip", "near a reference"])
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
    reference = learned(pair.by_autograd, batch, objective)
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


@pytest.mark.parametrize("objective", OBJECTIVES, ids=["plain", "entropy", "value clip", "near a reference"])
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("n", [2, 64, 777, 2500], ids=["two rows", "one piece", "two pieces", "four pieces"])
@pytest.mark.parametrize("spec", [WITH_MAP, TOWN_SIZED], ids=["small", "as wide as the town's"])
def test_the_written_out_gradient_of_a_network_with_maps_is_autograds(
    spec: NetworkSpec, n: int, masked: bool, objective: Objective
) -> None:
    pair = Pair(spec)
    batch = pair.batch(n, masked=masked)
    written_out = ConflictAwareActorCritic(spec, pair.parameters)
    written_out.gradient(pair.batch(n, seed=7), objective)  # nothing of an earlier batch may stay
    losses = written_out.gradient(batch, objective)
    vector = pair.parameters.gradient.numpy().copy()
    reference = learned(pair.by_autograd, batch, objective)
    by_autograd = pair.parameters.gradient.numpy()
    np.testing.assert_allclose(losses, reference, rtol=1e-4, atol=1e-5)
    assert n == 2 or all(gradient.any() for gradient in pair.parameters.gradients.values())
    largest = float(np.abs(by_autograd).max())
    assert largest > 1e-3
    np.testing.assert_allclose(vector, by_autograd, atol=1e-5 * max(1.0, largest))


@pytest.mark.parametrize("n", [6, 900])
@pytest.mark.parametrize("spec", [MLP, WITH_MAP], ids=["mlp", "with maps"])
def test_the_way_back_from_what_was_put_out_is_autograds_for_the_first_rows(
    spec: NetworkSpec, n: int
) -> None:
    pair, rng = Pair(spec), np.random.default_rng(4)
    batch = pair.batch(n)
    written_out = (MlpActorCritic if spec == MLP else ConflictAwareActorCritic)(spec, pair.parameters)
    of_outputs = rng.normal(size=(spec.n_actions, n - 1)).astype(np.float32)
    of_values = rng.normal(size=n - 1).astype(np.float32)
    gradients = []
    for network in (written_out, pair.by_autograd):
        network.forward(batch.features, batch.maps).backward(of_outputs.copy(), of_values.copy())
        gradients.append(pair.parameters.gradient.numpy().copy())
    np.testing.assert_allclose(*gradients, atol=1e-5 * float(np.abs(gradients[1]).max()))


def test_a_network_with_maps_puts_out_what_its_checkpoint_will_however_many_rows_it_is_given() -> None:
    pair = Pair(WITH_MAP)
    written_out = ConflictAwareActorCritic(WITH_MAP, pair.parameters)
    batch = pair.batch(700)
    outputs, values = written_out.evaluate(batch.features, batch.maps)
    expected, expected_values = pair.by_autograd.evaluate(batch.features, batch.maps)
    np.testing.assert_allclose(outputs, expected, atol=1e-4)
    np.testing.assert_allclose(values, expected_values, atol=1e-4)
    np.testing.assert_allclose(written_out.outputs(batch.features, batch.maps), expected.T, atol=1e-4)
    weights = random_weights(WITH_MAP) | {
        "normaliser.mean": np.zeros(5, np.float32),
        "normaliser.std": np.ones(5, np.float32),
    }
    assert batch.maps is not None
    of_checkpoint = compute_logits(WITH_MAP, weights, batch.features, batch.maps)
    np.testing.assert_allclose(of_checkpoint, expected.T, atol=1e-4)


def test_a_map_cell_counts_as_often_as_its_value_says() -> None:
    pair = Pair(WITH_MAP)
    batch = pair.batch(300)
    maps = np.random.default_rng(2).integers(256, size=(300, *WITH_MAP.map_shape), dtype=np.uint8)
    full = batch._replace(maps=maps)
    losses = ConflictAwareActorCritic(WITH_MAP, pair.parameters).gradient(full, PLAIN)
    written_out = pair.parameters.gradient.numpy().copy()
    np.testing.assert_allclose(losses, learned(pair.by_autograd, full, PLAIN), rtol=1e-4, atol=1e-4)
    by_autograd = pair.parameters.gradient.numpy()
    np.testing.assert_allclose(written_out, by_autograd, atol=1e-5 * float(np.abs(by_autograd).max()))


def test_the_same_batch_gives_the_same_bits_each_time() -> None:
    pair = Pair(TOWN_SIZED)
    batch = pair.batch(3000)
    gradients = []
    for _ in range(3):
        ConflictAwareActorCritic(TOWN_SIZED, pair.parameters).gradient(batch, PLAIN)
        gradients.append(pair.parameters.gradient.numpy().tobytes())
    assert len(set(gradients)) == 1


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


@pytest.mark.parametrize("spec", [MLP, GAUSSIAN, TOWN_SIZED], ids=["mlp", "gaussian", "maps"])
def test_imitation_adds_its_own_gradient_to_what_is_there(spec: NetworkSpec) -> None:
    pair = Pair(spec)
    batch = pair.batch(40)
    written_out = ConflictAwareActorCritic if spec.kind == "conflict_aware" else MlpActorCritic
    actor_critic = written_out(spec, pair.parameters)
    learned(actor_critic, batch, PLAIN)
    before = pair.parameters.gradient.numpy().copy()
    rows = Demonstrations(
        batch.features, batch.maps, None if batch.illegal is None else batch.illegal.T, batch.actions
    )
    drawn = np.random.default_rng(7).integers(40, size=25)
    rehearsal = Rehearsal(rows, actor_critic, pair.parameters.gradient, 0.3, np.random.default_rng(7))
    loss = rehearsal.add(25)
    added = pair.parameters.gradient.numpy() - before

    chosen = batch.take(drawn)
    ratio_is_one = chosen._replace(log_probs=log_probs_of(pair, chosen), advantages=np.ones(25, np.float32))
    alone = PLAIN._replace(vf_coef=0.0, normalize_advantage=False, clip_range=1e6)
    learned(pair.by_autograd, ratio_is_one, alone)  # the slope of -mean r is that of -mean ln p where r = 1
    np.testing.assert_allclose(added, 0.3 * pair.parameters.gradient.numpy(), atol=1e-5)
    assert loss == pytest.approx(-float(log_probs_of(pair, chosen).mean()), abs=1e-5)


def log_probs_of(pair: Pair, batch: Transitions) -> Any:
    """Of the actions of a batch, as the policy is now."""
    outputs, _ = pair.by_autograd.evaluate(batch.features, batch.maps)
    return pair.by_autograd.distribution(outputs, batch.illegal).log_probs(batch.actions)
