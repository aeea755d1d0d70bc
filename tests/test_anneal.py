"""Anneal: stages that build on one another, guardrails that act, a run that a stop does not change."""

from __future__ import annotations

import json
import math
import random
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.annealing import Reached, anneal
from tests.fakes import SPEC
from tests.policies import MLP, small_checkpoint
from tests.short_runs import left_by
from townlet_train.cli import main
from townlet_train.config import RunConfig
from townlet_train.data.checkpoint import load_checkpoint, save_checkpoint
from townlet_train.envs.build import spec_of
from townlet_train.errors import (
    CheckpointError,
    ConfigError,
    Interrupted,
    TownletTrainError,
    UnknownNameError,
    UsageError,
)
from townlet_train.orchestrator import run_strategy
from townlet_train.services.promotion import PromotionService
from townlet_train.strategies.ppo import PPOParams

CLONE, WARM = Reached(30.0), Reached(30.0)
MODES = ["bc", "critic_warmup", "ppo", "foreign", "foreign", "foreign"]
FOREIGN = {"schedule": [{"cycle": cycle, "mode": mode} for cycle, mode in enumerate(MODES)]}
FOREIGN_LAST = {"schedule": FOREIGN["schedule"][:4]}


def stage_of(path: str | None) -> int:
    return int(load_checkpoint(Path(str(path))).state["stage"])


def test_every_stage_begins_with_what_the_one_before_left(tmp_path: Path) -> None:
    made = anneal(tmp_path / "run", [CLONE, WARM, Reached(40), Reached(50)])
    assert [(told["stage"], told["from"]) for told in made.told] == [(0, None), (1, 0), (2, 1), (3, 2)]
    assert [told["optimiser"] for told in made.told] == [None, False, False, True]
    assert made.result.status == "PASS"
    assert [stage.mode for stage in made.result.stages] == ["bc", "critic_warmup", "ppo", "ppo"]
    assert stage_of(made.result.checkpoint) == 3


def test_the_critic_learns_alone_first_and_the_clone_is_what_ppo_stays_near(tmp_path: Path) -> None:
    made = anneal(tmp_path / "run", [CLONE, WARM, Reached(40)], {"kl_coef": 0.3})
    _, warmup, ppo = made.told
    assert warmup["critic_only"]
    assert "reference" not in warmup
    assert ppo["kl_coef"] == pytest.approx(0.3, rel=1e-3)  # a few steps of its half-life have gone by
    assert load_checkpoint(ppo["reference"]).state["stage"] == 0


def test_the_best_policy_within_the_guardrails_is_released_not_the_last(tmp_path: Path) -> None:
    made = anneal(tmp_path / "run", [CLONE, WARM, Reached(60), Reached(55), Reached(90, faint=0.5)])
    assert stage_of(made.result.checkpoint) == 2
    assert made.result.final_reward_mean == pytest.approx(60)


def test_a_policy_that_surely_keeps_within_the_guardrails_is_better_than_one_that_may_not(
    tmp_path: Path,
) -> None:
    unsure, richer = Reached(60, faint=0.04, at_most=0.2), Reached(70, faint=0.05, at_most=0.3)
    sure = Reached(50, faint=0.04, at_most=0.09)
    assert stage_of(anneal(tmp_path / "a", [CLONE, WARM, unsure, sure, richer]).result.checkpoint) == 3
    assert stage_of(anneal(tmp_path / "b", [CLONE, WARM, unsure, richer]).result.checkpoint) == 3


def test_a_guardrail_first_softens_then_restores_the_best_then_holds(tmp_path: Path) -> None:
    fainting = Reached(80, faint=0.5)
    made = anneal(
        tmp_path / "run",
        [CLONE, WARM, Reached(40), fainting, fainting, fainting, Reached(99)],
        {"kl_coef": 0.1},
    )
    assert [stage.action for stage in made.result.stages] == [None, None, None, "soften", "restore", "hold"]
    rates = [told["learning_rate"] for told in made.told[3:]]
    assert [told["kl_coef"] for told in made.told[3:]] == pytest.approx([0.1, 0.2, 0.2], rel=1e-3)
    assert rates[1] < rates[0] / 1.9
    assert [told["from"] for told in made.told[3:]] == [2, 3, 2]
    assert made.result.status == "HOLD"
    assert "5.00 faint per 10 000 agent-ticks are more than 1" in made.result.reasons[0]
    assert stage_of(made.result.checkpoint) == 2
    events = [event["event"] for event in made.events]
    assert events == ["stage"] * 4 + ["soften", "stage", "restore", "stage", "hold"]


