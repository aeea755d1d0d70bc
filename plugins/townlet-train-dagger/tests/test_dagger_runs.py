"""Runs of DAgger: what they learn, what they leave, what they refuse, and that a stop changes nothing."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from townlet_train.api import Interrupted, Progress, load_checkpoint  # noqa: E402
from townlet_train.cli import main  # noqa: E402
from townlet_train.config import RunConfig  # noqa: E402
from townlet_train.orchestrator import TrainingOrchestrator  # noqa: E402

SHORT = {"timesteps": 1600, "n_iterations": 4, "n_envs": 4, "n_epochs": 2, "evaluation_episodes": 0}
SMALL_TOWN = {"n_agents": 3, "episode_ticks": 40}


def dagger(
    run_dir: Path,
    *,
    env: str = "CartPole-v1",
    report: Any = lambda progress: None,
    resume_from: Any = None,
    fork: bool = False,
    overwrite: bool = False,
    **params: Any,
) -> Any:
    config = RunConfig.model_validate({"env": env, "seed": 5, "town": SMALL_TOWN if env == "town" else {}})
    options = {"run_dir": run_dir, "resume_from": resume_from, "fork": fork, "overwrite": overwrite}
    given = params if resume_from and not fork else {**SHORT, **params}
    return TrainingOrchestrator(config).run("dagger", given, report=report, **options)


def lines(run_dir: Path) -> list[dict[str, Any]]:
    """The lines of the metrics without times."""
    found = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if not k.endswith(("_sec", "stamp"))} for line in found]


def left_by(run_dir: Path) -> dict[str, Any]:
    """Bytes of every checkpoint and of the model, and the metrics."""
    files = {path.name: path.read_bytes() for path in run_dir.glob("*.zip")}
    return {**files, "metrics": lines(run_dir)}


def capture(folder: Path, env: str, ticks: int = 60, towns: int = 6) -> Path:
    options = ["--env", env, "--policy", "expert", "--ticks", str(ticks), "--towns", str(towns), "--no-maps"]
    if env == "town":
        options += [f"--set=town.{name}={value}" for name, value in SMALL_TOWN.items()]
    assert main(["rollout", "capture", "--output", str(folder), "--seed", "900", *options]) == 0
    return folder


def test_the_expert_drives_first_and_the_learner_ever_after(tmp_path: Path) -> None:
    result = dagger(tmp_path / "run")
    told = lines(tmp_path / "run")
    assert [line["beta"] for line in told] == [1.0, 0.0, 0.0, 0.0]
    assert [line["learner_share"] for line in told] == [0.0, 1.0, 1.0, 1.0]
    assert result.learner_share == 0.75
    assert result.agreement[0] is None
    assert result.steps == 1600 == result.n_train + result.n_val == told[-1]["timestep"]


def test_a_beta_lets_the_expert_drive_less_and_less(tmp_path: Path) -> None:
    dagger(tmp_path / "run", beta=0.5, timesteps=8000)
    told = lines(tmp_path / "run")
    assert [line["beta"] for line in told] == [1.0, 0.5, 0.25, 0.125]
    assert [line["learner_share"] for line in told] == pytest.approx([0, 0.5, 0.75, 0.875], abs=0.05)


def test_it_never_labels_more_than_it_was_told_and_no_iteration_is_left_out(tmp_path: Path) -> None:
    assert dagger(tmp_path / "run", timesteps=1000, n_iterations=7).steps == 1000
    assert len({line["timestep"] for line in lines(tmp_path / "run")}) == 7
    assert dagger(tmp_path / "odd", timesteps=1003).steps == 1000


def test_the_learner_comes_to_do_as_the_expert_in_the_states_it_visits(tmp_path: Path) -> None:
    pytest.importorskip("Box2D")
    told = {"timesteps": 8000, "n_iterations": 8, "n_envs": 8, "n_epochs": 4, "learning_rate": 1e-2}
    result = dagger(tmp_path / "run", env="LunarLander-v3", **told)
    assert result.agreement[-1] > result.agreement[1] + 0.15
    assert result.val_accuracy > 0.8


def test_what_it_learned_balances_the_pole_as_its_expert_does(tmp_path: Path) -> None:
    result = dagger(tmp_path / "run", timesteps=6000, n_epochs=4, n_envs=8, evaluation_episodes=20)
    assert result.evaluation.mean > 450
    assert result.converged


def test_the_labels_are_the_experts_and_the_states_those_that_the_learner_got_into(tmp_path: Path) -> None:
    dagger(tmp_path / "run")
    arrays = load_checkpoint(tmp_path / "run/checkpoint_1600.zip").training or {}
    features, actions = arrays["aggregate.features"], arrays["aggregate.actions"]
    gains = np.array((0.1, 0.2, 1.0, 0.5), np.float32)
    assert (actions == ((features * gains).sum(axis=1) > 0)).all()
    assert np.abs(features[400:, 2]).max() > 2 * np.abs(features[:400, 2]).max()  # the pole's angle


def test_an_episode_is_one_environments_and_keeps_its_number_so_that_it_stays_held_out(
    tmp_path: Path,
) -> None:
    dagger(tmp_path / "run")
    by_steps = {
        int(path.stem.removeprefix("checkpoint_")): (load_checkpoint(path).training or {})[
            "aggregate.episode"
        ]
        for path in (tmp_path / "run").glob("checkpoint_*.zip")
    }
    whole = by_steps[1600].reshape(-1, 4)
    for steps, episodes in by_steps.items():
        np.testing.assert_array_equal(episodes, whole.ravel()[:steps])
    played_in = [set(whole[:, env].tolist()) for env in range(4)]
    assert sum(map(len, played_in)) == len(set.union(*played_in)) > 8


def test_the_same_seed_leaves_the_same_bytes(tmp_path: Path) -> None:
    dagger(tmp_path / "one")
    dagger(tmp_path / "two")
    assert left_by(tmp_path / "one") == left_by(tmp_path / "two")


class Stop:
    """Asks to stop at the so-manieth report."""

    def __init__(self, at: int) -> None:
        self.left = at

    def __call__(self, progress: Progress) -> None:
        self.left -= 1
        if self.left == 0:
            raise Interrupted("Stopped by SIGINT.")


@pytest.mark.parametrize("env", ["CartPole-v1", "LunarLander-v3", "town"])
@pytest.mark.parametrize("at", [1, 50, 120, 260])
def test_a_run_that_was_stopped_anywhere_goes_on_as_the_same(env: str, at: int, tmp_path: Path) -> None:
    if env == "LunarLander-v3":
        pytest.importorskip("Box2D")
    told = {"timesteps": 4800} if env == "town" else {}
    dagger(tmp_path / "whole", env=env, **told)
    with pytest.raises(Interrupted, match=r"begins again with --resume-from .*checkpoint_\d+\.zip"):
        dagger(tmp_path / "stopped", env=env, report=Stop(at), **told)
    dagger(tmp_path / "stopped", env=env, resume_from="latest")
    assert left_by(tmp_path / "stopped") == left_by(tmp_path / "whole")


def test_a_run_goes_on_elsewhere_from_any_of_its_checkpoints(tmp_path: Path) -> None:
    dagger(tmp_path / "whole")
    dagger(tmp_path / "elsewhere", resume_from=str(tmp_path / "whole/checkpoint_800.zip"))
    ours, theirs = left_by(tmp_path / "elsewhere"), left_by(tmp_path / "whole")
    assert set(theirs) - set(ours) == {"checkpoint_0.zip", "checkpoint_400.zip"}
    assert ours == {name: theirs[name] for name in ours}


def test_ctrl_c_ends_it_with_exit_code_7_and_a_checkpoint(tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = [sys.executable, "-m", "townlet_train", "dagger", "--env", "CartPole-v1"]
    command += ["--timesteps", "2000000", "--n-iterations", "500", "--output-dir", str(run)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while not any(run.glob("checkpoint_*.zip")) and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 7
    assert f"begins again with --resume-from {run}" in said


def test_demonstrations_are_cloned_first_and_stay_in_the_aggregate(tmp_path: Path) -> None:
    manifest = capture(tmp_path / "demonstrations", "CartPole-v1")
    result = dagger(tmp_path / "run", manifest=manifest)
    assert result.n_demonstrated == 360
    assert result.n_train + result.n_val == 1600 + 360
    assert result.learner_share == 1.0
    assert None not in result.agreement
    lineage = load_checkpoint(Path(result.checkpoint)).info.lineage
    assert lineage.demonstrations_sha256
    assert lineage.training_seeds == ((5, 8), (900, 905))


def test_a_policy_handed_in_drives_from_the_first_tick_and_nothing_shown_to_it_is_held_out(
    tmp_path: Path,
) -> None:
    manifest = capture(tmp_path / "demonstrations", "CartPole-v1")
    cloned = dagger(tmp_path / "first", timesteps=4000, hidden_sizes=(16,))
    fork = dagger(tmp_path / "fork", resume_from=cloned.checkpoint, fork=True, manifest=manifest)
    assert fork.learner_share == 1.0
    assert fork.agreement[0] is not None
    assert fork.n_val < 1600
    after = load_checkpoint(Path(fork.checkpoint))
    before = load_checkpoint(Path(cloned.checkpoint))
    assert after.info.network == before.info.network
    assert after.info.lineage.parent_sha256 == cloned.checkpoint_sha256
    np.testing.assert_array_equal(after.weights["normaliser.mean"], before.weights["normaliser.mean"])


@pytest.mark.parametrize("forked", [False, True])
@pytest.mark.parametrize("at", [1, 90])
def test_what_a_run_was_given_is_still_with_it_when_it_goes_on(forked: bool, at: int, tmp_path: Path) -> None:
    given: dict[str, Any] = {"manifest": capture(tmp_path / "demonstrations", "CartPole-v1")}
    if forked:
        given |= {"resume_from": dagger(tmp_path / "first").checkpoint, "fork": True}
    dagger(tmp_path / "whole", **given)
    with pytest.raises(Interrupted):
        dagger(tmp_path / "stopped", report=Stop(at), **given)
    dagger(tmp_path / "stopped", resume_from="latest")
    assert left_by(tmp_path / "stopped") == left_by(tmp_path / "whole")


def test_other_demonstrations_make_it_another_run(tmp_path: Path) -> None:
    manifest = capture(tmp_path / "demonstrations", "CartPole-v1")
    with pytest.raises(Interrupted):
        dagger(tmp_path / "run", manifest=manifest, report=Stop(120))
    (tmp_path / "demonstrations").rename(tmp_path / "before")
    capture(tmp_path / "demonstrations", "CartPole-v1", ticks=70)
    with pytest.raises(Exception, match="another recording now"):
        dagger(tmp_path / "run", resume_from="latest")


@pytest.mark.parametrize(
    ("env", "options", "code", "sentence"),
    [
        ("Acrobot-v1", [], 3, "No expert plays 'Acrobot-v1'"),
        ("LunarLanderContinuous-v3", [], 3, "are vectors"),
        ("CartPole-v1", ["--timesteps", "100", "--n-iterations", "50"], 3, "less than a tick"),
        ("CartPole-v1", ["--manifest", "nowhere"], 3, "nowhere does not exist"),
        ("CartPole-v1", ["--n-envs", "1"], 3, "n_envs"),
        ("CartPole-v1", ["--network", "conflict_aware"], 3, "shows no maps"),
        ("Nothing-v0", [], 5, "Nothing"),
    ],
)
def test_what_it_cannot_do_is_refused_in_words(
    env: str,
    options: list[str],
    code: int,
    sentence: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if env.startswith("LunarLander"):
        pytest.importorskip("Box2D")
    monkeypatch.chdir(tmp_path)
    assert main(["dagger", "--env", env, *options, "--output-dir", "run"]) == code
    assert sentence in capsys.readouterr().err
    assert not list(Path("run").glob("*.zip"))


def test_demonstrations_of_another_environment_are_refused(tmp_path: Path) -> None:
    manifest = capture(tmp_path / "demonstrations", "CartPole-v1")
    named = ["dagger", "--env", "town", "--manifest", str(manifest)]
    assert main([*named, "--output-dir", str(tmp_path / "run")]) == 3


def test_the_towns_expert_labels_every_agent_and_maps_are_kept_for_who_reads_them(tmp_path: Path) -> None:
    result = dagger(
        tmp_path / "run", env="town", timesteps=2400, network="conflict_aware", hidden_sizes=(16,)
    )
    assert result.steps == 2400
    arrays = load_checkpoint(tmp_path / "run/checkpoint_2400.zip").training or {}
    assert arrays["aggregate.maps"].dtype == np.uint8
    assert len(arrays["aggregate.maps"]) == 2400
