"""The program, saying on standard error when it updates or saves: `python -m tests.telling SECONDS ARGUMENTS...`.

Its disk takes so long for one checkpoint.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from townlet_train import files
from townlet_train.cli import main
from townlet_train.learners.descent import GuardedDescent

SLOWLY_SAVED = ".checkpoint_192.zip"  # how the temporary name of a file begins
SECONDS = float(sys.argv[1])
flush, step = files.flush_to_disk, GuardedDescent.step
told: set[str] = set()


def tell(phase: str) -> None:
    if phase not in told:
        told.add(phase)
        sys.stderr.write(f"{phase}\n")
        sys.stderr.flush()


def flush_slowly(path: Path) -> None:
    if path.name.startswith(SLOWLY_SAVED):
        tell("saving")
        time.sleep(SECONDS)
    flush(path)


def step_and_tell(descent: GuardedDescent, *arguments: Any) -> float | None:
    tell("updating")
    return step(descent, *arguments)


files.flush_to_disk = flush_slowly
GuardedDescent.step = step_and_tell  # type: ignore[method-assign]  # the same, but for the word
sys.exit(main(sys.argv[2:]))
