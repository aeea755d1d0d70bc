"""What a gate asks: each criterion as one or two claims that a number is at least so large."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from townlet_train.config import GateSettings, Guardrail
from townlet_train.errors import ConfigError
from townlet_train.results import GateCriterionDTO, Verdict
from townlet_train.services.gate.bounds import Bounds, Measure, episodes_needed
from townlet_train.services.gate.measured import Measured, Values
from townlet_train.services.statistics import (
    Studentised,
    cvar,
    iqm,
    iqm_estimate,
    mean_estimate,
)
from townlet_train.services.statistics.studentised import tail_statistic


class Claim(NamedTuple):
    """That a number is at least `limit`; it is shown as `sign` times itself plus `shift`."""

    bounds: Bounds
    limit: float
    sign: int = 1
    shift: float = 0.0

    def shown(self, level: float) -> bool:
        """Whether it is shown to hold."""
        return self.bounds.low(level) >= self.limit

    def refuted(self, level: float) -> bool:
        """Whether it is shown not to hold."""
        return self.bounds.high(level) < self.limit

    def p_value(self) -> float:
        """The smallest level at which it is shown."""
        assert isinstance(self.bounds, Studentised)
        return self.bounds.p_above(self.limit)


@dataclass(frozen=True)
class Criterion:
    """One thing that is asked of a candidate, and what the answer rests on."""

    name: str
    what: str  # in words
    candidate: float
    release: float | None
    difference: float
    claims: tuple[Claim, ...]
    n: int
    certain: bool = True  # False: a rate without spread, which refutes nothing

    def status(self, level: float) -> Verdict:
        """PASS: every claim is shown; FAIL: one is refuted; HOLD: neither yet."""
        if all(claim.shown(level) for claim in self.claims):
            return "PASS"
        refuted = self.certain and any(claim.refuted(level) for claim in self.claims)
        return "FAIL" if refuted else "HOLD"

    def p_value(self) -> float:
        """The smallest level at which it passes."""
        return max(claim.p_value() for claim in self.claims)

    def report(self, level: float, power: float) -> GateCriterionDTO:
        """What is shown of it, bounds at that level."""
        status = self.status(level)
        edges: dict[str, float] = {}
        for claim in self.claims:
            low, high = ("low", "at_least") if claim.sign > 0 else ("high", "at_most")
            edges[low] = claim.sign * claim.bounds.low(level) + claim.shift
            edges[high] = claim.sign * claim.limit + claim.shift
            if len(self.claims) == 1:
                other = "high" if claim.sign > 0 else "low"
                edges[other] = claim.sign * claim.bounds.high(level) + claim.shift
        return GateCriterionDTO(
            criterion=self.name,
            status=status,
            candidate=self.candidate,
            release=self.release,
            difference=self.difference,
            **{"low": None, "high": None, **edges},
            episodes_needed=self._needed(level, power) if status == "HOLD" else None,
        )

    def _needed(self, level: float, power: float) -> int | None:
        """Episodes until the last open claim is decided; None when one of them never is."""
        needed = [
            episodes_needed(claim.bounds, claim.limit, self.n, level=level, power=power)
            for claim in self.claims
            if not claim.shown(level)
        ]
        return None if None in needed else max(n for n in needed if n is not None)


class Margins(NamedTuple):
    """How much worse is no worse, in units of return."""

    mean: float
    tail: float


def margins(release: Measured, settings: GateSettings) -> Margins:
    """The margins for a release: as given, or shares of its mean return's size, of its deviation if that is larger.

    A mean near 0 is no scale: a share of it is a margin that no number of episodes resolves.
    """
    scale = max(abs(float(release.returns.mean())), float(release.returns.std()))
    mean, tail = settings.margin_absolute, settings.tail_margin_absolute
    return Margins(
        settings.margin * scale if mean is None else mean,
        settings.tail_margin * scale if tail is None else tail,
    )


def returns_criteria(
    candidate: Measured, release: Measured, settings: GateSettings, margin: Margins, measure: Measure
) -> tuple[Criterion, ...]:
    """That mean, interquartile mean and tail are no worse than the release's by more than the margins."""
    apart = candidate.returns - release.returns
    tail = tail_statistic(settings.tail)
    tails = cvar(candidate.returns, settings.tail), cvar(release.returns, settings.tail)
    of_mean, of_iqm = measure(mean_estimate, apart), measure(iqm_estimate, apart)
    of_tail = measure(tail, candidate.returns, release.returns)
    n = len(apart)
    return (
        Criterion(
            "mean", "mean return", float(candidate.returns.mean()), float(release.returns.mean()),
            of_mean.value, (Claim(of_mean, -margin.mean),), n,
        ),
        Criterion(
            "iqm", "interquartile mean", iqm(candidate.returns), iqm(release.returns),
            of_iqm.value, (Claim(of_iqm, -margin.mean),), n,
        ),
        Criterion(
            "cvar", f"mean of the worst {settings.tail:.0%}", *tails,
            of_tail.value, (Claim(of_tail, -margin.tail),), n,
        ),
    )  # fmt: skip


