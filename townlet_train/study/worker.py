"""The process of one job: `python -m townlet_train.study.worker JOB RESULT`, both JSON files."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from types import FrameType

from townlet_train.errors import ExitCode, TownletTrainError
from townlet_train.files import write_json


def main(job_file: Path, result_file: Path) -> int:
    """Do the job and leave what it found; the exit code is an error's own."""
    signal.signal(signal.SIGTERM, _interrupt)  # so that environments' processes are closed
    from townlet_train.study.cells import Job, do

    try:
        found = do(Job.model_validate_json(job_file.read_bytes()))
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except TownletTrainError as error:
        sys.stderr.write(f"Error: {error}\n")
        return error.exit_code
    write_json(result_file, found)
    return ExitCode.OK


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
