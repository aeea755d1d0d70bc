"""The demo's story: each step does what one command does, and says which."""

from __future__ import annotations

import logging
import shlex
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from townlet_train.errors import Interrupted, PluginError

if TYPE_CHECKING:
    from townlet_train.config import Settings
    from townlet_train.contract import Progress
    from townlet_train.registry import Registry
    from townlet_train.results import (
        AnnealSummaryDTO,
        BCTrainingResultDTO,
        DemoDTO,
        DemoPolicyDTO,
        DemoStepDTO,
        GateDTO,
        PromotionStatusDTO,
        TrainingResultDTO,
    )
    from townlet_train.services.promotion import PromotionService

PRESET = "town-demo"
PROGRAM = "townlet-train"
CAPTURED, CLONED, ANNEALED, PROMOTION = "demonstrations", "clone", "annealed", "promotion"
Result = TypeVar("Result")
Reached = TypeVar("Reached", bound="TrainingResultDTO")
logger = logging.getLogger(__name__)


class Story:
    """The story, step by step; it ends at the first gate that is no PASS."""

    def __init__(
        self,
        settings: Settings,
        registry: Registry,
        output: Path,
        *,
        overwrite: bool,
        report: Callable[[Progress], None],
    ) -> None:
        self.settings, self.registry, self.output = settings, registry, output
        self.config, self.seed = settings.config, str(settings.config.seed)
        self.overwrite, self.report = overwrite, report
        self.steps: list[DemoStepDTO] = []
        self.warnings: list[str] = []

    def run(self) -> DemoDTO:
        """Do it all.

        Raises:
            UsageError: an earlier demo is there and may not be overwritten.
            PluginError: a plugin's strategy has taken the name bc or anneal.
        """
        self._make_room()
        self._step("capture", self._captured(), self._capture, "{} agent-ticks of the expert".format)
        clone = self._step("clone", self._cloned(), self._clone, _agreement)
        clone_path = Path(str(clone.checkpoint))
        verdict = self._step(
            "gate the clone",
            f"gate {_q(clone_path)} --against expert",
            lambda: self._gate(clone_path, "expert", self.config.gate.block),
            _beside,
        )
        if verdict.verdict != "PASS":
            return self._end(verdict, clone_path)
        self._step(
            "release the clone",
            f"promotion promote --initial {_q(clone_path)} {self._promotion_dir()}",
            lambda: self._promotion.begin(clone_path),
            lambda status: "the first release, for candidates to be gated against",
        )
        annealed = self._step("anneal, with a gate", self._annealing(), self._anneal, _verdict_of_anneal)
        best = None if annealed.checkpoint is None else Path(annealed.checkpoint)
        if annealed.gate is None or best is None or annealed.status != "PASS":
            return self._end(annealed, clone_path, best)
        last = self._gated_again(best, annealed.gate)
        if last.verdict != "PASS":
            return self._end(last, clone_path, best)
        where = self._promotion_dir()
        released = self._step(
            "promote", f"promotion promote {where}", self._promotion.promote, lambda status: "released"
        )
        self._step(
            "verify", f"promotion verify {where}", self._promotion.verify,
            lambda found: f"{found.ledger_lines} lines and {found.releases} releases are as they were written",
        )  # fmt: skip
        self._step(
            "status", f"promotion status {where}", self._promotion.status,
            lambda status: f"{status.state}; use {status.release_file}",
        )  # fmt: skip
        return self._end(last, clone_path, best, released)

    def _make_room(self) -> None:
        """Refuse what would overwrite an earlier demo, or forget that demo's releases.

        Raises:
            UsageError: it may not be overwritten, or something else is there.
        """
        from townlet_train.services.promotion import forget_promotion
        from townlet_train.services.runs import check_run_dir

        for run_dir in (self.output / CLONED, self.output / ANNEALED):
            check_run_dir(run_dir, overwrite=self.overwrite)
        forget_promotion(self.output / PROMOTION, overwrite=self.overwrite)

    def _captured(self) -> str:
        return f"rollout capture --output {_q(self.output / CAPTURED)} --seed {self.seed} --store memmap --no-maps"

    def _capture(self) -> int:
        """Capture the expert; returns the agent-ticks."""
        from townlet_train.services.rollout import capture_as_configured

        stored = self.config.rollout.model_copy(update={"store": "memmap"})
        captured = capture_as_configured(
            self.config.model_copy(update={"rollout": stored}),
            output=self.output / CAPTURED,
            with_maps=False,
            overwrite=self.overwrite,
            report=self._reporting("capture"),
            experts=self.registry.experts,
        )
        return captured.frames

    def _cloned(self) -> str:
        return (
            f"bc --manifest {_q(self.output / CAPTURED)} --seed {self.seed} "
            f"--output-dir {_q(self.output / CLONED)}"
        )

    def _clone(self) -> BCTrainingResultDTO:
        from townlet_train.results import BCTrainingResultDTO

        return self._train("bc", BCTrainingResultDTO, CLONED, manifest=self.output / CAPTURED)

    def _annealing(self) -> str:
        return (
            f"anneal --preset {PRESET} --bc-manifest {_q(self.output / CAPTURED)} --seed {self.seed} "
            f"{self._promotion_dir()} --output-dir {_q(self.output / ANNEALED)}"
        )

    def _anneal(self) -> AnnealSummaryDTO:
        from townlet_train.results import AnnealSummaryDTO

        return self._train(
            "anneal",
            AnnealSummaryDTO,
            ANNEALED,
            bc_manifest=self.output / CAPTURED,
            promotion_dir=self.output / PROMOTION,
        )

    def _train(self, strategy: str, expected: type[Reached], folder: str, **params: object) -> Reached:
        """Run a strategy; `PluginError` when what took its name is none that leaves a policy of that kind."""
        from townlet_train.orchestrator import run_strategy

        result = run_strategy(
            strategy,
            {**self.settings.section(strategy), **params},
            config=self.config,
            origin=self.settings.origin,
            registry=self.registry,
            run_dir=self.output / folder,
            overwrite=self.overwrite,
            report=self.report,
        )
        if not isinstance(result, expected) or (strategy == "bc" and result.checkpoint is None):
            raise PluginError(
                f"The demo needs a strategy {strategy!r} that returns a {expected.__name__} with a checkpoint, the "
                f"registered one returned a {type(result).__name__}. "
                f"Keep its plugin out with TOWNLET_TRAIN_DISABLE_PLUGINS."
            )
        self.warnings += result.warnings
        return result

    def _gated_again(self, candidate: Path, last: GateDTO) -> GateDTO:
        """Gates on blocks of their own until the candidate is ready or one is no PASS; the last verdict."""
        release, first = self.output / PROMOTION / "release.zip", self.config.gate.block + 1
        for block in range(first, first + self._promotion.status().required_passes):
            if last.verdict != "PASS" or self._promotion.candidate_ready:
                break
            document = self.output / f"gate_block{block}.json"
            last = self._step(
                "gate again, other towns",
                f"gate {_q(candidate)} --against {_q(release)} --block {block} --json > {_q(document)}",
                partial(self._gate, candidate, release, block, document),
                _beside,
            )
            self._step(
                "record the verdict",
                f"promotion record --gate {_q(document)} {self._promotion_dir()}",
                partial(self._record, last),
                lambda status: f"{status.pass_streak} of {status.required_passes} PASSes in a row",
            )
        return last

    def _gate(
        self, candidate: Path, release: str | Path, block: int, document: Path | None = None
    ) -> GateDTO:
        from townlet_train.files import write_json
        from townlet_train.render import as_document
        from townlet_train.services.gate import gate_checkpoints

        settings = self.config.gate.model_copy(update={"block": block})
        verdict = gate_checkpoints(
            self.config.model_copy(update={"gate": settings}),
            [candidate],
            release,
            report=self._reporting("gate"),
            experts=self.registry.experts,
            checks=self.registry.gate_checks(self.config.gate.checks),
        )
        if document is not None:
            write_json(document, as_document(verdict))
        return verdict

    def _record(self, verdict: GateDTO) -> PromotionStatusDTO:
        from townlet_train.services.promotion import gate_evidence

        found = gate_evidence(verdict.model_dump(mode="json"))
        return self._promotion.record_evaluation(
            found.status, found.candidate, seeds=found.seeds, release_sha256=found.release_sha256
        )

    @property
    def _promotion(self) -> PromotionService:
        from townlet_train.services.promotion import PromotionService

        return PromotionService(self.output / PROMOTION)

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
            again = f"{PROGRAM} demo --output-dir {_q(self.output)} --seed {self.seed} --overwrite"
            raise Interrupted(f"The demo was stopped at {step!r}. Begin it again with: {again}") from stop

    def _reporting(self, phase: str) -> Callable[[int, int], None]:
        from townlet_train.contract import Progress

        return lambda done, total: self.report(Progress(phase, done, total, {}, live=True))

    def _end(
        self,
        last: GateDTO | AnnealSummaryDTO,
        clone: Path,
        best: Path | None = None,
        released: PromotionStatusDTO | None = None,
    ) -> DemoDTO:
        """Where the story ended, and what everybody in it earns."""
        from townlet_train.results import AnnealSummaryDTO, DemoDTO

        standing = self._promotion.status()
        release = standing.current_release
        with self._interruptible("evaluate everybody"):
            policies = self._policies(clone, best, promoted=released is not None)
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
            warnings=tuple(dict.fromkeys(self.warnings)),
        )

    def _policies(self, clone: Path, best: Path | None, *, promoted: bool) -> tuple[DemoPolicyDTO, ...]:
        """Random, expert, clone and the annealed policy on the same held-out towns."""
        from townlet_train.results import DemoPolicyDTO
        from townlet_train.services.scoring import EvaluationService

        service = EvaluationService(self.config, self.registry.experts)
        evaluate = partial(service.evaluate, report=self._reporting("evaluate"))
        measured = {
            "random": evaluate(scripted="random"),
            "expert": evaluate(scripted="expert"),
            "clone": evaluate(checkpoint=clone),
        }
        if best is not None:
            measured["annealed"] = evaluate(checkpoint=best)
        zero, one = measured["random"].mean, measured["expert"].mean
        released = {"clone": "first" if promoted else None, "annealed": "current" if promoted else None}
        return tuple(
            DemoPolicyDTO(
                policy=name,
                released=released.get(name),
                mean_return=found.mean,
                ci_low=found.ci_low,
                ci_high=found.ci_high,
                score=(found.mean - zero) / (one - zero) if one > zero else None,
                faints_per_10k=_per_10k(found.events, "faint"),
                conflicts_per_10k=_per_10k(found.events, "queue_conflict"),
            )
            for name, found in measured.items()
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


def _per_10k(events: Mapping[str, float], event: str) -> float | None:
    return 10 * events[event] if event in events else None


def _q(path: Path) -> str:
    """A path as a shell takes it."""
    return shlex.quote(str(path))
