"""How many processes step: by what a step costs, and without a trace in the numbers."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

from tests.conformance import KnownValues
from tests.strange_envs import Slow, SlowAtFirst
from townlet_train.config import RunConfig
from townlet_train.envs import choice
from townlet_train.envs.build import build_env
from townlet_train.envs.choice import choose_processes, measure_step
from townlet_train.envs.gymnasium import GymnasiumVectorEnv, make_gymnasium
from townlet_train.envs.town import TownVectorEnv
from townlet_train.envs.workers import WorkerVectorEnv


@pytest.mark.parametrize(
    ("step_sec", "n_envs", "n_cores", "chosen"),
    [
        (30e-6, 16, 2, 2),  # LunarLander-v3
        (30e-6, 16, 1, 1),  # nowhere to go
        (30e-6, 1, 2, 1),  # nothing to share
        (30e-6, 2, 2, 1),  # synchronisation eats what is saved
        (8e-6, 16, 2, 1),  # CartPole-v1
        (5e-3, 2, 8, 2),  # where a step is dear, two environments are enough
        (5e-3, 9, 8, 5),  # two each are as fast as eight processes of which one has two
        (5e-3, 8, 64, 8),  # never more processes than environments
    ],
)
def test_processes_are_as_many_as_pay(step_sec: float, n_envs: int, n_cores: int, chosen: int) -> None:
    assert choose_processes(step_sec, n_envs, n_cores) == chosen


def test_a_dearer_step_never_takes_fewer_processes() -> None:
    costs = np.geomspace(1e-6, 1, 60)
    for n_envs in (1, 3, 16, 64):
        chosen = [choose_processes(float(cost), n_envs, 16) for cost in costs]
        assert chosen == sorted(chosen)
        assert (chosen[0], chosen[-1]) == (1, min(n_envs, 16))


def test_the_cost_of_a_step_is_no_less_than_its_time_and_forgets_a_first_step_that_loads_something() -> None:
    assert measure_step(GymnasiumVectorEnv(Slow, 1)) > 2e-3
    assert measure_step(GymnasiumVectorEnv(SlowAtFirst, 1)) < 0.25


@pytest.mark.parametrize("env_id", ["Taxi-v4", "Pendulum-v1", "CartPole-v1"])
def test_any_environment_can_be_measured(env_id: str) -> None:
    assert 0 < measure_step(GymnasiumVectorEnv(lambda: make_gymnasium(env_id), 1)) < 1


@pytest.mark.parametrize(
    ("load", "free"),
    [
        ("0.00 0.01 0.05 1/109 4242", 4),
        ("9.00 9.01 9.05 1/109 4242", 4),  # what was a minute ago is over
        ("0.00 0.01 0.05 3/109 4242", 2),
        ("0.00 0.01 0.05 9/109 4242", 1),
        ("nobody knows", 4),
    ],
)
def test_cores_that_others_keep_busy_are_not_free(
    load: str, free: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "loadavg").write_text(load)
    monkeypatch.setattr(choice, "LOAD", tmp_path / "loadavg")
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3}, raising=False)
    assert choice.free_cores() == free


@pytest.fixture
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "free_cores", lambda: 2)


@pytest.mark.usefixtures("two_cores")
@pytest.mark.parametrize(
    ("entry_point", "kind"), [(Slow, WorkerVectorEnv), (KnownValues, GymnasiumVectorEnv)]
)
def test_the_choice_is_logged_and_leaves_no_trace_in_the_numbers(
    entry_point: Any, kind: Any, caplog: pytest.LogCaptureFixture
) -> None:
    gymnasium.register("Measured-v0", entry_point=entry_point)
    caplog.set_level(logging.INFO)
    try:
        config = RunConfig(env="Measured-v0")
        chosen, plain = build_env(config, 4, n_workers=None), build_env(config, 4)
    finally:
        del gymnasium.registry["Measured-v0"]
    assert type(chosen) is kind
    assert "A step of Measured-v0 takes" in caplog.text
    assert f"processes that step 4 of them: {2 if kind is WorkerVectorEnv else 1}." in caplog.text
    seeds = np.arange(4)
    np.testing.assert_array_equal(chosen.reset(seeds).features, plain.reset(seeds).features)
    for _ in range(5):
        mine, theirs = (env.step(np.zeros((4, 1), np.int64)) for env in (chosen, plain))
        np.testing.assert_array_equal(mine.observation.features, theirs.observation.features)
        np.testing.assert_array_equal(mine.rewards, theirs.rewards)
    if isinstance(chosen, WorkerVectorEnv):
        chosen.close()


@pytest.mark.usefixtures("two_cores")
def test_an_environment_of_the_running_script_stays_in_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(Slow, "__module__", "__main__")
    monkeypatch.setattr(sys.modules["__main__"], "Slow", Slow, raising=False)
    gymnasium.register("Script-v0", entry_point=Slow)
    try:
        assert isinstance(build_env(RunConfig(env="Script-v0"), 4, n_workers=None), GymnasiumVectorEnv)
    finally:
        del gymnasium.registry["Script-v0"]
    assert (
        "Script-v0 is stepped in one process. The environment is defined in the running script" in caplog.text
    )


def test_the_town_needs_one_process() -> None:
    assert isinstance(build_env(RunConfig(), 64, n_workers=None), TownVectorEnv)
