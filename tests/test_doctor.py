"""The doctor finds the town healthy, and each of its checks can fail."""

from __future__ import annotations

import json

import numpy as np
import pytest

from townlet_train.cli import main
from townlet_train.config.town import TownConfig
from townlet_train.services.doctor import examine_town
from townlet_train.services.leaks import probe_leaks

PAID = ("survival", "hunger_weight", "hygiene_weight", "energy_weight", "punctuality", "faint_penalty")


def failed_checks(**sections: object) -> list[str]:
    config = TownConfig.model_validate({"allow_infeasible": True, **sections})
    result = examine_town(config, n_towns=12)
    assert result.healthy == (not result.warnings)
    return [check.check for check in result.checks if not check.passed]


def test_town_v1_keeps_every_promise():
    result = examine_town(TownConfig())
    assert result.healthy, result.warnings
    assert result.faints_per_10k["expert"].high <= 1
    assert max(result.clipped_share.values()) < 0.05
    assert result.returns["expert"].low > result.returns["random"].high + 200


@pytest.mark.parametrize(
    ("sections", "check"),
    [
        ({"needs": {"hunger_decay": 0.03}}, "the expert survives"),
        ({"reward": {"clip_per_tick": 0.2}}, "rewards are not clipped"),
        ({"queue": {"ghost_step_after": 100}}, "conflicts depend on the policy"),
        ({"reward": {"hunger_weight": 0.0, "faint_penalty": 0.0}}, "eating pays"),
        (
            {"reward": dict.fromkeys((*PAID, "eviction_penalty"), 0), "economy": {"wage": 0}},
            "returns rank the policies",
        ),
        (
            {"reward": {"chat_base": 0.0, "chat_trust": 0.0, "chat_familiarity": 0.0}},
            "social stage C1 changes rewards",
        ),
        ({"reward": {"avoid_conflict": 0.0}}, "social stage C2 changes rewards"),
        ({"reward": {"tie_quality": 0.0}}, "social stage C3 changes rewards"),
        ({"observation": {"low_stock": 0.0}}, "every channel and feature is alive"),
        ({"observation": {"previous_action": True}}, "no feature gives the label away"),
    ],
)
def test_each_promise_can_be_broken(sections, check):
    assert check in failed_checks(**sections)


def test_the_leak_probe_finds_a_planted_label_and_nothing_in_noise():
    rng = np.random.default_rng(0)
    actions = rng.integers(0, 4, (50, 8, 6))
    features = rng.normal(size=(50, 8, 6, 2)).astype(np.float32)
    features[..., 1] = actions
    probe = probe_leaks(features, np.ones((50, 8, 6, 4), np.bool_), actions, ("noise", "label"))
    assert probe.accuracy["label"] == 1.0
    assert probe.accuracy["noise"] < 0.35
    assert 0.2 < probe.majority < 0.3


def test_the_leak_probe_leaves_forced_frames_out():
    actions = np.zeros((10, 4, 6), np.int64)
    actions[:, :, :3] = np.arange(10)[:, None, None] % 2
    mask = np.zeros((10, 4, 6, 2), np.bool_)
    mask[..., 0] = True
    mask[:, :, :3, 1] = True
    probe = probe_leaks(np.zeros((10, 4, 6, 1), np.float32), mask, actions, ("constant",))
    assert probe.majority == 0.5


def test_doctor_town_prints_one_json_document(capsys):
    code = main(["doctor", "town", "--json"])
    document = json.loads(capsys.readouterr().out)
    assert code == 0
    assert document["healthy"] is True
    assert {"returns", "faints_per_10k", "conflicts_per_1k", "stage_effects", "leak_probe"} <= set(document)


def test_a_broken_promise_is_a_warning_and_exit_code_1(capsys):
    code = main(["doctor", "town", "--json", "--set", "town.reward.clip_per_tick=0.2"])
    document = json.loads(capsys.readouterr().out)
    assert code == 1
    assert any("rewards are not clipped" in warning for warning in document["warnings"])


def test_an_infeasible_town_is_not_examined(capsys):
    code = main(["doctor", "town", "--preset", "upstream-2025", "--json"])
    captured = capsys.readouterr()
    assert code == 5
    assert "infeasible" in json.loads(captured.out)["error"]["message"]
    assert "allow_infeasible" in captured.err


def test_town_show_prints_the_budget_and_warns_of_an_infeasible_town(capsys):
    assert main(["town", "show", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["total_share"] == pytest.approx(0.418, abs=1e-3)
    assert main(["town", "show", "--preset", "upstream-2025", "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["service_share"] + document["cook_share"] == pytest.approx(2.308, abs=1e-3)
    assert document["feasible"] is False
