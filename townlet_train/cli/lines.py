"""Log lines on standard error, beside a live line or instead of one; imported when a command works."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from townlet_train.contract import PROGRESS_LOG, Progress


class ToStderr(logging.Handler):
    """Writes records to whatever standard error is at the moment; a live line puts itself in its place."""

    live = False  # whether a live line says what lines of progress would

    def emit(self, record: logging.LogRecord) -> None:
        if not (self.live and record.name == PROGRESS_LOG):
            with suppress(OSError, ValueError):
                sys.stderr.write(f"{self.format(record)}\n")


@contextmanager
def beside_a_live_line() -> Iterator[None]:
    """Leave out lines of progress meanwhile; log files still have them."""
    ours = [handler for handler in logging.getLogger().handlers if isinstance(handler, ToStderr)]
    for handler in ours:
        handler.live = True
    try:
        yield
    finally:
        for handler in ours:
            handler.live = False


def log_progress(progress: Progress) -> None:
    """A line for a report with metrics, unless it is only meant for a live line."""
    if progress.metrics and not progress.live:
        numbers = " ".join(f"{name}={value:.5g}" for name, value in progress.metrics.items())
        logging.getLogger(PROGRESS_LOG).info(
            "%s %d/%d %s", progress.phase, progress.done, progress.total, numbers
        )
