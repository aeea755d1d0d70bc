"""Several claims at once, so that the chance of any false one stays at alpha."""

from __future__ import annotations

from collections.abc import Sequence


def holm_levels(p_values: Sequence[float], alpha: float) -> tuple[float, ...]:
    """The level at which each claim may be judged so that any false one has a chance of at most `alpha`.

    Holm's step-down (1979): the smallest of m p-values is held to alpha / m, the next to alpha / (m - 1), and so on up
    to the first that fails, whose level is that of all the rest. A claim holds if its p-value is at most its level.

    >>> holm_levels([0.01, 0.9, 0.02], alpha=0.06)
    (0.02, 0.06, 0.03)
    """
    levels = [0.0] * len(p_values)
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    level, failed = alpha, False
    for step, index in enumerate(order):
        if not failed:
            level = alpha / (len(order) - step)
        levels[index] = level
        failed = failed or p_values[index] > level
    return tuple(levels)
