"""What every plugin of this repository keeps to: the doors that are open to all, and an import that costs nothing."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from townlet_train.cli import main

HEAVY = ("gymnasium", "numpy", "torch")


def listed(strategy: str, capsys: pytest.CaptureFixture[str]) -> Any:
    """The row of `strategies list` about a strategy."""
    assert main(["strategies", "list", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["strategies"]
    return next(row for row in rows if row["name"] == strategy)


def heavy_imports(plugin: ModuleType) -> list[str]:
    """What importing a plugin brings along of what takes long."""
    code = (
        f"import json, sys, {plugin.__name__}; print(json.dumps(sorted(set({HEAVY!r}) & set(sys.modules))))"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    found: list[str] = json.loads(done.stdout)
    return found


def doors_used(plugin: ModuleType) -> set[str]:
    """The parts of townlet_train that any module of a plugin imports."""
    names: set[str] = set()
    for path in Path(str(plugin.__file__)).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                names.add(str(node.module))
            elif isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
    return {name.split(".")[1] for name in names if name.partition(".")[0] == "townlet_train"}
