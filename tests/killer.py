"""Train, kill without warning at a random moment, resume, again and again: `python -m tests.killer RUN_DIR KILLS`.

Every life of the run is a fork of this process, which has imported everything, so that a kill costs no start-up.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

from townlet_train.config import RunConfig
from townlet_train.data.checkpoint import sorted_checkpoints
from townlet_train.orchestrator import run_strategy

PARAMS = {"timesteps": 60_000, "n_steps": 100, "batch_size": 50, "n_epochs": 1, "checkpoint_interval": 30}
PARAMS |= {"log_interval": 100, "evaluation_episodes": 2}
LONGEST_LIFE = 0.4  # seconds


def main(run_dir: Path, kills: int) -> None:
    """Kill so often, then let the run end; print what it was told."""
    with tempfile.TemporaryDirectory() as folder:
        train(Path(folder) / "run", timesteps=100)  # imports everything, which no life then has to
    moments = random.Random(1)
    done = 0
    while done < kills:
        life = start(run_dir)
        time.sleep(moments.uniform(0.0, LONGEST_LIFE))
        os.kill(life, signal.SIGKILL)
        _, status = os.waitpid(life, 0)
        if os.WIFEXITED(status):
            raise SystemExit(f"the run ended by itself with {os.WEXITSTATUS(status)} after {done} kills")
        done += 1
    _, status = os.waitpid(start(run_dir), 0)
    if os.waitstatus_to_exitcode(status) != 0:
        raise SystemExit("the run could not be resumed to its end")
    resumed = json.loads((run_dir / "run.json").read_text())["resumed"]
    print(json.dumps({"kills": done, "resumed": len(resumed), "params": PARAMS}))  # noqa: T201 - what the test reads


def start(run_dir: Path) -> int:
    """A process that trains; its id."""
    process = os.fork()
    if process:
        return process
    try:
        train(run_dir)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def train(run_dir: Path, **params: int) -> None:
    """Train to the end, from the newest checkpoint if there is one."""
    latest = "latest" if sorted_checkpoints(run_dir) else None
    run_strategy(
        "ppo",
        {**PARAMS, **params},
        config=RunConfig(env="CartPole-v1", seed=3),
        run_dir=run_dir,
        overwrite=latest is None,
        resume_from=latest,
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
