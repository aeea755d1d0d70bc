"""The drawing of the package's layers is the one that import-linter enforces."""

from __future__ import annotations

import tomllib
from typing import Any

import townlet_train
from tests.contract.markdown import DOCS, ROOT, blocks

CONTRACTS: dict[str, dict[str, Any]] = {
    contract["id"]: contract
    for contract in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
}


def drawn_layers() -> list[str]:
    """The layers of the drawing, top first; those side by side are in one line, as in the contract."""
    [drawing] = [block.text for block in blocks(DOCS / "how-a-run-flows.md") if block.language == "layers"]
    return [line.partition("   ")[0].strip() for line in drawing.splitlines()]


def test_the_drawing_shows_the_layers_of_the_contract_in_their_order() -> None:
    assert drawn_layers() == [layer.strip("()") for layer in CONTRACTS["layers"]["layers"]]


def test_every_part_of_the_package_is_in_the_drawing() -> None:
    [package] = townlet_train.__path__
    parts = {
        path.stem
        for path in (ROOT / package).iterdir()
        if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    drawn = {name for line in drawn_layers() for name in line.split(" | ")}
    assert parts - {"__init__", "__main__"} <= drawn


def test_no_contract_ignores_an_import() -> None:
    assert [name for name, contract in CONTRACTS.items() if contract.get("ignore_imports")] == []


def test_torch_is_forbidden_everywhere_but_in_learners_and_in_what_imports_them() -> None:
    drawn = {name for line in drawn_layers() for name in line.split(" | ")}
    forbidden = {module.removeprefix("townlet_train.") for module in CONTRACTS["torch"]["source_modules"]}
    assert drawn - forbidden == {"learners", "strategies", "testing"}
