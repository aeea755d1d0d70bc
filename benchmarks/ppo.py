"""PPO beside Stable-Baselines3: same environment, hyperparameters, checkpoints and threads, runs alternating.

Stable-Baselines3 lives in an environment of its own, `.venv-sb3`, made here when it is not there. Neither side
evaluates at the end. The bare environment is stepped with random actions, resets included.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import gymnasium

ROOT = Path(__file__).parent
SB3_ENV = ROOT.parent / ".venv-sb3"
SB3 = ("stable-baselines3==2.9.2", "gymnasium[box2d]==1.4.0")
ENV, N_RUNS, BARE_STEPS = "LunarLander-v3", 3, 20_000
CONTRACT = {"timesteps": 50_000, "n_envs": 1, "checkpoint_interval": 1000}
TUNED = {
    "timesteps": 100_000,
    "n_envs": 16,
    "checkpoint_interval": 20_000,
    "n_steps": 1024,
    "n_epochs": 4,
} | {
    "gamma": 0.999,
    "gae_lambda": 0.98,
    "ent_coef": 0.01,
}
SETTINGS = {  # what is measured: params, and the ratio asked for
    "1 env, n_steps 2048, batch 64, 10 epochs, 50 000 steps, a checkpoint every 1 000": (CONTRACT, 8),
    "16 envs, n_steps 1024, batch 64, 4 epochs, 100 000 steps (the zoo's settings)": (TUNED, 6),
}
TARGET_SHARE, MOST_MEGABYTES = 0.35, 450

Runs = dict[str, list[dict[str, float]]]  # by side


def main() -> dict[str, float]:
    """Print steps per second of both and their ratio for each setting, and our share of the bare environment's rate."""
    prepare_sb3()
    results: dict[str, float] = {}
    for number, (title, (params, asked)) in enumerate(SETTINGS.items()):
        runs: Runs = {"ours": [], "sb3": []}
        bare: list[float] = []
        for seed in range(42, 42 + N_RUNS):
            bare.append(bare_rate(seed))
            for side, python in (("ours", Path(sys.executable)), ("sb3", SB3_ENV / "bin/python")):
                runs[side].append(run_side(side, python, seed, params))
        measured = report(title, asked, runs, bare)
        results |= {f"{name}_{number}": value for name, value in measured.items()}
    return results


def prepare_sb3() -> None:
    """Make the environment Stable-Baselines3 runs in."""
    python = SB3_ENV / "bin/python"
    if not python.exists():
        print(f"ppo: making {SB3_ENV.name} for {SB3[0]}, once; a minute or two", flush=True)
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


def run_side(side: str, python: Path, seed: int, params: dict[str, float]) -> dict[str, float]:
    """Rate, return and memory, measured in a process of its own."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    arguments = [str(python), str(ROOT / f"ppo_{side}.py"), ENV, str(seed), json.dumps(params)]
    done = subprocess.run(arguments, env=os.environ | threads, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"ppo: the {side} side failed:\n{done.stderr}")
    measured: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return measured


def report(title: str, asked: int, runs: Runs, bare: list[float]) -> dict[str, float]:
    """Print one setting's table; returns medians and ratios by name."""
    ours, theirs = (_column(runs[side], "rate") for side in ("ours", "sb3"))
    ratio = statistics.median(ours) / statistics.median(theirs)
    share = statistics.median(ours) / statistics.median(bare)
    memory = max(_column(runs["ours"], "megabytes"))
    rows = {
        "steps/s, median [range]": (_spread(ours), _spread(theirs)),
        "return, last 100": tuple(_spread(_column(runs[side], "return")) for side in runs),
        "peak memory, MB": (f"{memory:.0f}", f"{max(_column(runs['sb3'], 'megabytes')):.0f}"),
    }
    print(f"ppo: {ENV}, {title}")
    print(f"  {'':24s}  {'townlet-train':26s}  stable-baselines3")
    for name, (mine, other) in rows.items():
        print(f"  {name:24s}  {mine:26s}  {other}")
    print(
        f"  ratio {ratio:.1f} (asked {asked}); {share:.2f} of the bare environment's {_spread(bare)} steps/s ",
        end="",
    )
    print(f"(asked {TARGET_SHARE}); memory at most {MOST_MEGABYTES} MB", flush=True)
    return {
        "steps_per_sec": statistics.median(ours),
        "sb3_steps_per_sec": statistics.median(theirs),
        "ratio": ratio,
        "share_of_bare": share,
        "megabytes": memory,
    }


def _column(runs: list[dict[str, float]], name: str) -> list[float]:
    return [run[name] for run in runs]


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):.0f} [{min(values):.0f}, {max(values):.0f}]"


if __name__ == "__main__":
    main()
