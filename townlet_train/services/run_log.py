"""What a run logs, kept in its directory whatever is shown of it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from townlet_train.files import storing
from townlet_train.services.clock import stamp


@contextmanager
def logged_to(folder: Path) -> Iterator[None]:
    """Everything the package logs meanwhile also goes to logs/training_<ts>.log."""
    with storing(folder):
        folder.mkdir(exist_ok=True)
        handler = _RunLog(folder / f"training_{stamp()}.log", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    logger = logging.getLogger("townlet_train")
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        logger.setLevel(before)
        logger.removeHandler(handler)
        handler.close()


class _RunLog(logging.FileHandler):
    """A log file that is written to with every line of weight; details may wait for the next one, or for the end."""

    _weighty = True

    def emit(self, record: logging.LogRecord) -> None:
        self._weighty = record.levelno >= logging.INFO
        super().emit(record)

    def flush(self) -> None:
        if self._weighty:
            super().flush()

    def handleError(self, record: logging.LogRecord) -> None:
        """A log that cannot be written stops nothing: a full disk is told by what matters more."""

    def close(self) -> None:
        with suppress(OSError):
            super().close()
