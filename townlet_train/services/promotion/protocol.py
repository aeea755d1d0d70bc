"""What promotion is to a strategy: an interface. Who implements it decides what "released" means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from townlet_train.results.promotion import PromotionStatus, PromotionStatusDTO


@dataclass(frozen=True)
class PromotionCandidate:
    """A checkpoint that may be released, and what was measured of it."""

    checkpoint: Path
    sha256: str
    scorecard: Mapping[str, float | None]


class PromotionServiceAdapter(Protocol):
    """Takes evaluations of candidates and says which checkpoint is released."""

    def record_evaluation(
        self,
        status: PromotionStatus,
        candidate: PromotionCandidate,
        *,
        seeds: Sequence[int],
        release_sha256: str | None = None,
    ) -> PromotionStatusDTO:
        """Note one gate verdict on these seeds; enough PASSes in a row make the candidate ready.

        `release_sha256` is that of the release it was judged against.
        """
        ...

    @property
    def candidate_ready(self) -> bool:
        """Whether the last candidate has passed as often as required."""
        ...

    @property
    def release(self) -> Path | None:
        """The checkpoint that is released, if any."""
        ...

    def promote(self) -> PromotionStatusDTO:
        """Release the ready candidate; raises when none is ready."""
        ...

    def rollback(self, reason: str) -> PromotionStatusDTO:
        """Restore the release before the current one."""
        ...
