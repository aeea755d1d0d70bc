"""Ctrl-C and SIGTERM: an exception at once, or a request that long work meets at its next report."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopRequest:
    """Whether somebody asked the work to stop."""

    def __init__(self) -> None:
        self.signal_name: str | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Take a signal: the first is noted, the second interrupts at once."""
        if self.signal_name is not None:
            raise KeyboardInterrupt
        self.signal_name = signal.Signals(number).name
        os.write(2, b"Stopping at the next safe place; once more interrupts at once.\n")


@contextmanager
def terminate_as_interrupt() -> Iterator[None]:
    """SIGTERM raises KeyboardInterrupt, as Ctrl-C does, so that what is open is closed."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    with _handling({signal.SIGTERM: interrupt}):
        yield


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Note the first Ctrl-C or SIGTERM instead of raising; a second one raises KeyboardInterrupt."""
    request = StopRequest()
    with _handling({signal.SIGINT: request, signal.SIGTERM: request}):
        yield request


@contextmanager
def _handling(handlers: dict[signal.Signals, object]) -> Iterator[None]:
    """Signal handlers for a while; outside the main thread, where Python allows none, nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in handlers}
    try:
        for number, handler in handlers.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # callables of (int, frame), as signal takes
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
