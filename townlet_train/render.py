"""How results look: any result model becomes tables for a person or a plain document for a program.

Rich is imported where tables are made; a program that asks for JSON does not wait for it.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from townlet_train.contract import Progress

DATACLASS_SCHEMA = "1.0.0"
UNLIMITED = 10_000
SHOWN_VALUES = 8
WIDEST_CELL = 140
INTERVAL = frozenset({"mean", "low", "high"})
HIDDEN = frozenset({"schema_version", "warnings"})


def as_document(result: Any) -> dict[str, Any]:
    """A result model or dataclass as plain JSON values."""
    if dataclasses.is_dataclass(result) and not isinstance(result, type):
        return {"schema_version": DATACLASS_SCHEMA, **dataclasses.asdict(result)}
    document: dict[str, Any] = result.model_dump(mode="json")
    return document


def render(result: Any, stream: TextIO) -> None:
    """Print a result as tables: one of its single values, one for each list of records.

    On a terminal tables fit its width. Elsewhere a row is one line, unless COLUMNS sets a width.
    """
    single, tables = _split(as_document(result))
    shown = [_pairs(single)] if single else []
    shown += [_grid(title, rows) for title, rows in tables.items()]
    console = _console(stream)
    if console.is_terminal:
        console.print(*shown)
        return
    with console.capture() as capture:
        console.print(*shown)
    stream.writelines(f"{line.rstrip()}\n" for line in capture.get().splitlines())


@contextmanager
def progress_bar() -> Iterator[Callable[[Progress], None]]:
    """A function that draws progress on standard error, one bar for each phase."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[numbers]}"),
    )
    with Bars(*columns, console=Console(stderr=True)) as bars:
        tasks: dict[str, Any] = {}

        def show(progress: Progress) -> None:
            task = tasks.get(progress.phase)
            if task is None:
                task = tasks[progress.phase] = bars.add_task(progress.phase, total=progress.total, numbers="")
            bars.update(task, completed=progress.done, total=progress.total)
            if progress.metrics:
                numbers = " ".join(f"{name} {value:.4g}" for name, value in progress.metrics.items())
                bars.update(task, numbers=numbers)

        yield show


def text(value: Any) -> str:
    """One value as a person reads it."""
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:,.0f}" if 1e4 <= abs(value) < 1e15 else f"{value:.4g}"
        case list() | tuple() if len(value) > SHOWN_VALUES:
            return f"{len(value)} values, {text(value[0])} to {text(value[-1])}"
        case list() | tuple():
            return (
                ", ".join(
                    f"[{text(item)}]" if isinstance(item, list | tuple) else text(item) for item in value
                )
                or "-"
            )
    return str(value)


def _split(document: Mapping[str, Any]) -> tuple[dict[str, str], dict[str, Sequence[Mapping[str, Any]]]]:
    """Single values by dotted name, and lists of records by name."""
    single: dict[str, str] = {}
    tables: dict[str, Sequence[Mapping[str, Any]]] = {}
    for name, value in document.items():
        if name in HIDDEN or value in ("", [], ()):
            continue
        if isinstance(value, list | tuple) and value and all(isinstance(item, Mapping) for item in value):
            tables[name] = value
        elif isinstance(value, Mapping) and set(value) == INTERVAL:
            single[name] = f"{text(value['mean'])} [{text(value['low'])}, {text(value['high'])}]"
        elif isinstance(value, Mapping):
            inner, inner_tables = _split(value)
            single |= {f"{name}.{key}": item for key, item in inner.items()}
            tables |= {f"{name}.{key}": rows for key, rows in inner_tables.items()}
        else:
            single[name] = text(value)
    return single, tables


def _pairs(single: Mapping[str, str]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", overflow="fold")
    table.add_column(overflow="fold")
    for name, value in single.items():
        table.add_row(name, Text(value))
    return table


def _grid(title: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    """One row per record; a column nobody filled is left out."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    names = list(dict.fromkeys(name for row in rows for name in row))
    filled = [name for name in names if any(row.get(name) not in (None, "", (), []) for row in rows)]
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False)
    for name in filled:
        numeric = all(isinstance(row.get(name), int | float) for row in rows)
        plain = not any(isinstance(row.get(name), bool) for row in rows)
        table.add_column(name, justify="right" if numeric and plain else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(_shortened(text(row.get(name)))) for name in filled))
    return table


def _shortened(cell: str) -> str:
    """A cell one line can hold; --json has the whole value."""
    return cell if len(cell) <= WIDEST_CELL else f"{cell[: WIDEST_CELL - 1]}…"


def _console(stream: TextIO) -> Console:
    from rich.console import Console

    if stream.isatty():
        return Console(file=stream)
    columns = os.environ.get("COLUMNS", "")
    width = int(columns) if columns.isdigit() and int(columns) > 0 else UNLIMITED
    return Console(file=stream, width=width, color_system=None, highlight=False)
