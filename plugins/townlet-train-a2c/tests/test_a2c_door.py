"""The plugin comes in through the door that is open to all, with torch and without."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.doors import listed
from townlet_train.cli import main

HAS_TORCH = find_spec("torch") is not None


def test_the_listing_names_its_distribution_and_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    row = listed("a2c", capsys)
    assert row["distribution"] == "townlet-train-a2c"
    assert row["requires_torch"] is True
    assert row["available"] is HAS_TORCH
    assert ("pip install" in (row["reason"] or "")) is not HAS_TORCH


@pytest.mark.skipif(HAS_TORCH, reason="torch is here")
def test_without_torch_it_is_refused_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["a2c", "--env", "CartPole-v1", "--output-dir", str(tmp_path / "run")]) == 2
    assert "townlet-train[torch]" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
