"""Advantages: what the equations say, step by step, for any pattern of ends."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from townlet_train.learners.advantages import compute_gae, explained_variance  # noqa: E402

Case = dict[str, NDArray[Any]]


def naive_advantage(case: Case, t: int, slot: int, gamma: float, gae_lambda: float) -> float:
    """One step's advantage by recursion, one case after the other."""
    reward, value = case["rewards"][t, slot], case["values"][t, slot]
    if case["terminated"][t, slot]:
        return float(reward - value)
    if case["truncated"][t, slot]:
        return float(reward + gamma * case["final_values"][t, slot] - value)
    delta = reward + gamma * case["values"][t + 1, slot] - value
    if t + 1 == len(case["rewards"]):
        return float(delta)
    return float(delta + gamma * gae_lambda * naive_advantage(case, t + 1, slot, gamma, gae_lambda))


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Some steps of some slots that end anywhere; as many values as steps only when all slots end at the last."""
    n_steps, n_slots, seed = (
        draw(st.integers(1, 12)),
        draw(st.sampled_from([1, 3, 20])),
        draw(st.integers(0, 2**32)),
    )
    rng = np.random.default_rng(seed)
    case: Case = {name: rng.normal(size=(n_steps, n_slots)) for name in ("rewards", "final_values")}
    case |= {name: rng.random((n_steps, n_slots)) < 0.2 for name in ("terminated", "truncated")}
    closed = draw(st.booleans())
    if closed:
        case["truncated"][-1] |= ~case["terminated"][-1]
    return case | {"values": rng.normal(size=(n_steps + (not closed), n_slots))}


@given(cases(), st.floats(0, 1), st.floats(0, 1))
def test_advantages_are_those_of_a_naive_recursion(case: Case, gamma: float, gae_lambda: float) -> None:
    advantages, returns = compute_gae(**case, gamma=gamma, gae_lambda=gae_lambda)
    expected = np.array(
        [
            [naive_advantage(case, t, slot, gamma, gae_lambda) for slot in range(advantages.shape[1])]
            for t in range(len(advantages))
        ]
    )
    np.testing.assert_allclose(advantages, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(returns, expected + case["values"][: len(returns)], rtol=1e-4, atol=1e-5)


def test_as_many_values_as_steps_need_an_end_behind_the_last() -> None:
    ones, never = np.ones((3, 1)), np.zeros((3, 1), np.bool_)
    with pytest.raises(ValueError, match="3 values for 3 steps say nothing of what follows the last"):
        compute_gae(ones, ones, never, never, ones, 0.99, 0.95)


@pytest.mark.parametrize(("name", "shape"), [("truncated", (3, 2)), ("values", (5, 1)), ("values", (3, 2))])
def test_an_array_of_another_shape_is_named(name: str, shape: tuple[int, int]) -> None:
    arrays: Case = {name: np.ones((3, 1)) for name in ("rewards", "values", "final_values")}
    arrays |= {name: np.ones((3, 1), np.bool_) for name in ("terminated", "truncated")}
    arrays[name] = np.ones(shape, arrays[name].dtype)
    with pytest.raises(ValueError, match=f"{name} has shape"):
        compute_gae(**arrays, gamma=0.99, gae_lambda=0.95)


def test_explained_variance_is_one_for_the_truth_and_none_for_a_constant_guess() -> None:
    returns = np.array([1.0, 2.0, 4.0])
    assert explained_variance(returns, returns) == 1.0
    assert explained_variance(np.full(3, 7.0), returns) == 0.0
    assert np.isnan(explained_variance(returns, np.ones(3)))
