"""How sure a gate is of a number: bounds of a sample of fixed size, or bounds that hold at every size at once."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from townlet_train.services.statistics import (
    Sample,
    anytime_critical_value,
    sign_e_value,
    student_quantile,
    studentise,
)
from townlet_train.services.statistics.studentised import Statistic

MOST_EPISODES = 1_000_000  # beyond, "about n more" is no plan
LARGE_FREEDOM = 200  # degrees from which on Student's quantiles are all but normal


class Bounds(Protocol):
    """An estimate with one-sided bounds at any level."""

    @property
    def value(self) -> float: ...
    @property
    def error(self) -> float: ...
    @property
    def freedom(self) -> int: ...
    def low(self, level: float) -> float: ...
    def high(self, level: float) -> float: ...


Measure = Callable[..., Bounds]  # a statistic and its samples


@dataclass(frozen=True)
class AnytimeBounds:
    """Bounds that hold at every number of episodes at once, so that one may look after each."""

    value: float
    error: float
    freedom: int
    n: int

    def low(self, level: float) -> float:
        """What the true value exceeds, wrong at any time with a chance of `level`."""
        return self.value - self.error * anytime_critical_value(self.n, level, self.freedom)

    def high(self, level: float) -> float:
        """What the true value stays below, wrong at any time with a chance of `level`."""
        return self.value + self.error * anytime_critical_value(self.n, level, self.freedom)


def fixed_bounds(indices: NDArray[np.intp]) -> Measure:
    """Bounds by the studentised bootstrap over `indices` (n_resamples, n), or Student's t where it is wider."""
    return lambda statistic, *samples: studentise(statistic, *samples, indices=indices)


def anytime_bounds(statistic: Statistic, *samples: Sample) -> AnytimeBounds:
    """Bounds that hold whenever one stops."""
    value, error, freedom = statistic(*(sample[None] for sample in samples))
    return AnytimeBounds(float(value[0]), float(error[0]), freedom, len(samples[0]))


def episodes_needed(bounds: Bounds, limit: float, n: int, *, level: float, power: float) -> int | None:
    """About how many more episodes would show, with a chance of `power`, on which side of `limit` the truth lies.

    The fewest in all at which (critical value + z_power) errors fit between estimate and limit, if the truth is what
    was measured; errors shrink with the root of their number. None: no sensible number.
    """
    distance = abs(bounds.value - limit)
    if bounds.error == 0 or distance == 0:
        return None
    spare = NormalDist().inv_cdf(power)

    def decides(total: int) -> bool:
        critical = _critical_at(total, bounds, n, level, above=bounds.value > limit)
        return (critical + spare) * bounds.error * math.sqrt(n / total) <= distance

    too_few, enough = n, n + 1
    while not decides(enough):
        too_few, enough = enough, n + 2 * (enough - n)
        if too_few - n > MOST_EPISODES:
            return None
    more = bisect_left(range(too_few + 1, enough), True, key=decides) + too_few + 1 - n
    return more if more <= MOST_EPISODES else None


def _critical_at(total: int, bounds: Bounds, n: int, level: float, *, above: bool) -> float:
    """How many standard errors the bound towards the limit will lie off the estimate with `total` episodes.

    Degrees of freedom grow with the number. By how much resamples widen a bound of fixed size fades with its square,
    which is measured: resamples without any of the tail's few deep episodes, which look sure, grow rare that fast.
    """
    freedom = min(max((bounds.freedom + 1) * total // n - 1, 1), LARGE_FREEDOM)
    if isinstance(bounds, AnytimeBounds):
        return anytime_critical_value(total, level, freedom)
    normal = NormalDist().inv_cdf(1 - level)
    apart = bounds.value - bounds.low(level) if above else bounds.high(level) - bounds.value
    resampled = normal + (apart / bounds.error - normal) * (n / total) ** 2
    return max(resampled, student_quantile(1 - level, freedom))


def signs_needed(wins: int, losses: int, n: int, *, level: float) -> int | None:
    """About how many more episodes bring the bet on wins to 1 / level, at the rates so far; None: they never do.

    >>> signs_needed(20, 10, 32, level=0.05) > 0, signs_needed(10, 20, 32, level=0.05)
    (True, None)
    """

    def reached(total: int) -> bool:
        return sign_e_value(wins * total // n, losses * total // n) >= 1 / level

    enough = next((n << doubling for doubling in range(32) if reached(n << doubling)), None)
    if enough is None or enough - n > MOST_EPISODES:
        return None
    total = next(total for total in range(enough // 2, enough + 1) if reached(total))
    return max(total - n, 1)
