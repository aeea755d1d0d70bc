"""The rules of the town, one arranged scene each; expected numbers are worked out by hand from the rule."""

from __future__ import annotations

import numpy as np
import pytest

from tests.towns import BED, FRIDGE, SHOWER, STOVE, ArrangedTown, beside
from townlet_train.config.town import TownConfig


def config(**sections: dict[str, object]) -> TownConfig:
    return TownConfig.model_validate({"allow_infeasible": True, **sections})


def queue_at_the_bed(n_waiting: int) -> ArrangedTown:
    """Agent 0 sleeps; agents 1..n wait in line."""
    scene = ArrangedTown(config(queue={"age_priority_weight": 0.0}))

    def gather(town):
        for agent in range(n_waiting + 1):
            beside(town, agent, BED)

    scene.arrange(gather)
    scene.step(a0="request_bed")
    scene.step(a0="start")
    scene.step(**{f"a{agent}": "request_bed" for agent in range(1, n_waiting + 1)})
    return scene


@pytest.mark.parametrize(("n_waiting", "intensity"), [(1, 1.5), (2, 1.75), (3, 2.0), (4, 2.25)])
def test_three_stalled_ticks_are_one_conflict_whose_intensity_grows_with_the_queue(n_waiting, intensity):
    scene = queue_at_the_bed(n_waiting)  # the tick of the requests was the first stalled one
    scene.step()
    assert scene.event("queue_conflict") == 0
    scene.step()
    assert scene.event("queue_conflict") == 1
    assert scene.event("queue_conflict_intensity") == pytest.approx(intensity)
    first = scene.town["queue"][BED][0]
    # 0.15 per unit of intensity both ways; the same tick's decay of 0.005 has passed
    assert scene.town["rivalry"][0, first] == pytest.approx(0.15 * intensity - 0.005)
    assert scene.town["rivalry"][first, 0] == pytest.approx(0.15 * intensity - 0.005)
    assert scene.town["tie_rivalry"][0, first] == pytest.approx(0.1 * intensity - 0.01)
    assert scene.town["tie_rivalry"][first, 0] == pytest.approx(0.05 * intensity - 0.01)


def test_a_conflict_does_not_oust_a_holder_who_uses_the_object():
    scene = queue_at_the_bed(1)
    for _ in range(6):
        scene.step()
    assert scene.event("queue_conflict") == 2
    assert scene.event("ghost_step") == 0
    assert scene.town["holder"][BED] == 0


def test_a_holder_who_does_not_start_is_ousted_to_the_tail():
    scene = ArrangedTown()
    scene.arrange(lambda town: [beside(town, agent, BED) for agent in (0, 1)])
    scene.step(a0="request_bed")
    scene.step(a1="request_bed")
    scene.step()
    scene.step()
    assert scene.event("ghost_step") == 1
    assert scene.town["holder"][BED] == 1
    assert list(scene.town["queue"][BED][: scene.town["queue_length"][BED]]) == [0]


def test_finishing_with_somebody_in_line_is_a_handover_and_no_conflict():
    scene = ArrangedTown()
    scene.arrange(lambda town: [beside(town, agent, FRIDGE) for agent in (0, 1)])
    scene.step(a0="request_fridge")
    scene.step(a0="start")
    scene.step(a1="request_fridge")
    scene.step()
    assert scene.event("handover") == 1
    assert scene.event("queue_conflict") == 0
    assert scene.town["holder"][FRIDGE] == 1
    # 0.05 for the handover; the meal they then share gives 0.1 trust and 0.25 familiarity
    assert scene.town["trust"][0, 1] == pytest.approx(0.15)
    assert scene.town["familiarity"][1, 0] == pytest.approx(0.30)


def test_long_waiting_outweighs_a_place_in_line_when_age_counts_fully():
    scene = ArrangedTown(config(queue={"age_priority_weight": 1.0, "ghost_step_after": 100}))

    def gather(town):
        for agent in (0, 1, 2):
            beside(town, agent, BED)
        town["holder"][BED], town["claim"][0] = 0, BED
        town["queue"][BED][:2], town["queue_length"][BED] = [1, 2], 2
        town["claim"][1] = town["claim"][2] = BED
        town["joined"][BED][1], town["joined"][BED][2] = 0, -5

    scene.arrange(gather)
    scene.step(a0="release")
    assert scene.town["holder"][BED] == 2


