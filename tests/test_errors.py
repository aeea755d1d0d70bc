"""The tree of errors is the one that its docstring draws, and a sentence says what was meant."""

from __future__ import annotations

import doctest
import inspect
import re

import pytest

from townlet_train import errors
from townlet_train.errors import ExitCode, TownletTrainError, UnknownNameError, suggestion

CLASSES = {
    name: value
    for name, value in vars(errors).items()
    if inspect.isclass(value) and issubclass(value, TownletTrainError)
}


def drawn_tree() -> dict[str, tuple[str | None, int]]:
    """Parent and exit code of every class in the docstring's drawing."""
    tree: dict[str, tuple[str | None, int]] = {}
    branch: list[tuple[int, str]] = []
    for line in str(errors.__doc__).splitlines():
        row = re.match(r"(?P<indent>[\s│├└─]*)(?P<name>[A-Z]\w+) +(?P<code>\d+) ", line)
        if row is None:
            continue
        while branch and branch[-1][0] >= len(row["indent"]):
            branch.pop()
        tree[row["name"]] = (branch[-1][1] if branch else None, int(row["code"]))
        branch.append((len(row["indent"]), row["name"]))
    return tree


def test_the_drawing_is_the_tree() -> None:
    assert drawn_tree() == {
        name: (error.__bases__[0].__name__ if error is not TownletTrainError else None, int(error.exit_code))
        for name, error in CLASSES.items()
    }


def test_every_error_has_one_parent_and_a_sentence_about_itself() -> None:
    ours = [[base for base in error.__bases__ if base in CLASSES.values()] for error in CLASSES.values()]
    assert all(
        len(parents) == (0 if error is TownletTrainError else 1)
        for parents, error in zip(ours, CLASSES.values(), strict=True)
    )
    assert all(error.__doc__ for error in CLASSES.values())


def test_no_error_ends_the_program_like_a_success_or_a_verdict() -> None:
    taken = {ExitCode.OK, ExitCode.WARNINGS, ExitCode.HOLD, ExitCode.FAIL, ExitCode.READER_GONE}
    assert {error.exit_code for error in CLASSES.values()} == set(ExitCode) - taken


def test_the_examples_in_the_docstrings_are_true() -> None:
    outcome = doctest.testmod(errors)
    assert outcome.attempted > 0
    assert outcome.failed == 0


@pytest.mark.parametrize(
    ("name", "known", "sentence"),
    [
        ("bcc", ["bc", "ppo"], "No strategy named 'bcc'. Did you mean 'bc'? Known: bc, ppo."),
        ("xyz", ["ppo", "bc"], "No strategy named 'xyz'. Known: bc, ppo."),
        ("bc", [], "No strategy named 'bc'. Known: none."),
    ],
)
def test_an_unknown_name_is_told_with_the_known_ones(name: str, known: list[str], sentence: str) -> None:
    assert str(UnknownNameError("strategy", name, iter(known))) == sentence


def test_a_suggestion_needs_a_likeness() -> None:
    assert suggestion("learning_rat", ["learning_rate", "seed"]) == " Did you mean 'learning_rate'?"
    assert suggestion("q", ["learning_rate", "seed"]) == ""


def test_a_suggestion_is_found_in_any_case() -> None:
    assert suggestion("ONNX", ["npz", "onnx"]) == " Did you mean 'onnx'?"
    assert suggestion("evaluationdto", ["EvaluationDTO", "run"]) == " Did you mean 'EvaluationDTO'?"