def test_where_the_clone_is_the_best_a_restored_stage_begins_with_the_critic_that_learned_beside_it(
    tmp_path: Path,
) -> None:
    fainting = Reached(80, faint=0.5)
    made = anneal(tmp_path / "run", [CLONE, WARM, fainting, fainting, fainting])
    assert [stage.action for stage in made.result.stages[2:]] == ["soften", "restore", "hold"]
    assert [told["from"] for told in made.told[2:]] == [1, 2, 1]
    assert stage_of(made.result.checkpoint) == 0


def test_so_it_does_where_the_clone_and_so_its_warm_up_broke_a_limit(tmp_path: Path) -> None:
    fainting, worse = Reached(30, faint=0.5), Reached(30, faint=0.9)
    made = anneal(tmp_path / "run", [fainting, fainting, worse, worse, worse])
    assert [stage.action for stage in made.result.stages] == [None, None, "soften", "restore", "hold"]
    assert [told["from"] for told in made.told[1:]] == [0, 1, 2, 1]


def test_a_policy_that_earns_just_what_the_best_does_is_not_what_a_stage_is_restored_to(
    tmp_path: Path,
) -> None:
    fainting = Reached(30, faint=0.5)
    made = anneal(tmp_path / "run", [CLONE, WARM, Reached(30), fainting, fainting, Reached(40)])
    assert [stage.action for stage in made.result.stages[3:]] == ["soften", "restore", None]
    assert made.told[-1]["from"] == 1


def test_an_anneal_that_noted_no_restart_yet_is_restored_to_its_best_policy(tmp_path: Path) -> None:
    fainting = Reached(80, faint=0.5)
    plan = [CLONE, WARM, fainting, fainting, Reached(50)]
    anneal(tmp_path / "run", plan, stop_in=3)
    newest = sorted((tmp_path / "run").glob("checkpoint_*.zip"))[-1]
    saved = load_checkpoint(newest)
    del saved.state["journey"]["restart"]
    save_checkpoint(newest, saved)
    made = anneal(tmp_path / "run", plan, resume_from="latest")
    assert [told["from"] for told in made.told] == [2, 0]


def test_a_stage_that_leaves_the_policy_as_it_was_is_told_of_and_not_acted_upon(tmp_path: Path) -> None:
    fainting = Reached(80, faint=0.5)
    modes = ["bc", "critic_warmup", "foreign", "eval", "foreign"]
    schedule = [{"cycle": cycle, "mode": mode} for cycle, mode in enumerate(modes)]
    made = anneal(tmp_path / "run", [CLONE, WARM, fainting, fainting, Reached(60)], {"schedule": schedule})
    assert [stage.action for stage in made.result.stages] == [None, None, "soften", None, None]
    assert made.result.stages[3].flags
    assert (made.result.status, stage_of(made.result.checkpoint)) == ("PASS", 4)


def test_a_clone_that_faints_too_often_may_be_improved_upon(tmp_path: Path) -> None:
    plan = [Reached(30, faint=0.3), Reached(30, faint=0.3), Reached(40, faint=0.2), Reached(45, faint=0.4)]
    made = anneal(tmp_path / "run", plan)
    assert [stage.action for stage in made.result.stages] == [None, None, None, "soften"]
    assert "4.00 faint per 10 000 agent-ticks are more than 1" in made.result.stages[3].flags[0]
    assert stage_of(made.result.checkpoint) == 2


def test_an_entropy_bonus_is_paid_only_where_it_is_asked_for(tmp_path: Path) -> None:
    made = anneal(tmp_path / "run", [CLONE, WARM, Reached(40)], {"kl_coef": 0.3})
    assert [told.get("ent_coef", 0.0) for told in made.told] == [0.0] * 3
    assert PPOParams().ent_coef == 0.0


def test_strikes_are_forgotten_after_a_stage_that_keeps_within_the_guardrails(tmp_path: Path) -> None:
    fainting = Reached(50, faint=0.5)
    made = anneal(tmp_path / "run", [CLONE, WARM, fainting, Reached(45), fainting, Reached(60)])
    assert [stage.action for stage in made.result.stages] == [None, None, "soften", None, "soften", None]
    assert made.result.status == "PASS"


