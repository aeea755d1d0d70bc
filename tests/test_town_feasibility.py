"""The feasibility budget, against the arithmetic it stands for."""

from __future__ import annotations

import math

import pytest
from pydantic import ValidationError

from tests.towns import preset
from townlet_train.config import load
from townlet_train.config.town import TownConfig
from townlet_train.errors import UnknownNameError
from townlet_train.sim.feasibility import compute_budget


def test_upstream_needs_131_percent_of_the_day_and_231_with_cooking():
    budget = compute_budget(preset("upstream-2025"))
    assert budget.service_share == pytest.approx(0.375 + 1 / 3 + 0.6)
    assert budget.service_share + budget.cook_share == pytest.approx(2.308, abs=1e-3)
    assert not budget.feasible
    assert "infeasible" in budget.verdict


def test_town_v1_leaves_room_to_live():
    budget = compute_budget(preset("town-v1"))
    # .006/.4*3 + .003/.45*6 + .005/.8*12, and half a cooking of 8 ticks per meal
    assert budget.service_share == pytest.approx(0.045 + 0.04 + 0.075)
    assert budget.cook_share == pytest.approx(0.06)
    assert budget.utilisation["bed"] == pytest.approx(6 * 0.075)
    assert budget.feasible


def test_a_need_nothing_restores_is_infeasible():
    config = TownConfig.model_validate({"wash": {"duration": 6, "hygiene": 0.0}})
    assert math.isinf(compute_budget(config).total_share)
    assert not compute_budget(config).feasible


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"sleep": {"duration": 60, "energy": 0.8}}, "living takes"),
        ({"sleep": {"duration": 30, "energy": 0.8}}, "bed 1.12"),
        ({"economy": {"wage": 0.001}}, "a full shift earns"),
    ],
)
def test_the_verdict_says_what_is_missing(change, reason):
    budget = compute_budget(TownConfig.model_validate(change))
    assert not budget.feasible
    assert reason in budget.verdict


def test_an_unknown_preset_is_refused_with_a_suggestion():
    with pytest.raises(UnknownNameError, match=r"Did you mean .town-v1.\?"):
        load(preset="town-v2")


@pytest.mark.parametrize(("shift", "window"), [((10, 150), 40), ((12, 160), 12), ((0, 160), 0)])
def test_a_shift_that_fills_the_day_is_refused(shift, window):
    with pytest.raises(ValidationError, match="off duty at some time"):
        TownConfig.model_validate({"employment": {"shifts": [shift], "arrival_window": window}})


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_setting_is_a_finite_number(value):
    with pytest.raises(ValidationError, match="finite number"):
        TownConfig.model_validate({"reward": {"survival": value}})


def test_a_count_is_one_the_machine_can_count_to():
    with pytest.raises(ValidationError, match="episode_ticks is 99999999999999999999, at most"):
        TownConfig(episode_ticks=99999999999999999999)
