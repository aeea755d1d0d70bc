"""What a set of episode returns is worth: robust means and bootstrap intervals, seeded."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Sample = NDArray[np.float64]
RESAMPLES = 10_000
DRAWN_AT_ONCE = 1 << 20  # values


class Interval(NamedTuple):
    """A two-sided interval."""

    low: float
    high: float


def iqm(values: Sample) -> float:
    """The mean of the middle half: a quarter of the values is cut from each end, the cut ones by their share.

    >>> iqm(np.array([0.0, 1.0, 2.0, 100.0]))
    1.5
    """
    edges = np.arange(len(values) + 1) / len(values)
    weights = np.clip(np.minimum(edges[1:], 0.75) - np.maximum(edges[:-1], 0.25), 0, None)
    return float(np.sort(np.asarray(values, np.float64)) @ weights / weights.sum())


def bootstrap_interval(
    values: Sample,
    rng: np.random.Generator,
    *,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    drawn_at_once: int = DRAWN_AT_ONCE,
) -> Interval:
    """Percentile bootstrap interval of the mean, Efron (1979), in memory of about `drawn_at_once` values.

    How many are drawn at once changes rounding at most. One value alone has no spread: the interval is that value.
    """
    values = np.asarray(values, np.float64)
    n_rows = max(1, drawn_at_once // len(values))
    means = np.empty(resamples)
    for start in range(0, resamples, n_rows):
        size = (min(n_rows, resamples - start), len(values))
        means[start : start + n_rows] = values[rng.integers(len(values), size=size)].mean(axis=1)
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(float(low), float(high))


class PairedDifference(NamedTuple):
    """How much one policy is better than another on the same seeds."""

    mean: float
    interval: Interval
    share_better: float  # share of seeds on which the first is strictly better


def paired_difference(
    first: Sample, second: Sample, rng: np.random.Generator, *, confidence: float = 0.95
) -> PairedDifference:
    """`first` minus `second`, seed by seed, with the bootstrap interval of its mean."""
    if first.shape != second.shape:
        raise ValueError(f"paired samples differ in length: {len(first)} and {len(second)}")
    differences = first - second
    interval = bootstrap_interval(differences, rng, confidence=confidence)
    return PairedDifference(float(differences.mean()), interval, float((differences > 0).mean()))
