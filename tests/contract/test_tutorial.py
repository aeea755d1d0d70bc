"""The tutorial for plugin authors does what it says, word for word."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.contract.markdown import DOCS, blocks
from tests.plugin_distributions import install
from townlet_train import hookspecs

PAGE = DOCS / "writing-a-plugin.md"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the page's files, its distribution on record as an installer would leave it."""
    folder = tmp_path_factory.mktemp("plugin")
    for block in blocks(PAGE):
        if block.file:
            (folder / block.file).write_text(block.text, encoding="utf-8")
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    name, version = project["name"], project["version"]
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    points = [
        f"[{group}]\n" + "".join(f"{key} = {value}\n" for key, value in entries.items())
        for group, entries in project["entry-points"].items()
    ]
    (info / "entry_points.txt").write_text("\n".join(points))
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


def run(folder: Path, command: str) -> subprocess.CompletedProcess[str]:
    program, *arguments = shlex.split(command)
    script = Path(sys.executable).with_name(program)
    return subprocess.run(
        [script, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=240,
    )


def words(text: str) -> str:
    """Text with every run of white space as one blank."""
    return " ".join(text.split())


def test_every_command_works_and_prints_what_the_page_shows(
    site: Path, console: list[tuple[str, list[str]]]
) -> None:
    ours = [(command, shown) for command, shown in console if command.startswith("townlet-train ")]
    assert len(console) == len(ours) + 1, "the first command installs the plugin, as the fixture has done"
    for command, shown in ours:
        done = run(site, command)
        assert done.returncode == 0, f"{command}\n{done.stderr}"
        for line in shown:
            assert words(line) in words(done.stdout + done.stderr), command


def test_its_own_tests_pass(site: Path) -> None:
    done = run(site, "python -m pytest -q -p no:cacheprovider test_majority.py")
    assert "2 passed" in done.stdout, done.stdout + done.stderr


def test_the_plugin_needs_nothing_but_the_door(site: Path) -> None:
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
    done = run(tmp_path, "townlet-train coin --json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["strategy"] == "coin"


def test_the_expert_on_the_page_drives_up_the_mountain(tmp_path: Path) -> None:
    [example] = [block.text for block in blocks(PAGE) if "def townlet_train_experts" in block.text]
    install(tmp_path, "swing-dist", f"from townlet_train.api import hookimpl\n{example}")
    arguments = "--env MountainCar-v0 --policy expert --episodes 20 --json"
    done = run(tmp_path, f"townlet-train evaluate {arguments}")
    assert done.returncode == 0, done.stderr
    assert max(json.loads(done.stdout)["episode_lengths"]) < 200
