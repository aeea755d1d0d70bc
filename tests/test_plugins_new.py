"""What `plugins new` writes installs, is listed, runs and passes its own test, unchanged."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import sysconfig
import tomllib
import venv
from pathlib import Path
from typing import Any

import pytest

from townlet_train.cli import main
from townlet_train.errors import StorageError
from townlet_train.testing.scaffold import write_plugin

SHORT = {"plain": ["--n-iterations", "2"], "torch": ["--timesteps", "256", "--n-steps", "64"]}


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment of its own that sees everything installed in this one."""
    folder = tmp_path_factory.mktemp("environment") / "env"
    venv.create(folder, with_pip=False)
    [site] = folder.glob("lib/python*/site-packages")
    (site / "outer.pth").write_text(f"import site; site.addsitedir({sysconfig.get_paths()['purelib']!r})\n")
    return folder


def run(environment: Path, folder: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [environment / "bin/python", *arguments],
        cwd=folder,
        env={**os.environ, "XDG_CACHE_HOME": str(environment / "cache")},
        capture_output=True,
        text=True,
        timeout=240,
    )


def program(environment: Path, folder: Path, *arguments: str) -> Any:
    done = run(environment, folder, "-m", "townlet_train", *arguments, "--json")
    assert done.returncode in (0, 1), done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["plain", pytest.param("torch", marks=pytest.mark.torch)])
def test_a_new_plugin_installs_is_listed_runs_and_passes_its_own_test(
    kind: str, environment: Path, tmp_path: Path
) -> None:
    if kind == "torch":
        pytest.importorskip("torch")
    if importlib.util.find_spec("hatchling") is None or importlib.util.find_spec("editables") is None:
        pytest.skip("the build backend of new plugins is not installed, and a test fetches nothing")
    name = f"my-{kind}"
    torch = ["--torch"] if kind == "torch" else []
    assert main(["plugins", "new", name, *torch, "--output-dir", str(tmp_path)]) == 0
    folder = tmp_path / f"townlet-train-{name}"
    install = ["-m", "pip", "--python", environment / "bin/python", "--disable-pip-version-check", "install"]
    install += ["--quiet", "--no-build-isolation", "--no-deps", "--no-index", "-e", folder]
    done = subprocess.run([sys.executable, *install], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr

    listed = {row["name"]: row for row in program(environment, tmp_path, "strategies", "list")["strategies"]}
    assert (listed[name]["distribution"], listed[name]["available"]) == (f"townlet-train-{name}", True)
    told = run(environment, tmp_path, "-m", "townlet_train", name, "--help")
    assert "--n-envs" in told.stdout
    result = program(environment, tmp_path, name, "--env", "CartPole-v1", "--seed", "1", *SHORT[kind])
    assert result["strategy"] == name
    again = run(environment, folder, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider")
    assert "1 passed" in again.stdout, again.stdout + again.stderr
    rules = program(environment, tmp_path, "plugins", "check", name)["rules"]
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
