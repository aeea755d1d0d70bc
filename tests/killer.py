"""Train, kill without warning at a random moment, resume, again and again: `python -m tests.killer RUN_DIR CASE KILLS`.

Every life of the run is a fork of this process, which has imported everything, so that a kill costs no start-up. Some
die while they start, the others a random moment after they have reported so often, however busy the machine is.
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
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from townlet_train.config import RunConfig
from townlet_train.contract import Progress
from townlet_train.orchestrator import run_strategy
from townlet_train.services.rollout import capture_as_configured
from townlet_train.services.run_files import RUN


class Case(NamedTuple):
    """A run that is killed: of which strategy, in which environment, with which params."""

    env: str
    params: dict[str, Any]
    strategy: str = "ppo"
    shorter: dict[str, Any] = {"timesteps": 100}  # params of a run that only imports everything
    towns: int = 0  # whose expert is recorded for it, 100 ticks each


MOST_REPORTS = 3  # that a life makes before it is killed; none: it is killed while it starts
STARTING, BETWEEN_REPORTS = 0.3, 0.03  # seconds
FREQUENT = {"batch_size": 50, "n_epochs": 1, "log_interval": 100, "evaluation_episodes": 2}
CASES = {
    "a pole": Case(
        "CartPole-v1", FREQUENT | {"timesteps": 30_000, "n_steps": 100, "checkpoint_interval": 30}
    ),
    "sixteen poles": Case(
        "CartPole-v1",
        FREQUENT
        | {"timesteps": 50_000, "n_envs": 16, "n_steps": 20, "checkpoint_interval": 500}
        | {"normalize_observations": True, "normalize_rewards": True},
    ),
    "a lander": Case(
        "LunarLander-v3", FREQUENT | {"timesteps": 5_000, "n_steps": 150, "checkpoint_interval": 40}
    ),
    "towns": Case(
        "town",
        FREQUENT
        | {"timesteps": 60_000, "n_envs": 3, "n_steps": 30, "checkpoint_interval": 300}
        | {"evaluation_episodes": 0},
    ),
    "a pole, by a2c": Case(
        "CartPole-v1",
        {"timesteps": 8_000, "checkpoint_interval": 50, "log_interval": 100, "evaluation_episodes": 2},
        strategy="a2c",
    ),
    "a clone": Case(
        "town",
        {"n_epochs": 60, "patience": 60, "batch_size": 64, "evaluate": False},
        strategy="bc",
        shorter={"n_epochs": 1},
        towns=8,
    ),
}


def main(run_dir: Path, case: Case, kills: int) -> None:
    """Kill so often, then let the run end; print what it was told."""
    with tempfile.TemporaryDirectory() as folder:
        train(Path(folder) / "run", case, **case.shorter)  # imports everything, which no life then has to
    moments = random.Random(1)
    done = 0
    while done < kills:
        life, reports = start(run_dir, case)
        wanted = moments.randint(0, MOST_REPORTS)
        heard = sum(len(os.read(reports, 1)) for _ in range(wanted))
        time.sleep(moments.uniform(0.0, BETWEEN_REPORTS if heard else STARTING))
        os.kill(life, signal.SIGKILL)
        _, status = os.waitpid(life, 0)
        os.close(reports)
        if os.WIFEXITED(status):
            raise SystemExit(f"the run ended by itself with {os.WEXITSTATUS(status)} after {done} kills")
        done += 1
    life, reports = start(run_dir, case)
    while os.read(reports, 1024):
        pass
    _, status = os.waitpid(life, 0)
    if os.waitstatus_to_exitcode(status) != 0:
        raise SystemExit("the run could not be resumed to its end")
    resumed = json.loads((run_dir / RUN).read_text()).get("resumed", [])
    steps = [life["timestep"] for life in resumed]
    print(json.dumps({"kills": done, "resumed_at": steps}))  # noqa: T201 - what the test reads


def start(run_dir: Path, case: Case) -> tuple[int, int]:
    """A process that trains: its id, and a pipe with a byte for each of its reports."""
    ours, theirs = os.pipe()
    process = os.fork()
    if process:
        os.close(theirs)
        return process, ours
    os.close(ours)
    try:
        train(run_dir, case, lambda progress: os.write(theirs, b"."))
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def train(
    run_dir: Path, case: Case, report: Callable[[Progress], object] = lambda progress: None, **params: Any
) -> None:
    """Train to the end: from the newest checkpoint, or from where the run began, once it has begun."""
    recorded = run_dir.parent / "recorded"
    if case.towns and not recorded.exists():
        size = {"towns": case.towns, "ticks": 100}
        capture_as_configured(RunConfig.model_validate({"rollout": size}), output=recorded)
    run_strategy(
        case.strategy,
        {**case.params, **params, **({"manifest": recorded} if case.towns else {})},
        config=RunConfig(env=case.env, seed=3),
        run_dir=run_dir,
        resume_from="latest" if (run_dir / RUN).exists() else None,
        report=report,
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), CASES[sys.argv[2]], int(sys.argv[3]))
