"""One side: `python on_policy_ours.py ALGORITHM ENV SEED PARAMS` prints rate, return and memory as JSON."""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import townlet_train.learners.on_policy  # noqa: F401  # what training imports is no part of its time
from townlet_train.config import RunConfig
from townlet_train.envs.build import build_env
from townlet_train.orchestrator import run_strategy
from townlet_train.registry import discover


def main(algorithm: str, env: str, seed: str, settings: str) -> None:
    """Train with params in JSON, without the evaluation at the end."""
    params = json.loads(settings) | {"evaluation_episodes": 0}
    with tempfile.TemporaryDirectory() as folder:
        config = RunConfig(env=env, seed=int(seed))
        build_env(config, 1)  # what making an environment imports is no part of training either
        started = time.process_time()
        quiet = replace(discover(), loggers=())  # what is installed beside must not count
        result = run_strategy(algorithm, params, config=config, run_dir=Path(folder) / "run", registry=quiet)
        cpu_sec = time.process_time() - started
    measured = {
        "cpu_rate": params["timesteps"] / cpu_sec,
        "rate": result.steps_per_sec,  # type: ignore[attr-defined]  # results of both have it
        "return": result.final_reward_mean,  # type: ignore[attr-defined]  # results of both have it
        "megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    print(json.dumps(measured))


if __name__ == "__main__":
    main(*sys.argv[1:])
