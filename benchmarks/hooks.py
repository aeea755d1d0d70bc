"""What the one hook that training calls costs where nobody implements it, beside an empty function call."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

from townlet_train.registry import RunLoggers, discover

N_CALLS, N_ROUNDS = 200_000, 15
TARGET_US = 1.0


def main() -> dict[str, float]:
    """Print the median microseconds of a call over alternating rounds; a line is recorded at most once an update."""
    loggers = RunLoggers(discover(entry_points=[]).loggers, Path(), None)
    calls: dict[str, Callable[[], object]] = {
        "an empty call": lambda: None,
        "a line, no logger": lambda: loggers.record({}),
    }
    rounds = [{name: _microseconds(call) for name, call in calls.items()} for _ in range(N_ROUNDS)]
    result = {name: statistics.median(each[name] for each in rounds) for name in calls}
    print(
        f"hooks nobody implements: {N_ROUNDS} alternating rounds; asked: at most {TARGET_US:g} us per update"
    )
    for name, microseconds in result.items():
        print(f"  {name:<20}{microseconds:8.3f} us")
    return result


def _microseconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    for _ in range(N_CALLS):
        call()
    return 1e6 * (time.perf_counter() - began) / N_CALLS


if __name__ == "__main__":
    main()
