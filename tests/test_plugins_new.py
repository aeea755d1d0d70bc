"""What `plugins new` writes installs, is listed, runs and passes its own test, unchanged."""

from __future__ import annotations

import json
import os
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
from plugin_distributions import WITHOUT_NETWORK, environment_of_its_own

from townlet_train.cli import main
from townlet_train.errors import StorageError
from townlet_train.testing.scaffold import write_plugin

SHORT = {"plain": ["--n-iterations", "2"], "torch": ["--timesteps", "256", "--n-steps", "64"]}


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment of its own that sees everything installed in this one."""
    return environment_of_its_own(tmp_path_factory.mktemp("environment"))


def run(python: Path, folder: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [python, *arguments],
        cwd=folder,
        env={**os.environ, **WITHOUT_NETWORK, "XDG_CACHE_HOME": str(python.parents[1] / "cache")},
        capture_output=True,
        text=True,
        timeout=240,
    )


def program(python: Path, folder: Path, *arguments: str) -> Any:
    done = run(python, folder, "-m", "townlet_train", *arguments, "--json")
    assert done.returncode in (0, 1), done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["plain", pytest.param("torch", marks=pytest.mark.torch)])
def test_a_new_plugin_installs_is_listed_runs_and_passes_its_own_test(
    kind: str, python: Path, tmp_path: Path
) -> None:
    if kind == "torch":
        pytest.importorskip("torch")
    name = f"my-{kind}"
    torch = ["--torch"] if kind == "torch" else []
    assert main(["plugins", "new", name, *torch, "--output-dir", str(tmp_path)]) == 0
    folder = tmp_path / f"townlet-train-{name}"
    done = run(python, tmp_path, "-m", "pip", "install", "--quiet", "-e", folder)
    assert done.returncode == 0, done.stderr

    listed = {row["name"]: row for row in program(python, tmp_path, "strategies", "list")["strategies"]}
    assert (listed[name]["distribution"], listed[name]["available"]) == (f"townlet-train-{name}", True)
    told = run(python, tmp_path, "-m", "townlet_train", name, "--help")
    assert "--n-envs" in told.stdout
    result = program(python, tmp_path, name, "--env", "CartPole-v1", "--seed", "1", *SHORT[kind])
    assert result["strategy"] == name
    again = run(python, folder, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider")
    assert "1 passed" in again.stdout, again.stdout + again.stderr
    rules = program(python, tmp_path, "plugins", "check", name)["rules"]
    assert {rule["rule"] for rule in rules if rule["outcome"] == "skipped"} == (
        set() if kind == "torch" else {"resume"}
    )


@pytest.mark.parametrize("torch", [False, True])
def test_its_files_are_whole_and_none_is_left_open(torch: bool, tmp_path: Path) -> None:
    written = write_plugin("my-strategy", tmp_path, torch=torch, taken=())
    folder = Path(written.folder)
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()) == [
        *written.files
    ]
    for name in written.files:
        text = (folder / name).read_text()
        assert "$" not in text
        if name.endswith(".py"):
            compile(text, name, "exec")
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    assert project["entry-points"] == {"townlet_train": {"my_strategy": "townlet_train_my_strategy"}}
    assert [path.name for path in tmp_path.iterdir()] == ["townlet-train-my-strategy"]


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("My", "A strategy cannot be named 'My'"),
        ("a_b", "joined by hyphens"),
        ("-a", "A strategy cannot be named '-a'"),
        ("../a", "A strategy cannot be named '../a'"),
        ("", "A strategy cannot be named ''"),
        ("a" * 41, "at most 40 characters"),
        ("bc", "The name 'bc' is taken"),
        ("evaluate", "The name 'evaluate' is taken"),
        ("study", "The name 'study' is taken"),
        ("townlet-train-ppo", "The name 'ppo' is taken"),
    ],
)
def test_a_name_that_cannot_be_one_is_refused_and_nothing_is_written(
    name: str, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plugins", "new", "--output-dir", str(tmp_path), "--", name]) == 3
    assert sentence in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_there_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "townlet-train-mine"
    folder.mkdir()
    (folder / "precious.txt").write_text("work of a week")
    assert main(["plugins", "new", "mine", "--output-dir", str(tmp_path)]) == 3
    assert f"{folder} is there already" in capsys.readouterr().err
    assert [path.name for path in folder.iterdir()] == ["precious.txt"]


def test_a_folder_that_cannot_be_written_is_said_and_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be written"):
        write_plugin("mine", tmp_path / "file", torch=False, taken=())
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
