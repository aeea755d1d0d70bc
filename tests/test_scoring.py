"""A clone's return on the scale between random and expert: what is on it, and what has no place there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.fakes import SPEC
from tests.policies import small_checkpoint
from townlet_train.config import EvaluationConfig, RunConfig, TownConfig
from townlet_train.data.checkpoint import save_checkpoint
from townlet_train.envs.protocol import EnvSpec
from townlet_train.envs.town import TownVectorEnv
from townlet_train.errors import EnvironmentCreationError
from townlet_train.policies.network import NetworkSpec
from townlet_train.results import Comparison, EvaluationDTO
from townlet_train.services.scoring import EvaluationService, score_policies

SHORT = RunConfig(
    town=TownConfig(episode_ticks=60), evaluation=EvaluationConfig(episodes=3, seed=500, deterministic=True)
)


@pytest.fixture(scope="module")
def spec() -> EnvSpec:
    return TownVectorEnv(SHORT.town, 1).spec


@pytest.fixture
def stranger(spec: EnvSpec, tmp_path: Path) -> Path:
    """A checkpoint of random weights that knows the town's names; trained, it says, on seed 501."""
    network = NetworkSpec("mlp", len(spec.feature_names), len(spec.action_names), (8,))
    save_checkpoint(tmp_path / "stranger.zip", small_checkpoint(network, spec, training_seeds=((501, 501),)))
    return tmp_path / "stranger.zip"


def earned(mean: float) -> EvaluationDTO:
    return EvaluationDTO(
        policy="p", env="town", deterministic=True, seeds=(1,), episode_returns=(mean,), mean=mean, iqm=mean,
        ci_low=mean, ci_high=mean, events={"faint": 0.5},
    )  # fmt: skip


def test_random_is_nought_and_the_expert_one() -> None:
    rows, doubts = score_policies(
        {"expert": earned(30), "clone": earned(20), "worse": earned(-30), "random": earned(-10)}
    )
    assert {row.policy: row.score for row in rows} == {"expert": 1, "clone": 0.75, "worse": -0.5, "random": 0}
    assert rows[0].faints_per_10k == 5
    assert doubts == ()


@pytest.mark.parametrize("expert", [-10.0, -11.0])
def test_an_expert_no_better_than_random_makes_no_scale(expert: float) -> None:
    rows, (doubt,) = score_policies({"expert": earned(expert), "clone": earned(20), "random": earned(-10)})
    assert [row.score for row in rows] == [None, None, None]
    assert "nothing can be scored" in doubt


def test_a_checkpoint_is_compared_sampled_and_greedy_on_the_configured_seeds(stranger: Path) -> None:
    service = EvaluationService(SHORT)
    heard: list[tuple[int, int]] = []
    comparison = service.compare(
        stranger, name="clone", report=lambda done, total: heard.append((done, total))
    )
    names = ["expert", "clone, sampled", "clone, greedy", "random"]
    assert [row.policy for row in comparison.policies] == names
    sampled = service.evaluate(checkpoint=stranger, deterministic=False)
    assert sampled.seeds == (500, 501, 502)
    assert comparison.returns == sampled.episode_returns
    assert comparison.policies[1].mean_return == sampled.mean
    assert comparison.policies[2].mean_return == service.evaluate(checkpoint=stranger).mean != sampled.mean
    assert comparison.score("expert") == 1
    assert heard == [(tick, 240) for tick in range(1, 241)]
    assert [warning.split(" evaluation seeds")[0] for warning in comparison.warnings] == ["1 of 3"]


def test_where_no_expert_plays_nothing_is_compared(stranger: Path) -> None:
    elsewhere = RunConfig(env="Acrobot-v1")
    assert EvaluationService(elsewhere).compare(stranger, name="clone") == Comparison()
    assert EvaluationService(SHORT, experts={}).compare(stranger, name="clone") == Comparison()


def test_who_faints_is_counted_where_there_are_faints() -> None:
    counted, elsewhere = earned(1), earned(2).model_copy(update={"events": {}})
    rows, _ = score_policies({"expert": elsewhere, "random": counted})
    assert [row.faints_per_10k for row in rows] == [None, 5]


def test_a_checkpoint_of_another_layout_is_not_evaluated_and_that_is_said(tmp_path: Path) -> None:
    old = small_checkpoint(NetworkSpec("mlp", 5, 3, (4,)), replace(SPEC, env_id="town"))
    save_checkpoint(tmp_path / "old.zip", old)
    comparison = EvaluationService(SHORT).compare(tmp_path / "old.zip", name="clone")
    assert comparison.policies == ()
    (warning,) = comparison.warnings
    assert warning.startswith("The clone was not evaluated. The checkpoint's feature 0 is 'tick'")


def test_an_environment_that_cannot_be_built_is_found_out_early() -> None:
    EvaluationService(SHORT).check_env("town")
    with pytest.raises(EnvironmentCreationError, match="No environment named 'nonsense'") as refusal:
        EvaluationService(SHORT).check_env("nonsense")
    assert refusal.value.exit_code == 5
    nobody = RunConfig(town=TownConfig(n_agents=0))
    with pytest.raises(EnvironmentCreationError):
        EvaluationService(nobody).check_env("town")
