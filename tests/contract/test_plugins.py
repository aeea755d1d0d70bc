"""Every plugin in plugins/ is installed, listed, typed and tested, and comes in through the doors open to all."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
from importlib.util import find_spec

import pytest

from tests.contract.markdown import ROOT
from townlet_train.cli import main

PLUGINS = sorted(path.name for path in (ROOT / "plugins").iterdir() if path.is_dir())
DOORS = {"api", "learners", "testing"}
HEAVY = {"gymnasium", "numpy", "torch"}
NEED_TORCH = {"torch", "stable_baselines3"}
TOOLS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]


def test_every_folder_is_a_distribution_that_is_installed_and_listed_as_ok(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["plugins", "list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["plugins"]
    statuses = {row["distribution"]: row["status"] for row in listed if row["distribution"] in PLUGINS}
    assert statuses == dict.fromkeys(PLUGINS, "ok")


@pytest.mark.parametrize("name", PLUGINS)
def test_every_readme_installs_its_plugin_from_the_repository(name: str) -> None:
    readme = (ROOT / "plugins" / name / "README.md").read_text(encoding="utf-8")
    assert f"pip install ./plugins/{name}\n" in readme
    assert f"pip install {name}" not in readme, "no index has it"


def test_the_type_checker_reads_all_of_them() -> None:
    packages = {name.replace("-", "_") for name in PLUGINS}
    assert set(TOOLS["mypy"]["packages"]) == {"townlet_train", *packages}


@pytest.mark.slow
def test_the_suite_collects_tests_of_all_of_them() -> None:
    assert "plugins" in TOOLS["pytest"]["ini_options"]["testpaths"]
    collect = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--collect-only", "-q", "plugins"]
    done = subprocess.run(collect, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    assert set(re.findall(r"plugins/([\w-]+)/tests/test_\w+\.py", done.stdout)) == set(PLUGINS)


def test_no_test_of_theirs_is_skipped_in_ci_for_want_of_a_library() -> None:
    if os.environ.get("CI") != "true":
        pytest.skip("outside of CI, a library that is not installed leaves the tests of its plugin out")
    sources = [path.read_text(encoding="utf-8") for path in ROOT.glob("plugins/*/tests/*.py")]
    wanted = set(re.findall(r"""importorskip\(["'](\w+)""", "".join(sources)))
    assert len(wanted) >= 5, "they are asked for in another way now"
    assert {name for name in wanted if find_spec(name) is None} <= (
        set() if find_spec("torch") else NEED_TORCH
    )


def imported(node: ast.AST) -> list[str]:
    """The whole names of what a statement imports."""
    if isinstance(node, ast.ImportFrom):
        return [f"{node.module}.{alias.name}" for alias in node.names]
    return [alias.name for alias in node.names] if isinstance(node, ast.Import) else []


@pytest.mark.parametrize("name", PLUGINS)
def test_it_imports_nothing_of_townlet_train_but_the_three_doors(name: str) -> None:
    sources = [*(ROOT / "plugins" / name / name.replace("-", "_")).rglob("*.py")]
    nodes = [node for path in sources for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))]
    parts = [found.split(".") for node in nodes for found in imported(node)]
    used = {(*part, "")[1] for part in parts if part[0] == "townlet_train"}
    assert "api" in used
    assert used <= DOORS


@pytest.mark.parametrize("name", PLUGINS)
def test_importing_it_brings_nothing_that_takes_long(name: str) -> None:
    code = f"import sys, {name.replace('-', '_')}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert not HEAVY & set(done.stdout.split())
