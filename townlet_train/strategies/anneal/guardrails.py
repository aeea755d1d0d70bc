"""What a stage is held to: returns that do not fall, agents that do not faint, conflicts that stay in their band.

Everything is measured on the same held-out seeds, sampled, before and after.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from townlet_train.api import EvaluationDTO
from townlet_train.strategies.anneal.params import Guardrails

ONE_SIDED_95 = 1.645  # deviations
RETURN, FAINTS, QUEUE, INTENSITY, LOSS = "return", "faints", "queue", "intensity", "loss"
BANDS = {QUEUE: "queue_conflict", INTENSITY: "queue_conflict_intensity"}


class Flag(NamedTuple):
    """A guardrail that a stage went through."""

    guardrail: str
    reason: str


class Yardstick(NamedTuple):
    """What a stage is compared with."""

    reference: EvaluationDTO  # the pinned one
    previous: EvaluationDTO
    random_mean: float
    loss: float | None  # of the stage before

    @property
    def scale(self) -> float:
        """How far the reference is above random; never 0."""
        return max(abs(self.reference.mean - self.random_mean), 1e-8)


def flags_of(
    measured: EvaluationDTO, loss: float | None, yardstick: Yardstick, limits: Guardrails
) -> tuple[Flag, ...]:
    """Every guardrail that was gone through, each with its reason."""
    return (
        *_return_flags(measured, yardstick, limits),
        *_faint_flags(measured, limits),
        *_band_flags(measured, yardstick.reference, limits),
        *_loss_flags(loss, yardstick.loss, limits),
    )


def upper_bound(measured: EvaluationDTO, baseline: EvaluationDTO) -> float:
    """One-sided 95 % bound of how much better the first is on the same seeds."""
    differences = np.subtract(measured.episode_returns, baseline.episode_returns)
    spread = differences.std(ddof=1) / math.sqrt(len(differences)) if len(differences) > 1 else 0.0
    return float(differences.mean() + ONE_SIDED_95 * spread)


def _return_flags(measured: EvaluationDTO, yardstick: Yardstick, limits: Guardrails) -> Iterator[Flag]:
    """The return is shown to be lower than before by more than what is tolerated."""
    tolerated = limits.return_tolerance * yardstick.scale
    for name in ("reference", "previous"):
        baseline: EvaluationDTO = getattr(yardstick, name)
        bound = upper_bound(measured, baseline)
        if bound < -tolerated:
            yield Flag(
                RETURN,
                f"The return fell from {baseline.mean:.4g} ({name}) to {measured.mean:.4g}, by at least {-bound:.3g}; "
                f"{tolerated:.3g} is tolerated.",
            )


def _faint_flags(measured: EvaluationDTO, limits: Guardrails) -> Iterator[Flag]:
    faints = faints_per_10k(measured)
    if faints is not None and faints > limits.max_faints_per_10k:
        yield Flag(
            FAINTS,
            f"{faints:.2f} faints per 10 000 agent-ticks are more than {limits.max_faints_per_10k:g}.",
        )


def _band_flags(measured: EvaluationDTO, reference: EvaluationDTO, limits: Guardrails) -> Iterator[Flag]:
    for guardrail, event in BANDS.items():
        if not reference.events.get(event):
            continue
        before, now = reference.events[event], measured.events[event]
        low, high = before * (1 - limits.queue_fall), before * (1 + limits.queue_rise)
        if not low <= now <= high:
            yield Flag(
                guardrail,
                f"{now:.3g} of {event} per 1 000 agent-ticks are not between {low:.3g} and {high:.3g}; "
                f"the reference has {before:.3g}.",
            )


def _loss_flags(loss: float | None, baseline: float | None, limits: Guardrails) -> Iterator[Flag]:
    """One-sided, and defined for a baseline at or below 0."""
    if loss is None or baseline is None:
        return
    tolerated = limits.loss_tolerance * max(1.0, abs(baseline))
    if loss - baseline > tolerated:
        yield Flag(LOSS, f"The loss rose from {baseline:.3g} to {loss:.3g}; {tolerated:.3g} is tolerated.")


def faints_per_10k(measured: EvaluationDTO) -> float | None:
    """Faints per 10 000 agent-ticks; None where nobody faints."""
    per_thousand = measured.events.get("faint")
    return None if per_thousand is None else 10 * per_thousand
