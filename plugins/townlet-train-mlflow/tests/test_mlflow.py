"""Runs in MLflow are those of metrics.jsonl, read back with MLflow's own client from a local folder."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mlflow")

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

import townlet_train_mlflow
from townlet_train.config import RunConfig
from townlet_train.contract import Progress
from townlet_train.errors import Interrupted
from townlet_train.files import to_json
from townlet_train.orchestrator import run_strategy
from townlet_train.registry import discover
from townlet_train.services.rolling import read_log
from townlet_train_mlflow.tracking import NOTE, MlflowLogger, numbers

Curves = dict[str, list[tuple[int, float]]]
SEARCH = {"n_iterations": 3, "evaluation_episodes": 0}
PPO = {
    "timesteps": 1200, "n_steps": 100, "batch_size": 50, "n_epochs": 1, "checkpoint_interval": 150,
    "log_interval": 100, "evaluation_episodes": 0,
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A local folder that MLflow is told to write to."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    return tmp_path


def the_run(experiment: str = "townlet-train") -> Run:
    """The one run that MLflow has."""
    client = MlflowClient()
    found = client.get_experiment_by_name(experiment)
    assert found is not None
    [run] = client.search_runs([found.experiment_id])
    return run


def sent() -> Curves:
    """What MLflow draws of it."""
    run, client = the_run(), MlflowClient()
    histories = {name: client.get_metric_history(run.info.run_id, name) for name in run.data.metrics}
    return {name: [(point.step, point.value) for point in history] for name, history in histories.items()}


def recorded(run_dir: Path) -> Curves:
    """What it should draw: the lines of metrics.jsonl."""
    curves: Curves = {}
    for number, line in enumerate(read_log(run_dir / "metrics.jsonl"), 1):
        for name, value in numbers(line):
            curves.setdefault(name, []).append((line.get("timestep", number), value))
    return curves


def without_times(curves: Curves) -> Curves:
    """Those numbers that are the same when the same steps are done again."""
    return {name: points for name, points in curves.items() if not name.endswith("_sec")}


def search(run_dir: Path) -> Any:
    config = RunConfig.model_validate({"env": "CartPole-v1", "seed": 3})
    return run_strategy("random-search", SEARCH, config=config, run_dir=run_dir)


def line(timestep: int, **fields: Any) -> dict[str, Any]:
    return {"timestep": timestep, **fields, "timestamp": "2026-01-01T00:00:00Z"}


def run_directory(folder: Path) -> Path:
    """A run directory with what MLflow is told at the start."""
    described = {"strategy": "ppo", "config_hash": "0" * 64, "config": {"env": "town"}, "params": {}}
    (folder / "run").mkdir()
    (folder / "run/run.json").write_text(json.dumps(described))
    return folder / "run"


def test_a_run_is_there_with_its_settings_its_numbers_its_result_and_its_model(folder: Path) -> None:
    result = search(folder / "run")
    run = the_run()
    assert (run.info.run_name, run.info.status) == ("run", "FINISHED")
    assert run.data.params["env"] == "CartPole-v1"
    assert run.data.params["random-search.n_iterations"] == "3"
    described = json.loads((folder / "run/run.json").read_text())
    assert run.data.tags["config_hash"] == described["config_hash"]
    assert run.data.tags["strategy"] == "random-search"
    assert sent() == recorded(folder / "run") != {}
    names = {Path(file.path).name for file in MlflowClient().list_artifacts(run.info.run_id)}
    assert "result.json" in names
    assert any(name.endswith(".zip") for name in names)
    assert result.warnings == ()


def test_without_a_tracking_uri_nothing_is_logged_and_mlflow_is_not_imported(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from townlet_train.registry import discover, RunLoggers\n"
        "RunLoggers([s for s in discover().loggers if s.plugin.name == 'mlflow'], Path(), None)\n"
        "print('mlflow' in sys.modules)"
    )
    environment = {"PATH": "", "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert done.stdout == "False\n"


def test_an_mlflow_that_is_not_installed_is_told_with_the_command_and_training_goes_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    monkeypatch.delitem(sys.modules, "townlet_train_mlflow.tracking", raising=False)
    result = search(folder / "run")
    [warning] = result.warnings
    assert warning.endswith(
        "did not start: MLflow is not installed, and MLFLOW_TRACKING_URI asks for it. Run: pip install mlflow-skinny."
    )
    assert Path(str(result.checkpoint)).is_file()


def test_an_mlflow_that_refuses_is_a_warning_and_training_goes_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nowhere://at.all")
    result = search(folder / "run")
    [warning] = result.warnings
    assert "The logger of 'mlflow' (townlet-train-mlflow 0.1.0) did not start" in warning
    assert Path(str(result.checkpoint)).is_file()


def test_the_experiment_is_that_of_the_environment_variable(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "poles")
    search(folder / "run")
    assert the_run("poles").info.status == "FINISHED"


def test_only_finite_numbers_have_points(folder: Path) -> None:
    logger = MlflowLogger(run_directory(folder))
    logger.record(line(100, loss=None, reward=-1.5, note="x"))
    logger.record(line(200, loss=math.nan, reward=2))
    logger.record(line(300, loss=0.25, reward=math.inf))
    logger.close()
    assert sent() == {"reward": [(100, -1.5), (200, 2.0)], "loss": [(300, 0.25)]}
    assert the_run().info.status == "FAILED"  # nobody said that it finished


def test_what_a_killed_process_had_not_sent_is_made_up_for_and_nothing_is_there_twice(folder: Path) -> None:
    run_dir = run_directory(folder)
    lines = [line(100 * step, loss=float(step)) for step in range(1, 8)]
    killed = MlflowLogger(run_dir)
    for each in lines[:4]:
        killed.record(each)
    killed.close()  # the fifth line never got there
    (run_dir / "metrics.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines[:2]))
    resumed = MlflowLogger(run_dir)  # after a checkpoint beside the second line
    assert the_run().info.status == "RUNNING"
    for each in lines[2:]:
        resumed.record(each)
    resumed.close()
    assert sent() == {"loss": [(100 * step, float(step)) for step in range(1, 8)]}


def test_a_line_that_mlflow_refuses_is_raised_to_whoever_records_or_closes_next(folder: Path) -> None:
    logger = MlflowLogger(run_directory(folder))
    MlflowClient().delete_run(the_run().info.run_id)
    logger.record(line(100, loss=1.0))
    with pytest.raises(Exception, match="active"):
        logger.close()


@pytest.mark.parametrize("separator", ["\u2028", "\x85"])
def test_a_separator_in_a_text_tears_no_line(folder: Path, separator: str) -> None:
    recorded_before = to_json(line(100, told=f"one{separator}two", loss=1.0)) + "\n"
    assert separator in recorded_before
    (run_directory(folder) / "metrics.jsonl").write_text(recorded_before, encoding="utf-8")
    MlflowLogger(folder / "run").close()
    assert sent() == {"loss": [(100, 1.0)]}


def test_the_note_of_a_run_takes_the_place_of_another_whole(folder: Path) -> None:
    note, kept = run_directory(folder) / NOTE, folder / "kept.json"
    note.parent.mkdir(parents=True)
    note.write_text("torn")
    kept.hardlink_to(note)
    MlflowLogger(folder / "run").close()
    assert kept.read_text() == "torn"  # nobody wrote into the file that was there
    assert json.loads(note.read_text()) == {"run_id": the_run().info.run_id}
    assert [*note.parent.iterdir()] == [note]


def test_a_server_that_was_away_for_a_moment_is_told_once_and_the_run_is_ended(folder: Path) -> None:
    logger, run_id = MlflowLogger(run_directory(folder)), the_run().info.run_id
    MlflowClient().delete_run(run_id)
    with pytest.raises(MlflowException, match="active"):
        record_for_a_while(logger)
    MlflowClient().restore_run(run_id)
    logger.close()
    assert the_run().info.status == "FAILED"


def record_for_a_while(logger: MlflowLogger) -> None:
    """Up to ten seconds, until the thread that sends has heard what MLflow says."""
    for number in range(1000):
        logger.record(line(number, loss=1.0))
        time.sleep(0.01)


@pytest.mark.torch
@pytest.mark.parametrize("elsewhere", [False, True], ids=["where it was", "in another directory"])
def test_a_resumed_run_goes_on_without_a_double_point(folder: Path, elsewhere: bool) -> None:
    pytest.importorskip("torch")

    def stop(progress: Progress) -> None:
        if progress.done >= 700:
            raise Interrupted("Stopped.")

    config, run_dir = RunConfig.model_validate({"env": "CartPole-v1", "seed": 3}), folder / "run"
    with pytest.raises(Interrupted):
        run_strategy("ppo", PPO, config=config, run_dir=run_dir, report=stop)
    assert the_run().info.status == "FAILED"
    last = folder / "other" if elsewhere else run_dir
    checkpoint = run_dir / "checkpoint_450.zip"
    if elsewhere:
        MlflowClient().delete_run(the_run().info.run_id)  # so that the other directory's is alone
    run_strategy("ppo", {}, config=RunConfig(), run_dir=last, resume_from=checkpoint, overwrite=True)
    assert the_run().info.status == "FINISHED"
    assert without_times(sent()) == without_times(recorded(last))
    assert json.loads((last / NOTE).read_text())["run_id"] == the_run().info.run_id


def test_the_plugin_is_found_and_offers_a_logger_alone() -> None:
    registry = discover()
    assert townlet_train_mlflow.__name__ in sys.modules
    offers = [offer.kind for offer in registry.listing.offers if offer.distribution == "townlet-train-mlflow"]
    assert offers == ["logger"]
