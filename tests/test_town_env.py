"""The town as an environment: exact, reproducible, and showing what is there."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from tests.towns import ArrangedTown, preset, records
from townlet_train.config import RunConfig
from townlet_train.config.town import TownConfig
from townlet_train.envs.build import build_env
from townlet_train.envs.town import TownVectorEnv
from townlet_train.errors import DataError, EnvironmentCreationError, InfeasibleTownError, UsageError
from townlet_train.policies.scripted import scripted_policy
from townlet_train.sim.layout import (
    ACTIONS,
    DORMANT_FEATURES,
    EXPERT_FEATURES,
    FEATURE_INDEX,
    FEATURES,
    MAP_RADIUS,
    UPSTREAM_FEATURES,
)


def play(env: TownVectorEnv, seeds, n_ticks: int, policy: str = "random", draw_seed: int = 5):
    """Rewards (n_ticks, n_envs, n_agents) and the final observation's features and maps."""
    rng = np.random.default_rng(draw_seed)
    actor = scripted_policy(policy, env.spec)
    observation = env.reset(np.asarray(seeds))
    rewards = []
    for _ in range(n_ticks):
        step = env.step(actor.act(observation, rng.random((env.n_envs, env.n_agents))))
        observation = step.observation
        rewards.append(step.rewards.copy())
    return np.array(rewards), observation.features.copy(), observation.maps.copy()


def test_the_same_seeds_give_the_same_bytes():
    first = play(TownVectorEnv(TownConfig(), 3), [1, 2, 3], 200)
    second = play(TownVectorEnv(TownConfig(), 3), [1, 2, 3], 200)
    assert all(one.tobytes() == two.tobytes() for one, two in zip(first, second, strict=True))


def test_a_town_does_not_depend_on_its_neighbours():
    together = play(TownVectorEnv(TownConfig(), 3), [7, 8, 9], 700, policy="expert")[0]
    alone = play(TownVectorEnv(TownConfig(), 1), [8], 700, policy="expert")[0]
    assert (together[:, 1] == alone[:, 0]).all()


def test_different_seeds_give_different_towns():
    rewards = play(TownVectorEnv(TownConfig(), 2), [1, 2], 100, policy="expert")[0]
    assert not np.array_equal(rewards[:, 0], rewards[:, 1])


def test_a_saved_state_continues_as_the_same_run_in_another_environment():
    config = TownConfig.model_validate(
        {"perturbations": {"price_spike_per_day": 5, "power_outage_per_day": 5}}
    )
    env, other = TownVectorEnv(config, 4), TownVectorEnv(config, 4)
    play(env, [1, 2, 3, 4], 333)
    state = env.get_state()
    shown = other.set_state(state)
    rng, actor = np.random.default_rng(0), scripted_policy("random", env.spec)
    observation = env.set_state(state)
    for _ in range(400):  # over the end of the episode at tick 640
        assert observation.features.tobytes() == shown.features.tobytes()
        assert observation.maps.tobytes() == shown.maps.tobytes()
        assert observation.action_mask.tobytes() == shown.action_mask.tobytes()
        actions = actor.act(observation, rng.random((4, 6)))
        step, twin = env.step(actions), other.step(actions)
        assert step.rewards.tobytes() == twin.rewards.tobytes()
        observation, shown = step.observation, twin.observation
    assert env.get_state()["towns"].tobytes() == other.get_state()["towns"].tobytes()


def test_a_state_of_a_town_with_other_rules_is_refused():
    env, other = TownVectorEnv(TownConfig(), 2), TownVectorEnv(TownConfig(grid_size=12), 2)
    env.reset(np.array([1, 2]))
    with pytest.raises(DataError, match="other rules"):
        other.set_state(env.get_state())


def test_a_state_of_another_number_of_towns_is_refused():
    env = TownVectorEnv(TownConfig(), 2)
    env.reset(np.array([1, 2]))
    with pytest.raises(DataError, match=r"holds towns of shape \(2, \d+\), expected \(3, \d+\): 3 towns of"):
        TownVectorEnv(TownConfig(), 3).set_state(env.get_state())


