"""The plugin comes in through the door that is open to all, with torch and without."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import townlet_train_a2c
from townlet_train.cli import main

HAS_TORCH = find_spec("torch") is not None


def test_the_listing_names_its_distribution_and_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["strategies", "list", "--json"]) == 0
    listed = {row["name"]: row for row in json.loads(capsys.readouterr().out)["strategies"]}
    assert listed["a2c"]["distribution"] == "townlet-train-a2c"
    assert listed["a2c"]["requires_torch"] is True
    assert listed["a2c"]["available"] is HAS_TORCH
    assert ("pip install" in (listed["a2c"]["reason"] or "")) is not HAS_TORCH


@pytest.mark.skipif(HAS_TORCH, reason="torch is here")
def test_without_torch_it_is_refused_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["a2c", "--env", "CartPole-v1", "--output-dir", str(tmp_path / "run")]) == 2
    assert "townlet-train[torch]" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_importing_it_brings_neither_torch_nor_numpy() -> None:
    code = "import sys, townlet_train_a2c; print(sorted({'numpy', 'torch'} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.strip() == "[]"


def test_it_imports_nothing_of_townlet_train_but_the_door_and_the_learners() -> None:
    names: set[str] = set()
    for path in Path(str(townlet_train_a2c.__file__)).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                names.add(str(node.module))
            elif isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
    ours = {name for name in names if name.partition(".")[0] == "townlet_train"}
    assert "townlet_train.learners.on_policy" in ours
    assert {name.split(".")[1] for name in ours} == {"api", "learners"}
