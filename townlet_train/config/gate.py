"""How a candidate is judged beside the released policy."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal

from pydantic import Field, JsonValue, model_validator

from townlet_train.config.base import ConfigModel
from townlet_train.errors import ConfigError, suggestion

FEWEST_EPISODES = 20  # below, a tail of a tenth is one episode, which shows no spread
BLOCK_SIZE = 10_000  # seeds


class Guardrail(ConfigModel):
    """What a candidate must keep beside its return: how often an event happens, per 10 000 agent-ticks."""

    event: str = Field(min_length=1, description="name of the event")
    direction: Literal["lower", "higher", "band"] = Field(
        description="which rates are good: lower, higher, or neither far below nor far above the release's"
    )
    limit: float | None = Field(None, ge=0, description="worst rate allowed, whatever the release's")
    tolerance: float | None = Field(
        None, ge=0, description="share of the release's rate by which a candidate may be worse"
    )
    rise: float | None = Field(
        None, ge=0, description="of a band: share by which it may be above; unset: `tolerance`, both ways"
    )

    @model_validator(mode="after")
    def _judges_something(self) -> Guardrail:
        if self.direction == "band" and (self.tolerance is None or self.limit is not None):
            raise ValueError(f"the band of {self.event!r} needs a tolerance, and takes no limit")
        if self.limit is None and self.tolerance is None:
            raise ValueError(f"the guardrail of {self.event!r} needs a limit or a tolerance")
        if self.rise is not None and self.direction != "band":
            raise ValueError(f"the guardrail of {self.event!r} is no band, so it has no rise")
        return self

    @property
    def tolerated_above(self) -> float | None:
        """Share of the release's rate that a candidate may be above it."""
        return self.tolerance if self.rise is None else self.rise

    def check_counted(self, events: Iterable[str]) -> None:
        """Raise `ConfigError` when its event is none of those that an environment counts, which may be none at all."""
        counted = tuple(events)
        if counted and self.event not in counted:
            raise ConfigError(
                f"gate.guardrails names event {self.event!r}, which is not counted.{suggestion(self.event, counted)}"
            )

    def allowed(self, release_rate: float) -> tuple[float, float]:
        """The lowest and the highest rate allowed beside a release's, all per 10 000 agent-ticks.

        >>> Guardrail(event="queue_conflict", direction="band", tolerance=0.5, rise=2.0).allowed(10.0)
        (5.0, 30.0)
        """
        lowest, highest = -math.inf, math.inf
        if self.direction != "lower":
            fallen = -math.inf if self.tolerance is None else release_rate * (1 - self.tolerance)
            lowest = max(fallen, -math.inf if self.limit is None else self.limit)
        if self.direction != "higher":
            risen = math.inf if self.tolerated_above is None else release_rate * (1 + self.tolerated_above)
            highest = min(risen, math.inf if self.limit is None else self.limit)
        return lowest, highest


class GateSettings(ConfigModel):
    """What a gate asks of a candidate, how sure it must be, and on which seeds."""

    episodes: int = Field(
        256, ge=FEWEST_EPISODES, le=BLOCK_SIZE, description="paired episodes, at most, one seed each"
    )
    block: int = Field(0, ge=0, le=100_000, description="which block of seeds, each used by no other")
    block_version: Literal["v1"] = Field("v1", description="the numbering of blocks")
    alpha: float = Field(0.05, gt=0, lt=0.5, description="chance of a false claim")
    power: float = Field(0.8, gt=0.5, lt=1, description="chance to decide that `episodes_needed` aims at")
    margin: float = Field(
        0.05,
        gt=0,
        description="how much worse is no worse: a share of the release's mean return, or of its deviation if larger",
    )
    margin_absolute: float | None = Field(
        None, gt=0, description="the same in units of return; over `margin`"
    )
    tail: float = Field(0.1, ge=0.1, le=0.5, description="share of episodes that are the tail")
    tail_margin: float = Field(0.25, gt=0, description="`margin` of the tail's mean")
    tail_margin_absolute: float | None = Field(None, gt=0, description="`margin_absolute` of the tail's mean")
    threshold: float | None = Field(None, description="mean return a candidate must reach; unset: none")
    resamples: int = Field(10_000, ge=200, description="resamples of the bootstrap")
    guardrails: tuple[Guardrail, ...] = Field(
        (
            Guardrail(event="faint", direction="lower", limit=1.0),
            Guardrail(event="queue_conflict", direction="band", tolerance=0.15, rise=1.5),
        ),
        description="what else must hold where such events are counted",
    )
    checks: dict[str, dict[str, JsonValue]] = Field(
        {}, description="what a plugin's check is told, by the check's name"
    )

    @model_validator(mode="after")
    def _one_guardrail_per_event(self) -> GateSettings:
        events = [guardrail.event for guardrail in self.guardrails]
        for event in events:
            if events.count(event) > 1:
                raise ValueError(f"event {event!r} has more than one guardrail")
        return self
