"""Distributions with plugins, written to a folder as an installer would leave them, and where pip may install some."""

from __future__ import annotations

import sysconfig
import textwrap
import venv
from importlib.util import find_spec
from pathlib import Path

import pytest

WITHOUT_NETWORK = {
    "PIP_NO_INDEX": "1",
    "PIP_NO_BUILD_ISOLATION": "0",
}  # by pip's rules, 0 is what says no here

COIN = """
    from townlet_train.api import StrategyParams, TrainingResultDTO, hookimpl

    class Coin:
        name = "coin"
        summary = "Flip a coin and report it"
        requires_torch = False
        Params = StrategyParams

        def __init__(self, params): self.params = params
        def prepare(self, context): pass
        def run(self, context): return TrainingResultDTO(strategy="coin")

    @hookimpl
    def townlet_train_strategies():
        return [Coin]
"""


def install(folder: Path, distribution: str, source: str, *, version: str = "1.2") -> None:
    """Put a distribution with one module and one entry point, both named after it, into a folder of the path."""
    module = distribution.replace("-", "_")
    (folder / f"{module}.py").write_text(textwrap.dedent(source))
    info = folder / f"{module}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(f"[townlet_train]\n{module} = {module}\n")


def environment_of_its_own(folder: Path) -> Path:
    """The Python of a new environment that sees everything installed in this one; skips where it cannot build."""
    if find_spec("hatchling") is None or find_spec("editables") is None:
        pytest.skip("the build backend of new plugins is not installed, and a test fetches nothing")
    venv.create(folder, with_pip=False)
    [site] = folder.glob("lib/python*/site-packages")
    (site / "outer.pth").write_text(f"import site; site.addsitedir({sysconfig.get_paths()['purelib']!r})\n")
    return folder / "bin/python"
