"""Rooms of MiniGrid through the door: seen as features, played by name, walked through, captured, cloned, learned."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("minigrid")

import gymnasium
from minigrid.core.constants import IDX_TO_COLOR, IDX_TO_OBJECT

from townlet_train.cli import main
from townlet_train.config import RunConfig
from townlet_train.envs.build import build_env
from townlet_train.orchestrator import run_strategy
from townlet_train.registry import ENVIRONMENT, discover
from townlet_train.results import PPOTrainingResultDTO
from townlet_train_minigrid import EMPTY, ROOMS, room_id, townlet_train_environments
from townlet_train_minigrid.envs import N_VALUES, VIEW, make_room


def told(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> Any:
    """The document that a command prints."""
    capsys.readouterr()
    assert main([*arguments, "--json"]) == code
    return json.loads(capsys.readouterr().out)


def test_importing_the_plugin_brings_neither_minigrid_nor_gymnasium() -> None:
    code = "import sys, townlet_train_minigrid as m; m.townlet_train_environments(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"minigrid", "gymnasium", "numpy"} & set(done.stdout.split())


@pytest.mark.parametrize("room", ROOMS)
def test_every_room_is_built_by_the_id_it_is_offered_under_and_has_one_mission(room: str) -> None:
    env = gymnasium.make(townlet_train_environments()[f"minigrid-{room.lower()}"])
    missions = set()
    for seed in range(5):
        observation, _ = env.reset(seed=seed)
        assert env.observation_space.contains(observation)
        missions.add(env.get_wrapper_attr("mission"))
    assert len(missions) == 1
    assert env.spec is not None
    assert env.spec.id == room_id(room)


def test_features_read_back_are_what_minigrid_shows() -> None:
    env = make_room("DoorKey-8x8")
    env.reset(seed=3)
    rng = np.random.default_rng(3)
    kinds = set()
    for _ in range(200):
        observation, *_ = env.step(int(rng.integers(6)))
        shown = env.env.get_wrapper_attr("gen_obs")()
        cells, direction = np.split(observation, [-4])
        parts = np.split(cells.reshape(VIEW, VIEW, -1), np.cumsum(N_VALUES)[:-1], axis=-1)
        assert all((part.sum(axis=-1) == 1).all() for part in parts)
        np.testing.assert_array_equal(np.stack([part.argmax(axis=-1) for part in parts], -1), shown["image"])
        assert direction.argmax() == shown["direction"]
        kinds |= set(np.unique(shown["image"][..., 0]).tolist())
    assert {IDX_TO_OBJECT[kind] for kind in kinds} >= {"wall", "door", "key", "empty", "unseen"}
    assert N_VALUES[:2] == (len(IDX_TO_OBJECT), len(IDX_TO_COLOR))


@pytest.mark.parametrize("room", EMPTY)
def test_the_expert_reaches_the_goal_of_an_empty_room_wherever_it_begins(
    room: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["evaluate", "--env", f"minigrid-{room.lower()}", "--policy", "expert", "--episodes", "20"]
    document = told(capsys, *arguments)
    assert document["env"] == room_id(room)
    assert min(document["episode_returns"]) > 0.85


def test_a_room_comes_back_to_the_exact_moment_it_was_in() -> None:
    config = RunConfig.model_validate({"env": townlet_train_environments()["minigrid-empty-random-6x6"]})
    env, other = build_env(config, 2), build_env(config, 2)
    env.reset(np.array([5, 6]))
    rng = np.random.default_rng(1)
    for _ in range(150):  # into a second episode
        env.step(rng.integers(3, size=(2, 1)))
    other.set_state(env.get_state())
    for _ in range(60):
        actions = rng.integers(3, size=(2, 1))
        expected, found = env.step(actions), other.step(actions)
        np.testing.assert_array_equal(found.observation.features, expected.observation.features)
        np.testing.assert_array_equal(found.rewards, expected.rewards)


def test_every_room_is_offered_and_a_misspelt_one_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert {f"minigrid-{room.lower()}" for room in ROOMS} <= discover().offered(ENVIRONMENT).keys()
    shown = told(capsys, "plugins", "show", "minigrid")
    assert len(shown["offers"]) == len(ROOMS)
    assert main(["evaluate", "--env", "minigrid-emty-5x5", "--policy", "random"]) == 5
    assert "Did you mean 'minigrid-empty-5x5'?" in capsys.readouterr().err


@pytest.mark.torch
@pytest.mark.slow
def test_a_captured_walk_is_cloned_by_the_rooms_name_and_gated_beside_the_expert(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch")
    env, demos, run = ["--env", "minigrid-empty-random-5x5"], str(tmp_path / "demos"), tmp_path / "bc"
    captured = told(capsys, "rollout", "capture", *env, "--output", demos, "--envs", "8", "--ticks", "300")
    assert captured["env"] == room_id("Empty-Random-5x5")
    told(capsys, "bc", "--manifest", demos, "--dry-run")  # the recording says where, by the room's id alone
    clone = told(capsys, "bc", *env, "--manifest", demos, "--output-dir", str(run))
    assert clone["return_score_greedy"] > 0.9
    gate = ["gate", clone["checkpoint"], "--against", "expert", "--episodes", "40"]
    verdict = told(capsys, *gate, "--deterministic")
    assert verdict["verdict"] == "PASS"
    assert verdict["env"] == room_id("Empty-Random-5x5")


@pytest.mark.torch
@pytest.mark.slow
def test_ppo_finds_the_goal_that_a_random_walk_seldom_finds(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    config = RunConfig.model_validate({"env": "minigrid-empty-5x5"})
    params = {"timesteps": 12_000, "n_envs": 8, "n_steps": 64, "evaluation_episodes": 20}
    result = run_strategy("ppo", params, config=config, run_dir=tmp_path / "run")
    assert isinstance(result, PPOTrainingResultDTO)
    assert result.final_reward_mean is not None
    assert result.final_reward_mean > 0.85  # a random walk gets about 0.3
