"""Ctrl-C and SIGTERM: an exception at once, or a request that long work meets at its next report.

Whatever the number of signals, the program ends with `ExitCode.INTERRUPTED`.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from types import FrameType

from townlet_train.errors import ExitCode

PATIENCE = 8.0  # seconds to close what is open after a second signal; a hanging worker is given 5 to end


class StopRequest:
    """Whether somebody asked the work to stop, and how urgently."""

    def __init__(self) -> None:
        self.signal_name: str | None = None
        self._last_resort: threading.Timer | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Take a signal: the first is noted, the second interrupts at once, the third ends the process as it is."""
        if self._last_resort is not None:
            os._exit(ExitCode.INTERRUPTED)
        if self.signal_name is not None:
            self._last_resort = threading.Timer(PATIENCE, os._exit, (ExitCode.INTERRUPTED,))
            self._last_resort.daemon = True
            self._last_resort.start()
            raise KeyboardInterrupt(f"A second signal, {signal.Signals(number).name}, interrupted at once.")
        self.signal_name = signal.Signals(number).name
        os.write(2, b"Stopping at the next safe place; once more interrupts at once.\n")

    def close(self) -> None:
        """Everything is closed: nobody need be ended any more."""
        if self._last_resort is not None:
            self._last_resort.cancel()


@contextmanager
def terminate_as_interrupt() -> Iterator[None]:
    """SIGTERM raises KeyboardInterrupt, as Ctrl-C does, so that what is open is closed."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    with _handling({signal.SIGTERM: interrupt}):
        yield


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Note the first Ctrl-C or SIGTERM instead of raising; a second one raises KeyboardInterrupt.

    Where that is held up, by foreign code or a file system that does not answer, the process ends after `PATIENCE`.
    """
    request = StopRequest()
    with closing(request), _handling({signal.SIGINT: request, signal.SIGTERM: request}):
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
