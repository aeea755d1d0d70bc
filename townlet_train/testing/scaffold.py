"""A distribution to begin with, written from the templates that come with the program."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from string import Template

from townlet_train import __version__
from townlet_train.errors import UsageError
from townlet_train.files import atomic_directory
from townlet_train.hookspecs import API_VERSION
from townlet_train.results import NewPluginDTO

PREFIX = "townlet-train-"
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_LONGEST = 40  # characters of a name

_BOTH = {
    "pyproject.toml": "both/pyproject.toml.tmpl",
    "README.md": "both/README.md.tmpl",
    ".gitignore": "both/gitignore.tmpl",
    ".github/workflows/test.yml": "both/ci.yml.tmpl",
    "tests/test_$key.py": "both/test.py.tmpl",
}
_PLAIN = {"$module/__init__.py": "plain/init.py.tmpl"}
_TORCH = {"$module/__init__.py": "torch/init.py.tmpl", "$module/learner.py": "torch/learner.py.tmpl"}


def write_plugin(name: str, folder: Path, *, torch: bool, taken: Iterable[str]) -> NewPluginDTO:
    """A distribution with one strategy called `name` in `folder`, whole or not at all.

    `taken` are names that the strategy must not have.

    Raises:
        UsageError: the name cannot be one, somebody has it, or the distribution's folder is there already.
    """
    name = name.removeprefix(PREFIX)
    _check_name(name, taken)
    words = _words(name, torch=torch)
    target = folder / words["distribution"]
    if target.exists():
        raise UsageError(f"{target} is there already. Choose another name or --output-dir.")
    files = {
        Template(path).substitute(words): Template(_template(source)).substitute(words)
        for path, source in {**_BOTH, **(_TORCH if torch else _PLAIN)}.items()
    }
    with atomic_directory(target) as partial:
        for path, text in files.items():
            (partial / path).parent.mkdir(parents=True, exist_ok=True)
            (partial / path).write_text(text, encoding="utf-8")
    return NewPluginDTO(
        folder=str(target),
        distribution=words["distribution"],
        strategy=name,
        files=tuple(sorted(files)),
        next_steps=(
            f"pip install -e {target}",
            f"townlet-train {name} --help",
            f"townlet-train plugins check {name}",
        ),
    )


def _check_name(name: str, taken: Iterable[str]) -> None:
    if not _NAME.fullmatch(name) or len(name) > _LONGEST:
        raise UsageError(
            f"A strategy cannot be named {name!r}. Use lower-case words joined by hyphens, as my-strategy, of at "
            f"most {_LONGEST} characters."
        )
    if name in taken:
        raise UsageError(
            f"The name {name!r} is taken by a command or strategy that is installed. Choose another."
        )


def _words(name: str, *, torch: bool) -> Mapping[str, str]:
    """What the templates leave open."""
    key = name.replace("-", "_")
    camel = "".join(word.capitalize() for word in name.split("-"))
    further = (
        "\n`learner.py` says how it learns; collecting, saving, resuming and evaluating are townlet-train's.\n"
        if torch
        else "\nIt is declared and run there; a file of its own for what it computes keeps the import quick.\n"
    )
    return {
        "name": name,
        "key": key,
        "distribution": f"{PREFIX}{name}",
        "module": f"townlet_train_{key}",
        "strategy": camel,
        "params": f"{camel}Params",
        "result": f"{camel}Result",
        "learner": f"{camel}Learner",
        "declared": "__init__.py",
        "requires": f"townlet-train{'[torch]' if torch else ''}>={'.'.join(__version__.split('.')[:2])},<1",
        "api_version": str(API_VERSION),
        "so_far": "it is a policy gradient with a learned baseline." if torch else "it acts at random.",
        "further": further,
    }


def _template(source: str) -> str:
    return (
        resources.files("townlet_train.testing").joinpath("templates", *source.split("/")).read_text("utf-8")
    )
