"""Whatever a plugin does, every other command keeps working and it is said whose fault it is."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from plugin_distributions import COIN, install

from tests.contract.test_imports import WITHOUT_TORCH

GOOD = COIN.replace('"coin"', '"good"')


class Hostile(NamedTuple):
    """A plugin that does harm when it is loaded, what becomes of it, and what is said."""

    source: str
    status: str
    reason: str
    before: str = ""  # what is true of the process it is loaded into


def coin_with(line: str) -> str:
    """A plugin that would work, were it not for a line at its top."""
    return f"{line}\n" + "\n".join(line.removeprefix("    ") for line in COIN.splitlines())


HOSTILE = {
    "raises": Hostile("1 / 0", "failed", "ZeroDivisionError"),
    "exits": Hostile("raise SystemExit(0)", "failed", "SystemExit: 0"),
    "imports in a circle": Hostile(
        coin_with("import hostile_other\nVALUE = 1"), "failed", "partially initialized module"
    ),
    "imports torch where there is none": Hostile(
        coin_with("import torch"), "failed", "Run: pip install 'townlet-train[torch]'", WITHOUT_TORCH
    ),
    "returns a word": Hostile(
        coin_with("").replace("return [Coin]", "return 'coin'"),
        "failed",
        "expected a list of strategy classes",
    ),
    "returns a number among strategies": Hostile(
        coin_with("").replace("return [Coin]", "return [Coin, 7]"), "failed", "expected a strategy class"
    ),
    "returns what raises when it is read": Hostile(
        coin_with("").replace("return [Coin]", "return (1 / 0 for _ in range(3))"),
        "failed",
        "ZeroDivisionError",
    ),
    "wants a built-in's name": Hostile(
        coin_with("").replace('"coin"', '"bc"'), "ok", "the name is already taken by townlet-train"
    ),
    "wants another's name": Hostile(
        coin_with("").replace('"coin"', '"twin"'), "ok", "hostile-dist 6.6 and twin-dist 1.2 claim it"
    ),
    "misspells its hook": Hostile(
        coin_with("").replace("townlet_train_strategies", "townlet_train_stratgies"), "failed", "unknown hook"
    ),
    "talks without end": Hostile(
        coin_with("print('x' * 5_000_000)"), "ok", "hostile-dist 6.6 prints more than"
    ),
    "patches a built-in": Hostile(
        coin_with(
            "from townlet_train.strategies.bc import BCStrategy\n"
            "BCStrategy.summary = 'Mine.'\nBCStrategy.run = print\nBCStrategy.more = 1"
        ),
        "failed",
        "it changes BCStrategy.summary, which is not its own",
    ),
    "patches how a built-in begins": Hostile(
        coin_with("from townlet_train.strategies.bc import BCStrategy\nBCStrategy.__init__ = print"),
        "failed",
        "it changes BCStrategy.__init__, which is not its own",
    ),
}
CODE = """
import contextlib, io, json, sys
from townlet_train.cli import main
found = {}
for name, arguments in json.loads(sys.argv[1]).items():
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(arguments)
    found[name] = (code, out.getvalue(), err.getvalue())
