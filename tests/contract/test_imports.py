"""Everything but the learners works where torch is not."""

from __future__ import annotations

import ast
import os
import pkgutil
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

import townlet_train
from tests.contract.markdown import ROOT

WITHOUT_TORCH = """
import sys
from importlib.machinery import PathFinder

class NoTorch(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] == "torch" else super().find_spec(name, path, target)

sys.meta_path = [NoTorch if finder is PathFinder else finder for finder in sys.meta_path]
"""
MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(townlet_train.__path__, "townlet_train.")
    if module.name != "townlet_train.__main__"
)
LEARNERS = "townlet_train.learners"
Run = Callable[[str], subprocess.CompletedProcess[str]]


@pytest.fixture
def run_without_torch(tmp_path: Path) -> Run:
    """Runs code in a process that cannot find torch, in an empty folder and with nothing remembered."""

    def run(code: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "work").mkdir()
        cache = str(tmp_path / "cache")
        return subprocess.run(
            [sys.executable, "-W", "error", "-c", WITHOUT_TORCH + code],
            cwd=tmp_path / "work",
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "XDG_CACHE_HOME": cache},
            capture_output=True,
            text=True,
            timeout=240,
        )

    return run


def test_every_module_outside_the_learners_imports_without_torch(run_without_torch: Run) -> None:
    modules = [name for name in MODULES if not name.startswith(LEARNERS)]
    assert len(modules) > 50
    code = f"""
import importlib
for name in {modules!r}:
    if name == "townlet_train.envs.town_v0":  # needs the extra `pettingzoo`
        continue
    try:
        importlib.import_module(name)
    except ImportError as error:
        print(name, error)
"""
    done = run_without_torch(code)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


@pytest.mark.torch
def test_the_learners_are_what_needs_torch(run_without_torch: Run) -> None:
    pytest.importorskip("torch")
    done = run_without_torch(f"import {LEARNERS}.bc")
    assert "No module named 'torch'" in done.stderr


@pytest.mark.parametrize("json_output", [False, True])
def test_without_torch_bc_is_refused_in_a_sentence_and_nothing_is_written(
    run_without_torch: Run, tmp_path: Path, json_output: bool
) -> None:
    arguments = ["bc", "--manifest", "nowhere", *(["--json"] if json_output else [])]
    code = f"from townlet_train.cli import main; sys.exit(main({arguments!r}))"
    done = run_without_torch(code)
    assert done.returncode == 2
    assert "pip install 'townlet-train[torch]'" in done.stderr
    assert ('"TorchNotAvailableError"' in done.stdout) is json_output
    assert list((tmp_path / "work").iterdir()) == []


def test_without_torch_the_listing_says_how_to_get_it(run_without_torch: Run) -> None:
    done = run_without_torch('from townlet_train.cli import main; sys.exit(main(["strategies", "list"]))')
    assert done.returncode == 0
    assert "pip install 'townlet-train[torch]'" in " ".join(done.stdout.split())


def imported_packages() -> set[str]:
    """Top-level packages of others that any module of ours imports, wherever in it."""
    names: set[str] = set()
    for path in (ROOT / "townlet_train").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names.add(str(node.module))
    tops = {name.partition(".")[0] for name in names}
    return tops - sys.stdlib_module_names - {"townlet_train"}


def test_every_package_that_is_imported_is_a_declared_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    optional = project["optional-dependencies"].items()
    extras = [line for name, lines in optional if name not in ("all", "dev") for line in lines]
    lines = [*project["dependencies"], *extras]
    declared = {re.split(r"[<>=\[ ]", line)[0].lower() for line in lines}
    distribution = {"yaml": "pyyaml", "pydantic_core": "pydantic"}
    assert {distribution.get(name, name) for name in imported_packages()} <= declared