def test_a_meal_is_charged_once_and_leaves_the_fridge_once():
    scene = ArrangedTown()
    scene.arrange(lambda town: beside(town, 0, FRIDGE))
    scene.step(a0="request_fridge")
    scene.step(a0="start")
    for _ in range(4):
        scene.step()
    assert scene.town["wallet"][0] == pytest.approx(5.0 - 0.4)
    assert scene.town["stock"][FRIDGE] == 4
    assert scene.event("meal") == 1
    # 0.9 + 0.4 is capped at 1 in the third running tick, the start's own being the first; that tick and two more decay
    assert scene.town["needs"][0, 0] == pytest.approx(1.0 - 3 * 0.006)


def test_cooked_meals_go_into_the_fridge_up_to_its_cap():
    scene = ArrangedTown(config(economy={"meals_cap": 6}))
    scene.arrange(lambda town: beside(town, 0, STOVE))
    scene.step(a0="request_stove")
    scene.step(a0="start")
    for _ in range(8):
        scene.step()
    assert scene.event("cook") == 1
    assert scene.town["stock"][FRIDGE] == 6  # 5 + 2, capped
    assert scene.town["stock"][STOVE] == 0


def test_after_a_use_the_same_agent_waits_out_the_cooldown():
    scene = ArrangedTown()
    scene.arrange(lambda town: beside(town, 0, SHOWER))
    scene.step(a0="request_shower")
    scene.step(a0="start")
    while scene.event("shower") == 0:
        scene.step()
    finished = int(scene.town["tick"]) - 1
    assert scene.town["cooldown_until"][SHOWER, 0] == finished + 20
    assert scene.feature(0, "shower_cooldown") == 19
    scene.step(a0="request_shower")
    assert scene.event("cooldown_refusal") == 1
    assert scene.town["claim"][0] == -1


def test_walking_out_of_reach_gives_up_hold_and_place_without_cooldown():
    scene = ArrangedTown()
    scene.arrange(lambda town: beside(town, 0, SHOWER))
    scene.step(a0="request_shower")
    scene.step(a0="south")
    assert scene.town["holder"][SHOWER] == -1
    assert scene.town["claim"][0] == -1
    assert scene.town["cooldown_until"][SHOWER, 0] == 0


def test_only_waiting_is_legal_while_an_affordance_runs():
    scene = ArrangedTown()
    scene.arrange(lambda town: beside(town, 0, BED))
    scene.step(a0="request_bed")
    scene.step(a0="start")
    assert scene.observation.action_mask[0, 0].sum() == 1
    assert scene.legal(0, "wait")
    assert scene.feature(0, "remaining_ticks") == 11
    before = scene.town["position"][0].copy()
    scene.step(a0="north")
    assert (scene.town["position"][0] == before).all()


def test_rivalry_fades_by_the_tick_and_is_forgotten_at_the_threshold():
    scene = ArrangedTown()

    def grudge(town):
        town["rivalry"][0, 1], town["rivalry"][0, 2] = 0.5, 0.056

    scene.arrange(grudge)
    scene.step()
    assert scene.town["rivalry"][0, 1] == pytest.approx(0.495)
    assert scene.town["rivalry"][0, 2] == pytest.approx(0.051)
    scene.step()
    assert scene.town["rivalry"][0, 2] == 0.0


@pytest.mark.parametrize(("stage", "paid"), [("OFF", 0.0), ("C1", 0.0), ("C2", 0.005), ("C3", 0.005)])
def test_a_request_where_a_rival_stands_is_blocked_and_c2_pays_for_the_avoidance(stage, paid):
    rewards = []
    for rivalry in (0.0, 0.8):
        scene = ArrangedTown(config(reward={"social_stage": stage}))

        def arrange(town, rivalry=rivalry):
            beside(town, 0, BED)
            beside(town, 1, BED)
            town["rivalry"][0, 1] = rivalry

        scene.arrange(arrange)
        scene.step(a1="request_bed")
        rewards.append(scene.step(a0="request_bed")[0])
        assert scene.event("avoidance") == (1 if rivalry else 0)
        assert (scene.town["claim"][0] == -1) == bool(rivalry)
    assert rewards[1] - rewards[0] == pytest.approx(paid, abs=1e-6)


