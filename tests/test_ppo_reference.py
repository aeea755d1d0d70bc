"""Staying near a reference, a critic that learns alone, an expert beside: what a warm start may need to hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from townlet_train.cli import main
from townlet_train.config import RunConfig
from townlet_train.data.checkpoint import load_checkpoint
from townlet_train.errors import ConfigError
from townlet_train.files import sha256_of
from townlet_train.orchestrator import run_strategy
from townlet_train.results import PPOTrainingResultDTO
from townlet_train.services.run_files import METRICS

pytest.importorskip("torch")
pytestmark = pytest.mark.torch

SMALL = {"n_steps": 100, "batch_size": 50, "n_epochs": 4, "log_interval": 100, "evaluation_episodes": 0}


def train(run_dir: Path, env: str = "CartPole-v1", seed: int = 3, **params: Any) -> PPOTrainingResultDTO:
    start = params.pop("start", None)
    result = run_strategy(
        "ppo",
        {**SMALL, **params},
        config=RunConfig(env=env, seed=seed),
        run_dir=run_dir,
        resume_from=start,
        fork=start is not None,
    )
    assert isinstance(result, PPOTrainingResultDTO)
    return result


@pytest.fixture(scope="module", params=["CartPole-v1", "Pendulum-v1"])
def teacher(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """An environment with whole numbers for actions or with real ones, and a policy for it."""
    run_dir = tmp_path_factory.mktemp("teacher") / "run"
    result = train(run_dir, request.param, timesteps=400, checkpoint_interval=400)
    return request.param, Path(str(result.checkpoint))


def distances(run_dir: Path) -> list[float]:
    lines = [json.loads(line) for line in (run_dir / METRICS).read_text().splitlines()]
    return [line["reference_kl"] for line in lines if "reference_kl" in line]


def test_a_policy_that_begins_as_its_reference_is_at_no_distance_and_is_held_there(
    teacher: tuple[str, Path], tmp_path: Path
) -> None:
    env, path = teacher
    wild = {"timesteps": 600, "learning_rate": 3e-3, "start": path, "reference": path}
    train(tmp_path / "free", env, **wild, kl_coef=1e-9)
    train(tmp_path / "held", env, **wild, kl_coef=30.0)
    free, held = distances(tmp_path / "free"), distances(tmp_path / "held")
    first = train(tmp_path / "first", env, **{**wild, "timesteps": 100, "learning_rate": 1e-9}, kl_coef=1.0)
    assert distances(tmp_path / "first")[0] == pytest.approx(0, abs=1e-5)
    assert first.kl_divergence == pytest.approx(0, abs=1e-6)
    assert held[-1] < free[-1] / 5


def test_the_checkpoint_says_what_it_stayed_near_to(teacher: tuple[str, Path], tmp_path: Path) -> None:
    env, path = teacher
    result = train(tmp_path / "run", env, timesteps=100, start=path, reference=path, kl_coef=0.5)
    lineage = load_checkpoint(Path(str(result.checkpoint))).info.lineage
    assert lineage.reference_sha256 == lineage.parent_sha256 == sha256_of(path)


def test_the_weight_of_the_distance_halves_and_stops_at_its_floor(
    teacher: tuple[str, Path], tmp_path: Path
) -> None:
    env, path = teacher
    decay = {"kl_coef": 0.8, "kl_half_life": 0.25, "kl_floor": 0.15}
    train(tmp_path / "run", env, timesteps=400, start=path, reference=path, **decay)
    lines = [json.loads(line) for line in (tmp_path / "run" / METRICS).read_text().splitlines()]
    assert [line["kl_coef"] for line in lines] == pytest.approx([0.8, 0.4, 0.2, 0.15])


def test_a_critic_that_learns_alone_leaves_every_array_of_the_actor_as_it_was(
    teacher: tuple[str, Path], tmp_path: Path
) -> None:
    env, path = teacher
    result = train(tmp_path / "run", env, timesteps=300, start=path, critic_only=True, learning_rate=1e-2)
    before = load_checkpoint(path).weights
    after = load_checkpoint(Path(str(result.checkpoint))).weights
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    assert changed
    assert all("value" in name for name in changed)


def test_training_stops_once_the_critic_explains_enough(tmp_path: Path) -> None:
    stopped = train(tmp_path / "run", timesteps=500, until_explained_variance=-10.0)
    not_enough = train(tmp_path / "on", timesteps=500, until_explained_variance=0.999)
    assert (stopped.steps, not_enough.steps) == (100, 500)


def test_the_learning_rate_rises_from_zero(tmp_path: Path) -> None:
    policy = train(tmp_path / "a", timesteps=100, n_epochs=1, learning_rate_warmup=10_000).kl_divergence_max
    assert policy < train(tmp_path / "b", timesteps=100, n_epochs=1, learning_rate=1e-2).kl_divergence_max


@pytest.mark.parametrize(
    ("params", "sentence"),
    [
        ({"kl_coef": 0.1}, "name its checkpoint as reference"),
        ({"reference": Path("x.zip")}, "give kl_coef too"),
        ({"bc_coef": 0.1}, "give expert_share too"),
        (
            {"reference": Path("x.zip"), "kl_coef": 0.1, "capture_dir": Path("c")},
            "give mode mixed, or no reference",
        ),
    ],
)
def test_half_of_what_belongs_together_is_refused(
    params: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        train(tmp_path / "run", timesteps=100, **params)


def test_a_reference_of_another_environment_is_refused_in_a_sentence(
    teacher: tuple[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    env, path = teacher
    other = {"CartPole-v1": "Pendulum-v1", "Pendulum-v1": "CartPole-v1"}[env]
    arguments = ["--reference", str(path), "--kl-coef", "1", "--output-dir", str(tmp_path / "run")]
    assert main(["ppo", "--env", other, "--timesteps", "10", *arguments]) == 6
    assert f"was trained in environment {env!r}" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_the_expert_drives_its_share_of_the_slots_and_the_learner_counts_its_own(tmp_path: Path) -> None:
    shared = {"timesteps": 800, "n_envs": 4, "n_epochs": 1, "batch_size": 50}
    alone = train(tmp_path / "alone", **shared)
    beside = train(tmp_path / "beside", **shared, expert_share=0.5)
    assert (alone.updates, beside.updates) == (16, 8)
    assert beside.steps == 800


def test_an_expert_that_is_imitated_where_it_drives_is_soon_approached(tmp_path: Path) -> None:
    longer = {
        "timesteps": 4000,
        "n_envs": 4,
        "learning_rate": 3e-3,
        "expert_share": 0.5,
        "evaluation_episodes": 20,
    }
    left_alone = train(tmp_path / "left_alone", **longer)
    imitated = train(tmp_path / "imitated", **longer, bc_coef=1.0)
    assert left_alone.evaluation is not None
    assert imitated.evaluation is not None
    assert imitated.evaluation.mean > 400 > left_alone.evaluation.mean


def test_a_run_beside_an_expert_that_is_resumed_is_the_same_run(tmp_path: Path) -> None:
    params = {"n_envs": 3, "expert_share": 0.4, "bc_coef": 0.5, "checkpoint_interval": 150}
    whole = train(tmp_path / "whole", timesteps=900, **params)
    train(tmp_path / "half", timesteps=450, **params)
    resumed = run_strategy(
        "ppo",
        {"timesteps": 900},
        config=RunConfig(env="CartPole-v1", seed=3),
        run_dir=tmp_path / "half",
        resume_from="latest",
    )
    assert resumed.checkpoint is not None
    first, second = (load_checkpoint(Path(str(run.checkpoint))).weights for run in (whole, resumed))
    for name, array in first.items():
        np.testing.assert_array_equal(array, second[name])
