"""The exit codes of `townlet-train ppo` and `townlet-train a2c`, each met by a process of its own.

0 done   1 done with warnings   2 failed   3 bad arguments   4 conda   5 environment   6 checkpoint   7 interrupted
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.contract.markdown import ROOT
from townlet_train.cli import main
from townlet_train.data.checkpoint import load_checkpoint, sorted_checkpoints
from townlet_train.errors import ExitCode

pytest.importorskip("torch")
pytestmark = [pytest.mark.torch, pytest.mark.slow]

PROGRAM = [sys.executable, "-m", "townlet_train"]
SHORT = ["--timesteps", "300", "--n-steps", "100", "--checkpoint-interval", "100"]
SHORT += ["--evaluation-episodes", "2", "--seed", "3"]
POLE = ["--env", "CartPole-v1", *SHORT]


@pytest.fixture(params=["ppo", "a2c"])
def strategy(request: pytest.FixtureRequest) -> str:
    if request.param == "a2c":
        pytest.importorskip("townlet_train_a2c")
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished run of every strategy, by its name."""
    return tmp_path_factory.mktemp("runs")


def finished(runs: Path, strategy: str) -> Path:
    """The run of a strategy, made when it is first asked for."""
    if not (runs / strategy).exists():
        ended = townlet_train(strategy, *POLE, "--output-dir", str(runs / strategy))
        assert ended.returncode == ExitCode.OK, ended.stderr
    return runs / strategy


