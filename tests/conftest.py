"""What many tests start from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

SAMPLE_DATA = Path(__file__).parents[1] / "../shared/data/townlet"


@pytest.fixture
def townlet_data() -> Path:
    """The folder of files captured by Townlet itself; tests that need it are skipped where it is absent."""
    if not SAMPLE_DATA.is_dir():
        pytest.skip("the sample data captured by Townlet is not beside this checkout")
    return SAMPLE_DATA.resolve()


@pytest.fixture
def rng() -> np.random.Generator:
    """A generator that gives every test the same numbers."""
    return np.random.default_rng(7)


@pytest.fixture(autouse=True)
def no_inherited_width(monkeypatch: pytest.MonkeyPatch) -> None:
    """pytest-xdist gives its workers a COLUMNS of 80; tables in tests have the width of a pipe, as in a plain run."""
    monkeypatch.delenv("COLUMNS", raising=False)
