from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = {"torch", "numpy", "gymnasium", "numba", "pettingzoo", "safetensors"}

CALLS = {
    "help": ["--help"],
    "version": ["--version"],
    "listing": ["strategies", "list"],
    "listing as JSON": ["strategies", "list", "--json"],
    "help of a strategy": ["bc", "--help"],
    "help of anneal": ["anneal", "--help"],
    "help of gate": ["gate", "--help"],
    "description of a strategy": ["strategies", "show", "bc"],
    "settings": ["config", "show", "--origin"],
    "plugins": ["plugins", "list"],
    "pins": ["plugins", "freeze", "--json"],
    "a plugin": ["plugins", "show", "builtin"],
    "a new plugin": ["plugins", "new", "bc"],
    "unknown command": ["strategie"],
    **{
        f"help of {name}": [name, "--help"]
        for name in (
            "rollout",
            "replay",
            "plugins",
            "evaluate",
            "runs",
            "card",
            "export",
            "minari",
            "schema",
            "town",
            "doctor",
            "demo",
        )
    },
}


def modules_after(arguments: list[str], cache: Path, **variables: str) -> set[str]:
    """Top-level modules a fresh interpreter has imported once the program is done with these arguments."""
    code = (
        "import sys\n"
        "from townlet_train.cli import main\n"
        "try:\n"
        f"    main({arguments!r})\n"
        "except SystemExit:\n"
        "    pass\n"
        "sys.stderr.write('MODULES ' + ' '.join(sys.modules))\n"
    )
    environment = {"PATH": "", "HOME": str(cache), "XDG_CACHE_HOME": str(cache), **variables}
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    )
    return {name.partition(".")[0] for name in result.stderr.rpartition("MODULES ")[2].split()}


@pytest.mark.parametrize("kind", CALLS)
def test_looking_around_imports_nothing_heavy_at_first_and_again(tmp_path: Path, kind: str) -> None:
    for _ in range(2):
        modules = modules_after(CALLS[kind], tmp_path)
        assert "townlet_train" in modules
        assert not modules & HEAVY


@pytest.mark.parametrize("words", ["townlet-train ", "townlet-train strategies s", "townlet-train bc --l"])
def test_completion_imports_nothing_heavy(tmp_path: Path, words: str) -> None:
    last = str(words.count(" "))
    modules = modules_after(
        [], tmp_path, _TOWNLET_TRAIN_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD=last
    )
    assert not modules & HEAVY


def test_a_remembered_listing_loads_no_plugin(tmp_path: Path) -> None:
    first = modules_after(["--help"], tmp_path)
    again = modules_after(["--help"], tmp_path)
    assert "pluggy" in first
    assert not again & {"pluggy", "pydantic", "rich"}


def test_plugins_are_listed_from_memory_too(tmp_path: Path) -> None:
    modules_after(["plugins", "freeze"], tmp_path)
    assert "pluggy" not in modules_after(["plugins", "freeze"], tmp_path)


def test_the_plugin_door_imports_nothing_heavy() -> None:
    code = "import sys, townlet_train.api, townlet_train.strategies.plugin; print(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {name.partition(".")[0] for name in result.stdout.split()} & HEAVY


@pytest.mark.torch
def test_an_update_does_not_bring_torchs_compiler_along() -> None:
    code = (
        "import sys; from townlet_train.learners.devices import checked_device; "
        "checked_device('cpu'); print(*sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "torch" in result.stdout.split()
    assert not {"torch._dynamo", "sympy"} & set(result.stdout.split())
