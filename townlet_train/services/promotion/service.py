"""Promotion on disk, as strategies and commands use it."""

from __future__ import annotations

import logging
import math
import shlex
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path

from townlet_train.config.promotion import PROMOTION_DIR, REQUIRED_PASSES
from townlet_train.data.checkpoint import load_checkpoint, seed_ranges
from townlet_train.errors import LedgerError, UsageError
from townlet_train.files import sha256_of
from townlet_train.results.promotion import (
    CandidateDTO,
    PromotionEventDTO,
    PromotionHistoryDTO,
    PromotionSnapshot,
    PromotionStatus,
    PromotionStatusDTO,
    PromotionVerifyDTO,
)
from townlet_train.services.clock import now
from townlet_train.services.gate.blocks import block_after
from townlet_train.services.promotion.folder import (
    Examined,
    PromotionFolder,
    check_bytes,
    released,
)
from townlet_train.services.promotion.ledger import Entry, Ledger, next_entry
from townlet_train.services.promotion.protocol import PromotionCandidate
from townlet_train.services.promotion.rules import (
    RELEASING,
    Evaluation,
    Remark,
    Standing,
    check_ready,
    check_way_back,
)

logger = logging.getLogger(__name__)


class PromotionService:
    """Which checkpoint is released, in a directory; every method is one command, whole or not at all.

    All of them raise `LedgerError` when the directory is not as it was written. Those that change it raise
    `StorageError` when it cannot be written to; the others write only what a killed command had left to do.
    """

    def __init__(self, directory: Path = PROMOTION_DIR, *, required_passes: int = REQUIRED_PASSES) -> None:
        if required_passes < 1:
            raise UsageError(f"{required_passes} PASSes are required, expected at least 1.")
        self._folder = PromotionFolder(directory)
        self._required = required_passes

    def record_evaluation(
        self,
        status: PromotionStatus,
        candidate: PromotionCandidate,
        *,
        seeds: Sequence[int],
        release_sha256: str | None = None,
    ) -> PromotionStatusDTO:
        """Note one gate verdict on these seeds; a PASS that does not count is a warning.

        A verdict that is in the ledger already adds no line: whoever was killed after recording it may do so again.

        Raises:
            UsageError: a PASS names no seeds.
            CheckpointError: the candidate's file is not what was evaluated.
        """
        if status == "PASS":
            if not seeds:
                raise UsageError("A PASS names no seeds, so nobody can tell whether they were used before.")
            check_bytes(candidate.checkpoint, candidate.sha256)
        scores = {name: value if value is not None and math.isfinite(value) else None
                  for name, value in candidate.scorecard.items()}  # fmt: skip
        evaluation = Evaluation(
            verdict=status,
            candidate=CandidateDTO(
                checkpoint=str(candidate.checkpoint), sha256=candidate.sha256, scorecard=scores
            ),
            seeds=seed_ranges(seeds),
            release_sha256=release_sha256,
            required_passes=self._required,
        )
        with self._folder.locked():
            ledger = self._sound()
            noted = _noted(ledger.entries, evaluation)
            if noted is not None:
                remark = noted.standing.remark
                return self._status(ledger, told=False).model_copy(
                    update={"warnings": (remark,) if remark else ()}
                )
            entry = next_entry(ledger.mark, ledger.standing, "evaluation", evaluation, at=now())
            return self._status(self._folder.commit(ledger, entry))

    @property
    def candidate_ready(self) -> bool:
        """Whether the last candidate has passed as often as required."""
        return self.status().candidate_ready

    @property
    def release(self) -> Path | None:
        """The checkpoint that is released, if any."""
        status = self.status()
        return self._folder.release if status.current_release else None

    def promote(self) -> PromotionStatusDTO:
        """Release the ready candidate.

        Raises:
            UsageError: none is ready.
            CheckpointError: its file is not what was evaluated.
        """
        with self._folder.locked():
            ledger = self._sound()
            candidate = check_ready(ledger.standing)
            entry = next_entry(ledger.mark, ledger.standing, "promoted", Remark(), at=now())
            self._folder.store(Path(candidate.checkpoint), candidate.sha256)
            return self._status(self._folder.commit(ledger, entry))

    def begin(self, checkpoint: Path) -> PromotionStatusDTO:
        """Release a checkpoint that no gate has judged, which only the first release may be.

        Raises:
            UsageError: something was released before.
            CheckpointError: it cannot be read.
        """
        load_checkpoint(checkpoint)
        release = CandidateDTO(checkpoint=str(checkpoint), sha256=sha256_of(checkpoint))
        with self._folder.locked():
            ledger = self._sound()
            reason = Remark(reason="initial release")
            entry = next_entry(ledger.mark, ledger.standing, "policy_swap", reason, at=now(), release=release)
            self._folder.store(checkpoint, release.sha256)
            return self._status(self._folder.commit(ledger, entry))

    def rollback(self, reason: str) -> PromotionStatusDTO:
        """Restore the very bytes of the release before the current one.

        Raises:
            UsageError: there is none, or no reason.
        """
        if not reason.strip():
            raise UsageError("A rollback needs a reason for those who read the ledger later.")
        if not self._folder.exists:
            check_way_back(())
        with self._folder.locked():
            ledger = self._sound()
            check_way_back(ledger.standing.releases)
            entry = next_entry(ledger.mark, ledger.standing, "rollback", Remark(reason=reason), at=now())
            return self._status(self._folder.commit(ledger, entry))

    def status(self) -> PromotionStatusDTO:
        """Where promotion stands."""
        return self._status(self._read(), told=False)

    def history(self) -> PromotionHistoryDTO:
        """Everything that happened, oldest first."""
        events = tuple(_event(entry) for entry in self._read().entries)
        return PromotionHistoryDTO(directory=str(self._folder.path), events=events)

    def verify(self, *, rebuild: bool = False) -> PromotionVerifyDTO:
        """Compare everything with everything, after doing what a killed command had left to do.

        With `rebuild`, a state.json or release.zip that disagrees with a sound ledger is made anew from it, and a line
        of the ledger says so.

        Raises:
            UsageError: there is no such directory.
        """
        if not self._folder.exists:
            if self._folder.path.exists():  # whose first command was killed before it recorded anything
                return self._verified(Examined(Ledger()))
            raise UsageError(
                f"There is no {self._folder.path}, expected a directory in which promotion recorded something. "
                f"Name it with --promotion-dir."
            )
        examined = self._folder.look()
        if not examined.unfinished and not (rebuild and examined.problems):
            return self._verified(examined)
        with self._folder.locked():
            examined = self._folder.examine()
            if rebuild and examined.problems:
                examined = self._rebuilt(examined)
            finished = () if examined.problems else self._folder.finish(examined)
            return self._verified(examined, finished)

    def _rebuilt(self, examined: Examined) -> Examined:
        if not examined.rebuildable:
            raise LedgerError(f"Nothing can be made from a broken ledger. {examined.problems[0].problem}")
        ledger = examined.ledger
        reason = Remark(reason=" ".join(problem.problem for problem in examined.problems))
        entry = next_entry(ledger.mark, ledger.standing, "rebuilt", reason, at=now())
        self._folder.rebuild(examined, entry)
        return self._folder.examine()

    def _verified(self, examined: Examined, finished: tuple[str, ...] = ()) -> PromotionVerifyDTO:
        ledger = examined.ledger
        problems = (*examined.problems, *self._folder.damaged_releases(ledger))
        return PromotionVerifyDTO(
            directory=str(self._folder.path),
            valid=not problems,
            ledger_lines=ledger.mark.lines,
            ledger_sha256=ledger.mark.sha256,
            releases=len(released(ledger)),
            problems=problems,
            finished=finished,
        )

    def _read(self) -> Ledger:
        """The ledger to read from; nothing is written unless a killed command left something to do."""
        if not self._folder.exists:
            return Ledger()
        examined = self._folder.look()
        self._folder.check(examined)
        if examined.unfinished:
            with self._folder.locked():
                return self._sound()
        return examined.ledger

    def _sound(self) -> Ledger:
        """The ledger, finished and sound."""
        ledger, finished = self._folder.sound()
        for sentence in finished:
            logger.warning("%s", sentence)
        return ledger

    def _status(self, ledger: Ledger, *, told: bool = True) -> PromotionStatusDTO:
        """Where things stand; `told`: with the remark on what was just recorded."""
        standing = ledger.standing
        snapshot = standing.snapshot if ledger.entries else PromotionSnapshot(required_passes=self._required)
        release_file = str(self._folder.release) if snapshot.current_release else None
        return PromotionStatusDTO(
            **dict(snapshot),
            warnings=(standing.remark,) if told and standing.remark else (),
            directory=str(self._folder.path),
            release_file=release_file,
            ledger_lines=ledger.mark.lines,
            ledger_sha256=ledger.mark.sha256 if ledger.entries else "",
            next_step=self._next_step(standing, release_file),
        )

    def _next_step(self, standing: Standing, release_file: str | None) -> str:
        """What to do next, for somebody who has never promoted anything; a command can be typed as it is."""
        snapshot, promotion, where = standing.snapshot, "townlet-train promotion", self._folder.option
        if snapshot.candidate_ready:
            return f"The candidate may be released: {promotion} promote{where}"
        against = f" --against {shlex.quote(release_file)}" if release_file else ""
        if snapshot.candidate is None:
            beside = f" against {release_file}" if release_file else ""
            record = f"{promotion} record --gate FILE{where}"
            return f"Gate a checkpoint{beside} with --json, and record what it prints: {record}"
        candidate = snapshot.candidate
        judged = standing.judged.get((candidate.sha256, standing.release_sha256), ())
        gate = f"gate {shlex.quote(candidate.checkpoint)}{against} --block {block_after(judged)} --json"
        missing, required = snapshot.required_passes - snapshot.pass_streak, snapshot.required_passes
        passes = "" if required == REQUIRED_PASSES else f" --required-passes {required}"
        return (
            f"The candidate needs {missing} more PASS on other seeds: townlet-train {gate} | "
            f"{promotion} record --gate -{passes}{where}"
        )


def _noted(entries: Sequence[Entry], evaluation: Evaluation) -> Entry | None:
    """The line that holds just this evaluation, of those since the release last changed."""
    since = takewhile(lambda entry: entry.line.event not in RELEASING, reversed(entries))
    return next((entry for entry in since if entry.line.metadata == evaluation), None)


def _event(entry: Entry) -> PromotionEventDTO:
    """A line of the ledger as a row."""
    line, metadata = entry.line, entry.line.metadata
    judged = metadata if isinstance(metadata, Evaluation) else None
    subject = judged.candidate if judged else line.release
    return PromotionEventDTO(
        line=line.line,
        at=line.at,
        event=line.event,
        verdict=judged.verdict if judged else None,
        checkpoint=subject.checkpoint if subject else None,
        sha256=subject.sha256 if subject else None,
        seeds=judged.seeds if judged else (),
        pass_streak=line.state.pass_streak,
        state=line.state.state,
        remark=metadata.reason if isinstance(metadata, Remark) else entry.standing.remark,
    )
