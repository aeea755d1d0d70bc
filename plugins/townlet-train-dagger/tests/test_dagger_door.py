"""The plugin comes in through the door that is open to all, with torch and without."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import townlet_train_dagger
from townlet_train.api import TrainingResultDTO
from townlet_train.cli import main
from townlet_train_dagger.strategy import DAggerResultDTO

HAS_TORCH = find_spec("torch") is not None
README = (Path(__file__).parents[1] / "README.md").read_text()


def test_the_listing_names_its_distribution_and_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["strategies", "list", "--json"]) == 0
    listed = {row["name"]: row for row in json.loads(capsys.readouterr().out)["strategies"]}
    assert listed["dagger"]["distribution"] == "townlet-train-dagger"
    assert listed["dagger"]["available"] is HAS_TORCH


def test_importing_it_brings_neither_torch_nor_numpy() -> None:
    code = (
        "import sys, townlet_train_dagger; print(sorted({'numpy', 'torch', 'gymnasium'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.strip() == "[]"


def test_it_imports_nothing_of_townlet_train_but_the_door_and_the_learners() -> None:
    names: set[str] = set()
    for path in Path(str(townlet_train_dagger.__file__)).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                names.add(str(node.module))
            elif isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
    ours = {name for name in names if name.partition(".")[0] == "townlet_train"}
    assert {name.split(".")[1] for name in ours} == {"api", "learners"}


def test_every_field_of_its_result_and_of_its_lines_is_on_its_page() -> None:
    rows = [line.split("|")[1] for line in README.splitlines() if line.startswith("| `")]
    own = DAggerResultDTO.model_fields.keys() - TrainingResultDTO.model_fields.keys()
    lines = {"timestep", "iteration", "beta", "labels"}
    assert set(re.findall(r"`(\w+)`", " ".join(rows))) == own | lines
