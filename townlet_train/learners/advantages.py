"""How much better an action was than expected: generalised advantage estimation, and how good the expectation is."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.floating[Any]]
Bool = NDArray[np.bool_]
FEW_SLOTS = 8


def compute_gae(
    rewards: Float,
    values: Float,
    terminated: Bool,
    truncated: Bool,
    final_values: Float,
    gamma: float,
    gae_lambda: float,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Advantages and returns, (n_steps, ...) each (Schulman et al. 2016, equation 16).

    With V' the value of what came after step t,
        delta_t = r_t + gamma V'_t - V_t        A_t = delta_t + gamma lambda A_{t+1}        R_t = A_t + V_t
    where V' is 0 if step t terminated, `final_values[t]` if it was truncated, V_{t+1} otherwise; A_{t+1} counts as 0
    behind either end. All arrays are (n_steps, ...), time first; `values` is one longer when the last step is no end.

    Four steps worth 1 each, expected to be worth 1 each; the second is cut before a state worth 10, the last dies:

    >>> ones = np.ones(4)
    >>> cut, dies = np.array([0, 1, 0, 0], bool), np.array([0, 0, 0, 1], bool)
    >>> advantages, returns = compute_gae(ones, ones, dies, cut, 10 * ones, gamma=0.5, gae_lambda=1.0)
    >>> advantages.tolist(), returns.tolist()
    ([3.0, 5.0, 0.5, 0.0], [4.0, 6.0, 1.5, 1.0])

    Raises:
        ValueError: shapes disagree, or `values` is as long as `rewards` and the last step is no end everywhere.
    """
    n_steps = len(rewards)
    _check_shapes(rewards, values, terminated, truncated, final_values)
    if len(values) == n_steps and not (terminated[-1] | truncated[-1]).all():
        raise ValueError(
            f"{n_steps} values for {n_steps} steps say nothing of what follows the last, which is no end; "
            f"give {n_steps + 1}"
        )
    estimate = _slot_by_slot if rewards[0].size <= FEW_SLOTS else _step_by_step
    advantages, returns = estimate(
        rewards.reshape(n_steps, -1),
        values.reshape(len(values), -1),
        terminated.reshape(n_steps, -1),
        truncated.reshape(n_steps, -1),
        final_values.reshape(n_steps, -1),
        gamma,
        gamma * gae_lambda,
    )
    return advantages.reshape(rewards.shape), returns.reshape(rewards.shape)


def explained_variance(values: Float, returns: Float) -> float:
    """1 - Var[returns - values] / Var[returns]: 1 is perfect, 0 no better than a constant; NaN for constant returns.

    >>> explained_variance(np.array([1.0, 2.0]), np.array([1.0, 2.0]))
    1.0
    """
    variance = float(np.var(returns, dtype=np.float64))
    return 1 - float(np.var(returns - values, dtype=np.float64)) / variance if variance > 0 else float("nan")


def _step_by_step(
    rewards: Float,
    values: Float,
    terminated: Bool,
    truncated: Bool,
    final_values: Float,
    gamma: float,
    decay: float,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """All slots of a step at once, the last step first; arrays are (n_steps, n_slots)."""
    n_steps = len(rewards)
    following = np.zeros(rewards.shape)
    following[: len(values) - 1] = values[1:]
    following = np.where(terminated, 0.0, np.where(truncated, final_values, following))
    advantages = rewards + gamma * following - values[:n_steps]
    decays = np.where(terminated | truncated, 0.0, decay)
    for t in range(n_steps - 2, -1, -1):
        advantages[t] += decays[t] * advantages[t + 1]
    return advantages.astype(np.float32), (advantages + values[:n_steps]).astype(np.float32)


def _slot_by_slot(
    rewards: Float,
    values: Float,
    terminated: Bool,
    truncated: Bool,
    final_values: Float,
    gamma: float,
    decay: float,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The same in Python's own floats, which costs less where there are few slots."""
    n_steps, n_slots = rewards.shape
    advantages, returns = np.empty((n_steps, n_slots), np.float32), np.empty((n_steps, n_slots), np.float32)
    columns = (array.T.tolist() for array in (rewards, values, terminated, truncated, final_values))
    for slot, (reward, value, dead, cut, final) in enumerate(zip(*columns, strict=True)):
        following, advantage = value[n_steps] if len(value) > n_steps else 0.0, 0.0
        backwards = []
        for t in range(n_steps - 1, -1, -1):
            if dead[t]:
                advantage = reward[t] - value[t]
            elif cut[t]:
                advantage = reward[t] + gamma * final[t] - value[t]
            else:
                advantage = reward[t] + gamma * following - value[t] + decay * advantage
            following = value[t]
            backwards.append(advantage)
        advantages[:, slot] = backwards[::-1]
        returns[:, slot] = [a + v for a, v in zip(reversed(backwards), value, strict=False)]
    return advantages, returns


def _check_shapes(
    rewards: Float, values: Float, terminated: Bool, truncated: Bool, final_values: Float
) -> None:
    """All of one shape, `values` perhaps one step longer."""
    for name, array in (("terminated", terminated), ("truncated", truncated), ("final_values", final_values)):
        if array.shape != rewards.shape:
            raise ValueError(f"{name} has shape {array.shape}, rewards {rewards.shape}")
    if values.shape[1:] != rewards.shape[1:] or len(values) - len(rewards) not in (0, 1):
        raise ValueError(f"values has shape {values.shape}, expected {rewards.shape} or one step more")
