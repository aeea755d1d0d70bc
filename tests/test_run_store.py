"""Runs are listed, shown, compared, followed and freed of what they can do without, from their directories alone."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from townlet_train.cli import main
from townlet_train.errors import ExitCode, Interrupted, UsageError
from townlet_train.services import leftovers
from townlet_train.services.card import write_card
from townlet_train.services.leftovers import collect_leftovers
from townlet_train.services.recorded import list_runs, show_run
from townlet_train.services.run_diff import diff_runs
from townlet_train.services.run_files import RUN
from townlet_train.services.run_tail import follow_run, tail_run
from townlet_train.services.runs import locked, open_run


def run_at(path: Path, *, seed: int = 1, lines: int = 3, mean: float | None = 12.5, **params: Any) -> Path:
    """A finished run of a made-up strategy, with two checkpoints and a results document."""
    details = {"config": {"env": "town", "town": {"n_agents": 6}}, "params": {"rate": 0.1, **params}}
    origin = {"town.n_agents": "--set", "made_up.rate": "the command line"}
    with open_run(
        path, strategy="made_up", seed=seed, details={**details, "origin": origin}, overwrite=False
    ) as run:
        for number in range(1, lines + 1):
            run.record({"timestep": 100 * number, "reward": float(number)})
        for step in (100, 200, 300):
            (path / f"checkpoint_{step}.zip").write_bytes(b"x" * step)
        result = {
            "warnings": [],
            "evaluation": {"mean": mean, "seeds": [7, 8], "ci_low": 1.0, "ci_high": 20.0},
        }
        document = {"metadata": {"total_timesteps": 300}, "result": result | {"duration_sec": 1.0}}
        (path / f"{run.id}_results.json").write_text(json.dumps({"experiment_results": document}))
    return path


def answer(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    """The exit code of a command, and the one document it prints."""
    code = main([*arguments, "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_runs_are_found_below_a_directory_with_what_became_of_them(tmp_path: Path) -> None:
    run_at(tmp_path / "deep/er/one")
    run_at(tmp_path / "two", seed=2)
    with (
        pytest.raises(Interrupted),
        open_run(tmp_path / "three", strategy="made_up", seed=3, details={}, overwrite=False),
    ):
        raise Interrupted("Stopped.")
    found = list_runs([tmp_path])
    assert [
        (run.run, run.status, run.seed, run.steps, run.return_mean, run.checkpoints) for run in found.runs
    ] == [
        (str(tmp_path / "deep/er/one"), "finished", 1, 300, 12.5, 3),
        (str(tmp_path / "three"), "interrupted", 3, None, None, 0),
        (str(tmp_path / "two"), "finished", 2, 300, 12.5, 3),
    ]
    assert [run.seed for run in list_runs([tmp_path], status="interrupted").runs] == [3]
    assert list_runs([tmp_path], env="CartPole-v1").runs == ()


def killed(run: Path) -> Path:
    """The run as a killed process leaves it: it goes on saying that it is running."""
    (run / RUN).write_text(json.dumps(json.loads((run / RUN).read_text()) | {"status": "running"}))
    return run


def test_the_steps_of_a_finished_run_are_those_of_its_result_else_of_what_came_furthest(
    tmp_path: Path,
) -> None:
    """Lines come every `log_interval`, so the last is often short of the end."""
    run = run_at(tmp_path / "one", lines=3)
    results = run / "made_up_seed1_results.json"
    results.write_text(results.read_text().replace('"total_timesteps": 300', '"total_timesteps": 345'))
    assert show_run(run).steps == 345
    assert show_run(killed(run)).steps == 300
    (run / "checkpoint_340.zip").touch()
    assert [row.steps for row in list_runs([tmp_path]).runs] == [340]
    with (run / "metrics.jsonl").open("a") as stream:
        stream.write('{"timestep": 400}\n')
    assert show_run(run).steps == 400


def test_a_run_is_running_while_somebody_holds_its_lock_and_killed_when_nobody_does(tmp_path: Path) -> None:
    with open_run(tmp_path, strategy="made_up", seed=1, details={}, overwrite=False):
        assert show_run(tmp_path).status == "running"
        asked = [sys.executable, "-m", "townlet_train", "runs", "show", str(tmp_path), "--json"]
        elsewhere = subprocess.run(asked, capture_output=True, text=True, check=True)
        assert json.loads(elsewhere.stdout)["status"] == "running"
        document = (tmp_path / RUN).read_text()
    (tmp_path / RUN).write_text(document)  # as a killed process leaves it
    assert show_run(tmp_path).status == "killed"


def test_a_run_begins_although_somebody_asked_for_its_lock_in_that_instant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, waiting = threading.Event(), threading.Event()

    def ask() -> None:
        with locked(tmp_path):
            asked.set()
            assert waiting.wait(30)

    acquire = FileLock.acquire

    def slowly(self: FileLock, timeout: float) -> object:
        assert timeout > 0
        waiting.set()
        return acquire(self, timeout=30)  # as long as this machine needs

    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(ask)
        assert asked.wait(30)
        monkeypatch.setattr(FileLock, "acquire", slowly)
        with open_run(tmp_path, strategy="made_up", seed=1, details={}, overwrite=False) as run:
            assert run.path == tmp_path
        answer.result()


def test_a_damaged_run_is_listed_as_such_beside_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_at(tmp_path / "good")
    run_at(tmp_path / "torn")
    (tmp_path / "torn" / RUN).write_text('{"status": "fin')
    code, document = answer(capsys, "runs", "list", str(tmp_path))
    assert code == ExitCode.WARNINGS
    assert [run["status"] for run in document["runs"]] == ["finished", "damaged"]
    assert document["warnings"] == [
        f"{tmp_path}/torn/run.json is damaged; expected a JSON object with a status."
    ]


def torn_line(run: Path, line: str = '{"timestep": 40\n') -> str:
    with (run / "metrics.jsonl").open("a") as stream:
        stream.write(line)
    return "metrics.jsonl"


def line_of_no_step(run: Path) -> str:
    return torn_line(run, '{"timestep": "x"}\n')


def torn_results(run: Path) -> str:
    (run / "made_up_seed1_results.json").write_text('{"experiment_results": ')
    return "made_up_seed1_results.json"


def half_a_line(run: Path) -> str:
    return torn_line(run, '{"timestep": 40')


def foreign_seed(run: Path) -> str:
    begun_with(run, seed="x")
    return "run.json"


def foreign_resumption(run: Path) -> str:
    begun_with(run, resumed=5)
    return "run.json"


HARM = (torn_line, half_a_line, line_of_no_step, torn_results, foreign_seed, foreign_resumption)


@pytest.mark.parametrize("harm", HARM)
def test_a_damaged_file_is_told_by_every_command_and_blinds_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], harm: Callable[[Path], str]
) -> None:
    run_at(tmp_path / "good")
    hurt = run_at(tmp_path / "hurt")
    name = harm(hurt)
    code, document = answer(capsys, "runs", "list", str(tmp_path))
    assert code == ExitCode.WARNINGS
    assert [row["damaged"] for row in document["runs"]] == [None, name]
    commands = (["runs", "show"], ["runs", "diff", str(tmp_path / "good")], ["card"])
    for command in commands:
        code, document = answer(capsys, *command, str(hurt))
        assert code == ExitCode.WARNINGS
        assert document["warnings"][0].startswith(f"{hurt / name} is damaged; ")


def test_tail_shows_the_lines_that_can_be_read_and_counts_the_others(tmp_path: Path) -> None:
    run = run_at(tmp_path / "run")
    torn_line(run)
    found = tail_run(run, 3)
    assert [line["timestep"] for line in found.lines] == [200, 300]
    assert found.warnings == (
        f"{run}/metrics.jsonl has 1 damaged lines among its last 3, which were left out.",
    )


def test_runs_below_the_working_directory_are_listed_unless_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_at(tmp_path / "results/experiments/one")
    run_at(tmp_path / "elsewhere/two")
    monkeypatch.chdir(tmp_path)
    _, document = answer(capsys, "runs", "list")
    assert [row["run"] for row in document["runs"]] == ["elsewhere/two", "results/experiments/one"]
    _, document = answer(capsys, "runs", "list", "results")
    assert [row["run"] for row in document["runs"]] == ["results/experiments/one"]


def test_show_tells_the_settings_somebody_chose_and_the_last_line(tmp_path: Path) -> None:
    shown = show_run(run_at(tmp_path / "run", sizes=[64, 64]))
    assert shown.settings == {"town.n_agents": 6, "made_up.rate": 0.1}
    assert shown.params == {"rate": 0.1, "sizes": "[64, 64]"}
    assert (shown.last["timestep"], shown.steps, shown.return_mean) == (300, 300, 12.5)
    assert {"metrics.jsonl", "checkpoint_100.zip", "run.json"} <= {file.file for file in shown.files}


def test_diff_names_what_differs_and_nothing_else(tmp_path: Path) -> None:
    first, second = run_at(tmp_path / "a"), run_at(tmp_path / "b", seed=2, mean=13.0, extra=True)
    found = diff_runs(first, second)
    assert [(each.name, each.first, each.second) for each in found.settings] == [
        ("seed", 1, 2),
        ("params.extra", None, True),
    ]
    assert [(each.name, each.first, each.second) for each in found.reached] == [
        ("evaluation.mean", 12.5, 13.0)
    ]
    assert (found.versions, found.same_settings) == ((), False)
    assert diff_runs(first, first).same_settings


def begun_with(run: Path, **parts: Any) -> Path:
    """The run with parts of its run.json changed."""
    document = json.loads((run / RUN).read_text())
    (run / RUN).write_text(json.dumps(document | parts))
    return run


LINEAGE = {
    "demonstrations": "d.json",
    "demonstrations_sha256": "d",
    "parent_sha256": "p",
    "training_seeds": [[1, 9]],
}
CHOSEN = {"device": "cpu", "network": {"kind": "mlp"}}
FORK = {"checkpoint": "/a/c.zip", "sha256": "p", "fork": True}
ANOTHER: dict[str, tuple[dict[str, Any], list[str]]] = {
    "other demonstrations": (
        {"lineage": {**LINEAGE, "demonstrations_sha256": "e"}},
        ["lineage.demonstrations_sha256"],
    ),
    "another parent": ({"lineage": {**LINEAGE, "parent_sha256": "q"}}, ["lineage.parent_sha256"]),
    "no parent, not ended": ({"lineage": None, "start": None}, ["lineage.parent_sha256"]),
    "another device": ({"chosen": {**CHOSEN, "device": "cuda"}}, ["chosen.device"]),
    "resumed from its own": ({"start": {"checkpoint": "/b/c.zip", "sha256": "c", "fork": False}}, []),
    "killed": ({"lineage": None, "chosen": None}, []),
    "of another place and length": (
        {"lineage": {**LINEAGE, "demonstrations": "e", "training_seeds": [[1, 2]]}},
        [],
    ),
}


@pytest.mark.parametrize("what", ANOTHER)
def test_runs_that_began_with_something_else_are_not_the_same(tmp_path: Path, what: str) -> None:
    parts, names = ANOTHER[what]
    alike = {"start": FORK, "lineage": LINEAGE, "chosen": CHOSEN}
    first = begun_with(run_at(tmp_path / "a"), **alike)
    second = begun_with(run_at(tmp_path / "b"), **alike | parts)
    found = diff_runs(first, second)
    assert [each.name for each in found.settings] == names
    assert found.same_settings == (not names)


def test_half_a_last_line_is_what_a_kill_leaves_and_no_damage(tmp_path: Path) -> None:
    run = killed(run_at(tmp_path / "run", lines=5))
    torn_line(run, '{"timestep": 60')
    assert show_run(run).warnings == tail_run(run, 2).warnings == ()
    assert [line["timestep"] for line in tail_run(run, 2).lines] == [400, 500]
    assert [line["timestep"] for line in tail_run(run, 99).lines] == [100, 200, 300, 400, 500]


def test_tail_reads_only_the_end_of_a_long_log(tmp_path: Path) -> None:
    run = run_at(tmp_path / "run", lines=1)
    long = "".join(json.dumps({"timestep": number, "pad": "x" * 500}) + "\n" for number in range(1000))
    (run / "metrics.jsonl").write_text("this is no line of a log\n" + long)
    assert [line["timestep"] for line in tail_run(run, 300).lines] == [*range(700, 1000)]


def test_following_gives_each_line_as_it_is_recorded_until_the_run_ends(tmp_path: Path) -> None:
    seen: list[int] = []
    with open_run(tmp_path, strategy="made_up", seed=1, details={}, overwrite=False) as run:
        for number in range(3):
            run.record({"timestep": number})
        waits = 0

        def wait() -> None:
            nonlocal waits
            waits += 1
            if waits == 1:
                run.record({"timestep": 3})
            else:
                run.update(status="finished")

        for line in follow_run(tmp_path, 2, wait):
            seen.append(json.loads(line)["timestep"])
    assert seen == [1, 2, 3]


@pytest.mark.parametrize("read", [lambda run: list(follow_run(run, 2)), lambda run: tail_run(run, 2).lines])
def test_the_last_lines_of_a_long_log_take_no_memory_for_the_others(
    tmp_path: Path, read: Callable[[Path], Sequence[object]]
) -> None:
    run = run_at(tmp_path / "run", lines=1)
    line = json.dumps({"timestep": 1, "pad": "x" * 1000}) + "\n"
    (run / "metrics.jsonl").write_text(line * 4000)
    tracemalloc.start()
    try:
        assert len(read(run)) == 2
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_following_a_log_whose_last_line_is_not_whole_gives_it_once_it_is(tmp_path: Path) -> None:
    with open_run(tmp_path, strategy="made_up", seed=1, details={}, overwrite=False) as run:
        run.record({"timestep": 1})
        log = tmp_path / "metrics.jsonl"
        with log.open("a") as stream:
            stream.write('{"timestep": ')

        def wait() -> None:
            with log.open("a") as stream:
                stream.write("2}\n")
            run.update(status="finished")

        assert [json.loads(line)["timestep"] for line in follow_run(tmp_path, 9, wait)] == [1, 2]


def test_a_line_separator_within_a_text_does_not_tear_a_line(tmp_path: Path) -> None:
    told = "one\u2028two\x85three"
    with open_run(tmp_path, strategy="made_up", seed=1, details={}, overwrite=False) as run:
        run.record({"timestep": 1, "told": told})
        run.record({"timestep": 2})
    assert [json.loads(line)["timestep"] for line in follow_run(tmp_path, 9)] == [1, 2]
    assert tail_run(tmp_path, 2).lines[0]["told"] == told


def test_gc_lists_first_and_deletes_only_when_told(tmp_path: Path) -> None:
    run = run_at(tmp_path / "run")
    (run / ".model.zip.abc.partial").write_bytes(b"half")
    (run / "made_up_seed1_model.zip").write_bytes(b"model")
    listed = collect_leftovers([tmp_path], keep=2, delete=False)
    assert [Path(file.path).name for file in listed.files] == ["checkpoint_100.zip", ".model.zip.abc.partial"]
    assert (listed.bytes, listed.deleted, len(list(run.glob("*.zip")))) == (104, False, 4)
    collect_leftovers([tmp_path], keep=1, delete=True)
    left = sorted(file.name for file in run.iterdir() if file.suffix in (".zip", ".partial"))
    assert left == ["checkpoint_300.zip", "made_up_seed1_model.zip"]


def test_a_folder_that_cannot_be_read_is_told_and_the_others_are_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_at(tmp_path / "hidden/run")
    run_at(tmp_path / "open/run")
    hidden, scandir = str(tmp_path / "hidden"), os.scandir

    def refusing(path: Any) -> Any:  # which no mode of a folder does to the superuser
        if os.fspath(path) == hidden:
            raise PermissionError(errno.EACCES, "Permission denied", hidden)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    sentence = f"{hidden} cannot be read, and runs in it were left out: Permission denied."
    found = list_runs([tmp_path])
    assert [run.run for run in found.runs] == [str(tmp_path / "open/run")]
    assert found.warnings == (sentence,)
    assert collect_leftovers([tmp_path], keep=2, delete=False).warnings == (sentence,)


@pytest.mark.parametrize("by", ["path", "sha256", "path from here", "path from there"])
def test_gc_keeps_a_checkpoint_that_another_run_or_a_promotion_names(
    tmp_path: Path, by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from townlet_train.files import sha256_of

    monkeypatch.chdir(tmp_path)

    run = run_at(tmp_path / "run")
    checkpoint = run / "checkpoint_100.zip"
    name = {
        "path": str(checkpoint),
        "sha256": sha256_of(checkpoint),
        "path from here": "run/checkpoint_100.zip",
        "path from there": "../run/checkpoint_100.zip",
    }[by]
    (tmp_path / "promotion").mkdir()
    (tmp_path / "promotion/ledger.jsonl").write_text(json.dumps({"candidate": {"named": name}}) + "\n")
    found = collect_leftovers([tmp_path], keep=1, delete=True)
    assert (found.protected, [Path(file.path).name for file in found.files]) == (1, ["checkpoint_200.zip"])
    assert checkpoint.exists()


def test_gc_chooses_when_nobody_else_can_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_at(tmp_path / "run")

    @contextmanager
    def trained_meanwhile(path: Path) -> Iterator[None]:
        (path / "checkpoint_300.zip").unlink()
        yield

    monkeypatch.setattr(leftovers, "locked", trained_meanwhile)
    collect_leftovers([tmp_path], keep=1, delete=True)
    assert [path.name for path in run.glob("checkpoint_*.zip")] == ["checkpoint_200.zip"]


def test_gc_finds_what_is_half_written_at_any_depth_and_counts_it_once(tmp_path: Path) -> None:
    inner = run_at(tmp_path / "run") / "stages/1/.demonstrations.abc.partial"
    inner.mkdir(parents=True)
    (inner / ".sample.npz.abc.partial").write_bytes(b"half")
    found = collect_leftovers([tmp_path], keep=3, delete=True)
    assert ([file.path for file in found.files], found.bytes) == ([str(inner)], 4)
    assert not inner.exists()


def test_gc_keeps_a_checkpoint_that_a_ledger_names_beside_a_line_separator(tmp_path: Path) -> None:
    checkpoint = run_at(tmp_path / "run") / "checkpoint_100.zip"
    line = json.dumps({"note": "one\u2028two", "candidate": str(checkpoint)}, ensure_ascii=False)
    (tmp_path / "ledger.jsonl").write_text(line + "\n", encoding="utf-8")
    assert collect_leftovers([tmp_path], keep=1, delete=True).protected == 1
    assert checkpoint.exists()


def test_gc_leaves_a_run_at_work_alone_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with open_run(tmp_path / "run", strategy="made_up", seed=1, details={}, overwrite=False):
        for step in (1, 2, 3):
            (tmp_path / f"run/checkpoint_{step}.zip").touch()
        code, document = answer(capsys, "runs", "gc", str(tmp_path), "--delete")
    assert (code, document["files"]) == (ExitCode.WARNINGS, [])
    assert document["warnings"] == [f"{tmp_path}/run is running and was left alone."]
    assert (tmp_path / "run/checkpoint_1.zip").exists()


def test_a_card_says_what_was_recorded_and_names_what_was_not(tmp_path: Path) -> None:
    card = write_card(run_at(tmp_path / "run", hidden=None), tmp_path / "CARD.md")
    text = (tmp_path / "CARD.md").read_text()
    assert text == card.markdown
    for line in (
        "# made_up_seed1",
        "| mean return | 12.5 |",
        "| seeds | 7 to 8 |",
        "| 95 % interval | 1 to 20 |",
    ):
        assert line in text.splitlines()
    assert "| hidden | left open |" in text
    assert "## Lineage\n\nnot recorded" in text
    assert {"Lineage", "Model: file", "Training: device", "Held-out evaluation: actions"} <= set(
        card.not_recorded
    )
    assert card.warnings == (f"{tmp_path}/run holds no model file; it is finished.",)
    assert "| times resumed | 0 |" in text
    assert "solved at" not in text  # the environment names no such return
    assert "converged" not in text


def test_a_card_of_a_damaged_run_does_not_say_how_often_it_was_resumed(tmp_path: Path) -> None:
    run = run_at(tmp_path / "run")
    (run / RUN).write_text("{")
    assert "Training: times resumed" in write_card(run, None).not_recorded


def test_a_card_names_every_model_file_where_there_are_two(tmp_path: Path) -> None:
    run = run_at(tmp_path / "run")
    for name in ("a_model.zip", "b_model.zip"):
        (run / name).touch()
    assert write_card(run, None).warnings == (
        f"{run} holds 2 model files, a_model.zip and b_model.zip; expected one. Move the others away.",
    )


def test_a_card_is_not_written_over_another_unless_told(tmp_path: Path) -> None:
    run = run_at(tmp_path / "run")
    (tmp_path / "CARD.md").write_text("mine")
    with pytest.raises(UsageError, match=r"CARD\.md exists. Choose another --output or pass --overwrite"):
        write_card(run, tmp_path / "CARD.md")
    write_card(run, tmp_path / "CARD.md", overwrite=True)
    assert (tmp_path / "CARD.md").read_text() != "mine"


def test_a_card_warns_of_a_model_that_is_no_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_at(tmp_path / "run")
    (run / "made_up_seed1_model.zip").write_bytes(b"no zip")
    code, document = answer(capsys, "card", str(run))
    assert code == ExitCode.WARNINGS
    assert "is not a whole zip archive" in document["warnings"][0]
    assert "| features | not recorded |" in document["markdown"]


@pytest.mark.torch
def test_the_card_of_a_trained_policy_has_its_hash_and_its_interval(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from tests.short_runs import train

    result = train(tmp_path / "run")
    card = write_card(tmp_path / "run", None)
    assert card.not_recorded == ("Held-out evaluation: converged",)  # two episodes do not tell
    assert card.warnings == ()
    assert f"| sha256 | {result.checkpoint_sha256} |" in card.markdown
    assert "| actions | sampled |" in card.markdown


BAD = {
    "no directory": (
        ["runs", "list", "nowhere"],
        "nowhere is not a directory; expected one that holds runs.",
    ),
    "no run": (["runs", "show", "."], "holds no run.json; expected the directory of a run."),
    "a missing run": (["card", "nowhere"], "nowhere does not exist; expected the directory of a run."),
    "a file": (["runs", "tail", "file"], "file is a file; expected the directory of a run."),
    "one of two": (["runs", "diff", "nowhere", "nowhere"], "nowhere does not exist"),
    "two ways of printing": (["runs", "tail", ".", "--follow", "--json"], "Choose one of them."),
    "nothing kept": (["runs", "gc", ".", "--keep", "0"], "should be greater than or equal to 1"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_input_is_refused_in_a_sentence(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    arguments, sentence = BAD[kind]
    assert main(arguments) == ExitCode.USAGE
    assert sentence in capsys.readouterr().err
