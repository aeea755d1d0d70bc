"""`townlet-train gate`: what a person and a pipeline get, from files and from checkpoints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.policies import small_checkpoint
from townlet_train.cli import main
from townlet_train.config import GateSettings, RunConfig, TownConfig
from townlet_train.data.checkpoint import Checkpoint, save_checkpoint
from townlet_train.envs.protocol import EnvSpec
from townlet_train.envs.town import TownVectorEnv
from townlet_train.errors import CheckpointError
from townlet_train.policies.network import FEATURE_STD, NetworkSpec
from townlet_train.services.gate import block_seeds, evaluate_pair, gate_checkpoints, judge

SHORT = ["--set", "town.episode_ticks=20", "--episodes", "32", "--set", "gate.resamples=299"]


@pytest.fixture(scope="module")
def town() -> EnvSpec:
    return TownVectorEnv(TownConfig(episode_ticks=20), 1).spec


def checkpoint_of(town: EnvSpec, seed: int = 0, **lineage: Any) -> Checkpoint:
    spec = NetworkSpec("mlp", len(town.feature_names), len(town.action_names), (8,))
    return small_checkpoint(spec, town, seed=seed, **lineage)


@pytest.fixture
def candidate(town: EnvSpec, tmp_path: Path) -> Path:
    save_checkpoint(tmp_path / "candidate.zip", checkpoint_of(town))
    return tmp_path / "candidate.zip"


@pytest.fixture
def release(town: EnvSpec, tmp_path: Path) -> Path:
    save_checkpoint(tmp_path / "release.zip", checkpoint_of(town, seed=1))
    return tmp_path / "release.zip"


def gate(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, Any]:
    code = main(["gate", *map(str, arguments), "--json"])
    return code, json.loads(capsys.readouterr().out)


def write(path: Path, returns: Any, seeds: Any = None, **more: Any) -> Path:
    seeds = list(range(len(returns))) if seeds is None else seeds
    path.write_text(json.dumps({"episode_returns": returns, "seeds": seeds, **more}))
    return path


@pytest.fixture
def good(tmp_path: Path, rng: np.random.Generator) -> Path:
    return write(tmp_path / "good.json", (100 + rng.normal(size=60)).tolist())


def test_files_are_judged_by_the_exit_code(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, good: Path, rng: np.random.Generator
) -> None:
    returns = np.array(json.loads(good.read_text())["episode_returns"])
    changed = {
        0: returns + 3 + rng.normal(size=60),
        11: returns - 30 + rng.normal(size=60),
        10: returns - 3 + 12 * rng.normal(size=60),
    }
    for code, values in changed.items():
        found = gate(capsys, "--returns", write(tmp_path / f"{code}.json", values.tolist()), good)
        assert found[0] == code
        assert found[1]["verdict"] == {0: "PASS", 10: "HOLD", 11: "FAIL"}[code]
        assert (found[1]["superior"], found[1]["non_inferior"]) == (code == 0, code == 0)
        assert found[1]["reasons"]
        assert (found[1]["episodes_needed"] is not None) == (code == 10)


def test_files_can_be_judged_sequentially(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, good: Path
) -> None:
    worse = [value - 20 for value in json.loads(good.read_text())["episode_returns"]]
    code, found = gate(capsys, "--returns", write(tmp_path / "worse.json", worse), good, "--sequential")
    assert (code, found["method"], found["episodes"]) == (11, "sequential", 32)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("not json", "is not JSON"),
        ("[1, 2]", "holds no JSON object"),
        ('{"seeds": [1]}', "lacks 'episode_returns'"),
        ('{"episode_returns": [1]}', "lacks 'seeds'"),
        ('{"episode_returns": [NaN], "seeds": [1]}', "episode_returns[0] is NaN, expected a finite number"),
        ('{"episode_returns": ["1"], "seeds": [1]}', 'episode_returns[0] is "1", expected a finite number'),
        ('{"episode_returns": 1, "seeds": [1]}', "episode_returns is 1, expected a list"),
        ('{"episode_returns": [1], "seeds": [1.5]}', "seeds[0] is 1.5, expected a whole number"),
        ('{"episode_returns": [1, 2], "seeds": [1]}', "2 episode_returns and 1 seeds"),
        ('{"episode_returns": [1], "seeds": [1]}', "has 1 episode, a gate needs at least 20"),
        ('{"episode_returns": [1], "seeds": [1], "events": {"faint": -1}}', "events.faint is -1"),
        (json.dumps({"episode_returns": [1e308] * 60, "seeds": [*range(60)]}), "beyond 1e+100"),
    ],
)
def test_a_file_that_is_wrong_is_refused_in_one_sentence(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, good: Path, content: str, sentence: str
) -> None:
    (tmp_path / "bad.json").write_text(content)
    code, found = gate(capsys, "--returns", tmp_path / "bad.json", good)
    assert code == 3
    assert sentence in found["error"]["message"]
    assert str(tmp_path / "bad.json") in found["error"]["message"]


def test_events_that_the_release_was_not_evaluated_for_are_refused_in_one_sentence(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, good: Path
) -> None:
    evaluation = json.loads(good.read_text())
    for name, events in (("candidate", {"faint": 0.0, "queue_conflict": 1.0}), ("release", {"faint": 0.0})):
        (tmp_path / f"{name}.json").write_text(json.dumps({**evaluation, "events": events}))
    code, found = gate(capsys, "--returns", tmp_path / "candidate.json", tmp_path / "release.json")
    assert code == 3
    release = tmp_path / "release.json"
    assert f"compares 'queue_conflict' with {release}, which has no such event" in found["error"]["message"]


@pytest.mark.parametrize(
    "option", ["--block 2", "--episodes 40", "--env CartPole-v1", "--sampled", "--deterministic"]
)
def test_what_to_play_is_refused_where_nothing_is_played(
    capsys: pytest.CaptureFixture[str], good: Path, option: str
) -> None:
    code, found = gate(capsys, "--returns", good, good, *option.split())
    assert code == 3
    named = option.split()[0]
    assert (
        found["error"]["message"] == f"{named} says what to play, and --returns plays nothing; leave it out."
    )


@pytest.mark.parametrize("version", ["99.0.0", "2.0.0", 7, "newest", None])
def test_a_document_of_a_newer_major_version_is_not_judged(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, good: Path, version: object
) -> None:
    document = json.loads(good.read_text())
    newer = tmp_path / "newer.json"
    newer.write_text(json.dumps(document | {"schema_version": version}))
    code, found = gate(capsys, "--returns", newer, good)
    assert code == 3
    assert f"{newer} has schema version {version!r}; this release reads 1.0.0." in found["error"]["message"]
    newer.write_text(json.dumps(document | {"schema_version": "1.7.0"}))
    assert gate(capsys, "--returns", newer, good)[0] == 0


def test_files_of_other_seeds_are_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, good: Path
) -> None:
    returns = json.loads(good.read_text())["episode_returns"]
    cases = {
        "different seeds": list(range(1, 61)),
        "Evaluate both with the same --seed and --episodes, or sort": list(range(60))[::-1],
        "has seed 0 2 times": [0, 0, *range(2, 60)],
    }
    for sentence, seeds in cases.items():
        code, found = gate(capsys, "--returns", write(tmp_path / "other.json", returns, seeds), good)
        assert code == 3
        assert sentence in found["error"]["message"]


def test_a_deterministic_evaluation_is_not_compared_with_a_sampled_one(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, good: Path
) -> None:
    def acted(name: str, policy: str = "run/ppo_model.zip", **more: Any) -> Path:
        returns = json.loads(good.read_text())["episode_returns"]
        return write(tmp_path / f"{name}.json", returns, policy=policy, **more)

    greedy, sampled = acted("greedy", deterministic=True), acted("sampled", deterministic=False)
    for files in ((greedy, sampled), (sampled, greedy)):
        code, found = gate(capsys, "--returns", *files)
        assert code == 3
        assert (
            f"{greedy} was evaluated with the most probable actions and {sampled} with"
            in (found["error"]["message"])
        )
    expert = acted("expert", policy="expert", deterministic=True)
    for files in ((greedy, acted("untold")), (sampled, good), (sampled, expert)):
        assert gate(capsys, "--returns", *files)[0] == 0
    code, found = gate(capsys, "--returns", acted("odd", deterministic="yes"), good)
    assert 'deterministic is "yes", expected true or false' in found["error"]["message"]


def test_a_missing_file_and_a_missing_release_are_usage_errors(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, good: Path, candidate: Path
) -> None:
    assert gate(capsys, "--returns", tmp_path / "none.json", good)[0] == 3
    assert gate(capsys)[0] == 3
    assert gate(capsys, candidate, *SHORT)[0] == 3
    assert gate(capsys, candidate, candidate, "--against", "expert", *SHORT)[0] == 3


def test_checkpoints_are_judged_on_the_gates_own_seeds(
    capsys: pytest.CaptureFixture[str], candidate: Path, release: Path
) -> None:
    code, found = gate(capsys, candidate, "--against", release, *SHORT, "--block", 2)
    assert code in (0, 10, 11)
    assert (found["block"], found["seeds"][0], found["episodes"]) == ("v1/2", 30_020_000, 32)
    assert len(found["candidate_sha256"]) == 64
    assert {row["criterion"] for row in found["criteria"]} == {
        "mean",
        "iqm",
        "cvar",
        "faint",
        "queue_conflict",
    }


def test_a_checkpoint_beside_itself_passes_and_a_scripted_policy_may_be_the_release(
    capsys: pytest.CaptureFixture[str], candidate: Path
) -> None:
    code, found = gate(capsys, candidate, "--against", candidate, *SHORT, "--set", "gate.guardrails=[]")
    assert (code, found["superior"]) == (0, False)
    assert "the same file, byte for byte" in found["reasons"][0]
    code, found = gate(capsys, candidate, "--against", "expert", *SHORT)
    assert code == 11
    assert "the same file" not in " ".join(found["reasons"])


def test_a_sequential_gate_plays_no_more_than_it_needs(
    capsys: pytest.CaptureFixture[str], candidate: Path
) -> None:
    longer = ["--set", "town.episode_ticks=20", "--episodes", "96", "--sequential"]
    code, found = gate(capsys, candidate, "--against", "expert", *longer)
    assert (code, found["method"]) == (11, "sequential")
    assert found["episodes"] < 96
    code, found = gate(capsys, candidate, "--against", "expert", "--episodes", 24, "--sequential")
    assert code == 3
    assert "looks from 32 episodes on" in found["error"]["message"]


def test_judging_in_python_is_what_the_command_does(
    capsys: pytest.CaptureFixture[str], candidate: Path, release: Path
) -> None:
    settings = GateSettings(episodes=32, resamples=299)
    config = RunConfig(town=TownConfig(episode_ticks=20), gate=settings)
    ours = judge(*evaluate_pair(config, candidate, release), settings)
    assert ours.model_dump(mode="json") == gate(capsys, candidate, "--against", release, *SHORT)[1]


def damaged(town: EnvSpec, path: Path, array: str, value: float) -> Path:
    checkpoint = checkpoint_of(town)
    weights = {name: values.copy() for name, values in checkpoint.weights.items()}
    weights[array].flat[0] = value
    save_checkpoint(path, Checkpoint(checkpoint.info, weights))
    return path


@pytest.mark.parametrize(
    ("array", "value", "sentence"),
    [
        ("action_net.bias", np.nan, "'action_net.bias' holds numbers that are not finite"),
        (FEATURE_STD, 0.0, "The normaliser's deviation of feature 0 is 0"),
        (FEATURE_STD, np.inf, "not finite"),
    ],
)
def test_a_candidate_that_is_damaged_fails_unplayed(
    capsys: pytest.CaptureFixture[str], town: EnvSpec, tmp_path: Path, release: Path, array: str, value: float,
    sentence: str,
) -> None:  # fmt: skip
    path = damaged(town, tmp_path / "damaged.zip", array, value)
    code, found = gate(capsys, path, "--against", release, *SHORT)
    assert (code, found["episodes"]) == (11, 0)
    assert any(sentence in reason for reason in found["reasons"])
    assert gate(capsys, release, "--against", path, *SHORT)[0] == 6


def test_a_candidate_that_was_tampered_with_fails_and_one_that_is_none_is_an_error(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, candidate: Path, release: Path
) -> None:
    content = bytearray(candidate.read_bytes())
    place = content.index(b"PK", len(content) // 2) - 200  # within a member
    content[place] ^= 1
    (tmp_path / "tampered.zip").write_bytes(content)
    assert gate(capsys, tmp_path / "tampered.zip", "--against", release, *SHORT)[0] == 11
    (tmp_path / "none.zip").write_bytes(b"nothing")
    assert gate(capsys, tmp_path / "none.zip", "--against", release, *SHORT)[0] == 6
    assert gate(capsys, tmp_path / "absent.zip", "--against", release, *SHORT)[0] == 6
    assert gate(capsys, candidate, "--against", tmp_path / "tampered.zip", *SHORT)[0] == 6


def test_whoever_trained_on_the_gates_seeds_fails(
    capsys: pytest.CaptureFixture[str], town: EnvSpec, tmp_path: Path, release: Path
) -> None:
    first = block_seeds(GateSettings())[0]
    save_checkpoint(tmp_path / "seen.zip", checkpoint_of(town, training_seeds=((first + 3, first + 5),)))
    code, found = gate(capsys, tmp_path / "seen.zip", "--against", release, *SHORT)
    assert code == 11
    assert "trained on 3 of the 32 seeds of block v1/0" in found["reasons"][0]
    assert (
        gate(capsys, tmp_path / "seen.zip", "--against", release, *SHORT, "--block", 1)[1]["episodes"] == 32
    )


def test_a_candidate_for_other_spaces_fails(
    capsys: pytest.CaptureFixture[str], town: EnvSpec, tmp_path: Path, release: Path
) -> None:
    other = checkpoint_of(town)
    renamed = other.info.model_copy(update={"feature_names": ("strange", *other.info.feature_names[1:])})
    save_checkpoint(tmp_path / "other.zip", Checkpoint(renamed, other.weights))
    code, found = gate(capsys, tmp_path / "other.zip", "--against", release, *SHORT)
    assert code == 11
    assert "feature 0 is 'strange'" in found["reasons"][0]


def test_several_candidates_are_judged_together(
    capsys: pytest.CaptureFixture[str], candidate: Path, release: Path
) -> None:
    code, found = gate(
        capsys, candidate, release, "--against", "random", *SHORT, "--set", "gate.guardrails=[]"
    )
    assert [row["candidate"] for row in found["candidates"]] == [str(candidate), str(release)]
    assert found["candidate"] in {str(candidate), str(release)}
    assert code == {"PASS": 0, "HOLD": 10, "FAIL": 11}[found["verdict"]]


def test_a_copy_of_the_release_is_refused_beside_other_candidates(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, candidate: Path, release: Path
) -> None:
    copy = tmp_path / "copy.zip"
    copy.write_bytes(release.read_bytes())
    code, found = gate(capsys, candidate, copy, "--against", release, *SHORT)
    assert code == 3
    assert f"{copy} and the release {release} are the same file, byte for byte" in found["error"]["message"]
    code, found = gate(capsys, copy, "--against", release, *SHORT, "--set", "gate.guardrails=[]")
    assert (code, found["verdict"]) == (0, "PASS")


@pytest.mark.parametrize("sequential", [False, True])
def test_of_several_candidates_one_that_cannot_be_read_fails_and_the_others_are_judged(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, candidate: Path, release: Path, sequential: bool
) -> None:
    truncated, foreign = tmp_path / "truncated.zip", tmp_path / "foreign.zip"
    truncated.write_bytes(candidate.read_bytes()[:-100])
    foreign.write_bytes(b"nothing")
    looks = ["--sequential"] if sequential else []
    code, found = gate(capsys, truncated, candidate, foreign, "--against", release, *SHORT, *looks)
    rows = found["candidates"]
    assert [row["verdict"] for row in rows][::2] == ["FAIL", "FAIL"]
    assert f"{truncated} is not a whole zip archive" in rows[0]["reason"]
    assert [row["mean"] is None for row in rows] == [True, False, True]
    assert code in (0, 10, 11)
    for only in (truncated, foreign):
        assert gate(capsys, only, "--against", release, *SHORT, *looks)[0] == 6


def test_of_several_candidates_one_of_another_environment_fails_and_is_told_to_be_gated_by_itself(
    capsys: pytest.CaptureFixture[str], town: EnvSpec, tmp_path: Path, candidate: Path, release: Path
) -> None:
    other = checkpoint_of(town)
    elsewhere = other.info.model_copy(update={"env_id": "CartPole-v1"})
    save_checkpoint(tmp_path / "other.zip", Checkpoint(elsewhere, other.weights))
    _, found = gate(capsys, candidate, tmp_path / "other.zip", "--against", release, *SHORT)
    row = found["candidates"][1]
    assert (row["verdict"], row["mean"]) == ("FAIL", None)
    assert row["reason"] == (
        "It was trained in environment 'CartPole-v1', and this gate plays 'town'. Gate it by itself, with "
        "--env CartPole-v1, beside a release of that environment."
    )


def test_a_file_that_is_not_there_is_told_before_anything_is_built(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, candidate: Path
) -> None:
    monkeypatch.delattr("townlet_train.services.gate.checkpoints.build_env")
    absent, config = tmp_path / "absent.zip", RunConfig()
    for candidates, release in (
        ([absent], None),
        ([candidate, absent], "expert"),
        ([candidate], absent),
        ([candidate], str(absent)),
    ):
        with pytest.raises(CheckpointError, match=r"absent\.zip does not exist"):
            gate_checkpoints(config, candidates, release)
    with pytest.raises(CheckpointError, match=r"absent\.zip does not exist"):
        evaluate_pair(config, absent, candidate)


def test_a_table_tells_a_person_what_was_decided(capsys: pytest.CaptureFixture[str], good: Path) -> None:
    assert main(["gate", "--returns", str(good), str(good)]) == 0
    shown = capsys.readouterr().out
    assert "PASS" in shown
    assert "It is no worse in anything" in shown
    assert "at_least" in shown


def test_what_it_is_judged_beside_is_named_and_not_called_a_release(
    good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = json.loads(good.read_text())
    clone = write(tmp_path / "clone.json", [value - 5 for value in document["episode_returns"]])
    code, verdict = gate(capsys, "--returns", good, clone)
    assert (code, verdict["verdict"]) == (0, "PASS")
    assert f"that of {clone} 9" in verdict["reasons"][0]
    assert verdict["p_value"] >= 1 / (GateSettings().resamples + 1)
