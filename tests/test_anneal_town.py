"""Anneal on the town with real parts: what is handed over is the clone, and social rewards change what is learned."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from townlet_train.config import RunConfig
from townlet_train.data.checkpoint import load_checkpoint
from townlet_train.envs.town import TownVectorEnv
from townlet_train.errors import Interrupted
from townlet_train.orchestrator import TrainingOrchestrator
from townlet_train.policies.network import NetworkPolicy
from townlet_train.registry import discover
from townlet_train.results import AnnealSummaryDTO, PromotionStatusDTO
from townlet_train.services import TrainingServices
from townlet_train.services.promotion import PromotionService
from townlet_train.services.rolling import read_log
from townlet_train.services.rollout import capture_as_configured

pytest.importorskip("torch")
pytestmark = pytest.mark.torch

N_ENVS, N_STEPS = 64, 40
CONFIG: dict[str, Any] = {"seed": 5, "town": {"episode_ticks": 160}, "rollout": {"towns": 8, "ticks": 160}}
SHORT = {"bc_threshold": 0.0, "gate": False, "stage_episodes": 2, "evaluation_episodes": 0}
ONE_STEP = {"n_envs": N_ENVS, "n_steps": N_STEPS, "batch_size": N_ENVS * N_STEPS * 6, "n_epochs": 1}


@pytest.fixture(scope="module")
def demonstrations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight towns of the expert, one day each."""
    folder = tmp_path_factory.mktemp("captured") / "demonstrations"
    capture_as_configured(RunConfig.model_validate(CONFIG), output=folder, with_maps=False)
    return folder


def anneal(
    run_dir: Path,
    demonstrations: Path,
    schedule: list[str],
    *,
    services: TrainingServices | None = None,
    resume_from: str | None = None,
    params: dict[str, Any] | None = None,
    **config: Any,
) -> AnnealSummaryDTO:
    """One anneal through the named modes, every update of PPO a single step on everything it collected."""
    told = {
        **SHORT,
        "bc_manifest": demonstrations,
        "kl_coef": 0.02,
        "bc": {"n_epochs": 4},
        "timesteps": 2 * N_ENVS * N_STEPS * 6,
        "ppo": {**ONE_STEP, "log_interval": N_ENVS * N_STEPS * 6},
        "schedule": [{"cycle": int(mode != "bc"), "mode": mode} for mode in schedule],
        **(params or {}),
    }
    orchestrator = TrainingOrchestrator(
        RunConfig.model_validate({**CONFIG, **config}), services=services, registry=discover()
    )
    result = orchestrator.run("anneal", told, run_dir=run_dir, resume_from=resume_from)
    assert isinstance(result, AnnealSummaryDTO)
    return result


@pytest.mark.parametrize("shared_trunk", [False, True])
def test_the_first_update_after_the_hand_over_begins_with_the_very_clone(
    shared_trunk: bool, demonstrations: Path, tmp_path: Path
) -> None:
    params = {"bc": {"n_epochs": 4, "shared_trunk": shared_trunk}}
    made = anneal(tmp_path / "run", demonstrations, ["bc", "critic_warmup", "ppo"], params=params)
    lines = [line for line in read_log(tmp_path / "run/metrics.jsonl") if line["mode"] == "ppo"]
    assert lines[0]["reference_kl"] == pytest.approx(0, abs=1e-6)
    assert lines[0]["approx_kl"] == pytest.approx(0, abs=1e-6)
    assert lines[0]["entropy"] == pytest.approx(entropy_of(Path(str(made.bc_checkpoint))), rel=0.1)
    assert lines[1]["reference_kl"] > 1e-6  # so the first one could have been told from it


@pytest.mark.slow
def test_where_nothing_holds_the_clone_neighbours_faint_and_the_guardrails_see_it_and_bring_it_back(
    tmp_path: Path,
) -> None:
    town = {"seed": 5, "town": {"episode_ticks": 320}, "rollout": {"towns": 64, "ticks": 320}}
    capture_as_configured(RunConfig.model_validate(town), output=tmp_path / "shown", with_maps=False)
    naive = {
        "kl_coef": 0.0,
        "critic_warmup": 0.0,
        "bc": {"n_epochs": 24, "learning_rate": 3e-3, "shared_trunk": True},
        "ppo": {"n_envs": 64, "n_steps": 32, "shared_trunk": True, "normalize_rewards": False},
    }
    few = {"timesteps": 98_304, "n_cycles": 4, "stage_episodes": 48, "schedule": ()}
    params = {**naive, **few}
    made = anneal(tmp_path / "run", tmp_path / "shown", [], params=params, **town)
    clone, first, second, third, _ = made.stages
    faints = [stage.faints_per_10k or 0.0 for stage in (clone, first, second, third)]
    assert faints[0] < 1 < faints[1] < faints[2]
    assert any("faint per 10 000 agent-ticks are more than 1" in sentence for sentence in first.flags)
    assert [first.action, second.action] == ["soften", "restore"]
    assert (third.kl_coef or 0.0) > (first.kl_coef or 0.0) == 0.0
    assert faints[3] < faints[1]
    assert [stage.best for stage in made.stages] == [True, False, False, False, False]


