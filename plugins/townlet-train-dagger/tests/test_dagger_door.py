"""The plugin comes in through the door that is open to all, with torch and without."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.doors import listed
from townlet_train.api import TrainingResultDTO
from townlet_train_dagger.strategy import DAggerResultDTO

HAS_TORCH = find_spec("torch") is not None
README = (Path(__file__).parents[1] / "README.md").read_text()


def test_the_listing_names_its_distribution_and_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    row = listed("dagger", capsys)
    assert row["distribution"] == "townlet-train-dagger"
    assert row["available"] is HAS_TORCH


def test_every_field_of_its_result_and_of_its_lines_is_on_its_page() -> None:
    rows = [line.split("|")[1] for line in README.splitlines() if line.startswith("| `")]
    own = DAggerResultDTO.model_fields.keys() - TrainingResultDTO.model_fields.keys()
    lines = {"timestep", "iteration", "beta", "labels"}
    assert set(re.findall(r"`(\w+)`", " ".join(rows))) == own | lines
