"""What a stage is held to: returns that do not fall, agents that do not faint, conflicts that stay in their band.

Everything is measured on the same held-out seeds, sampled, before and after.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from townlet_train.api import EvaluationDTO, Guardrail
from townlet_train.strategies.anneal.params import Guardrails

ONE_SIDED_95 = 1.645  # deviations
RETURN, LOSS, QUEUE, INTENSITY = "return", "loss", "queue_conflict", "queue_conflict_intensity"


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
    measured: EvaluationDTO,
    loss: float | None,
    yardstick: Yardstick,
    limits: Guardrails,
    guardrails: Sequence[Guardrail],
) -> tuple[Flag, ...]:
    """Every guardrail that was gone through, each with its reason."""
    return (
        *_return_flags(measured, yardstick, limits),
        *_event_flags(measured, yardstick.reference, guardrails),
        *_loss_flags(loss, yardstick.loss, limits),
    )


def upper_bound(measured: EvaluationDTO, baseline: EvaluationDTO) -> float:
    """One-sided 95 % bound of how much better the first is on the same seeds."""
    differences = np.subtract(measured.episode_returns, baseline.episode_returns)
    spread = differences.std(ddof=1) / math.sqrt(len(differences)) if len(differences) > 1 else 0.0
    return float(differences.mean() + ONE_SIDED_95 * spread)


def _return_flags(measured: EvaluationDTO, yardstick: Yardstick, limits: Guardrails) -> Iterator[Flag]:
    """The return is shown to be lower than before by more than what is tolerated."""
    if not math.isfinite(measured.mean):
        yield Flag(RETURN, f"The return is {measured.mean}, which is no number to go on with.")
        return
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


def _event_flags(
    measured: EvaluationDTO, reference: EvaluationDTO, guardrails: Sequence[Guardrail]
) -> Iterator[Flag]:
    """A rate left what the gate would allow beside the reference, and is further out than the reference's own.

    Intensities are held to what conflicts are.
    """
    for guardrail in guardrails:
        for event in (guardrail.event, f"{guardrail.event}_intensity"):
            if event not in measured.events or event not in reference.events:
                continue
            before, now = 10 * reference.events[event], 10 * measured.events[event]
            low, high = guardrail.allowed(before)
            if now > max(high, before):
                yield Flag(
                    event, f"{now:.2f} {event} per 10 000 agent-ticks are more than {high:.4g}{_than(before)}"
                )
            elif now < min(low, before):
                yield Flag(
                    event, f"{now:.2f} {event} per 10 000 agent-ticks are fewer than {low:.4g}{_than(before)}"
                )


def keeps_surely(measured: EvaluationDTO, reference: EvaluationDTO, guardrails: Sequence[Guardrail]) -> bool:
    """Whether every rate is shown to be what the gate would allow beside the reference."""
    for guardrail in guardrails:
        if guardrail.event not in measured.event_bounds:
            continue
        low, high = guardrail.allowed(10 * reference.events[guardrail.event])
        above, below = (10 * bound for bound in measured.event_bounds[guardrail.event])
        if above < low or below > high:
            return False
    return True


def _than(before: float) -> str:
    return f"; the reference has {before:.2f}."


def _loss_flags(loss: float | None, baseline: float | None, limits: Guardrails) -> Iterator[Flag]:
    """One-sided, and defined for a baseline at or below 0."""
    if loss is not None and not math.isfinite(loss):
        yield Flag(LOSS, f"The loss is {loss}, which is no number to go on with.")
        return
    if loss is None or baseline is None:
        return
    tolerated = limits.loss_tolerance * max(1.0, abs(baseline))
    if loss - baseline > tolerated:
        yield Flag(LOSS, f"The loss rose from {baseline:.3g} to {loss:.3g}; {tolerated:.3g} is tolerated.")


def faints_per_10k(measured: EvaluationDTO) -> float | None:
    """Faints per 10 000 agent-ticks; None where nobody faints."""
    per_thousand = measured.events.get("faint")
    return None if per_thousand is None else 10 * per_thousand
