"""The tutorial for plugin authors does what it says, word for word."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.contract.markdown import DOCS, blocks
from tests.plugin_distributions import WITHOUT_NETWORK, environment_of_its_own, install
from townlet_train import hookspecs

PAGE = DOCS / "writing-a-plugin.md"
PROGRAMS = {"pip": ["-m", "pip"], "python": [], "townlet-train": ["-m", "townlet_train"]}
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the page's files and nothing else."""
    folder = tmp_path_factory.mktemp("plugin")
    for block in blocks(PAGE):
        if block.file:
            (folder / block.file).write_text(block.text, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def console() -> list[tuple[str, list[str]]]:
    """The page's commands, each with the lines shown below it."""
    session: list[tuple[str, list[str]]] = []
    for line in "".join(block.text for block in blocks(PAGE) if block.language == "console").splitlines():
        if line.startswith("$ "):
            session.append((line[2:], []))
        else:
            session[-1][1].append(line)
    return session


def run(command: str, folder: Path, *python: str | Path) -> subprocess.CompletedProcess[str]:
    """What a command does in a folder, in the environment of a Python."""
    program, *arguments = shlex.split(command)
    return subprocess.run(
        [*python, *PROGRAMS[program], *arguments],
        cwd=folder,
        env={**os.environ, **WITHOUT_NETWORK, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=240,
    )


@pytest.fixture(scope="module")
def python(
    project: Path, console: list[tuple[str, list[str]]], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The Python of an environment in which the page's first command has installed the plugin."""
    python = environment_of_its_own(tmp_path_factory.mktemp("environment"))
    assert console[0] == ("pip install .", [])
    done = run(console[0][0], project, python)
    assert done.returncode == 0, done.stderr
    return python


def words(text: str) -> str:
    """Text with every run of white space as one blank."""
    return " ".join(text.split())


def test_every_command_works_and_prints_what_the_page_shows(
    project: Path, console: list[tuple[str, list[str]]], python: Path
) -> None:
    for command, shown in console[1:]:
        done = run(command, project, python, "-P")  # what is in the folder, and not installed, is not found
        assert done.returncode == 0, f"{command}\n{done.stderr}"
        for line in shown:
            assert words(line) in words(done.stdout + done.stderr), command


def test_its_own_tests_pass(project: Path, python: Path) -> None:
    done = run("python -m pytest -q -p no:cacheprovider test_majority.py", project, python)
    assert "2 passed" in done.stdout, done.stdout + done.stderr


def test_the_plugin_needs_nothing_but_the_door() -> None:
    [plugin] = [
        block
        for block in blocks(PAGE)
        if block.file and block.file.endswith("majority.py") and not block.file.startswith("test_")
    ]
    imports = [line for line in plugin.text.splitlines() if "import" in line and "townlet_train" in line]
    assert imports
    assert all(line.startswith("from townlet_train.api import ") for line in imports)


def test_the_plugin_in_the_hooks_docstring_is_one(tmp_path: Path) -> None:
    example = re.search(r"^    .*?(?=^\S)", str(hookspecs.__doc__), re.M | re.S)
    assert example is not None
    install(tmp_path, "coin-dist", example[0])
    done = run("townlet-train coin --json", tmp_path, sys.executable)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["strategy"] == "coin"


def test_the_expert_on_the_page_drives_up_the_mountain(tmp_path: Path) -> None:
    [example] = [block.text for block in blocks(PAGE) if "def townlet_train_experts" in block.text]
    install(tmp_path, "swing-dist", f"from townlet_train.api import hookimpl\n{example}")
    arguments = "--env MountainCar-v0 --policy expert --episodes 20 --json"
    done = run(f"townlet-train evaluate {arguments}", tmp_path, sys.executable)
    assert done.returncode == 0, done.stderr
    assert max(json.loads(done.stdout)["episode_lengths"]) < 200