@pytest.mark.parametrize(
    ("reached", "reason"),
    [
        (Reached(10), "The return fell from 30 (reference) to 10"),
        (
            Reached(40, queue_conflict=5),
            "50.00 queue_conflict per 10 000 agent-ticks are fewer than 85; the reference has 100.00",
        ),
        (
            Reached(40, queue_conflict=50),
            "500.00 queue_conflict per 10 000 agent-ticks are more than 250; the reference has 100.00",
        ),
        (Reached(40, faint=0.2), "2.00 faint per 10 000 agent-ticks are more than 1"),
    ],
)
def test_each_guardrail_says_what_was_measured_and_what_is_allowed(
    reached: Reached, reason: str, tmp_path: Path
) -> None:
    made = anneal(tmp_path / "run", [CLONE, WARM, reached])
    flags = made.result.stages[-1].flags
    assert any(reason in flag for flag in flags), flags


@pytest.mark.parametrize(
    ("before", "after", "raised"), [(-3.0, -5.0, False), (-3.0, 1.0, True), (0.0, 0.9, False)]
)
def test_the_loss_may_fall_as_far_as_it_likes_and_has_a_baseline_below_zero(
    before: float, after: float, raised: bool, tmp_path: Path
) -> None:
    plan = [CLONE, WARM, Reached(40, loss=before), Reached(41, loss=after)]
    made = anneal(tmp_path / "run", plan)
    assert made.result.stages[-1].anneal_loss_flag is raised


def test_a_clone_below_its_threshold_fails_the_anneal(tmp_path: Path) -> None:
    made = anneal(tmp_path / "run", [Reached(30, accuracy=0.8), WARM, Reached(40)])
    assert made.result.status == "FAIL"
    assert made.result.reasons == ("The clone's held-out accuracy is 0.800, below 0.95.",)
    assert len(made.told) == 1


def test_training_that_fails_leaves_the_best_policy_and_says_which_stage_it_was(tmp_path: Path) -> None:
    made = anneal(tmp_path / "run", [CLONE, WARM, Reached(40), Reached(0, error="Everything is NaN.")])
    assert made.result.status == "FAIL"
    assert made.result.reasons == ("Stage 3 (ppo) failed: Everything is NaN.",)
    assert stage_of(made.result.checkpoint) == 2


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("bug", "Stage 3 (foreign) failed: KeyError: 'no such layer'. Its traceback is in the run's log."),
        ("nothing left", "Stage 3 (foreign) failed: It left no checkpoint."),
        ("torn", "Stage 3 (foreign) failed: "),
        ("elsewhere", "Stage 3 (foreign) failed: It left "),
    ],
)
def test_a_plugins_stage_that_leaves_nothing_to_go_on_with_fails_the_anneal_and_not_the_program(
    fault: str, reason: str, tmp_path: Path
) -> None:
    made = anneal(tmp_path / "run", [CLONE, WARM, Reached(40), Reached(50, fault=fault)], FOREIGN)
    assert made.result.status == "FAIL"
    assert made.result.reasons[0].startswith(reason)
    assert [event["event"] for event in made.events[-2:]] == ["stage", "fail"]
    assert stage_of(made.result.checkpoint) == 2


@pytest.mark.parametrize(
    ("worse", "reason"),
    [
        (Reached(-50), "The return fell from 30 (reference) to -50"),
        (Reached(math.nan), "The return is nan, which is no number to go on with."),
        (Reached(50, loss=math.nan), "The loss is nan, which is no number to go on with."),
        (Reached(50, faint=0.9), "9.00 faint per 10 000 agent-ticks are more than 1"),
    ],
)
def test_a_plugins_stage_that_is_worse_is_acted_upon_like_our_own(
    worse: Reached, reason: str, tmp_path: Path
) -> None:
    made = anneal(tmp_path / "run", [CLONE, WARM, Reached(40), worse, worse, worse], FOREIGN)
    assert [done.action for done in made.result.stages[3:]] == ["soften", "restore", "hold"]
    assert made.result.status == "HOLD"
    assert reason in made.result.reasons[0]
    assert stage_of(made.result.checkpoint) == 2
    told = [event["reasons"] for event in made.events if event["event"] in ("soften", "restore", "hold")]
    assert [any(reason in sentence for sentence in reasons) for reasons in told] == [True] * 3


