"""How episodes end: a death has no future, a cut has one, and the step that only resets is nobody's experience."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from numpy.typing import NDArray

from tests.conformance import WRONG, Bootstrap, KnownValues, right, temporal_differences
from townlet_train.envs.autoreset import AdaptedVectorEnv
from townlet_train.envs.gymnasium import GymnasiumVectorEnv
from townlet_train.envs.protocol import Observation, Step
from townlet_train.errors import EnvironmentCreationError, InexactStateError


def sync(mode: AutoresetMode, n_envs: int = 3) -> AdaptedVectorEnv:
    return AdaptedVectorEnv(SyncVectorEnv([KnownValues] * n_envs, autoreset_mode=mode))


class Untold(AdaptedVectorEnv):
    """Wrong: takes what a NEXT_STEP environment returns as it comes."""

    def step(self, actions: NDArray[Any]) -> Step:
        observations, rewards, terminated, truncated, _ = self._envs.step(actions[:, 0])
        self._buffers.final_features[:] = self._buffers.features[:] = observations
        self._buffers.rewards[:], self._buffers.terminated[:] = rewards, terminated
        self._buffers.truncated[:] = truncated
        return self._step


ENVIRONMENTS: dict[str, Callable[[], Any]] = {
    "plain": lambda: GymnasiumVectorEnv(KnownValues, 3),
    **{mode.name: lambda mode=mode: sync(mode) for mode in AutoresetMode},
}


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_with_a_perfect_critic_nothing_surprises(name: str) -> None:
    differences = temporal_differences(ENVIRONMENTS[name](), right)
    np.testing.assert_allclose(differences, 0, atol=1e-4)


@pytest.mark.parametrize("name", ENVIRONMENTS)
@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.__name__)
def test_every_wrong_reading_of_an_end_shows(wrong: Bootstrap, name: str) -> None:
    assert abs(temporal_differences(ENVIRONMENTS[name](), wrong)).max() > 0.5


def test_a_step_that_only_resets_shows_when_it_is_taken_for_a_transition() -> None:
    env = Untold(SyncVectorEnv([KnownValues] * 3, autoreset_mode=AutoresetMode.NEXT_STEP))
    assert abs(temporal_differences(env, right)).max() > 0.5


def test_all_modes_play_the_same_episodes() -> None:
    plain = GymnasiumVectorEnv(KnownValues, 3)
    others = [sync(mode) for mode in AutoresetMode]
    seeds = np.array([4, 5, 6])
    plain.reset(seeds)
    for other in others:
        other.reset(seeds)
    for _ in range(30):
        expected = plain.step(np.zeros((3, 1), np.int64))
        for other in others:
            step = other.step(np.zeros((3, 1), np.int64))
            for mine, theirs in zip(step[1:4], expected[1:4], strict=True):
                np.testing.assert_array_equal(mine, theirs)
            np.testing.assert_array_equal(step.observation.features, expected.observation.features)
            over = (expected.terminated | expected.truncated)[:, 0]
            assert_equal_where(over, step.final_observation, expected.final_observation)


def assert_equal_where(over: NDArray[np.bool_], mine: Observation, theirs: Observation) -> None:
    np.testing.assert_array_equal(mine.features[over], theirs.features[over])


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_environments_in_other_processes_conform_too(mode: AutoresetMode) -> None:
    env = AdaptedVectorEnv(AsyncVectorEnv([KnownValues] * 2, autoreset_mode=mode, context="spawn"))
    try:
        np.testing.assert_allclose(temporal_differences(env, right), 0, atol=1e-4)
    finally:
        env.close()


def test_vectors_and_indices_reach_an_adapted_environment() -> None:
    for env_id in ("Pendulum-v1", "FrozenLake-v1", "CartPole-v1"):
        envs = gymnasium.make_vec(
            env_id, 2, "sync", vector_kwargs={"autoreset_mode": AutoresetMode.SAME_STEP}
        )
        env, plain = (
            AdaptedVectorEnv(envs),
            GymnasiumVectorEnv(lambda env_id=env_id: gymnasium.make(env_id), 2),
        )
        assert env.spec == plain.spec
        seeds, rng = np.array([1, 2]), np.random.default_rng(0)
        np.testing.assert_array_equal(env.reset(seeds).features, plain.reset(seeds).features)
        for _ in range(40):
            shape = (2, 1, *env.spec.action_shape)
            actions = rng.normal(size=shape).astype(np.float32) if shape[2:] else rng.integers(0, 2, shape)
            mine, theirs = env.step(actions), plain.step(actions)
            np.testing.assert_array_equal(mine.observation.features, theirs.observation.features)
            np.testing.assert_array_equal(mine.rewards, theirs.rewards)


class Silent(VectorEnv[Any, Any, Any]):
    """Does not say how it resets itself."""

    num_envs = 1
    single_observation_space, single_action_space = KnownValues.observation_space, KnownValues.action_space


class Late(Silent):
    """Resets one step late, and nobody knows how to hurry it."""

    metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}


@pytest.mark.parametrize(
    ("envs", "sentence"), [(Silent, "Silent does not say"), (Late, "Late resets one step late")]
)
def test_an_environment_that_would_lose_steps_is_refused(envs: type[Silent], sentence: str) -> None:
    with pytest.raises(EnvironmentCreationError, match=sentence):
        AdaptedVectorEnv(envs())


def test_the_state_of_another_librarys_environment_is_never_passed_off_as_exact() -> None:
    env = sync(AutoresetMode.SAME_STEP)
    sentence = r"KnownValues.*|SyncVectorEnv.* cannot be brought back .* needs the plain environment, --env"
    with pytest.raises(InexactStateError, match=sentence):
        env.get_state()
    with pytest.raises(InexactStateError, match=sentence):
        env.set_state({})
