"""Bounds and tests that hold their level, against scipy and against brute force."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from townlet_train.services.statistics import (
    anytime_critical_value,
    cvar,
    cvar_difference,
    holm_levels,
    improvement_probability,
    iqm_estimate,
    mean_estimate,
    resample_indices,
    sign_e_value,
    stratified_resamples,
    student_cdf,
    student_quantile,
    studentise,
)

p_values = st.lists(st.floats(0, 0.2), min_size=1, max_size=5)


def rejected_by_closed_testing(p_values: list[float], alpha: float) -> list[bool]:
    """Bonferroni on every set of hypotheses: one is rejected if every set that holds it is. Holm is its shortcut."""
    indices = range(len(p_values))
    sets = [chosen for n in range(1, len(p_values) + 1) for chosen in itertools.combinations(indices, n)]
    rejected = {chosen: min(p_values[i] for i in chosen) <= alpha / len(chosen) for chosen in sets}
    return [all(rejected[chosen] for chosen in sets if index in chosen) for index in indices]


@given(p_values)
def test_holm_rejects_what_closed_testing_rejects(p_values: list[float]) -> None:
    levels = holm_levels(p_values, 0.05)
    ours = [p <= level for p, level in zip(p_values, levels, strict=True)]
    assert ours == rejected_by_closed_testing(p_values, 0.05)


@pytest.mark.parametrize("freedom", [1, 2, 5, 31, 255])
@pytest.mark.parametrize("probability", [0.9, 0.95, 0.99, 0.999])
def test_students_distribution_is_scipys(freedom: int, probability: float) -> None:
    quantile = stats.t.ppf(probability, freedom)
    assert student_quantile(probability, freedom) == pytest.approx(quantile, rel=1e-4)
    assert student_cdf(quantile, freedom) == pytest.approx(probability, abs=1e-7)


def test_the_interquartile_mean_and_its_error_are_scipys(rng: np.random.Generator) -> None:
    rows = rng.standard_t(3, size=(4, 40))
    value, error, freedom = iqm_estimate(rows)
    np.testing.assert_allclose(value, stats.trim_mean(rows, 0.25, axis=1))
    np.testing.assert_allclose(
        error, [stats.mstats.trimmed_stde(row, (0.25, 0.25)) for row in rows], rtol=0.03
    )
    assert freedom == 19


def test_the_tail_is_the_mean_of_the_worst_tenth_and_a_fraction_counts_as_such() -> None:
    values = np.arange(25.0)[::-1]
    assert cvar(values, 0.1) == pytest.approx((0 + 1 + 0.5 * 2) / 2.5)
    assert cvar(values, 0.2) == pytest.approx((0 + 1 + 2 + 3 + 4) / 5)


def test_the_error_of_the_tails_difference_is_that_of_repeated_samples(rng: np.random.Generator) -> None:
    shared = rng.normal(size=(4000, 200))
    first, second = shared + rng.normal(size=shared.shape), shared + rng.normal(size=shared.shape)
    estimate = cvar_difference(first, second)
    assert estimate.error.mean() == pytest.approx(estimate.value.std(), rel=0.1)


def test_bounds_are_no_tighter_than_students(rng: np.random.Generator) -> None:
    values = rng.exponential(size=50)
    found = studentise(mean_estimate, values, indices=resample_indices(50, 999, rng))
    interval = stats.t.interval(0.9, 49, values.mean(), values.std(ddof=1) / math.sqrt(50))
    assert found.low(0.05) <= interval[0] + 1e-6
    assert found.high(0.05) > interval[1]  # the long tail is above


@settings(max_examples=25, deadline=None)
@given(st.floats(-1, 1), st.integers(0, 1000))
def test_a_p_value_says_at_which_level_a_bound_excludes_the_limit(limit: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    found = studentise(mean_estimate, rng.normal(size=40), indices=resample_indices(40, 499, rng))
    p_value = found.p_above(limit)
    if p_value < 0.9:
        assert found.low(min(p_value + 0.005, 0.95)) >= limit
    if p_value > 0.01:
        assert found.low(p_value - 0.005) <= limit


def test_equal_values_leave_no_doubt(rng: np.random.Generator) -> None:
    found = studentise(mean_estimate, np.full(30, 2.0), indices=resample_indices(30, 99, rng))
    assert (found.low(0.01), found.high(0.01)) == (2.0, 2.0)
    assert (found.p_above(2.0), found.p_above(2.1)) == (1 / 100, 1.0)  # (k + 1) / (n + 1) with k = 0


def test_a_fair_game_leaves_the_capital_as_it_is_and_an_unfair_one_shrinks_it() -> None:
    for wins, losses in itertools.product(range(6), repeat=2):
        now, up, down = (
            sign_e_value(wins, losses),
            sign_e_value(wins + 1, losses),
            sign_e_value(wins, losses + 1),
        )
        assert (up + down) / 2 == pytest.approx(now)
        assert 0.4 * up + 0.6 * down < now


def test_peeking_at_the_capital_after_every_episode_promotes_no_oftener_than_alpha() -> None:
    rng = np.random.default_rng(5)
    wins = np.cumsum(rng.random((2000, 500)) < 0.5, axis=1)
    n = np.arange(1, 501)
    capital = np.array([[sign_e_value(w, m - w) for w in range(m + 1)] + [0.0] * (500 - m) for m in n])
    ever = (np.take_along_axis(capital[None], wins[:, :, None], axis=2)[..., 0] >= 20).any(axis=1).mean()
    peeking_at_p = (stats.binom.sf(wins - 1, n, 0.5) <= 0.05).any(axis=1).mean()
    assert ever <= 0.05 < 0.2 < peeking_at_p


@pytest.mark.parametrize("draw", ["normal", "heavy", "ties"])
def test_bounds_at_any_time_hold_while_one_peeks_from_the_first_look_on(draw: str) -> None:
    rng = np.random.default_rng(6)
    size = (2000, 400)
    values = {
        "normal": rng.normal(size=size),
        "heavy": rng.standard_t(3, size=size),
        "ties": np.where(rng.random(size) < 0.7, 0.0, rng.normal(size=size)),
    }[draw]
    n = np.arange(1, 401)
    mean = np.cumsum(values, axis=1) / n
    deviation = np.sqrt(np.maximum(np.cumsum(values**2, axis=1) / n - mean**2, 0))
    critical = np.array([anytime_critical_value(m, 0.05, max(m - 1, 1)) for m in n])
    missed = (mean - critical * deviation / np.sqrt(n) > 0)[:, 31:].any(axis=1).mean()
    assert missed <= 0.05 + 1.96 * math.sqrt(0.05 * 0.95 / 2000)


def test_the_probability_of_improvement_is_mann_whitneys(rng: np.random.Generator) -> None:
    first, second = rng.integers(0, 6, 9).astype(float), rng.integers(0, 6, 7).astype(float)
    u = stats.mannwhitneyu(first, second).statistic
    assert float(improvement_probability(first, second)) == pytest.approx(u / 63)


def test_resampled_runs_stay_in_their_stratum(rng: np.random.Generator) -> None:
    rows = stratified_resamples([np.array([1.0, 2.0]), np.array([10.0, 20.0, 30.0])], rng, resamples=50)
    assert rows.shape == (50, 5)
    assert set(rows[:, :2].ravel()) == {1.0, 2.0}
    assert set(rows[:, 2:].ravel()) == {10.0, 20.0, 30.0}
