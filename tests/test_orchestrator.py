"""One run from config to result, with strategies made up for the purpose."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
from pydantic import Field

from tests.fakes import SPEC
from tests.policies import MLP, small_checkpoint
from townlet_train.config import RunConfig
from townlet_train.contract import Progress, StrategyParams, TrainingContext
from townlet_train.data.checkpoint import save_checkpoint
from townlet_train.errors import (
    ConfigError,
    Interrupted,
    PluginError,
    TorchNotAvailableError,
    UnknownNameError,
    UsageError,
)
from townlet_train.orchestrator import PolicyTrainingOrchestrator, TrainingOrchestrator, run_strategy
from townlet_train.registry import (
    Listing,
    LoggerSource,
    PluginRecord,
    PluginStatus,
    Registry,
    StrategyRecord,
)
from townlet_train.results import TrainingResultDTO


class FakeParams(StrategyParams):
    learning_rate: float = Field(0.1, gt=0, description="how far a step goes")
    n_epochs: int = Field(2, gt=0, description="lines recorded")
    fail: str = Field("", description="how to end")


class FakeStrategy:
    """Draws a number per epoch, records it, and leaves a checkpoint."""

    name: ClassVar[str] = "fake"
    summary: ClassVar[str] = "Draw numbers."
    requires_torch: ClassVar[bool] = False
    Params: ClassVar[type[StrategyParams]] = FakeParams

    def __init__(self, params: FakeParams) -> None:
        self.params = params

    def prepare(self, context: TrainingContext) -> None:
        if self.params.fail == "prepare":
            raise UsageError("Nothing to train on.")

    def run(self, context: TrainingContext) -> TrainingResultDTO:
        for epoch in range(1, self.params.n_epochs + 1):
            context.record({"epoch": epoch, "timestep": 100 * epoch, "loss": float(context.rng.random())})
            context.report(Progress("fake", epoch, self.params.n_epochs, {}))
        if self.params.fail == "run":
            raise ZeroDivisionError("one over nothing")
        path = context.run_dir / "checkpoint_200.zip"
        digest = save_checkpoint(path, small_checkpoint(MLP, SPEC, training_seeds=((1, 9),)))
        return TrainingResultDTO(
            strategy=self.name,
            checkpoint=str(path),
            checkpoint_sha256=digest,
            warnings=("It was all made up.",),
        )


class AnyParams(FakeParams):
    """Takes whatever a method is told."""

    model_config = FakeParams.model_config | {"extra": "allow"}


class NeedsTorch(FakeStrategy):
    name = "needs_torch"
    requires_torch = True


class Nested(FakeStrategy):
    """Runs another strategy, as an anneal does."""

    name = "nested"

    def run(self, context: TrainingContext) -> TrainingResultDTO:
        result = context.build_strategy("fake", {"n_epochs": 3}).run(context)
        return result.model_copy(update={"strategy": self.name})


def registry() -> Registry:
    classes: dict[str, Any] = {c.name: c for c in (FakeStrategy, NeedsTorch, Nested)}
    records = tuple(
        StrategyRecord(name, c.summary, c.requires_torch, not c.requires_torch, "no torch", "tests", "0")
        for name, c in classes.items()
    )
    return Registry(Listing(records, ()), classes, torch=False)


def run_fake(
    folder: Path, params: Mapping[str, Any] | None = None, name: str = "fake", **options: Any
) -> Any:
    return run_strategy(
        name, params or {}, config=RunConfig(seed=7), registry=registry(), run_dir=folder, **options
    )


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def test_a_run_leaves_everything_a_pipeline_looks_for(tmp_path: Path) -> None:
    result = run_fake(tmp_path / "run", {"learning_rate": 0.5}, origin={"seed": "--seed"})
    assert result.checkpoint == str(tmp_path / "run/fake_seed7_model.zip")
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        "run.json", "metrics.jsonl", "checkpoint_200.zip", "logs", ".lock",
        "fake_seed7_model.zip", "fake_seed7_results.json", "fake_seed7_metrics.json",
    }  # fmt: skip
    run = read(tmp_path / "run/run.json")
    assert (run["status"], run["params"]["learning_rate"], run["origin"]) == (
        "finished",
        0.5,
        {"seed": "--seed"},
    )
    assert run["lineage"]["training_seeds"] == [[1, 9]]
    assert len(run["config_hash"]) == 64


def test_the_results_document_has_every_key_and_nothing_made_up(tmp_path: Path) -> None:
    run_fake(tmp_path / "run")
    results = read(tmp_path / "run/fake_seed7_results.json")["experiment_results"]
    assert results["metadata"].keys() == {
        "experiment_id", "algorithm", "environment", "seed", "start_time", "end_time", "total_timesteps",
        "conda_environment",
    }  # fmt: skip
    assert results["metadata"]["total_timesteps"] == 200
    assert results["model"] == {
        "algorithm": "FAKE",
        "policy": "MlpPolicy",
        "model_file": "fake_seed7_model.zip",
        "model_path": f"{tmp_path}/run/",
        "checkpoint_interval": None,
        "checkpoints": ["checkpoint_200.zip"],
    }
    assert results["metrics"].keys() == {
        "final_reward_mean", "final_reward_std", "episode_length_mean", "total_episodes", "training_time_seconds",
        "converged",
    }  # fmt: skip
    assert results["metrics"].pop("training_time_seconds") > 0
    assert set(results["metrics"].values()) == {None}
    hyperparameters = results["hyperparameters"]
    assert (hyperparameters["learning_rate"], hyperparameters["n_epochs"]) == (0.1, 2)
    assert hyperparameters["gamma"] is hyperparameters["n_steps"] is hyperparameters["gae_lambda"] is None
    assert results["environment"] == {
        "name": "town",
        "observation_space": "Box(5,)",
        "action_space": "Discrete(3)",
        "reward_threshold": None,
    }
    assert results["warnings"] == ["It was all made up."]


def test_the_metrics_document_is_the_recorded_lines(tmp_path: Path) -> None:
    run_fake(tmp_path / "run", {"n_epochs": 3})
    metrics = read(tmp_path / "run/fake_seed7_metrics.json")["training_metrics"]
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert metrics["metadata"]["recording_interval"] == 100
    assert [point["loss"] for point in metrics["time_series"]] == [line["loss"] for line in lines]
    assert metrics["time_series"][0].keys() >= {
        "timestep",
        "episode",
        "reward",
        "episode_length",
        "loss",
        "timestamp",
    }
    assert metrics["aggregated"]["total_timesteps"] == 300
    assert metrics["aggregated"]["reward_mean"] is None


def test_equal_seeds_draw_equal_numbers(tmp_path: Path) -> None:
    for name in ("a", "b"):
        run_fake(tmp_path / name)
    losses = [
        [json.loads(line)["loss"] for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("a", "b")
    ]
    assert losses[0] == losses[1]


def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    assert run_fake(tmp_path / "run", dry_run=True).strategy == "fake"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "params", "error", "sentence"),
    [
        ("needs_torch", {}, TorchNotAvailableError, "pip install"),
        ("fkae", {}, UnknownNameError, "Did you mean 'fake'?"),
        ("fake", {"learning_rat": 1}, ConfigError, r"fake\.learning_rat.* Did you mean 'learning_rate'?"),
        ("fake", {"learning_rate": -1}, ConfigError, r"fake\.learning_rate is -1: .*greater than 0"),
        ("fake", {"fail": "prepare"}, UsageError, "Nothing to train on"),
    ],
)
def test_what_cannot_start_writes_nothing(
    name: str, params: dict[str, Any], error: type[Exception], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=sentence):
        run_fake(tmp_path / "run", params, name)
    assert list(tmp_path.iterdir()) == []


def test_a_failure_is_written_down_and_passed_on_with_the_name_of_the_plugin(tmp_path: Path) -> None:
    with pytest.raises(
        PluginError, match="Strategy 'fake' of tests 0 failed with ZeroDivisionError: one over nothing"
    ):
        run_fake(tmp_path / "run", {"fail": "run"})
    run = read(tmp_path / "run/run.json")
    assert (run["status"], run["error"]["type"]) == ("failed", "PluginError")
    assert len((tmp_path / "run/metrics.jsonl").read_text().splitlines()) == 2
    assert not (tmp_path / "run/fake_seed7_results.json").exists()


def test_an_interruption_is_written_down_as_one(tmp_path: Path) -> None:
    def stop(progress: Progress) -> None:
        raise Interrupted("Stopped by SIGINT.")

    with pytest.raises(Interrupted):
        run_fake(tmp_path / "run", report=stop)
    assert read(tmp_path / "run/run.json")["status"] == "interrupted"


def test_a_strategy_may_run_another(tmp_path: Path) -> None:
    run_fake(tmp_path / "run", name="nested")
    assert len((tmp_path / "run/metrics.jsonl").read_text().splitlines()) == 3


def test_a_finished_run_is_not_run_over(tmp_path: Path) -> None:
    run_fake(tmp_path / "run")
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").glob("*.*")}
    with pytest.raises(UsageError, match="--overwrite"):
        run_fake(tmp_path / "run")
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").glob("*.*")} == before
    run_fake(tmp_path / "run", overwrite=True)


class Listener:
    """A plugin's logger that has had enough after one line."""

    def __init__(self) -> None:
        self.lines: list[Mapping[str, Any]] = []
        self.closed = 0

    def record(self, line: Mapping[str, Any]) -> None:
        self.lines.append(line)
        if len(self.lines) > 1:
            raise ConnectionError("nobody there")

    def close(self) -> None:
        self.closed += 1