def townlet_train(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """What the program says, in a process of its own."""
    return subprocess.run(
        [*PROGRAM, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120, **options
    )


def test_0_a_run_that_ends_well(strategy: str, runs: Path) -> None:
    run = finished(runs, strategy)
    assert (run / f"{strategy}_seed3_model.zip").exists()
    results = json.loads((run / f"{strategy}_seed3_results.json").read_text())
    assert results["experiment_results"]["warnings"] == []


def test_1_a_run_that_ends_with_warnings_lists_them(strategy: str, runs: Path, tmp_path: Path) -> None:
    checkpoint = finished(runs, strategy) / "checkpoint_200.zip"
    resume = [
        strategy,
        "--resume-from",
        str(checkpoint),
        "--seed",
        "8",
        "--output-dir",
        str(tmp_path / "run"),
    ]
    ended = townlet_train(*resume, "--json")
    assert ended.returncode == ExitCode.WARNINGS, ended.stderr
    [warning] = json.loads(ended.stdout)["warnings"]
    assert "seed 3, which goes on; seed 8 has no effect" in warning
    assert f"Warning: {warning}" in ended.stderr
    [results] = (tmp_path / "run").glob("*_results.json")
    assert json.loads(results.read_text())["experiment_results"]["warnings"] == [warning]


def test_2_a_full_disk_leaves_the_last_good_checkpoint(tmp_path: Path) -> None:
    """A checkpoint grows with the rollout at hand; files may grow to a size between those of two of them."""
    options = ["--env", "CartPole-v1", *SHORT, "--n-steps", "250"]
    whole = tmp_path / "whole"
    assert main(["ppo", *options, "--output-dir", str(whole)]) == ExitCode.OK
    small, large = ((whole / f"checkpoint_{step}.zip").stat().st_size for step in (100, 200))
    limit, run = (small + large) // 2, tmp_path / "run"
    ended = townlet_train(
        *("ppo", *options, "--output-dir", str(run)),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert ended.returncode == ExitCode.FAILED, ended.stderr
    assert "checkpoint_200.zip cannot be written: File too large." in ended.stderr
    assert described(run)["status"] == "failed"
    assert [path.name for path in sorted_checkpoints(run)] == ["checkpoint_100.zip"]
    assert load_checkpoint(run / "checkpoint_100.zip").state["timestep"] == 100
    assert unfinished(run) == []
    assert main(["ppo", "--resume-from", "latest", "--output-dir", str(run)]) == ExitCode.OK
    model = "ppo_seed3_model.zip"
    assert (run / model).read_bytes() == (whole / model).read_bytes()


BAD_ARGUMENTS = {
    "a value out of range": (["--n-steps", "0"], "n_steps"),
    "an option nobody knows": (["--n-stepss", "5"], "Did you mean '--n-steps'?"),
    "a setting nobody knows": (["--set", "town.n_agent=4"], "n_agents"),
    "a fork of nothing": (["--fork"], "Name it with --resume-from"),
}


@pytest.mark.parametrize(("options", "sentence"), BAD_ARGUMENTS.values(), ids=BAD_ARGUMENTS)
def test_3_bad_arguments(options: list[str], sentence: str, tmp_path: Path) -> None:
    ended = townlet_train("ppo", *POLE, *options, "--output-dir", str(tmp_path / "run"))
    assert ended.returncode == ExitCode.USAGE
    assert sentence in ended.stderr
    assert not (tmp_path / "run").exists()


def test_3_a_directory_that_holds_a_finished_run(strategy: str, runs: Path) -> None:
    ended = townlet_train(strategy, *POLE, "--output-dir", str(finished(runs, strategy)))
    assert ended.returncode == ExitCode.USAGE
    assert "already holds a run (finished)" in ended.stderr


def test_4_another_conda_environment(strategy: str, tmp_path: Path) -> None:
    ended = townlet_train(
        *(strategy, *POLE, "--output-dir", str(tmp_path / "run"), "--require-conda-env", "rocm"),
        env={**os.environ, "CONDA_DEFAULT_ENV": "base"},
    )
    assert ended.returncode == ExitCode.CONDA
    assert "The conda environment 'rocm' is required and 'base' is active." in ended.stderr
    assert not (tmp_path / "run").exists()


def test_5_an_unknown_environment(strategy: str, tmp_path: Path) -> None:
    ended = townlet_train(strategy, "--env", "CartPole-v11", *SHORT, "--output-dir", str(tmp_path / "run"))
    assert ended.returncode == ExitCode.ENVIRONMENT
    assert "CartPole-v11" in ended.stderr
    assert not (tmp_path / "run").exists()


def missing(path: Path) -> None:
    path.unlink()


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def tampered(path: Path) -> None:
    """Other weights, and archive and all as if they had always been there."""
    with zipfile.ZipFile(path) as archive:
        members = {entry: archive.read(entry) for entry in archive.infolist()}
    with zipfile.ZipFile(path, "w") as archive:
        for entry, content in members.items():
            flipped = content[:-1] + bytes([content[-1] ^ 1])
            archive.writestr(entry, flipped if entry.filename == "weights.safetensors" else content)


def foreign(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data", "{}")
        archive.writestr("policy.pth", b"")
        archive.writestr("_stable_baselines3_version", "2.9.2")


WRONG = {
    missing: "does not exist",
    truncated: "is not a whole zip archive",
    tampered: "it was damaged or tampered with",
    foreign: "looks like a Stable-Baselines3 file",
}


@pytest.mark.parametrize(("spoil", "sentence"), WRONG.items(), ids=[spoil.__name__ for spoil in WRONG])
def test_6_a_checkpoint_that_cannot_be_loaded(
    spoil: Callable[[Path], None], sentence: str, runs: Path, tmp_path: Path
) -> None:
    checkpoint = tmp_path / "checkpoint_200.zip"
    checkpoint.write_bytes((finished(runs, "ppo") / checkpoint.name).read_bytes())
    spoil(checkpoint)
    refused_with_6("ppo", checkpoint, sentence, tmp_path / "new")


def test_6_a_checkpoint_of_the_other_method(strategy: str, runs: Path, tmp_path: Path) -> None:
    pytest.importorskip("townlet_train_a2c")
    other = {"ppo": "a2c", "a2c": "ppo"}[strategy]
    checkpoint = finished(runs, other) / "checkpoint_200.zip"
    refused_with_6(strategy, checkpoint, f"was trained by {other!r}, not by {strategy!r}", tmp_path / "new")


def refused_with_6(strategy: str, checkpoint: Path, sentence: str, run: Path) -> None:
    ended = townlet_train(strategy, "--resume-from", str(checkpoint), "--output-dir", str(run), "--json")
    assert ended.returncode == ExitCode.CHECKPOINT
    error = json.loads(ended.stdout)["error"]
    assert (error["type"], error["exit_code"]) == ("CheckpointError", 6)
    assert sentence in error["message"]
    assert not run.exists()


LONG = ["--timesteps", "100000", "--n-steps", "128", "--checkpoint-interval", "64", "--seed", "3"]
LONG += ["--evaluation-episodes", "2"]
LAST = ["--timesteps", "128", "--evaluation-episodes", "2000"]  # after it, evaluation


class Work(NamedTuple):
    """What the program is given to do."""

    env: str = "Busy-v0"
    options: tuple[str, ...] = ()
    disk: float = 0.0  # seconds that the third checkpoint takes


@contextmanager
def busy(strategy: str, phase: str, run: Path, work: Work) -> Iterator[subprocess.Popen[str]]:
    """The program at work, once it is in that phase; what it says from then on is left to be read."""
    arguments = [strategy, "--env", f"tests.busy_envs:{work.env}", "--output-dir", str(run), *LONG]
    command = [sys.executable, "-m", "tests.telling", str(work.disk), *arguments, *work.options]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    said: list[str] = []
    try:
        for line in process.stderr:
            said.append(line)
            if line.strip() == phase:
                break
        else:
            pytest.fail(f"it never was {phase}: {''.join(said)}")
        yield process
    finally:
        process.kill()
        process.communicate()


def described(run: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((run / "run.json").read_text())
    return document


def unfinished(run: Path) -> list[str]:
    return [path.name for path in run.iterdir() if path.name.endswith(".partial")]


PHASES = {
    "collecting": Work(),
    "updating": Work(options=("--n-epochs", "400")),
    "evaluating": Work(options=tuple(LAST)),
    "saving": Work(disk=0.5),
}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
@pytest.mark.parametrize("phase", PHASES)
def test_7_a_signal_in_any_phase_leaves_a_checkpoint_to_go_on_from(
    phase: str, number: signal.Signals, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    with busy("ppo", phase, run, PHASES[phase]) as it:
        it.send_signal(number)
        _, said = it.communicate(timeout=60)
    assert it.returncode == ExitCode.INTERRUPTED, said
    assert f"Stopped by {number.name}" in said
    assert described(run)["status"] == "interrupted"
    last = sorted_checkpoints(run)[-1]
    named = run / "ppo_seed3_model.zip" if phase == "evaluating" else last
    assert str(named) in said
    assert load_checkpoint(last).training is not None
    assert unfinished(run) == []


def test_7_a2c_too(tmp_path: Path) -> None:
    pytest.importorskip("townlet_train_a2c")
    with busy("a2c", "collecting", tmp_path / "run", Work(options=("--n-steps", "5"))) as it:
        it.send_signal(signal.SIGTERM)
        _, said = it.communicate(timeout=60)
    assert it.returncode == ExitCode.INTERRUPTED, said
    assert sorted_checkpoints(tmp_path / "run")


STUCK = {
    "collecting": Work("StuckCollecting-v0"),
    "updating": Work(options=("--n-epochs", "10000000")),
    "evaluating": Work("StuckEvaluating-v0", tuple(LAST)),
    "saving": Work(disk=600.0),
}


@pytest.mark.parametrize("phase", STUCK)
def test_7_a_second_signal_ends_what_would_go_on_for_minutes(phase: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with busy("ppo", phase, run, STUCK[phase]) as it:
        it.send_signal(signal.SIGINT)
        wait_for_the_hint(it)
        it.send_signal(signal.SIGTERM)
        _, said = it.communicate(timeout=60)
    assert it.returncode == ExitCode.INTERRUPTED, said
    assert "Traceback" not in said
    assert described(run)["status"] == "interrupted"
    assert unfinished(run) == []
    saved = {path.name: load_checkpoint(path).state["timestep"] for path in sorted_checkpoints(run)}
    last = 64 if phase == "collecting" else 128
    assert saved == {f"checkpoint_{step}.zip": step for step in (64, 128) if step <= last}


def wait_for_the_hint(process: subprocess.Popen[str]) -> None:
    """Until the first signal has been heard; two that arrive together are one."""
    assert process.stderr is not None
    assert any("once more interrupts at once" in line for line in process.stderr)


def test_7_where_nothing_listens_the_process_ends_all_the_same(tmp_path: Path) -> None:
    """The environment swallows what the second signal raises; the program does not wait for it for long."""
    with busy("ppo", "collecting", tmp_path / "run", Work("Deaf-v0")) as it:
        it.send_signal(signal.SIGINT)
        wait_for_the_hint(it)
        it.send_signal(signal.SIGINT)
        it.communicate(timeout=60)
    assert it.returncode == ExitCode.INTERRUPTED
    assert [path.name for path in sorted_checkpoints(tmp_path / "run")] == ["checkpoint_64.zip"]


def test_7_a_third_signal_ends_the_process_as_it_is(tmp_path: Path) -> None:
    with busy("ppo", "collecting", tmp_path / "run", Work("Deaf-v0")) as it:
        it.send_signal(signal.SIGINT)
        wait_for_the_hint(it)
        it.send_signal(signal.SIGINT)
        assert it.stderr is not None
        assert it.stderr.readline() == "swallowed\n"
        it.send_signal(signal.SIGINT)
        it.communicate(timeout=60)
    assert it.returncode == ExitCode.INTERRUPTED
    assert described(tmp_path / "run")["status"] == "running"
