"""What a run logs: where it is at every checkpoint, every episode for those who want to know, its end."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest

from townlet_train.cli import main
from townlet_train.services.experiment import metrics_table
from townlet_train.services.rolling import read_log

TRAIN = [
    "ppo", "--env", "CartPole-v1", "--timesteps", "600", "--n-steps", "30", "--batch-size", "30", "--n-epochs", "1",
    "--checkpoint-interval", "200", "--log-interval", "100", "--evaluation-episodes", "0", "--seed", "3",
]  # fmt: skip


def train(folder: Path, *options: str) -> str:
    """Run the command; returns its log file."""
    pytest.importorskip("torch")
    assert main([*TRAIN, "--output-dir", str(folder), *options]) == 0
    [log] = (folder / "logs").glob("training_*.log")
    return log.read_text()


@pytest.mark.torch
def test_every_checkpoint_is_a_line_in_the_log_and_on_standard_error_however_short_rollouts_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log, shown = train(tmp_path / "run"), capsys.readouterr().err
    for text in (log, shown):
        lines = [line for line in text.splitlines() if "ppo " in line and "/600" in line]
        assert [line.rpartition("saving ")[2] for line in lines] == [
            f"checkpoint_{step}.zip" for step in (200, 400, 600)
        ]
        assert re.search(r"return=[\d.]+ kl=\S+ explained=\S+ collect/s=\S+ update/s=\S+", lines[1])
    assert "episode" not in shown.replace("total_episodes", "").replace("episode_length", "")


@pytest.mark.torch
def test_the_log_has_every_episode_and_the_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = train(tmp_path / "run", "--verbose")
    said = re.findall(r"^  step (\d+): episode (\d+), reward (\S+), (\d+) ticks$", log, re.M)
    episodes = [(int(step), int(number), float(reward), int(ticks)) for step, number, reward, ticks in said]
    assert [number for _, number, _, _ in episodes] == list(range(1, len(episodes) + 1))
    results = json.loads((tmp_path / "run/ppo_seed3_results.json").read_text())["experiment_results"]
    assert len(episodes) == results["metrics"]["total_episodes"] > 10
    assert all(reward == ticks for _, _, reward, ticks in episodes)  # a pole earns 1 a tick
    for line in read_log(tmp_path / "run/metrics.jsonl"):
        ended = [episode for episode in episodes if episode[0] <= line["timestep"]]
        assert line["episode"] == len(ended)
        assert line["reward"] == (ended[-1][2] if ended else None)
    assert re.search(r"DEBUG townlet_train\S+ \d+ episodes ended$", log, re.M)
    assert re.search(r"DEBUG .* environment CartPole-v1: 1 side by side", log)
    assert re.search(r"DEBUG .* \d+ weights: .*action_net\.weight 2x64", log)
    assert re.search(r"INFO .* ppo_seed3 is finished: final_reward_mean \d", log)
    assert "episodes ended\n  step " in capsys.readouterr().err


@pytest.mark.torch
def test_the_series_has_a_line_at_every_interval_and_is_the_same_in_every_file(tmp_path: Path) -> None:
    train(tmp_path / "run", "--timesteps", "650")
    lines = read_log(tmp_path / "run/metrics.jsonl")
    assert [line["timestep"] for line in lines] == [100, 200, 300, 400, 500, 600]
    assert ["policy_loss" in line for line in lines] == [True] * 6  # a rollout of 30 ends between any two
    document = json.loads((tmp_path / "run/ppo_seed3_metrics.json").read_text())["training_metrics"]
    assert [line["timestep"] for line in document["time_series"]] == [line["timestep"] for line in lines]
    assert document["metadata"]["recording_interval"] == 100
    [table] = (tmp_path / "run/logs").glob("metrics_*.csv")
    with table.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    for row, point in zip(rows, document["time_series"], strict=True):
        assert json.loads(row.pop("non_finite") or "null") == point.pop("non_finite", None)
        assert {name: cell for name, cell in row.items() if cell} == {
            name: str(value) for name, value in point.items() if value is not None
        }
    results = json.loads((tmp_path / "run/ppo_seed3_results.json").read_text())["experiment_results"]
    assert results["metadata"]["total_timesteps"] == 650


def test_a_table_has_a_column_for_whatever_any_line_says_and_no_cell_for_nothing() -> None:
    lines = [
        {"timestep": 100, "loss": None, "non_finite": ["/loss"]},
        {"timestep": 200, "loss": 0.5, "kl": 1e-5},
    ]
    assert metrics_table(lines).splitlines() == [
        "timestep,episode,reward,episode_length,loss,timestamp,non_finite,kl",
        '100,,,,,,"[""/loss""]",',
        "200,,,,0.5,,,1e-05",
    ]
