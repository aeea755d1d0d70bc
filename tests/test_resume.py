"""A run that goes on from a checkpoint is the same run, bit for bit; what would make it another one is refused."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import killer
from tests.short_runs import NORMALISED, SHORT, left_by, resume, train
from townlet_train.cli import main
from townlet_train.config import RunConfig
from townlet_train.data.checkpoint import load_checkpoint, save_checkpoint, sorted_checkpoints
from townlet_train.envs.gymnasium import GymnasiumVectorEnv
from townlet_train.errors import CheckpointError, InexactStateError, TrainingError, UsageError
from townlet_train.files import sha256_of
from townlet_train.orchestrator import run_strategy
from townlet_train.services.rollout import capture_as_configured

pytest.importorskip("torch")
pytestmark = pytest.mark.torch

CASES = {
    "a pole": ("CartPole-v1", {}),
    "sixteen poles": ("CartPole-v1", {"n_envs": 16, "n_steps": 40, "timesteps": 1500, **NORMALISED}),
    "a pendulum, real actions": ("Pendulum-v1", NORMALISED),
    "a lander, in mid-flight": ("LunarLander-v3", {}),
    "sixteen landers": ("LunarLander-v3", {"n_envs": 16, "n_steps": 40, "timesteps": 3000, **NORMALISED}),
    "a town": ("town", {"n_steps": 50, "timesteps": 720, "evaluation_episodes": 0}),
    "towns seen as maps": (
        "town",
        {
            "n_envs": 2,
            "n_steps": 40,
            "timesteps": 1800,
            "network": "conflict_aware",
            "evaluation_episodes": 0,
        },
    ),
}


@pytest.mark.parametrize(("env", "params"), CASES.values(), ids=CASES)
def test_resumed_from_any_checkpoint_it_ends_with_the_same_bytes(
    env: str, params: dict[str, Any], tmp_path: Path
) -> None:
    if env == "LunarLander-v3":
        pytest.importorskip("Box2D")
    train(tmp_path / "straight", env=env, **params)
    checkpoints = sorted_checkpoints(tmp_path / "straight")
    for checkpoint in (checkpoints[0], checkpoints[len(checkpoints) // 2], checkpoints[-1]):
        resumed_dir = tmp_path / checkpoint.stem
        resume(checkpoint, resumed_dir)
        after = int(checkpoint.stem.removeprefix("checkpoint_"))
        assert left_by(resumed_dir) == left_by(tmp_path / "straight", after=after)


@pytest.mark.parametrize("mode", ["replay", "mixed"])
@pytest.mark.parametrize("store", ["npz", "memmap"])
def test_learning_from_a_recording_is_resumed_where_it_was(mode: str, store: str, tmp_path: Path) -> None:
    config = RunConfig.model_validate({"seed": 1, "rollout": {"towns": 2, "ticks": 60, "store": store}})
    capture_as_configured(config, output=tmp_path / "capture")
    params = {
        "mode": mode,
        "capture_dir": tmp_path / "capture",
        "n_steps": 80,
        "timesteps": 1500,
        "n_epochs": 1,
    }
    train(tmp_path / "straight", env="town", **params, evaluation_episodes=0, normalize_rewards=True)
    for checkpoint in sorted_checkpoints(tmp_path / "straight")[2::5]:
        resume(checkpoint, tmp_path / checkpoint.stem)
        after = int(checkpoint.stem.removeprefix("checkpoint_"))
        assert left_by(tmp_path / checkpoint.stem) == left_by(tmp_path / "straight", after=after)


def test_a_finished_run_made_longer_is_what_it_would_have_been(tmp_path: Path) -> None:
    train(tmp_path / "long", timesteps=1400)
    train(tmp_path / "run", timesteps=700)
    resume("latest", tmp_path / "run", timesteps=1400)
    assert left_by(tmp_path / "run", after=700) == left_by(tmp_path / "long", after=700)


def test_run_json_remembers_when_a_run_was_resumed_and_keeps_its_start(tmp_path: Path) -> None:
    train(tmp_path / "run")
    before = json.loads((tmp_path / "run/run.json").read_text())
    resume("latest", tmp_path / "run", timesteps=900)
    after = json.loads((tmp_path / "run/run.json").read_text())
    assert after["started_at"] == before["started_at"]
    assert after["status"] == "finished"
    [since] = after["resumed"]
    assert (since["timestep"], Path(since["checkpoint"]).name) == (700, "checkpoint_700.zip")


def test_a_run_that_lost_its_run_document_goes_on_from_its_checkpoints(tmp_path: Path) -> None:
    train(tmp_path / "straight", timesteps=900)
    train(tmp_path / "run")
    (tmp_path / "run/run.json").unlink()
    result = resume(tmp_path / "run/checkpoint_700.zip", timesteps=900)
    assert "run.json was lost and is written anew" in result.warnings[0]
    assert json.loads((tmp_path / "run/run.json").read_text())["status"] == "finished"
    assert (
        left_by(tmp_path / "run", after=700)["metrics.jsonl"]
        == left_by(tmp_path / "straight")["metrics.jsonl"]
    )


def test_run_json_tells_what_the_params_left_open(tmp_path: Path) -> None:
    train(tmp_path / "run", device="auto")
    chosen = json.loads((tmp_path / "run/run.json").read_text())["chosen"]
    assert (chosen["network"]["kind"], chosen["network"]["hidden_sizes"]) == ("mlp", [64, 64])
    assert (chosen["checkpoint_interval"], chosen["recording_interval"]) == (100, 100)
    assert chosen["device"] not in (None, "auto")
    assert chosen["precision"] not in (None, "auto")


def test_the_line_of_a_run_too_short_for_one_is_gone_when_it_goes_on(tmp_path: Path) -> None:
    train(tmp_path / "long", timesteps=1400, log_interval=1000)
    train(tmp_path / "run", log_interval=1000)
    assert [line["timestep"] for line in left_by(tmp_path / "run")["metrics.jsonl"]] == [700]
    resume("latest", tmp_path / "run", timesteps=1400)
    assert left_by(tmp_path / "run", after=700) == left_by(tmp_path / "long", after=700)


def townlet_train(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "townlet_train", *arguments]


def killed_at(checkpoint: Path, arguments: list[str]) -> None:
    """Run the program and kill it without warning once a checkpoint is there."""
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not checkpoint.exists() and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    process.kill()
    assert process.wait() == -signal.SIGKILL


def test_a_killed_process_is_resumed_by_another_to_the_same_end(tmp_path: Path) -> None:
    options = ["--timesteps", "30000", "--n-steps", "512", "--evaluation-episodes", "2"]
    start = townlet_train("ppo", "--env", "CartPole-v1", "--seed", "3", *options)
    subprocess.run([*start, "--output-dir", str(tmp_path / "straight")], check=True, capture_output=True)
    killed = tmp_path / "killed"
    killed_at(killed / "checkpoint_4000.zip", [*start, "--output-dir", str(killed)])
    assert json.loads((killed / "run.json").read_text())["status"] == "running"
    again = subprocess.run([*start, "--output-dir", str(killed)], check=False, capture_output=True, text=True)
    assert again.returncode == 3
    assert "running, or killed while it was" in again.stderr
    go_on = townlet_train("ppo", "--resume-from", "latest", "--output-dir", str(killed), "--json")
    finished = subprocess.run(go_on, check=True, capture_output=True, text=True)
    assert json.loads(finished.stdout)["steps"] == 30000
    assert left_by(killed) == left_by(tmp_path / "straight")


@pytest.mark.slow
@pytest.mark.parametrize("case", killer.CASES)
def test_killed_at_random_moments_again_and_again_it_ends_with_the_same_bytes(
    case: str, tmp_path: Path
) -> None:
    pytest.importorskip("Box2D" if case == "a lander" else "torch")
    pytest.importorskip("townlet_train_a2c" if case.endswith("a2c") else "torch")
    killer.train(tmp_path / "run", killer.CASES[case])
    (tmp_path / "run").rename(tmp_path / "straight")  # what it left names its place
    kills = 100 if case == "a pole" else 12
    command = [sys.executable, "-m", "tests.killer", str(tmp_path / "run"), case, str(kills)]
    killed = subprocess.run(command, check=False, capture_output=True, text=True, timeout=280)
    assert killed.returncode == 0, killed.stderr
    report = json.loads(killed.stdout)
    assert report["kills"] == kills
    assert len(set(report["resumed_at"])) > 1  # lives got further than those before
    assert left_by(tmp_path / "run") == left_by(tmp_path / "straight")


PHASES = {  # what sends a signal when it has been called before so often, and the step at which the run then stops
    "collecting": ("townlet_train.learners.rollouts.RolloutCollector.advance", 3, 300),
    "updating": ("townlet_train.learners.ppo.PPOLearner.update", 1, 600),
    "saving": ("townlet_train.learners.on_policy.save_checkpoint", 2, 300),
    "evaluating": ("townlet_train.services.scoring.evaluate_as_configured", 0, 700),
}


def signalled(monkeypatch: pytest.MonkeyPatch, name: str, calls: int, number: signal.Signals) -> None:
    """Let a function send this process a signal when it has been called before so often."""
    owner, _, attribute = name.rpartition(".")
    found: Any = _imported(owner)
    original: Callable[..., Any] = getattr(found, attribute)
    seen = iter(range(1000))

    def interrupting(*args: Any, **kwargs: Any) -> Any:
        if next(seen) == calls:
            os.kill(os.getpid(), number)
        return original(*args, **kwargs)

    monkeypatch.setattr(found, attribute, interrupting)


def _imported(path: str) -> Any:
    import importlib

    try:
        return importlib.import_module(path)
    except ModuleNotFoundError:
        owner, _, name = path.rpartition(".")
        return getattr(_imported(owner), name)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
@pytest.mark.parametrize("phase", PHASES)
def test_a_signal_in_any_phase_ends_with_7_and_the_run_goes_on_to_the_same_end(
    phase: str,
    number: signal.Signals,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    train(tmp_path / "straight")
    options = [f"--{name.replace('_', '-')}={value}" for name, value in SHORT.items()]
    run = ["ppo", "--output-dir", str(tmp_path / "run")]
    with monkeypatch.context() as patched:
        patched.setattr("townlet_train.learners.on_policy.SECONDS_BETWEEN_REPORTS", float("inf"))
        name, calls, stops_at = PHASES[phase]
        signalled(patched, name, calls, number)
        assert main([*run, "--env", "CartPole-v1", "--seed", "3", *options]) == 7
    said = capsys.readouterr()
    assert said.out == ""
    assert f"Stopped by {number.name}" in said.err
    assert json.loads((tmp_path / "run/run.json").read_text())["status"] == "interrupted"
    saved = [path.name for path in sorted_checkpoints(tmp_path / "run")]
    assert saved == [f"checkpoint_{step}.zip" for step in range(100, stops_at + 1, 100)]
    assert main([*run, "--resume-from", "latest", "--json"]) == 0
    ended, straight = left_by(tmp_path / "run"), left_by(tmp_path / "straight")
    if (
        phase == "updating"
    ):  # the checkpoint it stopped with knows more than the one of its step: the update, too
        assert ended.pop("checkpoint_600.zip") != straight.pop("checkpoint_600.zip")
    assert ended == straight


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def of_another_environment(path: Path) -> None:
    loaded = load_checkpoint(path)
    names = loaded.info.model_copy(update={"feature_names": ("x", *loaded.info.feature_names[1:])})
    save_checkpoint(path, replace(loaded, info=names))


def without_its_training(path: Path) -> None:
    save_checkpoint(path, replace(load_checkpoint(path), optimizer=None, training=None))


WRONG = {
    of_another_environment: "feature 0 is 'x'",
    without_its_training: "no state of its training",
}


@pytest.mark.parametrize(("spoil", "sentence"), WRONG.items(), ids=[spoil.__name__ for spoil in WRONG])
def test_a_checkpoint_that_cannot_be_gone_on_from_ends_with_6(
    spoil: Callable[[Path], None], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(tmp_path / "run", timesteps=100)
    checkpoint = shutil.copy(tmp_path / "run/checkpoint_100.zip", tmp_path / "checkpoint_100.zip")
    spoil(Path(checkpoint))
    arguments = ["ppo", "--env", "CartPole-v1", "--seed", "3", "--timesteps", "300", "--n-steps", "300"]
    arguments += ["--resume-from", str(checkpoint), "--output-dir", str(tmp_path / "new")]
    assert main(arguments) == 6
    assert sentence in capsys.readouterr().err
    assert not list((tmp_path / "new").glob("*.zip"))


def test_latest_passes_over_a_damaged_checkpoint_with_a_warning_and_exit_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(tmp_path / "run")
    straight = left_by(tmp_path / "run")
    truncated(tmp_path / "run/checkpoint_700.zip")
    arguments = ["ppo", "--resume-from", "latest", "--output-dir", str(tmp_path / "run")]
    assert main([*arguments, "--json"]) == 1
    [warning] = json.loads(capsys.readouterr().out)["warnings"]
    assert "checkpoint_700.zip is not a whole zip archive" in warning
    assert warning.endswith("An older one was taken.")
    assert sha256_of(tmp_path / "run/checkpoint_700.zip") == straight["checkpoint_700.zip"]


def test_another_seed_has_no_effect_and_is_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(tmp_path / "run")
    arguments = ["ppo", "--resume-from", str(tmp_path / "run/checkpoint_300.zip"), "--seed", "8"]
    assert main([*arguments, "--output-dir", str(tmp_path / "new"), "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["warnings"] == [
        f"{tmp_path}/run/checkpoint_300.zip was trained with seed 3, which goes on; seed 8 has no effect."
    ]
    assert (
        left_by(tmp_path / "new")["ppo_seed3_model.zip"] == left_by(tmp_path / "run")["ppo_seed3_model.zip"]
    )


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"learning_rate": 1e-3}, r"learning_rate is 0.0003 in .* and 0.001 now, which makes it another run"),
        ({"n_envs": 2}, "n_envs is 1 in"),
        ({"timesteps": 100}, "is at step 300, 100 are asked for. Raise --timesteps"),
    ],
)
def test_what_would_make_it_another_run_is_refused(
    given: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    train(tmp_path / "run", timesteps=300)
    with pytest.raises(UsageError, match=sentence):
        resume(tmp_path / "run/checkpoint_300.zip", tmp_path / "new", **given)


def test_a_resume_that_is_refused_leaves_the_run_as_it_was(tmp_path: Path) -> None:
    train(tmp_path / "run")
    before = left_by(tmp_path / "run") | {"run.json": (tmp_path / "run/run.json").read_text()}
    with pytest.raises(UsageError, match="Raise --timesteps"):
        resume("latest", tmp_path / "run", timesteps=100)
    assert left_by(tmp_path / "run") | {"run.json": (tmp_path / "run/run.json").read_text()} == before


def test_a_finished_run_with_nothing_left_to_do_says_so_and_changes_nothing(tmp_path: Path) -> None:
    train(tmp_path / "run")
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    for checkpoint in ("latest", tmp_path / "run/checkpoint_700.zip"):
        with pytest.raises(UsageError, match=r"is finished and nothing is left to do\. Raise --timesteps"):
            resume(checkpoint, tmp_path / "run")
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before
    result = resume("latest", tmp_path / "run", evaluation_episodes=3)
    assert len(result.model_dump()["evaluation"]["seeds"]) == 3
    resume("latest", tmp_path / "run", overwrite=True)


def test_another_environment_or_another_rule_of_the_town_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(tmp_path / "run", timesteps=100)
    arguments = ["ppo", "--resume-from", str(tmp_path / "run/checkpoint_100.zip")]
    assert main([*arguments, "--env", "town"]) == 6
    assert "was trained in environment 'CartPole-v1', not in 'town'" in capsys.readouterr().err
    assert main([*arguments, "--set", "town.n_agents=4"]) == 3
    assert "town.n_agents is 6 in" in capsys.readouterr().err


def test_later_checkpoints_are_replaced_only_when_told(tmp_path: Path) -> None:
    train(tmp_path / "run")
    straight = left_by(tmp_path / "run")
    with pytest.raises(UsageError, match=r"holds checkpoints after step 200, up to checkpoint_700\.zip"):
        resume(tmp_path / "run/checkpoint_200.zip")
    assert left_by(tmp_path / "run") == straight
    resume(tmp_path / "run/checkpoint_200.zip", overwrite=True)
    assert left_by(tmp_path / "run") == straight


def test_a_checkpoint_of_elsewhere_does_not_go_on_in_a_directory_that_is_taken(tmp_path: Path) -> None:
    for name in ("one", "other"):
        train(tmp_path / name, timesteps=100)
    with pytest.raises(UsageError, match="other already holds a run"):
        resume(tmp_path / "one/checkpoint_100.zip", tmp_path / "other", timesteps=200)


def test_there_is_nothing_latest_in_an_empty_directory(tmp_path: Path) -> None:
    with pytest.raises(
        CheckpointError, match=r"holds no checkpoint to resume from\. Name the run's directory"
    ):
        resume("latest", tmp_path / "nothing")


def test_a_fork_is_a_new_run_with_the_old_policy_and_names_its_parent(tmp_path: Path) -> None:
    train(tmp_path / "run", **NORMALISED)
    parent = tmp_path / "run/checkpoint_700.zip"
    config = RunConfig(env="CartPole-v1", seed=9)
    run_strategy(
        "ppo",
        {"learning_rate": 1e-9, "n_envs": 2},
        config=config,
        run_dir=tmp_path / "fork",
        resume_from=parent,
        fork=True,
    )
    old, new = load_checkpoint(parent), load_checkpoint(tmp_path / "fork/checkpoint_100.zip")
    assert new.info.lineage.parent_sha256 == sha256_of(parent)
    assert new.info.lineage.training_seeds == (*sorted([*old.info.lineage.training_seeds, (9, 10)]),)
    assert new.state["timestep"] == 100
    for name, array in old.weights.items():
        np.testing.assert_array_equal(new.weights[name], array)
    assert old.training is not None
    assert new.training is not None
    seen = [checkpoint["collector.moments.count"][0] for checkpoint in (old.training, new.training)]
    assert seen == [600, 600]


@pytest.mark.parametrize("n_envs", [1, 2, 8])
def test_a_fork_may_have_other_environments_and_another_discount(n_envs: int, tmp_path: Path) -> None:
    train(tmp_path / "run", n_envs=4, n_steps=50, **NORMALISED)
    config = RunConfig(env="CartPole-v1", seed=9)
    params = {"n_envs": n_envs, "gamma": 0.9, "timesteps": 400, "checkpoint_interval": 400}
    run_strategy(
        "ppo",
        params,
        config=config,
        run_dir=tmp_path / "fork",
        resume_from=tmp_path / "run/checkpoint_500.zip",
        fork=True,
    )
    parent, child = (
        load_checkpoint(tmp_path / name) for name in ("run/checkpoint_500.zip", "fork/checkpoint_400.zip")
    )
    assert parent.optimizer is not None
    assert child.optimizer is not None
    if n_envs < 8:  # otherwise the first rollout is not over
        assert child.optimizer["reward_scale.gamma"][0] == 0.9
        assert child.optimizer["reward_scale.returns"].shape == (n_envs, 1)
        assert child.optimizer["reward_scale.count"][0] > parent.optimizer["reward_scale.count"][0]


def test_a_run_ends_with_the_first_whole_tick_that_reaches_its_steps(tmp_path: Path) -> None:
    params = {"n_envs": 16, "n_steps": 30, "timesteps": 614, "checkpoint_interval": 1000}
    result = train(tmp_path / "run", **params, evaluation_episodes=0)
    assert result.model_dump()["steps"] == 624
    assert [path.name for path in tmp_path.glob("run/checkpoint_*.zip")] == ["checkpoint_624.zip"]


def test_a_fork_is_resumed_as_the_same_fork(tmp_path: Path) -> None:
    train(tmp_path / "run", **NORMALISED)
    config, parent = RunConfig(env="CartPole-v1", seed=9), tmp_path / "run/checkpoint_700.zip"
    run_strategy("ppo", {}, config=config, run_dir=tmp_path / "fork", resume_from=parent, fork=True)
    for step in (100, 400):  # before and after the first update
        resume(tmp_path / f"fork/checkpoint_{step}.zip", tmp_path / f"resumed{step}")
        assert left_by(tmp_path / f"resumed{step}") == left_by(tmp_path / "fork", after=step)


def test_a_fork_that_shares_no_trunk_keeps_the_actor_and_begins_a_critic_of_its_own(tmp_path: Path) -> None:
    train(tmp_path / "run", shared_trunk=True, **NORMALISED)
    parent, fork = tmp_path / "run/checkpoint_700.zip", tmp_path / "fork"
    params = {"shared_trunk": False, "critic_only": True}
    config = RunConfig(env="CartPole-v1", seed=9)
    run_strategy("ppo", params, config=config, run_dir=fork, resume_from=parent, fork=True)
    old, new = load_checkpoint(parent), load_checkpoint(fork / "checkpoint_700.zip")
    ours = {name.replace("shared_net", "policy_net"): array for name, array in old.weights.items()}
    assert new.info.network == {
        key: old.info.network[key] for key in old.info.network if key != "shared_trunk"
    }
    critic = {name for name in new.weights if "value_net" in name}
    assert {name for name in new.weights if name not in ours} < critic
    for name in new.weights.keys() - critic - {"normaliser.mean", "normaliser.std"}:
        np.testing.assert_array_equal(new.weights[name], ours[name])
    for layer in ("0", "2"):
        trunks = (new.weights[f"mlp_extractor.{of}_net.{layer}.weight"] for of in ("policy", "value"))
        assert abs(np.corrcoef(*(trunk.ravel() for trunk in trunks))[0, 1]) < 0.2  # no copy
    assert old.optimizer is not None
    assert new.optimizer is not None
    assert new.optimizer["reward_scale.count"][0] > old.optimizer["reward_scale.count"][0]
    resume(fork / "checkpoint_400.zip", tmp_path / "resumed")
    assert left_by(tmp_path / "resumed") == left_by(fork, after=400)


def test_a_run_that_goes_on_has_the_network_it_had(tmp_path: Path) -> None:
    train(tmp_path / "shared", shared_trunk=True)
    with pytest.raises(UsageError, match="shared_trunk"):
        resume(tmp_path / "shared/checkpoint_300.zip", tmp_path / "other", shared_trunk=False)
    train(tmp_path / "separate")
    with pytest.raises(
        CheckpointError, match=r"shared_trunk False, and shared_trunk is True here. Leave it out."
    ):
        run_strategy(
            "ppo",
            {"shared_trunk": True},
            config=RunConfig(env="CartPole-v1"),
            run_dir=tmp_path / "other",
            resume_from=tmp_path / "separate/checkpoint_300.zip",
            fork=True,
        )


def test_a_clone_is_forked_into_ppo_as_it_is(tmp_path: Path) -> None:
    train(tmp_path / "run", timesteps=100)
    loaded = load_checkpoint(tmp_path / "run/checkpoint_100.zip")
    clone = replace(
        loaded,
        info=loaded.info.model_copy(update={"algorithm": "bc"}),
        optimizer=None,
        training=None,
        state={},
    )
    save_checkpoint(tmp_path / "clone.zip", clone)
    config = RunConfig(env="CartPole-v1")
    params = {**SHORT, "timesteps": 100, "checkpoint_interval": 50}
    run_strategy(
        "ppo", params, config=config, run_dir=tmp_path / "fork", resume_from=tmp_path / "clone.zip", fork=True
    )
    first = load_checkpoint(tmp_path / "fork/checkpoint_50.zip")
    for name, array in loaded.weights.items():
        np.testing.assert_array_equal(first.weights[name], array)
    with pytest.raises(UsageError, match="normalize_observations goes on from what was seen"):
        run_strategy(
            "ppo",
            {**params, "normalize_observations": True},
            config=config,
            run_dir=tmp_path / "other",
            resume_from=tmp_path / "clone.zip",
            fork=True,
        )


def test_an_environment_that_keeps_its_state_to_itself_leaves_policies_to_fork(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(env: GymnasiumVectorEnv) -> Any:
        raise InexactStateError("Nobody knows where it is.")

    monkeypatch.setattr(GymnasiumVectorEnv, "get_state", refuse)
    result = train(tmp_path / "run")
    assert result.warnings == (
        "This run cannot be resumed: its checkpoints hold the policy and its optimiser, from which a new run begins by "
        "--fork. Nobody knows where it is.",
    )
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == [
        *result.warnings
    ]
    with pytest.raises(CheckpointError, match=r"holds a policy and no state of its training\..* by --fork"):
        resume("latest", tmp_path / "run", timesteps=900)
    config = RunConfig(env="CartPole-v1")
    forked = run_strategy(
        "ppo",
        {},
        config=config,
        run_dir=tmp_path / "fork",
        resume_from=tmp_path / "run/checkpoint_700.zip",
        fork=True,
    )
    assert forked.checkpoint is not None


def test_lines_that_are_lost_are_told_when_the_run_goes_on(tmp_path: Path) -> None:
    train(tmp_path / "run", timesteps=500)  # the last checkpoint is older than the last rollout's lines
    metrics = tmp_path / "run/metrics.jsonl"
    [first, *_] = lines = metrics.read_text().splitlines(keepends=True)
    assert len(lines) == 5
    metrics.write_text(first + lines[1][:20])  # as a power cut may leave it
    result = resume("latest", tmp_path / "run", timesteps=700)
    assert result.warnings == (
        f"{metrics} ends at step 100, the checkpoint knows of lines up to step 300; those between are lost.",
    )
    metrics.unlink()
    result = resume(tmp_path / "run/checkpoint_700.zip", tmp_path / "elsewhere", timesteps=900)
    assert [warning.partition(" ends ")[2][:9] for warning in result.warnings] == ["at step 0"]


def on_a_device_that_is_gone(checkpoint: Path, params: dict[str, Any]) -> None:
    """Let a checkpoint say that its run was on the hundredth GPU."""
    loaded = load_checkpoint(checkpoint)
    moved = {"device": "cuda:99", "params": {**loaded.state["params"], **params}}
    save_checkpoint(checkpoint, replace(loaded, state={**loaded.state, **moved}))


MOVED = "The run was on cuda:99 and goes on on cpu, where sums may round otherwise."


def test_a_run_whose_device_is_gone_moves_when_it_may_and_says_so(tmp_path: Path) -> None:
    train(tmp_path / "run")
    checkpoint = tmp_path / "run/checkpoint_300.zip"
    on_a_device_that_is_gone(checkpoint, {})
    for params in ({}, {"device": "cpu"}):  # it was left to choose, and still is; it is told
        result = resume(checkpoint, tmp_path / f"moved{len(params)}", **params)
        assert result.warnings == (MOVED,)
    last = load_checkpoint(tmp_path / "moved1/checkpoint_700.zip")
    assert (last.state["device"], last.state["params"]["device"]) == ("cpu", "cpu")


def test_a_run_that_was_told_its_device_moves_only_when_it_is_told_another(tmp_path: Path) -> None:
    train(tmp_path / "run")
    checkpoint = tmp_path / "run/checkpoint_300.zip"
    on_a_device_that_is_gone(checkpoint, {"device": "cuda:99"})
    with pytest.raises(
        TrainingError, match=r"Device 'cuda:99' does not work here .* Use --device cpu or auto"
    ):
        resume(checkpoint, tmp_path / "moved")
    for device in ("cpu", "auto"):  # as the error advises
        assert resume(checkpoint, tmp_path / device, device=device).warnings == (MOVED,)


def test_what_cannot_be_resumed_says_so(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"Runs of random-search cannot be resumed\."):
        run_strategy("random-search", {}, config=RunConfig(), run_dir=tmp_path, resume_from="latest")
    with pytest.raises(UsageError, match="Name it with --resume-from"):
        run_strategy("ppo", {}, config=RunConfig(), run_dir=tmp_path, fork=True)


def test_where_every_tick_is_late_a_signal_is_heard_at_each_and_no_byte_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[int] = []
    config = RunConfig.model_validate({"env": "CartPole-v1", "seed": 3})
    train(tmp_path / "fast")
    monkeypatch.setattr("townlet_train.learners.on_policy.SECONDS_BETWEEN_REPORTS", 0.0)
    run_strategy(
        "ppo",
        SHORT,
        config=config,
        run_dir=tmp_path / "slow",
        report=lambda progress: heard.append(progress.done) if progress.phase == "ppo" else None,
    )
    assert set(range(100, 700)) <= set(heard)
    assert left_by(tmp_path / "slow") == left_by(tmp_path / "fast")
