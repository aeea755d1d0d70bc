"""The rules of promotion, on values: what an evaluation, a promotion or a rollback makes of where things stand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from townlet_train.errors import UsageError
from townlet_train.results.promotion import CandidateDTO, PromotionSnapshot, PromotionStatus

Seeds = tuple[tuple[int, int], ...]  # runs of consecutive seeds, (first, last) each
Event = Literal["evaluation", "promoted", "rollback", "policy_swap", "rebuilt"]
RELEASING = frozenset({"promoted", "rollback", "policy_swap"})  # Townlet's events: each sets the release


class Evaluation(BaseModel):
    """One verdict of a gate, as it is put into the ledger."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    verdict: PromotionStatus
    candidate: CandidateDTO
    seeds: Seeds
    release_sha256: str | None  # of what it was judged against
    required_passes: int = Field(ge=1)


class Remark(BaseModel):
    """Why something was done, where a person said so."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    reason: str | None = None


@dataclass(frozen=True)
class Standing:
    """Where things stand after a line of the ledger."""

    snapshot: PromotionSnapshot = field(default_factory=PromotionSnapshot)
    releases: tuple[CandidateDTO, ...] = ()  # the way back: oldest first, the current one last
    judged: Mapping[tuple[str, str | None], Seeds] = field(default_factory=dict)  # by candidate and release
    tick: int = 0  # evaluations so far
    remark: str | None = None  # why the last PASS did not count

    @property
    def release_sha256(self) -> str | None:
        """Of the current release."""
        return self.releases[-1].sha256 if self.releases else None


def after(
    standing: Standing, event: Event, metadata: Evaluation | Remark, release: CandidateDTO | None = None
) -> Standing:
    """Where things stand after an event; `release` is what a policy swap brings in.

    Raises:
        UsageError: the rules do not allow it.
    """
    match event, metadata:
        case "evaluation", Evaluation():
            return evaluated(standing, metadata)
        case "promoted", Remark():
            return promoted(standing)
        case "rollback", Remark():
            return rolled_back(standing)
        case "policy_swap", Remark() if release is not None:
            return begun(standing, release)
        case "rebuilt", Remark():
            return replace(standing, remark=None)
    raise UsageError(f"An event {event!r} does not come with {type(metadata).__name__.lower()}.")


def evaluated(standing: Standing, evaluation: Evaluation) -> Standing:
    """After a verdict: a PASS that counts lengthens the candidate's streak, a HOLD or FAIL ends any streak."""
    before, passed = standing.snapshot, evaluation.verdict == "PASS"
    remark = why_it_does_not_count(standing, evaluation) if passed else None
    against = evaluation.release_sha256 if standing.releases else None
    key = (evaluation.candidate.sha256, against)
    tick = standing.tick + 1
    changed: dict[str, object] = {
        "last_result": evaluation.verdict.lower(),
        "last_evaluated_tick": tick,
    }
    if remark is None:
        same = before.candidate is not None and before.candidate.sha256 == evaluation.candidate.sha256
        streak = (before.pass_streak * same + 1) if passed else 0
        ready = streak >= evaluation.required_passes
        waited = before.candidate_ready_tick if same else None
        changed |= {
            "state": "ready" if ready else "monitoring" if before.state == "ready" else before.state,
            "pass_streak": streak,
            "required_passes": evaluation.required_passes,
            "candidate_ready": ready,
            "candidate_ready_tick": (waited or tick) if ready else None,
            "candidate": evaluation.candidate if passed else None,
        }
    return replace(
        standing,
        snapshot=before.model_copy(update=changed),
        judged={**standing.judged, key: (*standing.judged.get(key, ()), *evaluation.seeds)},
        tick=tick,
        remark=remark,
    )


def why_it_does_not_count(standing: Standing, evaluation: Evaluation) -> str | None:
    """Why a PASS is no step towards promotion, as a sentence; None when it is one."""
    candidate, release = evaluation.candidate.sha256, standing.release_sha256
    if candidate == release:
        return "This PASS does not count: the candidate is the release already."
    if release is not None and evaluation.release_sha256 != release:
        against = f"{evaluation.release_sha256:.12}" if evaluation.release_sha256 else "no release"
        return (
            f"This PASS does not count: it was judged against {against}, and the release is {release:.12}. "
            f"Gate the candidate against the release."
        )
    again = overlap(evaluation.seeds, standing.judged.get((candidate, release), ()))
    if again is not None:
        return (
            f"This PASS does not count: seeds {again[0]} to {again[1]} have judged this candidate before, and every "
            f"evaluation needs seeds of its own. Gate it on another block."
        )
    return None


def overlap(one: Seeds, other: Seeds) -> tuple[int, int] | None:
    """The first run of seeds that two evaluations share.

    >>> overlap(((1, 10),), ((20, 30), (8, 12)))
    (8, 10)
    """
    for first, last in one:
        for begin, end in other:
            if first <= end and begin <= last:
                return max(first, begin), min(last, end)
    return None


def check_ready(standing: Standing) -> CandidateDTO:
    """The candidate that may be promoted.

    Raises:
        UsageError: there is none.
    """
    snapshot = standing.snapshot
    if snapshot.candidate is not None and snapshot.candidate_ready:
        return snapshot.candidate
    passes = f"{snapshot.pass_streak} of {snapshot.required_passes} PASSes"
    whose = f" of {snapshot.candidate.checkpoint}" if snapshot.candidate else ""
    raise UsageError(
        f"No candidate is ready for promotion: {passes}{whose} so far. Record a gate's PASS on another block."
    )


def check_way_back(releases: Sequence[CandidateDTO]) -> CandidateDTO:
    """The release before the current one.

    Raises:
        UsageError: there is none.
    """
    if len(releases) < 2:
        what = "Nothing was released yet" if not releases else "The current release is the first"
        raise UsageError(f"{what}: there is nothing to go back to.")
    return releases[-2]


def promoted(standing: Standing) -> Standing:
    """After the ready candidate became the release."""
    return _released(standing, "promoted", (*standing.releases, check_ready(standing)))


def rolled_back(standing: Standing) -> Standing:
    """After the release before the current one came back."""
    check_way_back(standing.releases)
    return _released(standing, "monitoring", standing.releases[:-1])


def begun(standing: Standing, release: CandidateDTO) -> Standing:
    """After a release was set by hand, which only the first may be."""
    if standing.releases:
        raise UsageError(
            f"{standing.releases[-1].checkpoint} is released already; only the first release can be set by hand. "
            f"Gate the candidate against it."
        )
    return _released(standing, "monitoring", (release,))


def _released(
    standing: Standing, state: Literal["monitoring", "promoted"], releases: tuple[CandidateDTO, ...]
) -> Standing:
    """After the release changed: every streak was against another release, so none goes on."""
    snapshot = standing.snapshot.model_copy(
        update={
            "state": state,
            "pass_streak": 0,
            "candidate_ready": False,
            "candidate_ready_tick": None,
            "candidate": None,
            "current_release": releases[-1],
            "initial_release": standing.snapshot.initial_release or releases[0],
        }
    )
    return replace(standing, snapshot=snapshot, releases=releases, remark=None)