def test_a_state_goes_through_a_file_of_arrays():
    env, other = TownVectorEnv(TownConfig(), 2), TownVectorEnv(TownConfig(), 2)
    play(env, [1, 2], 50)
    state = env.get_state()
    shown = other.set_state(load_arrays(save_arrays(state)))
    assert shown.features.tobytes() == env.set_state(state).features.tobytes()
    assert {name: array.tobytes() for name, array in other.get_state().items()} == {
        name: array.tobytes() for name, array in state.items()
    }


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda state: state.pop("towns"), "has nothing as 'towns', expected bytes"),
        (
            lambda state: state.update(rules=np.zeros(32)),
            "has an array of float64 as 'rules', expected bytes",
        ),
        (lambda state: state.update(towns=state["towns"][:, :-1]), r"holds towns of shape \(2, "),
    ],
    ids=["no towns", "rules that are no bytes", "a torn record"],
)
def test_what_is_no_state_of_a_town_is_refused_in_words(change, sentence):
    env = TownVectorEnv(TownConfig(), 2)
    env.reset(np.array([1, 2]))
    state = env.get_state()
    change(state)
    with pytest.raises(DataError, match=sentence):
        env.set_state(state)


def test_the_map_shows_exactly_what_stands_around_an_agent():
    env = TownVectorEnv(TownConfig(), 2)
    rng, actor = np.random.default_rng(1), scripted_policy("random", env.spec)
    observation = env.reset(np.array([4, 5]))
    for _ in range(700):
        observation = env.step(actor.act(observation, rng.random((2, 6)))).observation
    for env_index, town in enumerate(records(env.get_state())):
        for agent in range(6):
            expected = np.zeros((4, 11, 11), np.uint8)
            here = town["position"][agent].astype(int)
            expected[0, MAP_RADIUS, MAP_RADIUS] = 1
            marks = [(1, town["position"][other], True) for other in range(6)]
            marks += [(2, town["object_position"][item], True) for item in range(4)]
            marks += [(3, town["object_position"][item], town["holder"][item] >= 0) for item in range(4)]
            for channel, place, shown in marks:
                dx, dy = place.astype(int) - here
                if shown and max(abs(dx), abs(dy)) <= MAP_RADIUS:
                    expected[channel, dy + MAP_RADIUS, dx + MAP_RADIUS] = 1
            assert (observation.maps[env_index, agent] == expected).all()


def test_features_tell_the_state_they_are_named_after():
    scene = ArrangedTown()

    def arrange(town):
        town["position"][0] = (2, 4)
        town["needs"][0] = (0.4, 0.2, 0.3)
        town["wallet"][0] = 0.1
        town["clock"] = 40
        town["trust"][0, 3], town["familiarity"][0, 3] = 0.5, 0.25
        town["tie_rivalry"][0, 5], town["rivalry"][0, 5] = 0.4, 0.75

    scene.arrange(arrange)
    expected = {
        "need_hunger": 0.4,
        "wallet": 0.1,
        "time_sin": 1.0,
        "time_cos": 0.0,
        "fridge_dx": -1,
        "fridge_dy": -3,
        "fridge_dist": 3,
        "bed_dx_sign": 1,
        "bed_dy_sign": -1,
        "fridge_usable": 0,
        "bed_usable": 1,
        "can_afford_meal": 0,
        "fridge_stock": 5,
        "low_hunger": 1,
        "critical_hunger": 0,
        "critical_hygiene": 1,
        "lowest_hygiene": 1,
        "lowest_energy": 0,
        "rivalry_max": 0.75,
        "rivalry_avoid_count": 1,
        "social_slot0_d8": 0.5,
        "social_slot0_d9": 0.25,
        "social_slot2_d10": 0.4,
        "social_trust_mean": 0.1,
        "social_rivalry_max": 0.4,
        "path_hint_north": 1.0,
        "neighbor_object_ratio": 1.0,
    }
    assert {name: scene.feature(0, name) for name in expected} == pytest.approx(expected, abs=1e-6)


def test_requests_are_legal_exactly_within_reach():
    env = TownVectorEnv(TownConfig(), 8)
    rng, actor = np.random.default_rng(3), scripted_policy("random", env.spec)
    observation = env.reset(np.arange(8))
    for _ in range(300):
        observation = env.step(actor.act(observation, rng.random((8, 6)))).observation
        towns = records(env.get_state())
        distance = np.abs(
            towns["position"][:, :6, None, :].astype(int) - towns["object_position"][:, None, :4, :]
        ).max(-1)
        free = (towns["busy"][:, :6] == 0)[..., None]
        expected = free & (distance <= 1) & (towns["claim"][:, :6, None] != np.arange(4))
        assert (observation.action_mask[..., 5:9] == expected).all()


