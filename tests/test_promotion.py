"""Promotion: what counts towards it, what is released, and that ledger, state and release always agree."""

from __future__ import annotations

import json
import resource
import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import SPEC
from tests.policies import MLP, small_checkpoint
from tests.promotions import EPISODES, candidate, history, judge, release
from townlet_train.cli import main
from townlet_train.config import RunConfig
from townlet_train.data.checkpoint import save_checkpoint
from townlet_train.envs.build import spec_of
from townlet_train.errors import CheckpointError, LedgerError, UsageError
from townlet_train.files import sha256_of
from townlet_train.policies.network import NetworkSpec
from townlet_train.services.promotion import (
    PromotionCandidate,
    PromotionService,
    PromotionStatus,
    gate_evidence,
)

PROGRAM = [sys.executable, "-m", "townlet_train", "promotion"]


@pytest.fixture
def service(tmp_path: Path) -> PromotionService:
    return PromotionService(tmp_path / "promotion")


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a directory but its lock."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


def by_hand(folder: Path) -> Path:
    """A real checkpoint that no gate has seen."""
    save_checkpoint(folder / "hand.zip", small_checkpoint(MLP, SPEC))
    return folder / "hand.zip"


def gate_document(of: PromotionCandidate, block: int, verdict: str = "PASS", **more: Any) -> dict[str, Any]:
    """What a gate prints, as far as promotion reads it."""
    return {
        "schema_version": "1.0.0",
        "verdict": verdict,
        "candidate": str(of.checkpoint),
        "candidate_sha256": of.sha256,
        "release_sha256": None,
        "seeds": list(range(1000 * block, 1000 * block + EPISODES)),
        "criteria": [{"criterion": "mean", "candidate": 41.5}, {"criterion": "faints", "candidate": None}],
        **more,
    }


# What counts


def test_a_candidate_is_ready_after_two_passes_on_seeds_of_their_own(
    service: PromotionService, tmp_path: Path
) -> None:
    a = candidate(tmp_path, "a")
    first = judge(service, "PASS", a, 1)
    assert (first.state, first.pass_streak, first.candidate_ready) == ("monitoring", 1, False)
    second = judge(service, "PASS", a, 2)
    assert (second.state, second.pass_streak, second.candidate_ready_tick) == ("ready", 2, 2)
    assert service.candidate_ready
    promoted = service.promote()
    assert (promoted.state, promoted.pass_streak, promoted.candidate) == ("promoted", 0, None)
    assert service.release == tmp_path / "promotion/release.zip"
    assert service.release.read_bytes() == a.checkpoint.read_bytes()


@pytest.mark.parametrize("status", ["HOLD", "FAIL"])
def test_any_other_verdict_ends_the_streak(status: Any, service: PromotionService, tmp_path: Path) -> None:
    a = candidate(tmp_path, "a")
    for block in (1, 2):
        judge(service, "PASS", a, block)
    ended = judge(service, status, a, 3)
    assert (ended.state, ended.pass_streak, ended.last_result) == ("monitoring", 0, status.lower())
    with pytest.raises(UsageError, match=r"No candidate is ready for promotion: 0 of 2 PASSes so far"):
        service.promote()


def test_another_candidate_begins_a_streak_of_its_own(service: PromotionService, tmp_path: Path) -> None:
    for block in (1, 2):
        judge(service, "PASS", candidate(tmp_path, "a"), block)
    other = judge(service, "PASS", candidate(tmp_path, "b"), 3)
    assert (other.state, other.pass_streak) == ("monitoring", 1)
    assert other.candidate is not None
    assert other.candidate.checkpoint.endswith("b.zip")


