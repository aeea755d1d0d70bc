"""What tests of promotion start from: candidates as files, and a directory with a history."""

from __future__ import annotations

import hashlib
from pathlib import Path

from townlet_train.results import PromotionStatusDTO
from townlet_train.services.promotion import PromotionCandidate, PromotionService, PromotionStatus

EPISODES = 8


def candidate(folder: Path, name: str) -> PromotionCandidate:
    """A checkpoint to release, as far as promotion looks at one: bytes of its own."""
    path = folder / f"{name}.zip"
    path.write_bytes(name.encode() * 1000)
    return PromotionCandidate(path, hashlib.sha256(path.read_bytes()).hexdigest(), {"mean": 41.5})


def judge(
    service: PromotionService, status: PromotionStatus, of: PromotionCandidate, block: int
) -> PromotionStatusDTO:
    """A verdict on a block of seeds against the current release."""
    release = service.status().current_release
    seeds = range(1000 * block, 1000 * block + EPISODES)
    return service.record_evaluation(
        status, of, seeds=seeds, release_sha256=release.sha256 if release else None
    )


def release(service: PromotionService, of: PromotionCandidate, *blocks: int) -> PromotionStatusDTO:
    """Two PASSes on these blocks, and the promotion."""
    for block in blocks or (1, 2):
        judge(service, "PASS", of, block)
    return service.promote()


def history(folder: Path) -> PromotionService:
    """A directory in which most things have happened: a promoted, b promoted, b rolled back, c half judged."""
    service = PromotionService(folder / "promotion")
    release(service, candidate(folder, "a"))
    judge(service, "HOLD", candidate(folder, "b"), 1)
    release(service, candidate(folder, "b"), 2, 3)
    service.rollback("it faints at night")
    judge(service, "PASS", candidate(folder, "c"), 1)
    return service
