"""Random search finds a policy that any command can play, without torch, and says what it cannot do."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from townlet_train.api import Interrupted, NetworkPolicy, Observation, Progress, load_checkpoint
from townlet_train.cli import main
from townlet_train.config import RunConfig
from townlet_train.orchestrator import TrainingOrchestrator
from townlet_train_random_search import RandomSearchParams
from townlet_train_random_search.search import act, step

SHORT = {"n_iterations": 3, "n_directions": 4, "evaluation_episodes": 0, "max_ticks": 60}


def search(
    run_dir: Path, *, env: str = "CartPole-v1", report: Any = lambda progress: None, **params: Any
) -> Any:
    town = {"n_agents": 3, "episode_ticks": 40} if env == "town" else {}
    config = RunConfig.model_validate({"env": env, "seed": 5, "town": town})
    return TrainingOrchestrator(config).run(
        "random-search", {**SHORT, **params}, run_dir=run_dir, report=report
    )


def test_it_balances_a_pole(tmp_path: Path) -> None:
    found = search(tmp_path / "run", n_iterations=20, n_directions=8, max_ticks=300, evaluation_episodes=20)
    assert found.final_reward_mean > 400


def test_what_it_leaves_is_the_linear_policy_it_found_greedy_and_sampled_alike(tmp_path: Path) -> None:
    found = search(tmp_path / "run")
    checkpoint = load_checkpoint(Path(found.checkpoint))
    n_features = len(checkpoint.info.feature_names)
    weights = checkpoint.weights["action_net.weight"][:, :n_features].astype(np.float64)
    rng = np.random.default_rng(0)
    features = rng.standard_normal((50, 1, n_features)).astype(np.float32)
    seen = Observation(features, np.zeros((50, 1, 0, 0, 0), np.uint8), np.ones((50, 1, 2), np.bool_))
    wanted = act(np.broadcast_to(weights, (50, *weights.shape)), seen)
    for deterministic in (True, False):
        policy = NetworkPolicy(checkpoint, deterministic=deterministic)
        np.testing.assert_array_equal(policy.act(seen, rng.random((50, 1))), wanted)


def test_a_step_is_that_of_the_paper() -> None:
    rng = np.random.default_rng(1)
    directions, forwards, backwards = (
        rng.standard_normal((3, 2, 4)),
        np.array([1.0, 5, 2]),
        np.array([0.0, 1, 7]),
    )
    params = RandomSearchParams(n_directions=3, n_best=2, step_size=0.5)
    deviation = np.std([5.0, 1, 2, 7])
    wanted = 0.5 / (2 * deviation) * ((5 - 1) * directions[1] + (2 - 7) * directions[2])
    np.testing.assert_allclose(step(directions, forwards, backwards, params), wanted)
    assert not step(directions, np.ones(3), np.ones(3), params).any()


def test_the_same_seed_leaves_the_same_bytes(tmp_path: Path) -> None:
    first, second = search(tmp_path / "one"), search(tmp_path / "two")
    assert first.checkpoint_sha256 == second.checkpoint_sha256


def test_agents_of_a_town_search_together_and_do_nothing_illegal(tmp_path: Path) -> None:
    found = search(tmp_path / "run", env="town")
    assert found.steps == 3 * 8 * 3 * 40
    assert load_checkpoint(Path(found.checkpoint)).info.lineage.training_seeds == ((5, 16),)


def test_a_stop_leaves_the_policy_so_far(tmp_path: Path) -> None:
    def stop(progress: Progress) -> None:
        raise Interrupted("Stopped by SIGINT.")

    with pytest.raises(Interrupted, match=r"The policy so far is .*model\.zip"):
        search(tmp_path / "run", report=stop)
    assert load_checkpoint(tmp_path / "run/random-search_seed5_model.zip").info.algorithm == "random-search"


def test_a_stop_while_it_is_evaluated_is_heard_at_once_and_names_the_policy(tmp_path: Path) -> None:
    heard: list[int] = []

    def stop(progress: Progress) -> None:
        if progress.phase == "evaluation":
            heard.append(progress.done)
            raise Interrupted("Stopped by SIGINT.")

    with pytest.raises(Interrupted, match=r"The search had ended; the policy is .*model\.zip"):
        search(tmp_path / "run", report=stop, evaluation_episodes=20)
    assert heard == [0]


def test_neither_its_import_nor_its_run_brings_torch(tmp_path: Path) -> None:
    command = ["random-search", "--env", "CartPole-v1", "--n-iterations", "1", "--evaluation-episodes", "1"]
    command += ["--output-dir", str(tmp_path / "run"), "--json"]
    code = "import sys, townlet_train_random_search; heavy = 'numpy' in sys.modules\n"
    code += f"from townlet_train.cli import main; main({command!r})\n"
    code += "sys.stderr.write(f'{heavy} {sorted({\"torch\"} & set(sys.modules))}')"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stderr.endswith("False []")
    assert json.loads(done.stdout)["strategy"] == "random-search"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--env", "Pendulum-v1"], "are vectors"),
        (["--env", "CartPole-v1", "--n-directions", "1"], "n_directions"),
    ],
)
def test_what_it_cannot_do_is_refused_in_words(
    options: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["random-search", *options, "--output-dir", str(tmp_path / "run")]) == 3
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