def test_an_episode_is_cut_for_everybody_at_once_and_shows_its_last_observation():
    env = TownVectorEnv(TownConfig.model_validate({"episode_ticks": 20}), 2)
    env.reset(np.array([1, 2]))
    for tick in range(1, 41):
        step = env.step(np.zeros((2, 6), np.int64))
        assert step.truncated.all() == (tick % 20 == 0)
        assert step.truncated.any() == (tick % 20 == 0)
        if tick % 20 == 0:
            progress = FEATURE_INDEX["episode_progress"]
            assert (step.final_observation.features[..., progress] == 1.0).all()
            assert (step.observation.features[..., progress] == 0.0).all()


def test_the_default_layout_does_not_show_the_previous_action():
    for shown, expected in ((False, 0.0), (True, ACTIONS.index("south") / 13)):
        config = TownConfig.model_validate({"observation": {"previous_action": shown}})
        scene = ArrangedTown(config)
        scene.arrange(lambda town: town["position"].__setitem__(0, (4, 4)))
        scene.step(a0="south")
        assert scene.feature(0, "last_action_id_hash") == pytest.approx(expected)


def test_the_upstream_feature_names_come_first_in_their_order(townlet_data):
    meta = json.loads((townlet_data / "data/bc_datasets/captures/idle_v1/idle_alice.json").read_text())
    old = [name for name in meta["feature_names"] if name in FEATURE_INDEX]
    positions = [FEATURE_INDEX[name] for name in old]
    assert len(UPSTREAM_FEATURES) == 81
    assert len(old) > 60
    assert positions == sorted(positions)
    assert FEATURES[:81] == UPSTREAM_FEATURES


def test_every_feature_the_expert_reads_is_a_flag_or_a_sign():
    env = TownVectorEnv(TownConfig(), 8)
    observation = env.reset(np.arange(8))
    read = [FEATURE_INDEX[name] for name in EXPERT_FEATURES]
    actor, rng = scripted_policy("expert", env.spec), np.random.default_rng(0)
    for _ in range(300):
        assert np.isin(observation.features[..., read], (-1, 0, 1)).all()
        observation = env.step(actor.act(observation, rng.random((8, 6)))).observation


def test_the_expert_is_a_function_of_what_it_says_it_reads():
    env = TownVectorEnv(TownConfig(), 8)
    observation = env.reset(np.arange(8))
    unread = [index for index, name in enumerate(FEATURES) if name not in EXPERT_FEATURES]
    actor, rng = scripted_policy("expert", env.spec), np.random.default_rng(0)
    for _ in range(300):
        actions = actor.act(observation, rng.random((8, 6)))
        noisy = observation.features.copy()
        noisy[..., unread] = rng.normal(size=(8, 6, len(unread)))
        assert (actor.act(observation._replace(features=noisy), rng.random((8, 6))) == actions).all()
        observation = env.step(actions).observation


@pytest.mark.parametrize("policy", ["expert", "fasting", "idle", "random"])
def test_scripted_policies_only_choose_legal_actions(policy):
    env = TownVectorEnv(TownConfig(), 8)
    observation, rng = env.reset(np.arange(8)), np.random.default_rng(0)
    actor = scripted_policy(policy, env.spec)
    for _ in range(400):
        actions = actor.act(observation, rng.random((8, 6)))
        assert np.take_along_axis(observation.action_mask, actions[..., None], -1).all()
        observation = env.step(actions).observation


