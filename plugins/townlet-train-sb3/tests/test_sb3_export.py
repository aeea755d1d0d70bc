"""A model file that is exported acts as its checkpoint does, where it is opened by Stable-Baselines3 alone."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("torch")
pytest.importorskip("stable_baselines3")
pytestmark = pytest.mark.torch

import gymnasium  # noqa: E402
from stable_baselines3 import PPO  # noqa: E402

from townlet_train.api import (  # noqa: E402
    Checkpoint,
    CheckpointInfo,
    NetworkPolicy,
    NetworkSpec,
    Observation,
    load_checkpoint,
    save_checkpoint,
)
from townlet_train.cli import main  # noqa: E402

UNCLIPPED = 1e9
NETWORKS = {
    "as sb3 has it": NetworkSpec("mlp", 4, 2, (64, 64), feature_clip=UNCLIPPED),
    "relu": NetworkSpec("mlp", 4, 2, (8,), activation="relu", feature_clip=UNCLIPPED),
    "standardised": NetworkSpec("mlp", 4, 2, (8, 6)),
    "shared trunk": NetworkSpec("mlp", 4, 2, (8, 6), shared_trunk=True),
    "vectors": NetworkSpec("mlp", 4, 3, (8, 6), distribution="gaussian"),
}


def checkpoint_of(path: Path, spec: NetworkSpec, env_id: str = "made-up") -> Path:
    """A checkpoint with random weights, and a normaliser that does something where there is one."""
    rng = np.random.default_rng(7)
    weights: dict[str, NDArray[Any]] = {
        name: rng.normal(0, 1, shape).astype(np.float32) for name, shape in spec.parameter_shapes().items()
    }
    standardised = spec.feature_clip < UNCLIPPED
    weights["normaliser.mean"] = np.float32([3, -2, 0, 50]) if standardised else np.zeros(4, np.float32)
    weights["normaliser.std"] = np.float32([0.5, 2, 1e-4, 9]) if standardised else np.ones(4, np.float32)
    vectors = spec.distribution == "gaussian"
    info = CheckpointInfo(
        algorithm="made_up",
        env_id=env_id,
        feature_names=tuple(f"obs_{index}" for index in range(spec.n_features)),
        action_names=() if vectors else tuple(f"action_{index}" for index in range(spec.n_actions)),
        action_bounds=((-1.0, 1.0), (None, 2.0), (None, None)) if vectors else (),
        network=spec.to_document(),
    )
    save_checkpoint(path, Checkpoint(info, weights))
    return path


def seen() -> NDArray[np.float32]:
    """1 000 observations, most of them far beyond where features are cut off."""
    rng = np.random.default_rng(3)
    return (rng.normal(0, 30, (1000, 4)) * rng.choice([0.001, 0.1, 1], (1000, 1))).astype(np.float32)


def actions_of(path: Path, features: NDArray[np.float32]) -> NDArray[Any]:
    """The most probable actions of a checkpoint's own policy."""
    policy = NetworkPolicy(load_checkpoint(path), deterministic=True)
    n_rows, spec = len(features), NetworkSpec.from_document(load_checkpoint(path).info.network)
    mask = np.ones((n_rows, 1, 0 if spec.distribution == "gaussian" else spec.n_actions), np.bool_)
    observation = Observation(features[:, None], np.zeros((n_rows, 1, 0, 0, 0), np.uint8), mask)
    return np.asarray(policy.act(observation, np.zeros((n_rows, 1))))[:, 0]


