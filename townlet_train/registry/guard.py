"""What a plugin may not do to others while it loads: change their classes, or bury what the program says."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

PYTHONS_OWN = {  # what Python keeps in a class and may add by itself
    "__abstractmethods__",
    "__annotate__",
    "__annotate_func__",
    "__annotations__",
    "__annotations_cache__",
    "__dict__",
    "__doc__",
    "__firstlineno__",
    "__module__",
    "__static_attributes__",
    "__weakref__",
}
MOST_PRINTED = 200  # characters of a plugin that reach standard error while it loads


class Patched(Exception):
    """A plugin changed the strategy of another."""


@contextmanager
def unchanged(classes: Iterable[type[Any]]) -> Iterator[None]:
    """Keep classes as they are: what is changed in them is put back.

    Raises:
        Patched: something was.
    """
    before = [(cls, dict(vars(cls))) for cls in classes]
    found = None
    try:
        yield
    finally:
        for cls, attributes in before:
            for name in _changed(attributes, vars(cls)):
                found = found or f"{cls.__qualname__}.{name}"
                _put_back(cls, name, attributes)
    if found:
        raise Patched(f"it changes {found}, which is not its own; it was put back")


def _changed(before: dict[str, Any], now: Any) -> list[str]:
    """Names of attributes that are others, or were not there, or are no longer; what Python adds itself aside."""
    names = [
        name
        for name in {**before, **now}
        if name not in PYTHONS_OWN and not name.startswith(("_abc", "_is_", "__pydantic_"))
    ]
    return [name for name in names if before.get(name) is not now.get(name)]


def _put_back(cls: type[Any], name: str, attributes: dict[str, Any]) -> None:
    if name in attributes:
        setattr(cls, name, attributes[name])
    else:
        with suppress(AttributeError):
            delattr(cls, name)


class Aside(io.TextIOBase):
    """Keeps what a plugin prints, as much of it as is told."""

    def __init__(self) -> None:
        self._begin, self._length = "", 0

    def writable(self) -> bool:
        """Yes."""
        return True

    def write(self, text: str) -> int:
        """Take a text."""
        self._begin += text[: MOST_PRINTED - len(self._begin)]
        self._length += len(text)
        return len(text)

    def tell_of(self, whose: str) -> None:
        """Say on standard error, in one line, what was printed and whose it was; nothing where nothing was."""
        told = " ".join(self._begin.split())
        if told:
            more = self._length - len(self._begin)
            rest = f", {more} characters more" if more else ""
            with suppress(OSError):
                sys.stderr.write(f"{whose} printed while it was loaded: {told}{rest}\n")
