"""Every example runs."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from tests.contract.markdown import ROOT
from townlet_train.config import load

EXAMPLES = ROOT / "examples"


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_example_has_its_test() -> None:
    tested = {"clone_the_expert.py", "town_in_pettingzoo.py", "crowded_town.yaml", "lunarlander.yaml"}
    tested |= {"ppo_or_a2c.py"}
    assert {path.name for path in EXAMPLES.iterdir() if path.is_file()} == tested


@pytest.mark.slow
@pytest.mark.torch
def test_a_clone_made_from_python_beats_chance(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    main = example("clone_the_expert").main
    means = main(tmp_path, towns=8, episodes=2)
    assert means["random"] < means["clone"] < means["expert"]
    assert (tmp_path / "run" / "bc_seed1_model.zip").exists()
    assert main(tmp_path, towns=8, episodes=2) == means, "run again, it takes its own place"


def test_random_agents_in_pettingzoo_do_badly_and_the_same_each_time() -> None:
    pytest.importorskip("pettingzoo")
    play = example("town_in_pettingzoo").main
    first, again, other = play(seed=3), play(seed=3), play(seed=4)
    assert first == again != other
    assert len(first) == 6
    assert max(first.values()) < 0


@pytest.mark.slow
@pytest.mark.torch
def test_two_methods_are_compared_by_their_runs(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("Box2D")
    main = example("ppo_or_a2c").main
    compared = main(tmp_path, seeds=2, timesteps=2048, episodes=2)
    assert [(method.group, method.seeds) for method in compared.methods] == [("ppo", (1, 2)), ("a2c", (1, 2))]
    assert compared.metric == "evaluation.mean"
    assert main(tmp_path, seeds=2, timesteps=2048, episodes=2) == compared, "run again, in their own place"


def test_the_settings_file_changes_the_town_and_the_method() -> None:
    from townlet_train.registry import discover

    settings = load(files=[EXAMPLES / "crowded_town.yaml"], environ={}, sections=discover().params)
    assert (settings.config.town.n_agents, settings.config.town.reward.social_stage) == (7, "C2")
    assert settings.section("bc") == {"n_epochs": 12}
    assert settings.origin["town.n_agents"].endswith("crowded_town.yaml, line 7")


def test_the_lander_is_trained_as_pipelines_expect() -> None:
    from townlet_train.registry import discover

    settings = load(files=[EXAMPLES / "lunarlander.yaml"], environ={}, sections=discover().params)
    assert settings.config.env == "LunarLander-v3"
    params = settings.section("ppo")
    assert {name: params[name] for name in ("timesteps", "n_steps", "batch_size", "n_epochs")} == {
        "timesteps": 50_000,
        "n_steps": 2048,
        "batch_size": 64,
        "n_epochs": 10,
    }
