"""The gate's judgement: what passes, what is held, what fails, and how often it is wrong."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.gate import DRAWS, MARGIN, rates, simulate
from townlet_train.config import EvaluationConfig, GateSettings, Guardrail, RunConfig
from townlet_train.errors import ConfigError, UsageError
from townlet_train.results import GateCriterionDTO, GateDTO
from townlet_train.services.gate import Measured, block_seeds, judge, judge_all, sequential_looks
from townlet_train.services.gate.blocks import check_block_unseen
from townlet_train.services.gate.bounds import episodes_needed
from townlet_train.services.gate.judge import judge_sequentially
from townlet_train.services.statistics import Studentised

N = 100
QUIET = GateSettings(resamples=999)


def measured(
    returns: NDArray[np.float64], name: str = "candidate", **events: NDArray[np.float64]
) -> Measured:
    return Measured(name, tuple(range(len(returns))), np.asarray(returns, np.float64), events)


@pytest.fixture
def release(rng: np.random.Generator) -> Measured:
    """100 episodes around 200, deviation 30."""
    return measured(200 + 30 * rng.normal(size=N), "release")


def better_by(release: Measured, effect: float, rng: np.random.Generator, noise: float = 10) -> Measured:
    return measured(release.returns + effect + noise * rng.normal(size=N))


def row(result: GateDTO, criterion: str) -> GateCriterionDTO:
    [found] = [row for row in result.criteria if row.criterion == criterion]
    return found


def test_the_release_itself_is_no_worse_and_no_better(release: Measured) -> None:
    result = judge(release, release, QUIET)
    assert (result.verdict, result.non_inferior, result.superior) == ("PASS", True, False)
    assert (result.share_better, result.episodes_needed) == (0.5, None)


def test_a_better_candidate_passes_as_superior(release: Measured, rng: np.random.Generator) -> None:
    result = judge(better_by(release, 15, rng), release, QUIET)
    assert (result.verdict, result.superior) == ("PASS", True)
    mean = row(result, "mean")
    assert mean.low is not None
    assert 0 < mean.low < mean.difference
    assert mean.at_least == pytest.approx(-0.05 * release.returns.mean())
    assert [sentence[:5] for sentence in result.reasons] == ["It is", "It is"]


def test_a_release_that_earns_about_nothing_has_a_margin_of_its_spread(
    release: Measured, rng: np.random.Generator
) -> None:
    around_zero = measured(release.returns - release.returns.mean(), "release")
    at_least = row(judge(better_by(around_zero, 5, rng), around_zero, QUIET), "mean").at_least
    assert at_least == pytest.approx(-0.05 * release.returns.std())


def test_a_worse_candidate_fails_and_the_reason_names_both_numbers(
    release: Measured, rng: np.random.Generator
) -> None:
    result = judge(better_by(release, -40, rng), release, QUIET)
    assert (result.verdict, result.non_inferior, result.superior) == ("FAIL", False, False)
    assert f"{release.returns.mean():.4g}" in result.reasons[0]
    assert result.episodes_needed is None


def test_what_is_not_decided_is_held_with_the_episodes_that_would_decide(
    release: Measured, rng: np.random.Generator
) -> None:
    result = judge(better_by(release, 0, rng, noise=60), release, QUIET)
    assert result.verdict == "HOLD"
    assert result.episodes_needed is not None
    assert f"about {row(result, 'mean').episodes_needed} more episodes would decide" in result.reasons[0]


def test_the_episodes_asked_for_do_decide_four_times_in_five() -> None:
    rng = np.random.default_rng(3)
    settings = GateSettings(resamples=299, margin_absolute=1.0, tail_margin_absolute=50.0, guardrails=())
    first = judge(*simulate(lambda n, rng: 3 * rng.normal(size=n), 40, 0.0, rng), settings)
    needed = row(first, "mean").episodes_needed
    assert needed is not None
    n, truth = 40 + needed, row(first, "mean").difference
    sigma = 3 * math.sqrt(2)
    assert n == pytest.approx((2.487 * sigma / (truth + 1.0)) ** 2, rel=0.5)
    apart = rng.normal(truth, sigma, size=(2000, n))
    low = apart.mean(axis=1) - 1.66 * apart.std(axis=1) / math.sqrt(n)
    assert (low >= -1.0).mean() > 0.6


def test_the_episodes_that_a_tail_of_two_asks_for_decide_it_in_most_gates() -> None:
    rng = np.random.default_rng(5)
    settings = GateSettings(resamples=299, margin_absolute=500.0, tail_margin_absolute=20.0, guardrails=())
    draw = partial(rng.normal, 276, 20)
    decided = []
    while len(decided) < 60:
        ours, theirs = draw(size=20), draw(size=20)
        held = judge(measured(ours), measured(theirs, "release"), settings)
        more = held.episodes_needed
        if more is not None and more < 1000:
            ours, theirs = np.append(ours, draw(size=more)), np.append(theirs, draw(size=more))
            decided.append(judge(measured(ours), measured(theirs, "release"), settings).verdict != "HOLD")
    assert 0.5 < np.mean(decided) < 0.95


def test_a_bound_that_resamples_widen_asks_for_more_episodes_than_student_alone_would() -> None:
    wide = Studentised(value=0.0, error=10.0, freedom=1, roots=np.linspace(-2, 60, 999))
    narrow = Studentised(value=0.0, error=10.0, freedom=1, roots=np.linspace(-2, 2, 999))
    asked = [episodes_needed(bounds, -60.0, 20, level=0.05, power=0.8) for bounds in (wide, narrow)]
    more, fewer = asked
    assert more is not None
    assert fewer is not None
    assert more > 2 * fewer > 2


def test_of_a_tail_with_few_episodes_a_hold_says_what_its_bound_is_worth(rng: np.random.Generator) -> None:
    said = {}
    for n in (24, 100):
        ours = 276 + 20 * rng.normal(size=n)
        ours[: n // 12] = -100
        theirs = 276 + 20 * rng.normal(size=n)
        settings = GateSettings(resamples=999, margin_absolute=500.0, tail_margin_absolute=280.0)
        result = judge(measured(ours), measured(theirs, "release"), settings)
        assert (result.verdict, row(result, "cvar").status) == ("HOLD", "HOLD")
        said[n] = result.reasons[1:]
    assert said[24] == (
        "The worst 10% of 24 episodes are 2, too few to be bounded well, so one crash more or less changes all that "
        "is said of them; gate at least 100 episodes.",
    )
    assert said[100] == ()


def test_one_more_episode_is_told_as_one(release: Measured, rng: np.random.Generator) -> None:
    candidate = better_by(release, -1, rng)
    settings = GateSettings(resamples=999, power=0.501, tail_margin_absolute=500.0)
    low = row(judge(candidate, release, settings), "mean").low
    assert low is not None
    asked = settings.model_copy(update={"margin_absolute": -low - 1e-3})
    assert "about 1 more episode would decide." in judge(candidate, release, asked).reasons[0]


def test_a_deep_tail_is_no_pass_however_good_the_mean(release: Measured, rng: np.random.Generator) -> None:
    returns = release.returns + 25 + 5 * rng.normal(size=N)
    returns[::6] = -300
    lower = GateSettings(resamples=999, margin=10.0)
    result = judge(measured(returns), release, lower)
    assert (row(result, "mean").status, row(result, "cvar").status) == ("PASS", "FAIL")
    assert result.verdict == "FAIL"


def test_a_threshold_is_judged_without_a_release(release: Measured) -> None:
    reached = judge(release, None, QUIET.model_copy(update={"threshold": 180.0}))
    missed = judge(release, None, QUIET.model_copy(update={"threshold": 230.0}))
    open_ = judge(release, None, QUIET.model_copy(update={"threshold": float(release.returns.mean()) - 0.5}))
    assert [result.verdict for result in (reached, missed, open_)] == ["PASS", "FAIL", "HOLD"]
    assert reached.non_inferior is None


def test_with_nothing_to_judge_by_the_gate_refuses(release: Measured) -> None:
    with pytest.raises(UsageError, match="--against"):
        judge(release, None, QUIET)


def guarded(
    release: Measured, ours: float, theirs: float, guardrail: Guardrail, spread: float = 1.0
) -> GateDTO:
    """The verdict on a candidate that earns the same and whose events happen at another rate."""
    rng = np.random.default_rng(11)
    rates = [np.maximum(mean + spread * rng.normal(size=N), 0) for mean in (ours, theirs)]
    first, second = (
        measured(release.returns, name, bump=rate) for name, rate in zip("ab", rates, strict=True)
    )
    return judge(first, second, GateSettings(resamples=999, guardrails=(guardrail,)))


@pytest.mark.parametrize(
    ("direction", "ours", "verdict"),
    [
        ("lower", 10, "PASS"), ("lower", 20, "PASS"), ("lower", 30, "FAIL"),
        ("higher", 10, "FAIL"), ("higher", 20, "PASS"), ("higher", 30, "PASS"),
        ("band", 10, "FAIL"), ("band", 20, "PASS"), ("band", 30, "FAIL"), ("band", 23, "HOLD"),
    ],
)  # fmt: skip
def test_a_guardrail_fails_in_its_own_direction_alone(
    release: Measured, direction: str, ours: float, verdict: str
) -> None:
    result = guarded(release, ours, 20, Guardrail(event="bump", direction=direction, tolerance=0.15))
    assert result.verdict == verdict
    if verdict == "FAIL":
        assert "rate of bump" in result.reasons[0]


@pytest.mark.parametrize(("ours", "verdict"), [(0.2, "PASS"), (3.0, "FAIL")])
def test_a_cap_holds_whatever_the_release_does(release: Measured, ours: float, verdict: str) -> None:
    cap = Guardrail(event="bump", direction="lower", limit=1.0)
    assert guarded(release, ours, 50, cap, spread=0.1).verdict == verdict


def test_a_guardrail_on_an_event_that_nobody_counts_names_the_likely_one(release: Measured) -> None:
    with pytest.raises(ConfigError, match="Did you mean 'bump'"):
        guarded(release, 1, 1, Guardrail(event="bmup", direction="lower", limit=1.0))


def test_a_rate_without_spread_never_fails_a_candidate(release: Measured) -> None:
    many = {"faint": np.full(N, 9.0), "queue_conflict": np.full(N, 50.0)}
    ours = Measured("a", release.seeds, release.returns, many, rates_only=True)
    result = judge(ours, ours, QUIET)
    assert (result.verdict, row(result, "faint").status) == ("HOLD", "HOLD")
    assert "without spread" in result.reasons[0]
    assert len(result.warnings) == 1


def test_a_damaged_candidate_fails_unplayed(release: Measured) -> None:
    result = judge(Measured("torn", problems=("It is torn.",)), release, QUIET)
    assert (result.verdict, result.reasons, result.criteria) == ("FAIL", ("It is torn.",), ())


def test_of_several_candidates_the_best_is_told_and_each_is_held_to_holms_level(
    release: Measured, rng: np.random.Generator
) -> None:
    names = {"same": 0, "best": 20, "worse": -50}
    cases = [
        Measured(name, release.seeds, better_by(release, effect, rng).returns)
        for name, effect in names.items()
    ]
    result = judge_all([*cases, Measured("torn", problems=("Torn.",))], release, QUIET)
    assert (result.candidate, result.verdict, result.superior) == ("best", "PASS", True)
    assert [one.verdict for one in result.candidates] == ["PASS", "PASS", "FAIL", "FAIL"]
    assert sorted(one.level or 0 for one in result.candidates)[-1] == pytest.approx(0.05 / 2)
    assert row(result, "mean").low != row(judge(cases[1], release, QUIET), "mean").low


def test_of_many_equal_candidates_hardly_ever_one_is_called_better() -> None:
    rng = np.random.default_rng(8)
    settings = GateSettings(resamples=299, margin_absolute=3.0, tail_margin_absolute=9.0, guardrails=())
    found = 0
    for _ in range(150):
        cases = [simulate(DRAWS["normal"], 64, 0.0, rng)[0] for _ in range(4)]
        release = Measured("release", cases[0].seeds, 100 + rng.normal(size=64))
        result = judge_all(
            [Measured(str(i), one.seeds, one.returns) for i, one in enumerate(cases)], release, settings
        )
        found += any(one.superior for one in result.candidates)
    assert found / 150 <= 0.05 + 2.33 * math.sqrt(0.05 * 0.95 / 150)


@pytest.mark.slow
@pytest.mark.parametrize("name", DRAWS)
def test_false_promotions_are_no_oftener_than_alpha(name: str) -> None:
    n_gates = 2000
    beyond_luck = 0.05 + 2.33 * math.sqrt(0.05 * 0.95 / n_gates)
    equal = rates(judge, DRAWS[name], 64, 0.0, n_gates)
    edge = rates(judge, DRAWS[name], 64, -MARGIN, n_gates)
    assert equal.superior <= beyond_luck
    assert equal.failed <= beyond_luck
    assert edge.passed <= beyond_luck


@pytest.mark.slow
@pytest.mark.parametrize("name", DRAWS)
def test_false_promotions_are_no_oftener_than_alpha_when_one_looks_after_every_episode(name: str) -> None:
    n_gates = 150
    beyond_luck = 0.05 + 2.33 * math.sqrt(0.05 * 0.95 / n_gates)
    assert rates(sequential_looks, DRAWS[name], 96, 0.0, n_gates).superior <= beyond_luck
    assert rates(sequential_looks, DRAWS[name], 96, -MARGIN, n_gates).passed <= beyond_luck


def test_a_true_difference_is_seen() -> None:
    found = rates(judge, DRAWS["normal"], 128, 0.5, 50)
    assert min(found.passed, found.superior) > 0.95


def test_looking_all_the_time_stops_early_where_the_difference_is_large(
    release: Measured, rng: np.random.Generator
) -> None:
    good = sequential_looks(better_by(release, 60, rng), release, QUIET)
    bad = sequential_looks(better_by(release, -90, rng), release, QUIET)
    assert (good.verdict, good.superior, good.method) == ("PASS", True, "sequential")
    assert bad.verdict == "FAIL"
    assert max(good.episodes, bad.episodes) < N / 2
    assert bad.e_inferior is not None
    assert bad.e_inferior >= 20


def test_looking_all_the_time_ends_held_when_the_episodes_are_used_up(
    release: Measured, rng: np.random.Generator
) -> None:
    result = sequential_looks(better_by(release, -5, rng, noise=60), release, QUIET)
    assert (result.verdict, result.episodes) == ("HOLD", N)
    assert result.reasons


@pytest.mark.parametrize(("lost", "open_by"), [(0.1, "mean"), (0.45, "signs")])
def test_a_sequential_gate_that_holds_asks_for_the_episodes_that_do_decide(lost: float, open_by: str) -> None:
    apart = np.where(np.arange(40) < 40 * lost, -1.0, 9.0 if open_by == "mean" else 1.3)
    apart[20] = -160.0 if open_by == "mean" else apart[20]  # a wide spread keeps the mean open
    settings = GateSettings(margin_absolute=0.1, tail_margin_absolute=500.0, guardrails=())

    def verdict_on(n: int) -> GateDTO:
        ours, theirs = np.resize(apart, n), np.zeros(n)
        return judge_sequentially(measured(ours), measured(theirs, "release"), settings)

    held = verdict_on(40)
    assert held.verdict == "HOLD"
    assert held.episodes_needed is not None
    assert f"about {held.episodes_needed} more episodes would decide" in " ".join(held.reasons)
    assert ("Signs do not tell yet" in held.reasons[-1]) == (open_by == "signs")
    rounds = math.ceil(1 + held.episodes_needed / 40)  # whole ones, in which signs keep their share
    assert verdict_on(40 * rounds).verdict == "PASS"
    assert verdict_on(40 * math.ceil(rounds / 4)).verdict == "HOLD"


def test_no_number_of_episodes_is_named_where_signs_point_the_other_way() -> None:
    apart = np.where(np.arange(40) < 22, -1.0, 9.0)
    settings = GateSettings(margin_absolute=0.1, tail_margin_absolute=500.0, guardrails=())
    held = judge_sequentially(measured(apart), measured(np.zeros(40), "release"), settings)
    assert (held.verdict, held.episodes_needed) == ("HOLD", None)


def test_the_same_returns_give_the_same_verdict_to_the_byte(
    release: Measured, rng: np.random.Generator
) -> None:
    candidate = better_by(release, 2, rng)
    first, second = (judge(candidate, release, QUIET).model_dump_json() for _ in range(2))
    assert first == second


def test_blocks_share_no_seed() -> None:
    blocks = [set(block_seeds(GateSettings(block=block, episodes=10_000))) for block in range(3)]
    assert len(set.union(*blocks)) == 30_000


def test_seeds_that_select_checkpoints_may_not_reach_into_the_gates_block() -> None:
    check_block_unseen(RunConfig())
    with pytest.raises(UsageError, match="reach into block v1/0"):
        check_block_unseen(RunConfig(evaluation=EvaluationConfig(seed=29_999_990)))
