"""PPO or A2C beside Stable-Baselines3: same environment, hyperparameters, checkpoints and threads, runs alternating.

Stable-Baselines3 lives in an environment of its own, `.venv-sb3`, made here when it is not there. Neither side
evaluates at the end. The bare environment is stepped with random actions, resets included. Where other programs run,
the rates per second of CPU time say more.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import gymnasium

ROOT = Path(__file__).parent
SB3_ENV = ROOT.parent / ".venv-sb3"
SB3 = ("stable-baselines3==2.9.2", "gymnasium[box2d]==1.4.0")
ENV, BARE_STEPS = "LunarLander-v3", 20_000
CONTRACT = {"timesteps": 50_000, "n_envs": 1, "checkpoint_interval": 1000}
MOST_MEGABYTES = 450

Runs = dict[str, list[dict[str, float]]]  # by side


class Setting(NamedTuple):
    """What is measured: params, and what is asked of it."""

    title: str
    params: Mapping[str, float]
    ratio: float  # to Stable-Baselines3's steps per second
    share: float | None = None  # of the bare environment's
    n_runs: int = 3


def measure(algorithm: str, settings: Sequence[Setting], device: str = "cpu") -> dict[str, float]:
    """Print steps per second of both and their ratio for each setting, and our share of the bare environment's rate.

    On another device than the CPU, ours is measured on the CPU as well.
    """
    prepare_sb3()
    results: dict[str, float] = {}
    for number, setting in enumerate(settings):
        runs: Runs = {"ours": [], "sb3": []}
        on_cpu: list[float] = []
        bare: list[float] = []
        params = {**setting.params, "device": device}
        for seed in range(42, 42 + setting.n_runs):
            bare.append(bare_rate(seed))
            for side, python in (("ours", Path(sys.executable)), ("sb3", SB3_ENV / "bin/python")):
                runs[side].append(run_side(side, python, algorithm, seed, params))
            if device != "cpu":
                there = run_side("ours", Path(sys.executable), algorithm, seed, params | {"device": "cpu"})
                on_cpu.append(there["rate"])
        measured = report(algorithm, setting._replace(title=f"{setting.title}, on {device}"), runs, bare)
        if on_cpu:
            print(f"  townlet-train on the CPU: {_spread(on_cpu)} steps/s", flush=True)
        results |= {f"{name}_{number}": value for name, value in measured.items()}
    return results


def prepare_sb3() -> None:
    """Make the environment Stable-Baselines3 runs in."""
    python = SB3_ENV / "bin/python"
    if not python.exists():
        print(f"making {SB3_ENV.name} for {SB3[0]}, once; a minute or two", flush=True)
        subprocess.run([sys.executable, "-m", "venv", SB3_ENV], check=True)
    if subprocess.run(
        [python, "-c", "import stable_baselines3"], capture_output=True, check=False
    ).returncode:
        install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*install, "torch==2.13.0", *SB3], check=True)


def bare_rate(seed: int) -> float:
    """Steps per second of the environment alone."""
    env = gymnasium.make(ENV)
    env.reset(seed=seed)
    env.action_space.seed(seed)
    actions = [env.action_space.sample() for _ in range(BARE_STEPS)]
    started = time.perf_counter()
    for action in actions:
        _, _, terminated, truncated, _ = env.step(action)
        if terminated or truncated:
            env.reset()
    return BARE_STEPS / (time.perf_counter() - started)


def run_side(
    side: str, python: Path, algorithm: str, seed: int, params: Mapping[str, float | str]
) -> dict[str, float]:
    """Rate, return and memory, measured in a process of its own, on the CPU unless params say otherwise."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    script = ROOT / f"on_policy_{side}.py"
    arguments = [
        str(python),
        str(script),
        algorithm,
        ENV,
        str(seed),
        json.dumps({"device": "cpu"} | dict(params)),
    ]
    done = subprocess.run(arguments, env=os.environ | threads, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{algorithm}: the {side} side failed:\n{done.stderr}")
    measured: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return measured


def report(algorithm: str, setting: Setting, runs: Runs, bare: list[float]) -> dict[str, float]:
    """Print one setting's table; returns medians and ratios by name."""
    ours, theirs = (_column(runs[side], "rate") for side in ("ours", "sb3"))
    ratio = statistics.median(ours) / statistics.median(theirs)
    cpu_rates = [_column(runs[side], "cpu_rate") for side in ("ours", "sb3")]
    cpu_ratio = statistics.median(cpu_rates[0]) / statistics.median(cpu_rates[1])
    share = statistics.median(ours) / statistics.median(bare)
    memory = max(_column(runs["ours"], "megabytes"))
    rows = {
        "steps/s, median [range]": (_spread(ours), _spread(theirs)),
        "steps per CPU second": (_spread(cpu_rates[0]), _spread(cpu_rates[1])),
        "return, last 100": tuple(_spread(_column(runs[side], "return")) for side in runs),
        "peak memory, MB": (f"{memory:.0f}", f"{max(_column(runs['sb3'], 'megabytes')):.0f}"),
    }
    print(f"{algorithm}: {ENV}, {setting.title}")
    print(f"  {'':24s}  {'townlet-train':26s}  stable-baselines3")
    for name, (mine, other) in rows.items():
        print(f"  {name:24s}  {mine:26s}  {other}")
    asked = f" (asked {setting.share})" if setting.share else ""
    print(f"  ratio {ratio:.1f} (asked {setting.ratio:g}), {cpu_ratio:.1f} by CPU time; ", end="")
    print(f"{share:.2f} of the bare environment's {_spread(bare)} steps/s{asked}; ", end="")
    print(f"memory at most {MOST_MEGABYTES} MB", flush=True)
    return {
        "steps_per_sec": statistics.median(ours),
        "sb3_steps_per_sec": statistics.median(theirs),
        "ratio": ratio,
        "cpu_ratio": cpu_ratio,
        "share_of_bare": share,
        "megabytes": memory,
    }


def _column(runs: list[dict[str, float]], name: str) -> list[float]:
    return [run[name] for run in runs]


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):.0f} [{min(values):.0f}, {max(values):.0f}]"