def test_a_logger_hears_every_line_and_its_failure_is_a_warning_and_no_more(tmp_path: Path) -> None:
    well, ill = Listener(), Listener()
    opened: list[tuple[Path, int | None]] = []

    def opening(logger: Listener) -> Any:
        return lambda run_dir, recorded: (opened.append((run_dir, recorded)), logger)[1]

    sources = tuple(
        LoggerSource(PluginRecord(name, f"{name}-dist", "1", PluginStatus.OK), opening(logger))
        for name, logger in (("ill", ill), ("well", well))
    )
    well.record = well.lines.append  # type: ignore[method-assign]  # this one never has enough
    known = registry()
    result = run_strategy(
        "fake",
        {"n_epochs": 3},
        config=RunConfig(seed=7),
        registry=Registry(known.listing, known.classes, sources),
        run_dir=tmp_path / "run",
    )
    assert opened == [(tmp_path / "run", None)] * 2
    assert well.lines == [
        json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()
    ]
    assert (len(well.lines), well.closed, len(ill.lines)) == (3, 1, 2)
    assert result.warnings[0] == "The logger of 'ill' (ill-dist 1) stopped: ConnectionError: nobody there."
    assert result.checkpoint is not None


def test_loggers_are_closed_when_a_run_fails(tmp_path: Path) -> None:
    listener, known = Listener(), registry()
    source = LoggerSource(PluginRecord("x", "x", "1", PluginStatus.OK), lambda run_dir, recorded: listener)
    with pytest.raises(PluginError, match="ZeroDivisionError"):
        run_strategy(
            "fake",
            {"n_epochs": 1, "fail": "run"},
            config=RunConfig(seed=7),
            registry=Registry(known.listing, known.classes, (source,)),
            run_dir=tmp_path / "run",
        )
    assert listener.closed == 1


