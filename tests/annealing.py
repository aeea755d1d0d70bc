"""An anneal made up for the tests: strategies that leave what they are told, an evaluation that says what it is."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from tests.fakes import SPEC
from tests.policies import MLP, small_checkpoint
from townlet_train.config import RunConfig
from townlet_train.contract import Progress, StrategyParams, TrainingContext
from townlet_train.data.checkpoint import load_checkpoint, save_checkpoint
from townlet_train.errors import Interrupted, TrainingError
from townlet_train.orchestrator import TrainingOrchestrator
from townlet_train.registry import Listing, Registry, StrategyRecord
from townlet_train.results import AnnealSummaryDTO, EvaluationDTO, TrainingResultDTO
from townlet_train.services import TrainingServices
from townlet_train.services.rollout import RolloutCaptureService
from townlet_train.strategies.anneal.strategy import AnnealStrategy

N_EPISODES = 16
EXPERT, RANDOM = 30.0, -200.0


class Reached(NamedTuple):
    """What a stage leads to."""

    mean: float
    faint: float = 0.0  # per 1 000 agent-ticks
    queue_conflict: float = 10.0
    loss: float = 0.1
    accuracy: float = 1.0
    error: str = ""
    fault: str = ""  # of a plugin: nothing left, torn, bug, elsewhere, from the root
    at_most: float | None = None  # what faints are shown to stay below; None: what was measured


class AnyParams(StrategyParams):
    """Takes whatever it is told."""

    model_config = StrategyParams.model_config | {"extra": "allow"}


class Fake:
    """A strategy that leaves a checkpoint saying which stage it was."""

    name: ClassVar[str]
    summary: ClassVar[str] = "Made up."
    requires_torch: ClassVar[bool] = False
    Params: ClassVar[type[StrategyParams]] = AnyParams
    plan: ClassVar[Sequence[Reached]]
    told: ClassVar[list[dict[str, Any]]]
    stop_in: ClassVar[int | None] = None

    def __init__(self, params: AnyParams) -> None:
        self.params = params

    def prepare(self, context: TrainingContext) -> None:
        """Nothing to look after."""

    def run(self, context: TrainingContext) -> TrainingResultDTO:
        index = int(context.run_dir.name.partition("_")[0])
        start = context.start
        self.told.append(
            {
                **self.params.model_dump(),
                "stage": index,
                "from": None if start is None else load_checkpoint(start.path).state["stage"],
                "optimiser": None if start is None else start.optimiser,
                "social": context.config.town.reward.social_stage,
                "anneal": context.anneal_context,
                "draw": int(context.rng.integers(1 << 30)),
            }
        )
        reached = self.plan[index]
        context.record({"timestep": 50, "loss": reached.loss})
        if index == self.stop_in:
            type(self).stop_in = None
            raise Interrupted("Stopped by SIGINT.")
        context.record({"timestep": 100, "loss": reached.loss})
        if reached.error:
            raise TrainingError(reached.error)
        if reached.fault == "bug":
            raise KeyError("no such layer")
        if reached.fault == "nothing left":
            return FakeResult(steps=100, loss_total=reached.loss)
        path = context.run_dir / "checkpoint_100.zip"
        checkpoint = small_checkpoint(MLP, SPEC, seed=index)
        save_checkpoint(path, type(checkpoint)(checkpoint.info, checkpoint.weights, {"stage": index}))
        if reached.fault == "torn":
            path.write_bytes(path.read_bytes()[:1000])
        if reached.fault == "elsewhere":
            path = path.rename(context.run_dir.parents[2] / "elsewhere.zip")
        if reached.fault == "from the root":
            path = path.resolve()
        return self.result(reached, str(path))

    def result(self, reached: Reached, checkpoint: str) -> TrainingResultDTO:
        return FakeResult(checkpoint=checkpoint, steps=100, loss_total=reached.loss)


class FakeResult(TrainingResultDTO):
    steps: int
    loss_total: float
    val_accuracy: float | None = None


class FakeEvaluation:
    """Returns by checkpoint: those of the stage that left it, the same seeds with the same noise."""

    def __init__(self, plan: Sequence[Reached]) -> None:
        self._plan, self._started_ahead = plan, False

    def start_ahead(self) -> None:
        """Nothing takes a second here."""
        self._started_ahead = True

    def evaluate(
        self, *, checkpoint: Path | None = None, scripted: str | None = None, **options: Any
    ) -> EvaluationDTO:
        assert self._started_ahead, "evaluations were not expected"
        if checkpoint is None:
            reached = Reached(RANDOM if scripted == "random" else EXPERT)
        else:
            reached = self._plan[int(load_checkpoint(checkpoint).state["stage"])]
        noise = np.random.default_rng(0).normal(size=N_EPISODES)
        returns = reached.mean + noise - noise.mean()
        return EvaluationDTO(
            policy=str(checkpoint or scripted),
            env="town",
            deterministic=False,
            seeds=tuple(range(N_EPISODES)),
            episode_returns=tuple(returns.tolist()),
            mean=float(returns.mean()),
            iqm=float(returns.mean()),
            ci_low=reached.mean - 1,
            ci_high=reached.mean + 1,
            events={
                "faint": reached.faint,
                "queue_conflict": reached.queue_conflict,
                "queue_conflict_intensity": 2 * reached.queue_conflict,
            },
            event_bounds={"faint": (0.0, reached.faint if reached.at_most is None else reached.at_most)},
        )


class FakeReplay:
    """Demonstrations that are there whatever is asked."""

    def resolve_manifest(self, path: Path | None) -> Path:
        return Path("somewhere/demonstrations/manifest.json")

    def check(self, path: Path | None) -> Path:
        return self.resolve_manifest(path)

    def check_env(self, path: Path, env: str) -> str | None:
        return env


class Made(NamedTuple):
    """What an anneal came to, and what its stages were told."""

    result: AnnealSummaryDTO
    told: list[dict[str, Any]]
    run_dir: Path

    @property
    def events(self) -> list[dict[str, Any]]:
        """What its log says."""
        return [json.loads(line) for line in (self.run_dir / "anneal_log.jsonl").read_text().splitlines()]


def anneal(
    run_dir: Path,
    plan: Sequence[Reached],
    params: Mapping[str, Any] | None = None,
    *,
    config: RunConfig | None = None,
    stop_in: int | None = None,
    resume_from: str | None = None,
    fork: bool = False,
    report: Callable[[Progress], None] = lambda progress: None,
) -> Made:
    """Run an anneal whose stages lead to what the plan says; `stop_in` is the stage in which it is interrupted."""
    told: list[dict[str, Any]] = []
    members = {"plan": plan, "told": told, "stop_in": stop_in}
    clone = type("FakeClone", (Fake,), {**members, "name": "bc", "result": _clone_result})
    ppo = type("FakePPO", (Fake,), {**members, "name": "ppo"})
    corrected = type("FakeDAgger", (Fake,), {**members, "name": "dagger", "result": _result_without_steps})
    foreign = type("Foreign", (Fake,), {**members, "name": "foreign"})  # a plugin's
    classes: dict[str, Any] = {c.name: c for c in (AnnealStrategy, clone, ppo, corrected, foreign)}
    records = tuple(
        StrategyRecord(name, c.summary, False, True, "", "tests", "0") for name, c in classes.items()
    )
    services = TrainingServices(RolloutCaptureService(), FakeReplay(), FakeEvaluation(plan))  # type: ignore[arg-type]  # fakes
    orchestrator = TrainingOrchestrator(
        config or RunConfig(seed=7), services=services, registry=Registry(Listing(records, ()), classes)
    )
    settings = {"bc_manifest": Path("demonstrations"), "gate": False, **(params or {})}
    if "schedule" not in settings:
        settings.setdefault("n_cycles", max(1, len(plan) - 2))
    try:
        result = orchestrator.run(
            "anneal", settings, run_dir=run_dir, resume_from=resume_from, fork=fork, report=report
        )
    except Interrupted:
        result = None  # type: ignore[assignment]  # what was told is all there is
    return Made(result, told, run_dir)  # type: ignore[arg-type]  # an AnnealSummaryDTO by the contract of the strategy


def _result_without_steps(self: Fake, reached: Reached, checkpoint: str) -> TrainingResultDTO:
    return TrainingResultDTO(checkpoint=checkpoint)


def _clone_result(self: Fake, reached: Reached, checkpoint: str) -> TrainingResultDTO:
    return FakeResult(
        checkpoint=checkpoint, steps=100, loss_total=reached.loss, val_accuracy=reached.accuracy
    )
