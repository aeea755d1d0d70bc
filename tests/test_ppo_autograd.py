"""PPO's update by autograd: what is compiled is what is not, for every network, and the CPU runs what a GPU would."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.policies import MLP, WITH_MAP
from townlet_train.policies.network import NetworkSpec

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from tests.test_ppo import learner_of, rollout_of  # noqa: E402
from tests.test_ppo_gradient import GAUSSIAN, OBJECTIVES, PLAIN, TOWN_SIZED, Pair, learned  # noqa: E402
from townlet_train.cli import main  # noqa: E402
from townlet_train.data.checkpoint import load_checkpoint  # noqa: E402
from townlet_train.errors import TrainingError  # noqa: E402
from townlet_train.learners.actor_critic import MlpActorCritic  # noqa: E402
from townlet_train.learners.autograd import AutogradActorCritic  # noqa: E402
from townlet_train.learners.devices import Placement  # noqa: E402
from townlet_train.learners.ppo import PPOLearner  # noqa: E402
from townlet_train.learners.surrogate import Losses, Objective  # noqa: E402

GAUSSIAN_WITH_MAP = replace(WITH_MAP, distribution="gaussian")
SPECS = [MLP, GAUSSIAN, TOWN_SIZED, GAUSSIAN_WITH_MAP]
SPEC_NAMES = ["categorical", "gaussian", "with maps", "gaussian with maps"]
BATCH_SIZE = 16


def compiler(backend: str) -> Callable[..., Any]:
    """As on a GPU, but for what writes the kernels."""
    return partial(torch.compile, backend=backend, fullgraph=True, dynamic=False)


def compiled(pair: Pair, backend: str = "aot_eager") -> AutogradActorCritic:
    network = pair.by_autograd._heads.network
    return AutogradActorCritic(network, pair.parameters, compiler=compiler(backend))


def check_same(backend: str, spec: NetworkSpec, objective: Objective, *, masked: bool) -> None:
    """What a compiled update measures, and the gradient it leaves, are those of an update that is not."""
    pair = Pair(spec)
    batch, network = pair.batch(64, masked=masked), compiled(pair, backend)
    n_graphs = graphs_compiled()
    losses = learned(network, batch, objective)
    assert graphs_compiled() == n_graphs + 1
    gradient = pair.parameters.gradient.clone()
    assert learned(network, batch, objective) == losses
    assert torch.equal(pair.parameters.gradient, gradient)
    np.testing.assert_allclose(losses, learned(pair.by_autograd, batch, objective), rtol=1e-4, atol=1e-5)
    largest = float(pair.parameters.gradient.abs().max())
    assert largest > 1e-3
    torch.testing.assert_close(gradient, pair.parameters.gradient, rtol=0, atol=1e-5 * max(1.0, largest))


def graphs_compiled() -> int:
    return int(torch._dynamo.utils.counters["stats"]["unique_graphs"])


@pytest.mark.slow
@pytest.mark.parametrize("objective", OBJECTIVES, ids=["plain", "entropy", "value clip", "near a reference"])
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("spec", SPECS, ids=SPEC_NAMES)
def test_a_compiled_update_is_that_of_autograd_for_every_network(
    spec: NetworkSpec, masked: bool, objective: Objective
) -> None:
    check_same("aot_eager", spec, objective, masked=masked)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own
@pytest.mark.skipif(shutil.which("g++") is None, reason="compiled kernels for the CPU take a C++ compiler")
@pytest.mark.parametrize("spec", SPECS, ids=SPEC_NAMES)
def test_generated_kernels_find_the_gradient_of_autograd(spec: NetworkSpec) -> None:
    check_same("inductor", spec, OBJECTIVES[-1], masked=True)


@pytest.mark.slow
def test_each_of_many_networks_in_one_process_is_compiled() -> None:
    n_graphs, n_networks = graphs_compiled(), 10  # more than the versions of one function that torch keeps
    for _ in range(n_networks):
        pair = Pair(MLP)
        learned(compiled(pair), pair.batch(8), PLAIN)
    assert graphs_compiled() == n_graphs + n_networks


def test_a_clip_range_that_falls_compiles_nothing_anew_and_learns_what_autograd_would() -> None:
    learners = [learner_of(GAUSSIAN, batch_size=BATCH_SIZE, clip_range_schedule="linear") for _ in range(2)]
    for learner, backend in zip(learners, ("aot_eager", None), strict=True):
        by_autograd(learner, backend)
    n_graphs, clip_ranges = graphs_compiled(), []
    for progress in (0.0, 0.25, 0.5, 0.75):
        for learner in learners:
            rollout = gaussian_rollout(learner)
            assert rollout.rewards.size % BATCH_SIZE, "some batches are to be short"
            clip_ranges.append(learner.update(rollout, progress).clip_range)
    assert len(set(clip_ranges)) == 4
    assert graphs_compiled() == n_graphs + 1
    ours, theirs = (learner.weights for learner in learners)
    for name, array in ours.items():
        np.testing.assert_allclose(array, theirs[name], atol=1e-5, err_msg=name)


def by_autograd(learner: PPOLearner, backend: str | None) -> None:
    """Let a learner on the CPU learn as it would on a GPU."""
    learner.actor_critic = AutogradActorCritic(
        learner._network, learner._parameters, compiler=None if backend is None else compiler(backend)
    )


def gaussian_rollout(learner: PPOLearner) -> Any:
    """Some steps of two slots with vectors as actions."""
    rollout = rollout_of(learner_of(MLP), n_steps=21)
    rng = np.random.default_rng(1)
    actions = rng.standard_normal((*rollout.rewards.shape, GAUSSIAN.n_actions), np.float32)
    outputs, values = learner.actor_critic.evaluate(rollout.features.reshape(-1, GAUSSIAN.n_features), None)
    distribution = learner.actor_critic.distribution(outputs, None)
    log_probs = distribution.log_probs(actions.reshape(-1, GAUSSIAN.n_actions))
    values = np.concatenate([values, values[:2]]).reshape(-1, 2, 1)
    return replace(
        rollout,
        actions=actions,
        illegal=None,
        log_probs=log_probs.reshape(rollout.rewards.shape),
        values=values,
    )


def test_batches_come_in_the_order_asked_for_and_the_last_is_as_long_as_it_must() -> None:
    pair = Pair(MLP)
    batch, order = pair.batch(41), np.random.default_rng(3).permutation(41)
    of_both = [
        measured(network.lesson(batch).gradients(order, BATCH_SIZE, OBJECTIVES[1]), pair)
        for network in (MlpActorCritic(MLP, pair.parameters), pair.by_autograd)
    ]
    for (losses, gradient), (expected, by_autograd) in zip(*of_both, strict=True):
        np.testing.assert_allclose(losses, expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(
            gradient, by_autograd, atol=1e-5 * max(1.0, float(by_autograd.abs().max()))
        )
    assert len(of_both[0]) == 3


def measured(gradients: Any, pair: Pair) -> list[tuple[Losses, Any]]:
    return [(gradient.losses, pair.parameters.gradient.clone()) for gradient in gradients]


def test_the_norm_comes_with_the_losses() -> None:
    pair = Pair(MLP)
    batch = pair.batch(20)
    (found,) = pair.by_autograd.lesson(batch).gradients(np.arange(20), 20, PLAIN)
    assert found.norm == pytest.approx(float(pair.parameters.gradient.norm()))


def test_only_full_batches_take_the_compiled_way() -> None:
    pair, sizes = Pair(MLP), list[int]()

    def watch(measure: Callable[..., Any]) -> Callable[..., Any]:
        return lambda vector, batch, *rest: sizes.append(len(batch.returns)) or measure(vector, batch, *rest)

    network = AutogradActorCritic(pair.by_autograd._heads.network, pair.parameters, compiler=watch)
    norms = [g.norm for g in network.lesson(pair.batch(41)).gradients(np.arange(41), BATCH_SIZE, PLAIN)]
    assert sizes == [BATCH_SIZE, BATCH_SIZE]
    assert len(norms) == 3
    assert all(norms)


def test_where_nothing_can_be_compiled_learning_goes_on_with_one_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def refuse(*arguments: object) -> Any:
        raise RuntimeError("Cannot find a working triton installation\nand a long story")

    pair = Pair(MLP)
    network = AutogradActorCritic(
        pair.by_autograd._heads.network, pair.parameters, compiler=lambda measure: refuse
    )
    with caplog.at_level(logging.WARNING):
        losses = [learned(network, pair.batch(8), PLAIN) for _ in range(2)]
    assert losses[0] == losses[1] == learned(pair.by_autograd, pair.batch(8), PLAIN)
    assert caplog.messages == [
        "Updates cannot be compiled here (Cannot find a working triton installation); slower, learning goes on."
    ]


def test_tensors_that_are_not_finite_are_named_like_arrays() -> None:
    learner = learner_of(GAUSSIAN, n_epochs=10)
    by_autograd(learner, None)
    rollout = gaussian_rollout(learner)
    rollout.features[:] = np.nan
    before = learner.weights
    with pytest.raises(TrainingError, match="'features'"):
        learner.update(rollout, 0.0)
    assert all((learner.weights[name] == array).all() for name, array in before.items())


@pytest.mark.parametrize("spec", SPECS, ids=SPEC_NAMES)
def test_bfloat16_points_where_float32_does(spec: NetworkSpec) -> None:
    pair = Pair(spec)
    pair.parameters.vector.mul_(0.3)  # outputs of about 1
    network = AutogradActorCritic(pair.by_autograd._heads.network, pair.parameters, precision="bfloat16")
    batch = pair.batch(200)
    learned(network, batch, PLAIN)
    narrow = pair.parameters.gradient.clone()
    learned(pair.by_autograd, batch, PLAIN)
    exact = pair.parameters.gradient
    assert not torch.equal(narrow, exact)
    assert float(torch.nn.functional.cosine_similarity(narrow, exact, dim=0)) > 0.99
    outputs, values = network.evaluate(batch.features, batch.maps)
    assert (outputs.dtype, values.dtype) == (np.float32, np.float32)


@pytest.mark.slow
def test_a_compiled_update_in_bfloat16_is_the_eager_one() -> None:
    pair = Pair(MLP)
    network, batch = pair.by_autograd._heads.network, pair.batch(64)
    gradients = []
    for how in (compiler("aot_eager"), None):
        narrow = AutogradActorCritic(network, pair.parameters, precision="bfloat16", compiler=how)
        learned(narrow, batch, PLAIN)
        gradients.append(pair.parameters.gradient.clone())
    torch.testing.assert_close(*gradients, rtol=1e-2, atol=1e-3)


def test_a_run_in_bfloat16_is_resumed_in_it_bit_for_bit(tmp_path: Path) -> None:
    options = ["ppo", "--env", "CartPole-v1", "--n-steps", "100", "--evaluation-episodes", "0"]
    options += ["--checkpoint-interval", "200", "--precision", "bfloat16", "--n-epochs", "2"]
    whole, half = tmp_path / "whole", tmp_path / "half"
    assert main([*options, "--timesteps", "600", "--output-dir", str(whole)]) == 0
    assert main([*options, "--timesteps", "400", "--output-dir", str(half)]) == 0
    resume = ["--resume-from", str(half / "checkpoint_400.zip"), "--overwrite"]
    assert main([*options, "--timesteps", "600", "--output-dir", str(half), *resume]) == 0
    name = "checkpoint_600.zip"
    assert (whole / name).read_bytes() == (half / name).read_bytes()
    state = load_checkpoint(whole / name).state
    assert (state["device"], state["precision"]) == Placement("cpu", "bfloat16")
