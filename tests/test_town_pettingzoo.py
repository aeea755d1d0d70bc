"""The town passes PettingZoo's own tests."""

from __future__ import annotations

import pytest
from pettingzoo.test import parallel_api_test, parallel_seed_test

from townlet_train.config.town import TownConfig
from townlet_train.envs import town_v0
from townlet_train.errors import UsageError


def test_the_town_passes_the_parallel_api_test():
    parallel_api_test(town_v0.parallel_env(), num_cycles=1500)


def test_the_town_passes_the_parallel_seed_test():
    parallel_seed_test(town_v0.parallel_env)


def test_a_fainting_resident_is_replaced_in_its_home_and_the_infos_say_so():
    env = town_v0.parallel_env(
        TownConfig.model_validate({"needs": {"start_low": 0.031, "start_high": 0.0311}})
    )
    env.reset(seed=1)
    _, rewards, terminated, _, infos = env.step(dict.fromkeys(env.agents, 0))
    assert all(info["life_ended"] for info in infos.values())
    assert not any(terminated.values())
    assert max(rewards.values()) < -5
    assert len(env.agents) == 6


def test_two_resets_without_a_seed_are_two_episodes_of_one_sequence():
    def second_start() -> bytes:
        env = town_v0.parallel_env()
        first = env.reset(seed=4)[0]["home_0"]["observation"]
        second = env.reset()[0]["home_0"]["observation"]
        assert (first != second).any()
        return second.tobytes()

    assert second_start() == second_start()


def test_a_step_after_the_end_or_without_everybody_is_refused_in_words():
    env = town_v0.parallel_env()
    with pytest.raises(UsageError, match="Call reset"):
        env.step({})
    env.reset(seed=1)
    with pytest.raises(UsageError, match="an action for each of home_0"):
        env.step({"home_0": 0})
