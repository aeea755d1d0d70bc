"""A study: equal clones, seeds and steps for every condition, nothing run twice, and sums one can do by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from townlet_train.cli import main
from townlet_train.config import RunConfig
from townlet_train.errors import DataError, TrainingError
from townlet_train.registry import PluginPolicy, discover
from townlet_train.results import AnnealStageResultDTO, StudyCellDTO, StudyPointDTO
from townlet_train.strategies.anneal.params import AnnealParams
from townlet_train.strategies.anneal.schedule import what_suits
from townlet_train.study.cells import curve_of
from townlet_train.study.conditions import CONDITIONS, TERMS, anneal_params
from townlet_train.study.study import plan_study, run_study
from townlet_train.study.summary import Scale, deepest_fall, return_at, rows_of

SCALE = Scale(random=-100.0, expert=300.0)  # 4 points of return are 1 %


def cell(condition: str, seed: int, *returns: float, final: float = 0.0, **rest: Any) -> StudyCellDTO:
    """A run measured every 100 steps."""
    curve = [StudyPointDTO(steps=100 * i, return_mean=value) for i, value in enumerate(returns)]
    return StudyCellDTO(
        condition=condition,
        trunk="separate",
        seed=seed,
        clone_sha256=None,
        steps=100 * (len(returns) - 1),
        curve=tuple(curve),
        final_return=final,
        released_return=rest.pop("released", final),
        duration_sec=1.0,
        **rest,
    )


def test_the_deepest_fall_is_the_lowest_return_after_the_clone_on_the_scale_of_the_expert() -> None:
    assert deepest_fall(cell("naive", 1, 200, 180, 160, 240), SCALE) == pytest.approx(-10.0)
    assert deepest_fall(cell("naive", 1, 200, 220), SCALE) == pytest.approx(5.0)
    assert deepest_fall(cell("scratch", 1, -100, 20), SCALE) is None
    assert deepest_fall(cell("bc", 1, 200), SCALE) is None


def test_what_guardrails_ended_keeps_its_fall_and_goes_on_as_the_best_it_had() -> None:
    stages = [
        AnnealStageResultDTO(cycle=0, mode="bc", steps=0, total_steps=0, return_mean=200, best=True),
        AnnealStageResultDTO(cycle=1, mode="ppo", steps=50, total_steps=50, return_mean=220, best=True),
        AnnealStageResultDTO(cycle=2, mode="ppo", steps=50, total_steps=100, return_mean=160, action="hold"),
    ]
    curve = curve_of(stages, 400)
    assert [(point.steps, point.return_mean) for point in curve] == [
        (0, 200),
        (50, 220),
        (100, 160),
        (400, 220),
    ]
    ended = cell("default", 1, 0).model_copy(update={"curve": curve})
    assert deepest_fall(ended, SCALE) == pytest.approx(-10.0)
    assert return_at(ended, 400) == 220


def test_between_two_measurements_the_return_lies_on_a_line_and_after_the_last_it_stays() -> None:
    measured = cell("naive", 1, 0, 10, 30)
    assert [return_at(measured, steps) for steps in (0, 50, 150, 200, 900)] == [0, 5, 20, 30, 30]


def test_differences_are_paired_by_training_seed() -> None:
    cells = [
        cell("default", 1, 10, 30, final=40, released=45),
        cell("default", 2, 110, 130, final=140, released=145),
        cell("bc", 2, 110, final=110),
        cell("bc", 1, 10, final=10),
        cell("scratch", 1, -5, 25, final=20),
        cell("scratch", 2, -5, 125, final=120),
    ]
    default, clone, scratch = rows_of(cells, SCALE, [0, 100])
    # Every pair differs alike, so the intervals are points, although runs lie 100 apart.
    assert (default.above_bc, default.above_bc_low, default.above_bc_high) == (30, 30, 30)
    assert (default.above_scratch, default.above_scratch_low) == (20, 20)
    assert (default.released_above_bc_low, default.released_above_scratch_low) == (35, 25)
    assert (default.runs, default.final_return, default.deepest_fall_worst) == (2, 90, pytest.approx(5.0))
    assert [budget.above_bc for budget in default.budgets] == [0, 20]
    assert [budget.above_scratch for budget in default.budgets] == [65, 5]
    assert (clone.above_bc, clone.above_scratch, scratch.above_bc) == (None, -10, 10)


def test_a_difference_takes_the_seeds_that_both_have() -> None:
    cells = [cell("naive", 1, 0, final=5), cell("naive", 2, 0, final=9), cell("bc", 2, 0, final=4)]
    assert rows_of(cells, SCALE, [])[0].above_bc == 5


def test_conditions_differ_in_what_they_say_they_do() -> None:
    told = {name: anneal_params(name, {}, "shared", env="LunarLander-v3", timesteps=2100) for name in TERMS}
    assert {name: params.get("ppo", {}).get("normalize_rewards") for name, params in told.items()} == {
        "naive": False, "normalised": True, "warmup": True, "kl": True, "all": True, "default": None,
    }  # fmt: skip
    assert [name for name, params in told.items() if params.get("critic_warmup") == 0] == [
        "naive",
        "normalised",
        "kl",
    ]
    assert {name: params.get("kl_coef") for name, params in told.items()} == {
        "naive": 0, "normalised": 0, "warmup": 0, "kl": 0.05, "all": 0.05, "default": None,
    }  # fmt: skip
    assert [name for name, params in told.items() if "guardrails" not in params] == ["default"]
    assert [name for name, params in told.items() if not params["ppo"].get("shared_trunk")] == ["default"]
    # A warm-up of a twentieth is among the steps.
    assert {name: params["timesteps"] for name, params in told.items()} == {
        "naive": 2100, "normalised": 2100, "warmup": 2000, "kl": 2100, "all": 2000, "default": 2000,
    }  # fmt: skip


def test_where_the_default_has_kl_the_conditions_take_it() -> None:
    assert what_suits("town", AnnealParams()).kl_coef > 0
    assert anneal_params("kl", {}, "separate", env="town", timesteps=100).get("kl_coef") is None
    assert (
        anneal_params("kl", {"kl_coef": 0.3}, "separate", env="CartPole-v1", timesteps=100)["kl_coef"] == 0.3
    )


@pytest.mark.torch
@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--conditions", "nave"], f"Did you mean 'naive'? Known: {', '.join(sorted(CONDITIONS))}"),
        (["--trunks", "both"], "No trunk named 'both'. Known: separate, shared"),
        (["--env", "Acrobot-v1"], "No expert plays 'Acrobot-v1'"),
        (["--set", "anneal.gate=false"], "A study decides anneal.gate itself"),
        (["--conditions", ""], "Name at least one condition"),
    ],
)
def test_what_cannot_be_studied_is_told_in_a_sentence(
    options: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch")
    assert main(["anneal", "study", "--output-dir", str(tmp_path / "study"), *options]) == 3
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "study").exists()


SMALL = [
    *("--env", "CartPole-v1", "--timesteps", "1200", "--conditions", "naive,default,scratch,bc"),
    *("--set", "anneal.n_cycles=2", "--set", "anneal.ppo.n_envs=4", "--set", "anneal.ppo.n_steps=50"),
    *(
        "--set",
        "anneal.stage_episodes=4",
        "--set",
        "anneal.evaluation_episodes=4",
        "--set",
        "anneal.bc.n_epochs=2",
    ),
    *("--set", "rollout.towns=4", "--set", "rollout.ticks=200"),
]


@pytest.mark.slow
@pytest.mark.torch
def test_a_small_study_pairs_its_runs_and_runs_nothing_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch")
    command = ["anneal", "study", *SMALL, "--output-dir", str(tmp_path / "study")]
    assert main([*command, "--seeds", "1", "--trunks", "separate", "--json"]) == 1  # warned of few seeds
    first = json.loads(capsys.readouterr().out)
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "study" / "cells").iterdir()}
    assert [path.stem for path in written if "clone" in path.stem] == ["clone_separate_seed1"]
    assert main([*command, "--seeds", "2"]) == 3
    assert "Go on with --resume" in capsys.readouterr().err
    assert main([*command, "--seeds", "2", "--resume", "--json"]) == 1
    both = json.loads(capsys.readouterr().out)
    assert {path: path.stat().st_mtime_ns for path in written} == written
    cells = {(c["condition"], c["trunk"], c["seed"]): c for c in both["cells"]}
    assert len(cells) == 4 * 2 * 2
    assert [c for c in both["cells"] if c["seed"] == 1 and c["trunk"] == "separate"] == first["cells"]
    clones = {
        (trunk, seed): {c["clone_sha256"] for (_, t, s), c in cells.items() if (t, s) == (trunk, seed)}
        - {None}
        for trunk in ("separate", "shared")
        for seed in (1, 2)
    }
    assert all(len(hashes) == 1 for hashes in clones.values())
    assert len(set.union(*clones.values())) == 4
    for (condition, trunk, seed), found in cells.items():
        assert found["steps"] <= 1200 + 3 * 4, "warm-up and stages each end with a tick of 4 slots"
        if condition not in ("scratch", "bc"):
            assert found["curve"][0]["return_mean"] == cells["bc", trunk, seed]["curve"][0]["return_mean"]
    assert cells["scratch", "separate", 1]["steps"] == 1200
    assert [(row["condition"], row["trunk"]) for row in both["rows"][:2]] == [
        ("naive", "separate"),
        ("default", "separate"),
    ]
    assert len(both["rows"][0]["budgets"]) == 3
    assert main([*command, "--seeds", "2", "--resume"]) == 1
    assert "deepest_fall_worst" in capsys.readouterr().out
    assert main([*command, "--seeds", "2", "--resume", "--timesteps", "999"]) == 3
    assert "timesteps is 1200 there and 999 here" in capsys.readouterr().err
    for damage in ("{", "[]", '{"seed": "one"}'):
        (tmp_path / "study/cells/naive_separate_seed1.json").write_text(damage)
        assert main([*command, "--seeds", "2", "--resume"]) == 2
        assert "naive_separate_seed1.json is not what a study left" in capsys.readouterr().err
    (tmp_path / "study/study.json").write_text("")
    assert main([*command, "--seeds", "2", "--resume"]) == 2
    assert "Choose another directory." in capsys.readouterr().err


@pytest.mark.torch
def test_an_expert_that_earns_no_more_than_random_is_no_scale(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch")
    (tmp_path / "study/cells").mkdir(parents=True)
    scale = tmp_path / "study/cells/scale.json"
    scale.write_text('{"random": 9.0}')
    study = plan_study(
        RunConfig(env="CartPole-v1"),
        {},
        seeds=range(1, 2),
        conditions=["bc"],
        trunks=["separate"],
        timesteps=100,
        root=tmp_path / "study",
        experts=discover().experts,
        plugins=PluginPolicy(),
    )
    with pytest.raises(DataError, match=r"scale\.json is not what a study left there: it lacks 'expert'"):
        run_study(study, n_at_once=1, resume=False, report=lambda done, n: None)
    scale.write_text('{"random": 9.0, "expert": 9.0}')
    with pytest.raises(
        TrainingError, match="expert earns 9 in CartPole-v1 and random 9, so there is nothing to clone"
    ):
        run_study(study, n_at_once=1, resume=True, report=lambda done, n: None)


@pytest.mark.torch
@pytest.mark.parametrize(
    ("figure", "code", "sentence"),
    [
        ("curves.pdf", 3, "expected a file that ends in .svg"),
        ("folder.svg", 3, "expected a file that ends in .svg"),
        ("file/curves.svg", 2, "cannot be written"),
    ],
)
def test_a_figure_that_could_not_be_left_is_refused_before_the_study(
    figure: str, code: int, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    (tmp_path / "file").touch()
    (tmp_path / "folder.svg").mkdir()
    root = tmp_path / "study"
    study = ["anneal", "study", "--env", "CartPole-v1", "--output-dir", str(root)]
    assert main([*study, "--figure", str(tmp_path / figure)]) == code
    assert sentence in capsys.readouterr().err
    assert not root.exists()
