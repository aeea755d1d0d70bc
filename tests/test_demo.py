"""The demo: its story ends with a release, each of its commands does what it says, and it can be stopped."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tests.short_runs import STORY
from townlet_train.api import StrategyParams, TrainingContext, TrainingResultDTO
from townlet_train.cli import main
from townlet_train.errors import ExitCode
from townlet_train.files import sha256_of
from townlet_train.registry import Listing, Registry, StrategyRecord
from townlet_train.services.promotion import PromotionService
from townlet_train.strategies.bc import BCParams

pytest.importorskip("torch")
pytestmark = pytest.mark.torch


@pytest.fixture
def short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with settings by which the story is short."""
    monkeypatch.chdir(tmp_path)
    for key, value in STORY.items():
        monkeypatch.setenv(key, value)
    return tmp_path


def answer(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, Any]:
    capsys.readouterr()
    code = main([*arguments, "--json"])
    return code, json.loads(capsys.readouterr().out)


@pytest.mark.slow
def test_the_commands_it_prints_typed_one_by_one_lead_to_the_same_release(
    short: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, told = answer(capsys, "demo")
    assert (told["verdict"], told["promoted"], told["reasons"]) == ("PASS", True, [])
    assert told["release_sha256"] == sha256_of(short / "demo/promotion/release.zip")
    (short / "demo").rename(short / "told")
    for step in told["steps"]:
        typed, _, target = step["command"].partition(" > ")
        capsys.readouterr()
        assert main(shlex.split(typed)[1:]) in (ExitCode.OK, ExitCode.WARNINGS)
        if target:
            Path(target).write_text(capsys.readouterr().out)
    for left in ("clone/bc_seed1_model.zip", "annealed/anneal_seed1_model.zip", "promotion/release.zip"):
        assert sha256_of(short / "demo" / left) == sha256_of(short / "told" / left)
    states = [PromotionService(short / place / "promotion").status() for place in ("demo", "told")]
    assert [(status.state, status.ledger_lines) for status in states] == [("promoted", 4)] * 2


@pytest.mark.slow
def test_the_story_ends_at_a_gate_that_is_no_pass_and_says_why(
    short: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TOWNLET_TRAIN__GATE__MARGIN", "0.05")
    code, told = answer(capsys, "demo")
    assert (code, told["verdict"], told["promoted"]) == (ExitCode.FAIL, "FAIL", False)
    assert told["reasons"]
    assert told["release_file"] is None
    assert [step["step"] for step in told["steps"]] == ["capture", "clone", "gate the clone"]
    assert [policy["policy"] for policy in told["policies"]] == ["random", "expert", "clone"]
    assert answer(capsys, "demo")[0] == ExitCode.USAGE
    monkeypatch.setenv("TOWNLET_TRAIN__GATE__MARGIN", "100")
    assert answer(capsys, "demo", "--overwrite")[1]["promoted"]
    assert answer(capsys, "demo", "--overwrite")[1]["promoted"]  # releases of the last one are no obstacle


@pytest.mark.slow
def test_ctrl_c_ends_it_with_7_and_says_how_to_begin_again(short: Path) -> None:
    program = [sys.executable, "-m", "townlet_train", "demo"]
    settings = {**os.environ, "TOWNLET_TRAIN__ANNEAL__TIMESTEPS": "100000000"}
    it = subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=settings)
    assert it.stderr is not None
    while "townlet-train anneal" not in it.stderr.readline():
        assert it.poll() is None
    it.send_signal(signal.SIGINT)
    output, errors = it.communicate(timeout=60)
    assert (it.returncode, output) == (ExitCode.INTERRUPTED, "")
    assert "stopped at 'anneal, with a gate'. Begin it again with: townlet-train demo" in errors
    again = errors.splitlines()[-1].partition("with: townlet-train ")[2]
    assert main(shlex.split(again)) in (ExitCode.OK, ExitCode.WARNINGS)


def test_a_promotion_directory_with_something_else_in_it_is_not_overwritten(
    short: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (short / "demo/promotion").mkdir(parents=True)
    (short / "demo/promotion/mine.txt").write_text("Mine.")
    code, document = answer(capsys, "demo", "--overwrite")
    assert code == ExitCode.USAGE
    assert "holds mine.txt, which no promotion left" in document["error"]["message"]
    assert not (short / "demo/demonstrations").exists()


def test_a_foreign_strategy_called_bc_cannot_break_the_demo(
    short: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    records = tuple(
        StrategyRecord(name, "Not ours.", False, True, "", "elsewhere", "1") for name in ("bc", "anneal")
    )
    foreign = Registry(Listing(records, ()), {"bc": NotACloner, "anneal": NotACloner})
    monkeypatch.setattr("townlet_train.cli.demo.session_registry", lambda context: foreign)
    for key in STORY:
        monkeypatch.delenv(key)
    monkeypatch.setenv("TOWNLET_TRAIN__ROLLOUT__TOWNS", "1")
    monkeypatch.setenv("TOWNLET_TRAIN__ROLLOUT__TICKS", "2")
    code, document = answer(capsys, "demo")
    assert (code, document["error"]["exit_code"]) == (2, 2)
    assert "needs a strategy 'bc' that returns a BCTrainingResultDTO" in document["error"]["message"]
    assert document["error"]["type"] == "PluginError"


class NotACloner:
    """A plugin's strategy that took the name."""

    name: ClassVar[str] = "bc"
    summary: ClassVar[str] = "Not ours."
    requires_torch: ClassVar[bool] = False
    Params: ClassVar[type[StrategyParams]] = BCParams

    def __init__(self, params: BCParams) -> None:
        self.params = params

    def prepare(self, context: TrainingContext) -> None:
        """Nothing to look at."""

    def run(self, context: TrainingContext) -> TrainingResultDTO:
        return TrainingResultDTO(strategy="bc")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_demo_keeps_its_promises(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    code, told = answer(capsys, "demo", "--seed", "4")
    assert (code, told["warnings"], told["promoted"]) == (ExitCode.OK, [], True)
    earned = {row["policy"]: row for row in told["policies"]}
    assert earned["clone"]["score"] >= 0.97
    assert earned["annealed"]["ci_low"] > earned["expert"]["mean_return"]
    assert (earned["clone"]["released"], earned["annealed"]["released"]) == ("first", "current")
