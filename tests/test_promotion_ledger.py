"""A ledger that was touched is found, and the first line that is not as it was written is named."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.promotions import candidate, history, judge
from townlet_train.errors import LedgerError
from townlet_train.results import PromotionVerifyDTO
from townlet_train.services.promotion import PromotionService
from townlet_train.services.promotion.folder import PromotionFolder

Lines = list[bytes]


class Recorded(NamedTuple):
    """A directory with a history, to be copied, and a place for the copy."""

    template: Path
    work: Path

    @property
    def lines(self) -> Lines:
        """The ledger's lines, with their ends."""
        return (self.template / "ledger.jsonl").read_bytes().splitlines(keepends=True)

    def fresh(self) -> Path:
        """A copy of the directory."""
        shutil.rmtree(self.work, ignore_errors=True)
        return Path(shutil.copytree(self.template, self.work))


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    base = tmp_path_factory.mktemp("recorded")
    history(base)
    return Recorded(base / "promotion", base / "work")


def with_ledger(recorded: Recorded, content: bytes) -> PromotionVerifyDTO:
    """What verifying says of the directory with these bytes as its ledger."""
    folder = recorded.fresh()
    (folder / "ledger.jsonl").write_bytes(content)
    return PromotionService(folder).verify()


def test_a_ledger_as_it_was_written_is_sound(recorded: Recorded) -> None:
    assert len(recorded.lines) > 6
    verified = with_ledger(recorded, b"".join(recorded.lines))
    assert (verified.valid, verified.problems, verified.finished) == (True, (), ())
    assert verified.ledger_sha256 == hashlib.sha256(recorded.lines[-1].rstrip(b"\n")).hexdigest()


def test_every_line_holds_the_hash_of_the_line_before(recorded: Recorded) -> None:
    held = [json.loads(line)["previous"] for line in recorded.lines]
    assert held[0] == "0" * 64
    assert held[1:] == [hashlib.sha256(line.rstrip(b"\n")).hexdigest() for line in recorded.lines[:-1]]


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_any_edited_byte_is_found(recorded: Recorded, data: st.DataObject) -> None:
    content = bytearray(b"".join(recorded.lines))
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] ^= data.draw(st.integers(1, 255))
    assert not with_ledger(recorded, bytes(content)).valid


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_any_line_removed_repeated_or_moved_is_found(recorded: Recorded, data: st.DataObject) -> None:
    lines = recorded.lines
    order = data.draw(st.lists(st.integers(0, len(lines) - 1), max_size=len(lines) + 2))
    changed = b"".join(lines[number] for number in order)
    assert with_ledger(recorded, changed).valid == (order == list(range(len(lines))))


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_any_end_cut_off_is_found(recorded: Recorded, data: st.DataObject) -> None:
    content = b"".join(recorded.lines)
    assert not with_ledger(recorded, content[: data.draw(st.integers(0, len(content) - 1))]).valid


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_whatever_is_added_is_found_or_cut_off_as_half_a_line(
    recorded: Recorded, data: st.DataObject
) -> None:
    content = b"".join(recorded.lines)
    at = data.draw(st.one_of(st.just(len(content)), st.integers(0, len(content))))
    added = data.draw(
        st.one_of(st.binary(min_size=1, max_size=9), st.sampled_from([b"{", b'{"line": ', b"\n", b"\r"]))
    )
    verified = with_ledger(recorded, content[:at] + added + content[at:])
    if verified.valid:
        assert (recorded.work / "ledger.jsonl").read_bytes() == content
        assert verified.finished == (
            "Half a line was cut off ledger.jsonl: the command that wrote it was killed.",
        )


def without(lines: Lines, number: int) -> Lines:
    return lines[: number - 1] + lines[number:]


def twice(lines: Lines, number: int) -> Lines:
    return lines[:number] + lines[number - 1 :]


def swapped(lines: Lines, number: int) -> Lines:
    return [*lines[: number - 1], lines[number], lines[number - 1], *lines[number + 1 :]]


def redated(lines: Lines, number: int) -> Lines:
    year = lines[number - 1].replace(b'"at": "2', b'"at": "1', 1)
    return [*lines[: number - 1], year, *lines[number:]]


def rehashed(lines: Lines, number: int) -> Lines:
    line = lines[number - 1].replace(b'"previous": "', b'"previous": "f', 1)
    return [*lines[: number - 1], line, *lines[number:]]


