"""What a set of episode returns is worth: robust means and bootstrap intervals, seeded."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Sample = NDArray[np.float64]
RESAMPLES = 10_000


class Interval(NamedTuple):
    """A two-sided interval."""

    low: float
    high: float


def iqm(values: Sample) -> float:
    """The mean of the middle half: a quarter of the values is cut from each end, the cut ones by their share.

    >>> iqm(np.array([0.0, 1.0, 2.0, 100.0]))
    1.5
    """
    return float(_iqm_rows(np.asarray(values, np.float64)[None, :])[0])


def bootstrap_interval(
    values: Sample,
    rng: np.random.Generator,
    *,
    statistic: Callable[[Sample], Sample] | None = None,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
) -> Interval:
    """Percentile bootstrap interval of the mean, or of `statistic` of rows (resamples, n) -> (resamples,).

    Efron (1979). One value alone has no spread to resample: the interval is then that value.
    """
    values = np.asarray(values, np.float64)
    rows = values[rng.integers(len(values), size=(resamples, len(values)))]
    estimates = rows.mean(axis=1) if statistic is None else statistic(rows)
    tail = (1 - confidence) / 2
    low, high = np.quantile(estimates, [tail, 1 - tail])
    return Interval(float(low), float(high))


def iqm_interval(values: Sample, rng: np.random.Generator, *, confidence: float = 0.95) -> Interval:
    """Percentile bootstrap interval of the interquartile mean."""
    return bootstrap_interval(values, rng, statistic=_iqm_rows, confidence=confidence)


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


def _iqm_rows(rows: Sample) -> Sample:
    """Interquartile mean of each row; the values at the quartiles count by the share of them that lies inside."""
    n = rows.shape[1]
    edges = np.arange(n + 1) / n
    weights = np.clip(np.minimum(edges[1:], 0.75) - np.maximum(edges[:-1], 0.25), 0, None)
    means: Sample = np.sort(rows, axis=1) @ weights / weights.sum()
    return means
