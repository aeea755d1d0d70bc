"""Run the benchmarks by name, or all of them."""

from __future__ import annotations

import importlib
import sys

NAMES = (
    "startup",
    "town",
    "capture",
    "bc",
    "environments",
    "ppo",
    "a2c",
    "learning",
    "solved",
    "town_ppo",
    "town_scratch",
    "recording",
    "gate",
)


def main(names: list[str]) -> None:
    """Run each benchmark in turn; it prints its own table."""
    for name in names or NAMES:
        if name not in NAMES:
            raise SystemExit(f"No benchmark named {name!r}. Known: {', '.join(NAMES)}.")
        importlib.import_module(f"benchmarks.{name}").main()


main(sys.argv[1:])
