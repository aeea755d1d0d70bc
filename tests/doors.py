"""What tests of several plugins ask."""

from __future__ import annotations

import json
from typing import Any

import pytest

from townlet_train.cli import main


def listed(strategy: str, capsys: pytest.CaptureFixture[str]) -> Any:
    """The row of `strategies list` about a strategy."""
    assert main(["strategies", "list", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["strategies"]
    return next(row for row in rows if row["name"] == strategy)
