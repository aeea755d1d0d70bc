"""How results look: any result model becomes tables for a person or a plain document for a program.

Rich is imported where tables are made; a program that asks for JSON does not wait for it.
"""

from __future__ import annotations

import dataclasses
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from townlet_train.contract import Progress

DATACLASS_SCHEMA = "1.0.0"
UNLIMITED = 10_000
SHOWN_VALUES = 8
WIDEST_CELL = 140
READABLE_WORD = 11  # characters; a column may break longer ones
BETWEEN_COLUMNS = 3
SHORTEST_BAR, LONGEST_BAR = 6, 40
SECONDS_BETWEEN_DRAWINGS = 0.1
INTERVAL = frozenset({"mean", "low", "high"})
HIDDEN = frozenset({"schema_version", "warnings"})


def as_document(result: Any) -> dict[str, Any]:
    """A result model or dataclass as plain JSON values."""
    if dataclasses.is_dataclass(result) and not isinstance(result, type):
        return {"schema_version": DATACLASS_SCHEMA, **dataclasses.asdict(result)}
    document: dict[str, Any] = result.model_dump(mode="json")
    return document


def render(result: Any, stream: TextIO) -> None:
    """Print a result as tables: one of its single values, one for each list of records, and what matters most last.

    On a terminal tables fit its width; where a table cannot, its records are lists. Elsewhere a row is one line, unless
    COLUMNS sets a width.
    """
    single, tables = _split(as_document(result))
    for field, columns in getattr(result, "columns", {}).items():
        tables[field] = [{name: row[name] for name in columns} for row in tables.get(field, ())]
    headings = getattr(result, "headings", {})
    tables = {
        field: [{headings.get(name, name): value for name, value in row.items()} for row in rows]
        for field, rows in tables.items()
    }
    last = {name: single.pop(name) for name in getattr(result, "shown_last", ()) if name in single}
    console = _console(stream)
    shown: list[Table | str] = [_pairs(single)] if single else []
    shown += [_grid(title, rows, console) for title, rows in tables.items()]
    shown += ["", _pairs(last)] if last else []
    if console.is_terminal:
        console.print(*shown)
        return
    with console.capture() as capture:
        console.print(*shown)
    stream.writelines(f"{line.rstrip()}\n" for line in capture.get().splitlines())


@contextmanager
def live_progress(console: Console | None = None) -> Iterator[Callable[[Progress], None]]:
    """A function that shows progress on standard error, drawn anew some ten times a second and no oftener."""
    from rich.console import Console
    from rich.live import Live

    console = console or Console(stderr=True)
    phases: dict[str, _Phase] = {}
    drawn = -math.inf
    with Live(console=console, auto_refresh=False, get_renderable=lambda: _drawn(phases, console)) as live:

        def show(progress: Progress) -> None:
            nonlocal drawn
            now = time.monotonic()
            first = phases.get(progress.phase, _Phase(progress, progress.done, now, now))
            metrics = progress.metrics or first.newest.metrics
            newest = dataclasses.replace(progress, metrics=metrics)
            phases[progress.phase] = _Phase(newest, first.began_with, first.began, now)
            if now - drawn >= SECONDS_BETWEEN_DRAWINGS:
                drawn = now
                live.refresh()

        yield show


class _Phase(NamedTuple):
    """The newest report of a phase, and where and when it began."""

    newest: Progress
    began_with: int  # done by then
    began: float  # seconds of a monotonic clock
    now: float

    @property
    def time(self) -> str:
        """How long the rest takes at the speed so far, or how long it took."""
        done, total = self.newest.done - self.began_with, self.newest.total - self.began_with
        passed = self.now - self.began
        if self.newest.done >= self.newest.total:
            return f"in {timedelta(seconds=round(passed))}"
        return (
            f"{timedelta(seconds=round(passed * (total - done) / done))} left" if done > 0 else "-:--:-- left"
        )


def _drawn(phases: Mapping[str, _Phase], console: Console) -> Text:
    from rich.text import Text

    width = max(console.width - 1, 1)  # a line as wide as the terminal wraps on some
    lines = [line for phase in phases.values() for line in phase_lines(phase.newest, phase.time, width)]
    return Text("\n".join(lines), no_wrap=True, overflow="ellipsis")


def phase_lines(progress: Progress, time_left: str, width: int) -> list[str]:
    """Progress as a bar, and beside or below it every number, none of them broken over two lines.

    >>> from townlet_train.contract import Progress
    >>> report = Progress("ppo", 20, 50, {"return": -132.0625, "collect/s": 9131.0})
    >>> for line in phase_lines(report, "0:01:02 left", 32):
    ...     print(line)
    ppo ━━━━─────── 40% 0:01:02 left
      return -132.1 collect 9.13k/s
    """
    share = min(progress.done / progress.total, 1.0) if progress.total else 1.0
    ends = (progress.phase, f"{share:.0%} {time_left}")
    numbers = [number(name, value) for name, value in progress.metrics.items()]
    beside = " ".join([*ends, *numbers])
    alone = [*numbers] if len(beside) + SHORTEST_BAR < width else []
    room = width - len(" ".join([*ends, *alone])) - 1
    bar = _bar(share, min(room, LONGEST_BAR)) if room >= SHORTEST_BAR else ""
    lines = [" ".join(part for part in (ends[0], bar, ends[1], *alone) if part)]
    for word in numbers[len(alone) :]:
        if len(lines) > 1 and len(lines[-1]) + 1 + len(word) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(f"  {word}")
    return lines


