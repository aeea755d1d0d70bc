from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from pydantic import Field, ValidationError

from townlet_train.config import RunConfig, SocialConfig, SocialScheduleEntry, config_hash, load
from townlet_train.config.documents import parse_value, read_document
from townlet_train.config.layers import preset_names
from townlet_train.contract import StrategyParams
from townlet_train.errors import ConfigError, ExitCode, TownletTrainError, UnknownNameError
from townlet_train.registry import discover
from townlet_train.strategies.anneal.params import AnnealParams


class DiceParams(StrategyParams):
    sides: int = Field(6, gt=1)
    label: str = Field("die")
    throws: int


def dice() -> dict[str, type[StrategyParams]]:
    return {"dice": DiceParams}


def test_every_layer_beats_the_one_below_and_leaves_its_name(tmp_path: Path) -> None:
    first, second = tmp_path / "a.yaml", tmp_path / "b.toml"
    first.write_text("seed: 1\ntown:\n  n_agents: 2\n  day_ticks: 1000\n  queue:\n    cooldown_ticks: 7\n")
    second.write_text("seed = 2\n[town]\nepisode_ticks = 900\n[town.queue]\nghost_step_after = 5\n")
    settings = load(
        preset="upstream-2025",
        files=[first, second],
        environ={"TOWNLET_TRAIN__SEED": "3", "TOWNLET_TRAIN__TOWN__EPISODE_TICKS": "901", "OTHER": "4"},
        sets=["seed=5", "town.episode_ticks=902"],
        named={"seed": 6, "env": None},
    )
    town = settings.config.town
    assert (settings.config.seed, town.n_agents, town.day_ticks, town.episode_ticks) == (6, 2, 1000, 902)
    assert (town.queue.cooldown_ticks, town.queue.ghost_step_after, town.grid_size) == (7, 5, 48)
    assert {
        key: settings.origin[key]
        for key in ("seed", "env", "town.n_agents", "town.queue.ghost_step_after", "town.grid_size")
    } == {
        "seed": "option",
        "env": "default",
        "town.n_agents": f"{first}, line 3",
        "town.queue.ghost_step_after": str(second),
        "town.grid_size": "preset upstream-2025",
    }
    assert settings.origin["town.episode_ticks"] == "--set"


def test_an_environment_variable_is_named_as_the_origin() -> None:
    settings = load(environ={"TOWNLET_TRAIN__TOWN__REWARD__CLIP_PER_TICK": "0.5"})
    assert settings.config.town.reward.clip_per_tick == 0.5
    assert (
        settings.origin["town.reward.clip_per_tick"]
        == "environment TOWNLET_TRAIN__TOWN__REWARD__CLIP_PER_TICK"
    )


def test_variables_about_plugins_are_no_settings() -> None:
    assert load(environ={"TOWNLET_TRAIN_PLUGINS": "x", "TOWNLET_TRAIN_DEBUG": "1"}).config == RunConfig()


def test_every_resolved_value_has_an_origin() -> None:
    origin = load(environ={}).origin
    assert set(origin.values()) == {"default"}
    assert "town.employment.shifts" in origin


