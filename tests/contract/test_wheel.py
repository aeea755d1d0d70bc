"""The wheel is the program: it carries what running needs, and runs away from the repository."""

from __future__ import annotations

import configparser
import importlib.util
import json
import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.contract.markdown import ROOT
from tests.short_runs import STORY
from townlet_train import __version__

pytestmark = pytest.mark.slow

PIP = ("-m", "pip", "--quiet", "--disable-pip-version-check")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this working tree; its build backend is fetched unless it is installed."""
    folder = tmp_path_factory.mktemp("dist")
    isolation = ["--no-build-isolation"] if importlib.util.find_spec("hatchling") else []
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        *isolation,
        "-w",
        folder,
        ROOT,
    ]
    built = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert built.returncode == 0, built.stderr
    [path] = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def members(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds the wheel's content and nothing of the repository."""
    folder = tmp_path_factory.mktemp("installed")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def test_it_carries_every_file_of_the_package_and_nothing_else(members: dict[str, bytes]) -> None:
    package = ROOT / "townlet_train"
    files = {path.relative_to(ROOT).as_posix() for path in package.rglob("*") if path.is_file()}
    shipped = {name for name in files if "__pycache__" not in name}
    metadata = f"townlet_train-{__version__}.dist-info/"
    assert {name for name in members if not name.startswith(metadata)} == shipped
    assert {"townlet_train/py.typed", "townlet_train/presets/town-v1.yaml"} <= shipped


def test_it_carries_the_licence(members: dict[str, bytes]) -> None:
    [licence] = [name for name in members if name.endswith("/LICENSE")]
    assert members[licence] == (ROOT / "LICENSE").read_bytes()


def test_it_offers_the_program_and_the_built_in_plugin(members: dict[str, bytes]) -> None:
    points = configparser.ConfigParser()
    points.read_string(members[f"townlet_train-{__version__}.dist-info/entry_points.txt"].decode())
    assert points["console_scripts"]["townlet-train"] == "townlet_train.cli:main"
    assert dict(points["townlet_train"]) == {"builtin": "townlet_train.strategies.plugin"}


def test_torch_is_an_extra(members: dict[str, bytes]) -> None:
    metadata = members[f"townlet_train-{__version__}.dist-info/METADATA"].decode().splitlines()
    torch = [line for line in metadata if line.startswith("Requires-Dist: torch")]
    assert torch
    assert all("extra ==" in line for line in torch)


@pytest.fixture(scope="module")
def program(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program of an environment of its own, in which pip has installed the wheel and what it asks for."""
    folder = tmp_path_factory.mktemp("fresh")
    require_an_index(folder)
    venv.create(folder / "env", with_pip=True)
    install = [*PIP, "install", "-c", ROOT / "constraints.txt", f"{wheel}[torch]"]
    done = subprocess.run(
        [folder / "env/bin/python", *install], cwd=folder, capture_output=True, text=True, timeout=400
    )
    assert done.returncode == 0, done.stderr
    return folder / "env/bin/townlet-train"


def require_an_index(folder: Path) -> None:
    """Skip where pip reaches no index; on CI that is a failure."""
    probe = [
        sys.executable,
        *PIP,
        "download",
        "--no-deps",
        "--no-cache-dir",
        "-d",
        folder / "probe",
        "pluggy",
    ]
    reached = subprocess.run(probe, capture_output=True, text=True, timeout=60).returncode == 0
    if not reached and os.environ.get("CI") != "true":
        pytest.skip("pip reaches no package index, so the wheel's dependencies cannot be installed")


def test_what_it_carries_captures_and_evaluates_away_from_the_repository(
    installed: Path, tmp_path: Path
) -> None:
    def run(*arguments: str) -> dict[str, Any]:
        code = (
            "import sys, townlet_train; from townlet_train.cli import main;"
            f"assert townlet_train.__file__.startswith({str(installed)!r}), townlet_train.__file__;"
            f"sys.exit(main({[*arguments, '--json']!r}))"
        )
        done = subprocess.run(
            [sys.executable, "-P", "-c", code], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(installed)},
            capture_output=True, text=True, timeout=240,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        document: dict[str, Any] = json.loads(done.stdout)
        return document

    small = ["--preset", "town-v1", "--set", "town.episode_ticks=40"]
    captured = run("rollout", "capture", "--output", "capture", "--towns", "2", "--ticks", "40", *small)
    assert captured["frames"] == 2 * 40 * 6
    assert run("replay", "validate", "capture")["valid"] is True
    assert len(run("evaluate", "--policy", "expert", "--episodes", "2", *small)["episode_returns"]) == 2
    listed = run("strategies", "list")["strategies"]
    ours = [strategy["name"] for strategy in listed if strategy["distribution"] == "townlet-train"]
    assert ours == ["anneal", "bc", "ppo"]


@pytest.mark.torch
@pytest.mark.timeout(600)
def test_installed_alone_it_does_the_whole_job(program: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [program, "demo", "--seed", "1", "--json"],
        cwd=tmp_path,
        env={**os.environ, **STORY},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode in (0, 1), done.stderr
    result = json.loads(done.stdout)
    assert (result["verdict"], result["promoted"]) == ("PASS", True)
    assert (tmp_path / result["release_file"]).is_file()
