"""What many tests start from."""

from __future__ import annotations

import sys
from collections.abc import Iterator
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


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on the search path, whose modules are forgotten afterwards; nothing is remembered of it."""
    before = set(sys.modules)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "site").mkdir()
    monkeypatch.syspath_prepend(tmp_path / "site")
    yield tmp_path / "site"
    for name in set(sys.modules) - before:
        if (getattr(sys.modules[name], "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]
