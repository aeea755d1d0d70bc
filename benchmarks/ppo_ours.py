"""One side of the ppo benchmark: `python ppo_ours.py ENV SEED PARAMS` prints rate, return and memory as JSON."""

from __future__ import annotations

import json
import resource
import sys
import tempfile
from pathlib import Path

from townlet_train.config import RunConfig
from townlet_train.orchestrator import run_strategy


def main(env: str, seed: str, settings: str) -> None:
    """Train with params in JSON, without the evaluation at the end."""
    params = json.loads(settings) | {"evaluation_episodes": 0}
    with tempfile.TemporaryDirectory() as folder:
        config = RunConfig(env=env, seed=int(seed))
        result = run_strategy("ppo", params, config=config, run_dir=Path(folder) / "run")
    measured = {
        "rate": result.steps_per_sec,  # type: ignore[attr-defined]  # the result of ppo has it
        "return": result.final_reward_mean,  # type: ignore[attr-defined]  # the result of ppo has it
        "megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    print(json.dumps(measured))


if __name__ == "__main__":
    main(*sys.argv[1:])