@pytest.mark.parametrize(
    ("stage", "worth"),
    # base 0.01 + 0.3 trust + 0.2 familiarity after the chat's own +0.05 and +0.10; C3 times 1 + 0.2 (trust - rivalry)
    [
        ("OFF", 0.0),
        ("C1", 0.01 + 0.3 * 0.25 + 0.2 * 0.3),
        ("C3", (0.01 + 0.3 * 0.25 + 0.2 * 0.3) * (1 + 0.2 * 0.15)),
    ],
)
def test_a_chat_pays_both_sides_by_the_stage(stage, worth):
    def rewards(action):
        scene = ArrangedTown(config(reward={"social_stage": stage}))

        def arrange(town):
            town["position"][1] = town["position"][0]
            town["trust"][0, 1] = town["trust"][1, 0] = 0.2
            town["familiarity"][0, 1] = town["familiarity"][1, 0] = 0.2
            town["rivalry"][0, 1] = town["rivalry"][1, 0] = 0.1

        scene.arrange(arrange)
        return scene.step(a0=action), scene

    silent, _ = rewards("wait")
    spoken, scene = rewards("chat")
    assert spoken[:2] - silent[:2] == pytest.approx([worth, worth], abs=1e-6)
    assert spoken[2:] == pytest.approx(silent[2:])
    assert scene.event("chat_success") == 1
    assert not scene.legal(0, "chat")  # its cooldown runs
    assert scene.legal(1, "chat")


def test_talking_to_somebody_busy_fails_and_costs_both_under_c1():
    scene = ArrangedTown(config(reward={"social_stage": "C1"}))
    reference = ArrangedTown(config(reward={"social_stage": "C1"}))
    for each in (scene, reference):
        each.arrange(lambda town: [beside(town, agent, BED) for agent in (0, 1)])
        each.step(a1="request_bed")
        each.step(a1="start")
    paid = scene.step(a0="chat") - reference.step()
    assert paid[:2] == pytest.approx([-0.005, -0.0025], abs=1e-6)
    assert scene.event("chat_failure") == 1
    assert scene.town["familiarity"][0, 1] == pytest.approx(-0.05)


def on_duty(clock: int, *, at_work: bool) -> ArrangedTown:
    """Agent 0, whose shift is [10, 50), before its shift at a given tick of day."""
    scene = ArrangedTown()

    def arrange(town):
        town["clock"] = clock
        town["shift_state"][0] = 0
        if at_work:
            town["position"][0] = town["job_position"][0]

    scene.arrange(arrange)
    return scene


def test_a_worked_tick_on_time_pays_wage_and_punctuality():
    scene, reference = on_duty(10, at_work=True), on_duty(10, at_work=True)
    paid = scene.step(a0="job") - reference.step()
    assert paid[0] == pytest.approx(0.045 + 0.05, abs=1e-6)
    assert scene.town["wallet"][0] == pytest.approx(5.045)
    assert scene.feature(0, "shift_on_time") == 1


def test_standing_at_work_without_working_earns_nothing():
    scene = on_duty(10, at_work=True)
    scene.step()
    assert scene.town["wallet"][0] == pytest.approx(5.0)
    assert scene.event("worked") == 0


def test_whoever_is_not_at_work_after_the_grace_is_late_and_then_absent():
    scene = on_duty(10, at_work=False)
    for _ in range(5):
        scene.step()
    assert scene.event("late") == 0
    scene.step()  # clock 15: five ticks of grace are over
    assert scene.event("late") == 1
    assert scene.town["wallet"][0] == pytest.approx(5.0 - 0.1 - 0.005)
    for _ in range(19):
        scene.step()  # clock 34: 25 ticks away, more than 24
    assert scene.event("absent") == 1
    assert scene.town["absences"][0] == 1
    assert not scene.legal(0, "job")


def test_the_third_missed_shift_costs_the_home():
    scene = on_duty(34, at_work=False)

    def on_the_brink(town):
        town["absences"][0], town["shift_state"][0], town["away_ticks"][0] = 2, 2, 24

    scene.arrange(on_the_brink)
    reward = scene.step()
    assert scene.terminated[0]
    assert scene.event("eviction") == 1
    assert reward[0] <= -2.0
    assert scene.town["absences"][0] == 0


