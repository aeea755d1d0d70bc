"""Curves in TensorBoard are those of metrics.jsonl, read back with TensorBoard's own reader."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("tensorboard")

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from townlet_train.config import RunConfig
from townlet_train.contract import Progress
from townlet_train.errors import Interrupted
from townlet_train.files import to_json
from townlet_train.orchestrator import run_strategy
from townlet_train.registry import discover
from townlet_train.services.rolling import read_log
from townlet_train_tensorboard.scalars import FOLDER, ScalarLogger, numbers, tag_of

Curves = dict[str, list[tuple[int, float]]]
PARAMS = {
    "timesteps": 1200, "n_steps": 100, "batch_size": 50, "n_epochs": 1, "checkpoint_interval": 150,
    "log_interval": 100, "evaluation_episodes": 0,
}  # fmt: skip


def shown(run_dir: Path) -> Curves:
    """What TensorBoard draws of a run."""
    reader = EventAccumulator(str(run_dir / FOLDER), size_guidance={"scalars": 0})
    reader.Reload()
    return {
        tag: [(event.step, event.value) for event in reader.Scalars(tag)] for tag in reader.Tags()["scalars"]
    }


def recorded(run_dir: Path) -> Curves:
    """What it should draw: the lines of metrics.jsonl."""
    curves: Curves = {}
    for line in read_log(run_dir / "metrics.jsonl"):
        for name, value in numbers(line):
            curves.setdefault(tag_of(name), []).append((line["timestep"], pytest.approx(value, rel=1e-6)))
    return curves


def line(timestep: int, **fields: Any) -> dict[str, Any]:
    return {"timestep": timestep, **fields, "timestamp": "2026-01-01T00:00:00Z"}


def test_the_plugin_is_found_and_contributes_no_strategy() -> None:
    registry = discover()
    assert "tensorboard" in {source.plugin.name for source in registry.loggers}
    assert all(record.distribution != "townlet-train-tensorboard" for record in registry.strategies)


def test_only_finite_numbers_have_points(tmp_path: Path) -> None:
    logger = ScalarLogger(tmp_path, resumed=False)
    logger.record(line(100, loss=None, reward=-1.5, note="x"))
    logger.record(line(200, loss=math.nan, reward=2))
    logger.record(line(300, loss=0.25, reward=math.inf))
    logger.close()
    assert shown(tmp_path) == {"episodes/reward": [(100, -1.5), (200, 2.0)], "train/loss": [(300, 0.25)]}


def test_what_a_killed_process_had_not_written_is_made_up_for(tmp_path: Path) -> None:
    lines = [line(100 * step, loss=float(step)) for step in range(1, 8)]
    killed = ScalarLogger(tmp_path, resumed=False)
    for each in lines[:2]:
        killed.record(each)
    killed.close()  # three of five lines never got there
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines[:5]))
    time.sleep(1)  # files of one process and second are named by a number that sorts as text
    resumed = ScalarLogger(tmp_path, resumed=True)
    for each in lines[5:]:
        resumed.record(each)
    resumed.close()
    assert shown(tmp_path) == {"train/loss": [(100 * step, float(step)) for step in range(1, 8)]}


@pytest.mark.parametrize("separator", ["\u2028", "\x85"])
def test_a_separator_in_a_text_tears_no_line(tmp_path: Path, separator: str) -> None:
    recorded_before = to_json(line(100, told=f"one{separator}two", loss=1.0)) + "\n"
    assert separator in recorded_before
    (tmp_path / "metrics.jsonl").write_text(recorded_before, encoding="utf-8")
    ScalarLogger(tmp_path, resumed=True).close()
    assert shown(tmp_path) == {"train/loss": [(100, 1.0)]}


@pytest.mark.torch
@pytest.mark.parametrize("elsewhere", [False, True], ids=["where it was", "in another directory"])
def test_the_curves_of_a_resumed_run_go_on_without_a_double_point(tmp_path: Path, elsewhere: bool) -> None:
    pytest.importorskip("torch")

    def stop(progress: Progress) -> None:
        if progress.done >= 700:
            raise Interrupted("Stopped.")

    config, folder = RunConfig(env="CartPole-v1", seed=3), tmp_path / "run"
    with pytest.raises(Interrupted):
        run_strategy("ppo", PARAMS, config=config, run_dir=folder, report=stop)
    assert shown(folder) == recorded(folder)
    last = tmp_path / "other" if elsewhere else folder
    checkpoint = folder / "checkpoint_450.zip"
    run_strategy("ppo", {}, config=RunConfig(), run_dir=last, resume_from=checkpoint, overwrite=True)
    assert shown(last) == recorded(last)
    assert [step for step, _ in shown(last)["train/loss"]] == list(range(100, 1201, 100))


@pytest.mark.torch
def test_a_run_that_replaces_another_begins_with_empty_curves(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    for seed in (3, 4):
        config = RunConfig(env="CartPole-v1", seed=seed)
        run_strategy("ppo", PARAMS, config=config, run_dir=tmp_path / "run", overwrite=True)
    assert shown(tmp_path / "run") == recorded(tmp_path / "run")
