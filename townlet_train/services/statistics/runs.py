"""Comparing methods by their training runs (Agarwal et al. 2021): a run is one number, never its episodes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from townlet_train.services.statistics.samples import RESAMPLES, Interval, Sample


def stratified_resamples(
    strata: list[Sample], rng: np.random.Generator, *, resamples: int = RESAMPLES
) -> NDArray[np.float64]:
    """Runs drawn with replacement within each stratum (n_runs,), side by side: (resamples, all runs)."""
    drawn = [stratum[rng.integers(len(stratum), size=(resamples, len(stratum)))] for stratum in strata]
    return np.concatenate(drawn, axis=1)


def stratified_interval(statistics: Sample, *, confidence: float = 0.95) -> Interval:
    """The percentile interval of a statistic of resamples, (resamples,)."""
    tail = (1 - confidence) / 2
    low, high = np.quantile(statistics, [tail, 1 - tail])
    return Interval(float(low), float(high))


def improvement_probability(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """P(a run of `first` beats one of `second`), ties by half, of runs along the last axis: Mann-Whitney's U / (n m).

    >>> float(improvement_probability(np.array([1.0, 3.0]), np.array([2.0, 1.0])))
    0.625
    """
    apart = np.sign(first[..., :, None] - second[..., None, :])
    return np.asarray((1 + apart.mean(axis=(-2, -1))) / 2)
