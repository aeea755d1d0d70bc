"""Distributions with plugins, written to a folder as an installer would leave them."""

from __future__ import annotations

import textwrap
from pathlib import Path

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
