"""What it costs to write a run down: checkpoints, lines, logs and documents, within a run of the contract.

Whatever writes is timed where the training loop calls it; a checkpoint is also timed as a whole, in the thread that
writes it. Beside that, the same run is made with as little recording as there can be, alternating.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from townlet_train import orchestrator
from townlet_train.cli.output import log_to_stderr
from townlet_train.config import RunConfig
from townlet_train.learners import on_policy
from townlet_train.learners.telemetry import TelemetryLog
from townlet_train.orchestrator import run_strategy
from townlet_train.results import PPOTrainingResultDTO
from townlet_train.services.runs import Run

ENV, STEPS, N_RUNS = "LunarLander-v3", 50_000, 3
CONTRACT = {"timesteps": STEPS, "checkpoint_interval": 1000, "log_interval": 100, "evaluation_episodes": 0}
SILENT = CONTRACT | {"checkpoint_interval": STEPS, "log_interval": STEPS, "telemetry_frequency": 0}
MOST_SHARE, MOST_MILLISECONDS = 0.01, 20
PARTS: dict[str, tuple[Any, str]] = {  # what is timed: whose function
    "checkpoints, the loop's pause": (on_policy.OnPolicyRun, "save"),
    "metrics.jsonl": (Run, "record"),
    "ppo_log.jsonl": (TelemetryLog, "append"),
    "its fields": (on_policy.OnPolicyRun, "telemetry"),
    "log: episodes": (on_policy, "log_episodes"),
    "log: checkpoints": (on_policy, "log_save"),
    "log: setup": (on_policy, "log_setup"),
    "model, documents, CSV": (orchestrator, "close_experiment"),
}
WHOLE = {"checkpoints, written in the background": (on_policy, "save_checkpoint")}

Times = dict[str, list[float]]  # seconds of every call, by part


def main() -> dict[str, float]:
    """Print what each part takes, its share of training, and the rate with and without recording."""
    log_to_stderr()
    shares: list[float] = []
    rates: dict[str, list[float]] = {"recording": [], "silent": []}
    for seed in range(42, 42 + N_RUNS):
        times: Times = defaultdict(list)
        with ExitStack() as stack:
            for name, (owner, function) in (PARTS | WHOLE).items():
                stack.enter_context(timed(owner, function, times[name]))
            result = train(CONTRACT, seed)
        rates["recording"].append(result.steps_per_sec)
        rates["silent"].append(train(SILENT, seed).steps_per_sec)
        shares.append(sum(sum(times[name]) for name in PARTS) / (result.collect_sec + result.update_sec))
    report(times, result.collect_sec + result.update_sec)
    pauses, writes = (sorted(times[name]) for name in ("checkpoints, the loop's pause", *WHOLE))
    share, rate, silent = (statistics.median(values) for values in (shares, *rates.values()))
    print(f"  all of it {share:.2%} of training, median of {N_RUNS} runs (asked: under {MOST_SHARE:.0%})")
    print(
        f"  a checkpoint takes {1e3 * statistics.median(writes):.1f} ms to write, at most {1e3 * writes[-1]:.1f} "
        f"(asked: under {MOST_MILLISECONDS}); the loop waits {1e3 * statistics.median(pauses):.2f} ms"
    )
    print(f"  {rate:.0f} steps/s, {silent:.0f} with nothing recorded: {rate / silent:.3f}", flush=True)
    return {
        "share": share,
        "checkpoint_ms": 1e3 * statistics.median(writes),
        "pause_ms": 1e3 * statistics.median(pauses),
        "rate": rate,
        "silent_rate": silent,
    }


def train(params: dict[str, int], seed: int) -> PPOTrainingResultDTO:
    """One run in a directory that is gone afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        result = run_strategy(
            "ppo", params, config=RunConfig(env=ENV, seed=seed), run_dir=Path(folder) / "run"
        )
    assert isinstance(result, PPOTrainingResultDTO)
    return result


@contextmanager
def timed(owner: Any, name: str, seconds: list[float]) -> Iterator[None]:
    """Note how long every call of a function takes meanwhile."""
    function: Callable[..., Any] = getattr(owner, name)

    def measured(*arguments: Any, **options: Any) -> Any:
        started = time.perf_counter()
        try:
            return function(*arguments, **options)
        finally:
            seconds.append(time.perf_counter() - started)

    setattr(owner, name, measured)
    try:
        yield
    finally:
        setattr(owner, name, function)


def report(times: Times, training: float) -> None:
    """Print the table of the last run."""
    print(f"recording: {ENV}, {STEPS} steps, a checkpoint every 1 000, a line every 100")
    print(f"  {'':40s} calls  median, ms   share of training")
    for name, seconds in times.items():
        median = 1e3 * statistics.median(seconds)
        print(f"  {name:40s} {len(seconds):5d}  {median:10.3f}   {sum(seconds) / training:.3%}")


if __name__ == "__main__":
    main()