def test_a_guardrail_on_an_event_that_nobody_counts_ends_the_anneal_with_its_first_stage(
    tmp_path: Path,
) -> None:
    fiant = {"event": "fiant", "direction": "lower", "limit": 1}
    config = RunConfig.model_validate({"seed": 7, "gate": {"guardrails": [fiant]}})
    with pytest.raises(ConfigError, match=r"'fiant', which is not counted\. Did you mean 'faint'"):
        anneal(tmp_path / "run", [CLONE, WARM, Reached(40)], config=config)
    assert [path.name for path in (tmp_path / "run/stages").iterdir()] == ["00_bc"]


def test_social_rewards_follow_their_schedule_by_cycle(tmp_path: Path) -> None:
    social = {"schedule": [{"cycle": 1, "stage": "C1"}, {"cycle": 2, "stage": "C2"}]}
    made = anneal(
        tmp_path / "run",
        [CLONE, WARM, Reached(40), Reached(50)],
        config=RunConfig.model_validate({"seed": 7, "social": social}),
    )
    assert [told["social"] for told in made.told] == ["OFF", "OFF", "C1", "C2"]
    assert [stage.social_stage for stage in made.result.stages] == ["OFF", "OFF", "C1", "C2"]
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [line["social_stage"] for line in lines] == ["OFF"] * 4 + ["C1"] * 2 + ["C2"] * 2


def test_stages_know_what_they_are_measured_against(tmp_path: Path) -> None:
    made = anneal(
        tmp_path / "run", [CLONE, WARM, Reached(40, loss=0.4), Reached(50)], {"dataset_label": "mine"}
    )
    last = made.told[-1]["anneal"]
    assert (last.cycle, last.stage, last.dataset_label) == (2, "ppo", "mine")
    assert (last.bc_accuracy, last.bc_threshold, last.bc_passed) == (1.0, 0.95, True)
    assert (last.loss_baseline, last.queue_events_baseline) == (0.4, 10.0)
    assert made.result.baselines["mine"]["queue_conflict_events"] == 10.0


def test_the_next_anneal_on_a_dataset_is_held_to_what_the_last_one_left(tmp_path: Path) -> None:
    kept = {"promotion_dir": tmp_path / "promotion", "dataset_label": "mine"}
    first = anneal(tmp_path / "first", [CLONE, WARM, Reached(40, loss=0.4)], kept)
    assert first.told[0]["anneal"].queue_events_baseline is None
    second = anneal(tmp_path / "second", [CLONE, WARM, Reached(41, loss=1.5)], kept)
    told = second.told[0]["anneal"]
    assert (told.loss_baseline, told.queue_events_baseline) == (0.4, 10.0)
    assert second.result.stages[-1].flags == ("The loss rose from 0.4 to 1.5; 1 is tolerated.",)
    other = anneal(tmp_path / "other", [CLONE, WARM, Reached(41, loss=9)], {**kept, "dataset_label": "yours"})
    assert other.result.stages[-1].anneal_loss_flag is False
    assert other.result.baselines.keys() == {"mine", "yours"}


def test_an_anneal_that_fails_leaves_no_baselines(tmp_path: Path) -> None:
    kept = {"promotion_dir": tmp_path / "promotion"}
    anneal(tmp_path / "run", [CLONE, WARM, Reached(0, error="Everything is NaN.")], kept)
    assert not (tmp_path / "promotion").exists()
    (tmp_path / "promotion").mkdir()
    (tmp_path / "promotion/baselines.json").write_text("[]")
    with pytest.raises(UsageError, match="holds no baselines by dataset label"):
        anneal(tmp_path / "again", [CLONE, WARM, Reached(40)], kept)


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_an_anneal_that_was_stopped_in_any_stage_goes_on_as_the_same(stage: int, tmp_path: Path) -> None:
    plan = [CLONE, WARM, Reached(40), Reached(80, faint=0.5), Reached(60)]
    whole = anneal(tmp_path / "whole", plan)
    anneal(tmp_path / "stopped", plan, stop_in=stage)
    resumed = anneal(tmp_path / "stopped", plan, resume_from="latest")
    again = {told["stage"]: told for told in whole.told}
    for told in resumed.told:
        assert {**told, "reference": None} == {**again[told["stage"]], "reference": None}
    assert [told["stage"] for told in resumed.told] == list(range(stage, len(plan)))
    assert _timeless(resumed.result.model_dump()) == _timeless(whole.result.model_dump())
    assert [_timeless(event) for event in resumed.events] == [_timeless(event) for event in whole.events]
    assert _lines(tmp_path / "stopped") == _lines(tmp_path / "whole")


