from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from pydantic import Field

from townlet_train.config import load
from townlet_train.config.upstream import UpstreamImport, import_upstream
from townlet_train.contract import StrategyParams
from townlet_train.errors import ConfigError


class CloneParams(StrategyParams):
    learning_rate: float = Field(1e-3, gt=0)
    batch_size: int = 64
    n_epochs: int = 8
    weight_decay: float = 0.0
    device: str = "cpu"


SECTIONS = {"bc": CloneParams}

MINIMAL = {"features": {"stages": {"social_rewards": "OFF"}}, "rewards": {"survival_tick": 0.1}}


def imported(tmp_path: Path, **extra: object) -> UpstreamImport:
    file = tmp_path / "upstream.yaml"
    file.write_text(yaml.safe_dump({**MINIMAL, **extra}))
    return import_upstream(file, SECTIONS)


def left_out(result: UpstreamImport, key: str) -> tuple[str, bool]:
    item = next(item for item in result.left_out if item.key == key)
    return item.reason, item.lost


FILES = ["training/dto_smoke.yaml", "examples/poc_hybrid.yaml", "scenarios/queue_conflict.yaml"]


@pytest.mark.parametrize("name", [*FILES, "affordances/core.yaml"])
def test_what_the_shipped_files_become_is_a_valid_config(
    townlet_data: Path, tmp_path: Path, name: str
) -> None:
    result = import_upstream(townlet_data / "configs" / name, SECTIONS)
    ours = tmp_path / "ours.yaml"
    ours.write_text(yaml.safe_dump(result.config))
    settings = load(files=[ours], environ={}, sections=lambda: SECTIONS)
    assert {item.target for item in result.carried} <= settings.origin.keys()


@pytest.mark.parametrize("name", FILES[:2])
def test_no_setting_of_a_shipped_file_is_dropped_silently(townlet_data: Path, name: str) -> None:
    path = townlet_data / "configs" / name
    result = import_upstream(path, SECTIONS)
    told = {key for item in (*result.carried, *result.left_out) for key in item.key.split(", ")}
    document = yaml.safe_load(path.read_text())
    assert not [key for key in leaf_keys(document) if key not in told and not is_shift(key)]


def leaf_keys(values: dict[str, object], prefix: str = "") -> list[str]:
    keys = []
    for key, value in values.items():
        path = f"{prefix}.{key}" if prefix else str(key)
        keys += leaf_keys(value, path) if isinstance(value, dict) and value else [path]
    return keys


def is_shift(key: str) -> bool:
    """A job's two ticks are told together, under `jobs`."""
    return key.startswith("jobs.") and key.endswith(("start_tick", "end_tick"))


def test_names_and_values_are_translated(townlet_data: Path) -> None:
    config = import_upstream(townlet_data / "configs" / FILES[0], SECTIONS).config
    assert config["bc"]["n_epochs"] == 1
    assert config["bc"]["batch_size"] == 32
    assert config["town"]["reward"]["social_stage"] == "C1"
    assert config["town"]["employment"]["shifts"] == [[0, 120]]
    assert config["town"]["day_ticks"] == 1440
    assert config["town"]["grid_size"] == 24
    assert config["rollout"] == {"ticks": 10, "auto_seed_agents": True}


def test_a_scenario_gives_numbers_of_agents_and_objects(townlet_data: Path) -> None:
    result = import_upstream(townlet_data / "configs" / FILES[2], SECTIONS)
    assert result.config["town"]["n_agents"] == 3
    assert result.config["town"]["objects"] == {"shower": 1}
    assert "scenario.agents.0.schedule" in {item.key for item in result.left_out}


def test_affordances_become_durations_and_effects(townlet_data: Path) -> None:
    town = import_upstream(townlet_data / "configs/affordances/core.yaml", SECTIONS).config["town"]
    assert town["eat"] == {"duration": 15, "hunger": 0.4, "energy": 0.05, "price": 0.4}
    assert town["sleep"]["duration"] == 60


@pytest.mark.parametrize(
    ("extra", "key", "reason", "lost"),
    [
        (
            {"jobs": {"night": {"start_tick": 1400, "end_tick": 1500}}},
            "jobs.night",
            "no shift within a day",
            True,
        ),
        (
            {"jobs": {name: {"start_tick": 1, "end_tick": 9} for name in "abcd"}},
            "jobs.d",
            "at most 3 shifts",
            True,
        ),
        ({"world": {"grid_size": [24, 12]}}, "world.grid_size", "a town here is square", True),
        ({"world": {"grid_size": [480, 480]}}, "world.grid_size", "less than or equal to 64", True),
        (
            {"behavior": {"hunger_threshold": 0.4, "energy_threshold": 0.2}},
            "behavior.energy_threshold",
            "differ in it",
            True,
        ),
        (
            {"queue_fairness": {"ghost_step_after": 0}},
            "queue_fairness.ghost_step_after",
            "greater than",
            True,
        ),
        ({"ppo": {"clip_param": 0.1}}, "ppo.clip_param", "no strategy 'ppo' is installed", True),
        ({"training": {"bc": {"learning_rate": 0}}}, "training.bc.learning_rate", "greater than 0", True),
        ({"wold": {"weather_seed": 1}}, "wold.weather_seed", "no setting of that name", True),
        ({"scenario": {"agents": [1, 2]}}, "scenario.agents", "random tiles", False),
        ({"jobs": {"night": 5}}, "jobs.night", "no shift within a day", True),
        ({"world": {"grid_size": []}}, "world.grid_size", "a town here is square", True),
        ({"shaping": {"use_potential": True}}, "shaping.use_potential", "upstream reads it nowhere", False),
    ],
)
def test_what_cannot_be_said_here_is_listed_with_the_reason(
    tmp_path: Path, extra: dict[str, object], key: str, reason: str, lost: bool
) -> None:
    result = imported(tmp_path, **extra)
    told, is_lost = left_out(result, key)
    assert reason in told
    assert is_lost is lost
    assert any(key in warning for warning in result.warnings) is lost
    assert result.config["town"]["reward"]["survival"] == 0.1


def test_upstream_names_of_ppo_become_the_usual_ones(tmp_path: Path) -> None:
    class PPOParams(StrategyParams):
        clip_range: float = 0.2
        ent_coef: float = 0.0

    file = tmp_path / "upstream.yaml"
    file.write_text(yaml.safe_dump({**MINIMAL, "ppo": {"clip_param": 0.3, "entropy_coef": 0.01}}))
    result = import_upstream(file, {"ppo": PPOParams})
    assert result.config["ppo"] == {"clip_range": 0.3, "ent_coef": 0.01}


def test_a_social_schedule_is_carried_over(tmp_path: Path) -> None:
    schedule = [{"cycle": 0, "stage": "OFF"}, {"cycle": 2, "stage": "C1"}]
    result = imported(tmp_path, training={"social_reward_schedule": schedule})
    assert result.config["social"]["schedule"] == schedule


@pytest.mark.parametrize("content", ["seed: 1", "[1, 2]", "hello", ""])
def test_a_file_of_another_kind_is_refused(tmp_path: Path, content: str) -> None:
    file = tmp_path / "other.yaml"
    file.write_text(content)
    with pytest.raises(ConfigError, match="no upstream simulation config"):
        import_upstream(file, SECTIONS)
