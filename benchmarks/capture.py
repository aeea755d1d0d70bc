"""Whether memory stays flat while captures grow: peak memory and speed of capture, validate and inspect.

Each command runs in a process of its own, so that its peak is its own. TOWNLET_BENCH_FRAMES (or arguments) names the
sizes in agent-ticks, e.g. `python -m benchmarks.capture 1e6 1e7`; everything written is removed again.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

N_TOWNS, N_AGENTS = 96, 6
SIZES = "1e6 1e7"
BYTES_PER_FRAME = 1_300  # a little more than the town's features, mask and maps take


def main(sizes: list[str] | None = None) -> dict[str, float]:
    """Print peak memory and agent-ticks per second for each size; a size the disk cannot hold is skipped and named."""
    result: dict[str, float] = {}
    print(f"capture: {N_TOWNS} towns of {N_AGENTS}, memmap store with maps; peak memory of each process")
    for size in sizes or os.environ.get("TOWNLET_BENCH_FRAMES", SIZES).split():
        ticks = -(-int(float(size)) // (N_TOWNS * N_AGENTS))
        frames = ticks * N_TOWNS * N_AGENTS
        with tempfile.TemporaryDirectory(prefix="townlet-capture-") as folder:
            free = shutil.disk_usage(folder).free
            if frames * BYTES_PER_FRAME > free:
                print(f"  {frames:>11,} agent-ticks: skipped, {folder} has {free / 1e9:.0f} GB free")
                continue
            result |= _measure(Path(folder) / "capture", ticks, frames)
    return result


def _measure(output: Path, ticks: int, frames: int) -> dict[str, float]:
    """Peak MiB and agent-ticks per second of the three commands, by name."""
    size = ["--towns", str(N_TOWNS), "--ticks", str(ticks)]
    commands = {
        "capture": ["rollout", "capture", "--output", str(output), "--store", "memmap", *size],
        "validate": ["replay", "validate", str(output)],
        "inspect": ["replay", "inspect", str(output)],
    }
    measured: dict[str, float] = {}
    for name, arguments in commands.items():
        seconds, peak = _run(arguments)
        measured[f"{name}_{frames}_peak_mib"] = peak
        measured[f"{name}_{frames}_agent_ticks_per_sec"] = frames / seconds
        print(
            f"  {frames:>11,} agent-ticks  {name:<9} {peak:7.0f} MiB  {frames / seconds / 1e6:5.2f} M agent-ticks/s"
        )
    n_bytes = sum(path.stat().st_size for path in output.iterdir())
    print(f"  {frames:>11,} agent-ticks  on disk   {n_bytes / 1e9:7.2f} GB")
    return measured


def _run(arguments: list[str]) -> tuple[float, float]:
    """Seconds and peak resident MiB of one command; start-up is part of both."""
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "townlet_train", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"townlet-train {' '.join(arguments)} ended with {process.returncode}.")
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss counts bytes on macOS, KiB elsewhere
    return time.perf_counter() - started, usage.ru_maxrss * unit / 2**20


if __name__ == "__main__":
    main(sys.argv[1:])