def test_the_experts_share_falls_to_nothing_and_its_imitation_with_it(tmp_path: Path) -> None:
    plan = [CLONE, WARM, Reached(40), Reached(41), Reached(42)]
    made = anneal(tmp_path / "run", plan, {"anneal_ratio": 0.8, "bc_weight": 0.5})
    assert [told.get("expert_share") for told in made.told[2:]] == [0.8, 0.4, None]
    assert [stage.bc_weight for stage in made.result.stages[2:]] == [0.5, 0.25, None]


def test_a_schedule_of_ones_own_takes_the_place_of_the_usual(tmp_path: Path) -> None:
    schedule = [
        {"cycle": 1, "mode": "ppo", "params": {"timesteps": 77}},
        {"cycle": 0, "mode": "bc"},
        {"cycle": 2, "mode": "eval"},
    ]
    made = anneal(tmp_path / "run", [CLONE, Reached(40)], {"schedule": schedule})
    assert [stage.mode for stage in made.result.stages] == ["bc", "ppo", "eval"]
    assert made.told[1]["timesteps"] == 77


def test_the_rate_falls_over_the_steps_that_the_stages_of_a_schedule_say(tmp_path: Path) -> None:
    ppo = [{"cycle": cycle, "mode": "ppo", "params": {"timesteps": 200}} for cycle in (1, 2)]
    first = [{"cycle": 0, "mode": "bc"}, {"cycle": 0, "mode": "critic_warmup"}]
    plan = [CLONE, WARM, Reached(40), Reached(50)]
    made = anneal(tmp_path / "run", plan, {"schedule": [*first, *ppo]})
    assert made.told[1]["timesteps"] == 400 * 0.05
    whole = made.told[1]["learning_rate"]
    # The fakes tell of 100 steps a stage: a quarter and a half of all.
    assert [told["learning_rate"] / whole for told in made.told[2:]] == pytest.approx([0.75, 0.5])
    del ppo[1]["params"]
    made = anneal(tmp_path / "rest", plan, {"schedule": [*first, *ppo], "timesteps": 500})
    assert [told["timesteps"] for told in made.told[1:]] == [25, 200, 300]


@pytest.mark.parametrize(
    ("params", "sentence"),
    [
        ({"n_cycles": 3}, "schedule names the stages one by one: leave n_cycles out"),
        ({"timesteps": 300}, "every ppo stage of schedule says its own timesteps: leave the anneal's out"),
    ],
)
def test_what_a_schedule_says_is_not_to_be_said_again(
    params: dict[str, int], sentence: str, tmp_path: Path
) -> None:
    ppo = {"cycle": 1, "mode": "ppo", "params": {"timesteps": 77}}
    with pytest.raises(ConfigError, match=sentence):
        anneal(tmp_path / "run", [CLONE], {"schedule": [{"cycle": 0, "mode": "bc"}, ppo], **params})


CORRECTED = [
    {"cycle": 0, "mode": "bc"},
    {"cycle": 0, "mode": "dagger"},
    {"cycle": 1, "mode": "ppo"},
    {"cycle": 2, "mode": "ppo"},
]


