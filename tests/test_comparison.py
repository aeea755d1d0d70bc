"""`townlet-train compare`: runs are the sample, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from townlet_train.cli import main
from townlet_train.services.comparison import compare_runs


def run(folder: Path, strategy: str, seed: int, value: float, **more: Any) -> Path:
    """A run directory with its results document."""
    name = f"{strategy}_seed{seed}"
    (folder / name).mkdir(exist_ok=True)
    metadata = {
        "algorithm": strategy.upper(),
        "environment": "Lander",
        "seed": seed,
        "total_timesteps": 50_000,
    }
    document = {
        "metadata": {**metadata, **more.pop("metadata", {})},
        "hyperparameters": {"learning_rate": more.pop("learning_rate", 0.1)},
        "result": {"evaluation": {"mean": value, "iqm": value}, "final_reward_mean": value - 1, **more},
    }
    (folder / name / f"{name}_results.json").write_text(json.dumps({"experiment_results": document}))
    return folder / name


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    ppo = [run(tmp_path, "ppo", seed, value) for seed, value in enumerate((10, 11, 12, 13, 50))]
    return ppo + [run(tmp_path, "a2c", seed, value) for seed, value in enumerate((1, 2, 3, 4, 20))]


def test_methods_are_compared_by_the_middle_of_their_runs(runs: list[Path]) -> None:
    result = compare_runs(runs)
    assert [(method.group, method.runs) for method in result.methods] == [("ppo", 5), ("a2c", 5)]
    # of five, a quarter of 1.25 runs is cut from each end: (0.75 * 11 + 12 + 0.75 * 13) / 2.5
    assert result.methods[0].iqm == pytest.approx(12)
    [pair] = result.pairs
    assert pair.difference == pytest.approx(9)
    assert pair.improvement == pytest.approx(21 / 25)
    assert pair.difference_low < 9 < pair.difference_high
    assert result.warnings == ()


def test_the_order_of_runs_and_a_second_call_change_nothing(runs: list[Path]) -> None:
    assert compare_runs(runs) == compare_runs(runs)


def test_a_difference_that_is_shown_is_told_and_one_that_is_not_is_not(
    tmp_path: Path, runs: list[Path]
) -> None:
    far = [run(tmp_path, "best", seed, 1000 + seed) for seed in range(5)]
    answers = compare_runs([*runs, *far]).answer
    assert answers[1].startswith("On Lander best is better than ppo")
    close = [run(tmp_path, "same", seed, 8 + 2 * seed) for seed in range(5)]
    assert "neither ppo nor same is shown to be better" in compare_runs([*runs[:5], *close]).answer[0]


def test_a_table_says_that_an_improvement_is_a_chance(
    runs: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    main(["compare", *map(str, runs)])
    shown = capsys.readouterr().out
    assert "chance_first_wins  chance_low  chance_high" in " ".join(shown.split()).replace(" ", "  ")
    assert "improvement" not in shown


def test_one_run_is_no_sample_of_a_method(runs: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(runs[0]), *map(str, runs[5:])]) == 3
    assert "its episodes are no sample of the method" in capsys.readouterr().err


def test_the_same_seed_twice_is_one_run(runs: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", *map(str, [*runs, runs[0]])]) == 3
    assert "2 runs of seed 0" in capsys.readouterr().err


def test_few_runs_and_unequal_training_are_warned_of(tmp_path: Path, runs: list[Path]) -> None:
    other = [run(tmp_path, "bc", seed, seed, metadata={"total_timesteps": 10}) for seed in range(2)]
    warnings = compare_runs([*runs, *other]).warnings
    assert len(warnings) == 2
    assert "bc on Lander has 2 runs" in warnings[0]
    assert "10 to 50000 steps" in warnings[1]


def test_of_too_few_runs_nothing_is_said_to_be_better(tmp_path: Path, runs: list[Path]) -> None:
    far = [run(tmp_path, "best", seed, 1000 + seed) for seed in range(3)]
    [answer] = compare_runs([*runs[:5], *far]).answer
    assert "it cannot be told whether ppo or best is better: 5 and 3 runs are too few" in answer


def test_runs_can_be_told_apart_by_a_param(tmp_path: Path) -> None:
    (tmp_path / "slow").mkdir()
    fast = [run(tmp_path, "ppo", seed, seed, learning_rate=0.3) for seed in range(3)]
    slow = [run(tmp_path / "slow", "ppo", seed, seed, learning_rate=0.1) for seed in range(3)]
    result = compare_runs([*fast, *slow], by=("strategy", "learning_rate"))
    assert [method.group for method in result.methods] == ["ppo learning_rate=0.3", "ppo learning_rate=0.1"]


def test_a_param_nobody_has_names_the_likely_one(
    runs: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", *map(str, runs), "--by", "learning_rat"]) == 3
    assert "Did you mean 'learning_rate'" in capsys.readouterr().err


def test_a_metric_that_one_run_lacks_is_not_chosen(tmp_path: Path, runs: list[Path]) -> None:
    without = [run(tmp_path, "bc", seed, seed, evaluation=None) for seed in range(2)]
    assert compare_runs([*runs, *without]).metric == "final_reward_mean"
    assert compare_runs(runs).metric == "evaluation.mean"


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda document: "no json", "Invalid JSON"),
        (lambda document: {}, "experiment_results: Field required"),
        (lambda document: {"experiment_results": []}, "experiment_results: Input should be"),
        (lambda document: with_part(document, "metadata", seed="x"), "metadata.seed: Input should be"),
        (
            lambda document: with_part(document, "metadata", total_timesteps="many"),
            "metadata.total_timesteps:",
        ),
        (lambda document: with_part(document, "result", evaluation=5), "result.evaluation: Input should be"),
        (lambda document: {"experiment_results": document["experiment_results"] | {"result": []}}, "result:"),
    ],
)
def test_what_is_no_result_of_a_run_is_refused_in_words(
    damage: Callable[[Any], Any],
    told: str,
    tmp_path: Path,
    runs: list[Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    whole, damaged = next(runs[0].glob("*_results.json")), tmp_path / "bad_results.json"
    content = damage(json.loads(whole.read_text()))
    damaged.write_text(content if isinstance(content, str) else json.dumps(content))
    assert main(["compare", *map(str, runs), str(damaged)]) == 3
    said = capsys.readouterr().err
    assert f"{damaged} is not the results document of a run (" in said
    assert told in said


def with_part(document: Any, part: str, **changed: object) -> Any:
    """A results document with other values in one of its parts."""
    parts = document["experiment_results"]
    return {"experiment_results": parts | {part: parts[part] | changed}}


def test_a_directory_without_a_finished_run_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    assert main(["compare", str(tmp_path / "empty")]) == 3
    assert "holds 0 ..._results.json files" in capsys.readouterr().err


def test_the_document_and_the_table_say_the_same(
    runs: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", *map(str, runs), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert main(["compare", *map(str, runs)]) == 0
    assert document["answer"][0] in capsys.readouterr().out
