"""What it costs to write a run down: checkpoints, lines, logs and documents, within a run of the contract.

Whatever writes is timed where the training loop calls it, in processor time of its thread, which other programs do not
lengthen; writing a checkpoint is also timed by the clock. Beside that, the same run is made with as little recording as
there can be, alternating.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from townlet_train import orchestrator
from townlet_train.config import RunConfig
from townlet_train.learners import on_policy
from townlet_train.learners.telemetry import TelemetryLog
from townlet_train.orchestrator import run_strategy
from townlet_train.registry import discover
from townlet_train.results import PPOTrainingResultDTO
from townlet_train.services.runs import Run

ENV, STEPS, N_RUNS = "LunarLander-v3", 50_000, 3
CONTRACT = {"timesteps": STEPS, "checkpoint_interval": 1000, "log_interval": 100, "evaluation_episodes": 0}
SILENT = CONTRACT | {"checkpoint_interval": STEPS, "log_interval": STEPS, "telemetry_frequency": 0}
MOST_SHARE, MOST_MILLISECONDS = 0.01, 20
PARTS: dict[str, tuple[Any, str]] = {  # what is timed: whose function
    "checkpoints": (on_policy.OnPolicyRun, "save"),
    "metrics.jsonl": (Run, "record"),
    "ppo_log.jsonl": (TelemetryLog, "append"),
    "its fields": (on_policy.OnPolicyRun, "telemetry"),
    "log: episodes": (on_policy, "log_episodes"),
    "log: checkpoints": (on_policy, "log_save"),
    "log: setup": (on_policy, "log_setup"),
}
WRITE, TRAINING = "of which writing", "training"
CLOSING = "at the end: documents, CSV"
AROUND: dict[str, tuple[Any, str]] = {
    CLOSING: (orchestrator, "close_experiment"),
    WRITE: (on_policy, "save_checkpoint"),
    TRAINING: (on_policy.OnPolicyRun, "iterate"),
}


class Seconds(NamedTuple):
    """One call of a function."""

    clock: float
    processor: float  # of the thread


Calls = dict[str, list[Seconds]]


def main() -> dict[str, float]:
    """Print what each part takes, its share of training, and the rate with and without recording."""
    shares: list[float] = []
    rates: dict[str, list[float]] = {"recording": [], "silent": []}
    writes: list[float] = []
    for seed in range(42, 42 + N_RUNS):
        calls: Calls = defaultdict(list)
        with ExitStack() as stack:
            for name, (owner, function) in (PARTS | AROUND).items():
                stack.enter_context(timed(owner, function, calls[name]))
            rates["recording"].append(train(CONTRACT, seed).steps_per_sec)
        rates["silent"].append(train(SILENT, seed).steps_per_sec)
        shares.append(sum(total(calls[name]) for name in PARTS) / total(calls[TRAINING]))
        writes += [call.clock for call in calls[WRITE]]
    report(calls)
    share, rate, silent = (statistics.median(values) for values in (shares, *rates.values()))
    write = statistics.median(writes)
    closing = total(calls[CLOSING]) / total(calls[TRAINING])
    print(
        f"  while training {share:.2%} of it, median of {N_RUNS} runs, and {closing:.2%} once at the end "
        f"(asked: under {MOST_SHARE:.0%} together)"
    )
    print(
        f"  a checkpoint is on disk after {1e3 * write:.1f} ms by the clock, median, {1e3 * max(writes):.1f} at most "
        f"(asked: under {MOST_MILLISECONDS})"
    )
    print(f"  {rate:.0f} steps/s, {silent:.0f} with nothing recorded: {rate / silent:.3f}", flush=True)
    return {
        "share": share,
        "closing": closing,
        "checkpoint_ms": 1e3 * write,
        "rate": rate,
        "silent_rate": silent,
    }


def train(params: dict[str, int], seed: int) -> PPOTrainingResultDTO:
    """One run in a directory that is gone afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        config = RunConfig(env=ENV, seed=seed)
        quiet = replace(discover(), loggers=())  # what is installed beside must not count
        result = run_strategy("ppo", params, config=config, run_dir=Path(folder) / "run", registry=quiet)
    assert isinstance(result, PPOTrainingResultDTO)
    return result


@contextmanager
def timed(owner: Any, name: str, calls: list[Seconds]) -> Iterator[None]:
    """Note how long every call of a function takes meanwhile."""
    function: Callable[..., Any] = getattr(owner, name)

    def measured(*arguments: Any, **options: Any) -> Any:
        clock, processor = time.perf_counter(), time.thread_time()
        try:
            return function(*arguments, **options)
        finally:
            calls.append(Seconds(time.perf_counter() - clock, time.thread_time() - processor))

    setattr(owner, name, measured)
    try:
        yield
    finally:
        setattr(owner, name, function)


def total(calls: list[Seconds]) -> float:
    """Processor seconds of all calls."""
    return sum(call.processor for call in calls)


def report(calls: Calls) -> None:
    """Print the table of one run."""
    print(f"recording: {ENV}, {STEPS} steps, a checkpoint every 1 000, a line every 100; processor time")
    print(f"  {'':36s} calls  median, ms   share of training")
    for name in (*PARTS, CLOSING, WRITE):
        median = 1e3 * statistics.median(call.processor for call in calls[name])
        share = total(calls[name]) / total(calls[TRAINING])
        print(f"  {name:36s} {len(calls[name]):5d}  {median:10.3f}   {share:.3%}")


if __name__ == "__main__":
    main()