def number(name: str, value: float) -> str:
    """One number of a live line; a rate, named `.../s`, in thousands or millions.

    >>> number("kl", 0.00812345), number("collect/s", 31249.0), number("return", float("nan"))
    ('kl 0.008123', 'collect 31.2k/s', 'return -')
    """
    if math.isnan(value):
        return f"{name.removesuffix('/s')} -"
    if not name.endswith("/s"):
        return f"{name} {value:.4g}"
    factor, unit = next(((f, u) for f, u in ((1e6, "M"), (1e3, "k")) if value >= f), (1.0, ""))
    return f"{name[:-2]} {value / factor:.3g}{unit}/s"


def _bar(share: float, width: int) -> str:
    """A line that is bold as far as things are done."""
    done = int(share * width)
    return "━" * done + "─" * (width - done)


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
            least, most = _ends(value)
            return f"{len(value)} values, {text(least)} to {text(most)}"
        case list() | tuple() if value and all(
            isinstance(item, str) and item.endswith(".") for item in value
        ):
            return "\n".join(value)
        case list() | tuple():
            return (
                ", ".join(
                    f"[{text(item)}]" if isinstance(item, list | tuple) else text(item) for item in value
                )
                or "-"
            )
    return str(value)


def _ends(values: Sequence[Any]) -> tuple[Any, Any]:
    """The smallest and largest of numbers; of anything else the first and last."""
    if not all(isinstance(value, int | float) for value in values):
        return values[0], values[-1]
    numbers = [value for value in values if not math.isnan(value)]
    return (min(numbers), max(numbers)) if numbers else (math.nan, math.nan)


def _split(document: Mapping[str, Any]) -> tuple[dict[str, str], dict[str, Sequence[Mapping[str, Any]]]]:
    """Single values by dotted name, and lists of records by name."""
    single: dict[str, str] = {}
    tables: dict[str, Sequence[Mapping[str, Any]]] = {}
    for name, value in document.items():
        if name in HIDDEN or value in (None, "", [], ()):
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


def _grid(title: str, rows: Sequence[Mapping[str, Any]], console: Console) -> Table:
    """One row per record, or where it is too narrow for that one line per value; a column nobody filled is left out."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    names = list(dict.fromkeys(name for row in rows for name in row))
    filled = [name for name in names if any(row.get(name) not in (None, "", (), []) for row in rows)]
    cells = [[text(row.get(name)) for name in filled] for row in rows]
    numeric = [all(isinstance(row.get(name), int | float) for row in rows) for name in filled]
    if _least_width(filled, cells, numeric) > console.width:
        return _listed(title, filled, cells)
    widest = WIDEST_CELL if console.is_terminal else UNLIMITED
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False)
    for name, numbers in zip(filled, numeric, strict=True):
        plain = not any(isinstance(row.get(name), bool) for row in rows)
        table.add_column(name, justify="right" if numbers and plain else "left", overflow="fold")
    for row in cells:
        table.add_row(*(Text(_shortened(cell, widest)) for cell in row))
    return table


def _least_width(names: Sequence[str], cells: Sequence[Sequence[str]], numeric: Sequence[bool]) -> int:
    """Characters a table takes at least so that words can be read and no number is broken."""
    width = 2 - BETWEEN_COLUMNS  # at the edges
    for index, name in enumerate(names):
        longest = max(len(word) for row in cells for word in row[index].split() or [""])
        read = max(len(name), longest)
        width += BETWEEN_COLUMNS + max(min(read, READABLE_WORD), longest if numeric[index] else 0)
    return width


def _listed(title: str, names: Sequence[str], cells: Sequence[Sequence[str]]) -> Table:
    """A record below the other, a line or more for each of its values."""
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=None,
        show_header=False,
        pad_edge=False,
    )
    table.add_column(style="bold", overflow="fold")
    table.add_column(overflow="fold")
    for row in cells:
        table.add_row()
        for name, cell in zip(names, row, strict=True):
            table.add_row(name, Text(cell))
    return table


def _shortened(cell: str, widest: int) -> str:
    """A cell that a few lines of a terminal can hold; a pipe and --json have the whole value."""
    return cell if len(cell) <= widest else f"{cell[: widest - 1]}…"


def _console(stream: TextIO) -> Console:
    from rich.console import Console

    if stream.isatty():
        return Console(file=stream)
    columns = os.environ.get("COLUMNS", "")
    width = int(columns) if columns.isdigit() and int(columns) > 0 else UNLIMITED
    return Console(file=stream, width=width, color_system=None, highlight=False)
