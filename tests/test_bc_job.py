"""The main job as a user does it: capture the expert, clone it, evaluate the clone in a process that has no torch."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests import recordings
from townlet_train.cli import main
from townlet_train.data.checkpoint import load_checkpoint
from townlet_train.files import sha256_of

pytest.importorskip("torch")
pytestmark = pytest.mark.torch

PROGRAM = [sys.executable, "-m", "townlet_train"]


@pytest.fixture(scope="module")
def demonstrations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty-four towns of the expert, two days each."""
    folder = tmp_path_factory.mktemp("captured") / "demos"
    size = ["--towns", "24", "--ticks", "320", "--seed", "1", "--store", "memmap", "--no-maps"]
    assert main(["rollout", "capture", "--output", str(folder), *size]) in (0, 1)
    return folder


def answer(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, Any]:
    capsys.readouterr()
    code = main([*arguments, "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_a_captured_expert_is_cloned_and_evaluated_by_another_process(
    demonstrations: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    arguments = ["--manifest", str(demonstrations), "--seed", "3", "--output-dir", str(run)]
    code, result = answer(capsys, "bc", *arguments, "--batch-size", "64")
    assert code in (0, 1)
    assert result["n_train"] + result["n_val"] == 24 * 320 * 6
    assert result["val_accuracy"] > 0.9
    assert result["majority_share"] < 0.6
    assert result["checkpoint_sha256"] == sha256_of(run / "bc_seed3_model.zip")
    assert json.loads((run / "run.json").read_text())["status"] == "finished"
    assert [row["policy"] for row in result["policies"]] == [
        "expert", "clone, sampled", "clone, greedy", "random",
    ]  # fmt: skip
    assert result["return_score_sampled"] == result["policies"][1]["score"] > 0.5
    assert result["return_score_greedy"] == result["policies"][2]["score"]
    metrics = json.loads((run / "bc_seed3_results.json").read_text())["experiment_results"]["metrics"]
    assert metrics["final_reward_mean"] == pytest.approx(result["policies"][1]["mean_return"])
    assert metrics["final_reward_std"] > 0
    assert metrics["total_episodes"] == 100

    program = "runpy.run_module('townlet_train', run_name='__main__')"
    without_torch = f"import runpy, sys; sys.modules['torch'] = None; {program}"
    arguments = ["evaluate", result["checkpoint"], "--episodes", "4", "--seed", "20001", "--json"]
    done = subprocess.run(
        [sys.executable, "-c", without_torch, *arguments], capture_output=True, text=True, check=False
    )
    evaluation = json.loads(done.stdout)
    assert (done.returncode, evaluation["warnings"]) == (0, [])
    assert evaluation["mean"] > -150  # random earns about -236, the expert about 38


def test_the_same_command_leaves_the_same_bytes(
    demonstrations: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [
        "bc",
        "--manifest",
        str(demonstrations),
        "--output-dir",
        str(tmp_path / "run"),
        "--n-epochs",
        "2",
    ]
    digests = {answer(capsys, *arguments, "--overwrite")[1]["checkpoint_sha256"] for _ in range(2)}
    assert len(digests) == 1
    assert answer(capsys, *arguments, "--overwrite", "--seed", "8")[1]["checkpoint_sha256"] not in digests


def test_a_dry_run_looks_and_touches_nothing(
    demonstrations: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = str(tmp_path / "run")
    assert answer(capsys, "bc", "--manifest", str(demonstrations), "--output-dir", run, "--dry-run")[0] == 0
    main(["bc", "--manifest", str(demonstrations), "--output-dir", run, "--n-epochs", "4", "--dry-run"])
    said = capsys.readouterr().err
    assert "20 % of the episodes held out; network mlp with its own widths; up to 4 epochs on cpu" in said
    assert f"would write to {run}" in said
    code, document = answer(
        capsys, "bc", "--manifest", f"{tmp_path}/nothing", "--output-dir", run, "--dry-run"
    )
    assert code == 3
    assert "does not exist" in document["error"]["message"]
    assert list(tmp_path.iterdir()) == []


def test_a_clone_is_trained_in_the_environment_of_its_recording_unless_another_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    size = ["--towns", "4", "--ticks", "100", "--output", "poles"]
    assert main(["rollout", "capture", "--env", "CartPole-v1", *size]) in (0, 1)
    asked = ["bc", "--manifest", "poles", "--n-epochs", "1", "--no-evaluate"]
    assert main([*asked, "--output-dir", "run"]) in (0, 1)
    document = json.loads(Path("run/run.json").read_text())
    assert (document["config"]["env"], document["origin"]["env"]) == ("CartPole-v1", "poles")
    assert load_checkpoint(Path("run/bc_seed42_model.zip")).info.env_id == "CartPole-v1"
    capsys.readouterr()
    for named in (["--env", "town"], ["--set", "env=town"]):
        assert main([*asked, *named, "--output-dir", "other"]) == 3
        assert "was recorded in environment 'CartPole-v1', the config says 'town'" in capsys.readouterr().err
    assert not Path("other").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["--batch-siez", "3"], 3, "--batch-size"),
        (["--learning-rate", "0"], 3, "learning_rate"),
        (["--network", "transformer"], 3, "transformer"),
        (
            ["--network", "conflict_aware", "--hidden-sizes", "64", "--hidden-sizes", "64"],
            3,
            "one hidden size",
        ),
        (["--majority-threshold", "0.3"], 2, "--allow-degenerate"),
        (["--env", "nonsense"], 3, "was recorded in environment 'town', the config says 'nonsense'"),
        (["--device", "meta"], 2, "Device 'meta' does not work here"),
        (["--set", "town.n_agents=0"], 5, "at least one agent"),
    ],
)
def test_a_wrong_option_is_refused_in_words(
    arguments: list[str],
    code: int,
    sentence: str,
    demonstrations: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    found, document = answer(
        capsys, "bc", "--manifest", str(demonstrations), "--output-dir", str(tmp_path / "run"), *arguments
    )
    assert (found, document["error"]["exit_code"]) == (code, code)
    assert sentence in document["error"]["message"]
    assert not list(tmp_path.rglob("*.zip"))


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("README.md", "# Readme", "README.md"),
        ("notes.json", '{"hello": 1}', "expected a list of samples"),
        ("sample.npz", "not a zip", "sample.npz"),
    ],
)
def test_a_dry_run_refuses_what_is_no_recording(
    name: str, content: str, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_text(content)
    run = str(tmp_path / "run")
    arguments = ["--manifest", str(tmp_path / name), "--output-dir", run, "--dry-run"]
    code, document = answer(capsys, "bc", *arguments)
    assert (code, document["error"]["exit_code"]) == (2, 2)
    assert sentence in document["error"]["message"]


def test_a_recording_that_names_no_environment_is_one_of_the_configured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    samples = [str(recordings.townlet_sample(tmp_path / f"{name}.npz", 40)) for name in ("a", "b", "c")]
    manifest = str(recordings.write_manifest(tmp_path / "manifest.json", samples))
    arguments = ["bc", "--manifest", manifest, "--output-dir", str(tmp_path / "run"), "--n-epochs", "1"]
    code, document = answer(capsys, *arguments, "--env", "nonsense", "--dry-run")
    assert code == 5
    assert "No environment named 'nonsense'" in document["error"]["message"]
    code, result = answer(capsys, *arguments)
    assert code == 1
    assert (result["policies"], result["return_score_sampled"], result["final_reward_mean"]) == (
        [],
        None,
        None,
    )
    assert load_checkpoint(Path(result["checkpoint"])).info.env_id == "town"


def test_each_threshold_that_is_missed_is_a_warning(
    demonstrations: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--manifest", str(demonstrations), "--output-dir", str(tmp_path / "run"), "--n-epochs", "1"]
    impossible = ["--min-accuracy", "1", "--min-score-sampled", "9", "--min-score-greedy", "8"]
    code, result = answer(capsys, "bc", *arguments, *impossible)
    assert code == 1
    starts = [warning.split(" is ")[0] for warning in result["warnings"]]
    assert starts == ["Held-out accuracy", "The clone's score, sampled,", "The clone's score, greedy,"]
    lenient = ["--min-accuracy", "0", "--no-evaluate", "--overwrite"]
    code, result = answer(capsys, "bc", *arguments, *lenient)
    assert (code, result["warnings"], result["policies"]) == (0, [], [])


def test_townlets_own_dataset_of_one_action_is_refused(
    townlet_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = str(townlet_data / "data/bc_datasets/manifests/idle_v1.json")
    code, document = answer(capsys, "bc", "--manifest", manifest, "--output-dir", str(tmp_path / "run"))
    assert code == 2
    assert "frames shows the same action" in document["error"]["message"]


def started(demonstrations: Path, run: Path) -> subprocess.Popen[str]:
    """A long run in a process of its own, once its first checkpoint is there."""
    command = [*PROGRAM, "bc", "--manifest", str(demonstrations), "--output-dir", str(run), "--json"]
    process = subprocess.Popen(
        [*command, "--n-epochs", "100000", "--patience", "100000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not list(run.glob("checkpoint_*.zip")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    if not list(run.glob("checkpoint_*.zip")):
        process.kill()
        pytest.fail(f"no checkpoint was saved; exit code {process.wait()}")
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_ends_with_seven_and_a_checkpoint(
    number: int, demonstrations: Path, tmp_path: Path
) -> None:
    process = started(demonstrations, tmp_path / "run")
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    error = json.loads(output)["error"]
    assert process.returncode == error["exit_code"] == 7
    saved = error["message"].split("Go on with --resume-from ")[1]
    assert load_checkpoint(Path(saved)).info.algorithm == "bc"
    assert json.loads((tmp_path / "run/run.json").read_text())["status"] == "interrupted"


def test_a_killed_run_leaves_whole_checkpoints_and_a_free_directory(
    demonstrations: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    process = started(demonstrations, tmp_path / "run")
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    for checkpoint in (tmp_path / "run").glob("checkpoint_*.zip"):
        assert load_checkpoint(checkpoint).info.algorithm == "bc"
    arguments = [
        "bc",
        "--manifest",
        str(demonstrations),
        "--output-dir",
        str(tmp_path / "run"),
        "--n-epochs",
        "1",
    ]
    assert answer(capsys, *arguments)[0] == 3
    assert answer(capsys, *arguments, "--overwrite")[0] in (0, 1)
