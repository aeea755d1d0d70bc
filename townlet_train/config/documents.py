"""Settings files as plain values, with the line each value stands on.

YAML is read by the rules of YAML 1.2: `OFF` is a word and `1e-3` a number; PyYAML's own rules say otherwise.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from townlet_train.errors import ConfigError


@dataclass(frozen=True)
class Document:
    """One file's values, and the line of each dotted key where the format tells."""

    label: str
    values: dict[str, Any]
    lines: Mapping[str, int] = field(default_factory=dict)

    def source(self, path: str) -> str:
        """Where a dotted key was written, or else what it is in: file, and line where known."""
        while path and path not in self.lines:
            path = path.rpartition(".")[0]
        return f"{self.label}, line {self.lines[path]}" if path else self.label


class _Loader(yaml.SafeLoader):
    """Plain values only, scalars by the core schema of YAML 1.2 (https://yaml.org/spec/1.2.2/#103-core-schema)."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}


def _construct_int(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    text = loader.construct_scalar(node)
    return int(text, 0) if text.startswith(("0x", "0o")) else int(text)


_CORE_SCHEMA = (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
)
for _name, _pattern, _first in _CORE_SCHEMA:
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", re.compile(f"^(?:{_pattern})$"), _first)
_Loader.add_constructor("tag:yaml.org,2002:int", _construct_int)


def parse_value(text: str) -> Any:
    """A value as written on the command line or in the environment, by the rules of a YAML scalar or flow.

    >>> [parse_value(text) for text in ("1e-3", "OFF", "true", "[1, 2]", "")]
    [0.001, 'OFF', True, [1, 2], None]
    """
    try:
        return yaml.load(text, Loader=_Loader)  # a subclass of SafeLoader: plain values only
    except yaml.YAMLError:
        return text


def read_document(path: Path) -> Document:
    """The settings in a YAML, TOML or JSON file.

    Raises:
        ConfigError: the file is missing, unreadable, of another kind, malformed, or not a mapping.
    """
    values, lines = parse_file(path)
    if values is None:
        return Document(str(path), {})
    if not isinstance(values, dict):
        raise ConfigError(f"{path} should be a mapping of keys to values, not a {type(values).__name__}.")
    return Document(str(path), values, lines)


def parse_file(path: Path) -> tuple[Any, dict[str, int]]:
    """Whatever value a YAML, TOML or JSON file holds, and the lines of its keys.

    Raises:
        ConfigError: the file is missing, unreadable, of another kind or malformed.
    """
    readers = {".yaml": _read_yaml, ".yml": _read_yaml, ".json": _read_json, ".toml": _read_toml}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise ConfigError(f"{path} should end in .yaml, .yml, .toml or .json, so that its format is known.")
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"Config file {path} does not exist.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"Config file {path} cannot be read: {error}.") from error
    return reader(path, text)


def _read_yaml(path: Path, text: str) -> tuple[Any, dict[str, int]]:
    loader = _Loader(text)
    try:
        root = loader.get_single_node()
        if root is None:
            return None, {}
        _check_no_circle(root, str(path))
        lines = dict(_lines(root, "", str(path), set()))
        return loader.construct_document(root), lines
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark is not None else ""
        deep = "it is nested too deeply" if isinstance(error, RecursionError) else None
        problem = deep or getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ConfigError(f"{path}{where} is not valid YAML: {problem}.") from error
    finally:
        loader.dispose()


def _read_json(path: Path, text: str) -> tuple[Any, dict[str, int]]:
    try:
        return json.loads(text, object_pairs_hook=lambda pairs: _without_duplicates(path, pairs)), {}
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path}, line {error.lineno} is not valid JSON: {error.msg}.") from error


def _read_toml(path: Path, text: str) -> tuple[Any, dict[str, int]]:
    try:
        return tomllib.loads(text), {}
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not valid TOML: {error}.") from error


def _without_duplicates(path: Path, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    for key in keys:
        if keys.count(key) > 1:
            raise ConfigError(f"{path} has the key {key!r} twice in one place; remove one of them.")
    return dict(pairs)


def _check_no_circle(root: yaml.Node, label: str) -> None:
    """Refuse a YAML value that holds an alias of itself; each is looked into once, however many aliases it has."""
    above: set[int] = set()
    done: set[int] = set()

    def look_into(node: yaml.Node) -> None:
        if id(node) in above:
            line = node.start_mark.line + 1
            raise ConfigError(
                f"{label}, line {line} has a value that holds an alias of itself; write it out."
            )
        if isinstance(node, yaml.CollectionNode) and id(node) not in done:
            above.add(id(node))
            mapping = isinstance(node, yaml.MappingNode)
            for below in (part for pair in node.value for part in pair) if mapping else node.value:
                look_into(below)
            above.remove(id(node))
            done.add(id(node))

    look_into(root)


def _lines(node: yaml.Node, prefix: str, label: str, listed: set[int]) -> Iterator[tuple[str, int]]:
    """(dotted key, line) of every key and item below a YAML node; a key written twice is refused.

    `listed` are the lists walked through; one is walked through once, however many aliases it has.
    """
    if isinstance(node, yaml.SequenceNode) and id(node) not in listed:
        listed.add(id(node))
        for index, item in enumerate(node.value):
            path = f"{prefix}.{index}"
            yield path, item.start_mark.line + 1
            yield from _lines(item, path, label, listed)
    if not isinstance(node, yaml.MappingNode):
        return
    seen: set[str] = set()
    for key, value in node.value:
        path = f"{prefix}.{key.value}" if prefix else str(key.value)
        line = key.start_mark.line + 1
        if path in seen:
            raise ConfigError(f"{label}, line {line} has the key {path!r} a second time; remove one of them.")
        seen.add(path)
        yield path, line
        yield from _lines(value, path, label, listed)
