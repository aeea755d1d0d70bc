"""Cloning where actions are vectors: a Gaussian whose spread is learned, gone on from bit for bit, and acting."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import recordings
from tests.policies import random_weights
from tests.short_runs import left_by
from townlet_train.config import RunConfig
from townlet_train.contract import Progress
from townlet_train.data.checkpoint import load_checkpoint
from townlet_train.data.dataset import Demonstrations
from townlet_train.errors import CheckpointError, DataError, Interrupted, UsageError
from townlet_train.orchestrator import run_strategy
from townlet_train.policies.network import LOG_STD, NetworkSpec
from townlet_train.results import BCTrainingResultDTO
from townlet_train.services.rollout import capture_as_configured

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from townlet_train.learners.bc import BCLearner, BCSettings, network_for  # noqa: E402
from townlet_train.learners.gradients import AutogradGradient, Frames, MlpGradient  # noqa: E402
from townlet_train.learners.networks import FlatParameters, build_network  # noqa: E402

SPEC = NetworkSpec("mlp", n_features=5, n_actions=2, hidden_sizes=(8, 4), distribution="gaussian")
SPREAD = 0.1
PENDULUM = RunConfig.model_validate({"env": "Pendulum-v1", "seed": 3})
SHORT = {"n_epochs": 3, "batch_size": 32, "hidden_sizes": (8,), "evaluate": False}


def noisy_demonstrations(n_episodes: int = 10, n_frames: int = 400) -> Demonstrations:
    """Vectors that follow two of three features, with normal noise of deviation `SPREAD` around them."""
    rng = np.random.default_rng(3)
    n = n_episodes * n_frames
    features = rng.normal(size=(n, 3)).astype(np.float32)
    actions = 0.5 * np.stack([features[:, 0], features[:, 0] - features[:, 1]], axis=1)
    return Demonstrations(
        features=features,
        maps=None,
        actions=(actions + rng.normal(0, SPREAD, size=(n, 2))).astype(np.float32),
        action_mask=np.ones((n, 0), np.bool_),
        episode=np.arange(n) // n_frames,
        feature_names=("a", "b", "c"),
        action_names=(),
        map_channels=(),
        seeds=(),
        label="noisy",
        action_low=(-10.0, -10.0),
        action_high=(10.0, 10.0),
    )


@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("n", [1, 64, 257])
def test_the_written_out_gradient_is_that_of_torchs_own_normal(activation: Any, n: int) -> None:
    spec = NetworkSpec("mlp", 5, 2, (8, 4), activation=activation, distribution="gaussian")
    network = build_network(spec, np.random.default_rng(0))
    network.load_state_dict({name: torch.from_numpy(array) for name, array in random_weights(spec).items()})
    parameters = FlatParameters(network, list(spec.actor_shapes()))
    rng = np.random.default_rng(1)
    features, actions = (rng.normal(size=(n, width)).astype(np.float32) for width in (5, 2))
    frames = Frames(features, None, np.zeros((0, n), np.bool_), actions)
    loss = MlpGradient(spec, parameters)(frames)
    written_out = parameters.gradient.numpy().copy()
    assert AutogradGradient(network, parameters)(frames) == pytest.approx(loss, rel=1e-5)
    by_autograd = parameters.gradient.numpy().copy()
    means, _ = network.heads(torch.from_numpy(features), None)
    normal = torch.distributions.Normal(means, network.log_std.exp())
    parameters.gradient.zero_()
    oracle = -normal.log_prob(torch.from_numpy(actions)).sum(dim=1)
    oracle.mean().backward()
    assert loss == pytest.approx(float(oracle.detach().sum()), rel=1e-5)
    expected = parameters.gradient.numpy()
    assert np.abs(expected).max() > 1e-3
    for found in (written_out, by_autograd):
        np.testing.assert_allclose(found, expected, atol=1e-5 * max(1.0, float(np.abs(expected).max())))


def test_means_and_spread_of_a_noisy_demonstrator_are_found() -> None:
    demonstrations = noisy_demonstrations()
    settings = BCSettings(learning_rate=1e-2, batch_size=64, n_epochs=15)
    spec, rng = network_for(demonstrations, "mlp"), np.random.default_rng(0)
    learner = BCLearner.from_demonstrations(demonstrations, settings, spec, val_fraction=0.2, rng=rng)
    stats = [learner.train_epoch() for _ in range(15)]
    np.testing.assert_allclose(learner.weights[LOG_STD], math.log(SPREAD), atol=0.1)
    held_out = learner.best.held_out
    # the loss of a normal distribution that is known: its entropy, ln(deviation) + (1 + ln 2 pi) / 2 by dimension
    assert held_out.loss == pytest.approx(2 * math.log(SPREAD) + 1 + math.log(2 * math.pi), abs=0.1)
    assert held_out.mean_absolute_error == pytest.approx(SPREAD * math.sqrt(2 / math.pi), rel=0.1)
    assert held_out.accuracy is held_out.majority_share is stats[-1].val_accuracy is None


@pytest.fixture(scope="module")
def pendulum(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pendulum") / "capture"
    recordings.capture_vectors(folder, ticks=400, towns=3, store="memmap")
    return folder


def clone(run_dir: Path, manifest: Path | None = None, **given: Any) -> BCTrainingResultDTO:
    params = {} if "resume_from" in given else SHORT
    params = params if manifest is None else {**params, "manifest": manifest}
    result = run_strategy("bc", params, config=PENDULUM, run_dir=run_dir, **given)
    assert isinstance(result, BCTrainingResultDTO)
    return result


def stopped(run_dir: Path, number: int, manifest: Path) -> Path:
    """Where a run is saved that is stopped at its report of that number."""
    left = iter(range(number + 1))

    def report(progress: Progress) -> None:
        if next(left) == number:
            raise Interrupted("Stopped.")

    with pytest.raises(Interrupted, match="Go on with --resume-from ") as stop:
        clone(run_dir, manifest, report=report)
    return Path(str(stop.value).split("--resume-from ")[1])


@pytest.mark.parametrize("number", [0, 1, 3])
def test_stopped_anywhere_and_resumed_it_ends_with_the_same_bytes(
    number: int, pendulum: Path, tmp_path: Path
) -> None:
    clone(tmp_path / "straight", pendulum)
    saved = stopped(tmp_path / "run", number, pendulum)
    clone(tmp_path / "run", resume_from="latest")
    ours, straight = left_by(tmp_path / "run"), left_by(tmp_path / "straight")
    if saved.name not in straight:
        ours.pop(saved.name, None)
    assert ours == straight


def test_a_result_says_what_was_measured_and_makes_up_no_accuracy(pendulum: Path, tmp_path: Path) -> None:
    result = clone(tmp_path / "run", pendulum)
    assert result.accuracy is result.val_accuracy is result.macro_recall is result.majority_share is None
    assert result.val_mean_absolute_error == pytest.approx(
        1, abs=0.2
    )  # a random demonstrator's, uniform in [-2, 2]
    assert (result.recall, result.action_names) == ({}, ())
    assert not any("accuracy" in warning for warning in result.warnings)
    lines = (tmp_path / "run/metrics.jsonl").read_text().splitlines()
    assert {json.loads(line)["val_accuracy"] for line in lines} == {None}
    info = load_checkpoint(Path(str(result.checkpoint))).info
    assert (info.action_names, info.action_bounds) == ((), ((-2, 2),))
    assert info.network["distribution"] == "gaussian"


def test_a_demonstrator_that_never_moves_is_refused(tmp_path: Path) -> None:
    recordings.capture_vectors(tmp_path / "idle", policy="idle")
    with pytest.raises(DataError, match=r"every one of 500 frames shows the same vector, \[0\.0\]"):
        clone(tmp_path / "run", tmp_path / "idle")


def test_what_learned_from_vectors_begins_a_run_on_vectors_alone(pendulum: Path, tmp_path: Path) -> None:
    first = clone(tmp_path / "first", pendulum)
    again = run_strategy(
        "bc", {**SHORT, "manifest": pendulum}, config=PENDULUM, run_dir=tmp_path / "again",
        resume_from=first.checkpoint, fork=True,
    )  # fmt: skip
    assert load_checkpoint(Path(str(again.checkpoint))).info.lineage.parent_sha256 == first.checkpoint_sha256
    manifest = next(pendulum.glob("*_manifest.json"))
    document = json.loads(manifest.read_text())
    document["metadata"]["action_high"] = [3.0]
    other = manifest.with_name("wider_manifest.json.json")
    other.write_text(json.dumps(document))
    with pytest.raises(CheckpointError, match="acts by vectors of numbers within other bounds"):
        run_strategy(
            "bc", {**SHORT, "manifest": other}, config=PENDULUM, run_dir=tmp_path / "no",
            resume_from=first.checkpoint, fork=True,
        )  # fmt: skip
    other.unlink()
    cart = RunConfig(env="CartPole-v1")
    params = {"timesteps": 64, "n_steps": 64, "n_epochs": 1, "evaluation_episodes": 0}
    named = run_strategy("ppo", params, config=cart, run_dir=tmp_path / "cart").checkpoint
    with pytest.raises(CheckpointError, match=r"chooses among named actions, .* shows such vectors"):
        run_strategy(
            "bc",
            {**SHORT, "manifest": pendulum},
            config=PENDULUM,
            run_dir=tmp_path / "no",
            resume_from=named,
            fork=True,
        )


def test_ppo_goes_on_from_a_clone_and_learns_from_a_recording_of_vectors(
    pendulum: Path, tmp_path: Path
) -> None:
    first = clone(tmp_path / "clone", pendulum)
    params = {"timesteps": 64, "n_steps": 64, "n_epochs": 1, "batch_size": 64, "evaluation_episodes": 2}
    params |= {"hidden_sizes": (8,)}
    for name, given in (("begun", {"resume_from": first.checkpoint, "fork": True}), ("recorded", {})):
        told = params if given else {**params, "replay_manifest": pendulum}
        result = run_strategy("ppo", told, config=PENDULUM, run_dir=tmp_path / name, **given)
        lineage = load_checkpoint(Path(str(result.checkpoint))).info.lineage
        assert lineage.parent_sha256 == (first.checkpoint_sha256 if given else None)
        assert result.model_dump()["updates"] == 1


def test_an_anneal_asks_no_accuracy_of_vectors(pendulum: Path, tmp_path: Path) -> None:
    params = {"bc_manifest": pendulum, "bc_threshold": 0.9}
    with pytest.raises(
        UsageError, match="bc_threshold asks for an accuracy, which a clone of vectors has not"
    ):
        run_strategy("anneal", params, config=PENDULUM, run_dir=tmp_path / "run")


@pytest.mark.slow
def test_the_landers_expert_is_cloned_and_lands(tmp_path: Path) -> None:
    config = RunConfig.model_validate(
        {
            "env": "LunarLanderContinuous-v3",
            "rollout": {"towns": 8, "ticks": 2000},
            "evaluation": {"episodes": 20},
        }
    )
    captured = capture_as_configured(config, output=tmp_path / "capture")
    params = {"manifest": captured.manifest, "n_epochs": 30, "learning_rate": 5e-3}
    result = run_strategy("bc", params, config=config, run_dir=tmp_path / "run")
    assert isinstance(result, BCTrainingResultDTO)
    assert result.return_score_sampled is not None
    assert result.return_score_sampled > 0.9
