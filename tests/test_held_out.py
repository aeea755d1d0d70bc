"""What a run is told about its end: how many held-out episodes, and how far it has come by then."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from townlet_train.cli import main
from townlet_train.config import RunConfig
from townlet_train.contract import Progress
from townlet_train.data.checkpoint import load_checkpoint
from townlet_train.errors import Interrupted
from townlet_train.orchestrator import run_strategy

pytest.importorskip("torch")
pytestmark = pytest.mark.torch

QUICK = {
    "ppo": ["--timesteps", "64", "--n-steps", "32"],
    "a2c": ["--timesteps", "64"],
    "dagger": ["--timesteps", "400", "--n-iterations", "1", "--n-envs", "8", "--n-epochs", "1"],
    "random-search": ["--n-iterations", "1", "--max-ticks", "20"],
    "sb3-a2c": ["--timesteps", "64"],
    "anneal": [
        *(
            "--timesteps",
            "256",
            "--n-cycles",
            "1",
            "--bc-threshold",
            "0",
            "--stage-episodes",
            "2",
            "--no-gate",
        ),
        *("--set", "rollout.towns=6", "--set", "rollout.ticks=64"),
    ],
}
HOMES = {
    "a2c": "townlet_train_a2c",
    "dagger": "townlet_train_dagger",
    "random-search": "townlet_train_random_search",
    "sb3-a2c": "townlet_train_sb3.training",
}


@pytest.mark.parametrize("strategy", QUICK)
@pytest.mark.parametrize(
    ("told", "played"),
    [
        (["--set", "evaluation.episodes=3"], 3),
        (["--set", "evaluation.episodes=3", "--evaluation-episodes", "2"], 2),
        (["--set", "evaluation.episodes=3", "--evaluation-episodes", "0"], 0),
    ],
    ids=["the setting", "over the setting", "none"],
)
def test_a_run_ends_with_as_many_held_out_episodes_as_it_was_told(
    strategy: str, told: list[str], played: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip(HOMES.get(strategy, "torch"))
    run = ["--env", "CartPole-v1", "--output-dir", str(tmp_path / "run"), "--json"]
    assert main([strategy, *run, *QUICK[strategy], *told]) == 0
    evaluation = json.loads(capsys.readouterr().out)["evaluation"]
    assert len(evaluation["seeds"] if evaluation else ()) == played


@pytest.mark.parametrize(
    ("strategy", "params"),
    [
        ("ppo", {"timesteps": 64, "n_steps": 32}),
        ("a2c", {"timesteps": 64}),
        ("dagger", {"timesteps": 400, "n_iterations": 1, "n_envs": 8, "n_epochs": 1}),
        ("sb3-a2c", {"timesteps": 64}),
    ],
)
def test_a_run_stopped_while_it_is_measured_ends_its_sentence_with_the_file_of_its_policy(
    strategy: str, params: dict[str, int], tmp_path: Path
) -> None:
    pytest.importorskip(HOMES.get(strategy, "torch"))

    def stop(progress: Progress) -> None:
        if progress.phase == "evaluation":
            raise Interrupted("Stopped.")

    with pytest.raises(Interrupted, match=r"^Stopped\. Training had ended; the policy is ") as stopped:
        run_strategy(
            strategy, params, config=RunConfig(env="CartPole-v1"), run_dir=tmp_path / "run", report=stop
        )
    assert load_checkpoint(Path(str(stopped.value).split(" is ")[1])).info.algorithm == strategy


def test_progress_never_tells_of_more_than_there_is_to_do(tmp_path: Path) -> None:
    told: list[Progress] = []
    params = {"timesteps": 102, "n_envs": 16, "n_steps": 4, "batch_size": 16, "evaluation_episodes": 0}
    config = RunConfig(env="CartPole-v1")
    result = run_strategy("ppo", params, config=config, run_dir=tmp_path / "run", report=told.append)
    assert result.model_dump()["steps"] == 112
    assert {(report.phase, report.total) for report in told} == {("ppo", 102)}
    assert max(report.done for report in told) <= 102


def test_a_run_that_is_refused_leaves_nothing_behind(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = ["ppo", "--env", "CartPole-v1", "--output-dir", str(tmp_path / "deep/run")]
    assert main([*run, "--n-envs", "2", "--n-workers", "100000"]) == 3
    assert "2 environments take 1 to 2 workers, 100000 were asked for" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
