"""A run that was killed before it saved any checkpoint begins again as it began, and is the same run."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.short_runs import NORMALISED, left_by, resume, train
from townlet_train.config import RunConfig
from townlet_train.contract import Progress
from townlet_train.errors import CheckpointError, UsageError
from townlet_train.orchestrator import run_strategy

pytest.importorskip("torch")
pytestmark = pytest.mark.torch


def killed_before_any_checkpoint(run_dir: Path, params: Mapping[str, Any], **options: Any) -> dict[str, Any]:
    """A run whose process died when it had recorded some lines and saved nothing; its run.json."""

    def report(progress: Progress) -> None:
        if progress.done >= 300 and (run_dir / "metrics.jsonl").exists():
            os._exit(0)

    process = os.fork()
    if process == 0:
        try:
            run_strategy(
                "ppo",
                {"checkpoint_interval": 600, "timesteps": 700, "n_steps": 150, "log_interval": 50, **params},
                config=options.pop("config", RunConfig(env="CartPole-v1", seed=3)),
                run_dir=run_dir,
                report=report,
                **options,
            )
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0
    assert not list(run_dir.glob("*.zip"))
    assert (run_dir / "metrics.jsonl").exists()
    document: dict[str, Any] = json.loads((run_dir / "run.json").read_text())
    return document


LATE = {"checkpoint_interval": 600, "n_steps": 150, "log_interval": 50}


def test_killed_before_its_first_checkpoint_it_ends_with_the_same_bytes(tmp_path: Path) -> None:
    train(tmp_path / "straight", **LATE, **NORMALISED)
    params = {"batch_size": 50, "n_epochs": 2, "evaluation_episodes": 2, **NORMALISED}
    before = killed_before_any_checkpoint(tmp_path / "run", params)
    resume("latest", tmp_path / "run")
    assert left_by(tmp_path / "run") == left_by(tmp_path / "straight")
    after = json.loads((tmp_path / "run/run.json").read_text())
    assert after["started_at"] == before["started_at"]
    [again] = after["resumed"]
    assert (again["checkpoint"], again["timestep"]) == (None, 0)
    logs = "".join(path.read_text() for path in (tmp_path / "run/logs").glob("training_*.log"))
    assert "ppo_seed3 had saved no checkpoint, so it begins again as it began" in logs


def test_a_fork_that_was_killed_at_once_begins_again_with_the_same_policy(tmp_path: Path) -> None:
    train(tmp_path / "parent", timesteps=200)
    parent = tmp_path / "parent/checkpoint_200.zip"
    fork = {"config": RunConfig(env="CartPole-v1", seed=9), "resume_from": parent, "fork": True}
    params = {**LATE, "timesteps": 700}
    run_strategy("ppo", params, run_dir=tmp_path / "straight", **fork)
    killed_before_any_checkpoint(tmp_path / "run", params, **fork)
    resume("latest", tmp_path / "run")
    assert left_by(tmp_path / "run") == left_by(tmp_path / "straight")


def test_resumed_elsewhere_and_killed_at_once_it_goes_on_from_there_again(tmp_path: Path) -> None:
    train(tmp_path / "first", timesteps=200)
    checkpoint = tmp_path / "first/checkpoint_200.zip"
    longer = {"timesteps": 800, "checkpoint_interval": 600, "log_interval": 50}
    resume(checkpoint, tmp_path / "straight", **longer)
    elsewhere = {"config": RunConfig(), "resume_from": checkpoint}
    killed_before_any_checkpoint(tmp_path / "run", {**longer, "n_steps": 300}, **elsewhere)
    resume("latest", tmp_path / "run")
    assert left_by(tmp_path / "run") == left_by(tmp_path / "straight")


def test_what_it_began_with_must_be_what_it_was(tmp_path: Path) -> None:
    train(tmp_path / "first", timesteps=300)
    checkpoint = tmp_path / "first/checkpoint_200.zip"
    longer = {"timesteps": 800, "checkpoint_interval": 600, "n_steps": 300, "log_interval": 50}
    killed_before_any_checkpoint(tmp_path / "run", longer, config=RunConfig(), resume_from=checkpoint)
    shutil.copy(tmp_path / "first/checkpoint_100.zip", checkpoint)
    with pytest.raises(CheckpointError, match=r"checkpoint_200\.zip is no longer the file that the run of"):
        resume("latest", tmp_path / "run")


@pytest.mark.parametrize(
    ("given", "error", "sentence"),
    [
        ({"learning_rate": 1e-3}, UsageError, r"learning_rate is 0\.0003 in .*run\.json and 0\.001 now"),
        (
            {"env": "Acrobot-v1"},
            CheckpointError,
            "was trained in environment 'CartPole-v1', not in 'Acrobot-v1'",
        ),
    ],
)
def test_what_would_make_it_another_run_is_refused(
    given: dict[str, Any], error: type[Exception], sentence: str, tmp_path: Path
) -> None:
    before = killed_before_any_checkpoint(tmp_path / "run", {})
    config = RunConfig.model_validate({"env": given.pop("env")}) if "env" in given else RunConfig()
    with pytest.raises(error, match=sentence):
        run_strategy("ppo", given, config=config, run_dir=tmp_path / "run", resume_from="latest")
    assert json.loads((tmp_path / "run/run.json").read_text()) == before
    assert (tmp_path / "run/metrics.jsonl").exists()


def test_another_strategy_does_not_go_on_with_it(tmp_path: Path) -> None:
    pytest.importorskip("townlet_train_a2c")
    killed_before_any_checkpoint(tmp_path / "run", {})
    with pytest.raises(CheckpointError, match=r"run\.json was trained by 'ppo', not by 'a2c'"):
        run_strategy("a2c", {}, config=RunConfig(), run_dir=tmp_path / "run", resume_from="latest")


def test_another_seed_has_no_effect_and_is_a_warning(tmp_path: Path) -> None:
    killed_before_any_checkpoint(tmp_path / "run", {"evaluation_episodes": 2})
    result = run_strategy("ppo", {}, config=RunConfig(seed=8), run_dir=tmp_path / "run", resume_from="latest")
    [warning] = result.warnings
    assert "seed 3, which goes on; seed 8 has no effect" in warning
    assert (tmp_path / "run/ppo_seed3_model.zip").exists()


def test_a_finished_run_whose_checkpoints_are_gone_is_not_begun_again(tmp_path: Path) -> None:
    train(tmp_path / "run", timesteps=100)
    for path in (tmp_path / "run").glob("checkpoint_*.zip"):
        path.unlink()
    with pytest.raises(CheckpointError, match="holds no checkpoint to resume from"):
        resume("latest", tmp_path / "run")


def test_a_document_that_does_not_say_how_the_run_began_is_named(tmp_path: Path) -> None:
    document = killed_before_any_checkpoint(tmp_path / "run", {})
    for missing in ("start", "params", "config"):
        broken = {name: value for name, value in document.items() if name != missing}
        (tmp_path / "run/run.json").write_text(json.dumps(broken))
        with pytest.raises(CheckpointError, match=r"run\.json does not say how its run began"):
            resume("latest", tmp_path / "run")
