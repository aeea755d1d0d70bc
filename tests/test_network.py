"""A checkpoint acts without torch: legal actions only, the distribution it says, and torch's own numbers."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes import SPEC, CountingEnv
from tests.policies import MLP, SHARED, WITH_MAP, random_weights, small_checkpoint
from townlet_train.data.checkpoint import Checkpoint
from townlet_train.envs.protocol import Observation
from townlet_train.errors import CheckpointError, DataError
from townlet_train.policies.network import (
    FEATURE_MEAN,
    FEATURE_STD,
    ILLEGAL_LOGIT,
    NetworkPolicy,
    NetworkSpec,
    compute_logits,
    sample,
)

SPECS = [MLP, replace(MLP, activation="relu", hidden_sizes=(7,)), WITH_MAP, SHARED]


def naive_logits(spec: NetworkSpec, w: dict[str, Any], features: Any, maps: Any) -> Any:
    """One row at a time, in float64, as the formulas read."""

    def layer(name: str, x: Any) -> Any:
        return w[f"{name}.weight"].astype(np.float64) @ x + w[f"{name}.bias"]

    act = np.tanh if spec.activation == "tanh" else lambda x: np.maximum(x, 0)
    rows = []
    for x, m in zip(features, maps, strict=True):
        h = np.clip(
            (x.astype(np.float64) - w[FEATURE_MEAN]) / w[FEATURE_STD], -spec.feature_clip, spec.feature_clip
        )
        if spec.kind == "conflict_aware":
            encoded = np.concatenate(
                [act(layer("map_encoder.1", m.reshape(-1))), act(layer("feature_encoder.0", h))]
            )
            rows.append(layer("policy_head", act(layer("shared.0", encoded))))
            continue
        trunk = "shared_net" if spec.shared_trunk else "policy_net"
        for i in range(len(spec.hidden_sizes)):
            h = act(layer(f"mlp_extractor.{trunk}.{2 * i}", h))
        rows.append(layer("action_net", h))
    return np.array(rows)


@pytest.mark.parametrize("spec", SPECS, ids=["mlp tanh", "mlp relu", "conflict aware", "shared"])
def test_logits_are_those_of_the_formulas(spec: NetworkSpec, rng: np.random.Generator) -> None:
    weights = random_weights(spec)
    features = rng.normal(size=(20, 5), scale=20).astype(np.float32)
    maps = rng.integers(0, 2, size=(20, 2, 3, 3), dtype=np.uint8)
    expected = naive_logits(spec, weights, features, maps)
    np.testing.assert_allclose(compute_logits(spec, weights, features, maps), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.torch
@pytest.mark.parametrize("spec", SPECS, ids=["mlp tanh", "mlp relu", "conflict aware", "shared"])
def test_torch_and_numpy_agree(spec: NetworkSpec, rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch")
    from townlet_train.learners.networks import build_network, export_weights

    network = build_network(spec, rng)
    weights = random_weights(spec)
    network.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})
    features = rng.normal(size=(50, 5), scale=20).astype(np.float32)
    maps = rng.integers(0, 2, size=(50, 2, 3, 3), dtype=np.uint8)
    mask = rng.random((50, 3)) < 0.7
    mask[:, 0] = True
    with torch.no_grad():
        logits, values = network(*(torch.from_numpy(array) for array in (features, maps, mask)))
    ours = np.where(mask, compute_logits(spec, weights, features, maps), ILLEGAL_LOGIT)
    np.testing.assert_allclose(logits.numpy(), ours, rtol=1e-5, atol=1e-5)
    assert values.shape == (50,)
    assert export_weights(network).keys() == weights.keys()


@pytest.mark.torch
@pytest.mark.parametrize("spec", SPECS, ids=["mlp tanh", "mlp relu", "conflict aware", "shared"])
def test_building_a_network_leaves_torchs_global_generator_alone(spec: NetworkSpec) -> None:
    torch = pytest.importorskip("torch")
    from townlet_train.learners.networks import build_network, export_weights

    before = torch.get_rng_state()
    first, second = (export_weights(build_network(spec, np.random.default_rng(4))) for _ in range(2))
    assert torch.equal(before, torch.get_rng_state())
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])


def test_a_shared_trunk_belongs_to_the_actor_and_leaves_the_critic_its_head() -> None:
    own = SHARED.parameter_shapes().keys() - SHARED.actor_shapes().keys()
    assert own == {"value_net.weight", "value_net.bias"}
    assert SHARED.shares_trunk
    assert not MLP.shares_trunk


def test_separate_trunks_are_described_as_before_there_was_a_choice() -> None:
    assert "shared_trunk" not in MLP.to_document()
    for spec in (MLP, SHARED):
        assert NetworkSpec.from_document(spec.to_document()) == spec
    with pytest.raises(ValueError, match="shared_trunk is a choice of an mlp"):
        replace(WITH_MAP, shared_trunk=True)


@pytest.mark.torch
@pytest.mark.parametrize("spec", SPECS, ids=["mlp tanh", "mlp relu", "conflict aware", "shared"])
def test_a_network_that_standardises_otherwise_says_the_same(
    spec: NetworkSpec, rng: np.random.Generator
) -> None:
    torch = pytest.importorskip("torch")
    from townlet_train.learners.networks import build_network

    network = build_network(replace(spec, feature_clip=1e9), rng)
    features = torch.from_numpy(rng.normal(size=(50, 5), scale=3).astype(np.float32))
    maps = torch.from_numpy(rng.integers(0, 2, size=(50, 2, 3, 3), dtype=np.uint8))
    said = []
    for _ in range(3):
        with torch.no_grad():
            said.append(network.heads(network.normaliser(features), maps))
        mean, std = rng.normal(size=5).astype(np.float32), rng.uniform(0.2, 4, 5).astype(np.float32)
        network.restandardise(torch.from_numpy(mean), torch.from_numpy(std))
        np.testing.assert_array_equal(network.normaliser.std.numpy(), std)
    for logits, values in said[1:]:
        torch.testing.assert_close(logits, said[0][0], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(values, said[0][1], rtol=1e-4, atol=1e-4)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_sampling_never_returns_an_action_of_no_probability(seed: int) -> None:
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(30, 6), scale=10 ** rng.uniform(-2, 2)).astype(np.float32)
    mask = rng.random((30, 6)) < 0.4
    mask[np.arange(30), rng.integers(6, size=30)] = True
    masked = np.where(mask, logits, np.float32(ILLEGAL_LOGIT))
    uniforms = rng.choice([0.0, 1e-300, 0.5, np.nextafter(1.0, 0.0), rng.random()], size=30)
    assert mask[np.arange(30), sample(masked, uniforms)].all()


def test_sampled_shares_are_the_probabilities() -> None:
    probabilities = np.array([0.1, 0.0, 0.6, 0.3])
    with np.errstate(divide="ignore"):
        logits = np.maximum(np.log(probabilities), ILLEGAL_LOGIT).astype(np.float32)
    uniforms = (np.arange(10_000) + 0.5) / 10_000
    actions = sample(np.broadcast_to(logits, (10_000, 4)), uniforms)
    np.testing.assert_allclose(np.bincount(actions, minlength=4) / 10_000, probabilities, atol=2e-4)


@pytest.mark.parametrize("spec", [MLP, WITH_MAP], ids=["mlp", "conflict aware"])
def test_a_row_acts_the_same_whatever_else_is_in_the_batch(
    spec: NetworkSpec, rng: np.random.Generator
) -> None:
    policy = NetworkPolicy(small_checkpoint(spec, SPEC))
    n = 40
    features = rng.normal(size=(n, 1, 5)).astype(np.float32)
    maps = rng.integers(0, 2, size=(n, 1, 2, 3, 3), dtype=np.uint8)
    mask, uniforms = np.ones((n, 1, 3), np.bool_), rng.random((n, 1))
    together = policy.act(Observation(features, maps, mask), uniforms)
    alone = [
        policy.act(Observation(features[[i]], maps[[i]], mask[[i]]), uniforms[[i]])[0, 0] for i in range(n)
    ]
    assert together[:, 0].tolist() == alone


def test_a_greedy_policy_ignores_the_draws_and_obeys_the_mask() -> None:
    policy = NetworkPolicy(small_checkpoint(WITH_MAP, SPEC), deterministic=True)
    env = CountingEnv()
    observation = env.reset(np.array([1, 2]))
    for _ in range(6):
        actions = policy.act(observation, np.zeros((2, 2)))
        np.testing.assert_array_equal(actions, policy.act(observation, np.full((2, 2), 0.9)))
        assert np.take_along_axis(observation.action_mask, actions[..., None], axis=-1).all()
        observation = env.step(actions).observation


def test_an_agent_without_a_legal_action_is_an_error() -> None:
    observation = CountingEnv().reset(np.array([1, 2]))
    observation.action_mask[0, 0] = False
    with pytest.raises(DataError, match="no legal action"):
        NetworkPolicy(small_checkpoint(MLP, SPEC)).act(observation, np.zeros((2, 2)))


@pytest.mark.parametrize(
    ("weights", "sentence"),
    [
        ({"action_net.bias": None}, "lacks the array 'action_net.bias'"),
        ({"action_net.weight": np.zeros((3, 9), np.float32)}, "'action_net.weight' has shape (3, 9), expected (3, 4)"),
        ({FEATURE_MEAN: np.full(5, np.nan, np.float32)}, "'normaliser.mean' holds numbers that are not finite"),
    ],
    ids=["missing", "misshapen", "not finite"],
)  # fmt: skip
def test_arrays_that_are_not_the_networks_are_refused(weights: dict[str, Any], sentence: str) -> None:
    checkpoint = small_checkpoint(MLP, SPEC)
    changed = {k: v for k, v in {**checkpoint.weights, **weights}.items() if v is not None}
    with pytest.raises(CheckpointError, match=re.escape(sentence)):
        NetworkPolicy(Checkpoint(checkpoint.info, changed))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"kind": "transformer"}, "kind: Input should be 'mlp' or 'conflict_aware', got 'transformer'"),
        ({"hidden_sizes": []}, "at least one hidden size"),
        ({"hidden_sizes": [8, 0]}, "at least 1"),
        ({"hidden_sizes": "64"}, "hidden_sizes: "),
        ({"kind": "conflict_aware"}, "one hidden size"),
        ({"depth": 3}, "description is wrong, depth: "),
        ({"activation": "gelu"}, "activation: Input should be 'tanh' or 'relu', got 'gelu'"),
        ({"feature_clip": "x"}, "feature_clip: Input should be a valid number, got 'x'"),
        ({"feature_clip": float("nan")}, "cut to a positive number"),
        ({"n_features": "5"}, "n_features: Input should be a valid integer, got '5'"),
        ({"map_shape": [0, 0]}, "map_shape.2: "),
        ({"distribution": "beta"}, "distribution: Input should be"),
    ],
)
def test_a_network_nobody_knows_is_refused(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(CheckpointError, match=re.escape(sentence)) as refusal:
        NetworkSpec.from_document(MLP.to_document() | change)
    assert refusal.value.exit_code == 6
