"""The plugin comes in through the door that is open to all, with Stable-Baselines3 and without."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import townlet_train_sb3
from townlet_train.cli import main

HAS_TORCH = find_spec("torch") is not None
MADE = "search/random-search_seed42_model.zip"
PACKAGE = Path(str(townlet_train_sb3.__file__)).parent


def test_the_listings_name_its_distribution_and_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["strategies", "list", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    listed = {row["name"]: row for row in document["strategies"]}
    for name in ("sb3-ppo", "sb3-a2c"):
        assert listed[name]["distribution"] == "townlet-train-sb3"
        assert listed[name]["available"] is HAS_TORCH
        assert ("pip install" in (listed[name]["reason"] or "")) is not HAS_TORCH
    offered = {row["name"]: row for row in document["offers"]}
    assert offered["sb3"]["kind"] == "exporter"
    assert offered["import-sb3"]["kind"] == "command"


@pytest.mark.skipif(HAS_TORCH, reason="torch is here")
@pytest.mark.parametrize(
    "command",
    [
        ["sb3-ppo", "--env", "CartPole-v1", "--output-dir", "run"],
        ["import-sb3", "model.zip", "--env", "CartPole-v1", "--output", "run"],
    ],
)
def test_without_torch_it_is_refused_before_anything_is_written(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(command) == 2
    assert "pip install 'townlet-train[torch]'" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.torch
@pytest.mark.skipif(not HAS_TORCH, reason="torch is not here")
@pytest.mark.parametrize("command", ["sb3-ppo", "export"])
def test_without_stable_baselines3_it_is_refused_before_anything_is_written(
    command: str, tmp_path: Path
) -> None:
    arguments = {
        "sb3-ppo": ["--env", "CartPole-v1", "--output-dir", str(tmp_path / "run")],
        "export": [str(tmp_path / MADE), "--format", "sb3", "--output", str(tmp_path / "run")],
    }
    code = "import sys; sys.modules['stable_baselines3'] = None\nfrom townlet_train.cli import main\n"
    if command == "export":
        making = [
            "random-search",
            "--env",
            "CartPole-v1",
            "--n-iterations",
            "1",
            "--evaluation-episodes",
            "0",
        ]
        code += f"main({[*making, '--output-dir', str(tmp_path / 'search')]!r})\n"
    code += f"sys.exit(main({[command, *arguments[command]]!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 2, done.stderr
    assert "stable_baselines3" in done.stderr
    assert "is not installed. Run: pip install 'stable-baselines3'" in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.torch
@pytest.mark.skipif(not HAS_TORCH, reason="torch is not here")
def test_without_stable_baselines3_its_strategies_are_listed_as_unavailable() -> None:
    code = (
        "import sys; sys.modules['stable_baselines3'] = None\nfrom townlet_train.registry import discover\n"
    )
    code += "print([(each.available, each.reason) for each in discover().strategies if 'sb3' in each.name])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
    )
    reason = "stable_baselines3 is not installed. Run: pip install 'stable-baselines3'"
    assert ast.literal_eval(done.stdout) == [(False, reason)] * 2


def test_importing_it_brings_neither_torch_nor_numpy_nor_stable_baselines3() -> None:
    heavy = {"numpy", "torch", "gymnasium", "stable_baselines3"}
    code = f"import sys, townlet_train_sb3, townlet_train_sb3.command; print(sorted({heavy!r} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.strip() == "[]"


def imported(path: Path) -> set[str]:
    """The modules that a file imports, by their whole names."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            names.add(str(node.module))
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return names


def test_what_a_model_file_carries_needs_nothing_of_townlet_train() -> None:
    roots = {name.partition(".")[0] for name in imported(PACKAGE / "extractor.py")}
    assert roots == {"__future__", "gymnasium", "stable_baselines3", "torch"}