@pytest.mark.parametrize("status", ["PASS", "HOLD"])
def test_seeds_that_judged_a_candidate_before_do_not_count_again(
    status: Any, service: PromotionService, tmp_path: Path
) -> None:
    a = candidate(tmp_path, "a")
    judge(service, status, a, 1)
    judge(service, "PASS", a, 2)
    before = service.status()
    again = service.record_evaluation("PASS", a, seeds=[1, 1000 + EPISODES - 1])
    assert again.warnings == (
        "This PASS does not count: seeds 1007 to 1007 have judged this candidate before, and every evaluation needs "
        "seeds of its own. Gate it on another block.",
    )
    assert (again.pass_streak, again.state) == (before.pass_streak, before.state)
    assert judge(service, "PASS", candidate(tmp_path, "b"), 1).warnings == ()


def test_a_pass_counts_only_against_the_release(service: PromotionService, tmp_path: Path) -> None:
    a, b = candidate(tmp_path, "a"), candidate(tmp_path, "b")
    release(service, a)
    for other in (None, b.sha256):
        told = service.record_evaluation("PASS", b, seeds=[5], release_sha256=other)
        assert f"and the release is {a.sha256[:12]}" in told.warnings[0]
        assert told.pass_streak == 0
    assert service.record_evaluation("PASS", b, seeds=[5], release_sha256=a.sha256).pass_streak == 1
    itself = service.record_evaluation("PASS", a, seeds=[6], release_sha256=a.sha256)
    assert itself.warnings == ("This PASS does not count: the candidate is the release already.",)


def test_a_verdict_recorded_again_after_a_kill_adds_no_line(
    service: PromotionService, tmp_path: Path
) -> None:
    a = candidate(tmp_path, "a")
    verdicts: tuple[tuple[PromotionStatus, int], ...] = (("PASS", 1), ("HOLD", 2))
    for status, block in verdicts:
        first = judge(service, status, a, block)
        assert judge(service, status, a, block) == first
    assert service.status().ledger_lines == 2


def test_how_many_passes_are_required_is_what_the_last_counted_one_was_recorded_with(tmp_path: Path) -> None:
    strict = PromotionService(tmp_path / "promotion", required_passes=3)
    a = candidate(tmp_path, "a")
    for block in (1, 2):
        assert not judge(strict, "PASS", a, block).candidate_ready
    assert judge(strict, "PASS", a, 3).candidate_ready
    with pytest.raises(UsageError, match="expected at least 1"):
        PromotionService(tmp_path, required_passes=0)


def test_a_pass_without_seeds_is_refused(service: PromotionService, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="names no seeds"):
        service.record_evaluation("PASS", candidate(tmp_path, "a"), seeds=[])
    assert service.record_evaluation("FAIL", candidate(tmp_path, "a"), seeds=[]).last_result == "fail"


# Releasing and going back


def test_after_a_promotion_the_next_candidate_can_be_ready(service: PromotionService, tmp_path: Path) -> None:
    release(service, candidate(tmp_path, "a"))
    b = candidate(tmp_path, "b")
    assert judge(service, "PASS", b, 1).state == "promoted"
    assert judge(service, "PASS", b, 2).state == "ready"
    assert service.promote().current_release == service.status().current_release


def test_rolling_back_restores_the_very_bytes_though_the_run_is_gone(
    service: PromotionService, tmp_path: Path
) -> None:
    names = ("a", "b", "c")
    for name in names:
        of = candidate(tmp_path, name)
        release(service, of)
        of.checkpoint.unlink()
    for name in ("b", "a"):
        status = service.rollback(f"back to {name}")
        assert status.state == "monitoring"
        assert (tmp_path / "promotion/release.zip").read_bytes() == name.encode() * 1000
    with pytest.raises(UsageError, match="The current release is the first"):
        service.rollback("further")
    assert status.initial_release == status.current_release
    assert [event.remark for event in service.history().events][-2:] == ["back to b", "back to a"]


