"""Who demonstrates in which environment: the controllers are what they claim to be, and depend on nothing else."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from gymnasium.envs.box2d.lunar_lander import heuristic
from numpy.typing import NDArray

from tests.fakes import SPEC
from townlet_train.cli import main
from townlet_train.config import RunConfig
from townlet_train.envs.build import build_env
from townlet_train.envs.episodes import run_episodes
from townlet_train.envs.gymnasium import GymnasiumVectorEnv, make_gymnasium
from townlet_train.envs.protocol import EnvSpec, Observation
from townlet_train.errors import UsageError
from townlet_train.policies.experts import EXPERTS, build_expert
from townlet_train.policies.protocol import Policy

SIZES = {"CartPole-v1": 4, "LunarLander-v3": 8, "LunarLanderContinuous-v3": 8}


def expert_of(env_id: str) -> tuple[EnvSpec, Policy]:
    spec = build_env(RunConfig(env=env_id), 1).spec
    return spec, build_expert(spec, EXPERTS)


def seen(features: NDArray[Any], spec: EnvSpec) -> Observation:
    """An observation of these features (n_envs, n_agents, n_features), without a map, everything being legal."""
    rows = features.shape[:2]
    return Observation(
        features.astype(np.float32),
        np.zeros((*rows, *spec.map_shape), np.uint8),
        np.ones((*rows, len(spec.action_names)), np.bool_),
    )


def flown(env_id: str, ticks: int) -> NDArray[np.float32]:
    """What eight landers see in (8 * ticks, 1, 8): half of them fly by chance."""
    env = build_env(RunConfig(env=env_id), 8)
    expert, chance = build_expert(env.spec, EXPERTS), np.random.default_rng(1)
    observation, rows = env.reset(np.arange(8)), []
    for _ in range(ticks):
        rows.append(observation.features.copy())
        actions = expert.act(observation, np.zeros((8, 1)))
        strange = chance.uniform(-1, 1, actions[4:].shape)
        actions[4:] = strange if env.spec.action_shape else np.floor(2 * (strange + 1))
        observation = env.step(actions).observation
    return np.concatenate(rows)


@pytest.mark.parametrize("env_id", ["LunarLander-v3", "LunarLanderContinuous-v3"])
def test_the_landers_expert_is_gymnasiums_own_in_every_state(env_id: str) -> None:
    spec, expert = expert_of(env_id)
    chance = np.random.default_rng(0)
    invented = chance.normal(0, [0.5, 0.7, 0.5, 0.5, 0.3, 0.3, 1, 1], (3000, 1, 8))
    invented[..., 6:] = invented[..., 6:] > 0.7
    features = np.concatenate([flown(env_id, 500), invented.astype(np.float32)])
    ours = expert.act(seen(features, spec), np.zeros((len(features), 1)))
    env = SimpleNamespace(unwrapped=SimpleNamespace(continuous=bool(spec.action_shape)))
    library = np.array([heuristic(env, row) for row in features[:, 0]])
    assert np.array_equal(ours[:, 0], library.astype(ours.dtype))
    assert len(np.unique(ours)) >= 4
    assert {0.0, 1.0} == {*features[..., 6].ravel().tolist()}


@pytest.mark.parametrize("env_id", SIZES)
def test_an_expert_is_a_function_of_the_observation_and_of_nothing_else(env_id: str) -> None:
    spec, expert = expert_of(env_id)
    chance = np.random.default_rng(0)
    features = chance.normal(size=(60, 5, SIZES[env_id])).astype(np.float32)
    before, shape = features.copy(), (60, 5, *spec.action_shape)
    actions = expert.act(seen(features, spec), chance.random(shape))
    assert actions.shape == shape
    assert np.array_equal(features, before)
    order = chance.permutation(60)
    again = build_expert(spec, EXPERTS).act(seen(features[order], spec), chance.random(shape))
    assert np.array_equal(again, actions[order])
    one = expert.act(seen(features[7:8, 2:3], spec), np.zeros((1, 1, *spec.action_shape)))
    assert np.array_equal(one[0, 0], actions[7, 2])


def test_the_cart_poles_expert_never_lets_it_fall() -> None:
    env = GymnasiumVectorEnv(partial(make_gymnasium, "CartPole-v1"), 100)
    episodes = run_episodes(build_expert(env.spec, EXPERTS).act, env, range(100))
    assert (episodes.lengths == 500).all()


def test_the_landers_expert_lands() -> None:
    env = GymnasiumVectorEnv(partial(make_gymnasium, "LunarLander-v3"), 30)
    assert run_episodes(build_expert(env.spec, EXPERTS).act, env, range(30)).returns.mean() > 200


def test_an_expert_plays_its_environment_on_another_engine_too() -> None:
    spec, _ = expert_of("CartPole-v1")
    elsewhere = EnvSpec("envpool:CartPole-v1", spec.feature_names, spec.action_names)
    assert build_expert(elsewhere, EXPERTS).name == "expert"


def test_where_nobody_plays_it_is_said_who_plays_what_and_how_to_add_one() -> None:
    with pytest.raises(UsageError) as refusal:
        build_expert(SPEC, {"b": EXPERTS["town"], "a": EXPERTS["town"]})
    assert str(refusal.value) == (
        f"No expert plays {SPEC.env_id!r}; there is one for a, b. Evaluate random or idle, learn from "
        "demonstrations of your own (--manifest, --bc-manifest), or add an expert by the hook "
        f"townlet_train_experts of a plugin."
    )


def test_an_environment_of_a_familiar_name_and_another_shape_is_refused() -> None:
    with pytest.raises(UsageError, match=r"reads 8 features and chooses among 4 actions, .* has 2 and 4"):
        build_expert(EnvSpec("LunarLander-v3", ("x", "y"), ("a", "b", "c", "d")), EXPERTS)


def test_an_experts_landings_are_captured_whole_and_again_alike(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def captured(name: str) -> dict[str, Any]:
        arguments = ["--env", "LunarLander-v3", "--envs", "3", "--ticks", "600", "--seed", "40"]
        assert main(["rollout", "capture", *arguments, "--output", str(tmp_path / name), "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    document = captured("once")
    assert (document["env"], document["policy"], document["frames"]) == ("LunarLander-v3", "expert", 1800)
    assert document["seeds"] == [40, 41, 42]
    assert document["complete_episodes"] == document["episodes"] - 3 > 0
    assert document["illegal_actions"] == 0
    manifest = json.loads((tmp_path / "once/rollout_sample_manifest.json").read_text())
    assert manifest["metadata"]["env_id"] == "LunarLander-v3"

    first = np.load(tmp_path / "once/rollout_sample_seed41_agent0_001.npz", allow_pickle=False)
    env = make_gymnasium("LunarLander-v3")
    observation, _ = env.reset(seed=41)
    for features, action, reward in zip(first["features"], first["actions"], first["rewards"], strict=True):
        assert np.array_equal(features, observation)
        assert action == heuristic(env, observation)
        observation, paid, terminated, _, _ = env.step(int(action))
        assert reward == np.float32(paid)
    assert terminated
    assert first["terminated"].tolist() == [False] * (len(first["rewards"]) - 1) + [True]
    assert first["action_mask"].all()

    captured("twice")
    for path in sorted((tmp_path / "once").iterdir()):
        assert path.read_bytes() == (tmp_path / "twice" / path.name).read_bytes()


@pytest.mark.torch
def test_a_clone_of_a_gymnasium_expert_is_compared_with_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch")
    capture, env = tmp_path / "capture", ["--env", "CartPole-v1"]
    assert main(["rollout", "capture", *env, "--envs", "8", "--ticks", "500", "--output", str(capture)]) == 0
    capsys.readouterr()
    arguments = ["--manifest", str(capture), "--output-dir", str(tmp_path / "run"), "--json"]
    assert main(["bc", *env, *arguments, "--set", "evaluation.episodes=8"]) in (0, 1)
    document = json.loads(capsys.readouterr().out)
    rows = {row["policy"]: row for row in document["policies"]}
    assert rows.keys() == {"expert", "clone, sampled", "clone, greedy", "random"}
    assert (rows["expert"]["mean_return"], rows["expert"]["score"]) == (500, 1)
    assert rows["clone, greedy"]["score"] > 0.5
    assert {row["faints_per_10k"] for row in rows.values()} == {None}
