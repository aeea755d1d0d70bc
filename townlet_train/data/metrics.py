"""Numbers that describe recordings: of one sample, of a dataset, and of the conflicts in them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from townlet_train.data.layout import Layout, action_kind
from townlet_train.data.trajectory import Trajectory

CONFLICT_FEATURES = ("rivalry_max", "rivalry_avoid_count")


def sample_metrics(trajectory: Trajectory, layout: Layout) -> dict[str, float]:
    """Townlet's metrics of one sample; those whose array or feature the sample lacks are left out."""
    metrics = {
        "timesteps": float(trajectory.n_steps),
        "reward_sum": float(trajectory.rewards.sum(dtype=np.float64)),
        "reward_mean": float(trajectory.rewards.mean(dtype=np.float64)),
    }
    if trajectory.log_probs is not None:
        metrics["log_prob_mean"] = float(trajectory.log_probs.mean(dtype=np.float64))
    if trajectory.values is not None:
        metrics["value_pred_last"] = float(trajectory.values[-1])
    for name, column in conflict_columns(trajectory.features, layout.feature_names).items():
        metrics[f"{name}_mean"] = float(column.mean(dtype=np.float64))
        metrics[f"{name}_max"] = float(column.max())
    if "lateness_counter" in layout.feature_names:
        lateness = trajectory.features[:, layout.feature_names.index("lateness_counter")]
        metrics["lateness_mean"] = float(lateness.mean(dtype=np.float64))
    if layout.action_low:
        return metrics  # vectors are not counted
    return metrics | action_metrics(np.bincount(trajectory.actions), layout.action_names)


def action_metrics(counts: NDArray[np.int64], names: Sequence[str]) -> dict[str, float]:
    """How the actions are spread, from the count of each id; kinds are counted only when the ids have names."""
    total = int(counts.sum())
    metrics = {
        "action_nonzero": float(np.count_nonzero(counts)),
        "action_total": float(total),
        "action_entropy": entropy(counts),
    }
    kinds: dict[str, float] = {}
    for name, count in zip(names, counts.tolist(), strict=False):
        if count:
            kinds[action_kind(name)] = kinds.get(action_kind(name), 0.0) + count
    if names:
        metrics |= {f"action_{kind}_count": count for kind, count in sorted(kinds.items())}
        metrics["action_blocked_ratio"] = kinds.get("blocked", 0.0) / total
    return metrics


def entropy(counts: NDArray[np.int64]) -> float:
    """Entropy in nats of the distribution behind the counts.

    >>> round(entropy(np.array([3, 3, 0])), 4)
    0.6931
    """
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log(shares)).sum()) + 0.0


def baseline_metrics(samples: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Metrics of a dataset from those of its samples.

    A key that ends in `_sum` or `_total` is added up and its mean goes under `<key>_mean`; any other key is the mean
    over the samples that have it. `sample_count` counts the samples.
    """
    rows = list(samples)
    keys = list(dict.fromkeys(key for row in rows for key in row))
    metrics: dict[str, float] = {"sample_count": float(len(rows))}
    for key in keys:
        values = [float(row[key]) for row in rows if key in row]
        mean = sum(values) / len(values)
        if key.endswith(("_sum", "_total")):
            metrics[key] = sum(values)
            metrics[f"{key}_mean"] = mean
        else:
            metrics[key] = mean
    return metrics


def conflict_columns(
    features: NDArray[np.float32], feature_names: Sequence[str]
) -> dict[str, NDArray[np.float32]]:
    """The rivalry features by name, each without the last axis; those the layout lacks are left out."""
    return {
        name: features[..., feature_names.index(name)] for name in CONFLICT_FEATURES if name in feature_names
    }


def conflict_stats(features: NDArray[np.float32], feature_names: Sequence[str]) -> dict[str, float]:
    """Mean and maximum of each rivalry feature over all frames, as `<feature>_mean` and `<feature>_max`."""
    stats: dict[str, float] = {}
    for name, column in conflict_columns(features, feature_names).items():
        stats[f"{name}_mean"] = float(column.mean(dtype=np.float64))
        stats[f"{name}_max"] = float(column.max())
    return stats