@pytest.mark.parametrize(("told", "kept"), [({}, False), ({"shared_trunk": True}, True)])
def test_a_clones_shared_trunk_is_the_actors_alone_unless_told(
    told: dict[str, Any], kept: bool, demonstrations: Path, tmp_path: Path
) -> None:
    params = {"bc": {"n_epochs": 1, "shared_trunk": True}, "ppo": {**ONE_STEP, **told}}
    made = anneal(tmp_path / "run", demonstrations, ["bc", "ppo"], params=params)
    networks = [
        load_checkpoint(tmp_path / "run" / str(stage.checkpoint)).info.network for stage in made.stages
    ]
    assert [network.get("shared_trunk", False) for network in networks] == [True, kept]


def test_the_networks_of_all_stages_are_as_wide_as_a_stage_made_its_clone(
    demonstrations: Path, tmp_path: Path
) -> None:
    clone = {"cycle": 0, "mode": "bc", "params": {"n_epochs": 1, "hidden_sizes": [16, 8]}}
    schedule = [clone, {"cycle": 1, "mode": "ppo"}]
    made = anneal(tmp_path / "run", demonstrations, [], params={"schedule": schedule})
    networks = [
        load_checkpoint(tmp_path / "run" / str(stage.checkpoint)).info.network for stage in made.stages
    ]
    assert [network["hidden_sizes"] for network in networks] == [[16, 8], [16, 8]]


def entropy_of(clone: Path) -> float:
    """Mean entropy of a clone over the first ticks of other towns, by NumPy alone, nats."""
    env = TownVectorEnv(RunConfig.model_validate(CONFIG).town, N_ENVS)
    policy, rng = NetworkPolicy(load_checkpoint(clone)), np.random.default_rng(0)
    observation, entropies = env.reset(np.arange(N_ENVS) + 77_000), []
    for _ in range(N_STEPS):
        logits = policy.logits(observation).astype(np.float64)
        logits -= logits.max(axis=-1, keepdims=True)
        shares = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
        entropies.append(-(shares * np.log(np.maximum(shares, 1e-300))).sum(axis=-1).mean())
        observation = env.step(policy.act(observation, rng.random((N_ENVS, env.n_agents)))).observation
    return float(np.mean(entropies))


def test_social_rewards_change_what_is_learned_and_everything_says_which_were_paid(
    demonstrations: Path, tmp_path: Path
) -> None:
    touchy = {**CONFIG["town"], "ties": {"avoid_threshold": 0.1}}  # so that few ticks hold what C2 pays
    learned, clones = {}, set()
    for stage in ("OFF", "C1", "C2"):
        run_dir = tmp_path / stage
        made = anneal(run_dir, demonstrations, ["bc", "ppo"], town=touchy, social={"stage": stage})
        learned[stage] = load_checkpoint(run_dir / str(made.stages[-1].checkpoint)).weights
        clone = load_checkpoint(Path(str(made.bc_checkpoint))).weights
        clones.add(b"".join(clone[name].tobytes() for name in sorted(clone)))
        assert [done.social_stage for done in made.stages] == [stage, stage]
        assert {line["social_stage"] for line in read_log(run_dir / "metrics.jsonl")} == {stage}
        assert json.loads((run_dir / "run.json").read_text())["config"]["social"]["stage"] == stage
    assert len(clones) == 1  # nobody is paid for imitating
    for one, other in (("OFF", "C1"), ("OFF", "C2"), ("C1", "C2")):
        apart = [np.abs(learned[one][name] - learned[other][name]).max() for name in learned[one]]
        assert max(apart) > 1e-5, (one, other)


class StoppedAfterNoting(PromotionService):
    """Notes a verdict, and is stopped before anybody hears of it."""

    def record_evaluation(self, *arguments: Any, **named: Any) -> PromotionStatusDTO:
        super().record_evaluation(*arguments, **named)
        raise Interrupted("Stopped by SIGTERM.")


LENIENT = {"episodes": 20, "resamples": 200, "margin": 100.0, "tail_margin": 100.0, "guardrails": []}


def test_an_anneal_stopped_right_after_its_verdict_was_noted_goes_on_and_notes_it_once(
    demonstrations: Path, tmp_path: Path
) -> None:
    first = anneal(tmp_path / "first", demonstrations, ["bc"])
    releases = tmp_path / "promotion"
    PromotionService(releases).begin(Path(str(first.checkpoint)))
    config = RunConfig.model_validate({**CONFIG, "gate": LENIENT})
    services = replace(TrainingServices.from_config(config), promotion=StoppedAfterNoting(releases))
    told: dict[str, Any] = {"params": {"gate": True}, "gate": LENIENT}
    with pytest.raises(Interrupted):
        anneal(tmp_path / "run", demonstrations, ["bc", "ppo"], services=services, **told)
    noted = PromotionService(releases).status()
    assert (noted.ledger_lines, noted.pass_streak) == (2, 1)
    services = replace(services, promotion=PromotionService(releases))
    made = anneal(
        tmp_path / "run", demonstrations, ["bc", "ppo"], services=services, resume_from="latest", **told
    )
    assert (made.status, made.promotion_pass_streak, made.warnings) == ("PASS", 1, ())
    assert PromotionService(releases).status() == noted


def test_a_promotion_dir_in_the_params_is_the_service_a_strategy_is_handed(
    demonstrations: Path, tmp_path: Path
) -> None:
    first = anneal(tmp_path / "first", demonstrations, ["bc"])
    releases = tmp_path / "promotion"
    PromotionService(releases).begin(Path(str(first.checkpoint)))
    made = anneal(
        tmp_path / "run",
        demonstrations,
        ["bc", "ppo"],
        params={"gate": True, "promotion_dir": releases},
        gate=LENIENT,
    )
    assert made.gate is not None
    assert made.gate.release == str(releases / "release.zip")
    assert made.promotion_pass_streak == 1
