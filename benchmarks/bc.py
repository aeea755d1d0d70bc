"""Behaviour cloning beside the `imitation` library: same frames, network, batch sizes and threads, runs alternating.

`imitation` lives in an environment of its own, `.venv-imitation`, made here when it is not there.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from townlet_train.config.town import TownConfig
from townlet_train.envs.town import TownVectorEnv
from townlet_train.policies.scripted import scripted_policy

ROOT = Path(__file__).parent
IMITATION_ENV = ROOT.parent / ".venv-imitation"
IMITATION = "imitation==1.0.1"
N_TOWNS, N_TICKS = 32, 342  # 65 664 frames
BATCH_SIZES = (64, 1024)
N_RUNS = {1: 5, 2: 2}  # by threads
TARGETS = {64: 10, 1024: 8}

Rates = dict[tuple[str, int, int], list[float]]  # by side, threads, batch size


def main() -> dict[str, float]:
    """Print samples per second of both, and the ratio of their medians."""
    prepare_imitation()
    rates: Rates = {}
    with tempfile.TemporaryDirectory() as folder:
        frames = Path(folder) / "frames.npz"
        write_frames(frames)
        for n_threads, n_runs in N_RUNS.items():
            for _ in range(n_runs):
                for side, python in (
                    ("ours", Path(sys.executable)),
                    ("imitation", IMITATION_ENV / "bin/python"),
                ):
                    for batch_size, rate in run_side(side, python, frames, n_threads).items():
                        rates.setdefault((side, n_threads, batch_size), []).append(rate)
    return report(rates)


def prepare_imitation() -> None:
    """Make the environment `imitation` runs in."""
    python = IMITATION_ENV / "bin/python"
    if not python.exists():
        print(f"bc: making {IMITATION_ENV.name} for {IMITATION}, once; a minute or two", flush=True)
        subprocess.run([sys.executable, "-m", "venv", IMITATION_ENV], check=True)
    if subprocess.run([python, "-c", "import imitation"], capture_output=True, check=False).returncode:
        install = [
            python,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "torch==2.13.0",
            IMITATION,
        ]
        subprocess.run(install, check=True)


def write_frames(path: Path) -> None:
    """What the expert saw and did in some towns, flat."""
    env = TownVectorEnv(TownConfig(), N_TOWNS)
    expert, unused = scripted_policy("expert", env.spec), np.zeros((N_TOWNS, env.n_agents))
    observation = env.reset(np.arange(1, N_TOWNS + 1))
    features, masks, actions = [], [], []
    for _ in range(N_TICKS):
        action = expert.act(observation, unused)
        features.append(observation.features.reshape(-1, len(env.spec.feature_names)).copy())
        masks.append(observation.action_mask.reshape(-1, len(env.spec.action_names)).copy())
        actions.append(action.reshape(-1))
        observation = env.step(action).observation
    np.savez(
        path, features=np.concatenate(features), masks=np.concatenate(masks), actions=np.concatenate(actions)
    )


def run_side(side: str, python: Path, frames: Path, n_threads: int) -> dict[int, float]:
    """Samples per second by batch size, measured in a process of its own."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(n_threads))
    arguments = [
        str(python),
        str(ROOT / f"bc_{side}.py"),
        str(frames),
        str(n_threads),
        *map(str, BATCH_SIZES),
    ]
    done = subprocess.run(arguments, env=os.environ | threads, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"bc: the {side} side failed:\n{done.stderr}")
    return {int(size): rate for size, rate in json.loads(done.stdout.splitlines()[-1]).items()}


def report(rates: Rates) -> dict[str, float]:
    """Print the table; returns medians and ratios by name."""
    result: dict[str, float] = {}
    print("bc: MLP 64 64 on the town's features, Adam; thousand samples/s, median [lowest, highest]")
    print("  threads  batch  townlet-train           imitation            ratio  asked")
    for n_threads in N_RUNS:
        for batch_size in BATCH_SIZES:
            ours, theirs = (rates[side, n_threads, batch_size] for side in ("ours", "imitation"))
            ratio = statistics.median(ours) / statistics.median(theirs)
            asked = f"{TARGETS[batch_size]:5d}" if n_threads == 1 else "    -"
            row = f"{n_threads:7d} {batch_size:6d}  {_thousands(ours):22s}  {_thousands(theirs):19s}"
            print(f"  {row}  {ratio:4.1f}  {asked}")
            result |= {
                f"samples_per_sec_{n_threads}_{batch_size}": statistics.median(ours),
                f"imitation_samples_per_sec_{n_threads}_{batch_size}": statistics.median(theirs),
                f"ratio_{n_threads}_{batch_size}": ratio,
            }
    return result


def _thousands(values: list[float]) -> str:
    return f"{statistics.median(values) / 1e3:.0f} [{min(values) / 1e3:.0f}, {max(values) / 1e3:.0f}]"


if __name__ == "__main__":
    main()