def threshold_criterion(candidate: Measured, threshold: float, measure: Measure) -> Criterion:
    """That the mean return reaches the threshold."""
    bounds = measure(mean_estimate, candidate.returns)
    mean, n = float(candidate.returns.mean()), len(candidate.returns)
    return Criterion("threshold", "mean return", mean, None, mean, (Claim(bounds, threshold),), n)


def guardrail_criteria(
    candidate: Measured, release: Measured | None, settings: GateSettings, measure: Measure
) -> tuple[Criterion, ...]:
    """Each guardrail whose event is counted; one that compares needs a release.

    Raises:
        ConfigError: events are counted, and the one that a guardrail names is none of them, or none of the release's.
    """
    if not candidate.events:
        return ()
    counted = release if release is not None and release.events else None
    criteria: list[Criterion] = []
    for guardrail in settings.guardrails:
        guardrail.check_counted(candidate.events)
        if guardrail.tolerance is not None and counted is not None and guardrail.event not in counted.events:
            raise ConfigError(
                f"gate.guardrails compares {guardrail.event!r} with {counted.name}, which has no such event. "
                f"Evaluate it anew, or leave that guardrail out."
            )
        criteria += _guardrail(guardrail, candidate, counted, measure)
    return tuple(criteria)


def _guardrail(
    guardrail: Guardrail, candidate: Measured, release: Measured | None, measure: Measure
) -> list[Criterion]:
    """That a rate keeps its limit, and that it is no worse than the release's by more than the tolerance."""
    event, rates = guardrail.event, candidate.events[guardrail.event]
    mean, what = float(rates.mean()), f"rate of {event} per 10 000 agent-ticks"
    signs = {"lower": (-1,), "higher": (1,), "band": (1, -1)}[guardrail.direction]
    found = []
    if guardrail.limit is not None:
        limited = [_limited(rates, guardrail.limit, sign, measure) for sign in signs]
        certain = not candidate.rates_only
        found.append(Criterion(event, what, mean, None, mean, tuple(limited), len(rates), certain))
    if guardrail.tolerance is not None and release is not None:
        theirs = release.events[event]
        base = float(theirs.mean())
        tolerated = {1: guardrail.tolerance, -1: guardrail.tolerated_above or 0.0}
        compared = [_compared(rates, theirs, tolerated[sign], sign, measure) for sign in signs]
        name = event if guardrail.limit is None else f"{event}_of_release"
        certain = not (candidate.rates_only or release.rates_only)
        found.append(Criterion(name, what, mean, base, mean - base, tuple(compared), len(rates), certain))
    return found


def _limited(rates: Values, limit: float, sign: int, measure: Measure) -> Claim:
    """That the mean rate is at most (sign -1) or at least (1) the limit."""
    return Claim(measure(mean_estimate, sign * rates), sign * limit, sign)


def _compared(rates: Values, theirs: Values, tolerance: float, sign: int, measure: Measure) -> Claim:
    """That the mean rate is no more above (sign -1) or below (1) the release's than a share of it.

    It is judged by c - (1 - sign tolerance) r of each pair, so that the release's own error counts, and shown as c - r.
    """
    bounds = measure(mean_estimate, sign * (rates - (1 - sign * tolerance) * theirs))
    return Claim(bounds, 0.0, sign, -sign * tolerance * float(theirs.mean()))


def share_better(candidate: Measured, release: Measured) -> float:
    """The share of seeds on which the candidate earns more, ties by half."""
    return float((1 + np.sign(candidate.returns - release.returns).mean()) / 2)
