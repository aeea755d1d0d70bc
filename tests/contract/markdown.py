"""The documentation as data: its pages, code blocks, tables and the commands it shows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = (ROOT / "README.md", *sorted(DOCS.rglob("*.md")))
PROGRAM = "townlet-train"

_FENCE = re.compile(r"^(?:`(?P<file>[\w./-]+)`\n+)?```(?P<language>\w*)\n(?P<text>.*?)^```$", re.M | re.S)
_INDENTED = re.compile(r"(?:^ {4}.*\n)+", re.M)


class Block(NamedTuple):
    """A fenced or indented block; `file` is the name in backquotes on the line above it, if any."""

    language: str
    text: str
    file: str | None = None


def blocks(page: Path) -> list[Block]:
    """Every block of a page, fenced ones first."""
    text = page.read_text(encoding="utf-8")
    fenced = [Block(match["language"], match["text"], match["file"]) for match in _FENCE.finditer(text)]
    return fenced + [Block("", block) for block in _INDENTED.findall(_FENCE.sub("", text))]


def commands(page: Path) -> Iterator[str]:
    """Every command line of ours that a page shows, in a block or in the text, without prompt, target and comment."""
    text = page.read_text(encoding="utf-8")
    yield from re.findall(rf"(?<!`)`({PROGRAM} [^`]+)`", text)
    for block in blocks(page):
        for line in block.text.replace("\\\n", " ").splitlines():
            command = line.strip().removeprefix("$ ").partition("  #")[0].partition(" > ")[0].strip()
            if command.startswith(f"{PROGRAM} "):
                yield command


def documented(page: Path) -> dict[str, set[str]]:
    """What each section of a page explains: the names in backquotes in the first cells of its tables' rows."""
    found: dict[str, set[str]] = {}
    heading = ""
    for line in page.read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            heading = line.lstrip("# ")
        elif line.startswith("| `"):
            found.setdefault(heading, set()).update(re.findall(r"`([^`]+)`", line.split("|")[1]))
    return found


def links(page: Path) -> list[str]:
    """Targets of a page's links that stay within the repository."""
    targets = re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    return [target for target in targets if not re.match(r"[a-z]+:", target)]
