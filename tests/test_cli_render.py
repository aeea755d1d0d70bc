from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import pytest
from rich.console import Console

from tests.promotions import history
from townlet_train.contract import Progress
from townlet_train.render import as_document, live_progress, phase_lines, render, text
from townlet_train.results import (
    AnnealSummaryDTO,
    BCTrainingResultDTO,
    EvaluationDTO,
    PPOTrainingResultDTO,
    ResultDTO,
    TrainingResultDTO,
)

WHY = "The guardrail held it back."


class Table(ResultDTO):
    title: str
    rows: tuple[dict[str, object], ...] = ()
    share: dict[str, float] = {}


@dataclass(frozen=True)
class Plain:
    seeds: tuple[int, ...]


def rendered(result: object) -> str:
    stream = io.StringIO()
    render(result, stream)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "-"),
        (True, "yes"),
        (False, "no"),
        (0.123456, "0.1235"),
        (137412.3, "137,412"),
        (float("nan"), "nan"),
        (7, "7"),
        ([], "-"),
        ([1, 2], "1, 2"),
        ([(10, 50), (60, 100)], "[10, 50], [60, 100]"),
        (list(range(64)), "64 values, 0 to 63"),
        ([3.0, float("nan"), *range(9), -2.5, 1], "13 values, -2.5 to 8"),
        (list("jihgfedcba"), "10 values, j to a"),
    ],
)
def test_a_value_is_shown_as_a_person_reads_it(value: object, shown: str) -> None:
    assert text(value) == shown


def test_records_become_a_table_and_nested_values_dotted_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    shown = rendered(
        Table(
            title="[bold]x",
            rows=({"name": "a", "n": 1, "why": ""}, {"name": "b", "n": 20}),
            share={"wait": 0.5},
        )
    )
    lines = [line for line in shown.splitlines() if line and not set(line) <= set(" ─")]
    assert lines == [
        "title       [bold]x",
        "share.wait  0.5",
        "rows",
        " name    n",
        " a       1",
        " b      20",
    ]


def test_a_measurement_is_shown_with_its_interval() -> None:
    shown = rendered(Table(title="x", share={"mean": 1.5, "low": 1.0, "high": 2.0}))
    assert shown.splitlines() == ["title  x", "share  1.5 [1, 2]"]


def test_a_cell_too_long_for_a_terminal_is_cut_there_and_nowhere_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    long = Table(title="x", rows=({"why": "word " * 100},))
    assert "word " * 99 in rendered(long)
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "200")
    render(long, terminal)
    assert "…" in terminal.getvalue()
    assert terminal.getvalue().count("word") < 30


def test_what_a_person_looks_for_is_shown_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)

    class Long(Table):
        shown_last = ("share.high", "title")

    shown = rendered(Long(title="x", rows=({"name": "a"},), share={"high": 2.0, "low": 1.0})).splitlines()
    assert shown[0] == "share.low  1"
    assert shown[-3:] == ["", "share.high  2", "title       x"]


def test_what_training_shows_last_is_a_field_of_its_results() -> None:
    fields: set[str] = set()
    for result in (BCTrainingResultDTO, PPOTrainingResultDTO, AnnealSummaryDTO):
        fields |= set(result.model_fields)
    fields |= {f"evaluation.{name}" for name in EvaluationDTO.model_fields}
    assert set(TrainingResultDTO.shown_last) <= fields


def test_off_a_terminal_a_row_is_one_line_however_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert rendered(Table(title="word " * 100)).count("\n") == 1
    monkeypatch.setenv("COLUMNS", "40")
    assert all(len(line) <= 40 for line in rendered(Table(title="word " * 100)).splitlines())


@pytest.mark.parametrize("width", [40, 50, 60, 80])
def test_in_a_narrow_terminal_every_number_and_every_short_word_is_whole(
    width: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    stages = tuple(
        {
            "stage": "critic_warmup",
            "mean_return": -132.0625,
            "faints": 0.1234,
            "steps": 10_000 + n,
            "why": WHY,
        }
        for n in range(2)
    )
    (tmp_path / "a").mkdir()
    told = {
        rendered(Table(title="x", rows=stages)): ["-132.1", "0.1234", "10000", "10001", *WHY.split()],
        rendered(history(tmp_path / "a").history()): ["rollback", "promoted", "it", "faints", "night"],
    }
    for shown, words in told.items():
        assert max(map(len, shown.splitlines())) <= width
        assert "…" not in shown
        assert [word for word in words if word not in shown.split()] == []


def test_where_a_table_has_room_it_stays_one(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = ({"name": "a", "n": 1}, {"name": "b", "n": 20})
    monkeypatch.setenv("COLUMNS", "40")
    assert " b      20" in rendered(Table(title="x", rows=rows))


def test_every_result_becomes_a_document_with_a_schema_version() -> None:
    assert as_document(Plain((1, 2))) == {"schema_version": "1.0.0", "seeds": (1, 2)}
    assert as_document(Table(title="x"))["schema_version"] == "1.0.0"


def test_an_evaluation_is_readable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    shown = rendered(
        EvaluationDTO(
            policy="expert",
            env="town",
            deterministic=False,
            seeds=tuple(range(64)),
            episode_returns=tuple(float(i) for i in range(64)),
            mean=31.5,
            iqm=31.5,
            ci_low=30.0,
            ci_high=33.0,
        )
    )
    assert "seeds            64 values, 0 to 63" in shown


TRAINING = Progress(
    "ppo",
    17_000,
    50_000,
    {"return": -132.456, "kl": 0.00812, "explained": 0.43, "collect/s": 9131.0, "update/s": 31_249.0},
    live=True,
)


@pytest.mark.parametrize("width", [20, 39, 79, 119, 200])
def test_a_live_line_says_everything_at_any_width_and_fits(width: int) -> None:
    lines = phase_lines(TRAINING, "0:00:03 left", width)
    said = " ".join(lines)
    for word in (
        "34%",
        "0:00:03 left",
        "return -132.5",
        "kl 0.00812",
        "explained 0.43",
        "collect 9.13k/s",
        "update 31.2k/s",
    ):
        assert word in said
    assert max(map(len, lines)) <= max(width, len("ppo 34% 0:00:03 left"))
    assert ("━" in lines[0]) == (width > 30)
    assert (len(lines) == 1) == (width > 100)


def drawn(width: int, reports: list[Progress]) -> str:
    """What a terminal of that width has been sent."""
    console = Console(file=io.StringIO(), force_terminal=True, width=width, color_system=None)
    with live_progress(console) as show:
        for report in reports:
            show(report)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [40, 80])
def test_a_terminal_ends_with_the_newest_report_of_every_phase(width: int) -> None:
    reports = [Progress("capture", 1, 2, {}), Progress("capture", 2, 2, {}), TRAINING]
    last = drawn(width, reports).rpartition("\x1b[2K")[2]
    assert "capture" in drawn(width, reports)
    assert "update 31.2k/s" in last


def test_reports_are_drawn_ten_times_a_second_at_most() -> None:
    reports = [Progress("capture", done, 10_000, {}) for done in range(10_000)]
    assert drawn(80, reports).count("capture") < 100


def test_a_report_without_numbers_leaves_those_shown_before() -> None:
    shown = drawn(80, [TRAINING, Progress("ppo", 50_000, 50_000, {}, live=True)])
    assert "100%" in shown
    assert "kl 0.00812" in shown.partition("100%")[2]
