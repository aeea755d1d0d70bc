"""Every failure a user can meet, and the exit code it ends the program with.

    TownletTrainError                 2   something the user can act on went wrong
    ├── UsageError                    3   the command line or an argument is wrong
    │   ├── ConfigError               3   a configuration value, file or key is wrong
    │   └── UnknownNameError          3   a name nobody registered; says what was meant
    ├── DataError                     2   a dataset, manifest or sample is refused
    ├── PluginError                   2   a plugin is broken and the work needs it
    ├── TorchNotAvailableError        2   the strategy trains with torch, which is absent
    ├── TrainingError                 2   training itself failed
    ├── EnvironmentFailedError        2   an environment raised, or the process it ran in died
    ├── StorageError                  2   a file cannot be written: a full disk, missing rights; an OSError too
    ├── ExportError                   2   an exported policy does not act as its checkpoint does
    ├── LedgerError                   2   a promotion directory is not as it was written
    ├── CondaEnvironmentError         4   --require-conda-env asked for another environment
    ├── EnvironmentCreationError      5   the environment cannot be built
    │   ├── InfeasibleTownError       5   nobody could survive in the town as configured
    │   └── MissingExtraError         5   an optional dependency is not installed; an ImportError too
    ├── CheckpointError               6   a checkpoint is missing, foreign, torn or tampered with
    │   └── InexactStateError         6   an environment cannot be brought back to the state that was saved
    └── Interrupted                   7   Ctrl-C or SIGTERM; what could be saved is saved

`townlet_train.cli.main` is the only place that turns these into exit codes. A message is one sentence
(what was expected, what came, where) and, where there is one, a second: what to do next.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from enum import IntEnum


class ExitCode(IntEnum):
    """What the program's exit status means."""

    OK = 0
    WARNINGS = 1
    FAILED = 2
    USAGE = 3
    CONDA = 4
    ENVIRONMENT = 5
    CHECKPOINT = 6
    INTERRUPTED = 7
    HOLD = 10
    FAIL = 11
    READER_GONE = 141  # what a shell says of a program that SIGPIPE ended


class TownletTrainError(Exception):
    """The root: a failure with a sentence for a person and an exit code for a program."""

    exit_code = ExitCode.FAILED


class UsageError(TownletTrainError):
    """The command line or an argument is wrong."""

    exit_code = ExitCode.USAGE


class ConfigError(UsageError):
    """A configuration value, file or key is wrong."""


class UnknownNameError(UsageError):
    """A name that nobody registered.

    >>> str(UnknownNameError("strategy", "pppo", ["anneal", "bc", "ppo"]))
    "No strategy named 'pppo'. Did you mean 'ppo'? Known: anneal, bc, ppo."
    """

    def __init__(self, kind: str, name: str, known: Iterable[str], hint: str = "") -> None:
        names = sorted(known)
        listing = ", ".join(names) if names else "none"
        super().__init__(
            f"No {kind} named {name!r}.{suggestion(name, names)} Known: {listing}. {hint}".rstrip()
        )


class DataError(TownletTrainError):
    """A dataset, manifest or sample is refused."""


class PluginError(TownletTrainError):
    """A plugin is broken and the work needs it."""


class TorchNotAvailableError(TownletTrainError):
    """The strategy trains with torch, which is not installed."""

    def __init__(self, strategy: str) -> None:
        super().__init__(
            f"Strategy {strategy!r} trains with torch, which is not installed. Run: {TORCH_INSTALL}"
        )


class TrainingError(TownletTrainError):
    """Training itself failed."""


class EnvironmentFailedError(TownletTrainError):
    """An environment raised, or the process it ran in died."""


class StorageError(TownletTrainError, OSError):
    """A file cannot be written."""

    def __init__(self, path: object, error: OSError) -> None:
        super().__init__(
            f"{path} cannot be written: {error.strerror}. Make room or get the rights, or write elsewhere."
        )
        self.errno = error.errno


class ExportError(TownletTrainError):
    """An exported policy does not act as its checkpoint does."""


class LedgerError(TownletTrainError):
    """A promotion directory is not as it was written."""


class CondaEnvironmentError(TownletTrainError):
    """--require-conda-env asked for an environment that is not active."""

    exit_code = ExitCode.CONDA


class EnvironmentCreationError(TownletTrainError):
    """The environment cannot be built."""

    exit_code = ExitCode.ENVIRONMENT


class InfeasibleTownError(EnvironmentCreationError):
    """Nobody could survive in the town as configured."""


class MissingExtraError(EnvironmentCreationError, ImportError):
    """An optional dependency is not installed."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(
            f"{what} needs an extra that is not installed. Run: pip install 'townlet-train[{extra}]'"
        )


class CheckpointError(TownletTrainError):
    """A checkpoint is missing, foreign, torn or tampered with."""

    exit_code = ExitCode.CHECKPOINT


class InexactStateError(CheckpointError):
    """An environment cannot be brought back to the state that was saved, or to any; its runs cannot be resumed."""


class Interrupted(TownletTrainError):
    """Ctrl-C or SIGTERM arrived; what could be saved is saved."""

    exit_code = ExitCode.INTERRUPTED


TORCH_INSTALL = "pip install 'townlet-train[torch]'"


def suggestion(name: str, known: Iterable[str]) -> str:
    """' Did you mean ...?' for the closest known name, or an empty string when none is close."""
    spelt = {each.casefold(): each for each in known}
    close = difflib.get_close_matches(name.casefold(), list(spelt), n=1, cutoff=0.6)
    return f" Did you mean {spelt[close[0]]!r}?" if close else ""
