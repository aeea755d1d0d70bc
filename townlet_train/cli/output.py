"""Standard output carries the result and nothing else; progress and log lines go to standard error."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout, suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TextIO

from townlet_train.cli.interrupts import StopRequest, stop_requests
from townlet_train.errors import ExitCode, Interrupted

if TYPE_CHECKING:
    from townlet_train.contract import Progress

_stdout: ContextVar[TextIO | None] = ContextVar("stdout", default=None)


@contextmanager
def guarded_stdout(as_json: bool) -> Iterator[None]:
    """While a command runs with --json, whatever anybody else prints goes to standard error."""
    if not as_json:
        yield
        return
    with _own_stdout() as stream, redirect_stdout(sys.stderr):
        token = _stdout.set(stream)
        try:
            yield
        finally:
            _stdout.reset(token)


@contextmanager
def _own_stdout() -> Iterator[TextIO]:
    """A stream to where standard output went, while its descriptor, which libraries in C write to, is stderr's."""
    real = sys.__stdout__
    if real is None or sys.stdout is not real:
        yield sys.stdout
        return
    real.flush()
    descriptor = real.fileno()
    stream = os.fdopen(os.dup(descriptor), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), descriptor)
    try:
        yield stream
    finally:
        os.dup2(stream.fileno(), descriptor)
        with suppress(OSError):  # `write` has flushed, and reported what went wrong
            stream.close()


class ReaderGone(Exception):
    """Whoever read standard output has closed it; no other broken pipe means that."""


@contextmanager
def _to_reader() -> Iterator[TextIO]:
    """The program's standard output, flushed at the end."""
    stream = _stdout.get() or sys.stdout
    try:
        yield stream
        stream.flush()
    except BrokenPipeError as error:
        raise ReaderGone from error


def write(text: str) -> None:
    """Write a result to the program's standard output."""
    with _to_reader() as stream:
        stream.write(text if text.endswith("\n") else f"{text}\n")


def emit(result: Any, *, json_output: bool) -> int:
    """Show a result, as tables or as one JSON document, and return the exit code: warnings make it 1."""
    from townlet_train.render import as_document, render

    if json_output:
        from townlet_train.files import to_json

        write(to_json(as_document(result)))
    else:
        with _to_reader() as stream:
            render(result, stream)
    return warn(getattr(result, "warnings", ()))


def shown(returned: object) -> object:
    """What a plugin's command returned, or where that is a result, the exit code once it is shown."""
    from townlet_train.results import ResultDTO

    if not isinstance(returned, ResultDTO):
        return returned
    return emit(returned, json_output=_stdout.get() is not None)


def warn(warnings: Sequence[str]) -> int:
    """Tell warnings on standard error, and return the exit code they make."""
    for warning in warnings:
        sys.stderr.write(f"Warning: {warning}\n")
    return ExitCode.WARNINGS if warnings else ExitCode.OK


def verdict_code(verdict: str | None, otherwise: int) -> int:
    """The exit code of a verdict that is not PASS; `otherwise` for PASS, and where nothing was judged."""
    return {"HOLD": ExitCode.HOLD, "FAIL": ExitCode.FAIL}.get(verdict or "", otherwise)


def close_quietly() -> None:
    """Keep Python from complaining, at its own end, about a standard output that cannot be written."""
    try:
        sys.stdout.flush()
    except OSError:
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


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

    Log lines go to standard error from here on, too. The function raises `Interrupted` once Ctrl-C or SIGTERM has
    arrived; a second signal interrupts at once.
    """
    import logging

    from townlet_train.cli.lines import beside_a_live_line, log_progress

    if not logging.getLogger().handlers:
        log_to_stderr()
    with stop_requests() as request, ExitStack() as stack:
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
