"""A run of A2C keeps the contract of `ppo`: its files and documents, its exit codes, and resuming bit for bit."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from townlet_train.cli import main  # noqa: E402
from townlet_train_a2c.learner import A2CStats  # noqa: E402

SHORT = ["--timesteps", "1207", "--checkpoint-interval", "250", "--evaluation-episodes", "2", "--seed", "42"]


def a2c(folder: Path, *options: str, env: str = "CartPole-v1") -> int:
    return main(["a2c", "--env", env, "--output-dir", str(folder), *SHORT, *options])


def document(folder: Path, which: str) -> dict[str, Any]:
    [path] = folder.glob(f"*_{which}.json")
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def timeless(value: Any) -> Any:
    """A document without what depends on the clock or on where it lies."""
    clocked = re.compile(
        r"timestamp|.*_time|.*_sec|training_time_seconds|.*path|policy|checkpoint|checkpoint_sha256"
    )
    if isinstance(value, dict):
        return {name: timeless(item) for name, item in value.items() if not clocked.fullmatch(name)}
    return [timeless(item) for item in value] if isinstance(value, list) else value


def lines(folder: Path) -> list[dict[str, Any]]:
    return [timeless(json.loads(line)) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_run_leaves_the_files_and_documents_of_the_contract(tmp_path: Path) -> None:
    assert a2c(tmp_path / "run") == 0
    run = tmp_path / "run"
    names = {path.name for path in run.glob("*.zip")}
    assert names == {
        *(f"checkpoint_{step}.zip" for step in (250, 500, 750, 1000, 1207)),
        "a2c_seed42_model.zip",
    }
    assert {"run.json", "metrics.jsonl", "logs"} <= {path.name for path in run.iterdir()}
    results = document(run, "results")["experiment_results"]
    assert results["metadata"]["algorithm"] == "A2C"
    assert results["metadata"]["total_timesteps"] == 1207
    assert results["hyperparameters"]["learning_rate"] == 7e-4
    assert results["hyperparameters"]["n_steps"] == 5
    assert results["metrics"]["converged"] is None  # a handful of episodes bounds nothing
    assert results["metrics"]["total_episodes"] > 20
    result = results["result"]
    assert (result["steps"], result["updates"], result["transitions"]) == (1207, 242, 2)
    assert not {name for name in result if "kl" in name or "clip" in name}
    series = document(run, "metrics")["training_metrics"]
    assert series["metadata"]["recording_interval"] == 100
    assert [line["timestep"] for line in series["time_series"]] == list(range(100, 1201, 100))
    assert all(line.keys() >= A2CStats.__dataclass_fields__.keys() for line in series["time_series"])


def test_every_number_of_a_line_is_on_the_plugins_page() -> None:
    page = Path(__file__).parents[1] / "README.md"
    rows = [line.split("|")[1] for line in page.read_text().splitlines() if line.startswith("| `")]
    assert set(re.findall(r"`(\w+)`", " ".join(rows))) == A2CStats.__dataclass_fields__.keys()


@pytest.mark.parametrize(
    ("env", "n_envs"),
    [
        ("CartPole-v1", 1),
        ("CartPole-v1", 16),
        ("Pendulum-v1", 1),
        ("LunarLander-v3", 1),
        ("LunarLander-v3", 16),
    ],
)
def test_a_run_that_goes_on_from_a_checkpoint_is_the_same_run(env: str, n_envs: int, tmp_path: Path) -> None:
    if env == "LunarLander-v3":
        pytest.importorskip("Box2D")
    options = ["--n-envs", str(n_envs), "--log-interval", "100", "--checkpoint-interval", "253"]
    whole, half = tmp_path / "whole", tmp_path / "half"
    assert a2c(whole, *options, env=env) == 0
    assert a2c(half, *options, "--timesteps", "603", env=env) == 0
    from_here = half / f"checkpoint_{506 if n_envs == 1 else 512}.zip"  # in the middle of a rollout
    assert a2c(half, *options, "--resume-from", str(from_here), "--overwrite", env=env) == 0
    check_same(whole, half)


def check_same(whole: Path, resumed: Path) -> None:
    """Equal weights, optimiser and environments byte for byte, equal lines and results, times aside."""
    model, last = (
        "a2c_seed42_model.zip",
        max(whole.glob("checkpoint_*.zip"), key=lambda path: path.stat().st_mtime),
    )
    for name in (model, last.name):
        assert (whole / name).read_bytes() == (resumed / name).read_bytes(), name
    assert lines(whole) == lines(resumed)
    for which in ("results", "metrics"):
        assert timeless(document(whole, which)) == timeless(document(resumed, which))


@pytest.mark.slow
@pytest.mark.parametrize(("env", "n_envs"), [("LunarLander-v3", 1), ("CartPole-v1", 16)])
def test_a_run_killed_at_any_moment_goes_on_as_if_nothing_had_happened(
    env: str, n_envs: int, tmp_path: Path
) -> None:
    if env == "LunarLander-v3":
        pytest.importorskip("Box2D")
    options = ["--n-envs", str(n_envs), "--timesteps", "20011", "--checkpoint-interval", "333"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert a2c(whole, *options, env=env) == 0
    command = [
        sys.executable,
        "-m",
        "townlet_train",
        "a2c",
        "--env",
        env,
        "--output-dir",
        str(killed),
        *SHORT,
    ]
    for attempt in range(3):
        going_on = ["--resume-from", "latest", "--overwrite"] if attempt else []
        seen = set(killed.glob("checkpoint_*.zip"))
        process = subprocess.Popen(
            [*command, *options, *going_on],
            stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            env=os.environ,
        )
        while len(set(killed.glob("checkpoint_*.zip")) - seen) < 3 and process.poll() is None:
            time.sleep(0.01)
        assert process.poll() is None, "it ended before it could be killed"
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert a2c(killed, *options, "--resume-from", "latest", "--overwrite", env=env) == 0
    check_same(whole, killed)


def test_a_fork_begins_with_the_policy_of_the_other_method(tmp_path: Path) -> None:
    common = ["--env", "CartPole-v1", *SHORT, "--timesteps", "300", "--n-steps", "50"]
    assert main(["ppo", *common, "--output-dir", str(tmp_path / "ppo")]) == 0
    parent = tmp_path / "ppo/checkpoint_250.zip"
    assert a2c(tmp_path / "fork", "--resume-from", str(parent), "--fork") == 0
    assert json.loads((tmp_path / "fork/run.json").read_text())["lineage"]["parent_sha256"]


def test_the_town_is_trained_on(tmp_path: Path) -> None:
    options = [
        "--set",
        "town.episode_ticks=40",
        "--n-envs",
        "4",
        "--timesteps",
        "4800",
        "--normalize-rewards",
    ]
    assert a2c(tmp_path / "run", *options, "--checkpoint-interval", "2400", env="town") in (0, 1)
    result = document(tmp_path / "run", "results")["experiment_results"]["result"]
    assert (result["steps"], result["updates"]) == (4800, 40)


@pytest.mark.slow
def test_it_balances_a_pole_better_the_longer_it_trains(tmp_path: Path) -> None:
    options = ["--timesteps", "60000", "--n-envs", "8", "--checkpoint-interval", "60000"]
    assert a2c(tmp_path / "run", *options, "--evaluation-episodes", "20") == 0
    evaluation = document(tmp_path / "run", "results")["experiment_results"]["result"]["evaluation"]
    assert evaluation["ci_low"] > 100
