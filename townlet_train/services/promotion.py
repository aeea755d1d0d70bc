"""What promotion is to a strategy: an interface. Who implements it decides what "released" means."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

PromotionStatus = Literal["PASS", "HOLD", "FAIL"]


@dataclass(frozen=True)
class PromotionCandidate:
    """A checkpoint that may be released, and what was measured of it."""

    checkpoint: Path
    sha256: str
    scorecard: Mapping[str, float]


class PromotionServiceAdapter(Protocol):
    """Takes evaluations of candidates and says which checkpoint is released."""

    def record_evaluation(self, status: PromotionStatus, candidate: PromotionCandidate) -> None:
        """Note one gate verdict; enough PASSes in a row make the candidate ready."""
        ...

    @property
    def candidate_ready(self) -> bool:
        """Whether the last candidate has passed as often as required."""
        ...

    def promote(self) -> Path:
        """Release the ready candidate and return its checkpoint; raises when none is ready."""
        ...

    def rollback(self) -> Path:
        """Restore the release before the current one and return its checkpoint."""
        ...