def test_what_was_rolled_back_needs_new_seeds_to_come_again(
    service: PromotionService, tmp_path: Path
) -> None:
    a, b = candidate(tmp_path, "a"), candidate(tmp_path, "b")
    release(service, a)
    release(service, b, 1, 2)
    service.rollback("it faints at night")
    assert "seeds 1000 to 1007 have judged this candidate before" in judge(service, "PASS", b, 1).warnings[0]
    assert release(service, b, 3, 4).current_release == service.status().current_release


def test_rolling_back_asks_for_a_reason_and_for_a_release(service: PromotionService) -> None:
    with pytest.raises(UsageError, match="needs a reason"):
        service.rollback("  ")
    with pytest.raises(UsageError, match="Nothing was released yet: there is nothing to go back to"):
        service.rollback("why not")


@pytest.mark.parametrize("when", ["before it is recorded", "before it is promoted"])
def test_a_candidate_that_changed_since_it_was_evaluated_is_refused(
    when: str, service: PromotionService, tmp_path: Path
) -> None:
    a = candidate(tmp_path, "a")
    if when == "before it is promoted":
        for block in (1, 2):
            judge(service, "PASS", a, block)
    a.checkpoint.write_bytes(a.checkpoint.read_bytes() + b"!")
    before = contents(tmp_path / "promotion")
    with pytest.raises(CheckpointError, match=rf"has changed since it was evaluated: .* not {a.sha256[:12]}"):
        judge(service, "PASS", a, 3) if when == "before it is recorded" else service.promote()
    a.checkpoint.unlink()
    with pytest.raises(CheckpointError, match="is not there"):
        judge(service, "PASS", a, 3) if when == "before it is recorded" else service.promote()
    assert contents(tmp_path / "promotion") == before


def test_only_the_first_release_can_be_set_by_hand_and_only_a_checkpoint(
    service: PromotionService, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError):
        service.begin(candidate(tmp_path, "a").checkpoint)
    release(service, candidate(tmp_path, "a"))
    with pytest.raises(UsageError, match="only the first release can be set by hand"):
        service.begin(by_hand(tmp_path))


def test_a_release_set_by_hand_is_what_candidates_are_gated_against(
    service: PromotionService, tmp_path: Path
) -> None:
    begun = service.begin(by_hand(tmp_path))
    assert (begun.state, begun.initial_release) == ("monitoring", begun.current_release)
    release(service, candidate(tmp_path, "a"))
    service.rollback("it was better before")
    assert (tmp_path / "promotion/release.zip").read_bytes() == (tmp_path / "hand.zip").read_bytes()
    assert [event.event for event in service.history().events] == [
        "policy_swap", "evaluation", "evaluation", "promoted", "rollback",
    ]  # fmt: skip


# On disk


def test_state_and_ledger_have_the_keys_and_names_of_townlet(tmp_path: Path) -> None:
    history(tmp_path)
    state = json.loads((tmp_path / "promotion/state.json").read_text())
    assert set(state) >= {
        "state", "pass_streak", "required_passes", "candidate_ready", "candidate_ready_tick", "last_result",
        "last_evaluated_tick", "current_release", "initial_release", "candidate", "history",
    }  # fmt: skip
    lines = [json.loads(line) for line in (tmp_path / "promotion/ledger.jsonl").read_text().splitlines()]
    assert {line["event"] for line in lines} == {"evaluation", "promoted", "rollback"}
    townlets = {"event", "tick", "metadata", "previous_release", "release", "state"}
    assert all(line.keys() >= townlets for line in lines)
    assert [event["event"] for event in state["history"]] == ["promoted", "promoted", "rollback"]
    assert lines[-2]["metadata"] == {"reason": "it faints at night"}


def test_reading_a_directory_that_is_not_there_makes_none(tmp_path: Path) -> None:
    service = PromotionService(tmp_path / "promotion")
    assert service.status().state == "monitoring"
    assert service.history().events == ()
    assert service.release is None
    with pytest.raises(UsageError, match=r"There is no .*promotion, expected a directory"):
        service.verify()
    assert list(tmp_path.iterdir()) == []


