"""One end of a line between two processes that answer each other quickly.

Waking a process that sleeps takes longer than a tick of cheap environments. So who waits looks at the line for a moment
before going to sleep, if the last wait was that short: not while the other one is learning, and not where both share a
core. `None`, the commonest thing said, is a single byte.
"""

from __future__ import annotations

import os
import select
import time
from multiprocessing import reduction
from multiprocessing.connection import Connection
from typing import Any

LOOKING = 80e-6  # seconds; a small network chooses actions in 30, an update takes thousands of times as long
NOTHING, SOMETHING = b"0", b"1"


class Channel:
    """Sends and receives what pickle can carry; both may raise `OSError`, and `EOFError` when the other end is gone."""

    def __init__(self, connection: Connection) -> None:
        self._connection, self._fd = connection, connection.fileno()
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLIN)
        self._room = select.poll()
        self._room.register(self._fd, select.POLLOUT)
        self._last_wait = 0.0

    def put(self, value: Any) -> None:
        """Send one value."""
        if value is None:
            os.write(self._fd, NOTHING)
        else:
            os.write(self._fd, SOMETHING)
            self._connection.send(value)

    def has_room(self) -> bool:
        """Whether a word can be sent at once, although the other end has not listened for long."""
        return bool(self._room.poll(0))

    def get(self, patience: float | None = None) -> Any:
        """The next value; `TimeoutError` when none comes for `patience` seconds."""
        poll, now, began = self._poll.poll, time.perf_counter, time.perf_counter()
        asleep_at = began + LOOKING if self._last_wait < LOOKING else began
        while not poll(0):
            if now() >= asleep_at:
                if not poll(None if patience is None else patience * 1000):
                    raise TimeoutError
                break
        self._last_wait = now() - began
        word = os.read(self._fd, 1)
        if not word:
            raise EOFError
        return None if word == NOTHING else self._connection.recv()

    def put_file(self, file: int) -> None:
        """Hand an open file to the other end, given by its descriptor."""
        reduction.send_handle(self._connection, file, None)

    def get_file(self) -> int:
        """The descriptor of the file that comes next; who asks must close it."""
        return reduction.recv_handle(self._connection)

    def wait_for_end(self) -> None:
        """Return when the other end is gone, which a thread may wait for while another one sends and receives."""
        poll = select.poll()
        poll.register(self._fd, 0)
        poll.poll()

    def close(self) -> None:
        """Hang up."""
        self._connection.close()
