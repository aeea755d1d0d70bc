"""The loggers that plugins add to a run: each is handed every line and the result; one that fails hurts nobody else."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from townlet_train.errors import TownletTrainError

if TYPE_CHECKING:
    from townlet_train.contract import RunLogger
    from townlet_train.registry.records import PluginRecord
    from townlet_train.results import TrainingResultDTO

logger = logging.getLogger(__name__)


class LoggerSource(NamedTuple):
    """A plugin that adds a logger to runs, and how to get one; the last line already recorded goes with it."""

    plugin: PluginRecord
    open: Callable[[Path, int | None], RunLogger | None]


class RunLoggers:
    """The loggers of one run. What they do wrong becomes a sentence; whoever did it hears only the end."""

    def __init__(self, sources: Sequence[LoggerSource], run_dir: Path, recorded: int | None) -> None:
        self.warnings: list[str] = []
        self._open: list[tuple[PluginRecord, RunLogger]] = []
        for plugin, open_logger in sources:
            found = self._guarded(plugin, "did not start", partial(open_logger, run_dir, recorded))
            if found is not None:
                self._open.append((plugin, found))
        self._listening = list(self._open)

    def record(self, line: Mapping[str, Any]) -> None:
        """Hand a line to each of them."""
        for entry in tuple(self._listening):
            plugin, run_logger = entry
            before = len(self.warnings)
            self._guarded(plugin, "stopped", partial(run_logger.record, line))
            if len(self.warnings) > before:
                self._listening.remove(entry)

    def finish(self, result: TrainingResultDTO) -> None:
        """Hand the result to those that want it: the run ended well."""
        for plugin, run_logger in self._listening:
            finish = getattr(run_logger, "finish", None)
            if finish is not None:
                self._guarded(plugin, "did not take the result", partial(finish, result))

    def close(self) -> None:
        """Let each of them end, those that failed too; the second time there is none left."""
        while self._open:
            plugin, run_logger = self._open.pop()
            self._guarded(plugin, "did not end well", run_logger.close)

    def _guarded(self, plugin: PluginRecord, trouble: str, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except (Exception, SystemExit) as error:
            logger.debug("the logger of %s failed", plugin.name, exc_info=True)
            told = str(error) if isinstance(error, TownletTrainError) else f"{type(error).__name__}: {error}"
            self.warnings.append(
                f"The logger of {plugin.name!r} ({plugin.distribution} {plugin.version}) {trouble}: "
                f"{told.rstrip('.')}."
            )
            return None
