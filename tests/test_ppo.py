"""PPO: it learns, equal seeds give equal bytes, what is not finite stays out, and a run leaves what it owes."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

from tests.policies import MLP, SHARED, WITH_MAP
from tests.strange_envs import Closing, PaysNoNumber
from townlet_train.cli import main
from townlet_train.config import RunConfig
from townlet_train.contract import Progress
from townlet_train.data.checkpoint import load_checkpoint
from townlet_train.envs.protocol import EnvSpec
from townlet_train.errors import ConfigError, EnvironmentFailedError, Interrupted, TrainingError
from townlet_train.orchestrator import run_strategy
from townlet_train.policies.network import NetworkSpec
from townlet_train.results import EvaluationDTO, PPOTrainingResultDTO

pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from townlet_train.learners.descent import MOST_RESTORES, SKIPS_IN_A_ROW  # noqa: E402
from townlet_train.learners.networks import network_for_env  # noqa: E402
from townlet_train.learners.ppo import PPOLearner, PPOStats  # noqa: E402
from townlet_train.learners.rollouts import Rollout  # noqa: E402
from townlet_train.strategies.ppo import PPOParams  # noqa: E402

SHORT = {"timesteps": 700, "n_steps": 300, "batch_size": 50, "n_epochs": 2, "checkpoint_interval": 250}
QUICK = {**SHORT, "evaluation_episodes": 2}


def rollout_of(learner: PPOLearner, n_steps: int = 40, seed: int = 0) -> Rollout:
    """Made-up steps of two slots in which action 0 pays."""
    rng, shape, spec = np.random.default_rng(seed), (n_steps, 2, 1), learner.spec
    features = rng.normal(size=(*shape, spec.n_features)).astype(np.float32)
    maps = rng.integers(2, size=(*shape, *spec.map_shape), dtype=np.uint8)
    shown = maps if spec.kind == "conflict_aware" else None
    flat_maps = None if shown is None else shown.reshape(-1, *spec.map_shape)
    actions = rng.integers(spec.n_actions, size=shape)
    outputs, values = learner.actor_critic.evaluate(features.reshape(2 * n_steps, -1), flat_maps)
    log_probs = learner.actor_critic.distribution(outputs, None).log_probs(actions.ravel())
    ended = rng.random(shape) < 0.1
    return Rollout(
        features=features,
        maps=shown,
        illegal=None,
        actions=actions,
        rewards=(actions == 0).astype(np.float32),
        terminated=ended,
        truncated=np.zeros(shape, np.bool_),
        log_probs=log_probs.reshape(shape),
        values=np.concatenate([values, values[:2]]).reshape(n_steps + 1, 2, 1),
        final_values=np.zeros(shape, np.float32),
    )


def learner_of(spec: NetworkSpec = MLP, **settings: Any) -> PPOLearner:
    return PPOLearner(spec, PPOParams(**{"batch_size": 16, **settings}), np.random.default_rng(5))


def likelihood_of_paying(learner: PPOLearner, rollout: Rollout) -> float:
    """Mean probability of action 0."""
    n, maps = rollout.rewards.size, rollout.maps
    flat_maps = None if maps is None else maps.reshape(n, *maps.shape[3:])
    outputs, _ = learner.actor_critic.evaluate(rollout.features.reshape(n, -1), flat_maps)
    log_probs = learner.actor_critic.distribution(outputs, None).log_probs(np.zeros(n, np.int64))
    return float(np.exp(log_probs).mean())


@pytest.mark.parametrize("spec", [MLP, SHARED, WITH_MAP], ids=["mlp", "shared trunk", "conflict aware"])
def test_an_action_that_pays_becomes_likelier(spec: NetworkSpec) -> None:
    learner = learner_of(spec, learning_rate=3e-3, gamma=0.0)
    rollout = rollout_of(learner)
    before = likelihood_of_paying(learner, rollout)
    stats = learner.update(rollout, 0.0)
    assert likelihood_of_paying(learner, rollout) > before + 0.04
    assert stats.n_updates == 10 * 5
    assert stats.n_epochs == 10
    assert stats.approx_kl_max >= stats.approx_kl > 0


def test_orthogonal_layers_start_as_those_of_stable_baselines3() -> None:
    weights = learner_of(replace(MLP, n_features=8, hidden_sizes=(64, 64))).weights
    for name, gain in (("policy_net.2", 2**0.5), ("value_net.2", 2**0.5)):
        layer = weights[f"mlp_extractor.{name}.weight"]
        np.testing.assert_allclose(layer @ layer.T, gain**2 * np.eye(64), atol=1e-5)
    assert np.linalg.norm(weights["action_net.weight"], axis=1) == pytest.approx(0.01, rel=1e-4)
    assert np.linalg.norm(weights["value_net.weight"]) == pytest.approx(1.0, rel=1e-4)
    assert not weights["action_net.bias"].any()


def test_target_kl_ends_the_epochs_before_the_step_that_would_go_too_far() -> None:
    free, held = learner_of(learning_rate=1e-2), learner_of(learning_rate=1e-2, target_kl=0.01)
    assert free.update(rollout_of(free), 0.0).approx_kl_max > 0.015
    stats = held.update(rollout_of(held), 0.0)
    assert stats.n_epochs < 10
    assert stats.approx_kl_max <= 0.015


def test_schedules_fall_to_nothing() -> None:
    learner = learner_of(learning_rate_schedule="linear", clip_range_schedule="linear", n_epochs=1)
    stats = learner.update(rollout_of(learner), 0.75)
    assert (stats.learning_rate, stats.clip_range) == (pytest.approx(3e-4 / 4), pytest.approx(0.05))


def test_gradients_are_cut_to_the_longest_allowed() -> None:
    learner = learner_of(max_grad_norm=1e-3, n_epochs=1, batch_size=80)
    before = learner.weights
    stats = learner.update(rollout_of(learner), 0.0)
    assert stats.grad_norm > 1e-3
    assert any((learner.weights[name] != before[name]).any() for name in before)


def test_a_batch_that_is_not_finite_is_skipped_and_counted() -> None:
    learner = learner_of(n_epochs=1, batch_size=1, normalize_advantage=False)
    rollout = rollout_of(learner)
    rollout.log_probs[7] = np.nan
    stats = learner.update(rollout, 0.0)
    assert stats.skipped_updates == 2
    assert stats.n_updates == 78
    assert np.isfinite(stats.loss)
    assert all(np.isfinite(array).all() for array in learner.weights.values())


def test_after_some_skips_in_a_row_good_weights_return_and_then_the_run_fails_by_name() -> None:
    learner = learner_of(n_epochs=1)  # of as many batches as skips in a row are borne
    learner.update(rollout_of(learner), 0.0)
    good = learner.weights
    broken = rollout_of(learner)
    broken.values[:] = np.nan
    for restores in range(1, MOST_RESTORES + 1):
        stats = learner.update(broken, 0.0)
        assert learner.descent.restores == restores
        assert stats.skipped_updates == restores * SKIPS_IN_A_ROW
        assert all((learner.weights[name] == array).all() for name, array in good.items())
    assert learner.update(rollout_of(learner), 0.0).learning_rate == pytest.approx(3e-4 / 2**MOST_RESTORES)
    with pytest.raises(TrainingError, match=r"after 3 returns to good weights; .* is 'values'"):
        learner.update(broken, 0.0)


def test_a_network_with_maps_is_refused_where_there_are_none() -> None:
    with pytest.raises(ConfigError, match="flat shows no maps, which a conflict_aware network reads"):
        network_for_env(EnvSpec("flat", ("a",), ("x", "y")), "conflict_aware")


def train(folder: Path, *, env: str = "CartPole-v1", seed: int = 3, **params: Any) -> PPOTrainingResultDTO:
    config = RunConfig.model_validate({"env": env, "seed": seed})
    result = run_strategy("ppo", {**QUICK, **params}, config=config, run_dir=folder)
    assert isinstance(result, PPOTrainingResultDTO)
    return result


def test_a_run_leaves_checkpoints_documents_and_lines(tmp_path: Path) -> None:
    result = train(tmp_path / "run")
    names = {path.name for path in (tmp_path / "run").glob("*.zip")}
    assert names == {*(f"checkpoint_{step}.zip" for step in (250, 500, 700)), "ppo_seed3_model.zip"}
    assert result.steps == 700
    assert result.epoch == 3
    assert result.updates == 2 * (6 + 6 + 2)
    [results_path] = (tmp_path / "run").glob("*_results.json")
    document = json.loads(results_path.read_text())["experiment_results"]
    assert document["metadata"]["total_timesteps"] == 700
    assert document["environment"] == {
        "name": "CartPole-v1",
        "observation_space": "Box(4,)",
        "action_space": "Discrete(2)",
        "reward_threshold": 475.0,
    }
    assert document["metrics"]["converged"] is None
    assert document["metrics"]["total_episodes"] == result.total_episodes > 0
    assert document["hyperparameters"]["gae_lambda"] == 0.95
    [metrics_path] = (tmp_path / "run").glob("*_metrics.json")
    series = json.loads(metrics_path.read_text())["training_metrics"]
    assert series["metadata"]["recording_interval"] == 100
    assert [line["timestep"] for line in series["time_series"]] == list(range(100, 701, 100))
    assert series["time_series"][2].keys() >= PPOStats.__dataclass_fields__.keys()


def test_checkpoints_name_environment_seeds_and_counters_and_the_model_is_the_policy_alone(
    tmp_path: Path,
) -> None:
    result = train(tmp_path / "run", n_envs=4)
    model, checkpoint = (
        load_checkpoint(tmp_path / "run" / name) for name in ("ppo_seed3_model.zip", "checkpoint_700.zip")
    )
    assert result.checkpoint == str(tmp_path / "run/ppo_seed3_model.zip")
    assert model.optimizer is model.training is None
    assert model.info == checkpoint.info
    assert checkpoint.info.env_id == "CartPole-v1"
    assert checkpoint.info.lineage.training_seeds == ((3, 6),)
    assert checkpoint.state["timestep"] == model.state["timestep"] == 700
    assert checkpoint.optimizer is not None
    n_parameters = sum(
        array.size for name, array in checkpoint.weights.items() if not name.startswith("normaliser")
    )
    assert checkpoint.optimizer["adam.exp_avg"].shape == (n_parameters,)


@pytest.mark.parametrize("env", ["CartPole-v1", "Pendulum-v1"])
def test_equal_seeds_give_equal_bytes(env: str, tmp_path: Path) -> None:
    first, second = (train(tmp_path / name, env=env) for name in ("a", "b"))
    other = train(tmp_path / "c", env=env, seed=4)
    assert first.checkpoint_sha256 == second.checkpoint_sha256 != other.checkpoint_sha256
    assert first.evaluation == second.evaluation.model_copy(  # type: ignore[union-attr]  # both were evaluated
        update={"policy": first.evaluation.policy}  # type: ignore[union-attr]  # both were evaluated
    )


def test_two_threads_on_one_batch_give_equal_bytes(tmp_path: Path) -> None:
    params = {"timesteps": 12_000, "n_envs": 10, "n_steps": 50, "batch_size": 2500, "activation": "relu"}
    first, second = (
        train(tmp_path / name, env="town", **params, evaluation_episodes=0) for name in ("a", "b")
    )
    assert first.updates > 8
    assert first.checkpoint_sha256 == second.checkpoint_sha256
    assert load_checkpoint(Path(str(first.checkpoint))).info.network["activation"] == "relu"


def test_the_town_is_trained_on_with_every_slots_steps_counted(tmp_path: Path) -> None:
    params = {"timesteps": 6 * 640 * 2, "n_steps": 640, "batch_size": 960, "checkpoint_interval": 5000}
    result = train(tmp_path / "run", env="town", **params, n_epochs=1)
    assert result.steps == 6 * 640 * 2
    assert result.total_episodes == 2
    assert result.episode_length_mean == 640
    assert result.converged is None


def test_a_stopped_run_leaves_the_policy_so_far(tmp_path: Path) -> None:
    def stop(progress: Progress) -> None:
        if progress.done >= 300:
            raise Interrupted("Stopped.")

    with pytest.raises(Interrupted, match=r"Go on with --resume-from .*checkpoint_300\.zip"):
        run_strategy("ppo", QUICK, config=RunConfig(env="CartPole-v1"), run_dir=tmp_path / "run", report=stop)
    assert load_checkpoint(tmp_path / "run/checkpoint_300.zip").state["timestep"] == 300


def test_an_unknown_environment_ends_with_5_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ppo", "--env", "CartPol-v1", "--output-dir", str(tmp_path / "run")]) == 5
    assert "CartPole-v1" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("device", "code", "sentence"),
    [
        ("warp", 3, "expected auto, cpu, cuda or cuda:1"),
        ("cuda:99", 2, "Device 'cuda:99' does not work here"),
    ],
)
def test_a_device_nobody_knows_is_bad_usage_and_one_that_does_not_work_a_failure(
    device: str, code: int, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["ppo", "--env", "CartPole-v1", "--device", device, "--output-dir", str(tmp_path / "run")]
    assert main(arguments) == code
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_network_without_width_is_refused_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--set", "ppo.hidden_sizes=[8,0]", "--output-dir", str(tmp_path / "run")]
    assert main(["ppo", "--env", "CartPole-v1", "--dry-run", *arguments]) == 3
    assert "hidden sizes are at least 1, 0 was given" in capsys.readouterr().err


def test_too_few_episodes_bound_nothing() -> None:
    returns = (500.0,) * 19
    few = EvaluationDTO(
        policy="p", env="CartPole-v1", deterministic=False, seeds=tuple(range(19)), episode_returns=returns,
        mean=500, iqm=500, ci_low=500, ci_high=500,
    )  # fmt: skip
    enough = few.model_copy(update={"episode_returns": (*returns, 500.0)})
    assert (few.reaches(475), enough.reaches(475), enough.reaches(501), enough.reaches(None)) == (
        None,
        True,
        False,
        None,
    )


@pytest.mark.slow
def test_it_balances_a_pole(tmp_path: Path) -> None:
    params = {
        "timesteps": 30_000,
        "n_steps": 1024,
        "batch_size": 64,
        "n_epochs": 10,
        "checkpoint_interval": 30_000,
    }
    result = train(tmp_path / "run", **params, evaluation_episodes=20)
    assert result.evaluation is not None
    assert result.evaluation.ci_low > 300
    assert result.final_reward_mean is not None
    assert result.final_reward_mean > 100
    assert result.converged == (result.evaluation.ci_low >= 475)


@pytest.mark.slow
def test_it_swings_a_pendulum_better_with_real_valued_actions(tmp_path: Path) -> None:
    params = {"n_steps": 512, "batch_size": 64, "n_epochs": 10, "gamma": 0.9, "learning_rate": 1e-3}
    params |= {"timesteps": 60_000, "n_envs": 4, "checkpoint_interval": 60_000}
    result = train(tmp_path / "run", env="Pendulum-v1", **params, evaluation_episodes=20)
    assert result.evaluation is not None
    assert result.evaluation.mean > -600


def test_rewards_are_scaled_to_unit_returns_and_the_scale_is_saved() -> None:
    plain, scaled = learner_of(), learner_of(normalize_rewards=True)
    rollout = rollout_of(plain)
    large = replace(rollout, rewards=1000 * rollout.rewards)
    assert plain.update(large, 0.0).advantage_std > 100
    assert scaled.update(large, 0.0).advantage_std < 10
    assert scaled.state()["reward_scale.variance"][0] > 1000
    assert not any(name.startswith("reward") for name in plain.state())


def test_the_normaliser_travels_in_the_checkpoint(tmp_path: Path) -> None:
    result = train(tmp_path / "run", normalize_observations=True, normalize_rewards=True)
    checkpoint = load_checkpoint(Path(str(result.checkpoint)))
    assert (checkpoint.weights["normaliser.std"] != 1).all()
    assert checkpoint.info.network["feature_clip"] == 10.0


def test_a_last_rollout_without_an_update_says_so_with_null(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--timesteps", "64", "--n-steps", "64", "--target-kl", "1e-12", "--evaluation-episodes", "0"]
    options += ["--learning-rate", "1", "--batch-size", "16", "--n-epochs", "1"]
    assert (
        main(["ppo", "--env", "CartPole-v1", "--json", "--output-dir", str(tmp_path / "run"), *options]) == 0
    )
    document = json.loads(capsys.readouterr().out)
    assert document["updates"] <= 1
    assert document["kl_divergence"] is None or document["kl_divergence"] <= 1.5e-12


def test_the_map_network_is_told_of_no_other_activation(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--network", "conflict_aware", "--activation", "tanh", "--dry-run"]
    assert main(["ppo", "--env", "town", *options]) == 3
    assert "network conflict_aware has activation relu" in capsys.readouterr().err


def test_the_preset_for_the_lander_is_one_that_can_run(tmp_path: Path) -> None:
    pytest.importorskip("Box2D")
    arguments = ["ppo", "--preset", "lunarlander", "--dry-run", "--output-dir", str(tmp_path / "run")]
    assert main(arguments) == 0


@pytest.mark.parametrize("lasts", [1_000_000, 60], ids=["ends well", "breaks"])
def test_environments_are_closed_however_a_run_ends(lasts: int, tmp_path: Path) -> None:
    gymnasium.register("Closing-v0", Closing, kwargs={"lasts": lasts})
    params = {"timesteps": 300, "n_steps": 100, "n_envs": 2, "n_workers": 1, "evaluation_episodes": 2}
    try:
        with pytest.raises(EnvironmentFailedError) if lasts < 300 else nullcontext():
            run_strategy("ppo", params, config=RunConfig(env="Closing-v0"), run_dir=tmp_path / "run")
    finally:
        del gymnasium.registry["Closing-v0"]
    assert Closing.opened == 0


def test_skipped_updates_and_returns_to_good_weights_are_warnings(tmp_path: Path) -> None:
    gymnasium.register("PaysNoNumber-v0", PaysNoNumber)
    params = {"timesteps": 300, "n_steps": 100, "batch_size": 50, "n_epochs": 3, "evaluation_episodes": 0}
    params |= {"normalize_rewards": True}
    try:
        result = run_strategy(
            "ppo", params, config=RunConfig(env="PaysNoNumber-v0"), run_dir=tmp_path / "run"
        )
    finally:
        del gymnasium.registry["PaysNoNumber-v0"]
    assert result.warnings == (
        "6 updates were skipped because they were not finite.",
        "Returns to the last good weights, each with half the learning rate from then on: 1.",
    )