def test_fainting_ends_the_life_after_the_clip_and_the_next_one_starts_in_place():
    scene = ArrangedTown()
    scene.arrange(lambda town: town["needs"].__setitem__((0, 0), 0.031))
    reward = scene.step()
    assert list(scene.terminated) == [True, False, False, False, False, False]
    # survival .25 - .5 (.975)^2 - .3 (.103)^2 - .4 (.105)^2, below 0 and within the clip, then -5
    assert reward[0] == pytest.approx(0.25 - 0.5 * 0.975**2 - 0.3 * 0.103**2 - 0.4 * 0.105**2 - 5, abs=1e-5)
    assert scene.town["needs"][0] == pytest.approx([0.5, 0.5, 0.5])
    assert scene.town["wallet"][0] == pytest.approx(2.0)
    assert scene.feature(0, "ctx_reset_flag") == 1
    assert scene.event("faint") == 1


def test_a_fainting_holder_leaves_its_place_to_the_next_in_line():
    scene = queue_at_the_bed(1)
    scene.arrange(lambda town: town["needs"].__setitem__((0, 0), 0.03))
    scene.step()
    assert scene.town["holder"][BED] == 1
    assert scene.town["remaining"][BED] == 0
    assert scene.town["busy"][0] == 0


def test_the_reward_is_the_survival_bonus_less_weighted_squared_deficits():
    scene = ArrangedTown()
    reward = scene.step()
    after = scene.town["needs"][:6]
    expected = 0.25 - ((1 - after) ** 2 * np.array([0.5, 0.3, 0.4])).sum(axis=1)
    assert reward == pytest.approx(expected, abs=1e-6)


def test_a_reward_beyond_the_clip_is_clipped_and_counted():
    scene = ArrangedTown(config(reward={"clip_per_tick": 0.2}))
    scene.arrange(lambda town: town["needs"].__setitem__(slice(None), 0.3))
    assert scene.step() == pytest.approx([-0.2] * 6)
    assert scene.event("clipped_reward") == 6


def test_during_a_price_spike_a_meal_costs_the_factor_and_an_outage_stops_the_shower():
    always = {"price_spike_per_day": 1e6, "water_outage_per_day": 1e6}
    scene = ArrangedTown(config(perturbations=always))
    scene.arrange(lambda town: [beside(town, 0, FRIDGE), beside(town, 1, SHOWER)])
    scene.step(a0="request_fridge", a1="request_shower")
    assert scene.feature(0, "price_spike") == 1
    assert not scene.legal(1, "start")
    assert scene.feature(1, "shower_usable") == 0
    scene.step(a0="start")
    assert scene.town["wallet"][0] == pytest.approx(5.0 - 2 * 0.4)


def test_stepping_away_from_a_rival_counts_as_avoidance():
    scene = ArrangedTown()

    def arrange(town):
        town["position"][0], town["position"][1] = (4, 6), (5, 6)
        town["rivalry"][0, 1] = 0.9

    scene.arrange(arrange)
    assert scene.feature(0, "nearest_agent_is_rival") == 1
    scene.step(a0="step_away")
    assert list(scene.town["position"][0]) == [3, 6]
    assert scene.event("avoidance") == 1


def test_late_colleagues_are_helped_and_absent_ones_resented_by_those_on_shift():
    scene = on_duty(15, at_work=False)

    def colleague_at_work(town):  # agent 3 has the same job as agent 0
        town["shift_state"][3] = 1
        town["position"][3] = town["job_position"][0]

    scene.arrange(colleague_at_work)
    scene.step(a3="job")
    assert scene.event("late_help") == 1
    assert scene.town["trust"][0, 3] == pytest.approx(0.2)
    scene.arrange(lambda town: town["away_ticks"].__setitem__(0, 24))
    scene.step(a3="job")
    assert scene.event("shift_takeover") == 1
    assert scene.town["trust"][3, 0] == pytest.approx(-0.1)
    assert scene.town["tie_rivalry"][3, 0] == pytest.approx(0.3 - 0.01)


@pytest.mark.parametrize(
    ("agent", "other", "ends"),
    [
        ((9, 5), (9, 5), (8, 5)),  # on one tile at the east edge: west is left
        ((0, 5), (1, 5), (0, 6)),  # pushed against the wall: sideways
        ((0, 0), (1, 1), None),  # cornered
        ((4, 5), (3, 5), (5, 5)),
    ],
)
def test_stepping_away_is_legal_exactly_when_there_is_a_way_out(agent, other, ends):
    scene = ArrangedTown()

    def arrange(town):
        town["position"][0], town["position"][1] = agent, other

    scene.arrange(arrange)
    assert scene.legal(0, "step_away") == (ends is not None)
    scene.step(a0="step_away")
    assert tuple(scene.town["position"][0]) == (ends or agent)
    assert scene.event("failed_action") == (ends is None)
