"""Start-up of the command line beside `llm plugins`, and beside importing what any such program imports, alternating.

The listing of strategies is measured as a user meets it, remembered from the call before; the first call, which loads
every plugin, is measured apart. `llm`, another program with plugins, lives in an environment of its own, `.venv-llm`,
made here when it is not there, and has no plugin to load.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

N_RUNS = 21
TARGET, TARGET_LLM = 1.3, 1 / 3
REFERENCE, OTHER = "imports alone", "llm plugins"
LLM_ENV = Path(__file__).parents[1] / ".venv-llm"
LLM = "llm==0.36"
LLM_PYTHON = str(LLM_ENV / "bin/python")
PYTHON = sys.executable
COMMANDS: dict[str, tuple[list[str], dict[str, str]]] = {
    REFERENCE: ([PYTHON, "-c", "import typer, rich, pydantic, pluggy"], {}),
    OTHER: ([LLM_PYTHON, "-m", "llm", "plugins"], {}),
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
    """Print median and spread in milliseconds, and the ratios to both references with their spread over rounds."""
    prepare_llm()
    with tempfile.TemporaryDirectory() as folder:  # llm keeps what it keeps there
        apart = {"LLM_USER_PATH": folder}
        rounds = [
            {name: _seconds(command, apart | variables) for name, (command, variables) in COMMANDS.items()}
            for _ in range(N_RUNS + 1)
        ]
    result = {name: _summary(name, rounds[1:]) for name in COMMANDS}
    print(
        f"start-up: {N_RUNS} alternating runs of each; asked: at most {TARGET} times the imports and "
        f"{TARGET_LLM:.2f} of `{OTHER}`"
    )
    for name, numbers in result.items():
        print(
            f"  {name:<24}{numbers['median_ms']:7.1f} ms [{numbers['min_ms']:.1f}, {numbers['max_ms']:.1f}]   "
            f"to imports {numbers['ratio']:.2f} [{numbers['ratio_low']:.2f}, {numbers['ratio_high']:.2f}]   "
            f"to llm {numbers['llm_ratio']:.2f} [{numbers['llm_ratio_low']:.2f}, {numbers['llm_ratio_high']:.2f}]"
        )
    first = [_first_listing() for _ in range(5)]
    result["first listing"] = {"median_ms": 1e3 * statistics.median(first)}
    print(f"  {'first listing, not remembered':<30}{1e3 * statistics.median(first):6.1f} ms")
    return result


def prepare_llm() -> None:
    """Make the environment `llm` runs in."""
    if not Path(LLM_PYTHON).exists():
        print(f"start-up: making {LLM_ENV.name} for {LLM}, once; half a minute", flush=True)
        subprocess.run([sys.executable, "-m", "venv", LLM_ENV], check=True)
    if subprocess.run([LLM_PYTHON, "-c", "import llm"], capture_output=True, check=False).returncode:
        install = [LLM_PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*install, LLM], check=True)


def _summary(name: str, rounds: list[dict[str, float]]) -> dict[str, float]:
    """Medians of one command; the spread of a ratio is its middle half over rounds."""
    seconds = [each[name] for each in rounds]
    low, middle, high = statistics.quantiles([each[name] / each[REFERENCE] for each in rounds], n=4)
    llm_low, llm_middle, llm_high = statistics.quantiles([each[name] / each[OTHER] for each in rounds], n=4)
    return {
        "median_ms": 1e3 * statistics.median(seconds),
        "min_ms": 1e3 * min(seconds),
        "max_ms": 1e3 * max(seconds),
        "ratio": middle,
        "ratio_low": low,
        "ratio_high": high,
        "llm_ratio": llm_middle,
        "llm_ratio_low": llm_low,
        "llm_ratio_high": llm_high,
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