def export(checkpoint: Path, output: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert main(["export", str(checkpoint), "--format", "sb3", "--output", str(output), "--json"]) == 0
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


@pytest.mark.parametrize("network", NETWORKS)
def test_ppo_load_acts_as_the_checkpoint_on_1000_observations(
    network: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = checkpoint_of(tmp_path / "policy.zip", NETWORKS[network])
    told = export(path, tmp_path / "out.zip", capsys)
    assert (told["checked_rows"], told["same_actions"], told["warnings"]) == (1000, 1000, [])
    assert told["largest_difference"] <= told["allowed_difference"]
    model = PPO.load(tmp_path / "out.zip")
    given, _ = model.predict(seen(), deterministic=True)
    expected = actions_of(path, seen())
    if network == "vectors":
        low, high = np.float32([-1, -np.inf, -np.inf]), np.float32([1, 2, np.inf])
        np.testing.assert_allclose(given, expected.clip(low, high), rtol=1e-4, atol=1e-4)
        return
    np.testing.assert_array_equal(given, expected)
    assert len({*expected.tolist()}) == 2


@pytest.mark.parametrize("network", ["as sb3 has it", "standardised"])
def test_a_model_file_opens_where_townlet_train_is_not_installed(
    network: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = checkpoint_of(tmp_path / "policy.zip", NETWORKS[network])
    export(path, tmp_path / "out.zip", capsys)
    np.save(tmp_path / "seen.npy", seen())
    code = f"""
import sys
sys.modules["townlet_train"] = sys.modules["townlet_train_sb3"] = None
import numpy as np
from stable_baselines3 import PPO
seen = np.load({str(tmp_path / "seen.npy")!r})
actions, _ = PPO.load({str(tmp_path / "out.zip")!r}).predict(seen, deterministic=True)
np.save({str(tmp_path / "actions.npy")!r}, actions)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
    np.testing.assert_array_equal(np.load(tmp_path / "actions.npy"), actions_of(path, seen()))


@pytest.mark.parametrize("network", ["as sb3 has it", "standardised"])
def test_stable_baselines3_goes_on_training_in_the_environment(
    network: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = checkpoint_of(tmp_path / "policy.zip", NETWORKS[network], env_id="CartPole-v1")
    export(path, tmp_path / "out.zip", capsys)
    model = PPO.load(tmp_path / "out.zip", env=gymnasium.make("CartPole-v1"), n_steps=64)
    model.learn(128)
    model.save(tmp_path / "trained.zip")
    back = ["import-sb3", str(tmp_path / "trained.zip"), "--env", "CartPole-v1"]
    assert main([*back, "--output", str(tmp_path / "back.zip")]) == 0
    given, _ = model.predict(seen(), deterministic=True)
    np.testing.assert_array_equal(actions_of(tmp_path / "back.zip", seen()), given)


@pytest.mark.parametrize("network", ["as sb3 has it", "relu", "standardised"])
def test_out_and_in_again_is_the_same_policy(
    network: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = checkpoint_of(tmp_path / "policy.zip", NETWORKS[network], env_id="CartPole-v1")
    export(path, tmp_path / "out.zip", capsys)
    back = tmp_path / "back.zip"
    assert main(["import-sb3", str(tmp_path / "out.zip"), "--env", "CartPole-v1", "--output", str(back)]) == 0
    before, after = load_checkpoint(path), load_checkpoint(back)
    assert after.info.network == before.info.network
    assert after.weights.keys() == before.weights.keys()
    assert all((after.weights[name] == before.weights[name]).all() for name in before.weights)


def test_a_policy_that_reads_maps_is_refused_and_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = NetworkSpec("conflict_aware", 4, 2, (7,), map_shape=(2, 3, 3))
    path = checkpoint_of(tmp_path / "policy.zip", spec)
    assert main(["export", str(path), "--format", "sb3", "--output", str(tmp_path / "out.zip")]) == 6
    assert "holds a conflict_aware network, expected an mlp" in capsys.readouterr().err
    assert [found.name for found in tmp_path.iterdir()] == ["policy.zip"]


def test_a_file_without_a_normaliser_carries_none_of_our_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    export(checkpoint_of(tmp_path / "policy.zip", NETWORKS["relu"]), tmp_path / "out.zip", capsys)
    with warnings.catch_warnings(action="error"):
        model = PPO.load(tmp_path / "out.zip")
    assert type(model.policy.features_extractor).__module__.startswith("stable_baselines3.")
