"""Evaluation where episodes end when they end: each seed's first one, whole, whatever is evaluated beside it."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import gymnasium
import numpy as np
import pytest

from tests.conformance import CUT_AFTER, KnownValues
from tests.policies import small_checkpoint
from townlet_train.cli import main
from townlet_train.data.checkpoint import save_checkpoint
from townlet_train.envs.gymnasium import GymnasiumVectorEnv, make_gymnasium
from townlet_train.envs.streams import stream
from townlet_train.errors import UsageError
from townlet_train.policies.network import NetworkSpec
from townlet_train.policies.scripted import scripted_policy
from townlet_train.results import EvaluationDTO
from townlet_train.services.evaluation import evaluate

SEEDS = range(500, 511)


def evaluated(env_id: str, n_envs: int, policy: str = "random") -> EvaluationDTO:
    env = GymnasiumVectorEnv(partial(make_gymnasium, env_id), n_envs)
    return evaluate(scripted_policy(policy, env.spec), env, SEEDS, deterministic=False)


@pytest.mark.parametrize("env_id", ["CartPole-v1", "LunarLander-v3", "Pendulum-v1"])
def test_a_seeds_episode_does_not_depend_on_the_seeds_beside_it(env_id: str) -> None:
    alone, some, together = (evaluated(env_id, n_envs) for n_envs in (1, 4, 11))
    assert alone == some == together
    assert len(set(alone.episode_returns)) > len(SEEDS) // 2


def test_an_episode_is_the_first_of_its_seed_in_the_plain_environment() -> None:
    result, plain = evaluated("CartPole-v1", 4), gymnasium.make("CartPole-v1")
    for index, seed in enumerate(SEEDS):
        plain.reset(seed=seed)
        uniforms, total, over = stream(seed, "policy").random(500), 0.0, False
        while not over:
            _, reward, terminated, truncated, _ = plain.step(int(2 * uniforms[int(total)]))
            total, over = total + float(reward), terminated or truncated
        assert (result.episode_returns[index], result.episode_lengths[index]) == (total, total)


def test_only_the_first_episode_counts() -> None:
    env = GymnasiumVectorEnv(KnownValues, 2)
    result = evaluate(scripted_policy("idle", env.spec), env, [1, 2, 3], deterministic=True)
    assert result.episode_lengths[:2] == (CUT_AFTER, CUT_AFTER)
    assert all(10 < value < 15 for value in result.episode_returns[:2])  # 1+2+3+4 and one of them again
    assert result.events == {}


def test_progress_counts_episodes_and_is_heard_every_tick() -> None:
    heard: list[tuple[int, int]] = []
    env = GymnasiumVectorEnv(KnownValues, 2)
    policy = scripted_policy("idle", env.spec)
    evaluate(policy, env, [1, 2], deterministic=True, report=lambda d, t: heard.append((d, t)))
    assert heard == [(0, 2)] * (CUT_AFTER - 1) + [(2, 2)]


@pytest.mark.parametrize("policy", ["random", "idle"])
@pytest.mark.parametrize("env_id", ["LunarLander-v3", "Pendulum-v1"])
def test_any_gymnasium_id_is_evaluated_from_the_command_line(
    env_id: str, policy: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["evaluate", "--env", env_id, "--policy", policy, "--episodes", "3", "--json"]
    assert main(arguments) == 0
    first = capsys.readouterr().out
    document = json.loads(first)
    assert (document["env"], document["seeds"]) == (env_id, [20001, 20002, 20003])
    assert len(document["episode_lengths"]) == 3
    assert np.mean(document["episode_returns"]) == pytest.approx(document["mean"])
    assert main(arguments) == 0
    assert capsys.readouterr().out == first


def test_where_no_expert_plays_that_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "--env", "Acrobot-v1", "--policy", "expert"]) == 3
    assert "No expert plays 'Acrobot-v1'; there is one for CartPole-v1," in capsys.readouterr().err


def test_the_fasting_expert_plays_the_town_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "--env", "CartPole-v1", "--policy", "fasting"]) == 3
    assert "'fasting' plays the town, the environment is 'CartPole-v1'" in capsys.readouterr().err


def test_a_random_policy_needs_bounds_to_draw_within() -> None:
    class Unbounded(KnownValues):
        action_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32)

    env = GymnasiumVectorEnv(Unbounded, 1)
    with pytest.raises(UsageError, match="no bounds to draw within"):
        scripted_policy("random", env.spec)


def test_episodes_of_any_length_are_captured_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = str(tmp_path / "capture")
    sizes = ["--towns", "2", "--ticks", "100", "--seed", "500", "--output", output, "--json"]
    assert main(["rollout", "capture", "--env", "CartPole-v1", "--policy", "random", *sizes]) == 0
    document = json.loads(capsys.readouterr().out)
    expected = evaluated("CartPole-v1", 2)
    assert (document["frames"], document["terminations"]) == (200, document["complete_episodes"])
    first = np.load(tmp_path / "capture" / "rollout_sample_seed500_agent0_001.npz", allow_pickle=False)
    assert len(first["rewards"]) == expected.episode_lengths[0]


def test_a_policy_away_from_home_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    env = GymnasiumVectorEnv(partial(make_gymnasium, "CartPole-v1"), 1)
    elsewhere = replace(env.spec, env_id="MountainCartPole-v0")
    path = tmp_path / "checkpoint.zip"
    save_checkpoint(path, small_checkpoint(NetworkSpec("mlp", 4, 2, (8,)), elsewhere))
    assert main(["evaluate", str(path), "--env", "CartPole-v1", "--episodes", "2"]) == 6
    assert "was trained in environment 'MountainCartPole-v0'" in capsys.readouterr().err


def test_a_checkpoint_is_evaluated_and_gated_at_home_unless_an_environment_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    env = GymnasiumVectorEnv(partial(make_gymnasium, "CartPole-v1"), 1)
    path = tmp_path / "checkpoint.zip"
    save_checkpoint(path, small_checkpoint(NetworkSpec("mlp", 4, 2, (8,)), env.spec))
    assert main(["evaluate", str(path), "--episodes", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["env"] == "CartPole-v1"
    assert main(["gate", str(path), "--against", "random", "--episodes", "20", "--json"]) in (0, 10, 11)
    assert json.loads(capsys.readouterr().out)["env"] == "CartPole-v1"
    assert main(["gate", str(path), "--against", "random", "--env", "Acrobot-v1"]) == 11
    assert "Gate it by itself, with --env CartPole-v1" in capsys.readouterr().out
