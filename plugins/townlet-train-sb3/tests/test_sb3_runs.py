"""A run is the one that Stable-Baselines3 makes by itself, and keeps the contract of townlet-train's own strategies."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("stable_baselines3")
pytestmark = pytest.mark.torch

import torch  # noqa: E402
from stable_baselines3 import A2C, PPO  # noqa: E402
from stable_baselines3.common.env_util import make_vec_env  # noqa: E402

from townlet_train.api import Interrupted, Progress, load_checkpoint  # noqa: E402
from townlet_train.cli import main  # noqa: E402
from townlet_train.config import RunConfig  # noqa: E402
from townlet_train.orchestrator import run_strategy  # noqa: E402
from townlet_train.testing import check_strategy  # noqa: E402
from townlet_train_sb3.strategies import SB3A2C, SB3PPO, SB3A2CParams, SB3PPOParams  # noqa: E402

README = Path(__file__).parents[1] / "README.md"
CLASSES = {"sb3-ppo": PPO, "sb3-a2c": A2C}
SHORT = {"timesteps": 700, "evaluation_episodes": 0, "checkpoint_interval": 250}
QUICK = {"sb3-ppo": {"n_steps": 64, "n_epochs": 2}, "sb3-a2c": {}}


def run(name: str, folder: Path, env: str = "CartPole-v1", **options: Any) -> Any:
    report = options.pop("report", lambda progress: None)
    params = {**SHORT, **QUICK[name], **options}
    config = RunConfig.model_validate({"env": env, "seed": 7})
    return run_strategy(name, params, config=config, run_dir=folder, report=report)


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("name", "env", "n_envs", "settings"),
    [
        ("sb3-ppo", "CartPole-v1", 2, {"clip_range_vf": 0.3, "target_kl": 0.001}),
        ("sb3-ppo", "Pendulum-v1", 1, {"ent_coef": 0.01}),
        ("sb3-a2c", "CartPole-v1", 3, {"use_rms_prop": False, "normalize_advantage": True}),
        ("sb3-a2c", "CartPole-v1", 1, {}),
    ],
)
def test_its_weights_are_those_that_stable_baselines3_comes_to_by_itself(
    name: str, env: str, n_envs: int, settings: dict[str, Any], tmp_path: Path
) -> None:
    reached = run(name, tmp_path / "run", env, n_envs=n_envs, **settings)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    alone = CLASSES[name](
        "MlpPolicy", make_vec_env(env, n_envs, seed=7), seed=7, device="cpu", **QUICK[name], **settings
    )
    alone.learn(SHORT["timesteps"])
    torch.set_num_threads(threads)
    weights = load_checkpoint(Path(reached.checkpoint)).weights
    arrays = {array: tensor.numpy() for array, tensor in alone.policy.state_dict().items()}
    assert arrays.keys() == weights.keys() - {"normaliser.mean", "normaliser.std"}
    assert all((weights[array] == arrays[array]).all() for array in arrays)
    assert reached.steps == alone.num_timesteps


def test_defaults_are_those_of_the_contract_of_the_lander() -> None:
    ppo, a2c = SB3PPOParams(), SB3A2CParams()
    assert (ppo.learning_rate, ppo.n_steps, ppo.batch_size, ppo.n_epochs) == (3e-4, 2048, 64, 10)
    assert (ppo.gamma, ppo.gae_lambda, ppo.timesteps) == (0.99, 0.95, 50_000)
    assert (a2c.learning_rate, a2c.n_steps, a2c.gamma, a2c.gae_lambda) == (7e-4, 5, 0.99, 1.0)


@pytest.mark.parametrize("name", CLASSES)
def test_a_run_leaves_the_files_and_documents_of_the_contract(name: str, tmp_path: Path) -> None:
    reached = run(name, tmp_path, log_interval=100, evaluation_episodes=2)
    total = {"sb3-ppo": 704, "sb3-a2c": 700}[name]  # whole rollouts
    names = {path.name for path in tmp_path.glob("*.zip")}
    assert names == {*(f"checkpoint_{step}.zip" for step in (250, 500, total)), f"{name}_seed7_model.zip"}
    results = json.loads((tmp_path / f"{name}_seed7_results.json").read_text())["experiment_results"]
    assert results["metadata"]["total_timesteps"] == reached.steps == total
    assert results["hyperparameters"]["n_steps"] == (QUICK[name] or {"n_steps": 5})["n_steps"]
    recorded = lines(tmp_path)
    assert [line["timestep"] for line in recorded] == list(range(100, 701, 100))
    assert recorded[-1]["episode"] == reached.total_episodes
    assert reached.loss_total == pytest.approx(
        reached.loss_policy + 0.5 * reached.loss_value - 0.0 * reached.loss_entropy
    )
    assert reached.updates == (-(-704 // 64) * 2 if name == "sb3-ppo" else 140)
    assert len(reached.evaluation.episode_returns) == 2
    assert load_checkpoint(Path(reached.checkpoint)).info.lineage.training_seeds == ((7, 7),)


def test_every_number_of_a_line_is_on_the_plugins_page(tmp_path: Path) -> None:
    run("sb3-ppo", tmp_path)
    section = README.read_text().partition("## Lines of metrics.jsonl")[2].partition("\n## ")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    usual = {"timestep", "episode", "reward", "episode_length", "timestamp"}
    times = {"collect_sec", "update_sec", "steps_per_sec", "non_finite"}
    recorded = {name for line in lines(tmp_path) for name in line} - usual - times
    assert set(re.findall(r"`(\w+)`", " ".join(rows))) == recorded


@pytest.mark.parametrize("strategy", [SB3PPO, SB3A2C])
def test_it_keeps_the_rules_of_townlet_train(strategy: type[Any]) -> None:
    skipped = {rule.rule for rule in check_strategy(strategy) if rule.outcome == "skipped"}
    assert skipped == {"resume"}


def test_vectors_are_checked_too() -> None:
    check_strategy(SB3A2C, config={"env": "Pendulum-v1", "seed": 3})


@pytest.mark.parametrize(
    ("options", "code", "sentence"),
    [
        (["--env", "town"], 3, "learns where one agent acts and all of its actions are legal, town has"),
        (["--env", "CartPole-v1", "--batch-size", "1"], 3, "batch_size"),
        (["--env", "CartPole-v1", "--n-steps", "1"], 3, "a rollout has at least 2 steps"),
        (["--env", "CartPole-v1", "--net-arch", "0"], 3, "widths in net_arch are at least 1"),
        (["--env", "NoSuchThing-v0"], 5, "No environment named 'NoSuchThing-v0'"),
        (["--env", "CartPole-v1", "--resume-from", "latest"], 3, "--resume-from"),
    ],
)
def test_what_it_cannot_do_is_refused_in_words(
    options: list[str], code: int, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sb3-ppo", *options, "--output-dir", str(tmp_path / "run")]) == code
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_what_stable_baselines3_warns_of_is_a_warning_of_the_run(tmp_path: Path) -> None:
    [warning] = run("sb3-ppo", tmp_path, batch_size=48).warnings
    assert "there will be a truncated mini-batch of size 16" in warning
    assert "\n" not in warning


def test_a_stop_leaves_the_policy_so_far(tmp_path: Path) -> None:
    def stop(progress: Progress) -> None:
        if progress.done >= 300:
            raise Interrupted("Stopped by SIGINT.")

    with pytest.raises(Interrupted, match=r"The policy so far is .*model\.zip"):
        run("sb3-ppo", tmp_path, report=stop)
    checkpoint = load_checkpoint(tmp_path / "sb3-ppo_seed7_model.zip")
    assert 300 <= checkpoint.state["timestep"] < 400
    assert checkpoint.info.versions["stable_baselines3"]


def test_global_generators_are_left_as_they_were(tmp_path: Path) -> None:
    before = torch.get_rng_state()
    run("sb3-a2c", tmp_path)
    assert torch.equal(torch.get_rng_state(), before)


def test_its_checkpoint_is_evaluated_exported_and_gated_like_any(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = str(run("sb3-ppo", tmp_path / "run").checkpoint)
    assert main(["evaluate", model, "--episodes", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["env"] == "CartPole-v1"
    assert main(["export", model, "--format", "npz", "--output", str(tmp_path / "policy.npz")]) == 0
    assert main(["gate", model, "--against", "expert", "--episodes", "20"]) in (10, 11)


@pytest.mark.slow
def test_it_balances_a_pole_better_the_longer_it_trains(tmp_path: Path) -> None:
    params = {"timesteps": 20_000, "n_envs": 4, "n_steps": 512, "n_epochs": 10, "evaluation_episodes": 20}
    assert run("sb3-ppo", tmp_path, **params).evaluation.ci_low > 150