@pytest.mark.parametrize(
    ("change", "named"),
    [(without, 0), (twice, 1), (swapped, 0), (redated, 0), (rehashed, 0)],
    ids=["removed", "repeated", "moved", "edited", "hash edited"],
)
@pytest.mark.parametrize("number", [1, 3, 6])
def test_the_first_bad_line_is_named(
    change: Callable[[Lines, int], Lines], named: int, number: int, recorded: Recorded
) -> None:
    verified = with_ledger(recorded, b"".join(change(recorded.lines, number)))
    assert [problem.line for problem in verified.problems] == [number + named]
    assert verified.problems[0].problem.startswith(f"Line {number + named} of ledger.jsonl: ")


@pytest.mark.parametrize("change", [without, redated, rehashed])
def test_the_last_line_is_covered_by_the_state(
    change: Callable[[Lines, int], Lines], recorded: Recorded
) -> None:
    last = len(recorded.lines)
    verified = with_ledger(recorded, b"".join(change(recorded.lines, last)))
    assert [problem.line for problem in verified.problems] == [last]


def test_a_chain_made_anew_around_what_could_not_have_happened_is_found(recorded: Recorded) -> None:
    lines, previous = [], "0" * 64
    for raw in recorded.lines:
        line = json.loads(raw)
        if line["event"] == "evaluation" and line["metadata"]["verdict"] == "HOLD":
            line["metadata"]["verdict"] = "PASS"
        text = json.dumps(line | {"previous": previous})
        previous = hashlib.sha256(text.encode()).hexdigest()
        lines.append(f"{text}\n")
    verified = with_ledger(recorded, "".join(lines).encode())
    assert verified.problems[0].problem.startswith("Line 4 of ledger.jsonl: its `state` is not what")


@pytest.mark.parametrize(
    ("touch", "problem"),
    [
        (lambda folder: (folder / "state.json").unlink(), "state.json is missing."),
        (lambda folder: (folder / "state.json").write_text("{"), "state.json is not readable."),
        (
            lambda folder: edit(folder / "state.json", '"pass_streak": 1', '"pass_streak": 2'),
            "state.json is not what 9 lines of ledger.jsonl lead to.",
        ),
        (
            lambda folder: (folder / "release.zip").unlink(),
            "release.zip is missing, and ledger.jsonl releases",
        ),
        (lambda folder: (folder / "release.zip").write_bytes(b"b" * 1000), "release.zip has sha256"),
    ],
    ids=["no state", "no JSON", "edited state", "no release", "another release"],
)
def test_a_state_or_release_that_disagrees_is_found_and_made_anew_from_the_ledger(
    touch: Callable[[Path], object], problem: str, recorded: Recorded
) -> None:
    folder = recorded.fresh()
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    touch(folder)
    service = PromotionService(folder)
    verified = service.verify()
    assert [found.problem[: len(problem)] for found in verified.problems] == [problem]
    assert service.verify(rebuild=True).valid
    assert (folder / "release.zip").read_bytes() == before["release.zip"]
    last = service.history().events[-1]
    assert last.event == "rebuilt"
    assert (last.remark or "").startswith(problem)


def test_a_released_file_that_changed_is_found_and_never_restored(recorded: Recorded) -> None:
    folder = recorded.fresh()
    service = PromotionService(folder)
    for stored in (folder / "releases").iterdir():
        content = bytearray(stored.read_bytes())
        content[500] ^= 1
        stored.write_bytes(content)
    verified = service.verify()
    assert (verified.valid, len(verified.problems), verified.releases) == (False, 2, 2)
    (folder / "release.zip").unlink()
    with pytest.raises(Exception, match="does not have the bytes that were released under this name"):
        service.verify(rebuild=True)


def test_a_released_file_that_is_missing_is_told_to_be_missing(recorded: Recorded) -> None:
    folder = recorded.fresh()
    service = PromotionService(folder)
    for stored in (folder / "releases").iterdir():
        stored.unlink()
    first, _ = service.verify().problems
    assert (
        first.problem == f"{first.file} is missing. Restore the directory from a backup, or begin a new one."
    )
    (folder / "release.zip").unlink()
    with pytest.raises(LedgerError, match="is missing, and it was released"):
        service.verify(rebuild=True)


def test_lines_that_no_state_knew_of_are_found(recorded: Recorded, tmp_path: Path) -> None:
    folder = recorded.fresh()
    state = (folder / "state.json").read_bytes()
    for block in (7, 8):
        judge(PromotionService(folder), "HOLD", candidate(tmp_path, "c"), block)
    (folder / "state.json").write_bytes(state)
    verified = PromotionService(folder).verify()
    assert [problem.line for problem in verified.problems] == [len(recorded.lines) + 1]


def test_examining_changes_nothing(recorded: Recorded) -> None:
    folder = recorded.fresh()
    (folder / "ledger.jsonl").write_bytes(b"".join(recorded.lines) + b'{"line": 1')
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert PromotionFolder(folder).examine().problems == ()
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