def test_the_orchestrator_lists_what_it_can_run() -> None:
    orchestrator = TrainingOrchestrator(RunConfig(), registry=registry())
    assert [(record.name, record.available) for record in orchestrator.available_strategies()] == [
        ("fake", True),
        ("needs_torch", False),
        ("nested", True),
    ]
    assert PolicyTrainingOrchestrator is TrainingOrchestrator


def test_the_orchestrator_captures_and_reads_back_what_it_captured(tmp_path: Path) -> None:
    config = RunConfig.model_validate({"seed": 5, "rollout": {"towns": 2, "ticks": 30}})
    orchestrator = TrainingOrchestrator(config, registry=registry())
    captured = orchestrator.capture_rollout(tmp_path / "capture", policy="idle")
    batches = orchestrator.run_replay_dataset(tmp_path / "capture", batch_size=4)
    assert captured.frames == 2 * 30 * captured.agents
    assert sum(batch["batch_size"] for batch in batches) == captured.frames / 30


@pytest.mark.parametrize("name", ["bc", "ppo", "anneal"])
def test_each_built_in_method_has_a_way_of_its_own_to_be_run(name: str, tmp_path: Path) -> None:
    named = type("Named", (FakeStrategy,), {"name": name, "Params": AnyParams})
    record = StrategyRecord(name, "Made up.", False, True, "", "tests", "0")
    orchestrator = TrainingOrchestrator(
        RunConfig(seed=7), registry=Registry(Listing((record,), ()), {name: named})
    )
    result = getattr(orchestrator, f"run_{name}")(run_dir=tmp_path / "run")
    assert result.checkpoint == str(tmp_path / f"run/{name}_seed7_model.zip")