print(json.dumps(found))
"""
COMMANDS = {
    "help": ["--help"],
    "strategies": ["strategies", "list", "--json"],
    "plugins": ["plugins", "list", "--json"],
    "settings": ["config", "show"],
    "help of bc": ["bc", "--help"],
    "another plugin's": ["good", "--output-dir", "run", "--json"],
    "evaluation": ["evaluate", "--env", "CartPole-v1", "--policy", "random", "--episodes", "1", "--json"],
    "doctor": ["town", "--help"],
}


def run_code(code: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=folder,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(folder / "site"), *filter(None, sys.path)]),
            "XDG_CACHE_HOME": str(folder / "cache"),
        },
        capture_output=True,
        text=True,
        timeout=240,
    )


@pytest.fixture
def site(tmp_path: Path) -> Path:
    folder = tmp_path / "site"
    folder.mkdir()
    install(folder, "good-dist", GOOD)
    return folder


@pytest.mark.parametrize("kind", HOSTILE)
def test_every_other_command_works_and_it_is_said_whose_fault_it_is(
    kind: str, site: Path, tmp_path: Path
) -> None:
    hostile = HOSTILE[kind]
    install(site, "hostile-dist", hostile.source, version="6.6")
    install(site, "twin-dist", COIN.replace('"coin"', '"twin"'))
    (site / "hostile_other.py").write_text("from hostile_dist import VALUE\n")
    done = run_code(hostile.before + CODE, tmp_path, json.dumps(COMMANDS))
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert {name: code for name, (code, _, _) in found.items()} == dict.fromkeys(COMMANDS, 0)
    listed = {row["distribution"]: row for row in json.loads(found["plugins"][1])["plugins"]}
    assert listed["hostile-dist"]["status"] == hostile.status
    assert listed["townlet-train"]["status"] == listed["good-dist"]["status"] == "ok"
    told = json.dumps(json.loads(found["strategies"][1])) + found["strategies"][2] + found["help"][2]
    assert hostile.reason in told
    assert len(told) < 20_000
    strategies = json.loads(found["strategies"][1])["strategies"]
    [ours] = [row for row in strategies if (row["distribution"], row["name"]) == ("townlet-train", "bc")]
    assert ours["summary"].startswith("Behaviour cloning")
    assert "Behaviour cloning" in found["help of bc"][1]
    assert '"strategy": "good"' in found["another plugin's"][1]


RUNS = {
    "prepare": ("prepare(self, context): pass", "KeyError: 'lost'", "prepare(self, context): {}['lost']"),
    "run": ("run(self, context): return", "KeyError: 'lost'", "run(self, context): {}['lost']; return"),
    "exit": (
        "run(self, context): return",
        "SystemExit: 0",
        "run(self, context): raise SystemExit(0); return",
    ),
    "params": ("self.params = params", "KeyError: 'lost'", "{}['lost']"),
    "result": ('TrainingResultDTO(strategy="coin")', "returned int, expected a TrainingResultDTO", "7"),
    "context": (
        "run(self, context): return",
        "FrozenInstanceError",
        "run(self, context): context.seed = 7; return",
    ),
    "config": ("run(self, context): return", "frozen", "run(self, context): context.config.seed = 7; return"),
}


@pytest.mark.parametrize("where", RUNS)
def test_a_strategy_that_fails_is_named_with_its_distribution(where: str, site: Path, tmp_path: Path) -> None:
    before, sentence, after = RUNS[where]
    assert COIN.count(before) == 1
    install(site, "hostile-dist", COIN.replace(before, after), version="6.6")
    commands = {"run": ["coin", "--output-dir", "run", "--json"], "list": ["strategies", "list"]}
    found = json.loads(run_code(CODE, tmp_path, json.dumps(commands)).stdout)
    code, document, _ = found["run"]
    assert code == 2
    message = json.loads(document)["error"]["message"]
    assert "Strategy 'coin' of hostile-dist 6.6" in message
    assert sentence in message
    assert found["list"][0] == 0


@pytest.mark.parametrize("where", ["prepare", "run"])
def test_a_context_forced_to_say_something_else_moves_no_run_and_is_told(
    where: str, site: Path, tmp_path: Path
) -> None:
    before = {"prepare": "prepare(self, context): pass", "run": "run(self, context): return"}[where]
    forced = f"{where}(self, context): object.__setattr__(context, 'run_dir', None); return"
    install(site, "hostile-dist", COIN.replace(before, forced), version="6.6")
    commands = {
        "run": ["coin", "--output-dir", "here", "--json"],
        "dry": ["coin", "--output-dir", "there", "--dry-run", "--json"],
        "good": ["good", "--output-dir", "good", "--json"],
    }
    found = json.loads(run_code(CODE, tmp_path, json.dumps(commands)).stdout)
    assert [code for code, _, _ in found.values()] == [1, 1 if where == "prepare" else 0, 0]
    assert json.loads((tmp_path / "here/run.json").read_text())["status"] == "finished"
    told = "Strategy 'coin' of hostile-dist 6.6 changed its context (run_dir); the run goes by what was there before."
    assert {name: json.loads(document)["warnings"] for name, (_, document, _) in found.items()} == {
        "run": [told],
        "dry": [told] if where == "prepare" else [],
        "good": [],
    }


def test_a_plugin_that_hangs_in_prepare_is_named_and_ended_by_ctrl_c(site: Path, tmp_path: Path) -> None:
    hanging = "prepare(self, context): print('hanging', flush=True); __import__('time').sleep(600)"
    source = COIN.replace("prepare(self, context): pass", hanging)
    install(site, "hostile-dist", source, version="6.6")
    process = subprocess.Popen(
        [sys.executable, "-m", "townlet_train", "coin", "--output-dir", "hung"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(site), *filter(None, sys.path)])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline() == "hanging\n"
    beside = json.loads(run_code(CODE, tmp_path, json.dumps(COMMANDS)).stdout)
    assert {name: code for name, (code, _, _) in beside.items()} == dict.fromkeys(COMMANDS, 0)
    process.send_signal(signal.SIGINT)
    while "interrupts at once" not in (line := process.stderr.readline()):  # two signals at once would be one
        assert line, "it ended without a word"
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 7
    assert "Interrupted; what was being written is as it was before." in told
    assert "Strategy 'coin' of hostile-dist 6.6 was at work." in told
    assert not (tmp_path / "hung").exists()
