"""The demo's work: what one command of it does each, in one directory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from townlet_train.errors import PluginError

if TYPE_CHECKING:
    from townlet_train.config import Settings
    from townlet_train.contract import Progress
    from townlet_train.registry import Registry
    from townlet_train.results import (
        AnnealSummaryDTO,
        BCTrainingResultDTO,
        DemoPolicyDTO,
        GateDTO,
        PromotionStatusDTO,
        TrainingResultDTO,
    )
    from townlet_train.services.promotion import PromotionService

CAPTURED, CLONED, ANNEALED, PROMOTION = "demonstrations", "clone", "annealed", "promotion"
Reached = TypeVar("Reached", bound="TrainingResultDTO")


class Scenes:
    """What happens in the demo; `warnings` are those of its trainings so far."""

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
        self.config = settings.config
        self.overwrite, self.report = overwrite, report
        self.warnings: list[str] = []

    def make_room(self) -> None:
        """Refuse what would overwrite an earlier demo, or forget that demo's releases.

        Raises:
            UsageError: it may not be overwritten, or something else is there.
        """
        from townlet_train.services.promotion import forget_promotion
        from townlet_train.services.runs import check_run_dir

        for run_dir in (self.output / CLONED, self.output / ANNEALED):
            check_run_dir(run_dir, overwrite=self.overwrite)
        forget_promotion(self.output / PROMOTION, overwrite=self.overwrite)

    def capture(self) -> int:
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

    def clone(self) -> BCTrainingResultDTO:
        from townlet_train.results import BCTrainingResultDTO

        return self._train("bc", BCTrainingResultDTO, CLONED, manifest=self.output / CAPTURED)

    def anneal(self) -> AnnealSummaryDTO:
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

    def gate(self, candidate: Path, release: str | Path, block: int, document: Path | None = None) -> GateDTO:
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

    def record(self, verdict: GateDTO) -> PromotionStatusDTO:
        from townlet_train.services.promotion import gate_evidence

        found = gate_evidence(verdict.model_dump(mode="json"))
        return self.promotion.record_evaluation(
            found.status, found.candidate, seeds=found.seeds, release_sha256=found.release_sha256
        )

    @property
    def promotion(self) -> PromotionService:
        from townlet_train.services.promotion import PromotionService

        return PromotionService(self.output / PROMOTION)

    def policies(self, clone: Path, best: Path | None, *, promoted: bool) -> tuple[DemoPolicyDTO, ...]:
        """Random, expert, clone and the annealed policy on the same held-out towns."""
        from townlet_train.results import DemoPolicyDTO
        from townlet_train.services.scoring import EvaluationService, score_policies

        service = EvaluationService(self.config, self.registry.experts)
        evaluate = partial(service.evaluate, report=self._reporting("evaluate"))
        measured = {
            "random": evaluate(scripted="random"),
            "expert": evaluate(scripted="expert"),
            "clone": evaluate(checkpoint=clone),
        }
        if best is not None:
            measured["annealed"] = evaluate(checkpoint=best)
        scored, doubts = score_policies(measured)
        self.warnings += doubts
        released = {"clone": "first" if promoted else None, "annealed": "current" if promoted else None}
        return tuple(
            DemoPolicyDTO(
                **row.model_dump(),
                released=released.get(row.policy),
                conflicts_per_10k=_per_10k(measured[row.policy].events, "queue_conflict"),
            )
            for row in scored
        )

    def _reporting(self, phase: str) -> Callable[[int, int], None]:
        from townlet_train.contract import Progress

        return lambda done, total: self.report(Progress(phase, done, total, {}, live=True))


def _per_10k(events: Mapping[str, float], event: str) -> float | None:
    return 10 * events[event] if event in events else None
