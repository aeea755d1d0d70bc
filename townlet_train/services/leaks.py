"""Whether one feature alone names the action: a stump per feature, fitted on half the towns, scored on the others.

A clone that finds such a feature learns to copy it and not to act. Frames with one legal action are left out: there the
action needs no feature.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

N_BINS = 32


@dataclass(frozen=True)
class LeakProbe:
    """Held-out accuracy by feature, and of always naming the commonest action."""

    accuracy: dict[str, float]
    majority: float


def probe_leaks(
    features: NDArray[np.float32], mask: NDArray[np.bool_], actions: NDArray[np.int64], names: Sequence[str]
) -> LeakProbe:
    """Score every feature of frames (n_ticks, n_towns, n_agents, ...); odd towns are held out."""
    n_actions = mask.shape[-1]
    held_out = np.broadcast_to(np.arange(actions.shape[1])[None, :, None] % 2 == 1, actions.shape)
    unforced = mask.sum(axis=-1) > 1
    fit, score = unforced & ~held_out, unforced & held_out
    fit_actions, score_actions = actions[fit], actions[score]
    commonest = np.bincount(fit_actions, minlength=n_actions).argmax()
    accuracy = {
        name: _stump_accuracy(
            features[..., index][fit], fit_actions, features[..., index][score], score_actions
        )
        for index, name in enumerate(names)
    }
    return LeakProbe(accuracy, float((score_actions == commonest).mean()))


def _stump_accuracy(
    fit: NDArray[np.float32],
    fit_actions: NDArray[np.int64],
    score: NDArray[np.float32],
    score_actions: NDArray[np.int64],
) -> float:
    """Name the commonest action of the bin a value falls into; bins are distinct values, or quantiles of many."""
    values = np.unique(fit)
    edges = (
        values if len(values) <= N_BINS else np.unique(np.quantile(fit, np.linspace(0, 1, N_BINS + 1)[1:-1]))
    )
    n_actions = int(max(fit_actions.max(), score_actions.max())) + 1
    fit_bins = np.searchsorted(edges, fit, side="right")
    counts = np.bincount(fit_bins * n_actions + fit_actions, minlength=(len(edges) + 1) * n_actions)
    named = counts.reshape(-1, n_actions).argmax(axis=1)
    return float((named[np.searchsorted(edges, score, side="right")] == score_actions).mean())
