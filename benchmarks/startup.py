"""Start-up of the command line beside importing what any such program imports, in alternating processes.

The listing of strategies is measured as a user meets it, remembered from the call before; the first call, which loads
every plugin, is measured apart.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time

N_RUNS = 21
TARGET = 1.3
REFERENCE = "imports alone"
PYTHON = sys.executable
COMMANDS: dict[str, tuple[list[str], dict[str, str]]] = {
    REFERENCE: ([PYTHON, "-c", "import typer, rich, pydantic, pluggy"], {}),
    "--help": ([PYTHON, "-m", "townlet_train", "--help"], {}),
    "strategies list": ([PYTHON, "-m", "townlet_train", "strategies", "list"], {}),
    "strategies list --json": ([PYTHON, "-m", "townlet_train", "strategies", "list", "--json"], {}),
    "completion": (
        [PYTHON, "-m", "townlet_train"],
        {
            "_TOWNLET_TRAIN_COMPLETE": "complete_bash",
            "COMP_WORDS": "townlet-train st",
            "COMP_CWORD": "1",
        },
    ),
}


def main() -> dict[str, dict[str, float]]:
    """Print median and spread in milliseconds, and the ratio to the imports alone with its spread over rounds."""
    rounds = [{name: _seconds(*call) for name, call in COMMANDS.items()} for _ in range(N_RUNS + 1)][1:]
    result = {
        name: _summary([each[name] / each[REFERENCE] for each in rounds], [each[name] for each in rounds])
        for name in COMMANDS
    }
    print(f"start-up: {N_RUNS} alternating runs of each; asked: at most {TARGET} times the imports")
    for name, numbers in result.items():
        print(
            f"  {name:<24}{numbers['median_ms']:6.1f} ms [{numbers['min_ms']:.1f}, {numbers['max_ms']:.1f}]   "
            f"ratio {numbers['ratio']:.2f} [{numbers['ratio_low']:.2f}, {numbers['ratio_high']:.2f}]"
        )
    first = [_first_listing() for _ in range(5)]
    result["first listing"] = {"median_ms": 1e3 * statistics.median(first)}
    print(f"  {'first listing, not remembered':<30}{1e3 * statistics.median(first):6.1f} ms")
    return result


def _summary(ratios: list[float], seconds: list[float]) -> dict[str, float]:
    """Medians; the spread of the ratio is its middle half over rounds."""
    low, middle, high = statistics.quantiles(ratios, n=4)
    return {
        "median_ms": 1e3 * statistics.median(seconds),
        "min_ms": 1e3 * min(seconds),
        "max_ms": 1e3 * max(seconds),
        "ratio": middle,
        "ratio_low": low,
        "ratio_high": high,
    }


def _first_listing() -> float:
    """Seconds of a listing with an empty cache folder."""
    with tempfile.TemporaryDirectory() as folder:
        return _seconds(COMMANDS["strategies list"][0], {"XDG_CACHE_HOME": folder})


def _seconds(command: list[str], variables: dict[str, str]) -> float:
    """Wall-clock seconds of one process."""
    start = time.perf_counter()
    subprocess.run(command, env={**os.environ, **variables}, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