def test_the_random_policy_takes_every_legal_action_equally_often():
    env = TownVectorEnv(TownConfig(), 1)
    observation = env.reset(np.array([3]))
    actor, draws = scripted_policy("random", env.spec), np.linspace(0, 1, 6000, endpoint=False)
    for draw in (0.0, np.nextafter(1.0, 0.0)):
        chosen = actor.act(observation, np.full((1, 6), draw))
        assert np.take_along_axis(observation.action_mask, chosen[..., None], -1).all()
    legal = int(observation.action_mask[0, 0].sum())
    counts = np.bincount(
        [int(actor.act(observation, np.full((1, 6), draw))[0, 0]) for draw in draws], minlength=len(ACTIONS)
    )
    assert set(counts[counts > 0]) <= {6000 // legal, 6000 // legal + 1}
    assert (counts > 0).sum() == legal


def test_dormant_features_are_named_features():
    assert set(DORMANT_FEATURES) <= set(FEATURES)


@pytest.mark.parametrize(
    ("actions", "sentence"),
    [
        (np.full((1, 6), 14), r"Actions lie in 0..13, 14 was given"),
        (np.full((1, 6), -1), r"Actions lie in 0..13, -1 was given"),
        (np.zeros((6,), np.int64), r"actions has shape \(6,\), expected \(1, 6\)"),
        (np.full((1, 6), 1.9), r"actions are whole numbers, an array of float64 was given"),
    ],
)
def test_wrong_actions_are_refused_in_words(actions, sentence):
    env = TownVectorEnv(TownConfig(), 1)
    env.reset(np.array([1]))
    with pytest.raises(UsageError, match=sentence):
        env.step(actions)


def test_a_town_is_not_stepped_before_it_is_reset():
    with pytest.raises(UsageError, match="reset"):
        TownVectorEnv(TownConfig(), 1).step(np.zeros((1, 6), np.int64))


@pytest.mark.parametrize("seeds", [[1], [1, 2, 3], [1, -2]])
def test_seeds_must_match_the_towns_and_not_be_negative(seeds):
    with pytest.raises(UsageError, match=r"one seed per town|not negative"):
        TownVectorEnv(TownConfig(), 2).reset(np.array(seeds))


def test_an_infeasible_town_is_refused_unless_told_otherwise():
    upstream = preset("upstream-2025")
    with pytest.raises(
        InfeasibleTownError, match=r"infeasible: .* Set town.allow_infeasible=true"
    ) as refusal:
        TownVectorEnv(upstream, 1)
    assert refusal.value.exit_code == 5
    allowed = upstream.model_copy(update={"allow_infeasible": True})
    assert TownVectorEnv(allowed, 1).reset(np.array([1])).features.shape == (1, 6, len(FEATURES))


def test_a_town_without_agents_is_refused():
    with pytest.raises(EnvironmentCreationError, match="at least one agent"):
        TownVectorEnv(TownConfig(n_agents=0), 1)


def test_the_social_stage_of_a_cycle_is_what_the_town_pays():
    schedule = {"schedule": [{"cycle": 2, "stage": "C1"}]}
    paid = []
    for cycle in (0, 2):
        env = build_env(RunConfig.model_validate({"social": schedule}), 4, cycle=cycle)
        actor, observation = scripted_policy("expert", env.spec), env.reset(np.arange(4))
        rewards = []
        for _ in range(200):
            step = env.step(actor.act(observation, np.zeros((4, 6))))
            observation = step.observation
            rewards.append(step.rewards.copy())
        paid.append((np.array(rewards), env.event_counts()))
    (plain, events), (social, same_events) = paid
    assert all((events[name] == same_events[name]).all() for name in events)
    assert events["chat_success"].sum() > 0
    assert social.sum() > plain.sum()


@pytest.mark.parametrize("n_agents", [1, 2, 8])
def test_towns_of_any_size_run(n_agents):
    env = TownVectorEnv(TownConfig.model_validate({"n_agents": n_agents, "allow_infeasible": True}), 2)
    rewards, features, _ = play(env, [1, 2], 200)
    assert rewards.shape == (200, 2, n_agents)
    assert np.isfinite(features).all()


def test_memory_is_linear_in_towns():
    small, large = TownVectorEnv(TownConfig(), 10), TownVectorEnv(TownConfig(), 1000)
    assert large.nbytes == 100 * small.nbytes


@pytest.mark.slow
def test_a_cold_start_says_what_it_is_doing_and_where_the_result_is_kept(tmp_path):
    cold = subprocess.run(
        [sys.executable, "-m", "townlet_train", "town", "warm-up"],
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "Compiling the town's rules" in cold.stderr
    assert str(tmp_path) in cold.stderr
    assert list(tmp_path.rglob("*_advance*.nbc"))


@pytest.mark.slow
def test_where_nothing_can_be_kept_the_town_runs_and_says_so(tmp_path):
    (tmp_path / "townlet-train").write_text("a file where the folder should be")
    cold = subprocess.run(
        [sys.executable, "-m", "townlet_train", "town", "warm-up"],
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "again at every start" in cold.stderr
