"""The program: one Typer app whose commands load when they are called, and the one `except` that ends it.

0 done   1 done with warnings   2 failed   3 bad arguments   4 conda   5 environment   6 checkpoint   7 interrupted
10 HOLD   11 FAIL   141 nobody reads the result any more
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Annotated, Any

import typer

from townlet_train import __version__
from townlet_train.cli import output
from townlet_train.cli.interrupts import terminate_as_interrupt
from townlet_train.cli.lazy import LazyGroup
from townlet_train.cli.options import OTHER_NAMES
from townlet_train.cli.session import session_listing
from townlet_train.errors import (
    ExitCode,
    Interrupted,
    PluginError,
    StorageError,
    TownletTrainError,
    UsageError,
    suggestion,
)

PROGRAM = "townlet-train"
COMPLETION = "_TOWNLET_TRAIN_COMPLETE"
DEBUG = "TOWNLET_TRAIN_DEBUG"

app = typer.Typer(cls=LazyGroup, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.callback(invoke_without_command=True)
def program(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an unexpected error.")
    ] = False,
    strict_plugins: Annotated[
        bool, typer.Option("--strict-plugins", help="Fail when any plugin is broken.")
    ] = False,
) -> int:
    """From demonstrations to a policy you may ship: capture, clone, improve, gate, promote."""
    problems = session_listing(context).problems if strict_plugins else ()
    if problems:
        raise PluginError(" ".join(problems))
    if version:
        output.write(f"{PROGRAM} {__version__}")
    elif context.invoked_subcommand is None:
        output.write(context.get_help())
    return ExitCode.OK


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program and return its exit code; `arguments` are the process's own unless given."""
    arguments = sys.argv[1:] if arguments is None else arguments
    as_json = "--json" in arguments
    output.stand_in_for_closed_streams()
    with output.guarded_stdout(as_json), terminate_as_interrupt():
        try:
            code = _invoke(list(arguments))
            sys.stdout.flush()  # what a plugin printed may still wait
        except BaseException as error:
            code = _end(error, as_json, debug="--debug" in arguments or bool(os.environ.get(DEBUG)))
    output.close_quietly()
    return int(code)


def _invoke(arguments: list[str]) -> int:
    command = typer.main.get_command(app)
    if os.environ.get(COMPLETION):
        command.main(args=arguments, prog_name=PROGRAM)
    with command.make_context(PROGRAM, arguments) as context:
        code: Any = command.invoke(context)
    return ExitCode.OK if code is None else int(code)


def _end(error: BaseException, as_json: bool, *, debug: bool) -> int:
    """The exit code an exception ends the program with, after saying what there is to say."""
    match error:
        case typer.Exit():
            return error.exit_code
        case SystemExit():
            return error.code if isinstance(error.code, int) else ExitCode.FAILED
        case output.ReaderGone():
            return ExitCode.READER_GONE
        case MemoryError():
            return _fail(
                TownletTrainError(f"There is not enough memory for this: {error}. Ask for less."), as_json
            )
        case KeyboardInterrupt() | typer.Abort():
            sentences = ["Interrupted; what was being written is as it was before."]
            return _fail(Interrupted(" ".join(sentences + getattr(error, "__notes__", []))), as_json)
        case TownletTrainError():
            if debug and error.__cause__ is not None:
                _show_traceback(error.__cause__)
            return _fail(error, as_json)
        case typer.TyperException():
            return _fail(UsageError(_usage_sentence(error)), as_json)
    if debug:
        _show_traceback(error)
    return _fail(_unexpected(error, debug), as_json)


def _show_traceback(error: BaseException) -> None:
    import traceback

    output.say("".join(traceback.format_exception(error)).rstrip())


def _fail(error: TownletTrainError, as_json: bool) -> int:
    output.say(f"Error: {error}")
    if as_json:
        from townlet_train.files import to_json

        kind = type(error).__name__
        document = {"error": {"type": kind, "message": str(error), "exit_code": int(error.exit_code)}}
        with suppress(StorageError, output.ReaderGone):
            output.write(to_json(document))
    return error.exit_code


def _unexpected(error: BaseException, debug: bool) -> TownletTrainError:
    """An exception nobody foresaw as one of ours: a sentence, and where its traceback lies."""
    sentence = f"Unexpected {type(error).__name__}: {str(error).rstrip('.') or 'no message'}."
    if debug:
        return TownletTrainError(sentence)
    import tempfile
    import traceback

    with tempfile.NamedTemporaryFile("w", prefix=f"{PROGRAM}-", suffix=".log", delete=False) as log:
        traceback.print_exception(error, file=log)
    return TownletTrainError(
        f"{sentence} This is a defect; its traceback is in {log.name} (--debug shows it)."
    )


def _usage_sentence(error: typer.TyperException) -> str:
    """What is wrong with the command line, what was likely meant, and where to read on."""
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else PROGRAM
    option = getattr(error, "option_name", None)
    if option and context is not None:
        known = [name for param in context.command.get_params(context) for name in param.opts]
        if option not in known:
            meant = OTHER_NAMES.get(option, "")
            likely = f" Did you mean {meant!r}?" if meant in known else suggestion(option, known)
            return f"No option {option!r} for {path}.{likely} See: {path} --help"
    sentence = " ".join(error.format_message().split()).rstrip(".,")  # choices come one to a line
    return f"{sentence}. See: {path} --help"
