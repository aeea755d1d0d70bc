"""Where nothing can be written, every command that writes says so in a sentence and leaves nothing behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import recordings
from townlet_train.cli import main
from townlet_train.errors import ExitCode

GOLDEN = Path(__file__).parent / "golden"
RUN = GOLDEN / "run-1.0.0"
CAPTURE = "rollout capture --env CartPole-v1 --ticks 5 --towns 1 --policy random --output {place}"
COMMANDS = {
    "capture": CAPTURE,
    "convert": "replay convert one --store memmap --output {place}",
    "merge": "replay merge one two --output {place}",
    "split": "replay split one --output {place}",
    "export": f"export {RUN}/ppo_seed3_model.zip --format npz --output {{place}}",
    "card": f"card {RUN} --output {{place}}",
    "schema": "schema --output {place}",
    "promotion": f"promotion promote --initial {RUN}/ppo_seed3_model.zip --promotion-dir {{place}}",
}
PLACES = {
    "a folder that takes nothing": "/proc/new",
    "a folder below it": "/proc/new/er",
    "below a file": "file/new",
    "a name that is too long": "n" * 300,
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with two captures and a file."""
    recordings.capture(tmp_path / "one")
    recordings.capture(tmp_path / "two", seeds=(7,))
    (tmp_path / "file").write_text("a file")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def content(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def complaint(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line of an error."""
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("Error: ")]
    return line


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("command", COMMANDS)
def test_a_place_that_cannot_be_written_is_told_in_a_sentence(
    folder: Path, capsys: pytest.CaptureFixture[str], command: str, place: str
) -> None:
    before = content(folder)
    code = main(COMMANDS[command].format(place=PLACES[place]).split())
    assert " cannot be written: " in complaint(capsys)
    assert code == ExitCode.FAILED
    assert content(folder) == before


@pytest.mark.parametrize("place", ["/proc/new", "file/new"])
def test_a_minari_folder_that_cannot_be_written_is_told_in_a_sentence(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], place: str
) -> None:
    pytest.importorskip("minari")
    monkeypatch.setenv("MINARI_DATASETS_PATH", place)
    before = content(folder)
    assert main(["minari", "export", "one", "--dataset", "town/counted-v0"]) == ExitCode.FAILED
    assert " cannot be written: " in complaint(capsys)
    assert content(folder) == before


@pytest.mark.parametrize("command", ["export", "card"])
@pytest.mark.parametrize("flags", [[], ["--overwrite"]])
def test_a_directory_is_never_replaced_by_a_file(
    folder: Path, capsys: pytest.CaptureFixture[str], command: str, flags: list[str]
) -> None:
    before = content(folder)
    assert main([*COMMANDS[command].format(place="one").split(), *flags]) == ExitCode.USAGE
    assert "one is a directory; expected a file to write." in complaint(capsys)
    assert content(folder) == before
