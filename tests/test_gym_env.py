"""Gymnasium environments under the vector protocol: the same numbers, and the exact state of any moment."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from tests.strange_envs import Bandit, ForeignGenerator, Hidden, Raising, Shifted, Unflat
from townlet_train.cli import main
from townlet_train.config import RunConfig
from townlet_train.envs.build import build_env
from townlet_train.envs.gymnasium import GymnasiumVectorEnv, make_gymnasium
from townlet_train.envs.protocol import EnvSpec, episodes_over
from townlet_train.errors import (
    DataError,
    EnvironmentCreationError,
    EnvironmentFailedError,
    InexactStateError,
    UsageError,
)

LUNAR, CART, CONTINUOUS = "LunarLander-v3", "CartPole-v1", "Pendulum-v1"
LUNAR_VECTORS = "LunarLanderContinuous-v3"


def build(env_id: str, n_envs: int = 1) -> GymnasiumVectorEnv:
    return GymnasiumVectorEnv(partial(make_gymnasium, env_id), n_envs)


def actions_for(spec: EnvSpec, n_envs: int, seed: int) -> Iterator[NDArray[Any]]:
    """Random actions without end."""
    rng = np.random.default_rng(seed)
    while True:
        if spec.action_names:
            yield rng.integers(0, len(spec.action_names), (n_envs, 1))
        else:
            yield rng.normal(0, 2, (n_envs, 1, *spec.action_shape)).astype(np.float32)


def play(env: GymnasiumVectorEnv, actions: Iterator[NDArray[Any]], n_steps: int) -> list[NDArray[Any]]:
    """Everything that n_steps steps return, copied."""
    seen: list[NDArray[Any]] = []
    for _ in range(n_steps):
        step = env.step(next(actions))
        over = episodes_over(env.spec, step)
        parts = (step.observation.features, step.rewards, step.terminated, step.truncated)
        seen += [part.copy() for part in parts] + [step.final_observation.features[over].copy()]
    return seen


@pytest.mark.parametrize("env_id", [LUNAR, LUNAR_VECTORS, CART, CONTINUOUS])
def test_every_step_is_that_of_the_plain_environment(env_id: str) -> None:
    env, plain = build(env_id), gymnasium.make(env_id)
    space = plain.action_space
    observed, expected = env.reset(np.array([5])).features, plain.reset(seed=5)[0]
    n_over = 0
    for actions in (next(actions_for(env.spec, 1, seed)) for seed in range(600)):
        np.testing.assert_array_equal(observed[0, 0], expected)
        box = isinstance(space, spaces.Box)
        action = np.clip(actions[0, 0], space.low, space.high) if box else int(actions[0, 0])
        expected, reward, terminated, truncated, _ = plain.step(action)
        step = env.step(actions)
        assert (step.terminated[0, 0], step.truncated[0, 0]) == (terminated, truncated)
        assert step.rewards[0, 0] == np.float32(reward)
        if terminated or truncated:
            np.testing.assert_array_equal(step.final_observation.features[0, 0], expected)
            expected, n_over = plain.reset()[0], n_over + 1
        observed = step.observation.features
    assert n_over > 1


@pytest.mark.parametrize(
    ("env_id", "shapes", "actions"),
    [
        (LUNAR, (8, 4), ()),
        (CART, (4, 2), ()),
        (CONTINUOUS, (3, 0), (-2.0,)),
        ("FrozenLake-v1", (16, 4), ()),
        ("Blackjack-v1", (32 + 11 + 2, 2), ()),
    ],
)
def test_a_spec_names_what_an_environment_shows_and_takes(
    env_id: str, shapes: tuple[int, int], actions: tuple[float, ...]
) -> None:
    env = build(env_id, 2)
    observation = env.reset(np.array([1, 2]))
    n_features, n_actions = shapes
    assert (len(env.spec.feature_names), len(env.spec.action_names)) == shapes
    assert observation.features.shape == (2, 1, n_features)
    assert observation.features.dtype == np.float32
    assert observation.maps.shape == (2, 1, 0, 0, 0)
    assert observation.action_mask.shape == (2, 1, n_actions)
    assert observation.action_mask.all()
    assert (env.spec.env_id, env.spec.action_low, env.spec.episode_ticks) == (env_id, actions, 0)


def test_the_reward_that_solves_an_environment_is_in_its_spec() -> None:
    assert build(LUNAR).spec.reward_threshold == 200
    assert build(CONTINUOUS).spec.reward_threshold is None


@pytest.mark.parametrize("env_id", [LUNAR, LUNAR_VECTORS, CART, CONTINUOUS])
def test_a_seeds_episodes_do_not_depend_on_its_neighbours(env_id: str) -> None:
    together, alone = build(env_id, 3), build(env_id)
    assert (together.reset(np.array([7, 8, 9])).features[1] == alone.reset(np.array([8])).features[0]).all()
    for actions in (next(actions_for(alone.spec, 3, seed)) for seed in range(300)):
        many, one = together.step(actions), alone.step(actions[1:2])
        np.testing.assert_array_equal(many.observation.features[1], one.observation.features[0])
        np.testing.assert_array_equal(many.rewards[1], one.rewards[0])


@pytest.mark.parametrize("env_id", [LUNAR, LUNAR_VECTORS, CART, CONTINUOUS])
@settings(max_examples=12, deadline=None)
@given(before=st.integers(0, 450), seed=st.integers(0, 2**31), n_envs=st.integers(1, 3))
def test_a_new_environment_continues_bit_for_bit_from_any_moment(
    env_id: str, before: int, seed: int, n_envs: int
) -> None:
    env, other = build(env_id, n_envs), build(env_id, n_envs)
    env.reset(np.arange(seed, seed + n_envs))
    actions = actions_for(env.spec, n_envs, seed)
    play(env, actions, before)
    state = env.get_state()
    observed = other.set_state(load_arrays(save_arrays(state)))
    np.testing.assert_array_equal(observed.features[:, 0], state["observations"])
    again = other.get_state()
    assert {name: array.tobytes() for name, array in again.items()} == {
        name: array.tobytes() for name, array in state.items()
    }
    future = actions_for(env.spec, n_envs, seed + 1), actions_for(env.spec, n_envs, seed + 1)
    for mine, theirs in zip(play(env, future[0], 150), play(other, future[1], 150), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_a_state_that_a_replay_cannot_reach_is_never_passed_off_as_exact() -> None:
    env, other = GymnasiumVectorEnv(Hidden, 1), GymnasiumVectorEnv(Hidden, 1)
    env.reset(np.array([3]))
    for _ in range(4):
        env.step(np.zeros((1, 1), np.int64))
    state = env.get_state()
    with pytest.raises(InexactStateError, match="observation 0 is 0 where 4 was saved"):
        other.set_state(state)


def test_a_generator_that_cannot_be_saved_is_told_when_it_is_to_be_saved() -> None:
    env = GymnasiumVectorEnv(ForeignGenerator, 1)
    env.reset(np.array([3]))
    env.step(np.zeros((1, 1), np.int64))
    env.set_state(env.get_state())  # the first episode began from a seed, whatever draws in it
    for _ in range(2):
        env.step(np.zeros((1, 1), np.int64))
    with pytest.raises(InexactStateError, match="ForeignGenerator draws from a generator other than PCG64"):
        env.get_state()


def test_a_paused_environment_waits_for_the_next_reset() -> None:
    env, alone = build(LUNAR, 2), build(LUNAR)
    env.reset(np.array([1, 2]))
    alone.reset(np.array([2]))
    before = env.step(np.zeros((2, 1), np.int64)).observation.features[0].copy()
    alone.step(np.zeros((1, 1), np.int64))
    env.pause(np.array([True, False]))
    for _ in range(150):
        step, other = env.step(np.full((2, 1), 2)), alone.step(np.full((1, 1), 2))
        np.testing.assert_array_equal(step.observation.features[0], before)
        np.testing.assert_array_equal(step.observation.features[1], other.observation.features[0])
        assert (step.rewards[0], step.terminated[0], step.truncated[0]) == (0, False, False)
    env.reset(np.array([1, 2]))
    np.testing.assert_array_equal(env.step(np.zeros((2, 1), np.int64)).observation.features[0], before)


def test_a_changed_journal_is_noticed() -> None:
    env = build(LUNAR)
    env.reset(np.array([3]))
    play(env, actions_for(env.spec, 1, 0), 40)
    state = env.get_state()
    state["actions"][10] = (state["actions"][10] + 1) % 4
    with pytest.raises(InexactStateError, match=r"After replaying 40 actions, observation \d is"):
        build(LUNAR).set_state(state)


def test_a_state_of_another_number_of_environments_is_refused() -> None:
    env = build(CART, 2)
    env.reset(np.array([1, 2]))
    with pytest.raises(DataError, match="holds 2 environments, expected 3"):
        build(CART, 3).set_state(env.get_state())


def test_discrete_actions_may_start_anywhere() -> None:
    env = GymnasiumVectorEnv(Shifted, 1)
    env.reset(np.array([0]))
    assert [env.step(np.array([[action]])).rewards[0, 0] for action in (0, 1, 2)] == [5, 6, 7]


@pytest.mark.parametrize(
    ("make", "actions", "error", "sentence"),
    [
        (Shifted, [[3]], UsageError, r"Actions lie in 0\.\.2, 3 was given"),
        (Shifted, [[-1]], UsageError, r"Actions lie in 0\.\.2, -1 was given"),
        (
            Raising,
            [[0]],
            EnvironmentFailedError,
            "Raising, environment 0, raised ZeroDivisionError on action 0",
        ),
    ],
)
def test_a_step_that_cannot_be_taken_is_an_error_in_words(
    make: Any, actions: Any, error: type[Exception], sentence: str
) -> None:
    env = GymnasiumVectorEnv(make, 1)
    env.reset(np.array([0]))
    with pytest.raises(error, match=sentence):
        env.step(np.array(actions))


def test_what_an_environment_says_is_legal_is_the_action_mask() -> None:
    env, plain = build("Taxi-v4", 2), gymnasium.make("Taxi-v4")
    _, info = plain.reset(seed=4)
    masks = env.reset(np.array([3, 4])).action_mask
    seen = set()
    for _ in range(300):
        np.testing.assert_array_equal(masks[1, 0], info["action_mask"])
        action = int(np.flatnonzero(info["action_mask"])[-1])
        _, _, terminated, truncated, info = plain.step(action)
        masks = env.step(np.array([[0], [action]])).observation.action_mask
        if terminated or truncated:
            _, info = plain.reset()
        seen.add(tuple(masks[1, 0].tolist()))
    assert len(seen) > 2
    other = build("Taxi-v4", 2)
    np.testing.assert_array_equal(other.set_state(env.get_state()).action_mask, masks)


@pytest.mark.parametrize(
    ("seeds", "sentence"), [([1], "2 environments, 1 seeds"), ([1, -2], "not negative, -2")]
)
def test_wrong_seeds_are_refused(seeds: list[int], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        build(CART, 2).reset(np.array(seeds))


def test_an_environment_is_reset_before_it_is_stepped() -> None:
    with pytest.raises(UsageError, match="used before it was reset"):
        build(CART).step(np.zeros((1, 1), np.int64))


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (Unflat, "The observations of Unflat are Sequence.*no fixed size"),
        (Bandit, "The actions of Bandit are MultiDiscrete.*expected a Discrete or Box"),
    ],
)
def test_spaces_that_do_not_fit_the_protocol_are_refused(make: Any, sentence: str) -> None:
    with pytest.raises(EnvironmentCreationError, match=sentence):
        GymnasiumVectorEnv(make, 1)


@pytest.mark.parametrize(
    ("env_id", "sentence"),
    [
        ("LunarLandr-v3", "No environment named 'LunarLandr-v3'. Did you mean 'LunarLander-v3'?"),
        ("nothing-like-it", "neither 'town' nor an id that Gymnasium knows"),
        ("LunarLander-v99", "Did you mean 'LunarLander-v3'?"),
        ("nowhere:Env-v0", "nowhere:Env-v0 cannot be built: No module named 'nowhere'"),
    ],
)
def test_an_environment_that_cannot_be_built_ends_with_5_and_a_sentence(
    env_id: str, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", "--policy", "idle", "--env", env_id]) == 5
    assert sentence in capsys.readouterr().err


def test_without_box2d_the_error_is_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith(("Box2D", "gymnasium.envs.box2d"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "Box2D", None)
    with pytest.raises(EnvironmentCreationError, match=r"Run: pip install 'townlet-train\[box2d\]'"):
        build_env(RunConfig(env=LUNAR), 1)


def test_box2d_survives_warnings_that_are_errors() -> None:
    code = "from townlet_train.envs.gymnasium import make_gymnasium; make_gymnasium('LunarLander-v3').reset()"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
