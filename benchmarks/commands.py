"""A command run as a user would run it, timed from the start of its process to the end."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from typing import Any

DONE = (0, 1, 10, 11)  # exit codes of commands that did what they were asked; verdicts are no failures


def train(strategy: str, seed: int, *options: str) -> tuple[dict[str, Any], float]:
    """What a training command with a folder of its own results in, and its seconds."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        result = run(strategy, *options, "--seed", str(seed), "--output-dir", folder)
        return result, time.perf_counter() - started


def run(*arguments: str) -> dict[str, Any]:
    """The JSON that a command prints; what it says on the way out where it fails."""
    command = [sys.executable, "-m", "townlet_train", *arguments, "--json"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode not in DONE:
        raise SystemExit(done.stderr)
    printed: dict[str, Any] = json.loads(done.stdout)
    return printed