def test_what_was_not_measured_is_null_in_the_ledger(service: PromotionService, tmp_path: Path) -> None:
    a = candidate(tmp_path, "a")
    measured = PromotionCandidate(a.checkpoint, a.sha256, {"mean": float("nan"), "iqm": 1.0})
    status = judge(service, "PASS", measured, 1)
    assert status.candidate is not None
    assert status.candidate.scorecard == {"mean": None, "iqm": 1.0}
    assert service.verify().valid


def test_two_promoters_at_once_release_once(tmp_path: Path) -> None:
    service = PromotionService(tmp_path / "promotion")
    a = candidate(tmp_path, "a")
    for block in (1, 2):
        judge(service, "PASS", a, block)
    command = [*PROGRAM, "promote", "--promotion-dir", str(tmp_path / "promotion")]
    promoters = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    said = [promoter.communicate()[1] for promoter in promoters]
    assert sorted(promoter.returncode for promoter in promoters) == [0, 3, 3]
    assert sum("No candidate is ready" in text for text in said) == 2
    assert [event.event for event in service.history().events] == ["evaluation", "evaluation", "promoted"]
    assert service.verify().valid


def test_evaluations_recorded_at_once_are_all_in_the_ledger(tmp_path: Path) -> None:
    folder, recorders = tmp_path / "promotion", []
    for block, name in enumerate(("a", "b", "c", "d")):
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(gate_document(candidate(tmp_path, name), block)))
        command = [*PROGRAM, "record", "--gate", str(path), "--promotion-dir", str(folder)]
        recorders.append(subprocess.Popen(command, stdout=subprocess.DEVNULL))
    assert [recorder.wait() for recorder in recorders] == [0, 0, 0, 0]
    events = PromotionService(folder).history().events
    assert {Path(event.checkpoint or "").stem for event in events} == {"a", "b", "c", "d"}
    assert PromotionService(folder).verify().valid


