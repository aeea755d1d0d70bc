"""What a policy earns: one episode per seed, each the same whatever else is evaluated, with honest intervals."""

from __future__ import annotations

import json
import math
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tests.fakes import SPEC, CountingEnv, LastLegalPolicy
from tests.policies import small_checkpoint
from townlet_train.cli import main
from townlet_train.config import RunConfig, TownConfig
from townlet_train.data.checkpoint import save_checkpoint
from townlet_train.envs.episodes import Episodes
from townlet_train.envs.protocol import EnvSpec
from townlet_train.envs.town import TownVectorEnv
from townlet_train.errors import UsageError
from townlet_train.policies.network import NetworkPolicy, NetworkSpec
from townlet_train.services.evaluation import evaluate, event_bounds, warn_of_other_rules
from townlet_train.services.statistics import bootstrap_interval, iqm, paired_difference

TOWN = RunConfig().town


@pytest.fixture(scope="module")
def town() -> EnvSpec:
    return TownVectorEnv(TOWN, 1).spec


@pytest.fixture(scope="module")
def stranger(town: EnvSpec, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that knows the town's names and nothing else; trained, it says, on seeds 1 to 96."""
    spec = NetworkSpec("mlp", len(town.feature_names), len(town.action_names), (16, 16))
    path = tmp_path_factory.mktemp("checkpoint") / "stranger.zip"
    save_checkpoint(path, small_checkpoint(spec, town, training_seeds=((1, 96),)))
    return path


def evaluated(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, Any]:
    """Exit code and the one JSON document of an evaluation of 20-tick episodes."""
    code = main(["evaluate", *arguments, "--set", "town.episode_ticks=20", "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_an_episodes_return_is_the_mean_over_slots_of_what_each_summed() -> None:
    result = evaluate(LastLegalPolicy(), CountingEnv(n_envs=2), [4, 5, 6], deterministic=True)
    # Agent 0 may go north (1) on ticks 0, 2, 4 and else waits; agent 1 chats (2) on all 6, but dies on the third (-1).
    assert result.episode_returns == ((3 + 5 * 2 - 1) / 2,) * 3
    assert result.seeds == (4, 5, 6)
    assert result.events == {"chat_success": pytest.approx(1000 * 6 / 12)}


def test_the_bounds_of_an_events_rate_hold_it_and_are_wide_where_it_is_rare_and_comes_in_heaps() -> None:
    """Forty episodes of 25 agent-ticks: an event in each, and one that 20 times befell a single episode."""
    counts = {"steady": np.ones(40), "heaped": np.where(np.arange(40) == 7, 20.0, 0.0)}
    episodes = Episodes(np.zeros((40, 1)), np.full(40, 25), counts)
    bounds = event_bounds(episodes, n_agents=1)
    assert bounds["steady"] == (40.0, 40.0)
    low, high = bounds["heaped"]
    student = stats.t.ppf(0.95, 39) * 20.0 / math.sqrt(40)  # its mean and its standard error are both 20
    assert low == 0
    assert high >= 20.0 + student
    assert event_bounds(Episodes(np.zeros((1, 1)), np.ones(1, np.int64), {"steady": np.ones(1)}), 1) == {}


def test_a_seeds_return_does_not_depend_on_the_seeds_beside_it(town: EnvSpec) -> None:
    spec = NetworkSpec("mlp", len(town.feature_names), len(town.action_names), (16, 16))
    policy = NetworkPolicy(small_checkpoint(spec, town))
    config = TownConfig(episode_ticks=60)
    seeds = list(range(300, 311))
    together = evaluate(policy, TownVectorEnv(config, 11), seeds, deterministic=False)
    in_blocks = evaluate(policy, TownVectorEnv(config, 4), seeds, deterministic=False)
    alone = [
        evaluate(policy, TownVectorEnv(config, 1), [seed], deterministic=False).episode_returns[0]
        for seed in seeds
    ]
    assert together.episode_returns == in_blocks.episode_returns == tuple(alone)
    assert together.events == pytest.approx(in_blocks.events)


def test_a_town_of_other_rules_than_those_of_training_is_warned_of(town: EnvSpec) -> None:
    spec = NetworkSpec("mlp", len(town.feature_names), len(town.action_names), (16, 16))
    trained_in = RunConfig.model_validate({"town": {"episode_ticks": 300}})
    unknown = small_checkpoint(spec, town)
    known = replace(unknown, state={"config": trained_in.model_dump(mode="json")})
    assert warn_of_other_rules(unknown, RunConfig()) == ()
    assert warn_of_other_rules(known, trained_in) == ()
    now = RunConfig.model_validate({"town": {"episode_ticks": 400, "reward": {"social_stage": "C1"}}})
    [warning] = warn_of_other_rules(known, now)
    assert warning.endswith("trained in: town.episode_ticks is 400 and was 300.")


def test_an_evaluation_of_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match="at least one episode"):
        evaluate(LastLegalPolicy(), CountingEnv(), [], deterministic=True)


def test_progress_counts_every_tick_of_every_block() -> None:
    heard: list[tuple[int, int]] = []
    evaluate(
        LastLegalPolicy(),
        CountingEnv(),
        [1, 2, 3],
        deterministic=True,
        report=lambda d, t: heard.append((d, t)),
    )
    assert heard == [(done, 12) for done in range(1, 13)]


def test_a_checkpoint_is_evaluated_from_the_command_line(
    stranger: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, result = evaluated(capsys, str(stranger), "--episodes", "3", "--seed", "20001")
    assert code == 0
    assert result["seeds"] == [20001, 20002, 20003]
    assert len(result["episode_returns"]) == 3
    assert result["mean"] == pytest.approx(np.mean(result["episode_returns"]))
    assert result["ci_low"] <= result["mean"] <= result["ci_high"]
    assert (result["env"], result["deterministic"]) == ("town", False)
    assert evaluated(capsys, str(stranger), "--episodes", "3", "--seed", "20001")[1] == result


def test_seeds_that_were_trained_on_are_warned_of(stranger: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, result = evaluated(capsys, str(stranger), "--episodes", "4", "--seed", "95")
    assert code == 1
    assert result["warnings"] == [
        "2 of 4 evaluation seeds were trained on (95 to 96), so these are no held-out returns. Choose another --seed."
    ]


@pytest.mark.parametrize("name", ["expert", "random", "idle"])
def test_scripted_policies_are_evaluated_too(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, result = evaluated(capsys, "--policy", name, "--episodes", "2")
    assert (code, result["policy"], len(result["episode_returns"])) == (0, name, 2)
    assert result["deterministic"] == (name != "random")


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        ([], 3, "Name one thing to evaluate"),
        (["CHECKPOINT", "--policy", "expert"], 3, "Name one thing to evaluate"),
        (["--policy", "exprt"], 3, "Did you mean 'expert'?"),
        (["--policy", "idle", "--env", "twon"], 5, "Did you mean 'town'?"),
        (["--policy", "idle", "--episodes", "0"], 3, "episodes"),
        (["nowhere.zip"], 6, "nowhere.zip does not exist. Look at its name, or train one with"),
        (["NOT_A_CHECKPOINT"], 6, "is not a whole zip archive"),
        (
            ["OTHER_ENVIRONMENT", "--env", "town"],
            6,
            "was trained in environment 'counting', this one is 'town'",
        ),
        (["OTHER_FEATURES"], 6, "The checkpoint's feature 0 is 'tick', the environment's is 'need_hunger'."),
    ],
)
def test_a_wrong_evaluation_is_refused_in_words(
    arguments: list[str],
    code: int,
    sentence: str,
    stranger: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "text.zip").write_text("not a zip")
    other = small_checkpoint(NetworkSpec("mlp", 5, 3, (4,)), replace(SPEC, env_id="town"))
    save_checkpoint(tmp_path / "other.zip", other)
    foreign = small_checkpoint(NetworkSpec("mlp", 5, 3, (4,)), SPEC)
    save_checkpoint(tmp_path / "foreign.zip", foreign)
    files = {
        "CHECKPOINT": str(stranger),
        "NOT_A_CHECKPOINT": str(tmp_path / "text.zip"),
        "OTHER_ENVIRONMENT": str(tmp_path / "foreign.zip"),
        "OTHER_FEATURES": str(tmp_path / "other.zip"),
    }
    found, document = evaluated(capsys, *(files.get(argument, argument) for argument in arguments))
    assert (found, document["error"]["exit_code"]) == (code, code)
    assert sentence in document["error"]["message"]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=30))
def test_the_interquartile_mean_is_that_of_the_values_repeated_four_times(values: list[float]) -> None:
    repeated = np.sort(np.repeat(values, 4))
    middle = repeated[len(values) : 3 * len(values)]
    assert iqm(np.array(values)) == pytest.approx(middle.mean(), abs=1e-6)


def test_the_bootstrap_interval_covers_the_mean_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(300):
        interval = bootstrap_interval(rng.normal(size=40), rng, resamples=400)
        covered += interval.low <= 0 <= interval.high
    assert 0.90 <= covered / 300 <= 0.98


def test_a_wild_value_moves_the_mean_and_not_the_iqm(rng: np.random.Generator) -> None:
    values = np.append(rng.normal(size=63), 1e6)
    assert bootstrap_interval(values, np.random.default_rng(0)).high > 1e3
    assert abs(iqm(values)) < 1


@pytest.mark.parametrize("n", [1, 7, 64])
def test_an_interval_is_the_same_however_many_are_drawn_at_once(n: int, rng: np.random.Generator) -> None:
    values = rng.normal(size=n)
    means = values[np.random.default_rng(3).integers(n, size=(1000, n))].mean(axis=1)
    expected = tuple(np.quantile(means, [0.025, 0.975]))
    for drawn_at_once in (1, 100, 999, 1 << 20):
        drawn = bootstrap_interval(
            values, np.random.default_rng(3), resamples=1000, drawn_at_once=drawn_at_once
        )
        assert tuple(drawn) == pytest.approx(expected, rel=1e-12)


def test_an_interval_of_many_episodes_takes_little_memory(rng: np.random.Generator) -> None:
    values = rng.normal(size=50_000)
    tracemalloc.start()
    bootstrap_interval(values, rng, resamples=200)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64 << 20  # all 200 at once are 160 MB


def test_a_paired_difference_sees_what_the_spread_between_seeds_hides(rng: np.random.Generator) -> None:
    second = rng.normal(scale=100, size=64)
    first = second + rng.normal(1, 0.5, size=64)
    difference = paired_difference(first, second, np.random.default_rng(0))
    assert difference.interval.low > 0.5
    assert difference.mean == pytest.approx((first - second).mean())
    assert difference.share_better == (first > second).mean()
    with pytest.raises(ValueError, match="64 and 63"):
        paired_difference(first, second[1:], rng)
