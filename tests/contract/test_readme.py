"""The demo output in the README is what the demo prints, but for the numbers."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.contract.markdown import ROOT
from tests.short_runs import STORY
from townlet_train.cli import main

pytestmark = pytest.mark.torch

NUMBER = re.compile(r"^-$|[0-9a-f]{64}|(?<!\w)-?\d+([.,]\d+)*(e[+-]?\d+)?(?!\w)")


def structure(output: str) -> list[list[str]]:
    """Per line what is printed, cell by cell, with `#` for a number and one dash for a rule."""
    lines = [re.split(r"\s{2,}", line.strip()) for line in output.strip().splitlines() if line.strip()]
    return [[NUMBER.sub("#", re.sub("─+", "─", cell)) for cell in line] for line in lines]


def test_numbers_and_widths_are_no_structure() -> None:
    assert structure(" a   12.5   b c\n ──────\n\n 3  -0.1, x1") == [["a", "#", "b c"], ["─"], ["#", "#, x1"]]


@pytest.mark.slow
def test_the_readme_shows_the_keys_tables_and_commands_that_the_demo_prints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    for key, value in STORY.items():
        monkeypatch.setenv(key, value)
    main(["demo"])
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = readme.split("<!-- demo output -->\n```text\n")[1].split("```\n<!-- end of demo output -->")[0]
    assert structure(capsys.readouterr().out) == structure(shown)
