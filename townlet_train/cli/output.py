"""Standard output carries the result and nothing else; progress and log lines go to standard error."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout, suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TextIO, cast

from townlet_train.cli.interrupts import StopRequest, stop_requests
from townlet_train.errors import ExitCode, Interrupted, StorageError

if TYPE_CHECKING:
    from townlet_train.contract import Progress

_stdout: ContextVar[_Told | None] = ContextVar("stdout", default=None)


def stand_in_for_closed_streams() -> None:
    """Let what was closed when the program began (`>&-`) read as empty, and take whatever is written to it."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115  # open as long as the program runs


@contextmanager
def guarded_stdout(as_json: bool) -> Iterator[None]:
    """While a command runs, tell what standard output refuses; with --json, only the result goes there.

    What is written past Python, to the descriptor itself, goes to standard error in either case.
    """
    with _own_stdout(as_json) as stream:
        told = _Told(stream, as_json=as_json)
        token = _stdout.set(told)
        try:
            with redirect_stdout(sys.stderr if as_json else cast("TextIO", told)):
                yield
        finally:
            _stdout.reset(token)


class ReaderGone(BaseException):
    """Whoever read standard output has closed it; no other broken pipe means that, and no plugin failed by it."""


class _Told:
    """Standard output whose refusals are told as what they are, whoever writes: `ReaderGone` or `StorageError`."""

    def __init__(self, stream: TextIO, *, as_json: bool) -> None:
        self._stream, self.as_json = stream, as_json
        self.apart = stream is not sys.stdout  # from the descriptor that others write to

    def write(self, text: str) -> int:
        with _refusals():
            return self._stream.write(text)

    def writelines(self, lines: Iterable[str]) -> None:
        self.write("".join(lines))

    def flush(self) -> None:
        with _refusals():
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError as error:
        raise ReaderGone from error
    except OSError as error:
        raise StorageError("Standard output", error) from error


@contextmanager
def _own_stdout(as_json: bool) -> Iterator[TextIO]:
    """A stream to where standard output went, while its descriptor, which libraries in C write to, is stderr's."""
    real = sys.__stdout__
    if real is None or sys.stdout is not real:
        yield sys.stdout
        return
    encoding, errors = ("utf-8", "strict") if as_json else (real.encoding, real.errors)
    stream = os.fdopen(os.dup(real.fileno()), "w", encoding=encoding, errors=errors)
    with suppress(OSError):  # standard error may be no file
        _point(real, sys.stderr.fileno())
    try:
        yield stream
    finally:
        _point(real, stream.fileno())
        with suppress(OSError):  # `write` has flushed, and reported what went wrong
            stream.close()


@contextmanager
def lent_stdout() -> Iterator[None]:
    """Standard output as it was found, for a command that is a plugin's own; with --json it stays ours."""
    told, real = _stdout.get(), sys.__stdout__
    if told is None or real is None or told.as_json or not told.apart:
        yield
        return
    errors = os.dup(real.fileno())
    os.dup2(told.fileno(), real.fileno())
    try:
        yield
    finally:
        _point(real, errors)
        os.close(errors)


def _point(real: TextIO, descriptor: int) -> None:
    """Let a stream's descriptor be a copy of another, after what was written to it has gone where it was meant to."""
    with suppress(OSError):
        real.flush()
    os.dup2(descriptor, real.fileno())


def _reader() -> TextIO:
    """The program's standard output."""
    return cast("TextIO", _stdout.get() or sys.stdout)


def write(text: str) -> None:
    """Write a result to the program's standard output."""
    stream = _reader()
    stream.write(text if text.endswith("\n") else f"{text}\n")
    stream.flush()


def emit(result: Any, *, json_output: bool) -> int:
    """Show a result, as tables or as one JSON document, and return the exit code: warnings make it 1."""
    from townlet_train.render import as_document, render

    if json_output:
        from townlet_train.files import to_json

        write(to_json(as_document(result)))
    else:
        render(result, _reader())
        _reader().flush()
    return warn(getattr(result, "warnings", ()))


def shown(returned: object) -> object:
    """What a plugin's command returned, or where that is a result, the exit code once it is shown."""
    from townlet_train.results import ResultDTO

    if not isinstance(returned, ResultDTO):
        return returned
    told = _stdout.get()
    return emit(returned, json_output=told is not None and told.as_json)


def say(line: str) -> None:
    """Write a line to standard error; where it cannot be written nobody can be told."""
    with suppress(OSError):
        sys.stderr.write(f"{line}\n")


def warn(warnings: Sequence[str]) -> int:
    """Tell warnings on standard error, and return the exit code they make."""
    for warning in warnings:
        say(f"Warning: {warning}")
    return ExitCode.WARNINGS if warnings else ExitCode.OK


def verdict_code(verdict: str | None, otherwise: int) -> int:
    """The exit code of a verdict that is not PASS; `otherwise` for PASS, and where nothing was judged."""
    return {"HOLD": ExitCode.HOLD, "FAIL": ExitCode.FAIL}.get(verdict or "", otherwise)


def close_quietly() -> None:
    """Keep Python from complaining, at its own end, about streams that cannot be written."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def log_to_stderr(*, verbose: bool = False) -> None:
    """One line per log record on standard error: what happens, and with `verbose` every detail of ours."""
    import logging

    from townlet_train.cli.lines import ToStderr

    handler = ToStderr(logging.DEBUG if verbose else logging.INFO)  # a run's log file takes more than this
    logging.basicConfig(format="%(levelname)s %(message)s", handlers=[handler], force=True)
    logging.getLogger("townlet_train").setLevel(logging.DEBUG if verbose else logging.INFO)


@contextmanager
def reporting() -> Iterator[Callable[[Progress], None]]:
    """A function that takes progress: a live line on a terminal, elsewhere a log line for each report with metrics.

    Log lines go to standard error from here on, and so does what is printed meanwhile. The function raises
    `Interrupted` once Ctrl-C or SIGTERM has arrived; a second signal interrupts at once.
    """
    import logging

    from townlet_train.cli.lines import beside_a_live_line, log_progress

    if not logging.getLogger().handlers:
        log_to_stderr()
    with stop_requests() as request, redirect_stdout(sys.stderr), ExitStack() as stack:
        shows: list[Callable[[Progress], None]] = [log_progress]
        if sys.stderr.isatty():
            from townlet_train.render import live_progress

            shows.append(stack.enter_context(live_progress()))
            stack.enter_context(beside_a_live_line())
        yield _reporter(shows, request)


def _reporter(
    shows: Sequence[Callable[[Progress], None]], request: StopRequest
) -> Callable[[Progress], None]:
    def report(progress: Progress) -> None:
        for show in shows:
            show(progress)
        if request.signal_name is not None:
            raise Interrupted(f"Stopped by {request.signal_name} during {progress.phase}.")

    return report
