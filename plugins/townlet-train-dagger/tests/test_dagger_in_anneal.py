"""DAgger as a stage of an anneal, with what comes before and after it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from townlet_train.api import load_checkpoint  # noqa: E402
from townlet_train.config import RunConfig  # noqa: E402
from townlet_train.orchestrator import run_strategy  # noqa: E402

FEW = {"timesteps": 1440, "n_iterations": 3, "n_envs": 4, "n_epochs": 2}
PPO = {"n_envs": 4, "n_steps": 30, "batch_size": 60, "n_epochs": 1, "log_interval": 120}


def anneal(run_dir: Path, env: str, **params: Any) -> Any:
    few = {"towns": 4, "ticks": 120}
    config = RunConfig.model_validate(
        {"env": env, "seed": 3, "rollout": few, "town": {"n_agents": 3, "episode_ticks": 40}}
    )
    settings = {
        "stage_episodes": 8,
        "evaluation_episodes": 4,
        "gate": False,
        "bc_threshold": 0.0,
        "timesteps": 1200,
        "kl_coef": 0.1,
        "bc": {"n_epochs": 1},
        "ppo": PPO,
        "guardrails": {"return_tolerance": 1e6, "loss_tolerance": 1e6},
        "schedule": [
            {"cycle": 0, "mode": "bc"},
            {"cycle": 0, "mode": "dagger", "params": FEW},
            {"cycle": 1, "mode": "ppo"},
        ],
    }
    return run_strategy("anneal", {**settings, **params}, config=config, run_dir=run_dir)


@pytest.mark.slow
@pytest.mark.parametrize("env", ["town", "LunarLander-v3"])
def test_it_corrects_the_clone_that_ppo_goes_on_from(env: str, tmp_path: Path) -> None:
    if env == "LunarLander-v3":
        pytest.importorskip("Box2D")
    result = anneal(tmp_path / "run", env)
    clone, corrected, improved = result.stages
    assert [stage.mode for stage in result.stages] == ["bc", "dagger", "ppo"]
    assert (clone.steps, corrected.steps, corrected.total_steps) == (0, 1440, 1440)
    assert improved.total_steps == 1440 + improved.steps
    assert corrected.accuracy is not None
    assert corrected.action is None
    started = load_checkpoint(tmp_path / "run" / str(corrected.checkpoint)).info
    assert started.algorithm == "dagger"
    parent = load_checkpoint(tmp_path / "run" / str(improved.checkpoint)).info.lineage
    assert parent.parent_sha256
    better = corrected.return_mean > clone.return_mean
    of_the_clone = corrected.checkpoint if better else clone.checkpoint
    assert result.bc_checkpoint == str(tmp_path / "run" / str(of_the_clone))
    recorded = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [line["timestep"] for line in recorded if line["mode"] == "dagger"] == [480, 960, 1440]
    assert min(line["timestep"] for line in recorded if line["mode"] == "ppo") > 1440
