"""Lines as events of TensorBoard: one event for each line, with all of its numbers."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter

FOLDER = Path("logs/tensorboard")
EPISODES = frozenset({"episode", "reward", "episode_length"})


class ScalarLogger:
    """Writes every line of a run as scalars.

    A resumed run takes back whatever was written before and begins with the lines that its metrics.jsonl still has:
    the same curves, although a killed process may have left some of them in memory, or too many on disk.
    """

    def __init__(self, run_dir: Path, *, resumed: bool) -> None:
        self._writer = EventFileWriter(str(run_dir / FOLDER))
        self._n_lines = 0
        metrics = run_dir / "metrics.jsonl"
        if resumed:
            start = SessionLog(status=SessionLog.START)
            self._writer.add_event(Event(wall_time=time.time(), step=0, session_log=start))
            if metrics.exists():
                with metrics.open("rb") as lines:  # bytes, since text has more ends of lines than a log
                    for line in lines:
                        self.record(json.loads(line))

    def record(self, line: Mapping[str, Any]) -> None:
        """Queue the numbers of one line; its step is its timestep, or else its number."""
        self._n_lines += 1
        values = [Summary.Value(tag=tag_of(name), simple_value=number) for name, number in numbers(line)]
        moment = datetime.fromisoformat(line["timestamp"]).timestamp()
        step = line.get("timestep", self._n_lines)
        self._writer.add_event(Event(wall_time=moment, step=step, summary=Summary(value=values)))

    def close(self) -> None:
        """Write what is queued."""
        self._writer.close()


def numbers(line: Mapping[str, Any]) -> list[tuple[str, float]]:
    """The finite numbers of a line but its step."""
    return [
        (name, value)
        for name, value in line.items()
        if isinstance(value, int | float) and name != "timestep" and math.isfinite(value)
    ]


def tag_of(name: str) -> str:
    """The name under its group.

    >>> tag_of("reward"), tag_of("steps_per_sec"), tag_of("approx_kl")
    ('episodes/reward', 'time/steps_per_sec', 'train/approx_kl')
    """
    if name in EPISODES:
        return f"episodes/{name}"
    return f"time/{name}" if name.endswith("_sec") else f"train/{name}"
