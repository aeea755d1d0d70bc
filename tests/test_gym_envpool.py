"""EnvPool's environments: chosen by name alone, labelled, and ending their episodes as ours do."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.envs.box2d.lunar_lander import heuristic
from numpy.typing import NDArray

from tests.conformance import WRONG, Bootstrap, KnownValues, right, temporal_differences
from tests.policies import small_checkpoint
from townlet_train.cli import main
from townlet_train.config import RunConfig
from townlet_train.data.checkpoint import load_checkpoint, save_checkpoint
from townlet_train.envs.autoreset import AdaptedVectorEnv
from townlet_train.envs.build import build_env
from townlet_train.envs.envpool import PoolVectorEnv
from townlet_train.envs.episodes import run_episodes
from townlet_train.envs.gymnasium import GymnasiumVectorEnv, make_gymnasium
from townlet_train.envs.protocol import Observation, VectorEnv, episodes_over
from townlet_train.errors import EnvironmentCreationError, InexactStateError, MissingExtraError, UsageError
from townlet_train.policies.network import NetworkSpec
from townlet_train.services.evaluation import evaluate_as_configured
from townlet_train.services.statistics import bootstrap_interval


class KnownPool:
    """A pool of environments with known values, as EnvPool behaves: it resets in the step after an end."""

    observation_space, action_space = KnownValues.observation_space, KnownValues.action_space
    config: dict[str, Any] = {}

    def __init__(self, seeds: list[int]) -> None:
        self._envs, self._seeds = [KnownValues() for _ in seeds], dict(enumerate(seeds))
        self._over = np.zeros(len(seeds), np.bool_)

    def reset(self, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        rows = np.arange(len(self._envs)) if options is None else np.flatnonzero(options["reset_mask"])
        self._over[rows] = False
        shown = [self._envs[row].reset(seed=self._seeds.pop(row, None))[0] for row in rows]
        return np.stack(shown), {"env_id": rows}

    def step(self, actions: NDArray[Any]) -> tuple[Any, ...]:
        late = self._over.copy()
        moved = [
            (env.reset()[0], 0.0, False, False) if is_late else env.step(action)[:4]
            for env, action, is_late in zip(self._envs, actions, late, strict=True)
        ]
        observations, rewards, terminated, truncated = (np.array(part) for part in zip(*moved, strict=True))
        self._over = terminated | truncated
        return observations, rewards, terminated, truncated, {}


class Untold(PoolVectorEnv):
    """Wrong: leaves a pool alone and takes the step that resets for one like any other."""

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        if seed is not None:
            return super().reset(seed=seed)
        return self._shown, {}

    def step(self, actions: NDArray[Any]) -> tuple[Any, ...]:
        step = super().step(actions)
        self._shown = step[0]
        return step


def known(kind: type[PoolVectorEnv] = PoolVectorEnv) -> AdaptedVectorEnv:
    return AdaptedVectorEnv(kind(KnownPool, "envpool:Known-v0", 3))


def test_a_pool_ends_episodes_rightly() -> None:
    np.testing.assert_allclose(temporal_differences(known(), right), 0, atol=1e-4)


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.__name__)
def test_every_wrong_reading_of_a_pools_end_shows(wrong: Bootstrap) -> None:
    assert abs(temporal_differences(known(), wrong)).max() > 0.5


def test_a_pool_left_alone_would_show() -> None:
    assert abs(temporal_differences(known(Untold), right)).max() > 0.5


def test_a_pool_plays_the_episodes_of_its_seeds() -> None:
    plain, pool, seeds = GymnasiumVectorEnv(KnownValues, 3), known(), np.array([4, 5, 6])
    for _ in range(2):  # the seeds count again at every reset
        np.testing.assert_array_equal(pool.reset(seeds).features, plain.reset(seeds).features)
        plain = GymnasiumVectorEnv(KnownValues, 3)
        plain.reset(seeds)
        for _ in range(30):
            mine, theirs = (env.step(np.zeros((3, 1), np.int64)) for env in (pool, plain))
            np.testing.assert_array_equal(mine.observation.features, theirs.observation.features)
            np.testing.assert_array_equal(mine.truncated, theirs.truncated)


def test_a_pools_state_is_refused_with_the_way_out() -> None:
    sentence = r"envpool:Known-v0 inside PoolVectorEnv cannot be brought back .* --env Known-v0\."
    with pytest.raises(InexactStateError, match=sentence):
        known().get_state()


def test_without_envpool_the_command_that_brings_it_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "envpool", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'townlet-train\[envpool\]'"):
        build_env(RunConfig(env="envpool:CartPole-v1"), 1)
    code = main(["evaluate", "--env", "envpool:CartPole-v1", "--policy", "random"])
    assert (code, "pip install 'townlet-train[envpool]'" in " ".join(capsys.readouterr().err.split())) == (
        5,
        True,
    )


@pytest.fixture
def envpool() -> Any:
    return pytest.importorskip("envpool", reason="the extra envpool is large, and optional")


def pool_of(task: str, n_envs: int, n_workers: int | None = 1) -> VectorEnv:
    return build_env(RunConfig(env=f"envpool:{task}"), n_envs, n_workers=n_workers)


@pytest.mark.usefixtures("envpool")
def test_an_environment_is_labelled_wherever_it_goes(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    env, plain = pool_of("LunarLander-v3", 2), build_env(RunConfig(env="LunarLander-v3"), 2)
    assert env.spec.env_id == "envpool:LunarLander-v3"
    assert "like Gymnasium's on average, not step by step" in caplog.text
    shown, expected = vars(env.spec), vars(plain.spec)
    assert {name for name in shown if shown[name] != expected[name]} == {"env_id"}
    assert type(plain) is GymnasiumVectorEnv


@pytest.mark.usefixtures("envpool")
def test_the_same_seed_is_another_episode_than_gymnasiums() -> None:
    """Were this to fail, the label could go."""
    seeds = np.arange(8)
    mine = pool_of("LunarLander-v3", 8).reset(seeds).features
    theirs = build_env(RunConfig(env="LunarLander-v3"), 8).reset(seeds).features
    assert not np.isclose(mine, theirs).all(axis=-1).any()


@pytest.mark.usefixtures("envpool")
@pytest.mark.parametrize("task", ["LunarLander-v3", "LunarLanderContinuous-v3", "FrozenLake-v1"])
def test_a_seeds_episodes_depend_on_nothing_else(task: str) -> None:
    first, second, alone = pool_of(task, 3), pool_of(task, 3, n_workers=None), pool_of(task, 1)
    second.reset(np.array([1, 2, 3]))  # and not on what was before
    seeds, rng = np.array([7, 8, 9]), np.random.default_rng(0)
    first.reset(seeds), second.reset(seeds), alone.reset(seeds[1:2])
    for _ in range(300):
        shape = (3, 1, *first.spec.action_shape)
        actions = rng.normal(size=shape).astype(np.float32) if shape[2:] else rng.integers(0, 4, shape)
        one, two, lone = first.step(actions), second.step(actions), alone.step(actions[1:2])
        assert one.observation.features.tobytes() == two.observation.features.tobytes()
        assert one.final_observation.features.tobytes() == two.final_observation.features.tobytes()
        assert lone.observation.features.tobytes() == one.observation.features[1:2].tobytes()
        assert lone.rewards.tobytes() == one.rewards[1:2].tobytes()


@pytest.mark.usefixtures("envpool")
def test_every_transition_of_a_pool_is_one_of_gymnasiums() -> None:
    """CartPole-v1 is a function of what it shows, so that each transition can be repeated on its own."""
    env, plain = pool_of("CartPole-v1", 4), gymnasium.make("CartPole-v1").unwrapped
    observation, elapsed, ended = env.reset(np.arange(4)), np.zeros(4, int), np.zeros(2, int)
    plain.reset(seed=0)
    before = observation.features[:, 0].copy()
    for tick in range(1200):
        upright = (before[:, 2] + before[:, 3] > 0).astype(np.int64)
        actions = np.where(np.arange(4) < 2, upright, tick % 3 % 2)  # two balance until they are cut
        step = env.step(actions[:, None])
        over, elapsed = episodes_over(env.spec, step), elapsed + 1
        for index in range(4):
            plain.state, plain.steps_beyond_terminated = before[index].astype(np.float64), None  # type: ignore[attr-defined]
            expected, reward, terminated, *_ = plain.step(int(actions[index]))
            shown = (step.final_observation if over[index] else step.observation).features[index, 0]
            np.testing.assert_allclose(shown, expected, rtol=1e-4, atol=1e-5)
            assert (step.rewards[index, 0], step.terminated[index, 0]) == (reward, terminated)
            assert step.truncated[index, 0] == (elapsed[index] == 500 and not terminated)
        assert (abs(step.observation.features[over]) <= 0.05).all()  # where an episode of this task begins
        ended += [step.terminated.sum(), step.truncated.sum()]
        elapsed[over] = 0
        before = step.observation.features[:, 0].copy()
    assert ended.min() > 2


@pytest.mark.usefixtures("envpool")
def test_what_learned_in_a_pool_plays_in_gymnasium(tmp_path: Path) -> None:
    spec = NetworkSpec("mlp", 4, 2, hidden_sizes=(8,))
    trained = small_checkpoint(spec, pool_of("CartPole-v1", 1).spec)
    save_checkpoint(tmp_path / "c.zip", trained)
    assert load_checkpoint(tmp_path / "c.zip").info.env_id == "envpool:CartPole-v1"
    for env_id in ("CartPole-v1", "envpool:CartPole-v1"):
        config = RunConfig.model_validate({"env": env_id, "evaluation": {"episodes": 4}})
        assert evaluate_as_configured(config, checkpoint=tmp_path / "c.zip").env == env_id


@pytest.mark.usefixtures("envpool")
@pytest.mark.parametrize(
    ("env_id", "error", "sentence"),
    [
        (
            "envpool:LunarLandr-v3",
            EnvironmentCreationError,
            "no environment named 'LunarLandr-v3'. Did you mean",
        ),
        ("envpool:", EnvironmentCreationError, "no environment named ''"),
    ],
)
def test_what_envpool_does_not_have_is_refused_in_words(
    env_id: str, error: type[Exception], sentence: str
) -> None:
    with pytest.raises(error, match=sentence):
        build_env(RunConfig(env=env_id), 1)


@pytest.mark.usefixtures("envpool")
def test_a_seed_that_envpool_cannot_take_is_refused() -> None:
    with pytest.raises(UsageError, match="takes seeds up to 2147483647, 2147483648 was given"):
        pool_of("CartPole-v1", 1).reset(np.array([2**31]))


class Heuristic:
    """Lands more often than not: the controller that Gymnasium ships with its lander."""

    name = "heuristic"

    def __init__(self) -> None:
        self._env = make_gymnasium("LunarLander-v3").unwrapped

    def act(self, observation: Observation, uniforms: NDArray[np.float64]) -> NDArray[np.int64]:
        return np.array([[heuristic(self._env, row)] for row in observation.features[:, 0]])


@pytest.mark.slow
@pytest.mark.usefixtures("envpool")
def test_a_fixed_policy_earns_the_same_on_average_in_a_pool() -> None:
    n = 400
    both = [
        run_episodes(Heuristic().act, build_env(RunConfig(env=env_id), 50), range(1000, 1000 + n))
        for env_id in ("LunarLander-v3", "envpool:LunarLander-v3")
    ]
    interval = bootstrap_interval(both[0].returns[:, 0] - both[1].returns[:, 0], np.random.default_rng(0))
    assert interval.low < 0 < interval.high
    assert interval.high - interval.low < 60  # of returns around 240: narrow enough to mean something
