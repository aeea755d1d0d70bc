"""Run the benchmarks by name, or all of them; some can be asked to learn on another device than the CPU."""

from __future__ import annotations

import argparse
import importlib

NAMES = (
    "startup",
    "hooks",
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
    "annealed",
    "dagger",
    "gate",
    "gate_estimates",
)
ON_A_DEVICE = ("ppo", "town_ppo")


def main() -> None:
    """Run each benchmark in turn; it prints its own table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}; none: all")
    parser.add_argument(
        "--device", help=f"where networks learn, cuda for one: {' and '.join(ON_A_DEVICE)} only"
    )
    asked = parser.parse_args()
    unknown = [name for name in asked.names if name not in NAMES]
    if unknown:
        parser.error(f"No benchmark named {unknown[0]!r}. Known: {', '.join(NAMES)}.")
    if asked.device is not None and not (asked.names and set(asked.names) <= set(ON_A_DEVICE)):
        parser.error(f"--device is for {' and '.join(ON_A_DEVICE)} only: name one of them.")
    options = {} if asked.device is None else {"device": asked.device}
    for name in asked.names or NAMES:
        importlib.import_module(f"benchmarks.{name}").main(**options)


main()