@pytest.mark.parametrize("full", ["for the release", "for the ledger"])
def test_a_full_disk_changes_nothing_and_says_so(full: str, tmp_path: Path) -> None:
    service, folder = history(tmp_path), tmp_path / "promotion"
    c = candidate(tmp_path, "c")
    judge(service, "PASS", c, 2)
    if full == "for the release":
        c = candidate(tmp_path, "c" * 20)  # larger than any other file here
        judge(service, "PASS", c, 1)
        judge(service, "PASS", c, 2)
        limit, command = c.checkpoint.stat().st_size - 1, ["promote"]
    else:
        limit = (folder / "ledger.jsonl").stat().st_size + 100
        (tmp_path / "gate.json").write_text(json.dumps(gate_document(c, 3, "HOLD")))
        command = ["record", "--gate", str(tmp_path / "gate.json")]
    before = contents(folder)
    ended = subprocess.run(
        [*PROGRAM, *command, "--promotion-dir", str(folder)],
        check=False,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert ended.returncode == 2
    assert "cannot be written: File too large." in ended.stderr
    assert contents(folder) == before
    assert service.verify().valid
    assert service.promote().state == "promoted"


@pytest.mark.slow
def test_wherever_a_command_is_killed_the_next_one_finds_or_makes_agreement(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "tests.promotion_killer", str(tmp_path)],
        check=False,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["kills"] > 100


# The command


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, Any]:
    """Exit code and document of a command."""
    code = main(["promotion", *arguments, "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_from_two_gate_documents_to_a_release_and_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        of = candidate(tmp_path, name)
        for block in (1, 2):
            released = run(capsys, "status")[1]["current_release"]
            against = released and released["sha256"]
            (tmp_path / "gate.json").write_text(json.dumps(gate_document(of, block, release_sha256=against)))
            code, recorded = run(capsys, "record", "--gate", "gate.json")
            assert (code, recorded["pass_streak"], recorded["warnings"]) == (0, block, [])
            assert recorded["candidate"]["scorecard"] == {"mean": 41.5}
        assert run(capsys, "promote")[0] == 0
    assert Path("results/promotion/release.zip").read_bytes() == b"b" * 1000
    assert run(capsys, "rollback", "--reason", "it faints")[0] == 0
    assert Path("results/promotion/release.zip").read_bytes() == b"a" * 1000
    code, told = run(capsys, "history")
    assert [event["event"] for event in told["events"]] == [
        *("evaluation", "evaluation", "promoted") * 2, "rollback",
    ]  # fmt: skip
    assert run(capsys, "verify")[1]["valid"]


def test_a_pass_that_does_not_count_ends_with_1_and_promoting_too_early_with_3(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = ("--promotion-dir", str(tmp_path / "promotion"))
    (tmp_path / "gate.json").write_text(json.dumps(gate_document(candidate(tmp_path, "a"), 1)))
    record = ("record", "--gate", str(tmp_path / "gate.json"), *folder)
    assert [run(capsys, *record)[0], run(capsys, *record)[0]] == [0, 1]
    code, told = run(capsys, "promote", *folder)
    assert code == 3
    assert told["error"]["message"].startswith("No candidate is ready for promotion: 1 of 2 PASSes of ")


def test_a_table_tells_a_newcomer_what_to_do_next(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    history(tmp_path)
    assert main(["promotion", "status", "--promotion-dir", str(tmp_path / "promotion")]) == 0
    shown = capsys.readouterr().out
    assert "needs 1 more PASS on other seeds" in shown
    assert "initial_release" not in shown
    assert main(["promotion", "history", "--promotion-dir", str(tmp_path / "promotion")]) == 0
    assert "it faints at night" in capsys.readouterr().out


def test_the_next_step_can_be_typed_as_it_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "my releases"
    service, pole = PromotionService(folder), spec_of(RunConfig(env="CartPole-v1"))
    network = NetworkSpec("mlp", len(pole.feature_names), len(pole.action_names), hidden_sizes=(4,))
    paths = [tmp_path / "first.zip", tmp_path / "next.zip"]
    for seed, path in enumerate(paths):
        save_checkpoint(path, small_checkpoint(network, pole, seed=seed))
    first = service.begin(paths[0])
    assert first.current_release is not None
    passed = gate_document(PromotionCandidate(paths[1], sha256_of(paths[1]), {}), 30_000)
    passed["release_sha256"] = first.current_release.sha256
    (tmp_path / "gate.json").write_text(json.dumps(passed))
    told = first.next_step.partition(": ")[2].replace("FILE", str(tmp_path / "gate.json"))
    assert main(shlex.split(told)[1:]) == 0
    piped = service.status().next_step.partition(": ")[2]
    program = f'townlet-train() {{ "{sys.executable}" -m townlet_train "$@"; }}; {piped}'
    subprocess.run(["bash", "-c", program], check=True, capture_output=True)
    assert [event.seeds for event in service.history().events[1:]] == [
        ((30_000_000, 30_000_007),),
        ((30_010_000, 30_010_255),),
    ]
    for block in (30_020, 30_030):
        judge(service, "PASS", PromotionCandidate(paths[1], sha256_of(paths[1]), {}), block)
    assert main(shlex.split(service.status().next_step.partition(": ")[2])[1:]) == 0
    assert service.status().state == "promoted"
    capsys.readouterr()


def test_reading_leaves_a_directory_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    history(tmp_path)
    folder = tmp_path / "promotion"
    (folder / ".lock").unlink()
    before = (contents(folder), folder.stat().st_mtime_ns)
    folder.chmod(0o500)
    for command in ("status", "history", "verify"):
        assert run(capsys, command, "--promotion-dir", str(folder))[0] == 0
    assert (contents(folder), folder.stat().st_mtime_ns) == before
    assert not (folder / ".lock").exists()


def test_whoever_reads_while_others_write_finds_every_line_whole(tmp_path: Path) -> None:
    service, folder = history(tmp_path), tmp_path / "promotion"
    judged = candidate(tmp_path, "d")
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(lambda: [judge(service, "HOLD", judged, block) for block in range(50, 90)])
        seen = []
        while not writing.done():
            seen.append(PromotionService(folder).verify())
        writing.result()
    assert all(found.valid for found in seen)
    assert len({found.ledger_lines for found in seen}) > 1


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"verdict": "MAYBE"}, "`verdict` is 'MAYBE', expected PASS, HOLD or FAIL"),
        ({"candidate_sha256": None}, "is about returns and not about a checkpoint"),
        ({"candidate_sha256": "abc"}, "expected a sha256 of 64 hex digits"),
        ({"candidate": 3}, "`candidate` is 3, expected a text"),
        ({"seeds": ["1"]}, "`seeds` is no list of whole numbers"),
        ({"release_sha256": 7}, "`release_sha256` is 7, expected a text"),
        ({"schema_version": "2.0.0"}, "has schema version '2.0.0'; this release reads 1.0.0"),
    ],
)
def test_a_gate_document_that_does_not_say_enough_is_refused_in_words(
    changed: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    document = gate_document(candidate(tmp_path, "a"), 1) | changed
    with pytest.raises(UsageError) as refused:
        gate_evidence(document, "gate.json")
    assert sentence in str(refused.value)


@pytest.mark.parametrize("text", ["", "[]", "no json", "{}", "\ud800"])
def test_what_is_no_gate_document_ends_with_3(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "gate.json").write_bytes(text.encode(errors="surrogatepass"))
    folder = ("--promotion-dir", str(tmp_path / "promotion"))
    assert run(capsys, "record", "--gate", str(tmp_path / "gate.json"), *folder)[0] == 3
    code, found = run(capsys, "record", "--gate", str(tmp_path / "nowhere.json"), *folder)
    assert (code, found["error"]["message"]) == (
        3,
        f"{tmp_path / 'nowhere.json'} cannot be read: No such file or directory. Pass what `townlet-train gate --json` "
        f"printed.",
    )
    with pytest.raises(UsageError, match="has no `verdict`, so no gate printed it"):
        gate_evidence({})
    assert not (tmp_path / "promotion").exists()


def test_where_nothing_was_recorded_nothing_is_found_in_order(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in (["verify"], ["rollback", "--reason", "x"]):
        assert run(capsys, *command, "--promotion-dir", str(tmp_path / "nowhere"))[0] == 3
    (tmp_path / "a file").write_text("")
    for command in (["verify"], ["status"], ["history"]):
        assert run(capsys, *command, "--promotion-dir", str(tmp_path / "a file"))[0] == 3
    assert [path.name for path in tmp_path.iterdir()] == ["a file"]


def test_no_command_goes_on_from_a_broken_ledger(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    service, folder = history(tmp_path), tmp_path / "promotion"
    ledger = folder / "ledger.jsonl"
    ledger.write_bytes(ledger.read_bytes().replace(b'"verdict": "HOLD"', b'"verdict": "PASS"', 1))
    before = contents(folder)
    for command in (service.status, service.history, service.promote, lambda: service.rollback("back")):
        with pytest.raises(LedgerError, match=r"Line 4 of ledger\.jsonl"):
            command()
    with pytest.raises(LedgerError):
        service.record_evaluation("HOLD", candidate(tmp_path, "d"), seeds=[1])
    code, told = run(capsys, "verify", "--promotion-dir", str(folder))
    assert (code, told["valid"], told["problems"][0]["line"]) == (2, False, 4)
    assert run(capsys, "status", "--promotion-dir", str(folder))[0] == 2
    with pytest.raises(LedgerError, match="Nothing can be made from a broken ledger"):
        service.verify(rebuild=True)
    assert contents(folder) == before
