"""Running moments: those of everything at once, however it was cut up, and the same after a checkpoint."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load, save

from townlet_train.envs.normalise import RewardScale, RunningMoments

SHIFTS = st.floats(-1e4, 1e4)
CUTS = st.lists(st.integers(0, 40), max_size=6)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), shift=SHIFTS, scale=st.floats(1e-2, 1e3), cuts=CUTS)
def test_moments_do_not_depend_on_how_the_data_was_cut_up(
    seed: int, shift: float, scale: float, cuts: list[int]
) -> None:
    data = shift + scale * np.random.default_rng(seed).normal(size=(40, 3))
    moments = RunningMoments.empty(3)
    for batch in np.split(data, sorted(cuts)):
        moments = moments.updated(batch)
    assert moments.count == 40
    np.testing.assert_allclose(moments.mean, data.mean(axis=0), rtol=1e-9, atol=1e-9 * scale)
    np.testing.assert_allclose(moments.variance, data.var(axis=0), rtol=1e-6)


def test_axes_before_the_last_are_all_samples(rng: np.random.Generator) -> None:
    batch = rng.normal(size=(5, 4, 2, 3))
    whole, flat = (RunningMoments.empty(3).updated(each) for each in (batch, batch.reshape(-1, 3)))
    assert whole.arrays().keys() == flat.arrays().keys()
    assert all((whole.arrays()[name] == flat.arrays()[name]).all() for name in whole.arrays())


def test_what_was_seen_becomes_standard(rng: np.random.Generator) -> None:
    data = rng.normal([3, -50, 0], [0.1, 20, 1], (5000, 3)).astype(np.float32)
    seen = RunningMoments.empty(3).updated(data).standardised(data, clip=10)
    assert seen.dtype == np.float32
    np.testing.assert_allclose(seen.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(seen.std(axis=0), 1, atol=1e-4)


def test_what_never_varies_stays_finite_and_what_is_wild_is_cut() -> None:
    moments = RunningMoments.empty(2).updated(np.array([[7.0, 0.0], [7.0, 1.0]]))
    assert moments.standardised(np.array([7.0, 1e9]), clip=10).tolist() == [0, 10]


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_a_reward_that_is_not_finite_moves_no_scale_and_stays_what_it_is(
    wrong: float, rng: np.random.Generator
) -> None:
    rewards, ended = rng.normal(size=(50, 2, 3)), rng.random((50, 2, 3)) < 0.1
    spoilt = rewards.copy()
    spoilt[20, 1, 2] = wrong
    others = np.ones(rewards.shape, np.bool_)
    others[20, 1, 2] = False
    scale = RewardScale.empty(2, 3, gamma=0.9).updated(spoilt, ended)
    returns, so_far = [], np.zeros((2, 3))
    for paid, over in zip(np.where(others, rewards, 0.0), ended, strict=True):
        so_far = 0.9 * so_far + paid
        returns.append(so_far)
        so_far = np.where(over, 0.0, so_far)
    assert scale.moments.std[0] == pytest.approx(np.array(returns)[others].std(), rel=1e-6)
    np.testing.assert_allclose(scale.returns, so_far)
    scaled = scale.scaled(spoilt, clip=10.0)
    np.testing.assert_array_equal(scaled[20, 1, 2], np.float32(wrong))
    np.testing.assert_array_equal(scaled[others], scale.scaled(rewards, clip=10.0)[others])


def test_a_rollout_without_a_finite_reward_leaves_the_scale_as_it_was() -> None:
    scale = RewardScale.empty(1, 1, gamma=0.9).updated(np.ones((3, 1, 1)), np.zeros((3, 1, 1), np.bool_))
    after = scale.updated(np.full((2, 1, 1), np.nan), np.zeros((2, 1, 1), np.bool_))
    assert after.moments.arrays() == scale.moments.arrays()


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_not_finite_never_reaches_the_moments(wrong: float) -> None:
    with pytest.raises(ValueError, match="column 1 of the batch"):
        RunningMoments.empty(2).updated(np.array([[1.0, 2.0], [3.0, wrong]]))


def test_an_update_leaves_the_value_it_started_from_alone(rng: np.random.Generator) -> None:
    frozen = RunningMoments.empty(2).updated(rng.normal(size=(10, 2)))
    before = {name: array.copy() for name, array in frozen.arrays().items()}
    frozen.updated(rng.normal(size=(10, 2)))
    assert all((before[name] == array).all() for name, array in frozen.arrays().items())


def test_rewards_are_scaled_by_the_deviation_of_the_discounted_return(rng: np.random.Generator) -> None:
    rewards = rng.normal(2, 3, (200, 2, 1))
    ended = rng.random((200, 2, 1)) < 0.1
    returns, so_far = [], np.zeros((2, 1))
    for reward, over in zip(rewards, ended, strict=True):
        so_far = 0.9 * so_far + reward
        returns.append(so_far.copy())
        so_far[over] = 0
    whole = RewardScale.empty(2, 1, gamma=0.9).updated(rewards, ended)
    np.testing.assert_allclose(whole.moments.variance, np.var(returns))
    np.testing.assert_allclose(
        whole.scaled(rewards, 10), np.clip(rewards / np.std(returns), -10, 10), rtol=1e-5
    )
    assert (whole.scaled(np.array([1e9]), 10) == 10).all()


def test_a_rollout_may_end_anywhere(rng: np.random.Generator) -> None:
    rewards, ended = rng.normal(size=(50, 3, 2)), rng.random((50, 3, 2)) < 0.2
    whole = RewardScale.empty(3, 2, 0.99).updated(rewards, ended)
    halves = RewardScale.empty(3, 2, 0.99)
    for part in (slice(0, 17), slice(17, 50)):
        halves = halves.updated(rewards[part], ended[part])
    for name, array in whole.arrays().items():
        np.testing.assert_allclose(array, halves.arrays()[name], rtol=1e-12)


@pytest.mark.parametrize("kind", [RunningMoments, RewardScale])
def test_normalisers_come_back_from_a_checkpoint_to_the_bit(
    kind: type[RunningMoments] | type[RewardScale], rng: np.random.Generator
) -> None:
    value = (
        RunningMoments.empty(3).updated(rng.normal(size=(7, 3)))
        if kind is RunningMoments
        else RewardScale.empty(2, 3, 0.9).updated(rng.normal(size=(7, 2, 3)), np.zeros((7, 2, 3), np.bool_))
    )
    again = kind.from_arrays(load(save(value.arrays())))
    assert {k: v.tobytes() for k, v in again.arrays().items()} == {
        k: v.tobytes() for k, v in value.arrays().items()
    }
