"""The process of one job: `python -m townlet_train.study.worker JOB RESULT`, both JSON files.

It ends when its standard input does, which is when the study that started it is gone.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path
from types import FrameType

from townlet_train.errors import ExitCode, TownletTrainError
from townlet_train.files import write_json

PATIENCE_SEC = 10.0


def main(job_file: Path, result_file: Path) -> int:
    """Do the job and leave what it found; the exit code is an error's own."""
    signal.signal(signal.SIGTERM, _interrupt)  # so that environments' processes are closed
    threading.Thread(target=_end_with_the_study, daemon=True).start()
    try:
        from townlet_train.study.cells import Job, do

        found = do(Job.model_validate_json(job_file.read_bytes()))
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except TownletTrainError as error:
        sys.stderr.write(f"Error: {error}\n")
        return error.exit_code
    write_json(result_file, found)
    return ExitCode.OK


def _end_with_the_study() -> None:
    """Stop when nobody holds the other end of standard input, at last with all that was started here."""
    os.read(sys.stdin.fileno(), 1)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(PATIENCE_SEC)
    os.killpg(os.getpid(), signal.SIGKILL)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
