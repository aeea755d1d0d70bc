"""The demo's story: which step follows which, what came of each, and which command does the same."""

from __future__ import annotations

import logging
import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from townlet_train.cli.scenes import ANNEALED, CAPTURED, CLONED, PROMOTION, Scenes
from townlet_train.errors import Interrupted

if TYPE_CHECKING:
    from townlet_train.results import (
        AnnealSummaryDTO,
        BCTrainingResultDTO,
        DemoDTO,
        DemoStepDTO,
        GateDTO,
        PromotionStatusDTO,
    )

PRESET = "town-demo"
PROGRAM = "townlet-train"
Result = TypeVar("Result")
logger = logging.getLogger(__name__)


class Story:
    """The story, step by step; it ends at the first gate that is no PASS."""

    def __init__(self, scenes: Scenes) -> None:
        self.scenes, self.config, self.output = scenes, scenes.config, scenes.output
        self.steps: list[DemoStepDTO] = []

    def run(self) -> DemoDTO:
        """Do it all.

        Raises:
            UsageError: an earlier demo is there and may not be overwritten.
            PluginError: a plugin's strategy has taken the name bc or anneal.
        """
        self.scenes.make_room()
        self._step("capture", self._captured(), self.scenes.capture, "{} agent-ticks of the expert".format)
        clone = self._step("clone", self._cloned(), self.scenes.clone, _agreement)
        clone_path = Path(str(clone.checkpoint))
        verdict = self._step(
            "gate the clone",
            f"gate {_q(clone_path)} --against expert",
            lambda: self.scenes.gate(clone_path, "expert", self.config.gate.block),
            _beside,
        )
        if verdict.verdict != "PASS":
            return self._end(verdict, clone_path)
        self._step(
            "release the clone",
            f"promotion promote --initial {_q(clone_path)} {self._promotion_dir()}",
            lambda: self.scenes.promotion.begin(clone_path),
            lambda status: "the first release, for candidates to be gated against",
        )
        annealed = self._step(
            "anneal, with a gate", self._annealing(), self.scenes.anneal, _verdict_of_anneal
        )
        best = None if annealed.checkpoint is None else Path(annealed.checkpoint)
        if annealed.gate is None or best is None or annealed.status != "PASS":
            return self._end(annealed, clone_path, best)
        last = self._gated_again(best, annealed.gate)
        if last.verdict != "PASS":
            return self._end(last, clone_path, best)
        where = self._promotion_dir()
        released = self._step(
            "promote", f"promotion promote {where}", self.scenes.promotion.promote, lambda status: "released"
        )
        self._step(
            "verify", f"promotion verify {where}", self.scenes.promotion.verify,
            lambda found: f"{found.ledger_lines} lines and {found.releases} releases are as they were written",
        )  # fmt: skip
        self._step(
            "status", f"promotion status {where}", self.scenes.promotion.status,
            lambda status: f"{status.state}; use {status.release_file}",
        )  # fmt: skip
        return self._end(last, clone_path, best, released)

    def _captured(self) -> str:
        return (
            f"rollout capture --output {_q(self.output / CAPTURED)} --seed {self.config.seed} "
            f"--store memmap --no-maps"
        )

    def _cloned(self) -> str:
        return (
            f"bc --manifest {_q(self.output / CAPTURED)} --seed {self.config.seed} "
            f"--output-dir {_q(self.output / CLONED)}"
        )

    def _annealing(self) -> str:
        return (
            f"anneal --preset {PRESET} --bc-manifest {_q(self.output / CAPTURED)} --seed {self.config.seed} "
            f"{self._promotion_dir()} --output-dir {_q(self.output / ANNEALED)}"
        )

    def _gated_again(self, candidate: Path, last: GateDTO) -> GateDTO:
        """Gates on blocks of their own until the candidate is ready or one is no PASS; the last verdict."""
        release, first = self.output / PROMOTION / "release.zip", self.config.gate.block + 1
        for block in range(first, first + self.scenes.promotion.status().required_passes):
            if last.verdict != "PASS" or self.scenes.promotion.candidate_ready:
                break
            document = self.output / f"gate_block{block}.json"
            last = self._step(
                "gate again, other towns",
                f"gate {_q(candidate)} --against {_q(release)} --block {block} --json > {_q(document)}",
                partial(self.scenes.gate, candidate, release, block, document),
                _beside,
            )
            self._step(
                "record the verdict",
                f"promotion record --gate {_q(document)} {self._promotion_dir()}",
                partial(self.scenes.record, last),
                lambda status: f"{status.pass_streak} of {status.required_passes} PASSes in a row",
            )
        return last

    def _promotion_dir(self) -> str:
        return f"--promotion-dir {_q(self.output / PROMOTION)}"

    def _step(
        self, name: str, arguments: str, work: Callable[[], Result], told: Callable[[Result], str]
    ) -> Result:
        """Do one step, and remember what came of it, what it took and how a user would do it."""
        from townlet_train.results import DemoStepDTO

        typed = f"{PROGRAM} {arguments}"
        logger.info("%s", typed)
        started = time.perf_counter()
        with self._interruptible(name):
            result = work()
        seconds = round(time.perf_counter() - started, 2)
        self.steps.append(DemoStepDTO(step=name, outcome=told(result), seconds=seconds, command=typed))
        return result

    @contextmanager
    def _interruptible(self, step: str) -> Iterator[None]:
        """Tell somebody who stopped the demo how to begin it again."""
        try:
            yield
        except Interrupted as stop:
            again = f"{PROGRAM} demo --output-dir {_q(self.output)} --seed {self.config.seed} --overwrite"
            raise Interrupted(f"The demo was stopped at {step!r}. Begin it again with: {again}") from stop

    def _end(
        self,
        last: GateDTO | AnnealSummaryDTO,
        clone: Path,
        best: Path | None = None,
        released: PromotionStatusDTO | None = None,
    ) -> DemoDTO:
        """Where the story ended, and what everybody in it earns."""
        from townlet_train.results import AnnealSummaryDTO, DemoDTO

        standing = self.scenes.promotion.status()
        release = standing.current_release
        with self._interruptible("evaluate everybody"):
            policies = self.scenes.policies(clone, best, promoted=released is not None)
        return DemoDTO(
            verdict=last.status if isinstance(last, AnnealSummaryDTO) else last.verdict,
            promoted=released is not None,
            reasons=() if released is not None else last.reasons,
            release_file=standing.release_file,
            release_sha256=None if release is None else release.sha256,
            first_seed=self.config.evaluation.seed,
            episodes=self.config.evaluation.episodes,
            steps=tuple(self.steps),
            policies=policies,
            warnings=tuple(dict.fromkeys(self.scenes.warnings)),
        )


def _agreement(clone: BCTrainingResultDTO) -> str:
    if clone.val_accuracy is None:
        return "nothing was held out to compare it with the expert"
    return f"does what the expert does in {100 * clone.val_accuracy:.1f} % of held-out agent-ticks"


def _beside(verdict: GateDTO) -> str:
    """A gate's verdict in a few words."""
    found = {criterion.criterion: criterion for criterion in verdict.criteria}
    mean = found.get("mean")
    if mean is None or mean.release is None:
        return verdict.verdict
    earned = f"earns {mean.candidate:.1f}, what it is compared with {mean.release:.1f}"
    return f"{verdict.verdict} in {verdict.episodes} towns: {earned}"


def _verdict_of_anneal(result: AnnealSummaryDTO) -> str:
    if result.gate is None:
        return f"{result.status}: {' '.join(result.reasons)}"
    return _beside(result.gate)


def _q(path: Path) -> str:
    """A path as a shell takes it."""
    return shlex.quote(str(path))