@pytest.mark.parametrize(
    ("params", "sentence"),
    [
        ({"ppo": {"normalize_observations": True}}, "features stay standardised as the clone's"),
        ({"ppo": {"shared_trunk": True}}, "this clone's share none. Give bc.shared_trunk too"),
    ],
)
def test_what_a_clone_decides_is_refused_before_anything_is_written(
    params: dict[str, dict[str, bool]], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises((ConfigError, UsageError), match=sentence):
        anneal(tmp_path / "run", [CLONE, WARM, Reached(40)], params)
    assert not (tmp_path / "run").exists()


def test_steps_of_ppo_are_the_anneals_to_share_out(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="give timesteps, or a schedule"):
        anneal(tmp_path / "run", [CLONE], {"ppo": {"timesteps": 100}})


@pytest.mark.parametrize(("earned", "near"), [(35.0, 1), (29.9, 0)])
def test_the_better_of_two_imitations_is_what_later_stages_stay_near_and_are_compared_with(
    earned: float, near: int, tmp_path: Path
) -> None:
    plan = [CLONE, Reached(earned), Reached(40), Reached(earned - 13)]
    made = anneal(tmp_path / "run", plan, {"schedule": CORRECTED, "kl_coef": 0.1})
    assert [told["from"] for told in made.told] == [None, 0, 1, 2]
    assert load_checkpoint(made.told[2]["reference"]).state["stage"] == near
    assert stage_of(made.result.bc_checkpoint) == near
    assert (f"from {earned if near else 30:g} (reference)" in " ".join(made.result.stages[-1].flags)) is True
    assert made.told[1]["evaluation_episodes"] == 0
    assert made.told[1]["manifest"] == Path("somewhere/demonstrations/manifest.json")


def test_the_steps_of_a_stage_whose_result_has_none_are_those_it_recorded(tmp_path: Path) -> None:
    made = anneal(tmp_path / "run", [CLONE, *[Reached(40)] * 3], {"schedule": CORRECTED})
    assert [stage.steps for stage in made.result.stages] == [0, 100, 100, 100]
    timesteps = [line["timestep"] for line in _lines(tmp_path / "run")]
    assert timesteps == [0, 0, 50, 100, 150, 200, 250, 300]


def test_no_stage_better_than_the_clone_is_held_and_not_passed_unjudged(tmp_path: Path) -> None:
    made = anneal(tmp_path / "run", [CLONE, WARM, Reached(29)], {"gate": True})
    assert (made.result.status, made.result.gate) == ("HOLD", None)
    assert "No stage was better than the clone" in made.result.reasons[0]


def test_a_budget_that_the_critic_took_part_of_does_not_end_a_resumed_anneal(tmp_path: Path) -> None:
    plan = [CLONE, WARM, Reached(40), Reached(50)]
    anneal(tmp_path / "run", plan, {"timesteps": 200}, stop_in=3)
    resumed = anneal(tmp_path / "run", plan, {"timesteps": 200}, resume_from="latest")
    assert stage_of(resumed.result.checkpoint) == 3
    assert resumed.result.warnings == ()


def test_a_stage_that_fails_is_an_event_and_a_row(tmp_path: Path) -> None:
    made = anneal(tmp_path / "run", [CLONE, WARM, Reached(0, error="Everything is NaN.")])
    assert made.events[-1]["event"] == "fail"
    assert made.events[-1]["reasons"] == ["Stage 2 (ppo) failed: Everything is NaN."]
    assert made.result.stages[-1].action == "fail"


def test_a_fork_is_refused_since_an_anneal_begins_with_a_clone_of_its_own(tmp_path: Path) -> None:
    first = anneal(tmp_path / "run", [CLONE, WARM, Reached(40)])
    with pytest.raises(UsageError, match="--fork has no meaning here"):
        anneal(tmp_path / "fork", [CLONE, WARM], resume_from=str(first.result.checkpoint), fork=True)


def test_a_stage_that_nobody_runs_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    schedule = [{"cycle": 0, "mode": "bc"}, {"cycle": 1, "mode": "pppo"}]
    with pytest.raises(UnknownNameError, match="Did you mean 'ppo'"):
        anneal(tmp_path / "run", [CLONE], {"schedule": schedule})
    assert not (tmp_path / "run").exists()


@pytest.mark.torch
@pytest.mark.parametrize("params", [{"ppo": {"clip_rnge": 0.1}}, {"bc": {"n_epchs": 1}}])
def test_a_param_that_a_stage_has_not_is_refused_before_anything_is_written(
    params: dict[str, dict[str, float]], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="Did you mean"):
        run_strategy("anneal", params, config=RunConfig(env="CartPole-v1"), run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.torch
@pytest.mark.parametrize(
    ("params", "left", "sentence"),
    [
        ({"capture_dir": "nowhere"}, {}, "nowhere does not exist"),
        ({"ppo": {"device": "cuda:77"}}, {}, "cuda:77"),
        ({"promotion_dir": "releases"}, {"baselines.json": "{bad"}, "holds no baselines by dataset label"),
        ({"promotion_dir": "releases"}, {"ledger.jsonl": "{bad\n"}, "Line 1 of ledger.jsonl"),
        ({"promotion_dir": "releases/ledger.jsonl"}, {"ledger.jsonl": ""}, "is a file, expected a directory"),
    ],
)
def test_what_only_the_end_of_an_anneal_needs_is_looked_at_before_its_beginning(
    params: dict[str, object],
    left: dict[str, str],
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("releases").mkdir()
    for name, content in left.items():
        (Path("releases") / name).write_text(content)
    with pytest.raises(TownletTrainError, match=sentence) as raised:
        run_strategy("anneal", params, config=RunConfig(env="CartPole-v1"), run_dir=Path("run"))
    assert "\n" not in str(raised.value)
    assert not Path("run").exists()


@pytest.mark.torch
def test_a_release_of_another_environment_is_told_before_anything_is_written(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.zip"
    save_checkpoint(path, small_checkpoint(MLP, SPEC))
    PromotionService(tmp_path / "releases").begin(path)
    params = {"promotion_dir": tmp_path / "releases"}
    with pytest.raises(CheckpointError):
        run_strategy("anneal", params, config=RunConfig(env="CartPole-v1"), run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_plugins_stage_may_name_its_checkpoint_from_the_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made = anneal(Path("run"), [CLONE, WARM, Reached(40), Reached(50, fault="from the root")], FOREIGN_LAST)
    assert (made.result.status, stage_of(made.result.checkpoint)) == ("PASS", 3)
    assert made.result.stages[3].checkpoint == "stages/03_foreign/checkpoint_100.zip"


@pytest.mark.parametrize("name", ["capture_dir", "replay_manifest"])
def test_what_was_recorded_is_learned_from_beside_in_every_stage_of_ppo(name: str, tmp_path: Path) -> None:
    made = anneal(tmp_path / "run", [CLONE, WARM, Reached(40), Reached(50)], {name: Path("recorded")})
    beside = [(told.get("mode"), told.get(name)) for told in made.told]
    assert beside == [(None, None), (None, None), ("mixed", Path("recorded")), ("mixed", Path("recorded"))]


def test_fewer_steps_than_stages_are_a_step_for_each(tmp_path: Path) -> None:
    made = anneal(tmp_path / "run", [CLONE, WARM, Reached(40), Reached(50)], {"timesteps": 1})
    assert [told["timesteps"] for told in made.told[1:]] == [1, 1, 1]


def test_an_anneal_goes_on_where_its_stages_are_and_nowhere_else(tmp_path: Path) -> None:
    plan = [CLONE, WARM, Reached(40)]
    anneal(tmp_path / "run", plan, stop_in=2)
    newest = sorted((tmp_path / "run").glob("checkpoint_*.zip"))[-1]
    with pytest.raises(UsageError, match="An anneal goes on where its stages are"):
        anneal(tmp_path / "elsewhere", plan, resume_from=str(newest))


def test_an_anneal_of_other_params_is_a_new_one_and_no_fork(tmp_path: Path) -> None:
    plan = [CLONE, WARM, Reached(40)]
    anneal(tmp_path / "run", plan, stop_in=2)
    with pytest.raises(UsageError, match=r"nothing may change\. .* in another --output-dir\.$"):
        anneal(tmp_path / "run", plan, {"kl_coef": 0.3}, resume_from="latest")


def test_a_schedule_that_begins_with_nothing_to_improve_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="A schedule begins with bc"):
        anneal(tmp_path / "run", [CLONE], {"schedule": [{"cycle": 0, "mode": "ppo"}]})


def _timeless(document: dict[str, object]) -> object:
    """A document without times and without the folder it lies in."""
    text = json.dumps(document, default=str).replace("stopped/", "whole/")
    return json.loads(text, object_hook=lambda found: {k: v for k, v in found.items() if k not in TIMES})


TIMES = {"timestamp", "duration_sec", "checkpoint_sha256"}


def _lines(run_dir: Path) -> list[object]:
    return [_timeless(json.loads(line)) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


SMALL = {
    "timesteps": 6000, "n_cycles": 3, "stage_episodes": 8, "evaluation_episodes": 8, "gate": False,
    "bc": {"n_epochs": 4}, "ppo": {"n_envs": 2, "n_steps": 50, "n_epochs": 2, "log_interval": 100},
}  # fmt: skip


def test_a_policy_that_is_there_is_taken_instead_of_a_clone(tmp_path: Path) -> None:
    clone, town = tmp_path / "mine.zip", spec_of(RunConfig())
    network = replace(MLP, n_features=len(town.feature_names), n_actions=len(town.action_names))
    save_checkpoint(clone, replace(small_checkpoint(network, town), state={"stage": 0}))
    params = {"bc_manifest": None, "clone": clone}
    made = anneal(tmp_path / "run", [CLONE, WARM, Reached(40)], params)
    assert [(told["stage"], told["from"]) for told in made.told] == [(1, 0), (2, 1)]
    first = made.result.stages[0]
    assert (tmp_path / "run" / str(first.checkpoint)).read_bytes() == clone.read_bytes()
    assert (first.accuracy, first.passed, first.return_mean) == (None, None, pytest.approx(30.0))
    assert (made.result.demonstrations, made.result.status) == (None, "PASS")
    assert first.learning_rate is None  # nothing was trained


def test_how_to_clone_is_refused_beside_a_clone_that_is_there(tmp_path: Path) -> None:
    params = {"bc_manifest": None, "clone": tmp_path / "mine.zip", "bc": {"n_epochs": 3}}
    with pytest.raises(ConfigError, match="clone is taken as it is, and bc is not run: leave bc out"):
        anneal(tmp_path / "run", [CLONE], params)


def test_a_policy_to_begin_with_must_be_whole_and_of_this_environment(tmp_path: Path) -> None:
    clone = tmp_path / "clone.zip"
    clone.write_bytes(b"no checkpoint")
    with pytest.raises(CheckpointError, match="is no checkpoint"):
        anneal(tmp_path / "run", [CLONE], {"bc_manifest": None, "clone": clone})
    save_checkpoint(clone, small_checkpoint(MLP, SPEC))
    elsewhere = RunConfig(env="CartPole-v1", seed=7)
    with pytest.raises(
        CheckpointError, match="was trained in environment 'counting', this one is 'CartPole-v1'"
    ):
        anneal(tmp_path / "run", [CLONE], {"bc_manifest": None, "clone": clone}, config=elsewhere)
    with pytest.raises(ConfigError, match="one of clone and bc_manifest"):
        anneal(tmp_path / "run", [CLONE], {"clone": clone})
    assert not (tmp_path / "run").exists()


def test_guardrails_that_only_look_change_nothing_but_which_policy_is_the_best(tmp_path: Path) -> None:
    plan = [CLONE, WARM, Reached(40), Reached(80, faint=0.5), Reached(90, faint=0.5), Reached(35)]
    made = anneal(tmp_path / "run", plan, {"guardrails": {"act": False}, "kl_coef": 0.1})
    assert [stage.action for stage in made.result.stages] == [None] * len(plan)
    assert [bool(stage.flags) for stage in made.result.stages] == [False, False, False, True, True, True]
    assert [told["kl_coef"] for told in made.told[2:]] == pytest.approx([0.1] * 4, rel=1e-3)
    assert [told["from"] for told in made.told] == [None, 0, 1, 2, 3, 4]
    assert stage_of(made.result.checkpoint) == 2


@pytest.mark.slow
@pytest.mark.torch
def test_an_anneal_killed_anywhere_ends_with_the_same_bytes(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    settings = tmp_path / "small.json"
    settings.write_text(json.dumps({"env": "CartPole-v1", "seed": 5, "anneal": SMALL}))
    run_dir, straight = tmp_path / "run", tmp_path / "straight"
    program = [sys.executable, "-m", "townlet_train", "anneal", "--output-dir", str(run_dir), "--json"]
    started = [*program, "--config", str(settings)]
    began = time.perf_counter()
    subprocess.run(started, check=True, capture_output=True)
    took = time.perf_counter() - began
    run_dir.rename(straight)  # what it left names its place
    moments = random.Random(2)
    for _ in range(5):
        command = [*program, "--resume-from", "latest"] if (run_dir / "run.json").exists() else started
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(moments.uniform(0.3, 0.9) * took)
        process.kill()
        process.wait()
    finished = subprocess.run(
        [*program, "--resume-from", "latest"], check=False, capture_output=True, text=True
    )
    if finished.returncode == 3:  # the last life had reached the end before it was killed
        assert "nothing is left to do. Pass --overwrite" in finished.stderr
    assert left_by(run_dir) == left_by(straight)


@pytest.mark.slow
@pytest.mark.torch
def test_an_anneal_stopped_in_its_first_stage_captures_anew_and_ends_with_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch")
    settings = tmp_path / "small.json"
    settings.write_text(json.dumps({"env": "CartPole-v1", "seed": 5, "anneal": SMALL}))
    run_dir, straight = tmp_path / "run", tmp_path / "straight"
    begun = ["anneal", "--output-dir", str(run_dir), "--config", str(settings)]
    ended = main(begun)
    run_dir.rename(straight)  # what it left names its place

    def stop(*arguments: object) -> None:
        raise Interrupted("Stopped by SIGINT.")

    with monkeypatch.context() as patched:
        patched.setattr("townlet_train.strategies.anneal.stages.train_stage", stop)
        assert main(begun) == 7
    assert "--resume-from latest" in capsys.readouterr().err
    assert main(["anneal", "--output-dir", str(run_dir), "--resume-from", "latest"]) == ended
    assert left_by(run_dir) == left_by(straight)