BAD = {
    "unknown top": ("toun: {}\nseeed: 1", "Unknown setting 'seeed' ({file}, line 2). Did you mean 'seed'?"),
    "unknown deep": (
        "town:\n  reward:\n    clip_pr_tick: 1",
        "Unknown setting 'town.reward.clip_pr_tick' ({file}, line 3). Did you mean 'town.reward.clip_per_tick'?",
    ),
    "out of range": (
        "town:\n  n_agents: 99",
        "town.n_agents = 99 ({file}, line 2): expected less than or equal to 8.",
    ),
    "wrong kind": ("seed: many", "seed = 'many' ({file}, line 1): expected a valid integer"),
    "wrong choice": (
        "rollout:\n  store: zip",
        "rollout.store = 'zip' ({file}, line 2): expected 'npz' or 'memmap'.",
    ),
    "section is a value": ("town: 3", "town = 3 ({file}, line 1): expected a mapping of settings."),
    "value is a section": (
        "seed:\n  low: 1",
        "seed.low ({file}, line 2) goes below seed, which is a single value.",
    ),
    "inconsistent": (
        "town:\n  employment:\n    shifts: [[5, 900]]",
        "town: shift [5, 900) does not lie within a day of 160 ticks.",
    ),
    "twice": ("seed: 1\nseed: 2", "{file}, line 2 has the key 'seed' a second time; remove one of them."),
    "no yaml": ("seed: [1", "{file}, line 1 is not valid YAML: "),
    "a list": ("- seed: 1", "{file} should be a mapping of keys to values, not a list."),
    "upstream": ("config_id: x\nfeatures: {a: 1}", "townlet-train config import-upstream FILE"),
    "two stages in a cycle": (
        "social:\n  schedule: [{cycle: 1, stage: C1}, {cycle: 1, stage: C2}]",
        "social: cycle 1 has more than one stage.",
    ),
    "an alias of itself": (
        "town: &town\n  n_agents: 2\n  money: *town",
        "{file}, line 1 has a value that holds an alias of itself; write it out.",
    ),
    "a list in itself": (
        "seed: 1\nbc:\n  hidden_sizes: &sizes [64, *sizes]",
        "{file}, line 3 has a value that holds an alias of itself; write it out.",
    ),
    "nested too deeply": ("[" * 5000, "{file} is not valid YAML: it is nested too deeply."),
    "a python tag": ("seed: !!python/object/apply:os.getpid []", "{file}, line 1 is not valid YAML"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_wrong_file_is_refused_in_one_sentence_that_says_where(tmp_path: Path, kind: str) -> None:
    content, sentence = BAD[kind]
    file = tmp_path / "run.yaml"
    file.write_text(content)
    with pytest.raises(ConfigError) as refusal:
        load(files=[file], environ={})
    assert sentence.format(file=file) in str(refusal.value)
    assert refusal.value.exit_code is ExitCode.USAGE


def test_each_of_several_wrong_values_has_its_sentence() -> None:
    with pytest.raises(ConfigError) as refusal:
        load(sets=["seed=-1", "town.n_agents=99"], environ={})
    assert len(str(refusal.value).splitlines()) == 2


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("run.yaml", None, "does not exist"),
        ("run.ini", "", "should end in .yaml, .yml, .toml or .json"),
        ("run.json", "{", "run.json, line 1 is not valid JSON"),
        ("run.json", '{"seed": 1, "seed": 2}', "has the key 'seed' twice"),
        ("run.toml", "seed = ", "is not valid TOML"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_by_name(
    tmp_path: Path, name: str, content: str | None, sentence: str
) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(ConfigError, match=name) as refusal:
        read_document(tmp_path / name)
    assert sentence in str(refusal.value)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_document(tmp_path / "run.yaml")


@pytest.mark.parametrize(
    ("sets", "sentence"),
    [
        (["seed"], "--set takes KEY=VALUE"),
        (["=3"], "--set takes KEY=VALUE"),
        (["town=3"], "mapping of settings"),
    ],
)
def test_a_malformed_set_is_refused(sets: list[str], sentence: str) -> None:
    with pytest.raises(TownletTrainError, match=sentence):
        load(sets=sets, environ={})


def test_a_bare_heading_and_an_empty_file_say_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("town:\nrollout: {}\n")
    (tmp_path / "b.yaml").write_text("# nothing\n")
    assert load(files=[tmp_path / "a.yaml", tmp_path / "b.yaml"], environ={}).config == RunConfig()


def test_part_of_a_nested_default_can_be_changed() -> None:
    assert load(sets=["town.eat.hunger=0.5"], environ={}).config.town.eat.duration == 3


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("OFF", "OFF"),
        ("no", "no"),
        ("true", True),
        ("1e-3", 0.001),
        ("010", 10),
        ("0x10", 16),
        (".5", 0.5),
        ("-.inf", float("-inf")),
        ("12:30", "12:30"),
        ("2026-01-01", "2026-01-01"),
        ("null", None),
        ("[1, C1]", [1, "C1"]),
        ("{a: 1}", {"a": 1}),
        ("!!python/name:os.system", "!!python/name:os.system"),
    ],
)
def test_values_are_read_by_the_rules_of_yaml_1_2(text: str, value: object) -> None:
    assert parse_value(text) == value


def test_a_strategy_section_is_kept_and_checked_against_its_params() -> None:
    settings = load(sets=["dice.sides=8"], environ={}, sections=dice)
    assert settings.section("dice") == {"sides": 8}
    assert settings.section("other") == {}
    assert settings.origin["dice.sides"] == "--set"
    with pytest.raises(ConfigError, match=r"dice\.sides = 1 \(--set\): expected greater than 1\."):
        load(sets=["dice.sides=1"], environ={}, sections=dice)
    with pytest.raises(ConfigError, match=r"Unknown setting 'dice\.side'.*Did you mean 'dice\.sides'"):
        load(sets=["dice.side=1"], environ={}, sections=dice)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "anneal:\n  schedule:\n    - {cycle: 0, mode: bc}\n    - mode: ppo\n      cylce: 1\n",
            "Unknown setting 'anneal.schedule.1.cylce' (s.yaml, line 5). Did you mean 'cycle'?",
        ),
        (
            "anneal:\n  schedule:\n    - cycle: 0\n      mode: bc\n    - mode: ppo\n      cycle: -1\n",
            "anneal.schedule.1.cycle = -1 (s.yaml, line 6): expected greater than or equal to 0.",
        ),
        (
            "social:\n  schedule:\n    - cycle: 1\n      stage: C1\n      staeg: C2\n",
            "Unknown setting 'social.schedule.0.staeg' (s.yaml, line 5). Did you mean 'stage'?",
        ),
        (
            "anneal:\n  guardrails:\n    retrun_tolerance: 1\n",
            "Unknown setting 'anneal.guardrails.retrun_tolerance' (s.yaml, line 3). "
            "Did you mean 'anneal.guardrails.return_tolerance'?",
        ),
        (
            "anneal:\n  schedule:\n    - cycle: 0\n      mode: bc\n      mode: ppo\n",
            "s.yaml, line 5 has the key 'anneal.schedule.0.mode' a second time; remove one of them.",
        ),
        (
            '{"social": {"schedule": [\n{"cycle": -1, "stage": "C1"}]}}',
            "social.schedule.0.cycle = -1 (s.json)",
        ),
    ],
)
def test_what_is_wrong_in_a_list_is_told_with_its_line_and_what_was_likely_meant(
    text: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = Path("s.json" if text.startswith("{") else "s.yaml")
    file.write_text(text)
    with pytest.raises(ConfigError, match=re.escape(sentence)):
        load(files=[file], environ={}, sections=lambda: {"anneal": AnnealParams})


def test_a_list_of_many_aliases_is_read_at_once(tmp_path: Path) -> None:
    doubled = "".join(f"l{n}: &l{n} [*l{n - 1}, *l{n - 1}]\n" for n in range(1, 60))
    (tmp_path / "s.yaml").write_text(f"l0: &l0 [1]\n{doubled}")
    where = read_document(tmp_path / "s.yaml").source("l59")  # written out, a list of 2 ** 59 numbers
    assert where.endswith("line 60")


def test_strategies_are_not_asked_for_when_no_layer_mentions_one() -> None:
    def explode() -> dict[str, type[StrategyParams]]:
        raise AssertionError("plugins were loaded for nothing")

    assert load(sets=["seed=1"], environ={}, sections=explode).config.seed == 1


def test_an_unknown_preset_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'town-v1'"):
        load(preset="town-v2", environ={})


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_in_the_package_is_valid(name: str) -> None:
    settings = load(preset=name, environ={}, sections=lambda: discover().params())
    assert isinstance(settings.config, RunConfig)


def test_the_config_is_frozen() -> None:
    with pytest.raises(ValidationError):
        RunConfig().seed = 1  # type: ignore[misc]  # what is under test


def test_the_hash_follows_the_content_and_nothing_else() -> None:
    same = load(sets=["seed=42"], environ={})
    assert (
        same.hash
        == config_hash(RunConfig())
        == config_hash(RunConfig.model_validate(RunConfig().model_dump()))
    )
    assert same.hash != config_hash(RunConfig(seed=43))
    assert same.hash != config_hash(RunConfig(), {"dice": {"sides": 6}})


@pytest.mark.parametrize(
    ("stage", "cycles"),
    [(None, ["C3", "C3", "C1", "C1", "C2"]), ("OFF", ["OFF"] * 5)],
)
def test_the_social_stage_is_chosen_per_cycle_and_a_fixed_stage_wins(
    stage: str | None, cycles: list[str]
) -> None:
    schedule = (SocialScheduleEntry(cycle=4, stage="C2"), SocialScheduleEntry(cycle=2, stage="C1"))
    town = load(sets=["town.reward.social_stage=C3"], environ={}).config.town
    config = RunConfig(town=town, social=SocialConfig(stage=stage, schedule=schedule))
    assert [config.social_stage(cycle) for cycle in range(5)] == cycles


def test_a_config_survives_json() -> None:
    config = load(preset="upstream-2025", environ={}).config
    assert RunConfig.model_validate(json.loads(config.model_dump_json())) == config
